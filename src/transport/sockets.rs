//! All open sockets: how many there may be, and how they end together.
//!
//! A socket is admitted before its handshake is answered, and has a place from then on until its session
//! has ended. Then the [sweep](super::sweep) looks after it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::seq::SliceRandom;
use slab::Slab;
use tokio::sync::{Semaphore, TryAcquireError};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::Config;
use super::limits::{AddressLimiter, LimitExceeded};
use super::metrics::TransportMetrics;
use super::rate::{Decision, RateLimit, RateLimiter, ReadSize};
use super::writer::SocketWriter;
use crate::address::Address;
use crate::panics::Panics;
use crate::protocol::{CloseCode, Time};
use crate::rejections::Limit;
use crate::sync::lock;
use crate::time::Clock;

/// How often is logged that addresses were turned down.
const LOG_EVERY: Duration = Duration::from_mins(1);

/// Sockets that are passed between two yields: if all of them are pinged, three milliseconds of writing.
const CHUNK: usize = 512;

/// A socket cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// As many are open as may be.
    #[error("the hub is full: come back later")]
    Full,
    /// The hub is about to stop.
    #[error("the hub restarts: come back in a moment")]
    Restarting,
    /// Its address does too much.
    #[error(transparent)]
    LimitExceeded(#[from] LimitExceeded),
}

/// All open sockets.
#[derive(Debug)]
pub struct Sockets {
    /// Places for sockets; closed when no more may open.
    permits: Semaphore,
    limit: usize,
    message_limit: usize,
    /// None where rate limits are off, as is the rate limit.
    addresses: Option<AddressLimiter>,
    rate_limit: Option<RateLimit>,
    clock: Clock,
    metrics: TransportMetrics,
    /// Who was refused because of their address since that was last logged.
    rejected_addresses: AtomicUsize,
    /// Bytes that peers may leave waiting, all together, and how many did at the last pass.
    unsent_limit: usize,
    unsent: AtomicUsize,
    /// Held for O(1), or for one chunk of the sweep.
    open: Mutex<Slab<OpenSocket>>,
}

/// One open socket.
#[derive(Debug)]
struct OpenSocket {
    writer: Arc<SocketWriter>,
    /// When the token ends that it was opened with.
    expires: Time,
}

/// A connection that is no socket yet. Dropping it lets the next one come from its address.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    sockets: Arc<Sockets>,
    address: Address,
}

/// A socket for the live activity. Dropping it lets the next one come from its address.
#[derive(Debug)]
pub(crate) struct FeedPermit {
    sockets: Arc<Sockets>,
    address: Address,
}

/// A place for one socket. Dropping it gives the place back.
#[derive(Debug)]
pub struct SocketPermit {
    sockets: Arc<Sockets>,
    address: Address,
    key: Option<usize>,
}

impl Sockets {
    /// No sockets yet.
    #[must_use]
    pub fn new(config: &Config, clock: Clock, metrics: TransportMetrics) -> Arc<Self> {
        let limit = config.max_connections.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            permits: Semaphore::new(limit),
            limit,
            message_limit: config.message_limit,
            addresses: config.limits.as_ref().map(|limits| AddressLimiter::new(limits, &clock)),
            rate_limit: config.limits.map(|limits| RateLimit::new(limits.messages, config.message_limit)),
            clock,
            metrics,
            rejected_addresses: AtomicUsize::new(0),
            unsent_limit: config.max_bytes_in_flight,
            unsent: AtomicUsize::new(0),
            open: Mutex::default(),
        })
    }

    /// Somebody asks for a socket from this address, which counts whether they get one or not. Asked before their
    /// token is looked at, so that whoever guesses tokens is slowed down.
    ///
    /// # Errors
    /// The address asks too fast, or has as many sockets as may be.
    pub(crate) fn check_address(&self, address: Address) -> Result<(), LimitExceeded> {
        let asked = self.addresses.as_ref().map_or(Ok(()), |addresses| addresses.check_open(address));
        asked.inspect_err(|limit| self.count_rejection(*limit))
    }

    /// Keeps a place for a socket that is about to open, from this address.
    ///
    /// # Errors
    /// The hub is full or about to stop, or the address does too much.
    pub fn admit(self: &Arc<Self>, address: Address) -> Result<SocketPermit, AdmitError> {
        self.try_acquire(address).inspect_err(|refused| match refused {
            AdmitError::Full => self.metrics.rejections.limited(Limit::Sockets),
            AdmitError::LimitExceeded(limit) => self.count_rejection(*limit),
            AdmitError::Restarting => {}
        })?;
        Ok(SocketPermit { sockets: Arc::clone(self), address, key: None })
    }

    fn try_acquire(&self, address: Address) -> Result<(), AdmitError> {
        let permit = self.permits.try_acquire().map_err(|error| match error {
            TryAcquireError::NoPermits => AdmitError::Full,
            TryAcquireError::Closed => AdmitError::Restarting,
        })?;
        if let Some(addresses) = &self.addresses {
            addresses.add_socket(address)?;
        }
        permit.forget(); // the admission's destructor gives it back
        Ok(())
    }

    /// Lets a post from this address come, or not.
    ///
    /// # Errors
    /// The address posts too fast.
    pub(crate) fn admit_post(&self, address: Address) -> Result<(), LimitExceeded> {
        let posted = self.addresses.as_ref().map_or(Ok(()), |addresses| addresses.check_post(address));
        posted.inspect_err(|limit| self.count_rejection(*limit))
    }

    /// Lets any other request from this address come, or not.
    ///
    /// # Errors
    /// The address asks too fast.
    pub(crate) fn admit_read(&self, address: Address) -> Result<(), LimitExceeded> {
        let read = self.addresses.as_ref().map_or(Ok(()), |addresses| addresses.check_read(address));
        read.inspect_err(|limit| self.count_rejection(*limit))
    }

    /// Lets a socket from this address listen to the live activity, or not.
    ///
    /// # Errors
    /// As many do as may.
    pub(crate) fn admit_feed(self: &Arc<Self>, address: Address) -> Result<FeedPermit, LimitExceeded> {
        let listens = self.addresses.as_ref().map_or(Ok(()), |addresses| addresses.add_live_socket(address));
        listens.inspect_err(|limit| self.count_rejection(*limit))?;
        Ok(FeedPermit { sockets: Arc::clone(self), address })
    }

    /// Somebody at this address asks for what is the admin's, without a good token.
    ///
    /// # Errors
    /// The address has done so too often.
    pub(crate) fn count_admin_failure(&self, address: Address) -> Result<(), LimitExceeded> {
        let failed =
            self.addresses.as_ref().map_or(Ok(()), |addresses| addresses.check_admin_failure(address));
        failed.inspect_err(|limit| self.count_rejection(*limit))
    }

    /// Lets a connection from this address come, or not.
    ///
    /// # Errors
    /// The address has too many that are no sockets.
    pub(crate) fn admit_connection(
        self: &Arc<Self>,
        address: Address,
    ) -> Result<ConnectionPermit, LimitExceeded> {
        let connected = self.addresses.as_ref().map_or(Ok(()), |addresses| addresses.add_connection(address));
        connected.inspect_err(|limit| self.count_rejection(*limit))?;
        Ok(ConnectionPermit { sockets: Arc::clone(self), address })
    }

    fn count_rejection(&self, limit: LimitExceeded) {
        self.metrics.rejections.limited(limit.into());
        self.rejected_addresses.fetch_add(1, Ordering::Relaxed);
    }

    /// How many may be open.
    #[must_use]
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// How many bytes waited for their peers at the last pass of the sweep.
    #[must_use]
    pub(crate) fn unsent(&self) -> usize {
        self.unsent.load(Ordering::Relaxed)
    }

    pub(super) fn set_unsent(&self, bytes: usize) {
        self.unsent.store(bytes, Ordering::Relaxed);
    }

    /// How many bytes more than allowed waited for their peers at the last pass.
    pub(super) fn excess(&self) -> usize {
        self.unsent().saturating_sub(self.unsent_limit)
    }

    pub(super) fn metrics(&self) -> &TransportMetrics {
        &self.metrics
    }

    /// How many places are taken.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.limit - self.permits.available_permits()
    }

    /// Whether the hub is about to stop.
    #[must_use]
    pub(crate) fn is_closed(&self) -> bool {
        self.permits.is_closed()
    }

    /// Looks at one chunk of all sockets and at the ends of their tokens, and returns those about which
    /// something is to be done, with what that is. None after the last chunk.
    pub(super) fn sweep_chunk<T>(
        &self,
        chunk: usize,
        mut decide: impl FnMut(&SocketWriter, Time) -> Option<T>,
    ) -> Option<Vec<(Arc<SocketWriter>, T)>> {
        let open = lock(&self.open);
        let from = chunk * CHUNK;
        let keys = from..open.capacity().min(from + CHUNK);
        let mut due =
            |open: &OpenSocket| decide(&open.writer, open.expires).map(|due| (Arc::clone(&open.writer), due));
        (!keys.is_empty()).then(|| keys.filter_map(|key| open.get(key)).filter_map(&mut due).collect())
    }

    /// Forgets who has gone, and tells of those who were turned down.
    pub(super) fn prune_addresses(&self, logged: &mut Instant) {
        if let Some(addresses) = &self.addresses {
            addresses.remove_idle();
        }
        if logged.elapsed() >= LOG_EVERY {
            *logged = Instant::now();
            let count = self.rejected_addresses.swap(0, Ordering::Relaxed);
            if count > 0 {
                warn!(count, "turned down: too many from one address (behind a proxy, set CLIENT_IP_HEADER)");
            }
        }
    }

    /// Admits no more sockets and closes the open ones, in random order and evenly over `spread`, so
    /// that they do not all come back at once.
    pub(crate) async fn close_all(&self, code: CloseCode, spread: Duration) {
        self.permits.close();
        let mut writers: Vec<_> = lock(&self.open).iter().map(|(_, open)| Arc::clone(&open.writer)).collect();
        writers.shuffle(&mut rand::rng());
        let started = Instant::now();
        let count = u32::try_from(writers.len()).unwrap_or(u32::MAX);
        for (index, writer) in (0_u32..).zip(writers) {
            sleep_until(started + spread * index / count).await;
            writer.close(code);
        }
    }

    /// Cuts off whoever is still there.
    pub(crate) fn abort_all(&self) {
        self.permits.close();
        for (_, open) in lock(&self.open).iter() {
            open.writer.abort();
        }
    }
}

impl SocketPermit {
    /// The socket is open: from now on the sweep looks after it.
    pub(crate) fn register(&mut self, writer: &Arc<SocketWriter>) {
        let open = OpenSocket { writer: Arc::clone(writer), expires: Time::MAX };
        self.key = Some(lock(&self.sockets.open).insert(open));
        if self.sockets.is_closed() {
            // It was on its way when the others were closed.
            writer.close(CloseCode::Restarting);
        }
    }

    /// From then on the sweep closes the socket.
    pub(crate) fn set_expiry(&self, expires: Time) {
        let mut open = lock(&self.sockets.open);
        if let Some(open) = self.key.and_then(|key| open.get_mut(key)) {
            open.expires = expires;
        }
    }

    /// Moves the end of the socket to another time, unless that is sooner, and says whether it did.
    #[must_use]
    pub(crate) fn extend_expiry(&self, expires: Time) -> bool {
        let mut open = lock(&self.sockets.open);
        let open = self.key.and_then(|key| open.get_mut(key)).filter(|open| open.expires <= expires);
        open.map(|open| open.expires = expires).is_some()
    }

    /// Where the socket comes from.
    #[must_use]
    pub(crate) fn address(&self) -> Address {
        self.address
    }

    /// What becomes of a session that panics.
    #[must_use]
    pub(crate) fn panics(&self) -> &Panics {
        &self.sockets.metrics.panics
    }

    /// The longest message that may come on the socket, in bytes.
    #[must_use]
    pub(crate) fn message_limit(&self) -> usize {
        self.sockets.message_limit
    }

    /// A message has come on the socket, whose rate this is.
    pub(crate) fn check_message(&self, rate: &mut RateLimiter) -> Decision {
        let Sockets { rate_limit, clock, metrics, .. } = &*self.sockets;
        let decision =
            rate_limit.map_or(Decision::Allow, |rate_limit| rate.check_message(rate_limit, clock.elapsed()));
        if decision != Decision::Allow {
            metrics.rejections.limited(Limit::MessageRate);
        }
        decision
    }

    /// This was read from the socket, whose rate this is. Says whether it may go on.
    pub(crate) fn check_read(&self, rate: &mut RateLimiter, read: ReadSize) -> bool {
        let Sockets { rate_limit, clock, metrics, .. } = &*self.sockets;
        let is_allowed =
            rate_limit.is_none_or(|rate_limit| rate.check_read(rate_limit, read, clock.elapsed()));
        if !is_allowed {
            metrics.rejections.limited(Limit::FrameRate);
        }
        is_allowed
    }

    /// A message had too many frames.
    pub(crate) fn count_too_many_frames(&self) {
        self.sockets.metrics.rejections.limited(Limit::MessageFrames);
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some(addresses) = &self.sockets.addresses {
            addresses.remove_connection(self.address);
        }
    }
}

impl Drop for FeedPermit {
    fn drop(&mut self) {
        if let Some(addresses) = &self.sockets.addresses {
            addresses.remove_live_socket(self.address);
        }
    }
}

impl Drop for SocketPermit {
    fn drop(&mut self) {
        let open = self.key.and_then(|key| lock(&self.sockets.open).try_remove(key));
        drop(open); // not under the lock: it is often the last hold on the connection, and closes it
        if let Some(addresses) = &self.sockets.addresses {
            addresses.remove_socket(self.address);
        }
        self.sockets.permits.add_permits(1);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::rejections::Rejections;

    #[tokio::test]
    async fn places_are_counted_and_end_with_the_hub() {
        let config = Config { max_connections: 2, ..Config::default() };
        let sockets = Sockets::new(
            &config,
            Clock::system(),
            TransportMetrics::register(Rejections::register(), Panics::register()),
        );
        let address = Ipv4Addr::LOCALHOST.into();
        let first = sockets.admit(address).unwrap();
        let _second = sockets.admit(address).unwrap();
        assert_eq!(sockets.admit(address).unwrap_err(), AdmitError::Full);
        drop(first);
        assert_eq!(sockets.len(), 1);
        sockets.close_all(CloseCode::Restarting, Duration::ZERO).await;
        assert_eq!(sockets.admit(address).unwrap_err(), AdmitError::Restarting);
    }
}
