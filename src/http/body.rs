//! Request bodies: limits of size, time and number of chunks, a memory budget that addresses share, and draining.
//!
//! If a connection is closed while received bytes are unread, TCP resets it, and the reset may overtake the response.
//! So what a handler does not read of a body is read and discarded before the response is sent, up to a limit.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::EXPECT;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::time::timeout;

use super::error::ApiError;
use crate::address::Address;
use crate::quota::{Quota, Sharing};
use crate::sync::lock;

/// The maximum length of a body, in bytes, before and after its decompression.
pub(super) const BODY_LIMIT: usize = 64 * 1024;

/// Memory for a body is reserved in steps of this many bytes, as they arrive.
const RESERVE_STEP: usize = 4 * 1024;

/// The minimum budget, in bytes: a single address may use 7/16 of it, which is enough for a whole body.
const MIN_BUDGET: usize = 4 * BODY_LIMIT;

/// How many chunks a body may have, in addition to one for every [`BYTES_PER_CHUNK`].
const BASE_CHUNKS: usize = 256;

/// The minimum average size of further chunks, in bytes. Reading a chunk costs as much as reading some hundred bytes.
const BYTES_PER_CHUNK: usize = 64;

/// The maximum number of bytes that are read of a body only to discard them.
const DRAIN_LIMIT: usize = 256 * 1024;

/// How long a body is read only to discard it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The memory for all request bodies in flight, shared between addresses by a quota.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    quota: Arc<Quota>,
    timeout: Duration,
}

impl BodyBudget {
    /// A budget of `bytes`, at least [`MIN_BUDGET`]. Each body has to arrive within `timeout`.
    pub(crate) fn new(bytes: usize, sharing: Sharing, timeout: Duration) -> Self {
        Self { quota: Arc::new(Quota::new(bytes.max(MIN_BUDGET) as u64, sharing)), timeout }
    }

    /// Reads a whole body of at most [`BODY_LIMIT`] from `address`.
    /// Errors: the body is too large, is incomplete, takes too long, has too many chunks, or exceeds the budget.
    pub(crate) async fn read(&self, address: Address, body: Body) -> Result<Vec<u8>, ApiError> {
        if body.size_hint().lower() > BODY_LIMIT as u64 {
            return Err(ApiError::TooLarge(BODY_LIMIT));
        }
        timeout(self.timeout, self.collect(address, body)).await.map_err(|_| ApiError::BodyTimeout)?
    }

    async fn collect(&self, address: Address, mut body: Body) -> Result<Vec<u8>, ApiError> {
        let mut permit = self.quota.try_acquire(address, 0)?;
        let (mut bytes, mut chunks) = (Vec::new(), ChunkCounter::default());
        while let Some(frame) = body.frame().await {
            // A frame without data is a trailer.
            let Ok(data) = frame.map_err(|_| ApiError::BrokenBody)?.into_data() else { continue };
            let length = bytes.len() + data.len();
            if length > BODY_LIMIT {
                return Err(ApiError::TooLarge(BODY_LIMIT));
            }
            if !chunks.add(data.len()) {
                return Err(ApiError::TooManyChunks);
            }
            if length > bytes.capacity() {
                let capacity = length.next_multiple_of(RESERVE_STEP);
                permit.grow((capacity - bytes.capacity()) as u64)?;
                bytes.reserve_exact(capacity - bytes.len());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    }
}

/// Counts the chunks of one body, as they arrive: chunks of HTTP/1.1, frames of HTTP/2, or packets.
#[derive(Debug, Default)]
struct ChunkCounter {
    chunks: usize,
    bytes: usize,
}

impl ChunkCounter {
    /// Counts a chunk of `bytes`. Returns whether the body is still within the limit.
    fn add(&mut self, bytes: usize) -> bool {
        self.chunks += 1;
        self.bytes += bytes;
        self.chunks <= BASE_CHUNKS + self.bytes / BYTES_PER_CHUNK
    }
}

/// Runs `respond`, and drains what it left unread of the request's body, up to a limit, before the response is sent.
pub(crate) async fn drain<F: Future<Output = Response>>(
    request: Request,
    respond: impl FnOnce(Request) -> F,
) -> Response {
    if request.body().is_end_stream() {
        return respond(request).await;
    }
    // A client with `Expect: 100-continue` sends no body after a final response. Reading would ask it for one (100).
    let expects_continue = request.headers().contains_key(EXPECT);
    let (head, body) = request.into_parts();
    let (tracked, unread) = track(body);
    let response = respond(Request::from_parts(head, Body::new(tracked))).await;
    let unread = lock(&unread).take();
    if let Some(Unread { body, is_started }) = unread
        && (is_started || !expects_continue)
        && response.status() != StatusCode::REQUEST_TIMEOUT
        && body.size_hint().lower() <= DRAIN_LIMIT as u64
    {
        let _ = timeout(DRAIN_TIMEOUT, discard(body)).await;
    }
    response
}

async fn discard(mut body: Body) {
    let mut chunks = ChunkCounter::default();
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        if !chunks.add(bytes) || chunks.bytes > DRAIN_LIMIT {
            return;
        }
    }
}

/// What a handler has not read of a body.
#[derive(Debug)]
struct Unread {
    body: Body,
    /// Whether the handler has started to read.
    is_started: bool,
}

/// A body that stores its unread rest in `rest` when it is dropped.
#[derive(Debug)]
struct TrackedBody {
    body: Option<Unread>,
    /// Held for O(1).
    rest: Arc<Mutex<Option<Unread>>>,
}

fn track(body: Body) -> (TrackedBody, Arc<Mutex<Option<Unread>>>) {
    let rest = Arc::default();
    (TrackedBody { body: Some(Unread { body, is_started: false }), rest: Arc::clone(&rest) }, rest)
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(unread) = &mut self.body else { return Poll::Ready(None) };
        unread.is_started = true;
        let frame = ready!(Pin::new(&mut unread.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None; // the end, or an error
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|unread| unread.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, |unread| unread.body.size_hint())
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        *lock(&self.rest) = self.body.take();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::Ipv4Addr;

    use futures_util::stream::{self, StreamExt};

    use super::*;
    use crate::quota::Exhausted;

    const LONG: Duration = Duration::from_hours(1);

    fn address(last: u8) -> Address {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    /// A body that sends `chunks` of `bytes` each and then stalls.
    fn stalled(chunks: usize, bytes: usize) -> Body {
        let chunks =
            stream::iter((0..chunks).map(move |_| Ok::<_, io::Error>(Bytes::from(vec![b' '; bytes]))));
        Body::from_stream(chunks.chain(stream::pending()))
    }

    #[tokio::test]
    async fn stalled_body_times_out_and_frees_its_budget() {
        let budget = BodyBudget::new(0, Sharing::Fair, Duration::from_millis(1));
        assert!(matches!(budget.read(address(1), stalled(1, 10)).await, Err(ApiError::BodyTimeout)));
        assert!(budget.read(address(1), Body::from("{}")).await.is_ok());
        assert_eq!(budget.quota.used(), 0);
    }

    #[tokio::test]
    async fn body_uses_budget_as_bytes_arrive() {
        let budget = BodyBudget::new(0, Sharing::Fair, LONG);
        let mut idle: Vec<_> = (0..20).map(|_| Box::pin(budget.read(address(1), stalled(0, 0)))).collect();
        for body in &mut idle {
            assert!(futures_util::poll!(body).is_pending());
        }
        assert_eq!(budget.quota.used(), 0, "20 reservations of 64 KiB would exceed the budget");
        let mut started = Box::pin(budget.read(address(1), stalled(1, 1)));
        assert!(futures_util::poll!(&mut started).is_pending());
        assert_eq!(budget.quota.used(), RESERVE_STEP as u64);
        assert_eq!(
            budget.read(address(2), Body::from(vec![b' '; BODY_LIMIT])).await.unwrap().len(),
            BODY_LIMIT
        );
    }

    #[tokio::test]
    async fn one_address_cannot_use_the_whole_budget() {
        let budget = BodyBudget::new(0, Sharing::Fair, LONG);
        let mut greedy: Vec<_> = (0..100).map(|_| Box::pin(budget.read(address(1), stalled(1, 1)))).collect();
        let mut rejected = 0;
        for body in &mut greedy {
            match futures_util::poll!(body) {
                Poll::Pending => {}
                Poll::Ready(Err(ApiError::BodiesOverBudget(Exhausted::Address))) => rejected += 1,
                Poll::Ready(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(rejected, 72, "28 steps of 4 KiB are 7/16 of 256 KiB");
        assert!(budget.read(address(2), Body::from(vec![b' '; BODY_LIMIT / 2])).await.is_ok());
    }

    #[tokio::test]
    async fn first_come_sharing_gives_one_address_the_whole_budget() {
        let budget = BodyBudget::new(0, Sharing::FirstCome, LONG);
        let mut slow: Vec<_> = (0..64).map(|_| Box::pin(budget.read(address(1), stalled(1, 1)))).collect();
        for body in &mut slow {
            assert!(futures_util::poll!(body).is_pending());
        }
        let full = budget.read(address(2), Body::from("{}")).await;
        assert!(matches!(full, Err(ApiError::BodiesOverBudget(Exhausted::Total))), "{full:?}");
    }

    #[tokio::test]
    async fn body_over_the_limit_is_rejected_with_and_without_known_length() {
        let long = Bytes::from(vec![b' '; BODY_LIMIT + 1]);
        let streamed = stream::iter([Ok::<_, io::Error>(long.clone())]);
        for body in [Body::from(long), Body::from_stream(streamed)] {
            let read = BodyBudget::new(0, Sharing::Fair, LONG).read(address(1), body).await;
            assert!(matches!(read, Err(ApiError::TooLarge(BODY_LIMIT))));
        }
    }

    #[tokio::test]
    async fn body_with_too_many_small_chunks_is_rejected() {
        let budget = BodyBudget::new(0, Sharing::Fair, LONG);
        let read = async |chunks: usize, bytes: usize| {
            let chunks =
                stream::iter((0..chunks).map(move |_| Ok::<_, io::Error>(Bytes::from(vec![b' '; bytes]))));
            budget.read(address(1), Body::from_stream(chunks)).await
        };
        assert_eq!(read(BASE_CHUNKS, 1).await.unwrap().len(), BASE_CHUNKS);
        assert!(matches!(read(300, 1).await, Err(ApiError::TooManyChunks)));
        assert_eq!(read(1_000, BYTES_PER_CHUNK).await.unwrap().len(), 64_000);
        assert_eq!(budget.quota.used(), 0);
    }
}
