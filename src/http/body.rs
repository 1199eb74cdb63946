//! BodyBudget of requests: how much of them is on its way at once, for all and for each address, in how many pieces, and
//! what becomes of a body that nobody reads.
//!
//! A connection that is closed while bytes wait to be read is reset, and a reset may overtake the answer. So what a
//! handler leaves of a body is read and dropped before the answer, up to a bound.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::EXPECT;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::time::timeout;

use super::error::ApiError;
use crate::address::Address;
use crate::quota::{Quota, Sharing};
use crate::sync::lock;

/// The longest body, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// Room for a body is taken in steps of so many bytes, as they come.
const STEP: usize = 4 * 1024;

/// The least room for bodies: an address alone, which has 7/16 of it, can send a whole one.
const ROOM_MIN: usize = 4 * BODY_LIMIT;

/// How many pieces a body may have besides one for each [`PIECE`] of its bytes.
const PIECES: usize = 256;

/// How many bytes a piece has at least, on average. A piece costs as much as some hundred bytes do.
const PIECE: usize = 64;

/// What is read at most of a body that nobody wants, in bytes.
const DRAIN_LIMIT: usize = 256 * 1024;

/// How long the rest of a body is waited for that nobody wants.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Room for the bodies that are on their way.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    room: Arc<Quota>,
    patience: Duration,
}

impl BodyBudget {
    /// Room for so many bytes, at least for four bodies, each of which may take so long.
    #[must_use]
    pub(crate) fn new(bytes: usize, sharing: Sharing, patience: Duration) -> Self {
        Self { room: Arc::new(Quota::new(bytes.max(ROOM_MIN) as u64, sharing)), patience }
    }

    /// A whole body from an address, up to the limit of one.
    ///
    /// # Errors
    /// It is too large, breaks off, takes too long or has too many pieces, or there is no room for it.
    pub(crate) async fn read(&self, address: Address, body: Body) -> Result<Vec<u8>, ApiError> {
        if body.size_hint().lower() > BODY_LIMIT as u64 {
            return Err(ApiError::TooLarge(BODY_LIMIT));
        }
        timeout(self.patience, self.collect(address, body)).await.map_err(|_| ApiError::SlowBody)?
    }

    async fn collect(&self, address: Address, mut body: Body) -> Result<Vec<u8>, ApiError> {
        let mut room = self.room.try_acquire(address, 0)?;
        let (mut whole, mut pieces) = (Vec::new(), Pieces::default());
        while let Some(frame) = body.frame().await {
            // What is no data is a trailer.
            let Ok(data) = frame.map_err(|_| ApiError::BrokenBody)?.into_data() else { continue };
            let length = whole.len() + data.len();
            if length > BODY_LIMIT {
                return Err(ApiError::TooLarge(BODY_LIMIT));
            }
            if !pieces.may_have(data.len()) {
                return Err(ApiError::Pieces);
            }
            if length > whole.capacity() {
                let capacity = length.next_multiple_of(STEP);
                room.grow((capacity - whole.capacity()) as u64)?;
                whole.reserve_exact(capacity - whole.len());
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole)
    }
}

/// How many pieces of a body have come. Each chunk is one, and each packet.
#[derive(Debug, Default)]
struct Pieces {
    count: usize,
    bytes: usize,
}

impl Pieces {
    /// Whether one more, of so many bytes, is not one too many.
    fn may_have(&mut self, bytes: usize) -> bool {
        self.count += 1;
        self.bytes += bytes;
        self.count <= PIECES + self.bytes / PIECE
    }
}

/// Answers, and reads before that what the handler has left of the body, up to a bound.
pub(crate) async fn drain(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    // Who asks first sends no body after an answer, and is not told to.
    let asks_first = request.headers().contains_key(EXPECT);
    let (head, body) = request.into_parts();
    let (shared, left) = lend(body);
    let response = next.run(Request::from_parts(head, Body::new(shared))).await;
    let left = lock(&left).take();
    if let Some(Left { body, is_begun }) = left
        && (is_begun || !asks_first)
        && response.status() != StatusCode::REQUEST_TIMEOUT
        && body.size_hint().lower() <= DRAIN_LIMIT as u64
    {
        let _ = timeout(DRAIN_TIME, discard(body)).await;
    }
    response
}

async fn discard(mut body: Body) {
    let mut pieces = Pieces::default();
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        if !pieces.may_have(bytes) || pieces.bytes > DRAIN_LIMIT {
            return;
        }
    }
}

/// What a handler has not read of a body, and whether it has begun to.
#[derive(Debug)]
struct Left {
    body: Body,
    is_begun: bool,
}

/// A body that comes back when it is dropped.
#[derive(Debug)]
struct Lent {
    body: Option<Left>,
    /// Held for O(1).
    owner: Arc<Mutex<Option<Left>>>,
}

fn lend(body: Body) -> (Lent, Arc<Mutex<Option<Left>>>) {
    let owner = Arc::default();
    (Lent { body: Some(Left { body, is_begun: false }), owner: Arc::clone(&owner) }, owner)
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(left) = &mut self.body else { return Poll::Ready(None) };
        left.is_begun = true;
        let frame = ready!(Pin::new(&mut left.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None; // nothing is left
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|left| left.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, |left| left.body.size_hint())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *lock(&self.owner) = self.body.take();
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

    /// A body that sends so many pieces of so many bytes, and then nothing more and no end.
    fn stuck(pieces: usize, bytes: usize) -> Body {
        let pieces =
            stream::iter((0..pieces).map(move |_| Ok::<_, io::Error>(Bytes::from(vec![b' '; bytes]))));
        Body::from_stream(pieces.chain(stream::pending()))
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up_and_its_room_is_free() {
        let bodies = BodyBudget::new(0, Sharing::Fair, Duration::from_millis(1));
        assert!(matches!(bodies.read(address(1), stuck(1, 10)).await, Err(ApiError::SlowBody)));
        assert!(bodies.read(address(1), Body::from("{}")).await.is_ok());
        assert_eq!(bodies.room.used(), 0);
    }

    #[tokio::test]
    async fn a_body_takes_room_as_it_comes_and_not_before() {
        let bodies = BodyBudget::new(0, Sharing::Fair, LONG);
        let mut waiting: Vec<_> = (0..20).map(|_| Box::pin(bodies.read(address(1), stuck(0, 0)))).collect();
        for body in &mut waiting {
            assert!(futures_util::poll!(body).is_pending());
        }
        assert_eq!(bodies.room.used(), 0, "64 KiB each by their limit, which is more than there is");
        let mut begun = Box::pin(bodies.read(address(1), stuck(1, 1)));
        assert!(futures_util::poll!(&mut begun).is_pending());
        assert_eq!(bodies.room.used(), STEP as u64);
        assert_eq!(
            bodies.read(address(2), Body::from(vec![b' '; BODY_LIMIT])).await.unwrap().len(),
            BODY_LIMIT
        );
    }

    #[tokio::test]
    async fn one_address_leaves_room_for_the_bodies_of_others() {
        let bodies = BodyBudget::new(0, Sharing::Fair, LONG);
        let mut greedy: Vec<_> = (0..100).map(|_| Box::pin(bodies.read(address(1), stuck(1, 1)))).collect();
        let mut rejected = 0;
        for body in &mut greedy {
            match futures_util::poll!(body) {
                Poll::Pending => {}
                Poll::Ready(Err(ApiError::BodyBudget(Exhausted::Address))) => rejected += 1,
                Poll::Ready(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(rejected, 72, "28 steps are 7/16 of 256 KiB");
        assert!(bodies.read(address(2), Body::from(vec![b' '; BODY_LIMIT / 2])).await.is_ok());
    }

    #[tokio::test]
    async fn without_rate_limits_bodies_have_all_the_room_there_is() {
        let bodies = BodyBudget::new(0, Sharing::FirstCome, LONG);
        let mut slow: Vec<_> = (0..64).map(|_| Box::pin(bodies.read(address(1), stuck(1, 1)))).collect();
        for body in &mut slow {
            assert!(futures_util::poll!(body).is_pending());
        }
        let full = bodies.read(address(2), Body::from("{}")).await;
        assert!(matches!(full, Err(ApiError::BodyBudget(Exhausted::Total))), "{full:?}");
    }

    #[tokio::test]
    async fn a_body_has_a_longest_length_whether_it_tells_it_or_not() {
        let long = Bytes::from(vec![b' '; BODY_LIMIT + 1]);
        let streamed = stream::iter([Ok::<_, io::Error>(long.clone())]);
        for body in [Body::from(long), Body::from_stream(streamed)] {
            let read = BodyBudget::new(0, Sharing::Fair, LONG).read(address(1), body).await;
            assert!(matches!(read, Err(ApiError::TooLarge(BODY_LIMIT))));
        }
    }

    #[tokio::test]
    async fn a_body_of_tiny_chunks_is_given_up_after_some_hundred() {
        let bodies = BodyBudget::new(0, Sharing::Fair, LONG);
        let read = async |pieces: usize, bytes: usize| {
            let pieces =
                stream::iter((0..pieces).map(move |_| Ok::<_, io::Error>(Bytes::from(vec![b' '; bytes]))));
            bodies.read(address(1), Body::from_stream(pieces)).await
        };
        assert_eq!(read(PIECES, 1).await.unwrap().len(), PIECES);
        assert!(matches!(read(300, 1).await, Err(ApiError::Pieces)));
        assert_eq!(read(1_000, PIECE).await.unwrap().len(), 64_000);
        assert_eq!(bodies.room.used(), 0);
    }
}
