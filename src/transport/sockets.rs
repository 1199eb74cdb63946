//! All open sockets: admission within the limits, and their common end at a graceful shutdown.
//!
//! A socket gets a permit before the response to its handshake, and has it until its session has ended. The
//! [sweep](super::sweep) checks it in between.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use rand::seq::SliceRandom;
use slab::Slab;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::Config;
use super::fair_queue::{FairQueue, Place, RequestTurn};
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

/// The shortest time between two log lines about rejected addresses.
const LOG_EVERY: Duration = Duration::from_mins(1);

/// Sockets of the sweep between two yields: three milliseconds of writing if all of them get a ping.
const CHUNK: usize = 512;

/// Why a socket is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// The hub has as many open sockets as allowed.
    #[error("the hub is full: try again later")]
    Full,
    /// The hub shuts down.
    #[error("the hub restarts: try again in a moment")]
    Restarting,
    /// Its address has reached a limit.
    #[error(transparent)]
    LimitExceeded(#[from] LimitExceeded),
}

/// Why a visitor cannot sit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SitLimit {
    /// As many visitors sit as the hub may have sockets.
    #[error("too many visitors of this hub sit: try again later")]
    Hub,
    /// As many visitors sit from this address as it may have sockets.
    #[error("too many visitors sit from your address")]
    Address,
}

/// All open sockets.
#[derive(Debug)]
pub struct Sockets {
    /// One permit for each socket; closed at the shutdown.
    permits: Semaphore,
    /// One permit for each sit.
    sits: Arc<Semaphore>,
    limit: usize,
    message_limit: usize,
    /// None if rate limits are off, like the next two.
    addresses: Option<AddressLimiter>,
    fair_queue: Option<Arc<FairQueue>>,
    rate_limit: Option<RateLimit>,
    clock: Clock,
    metrics: TransportMetrics,
    /// Rejections because of an address since the last log line.
    rejected_addresses: AtomicUsize,
    /// The most unsent bytes of all sockets, and their number at the last sweep.
    unsent_limit: usize,
    unsent: AtomicUsize,
    /// Held for O(1), or for one chunk of the sweep.
    open: Mutex<Slab<OpenSocket>>,
}

/// One open socket.
#[derive(Debug)]
struct OpenSocket {
    writer: Arc<SocketWriter>,
    /// When its token expires.
    expires: Time,
}

/// The permit of a connection that is not a socket. Dropping it releases the permit.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    sockets: Arc<Sockets>,
    address: Address,
}

/// The permit of a socket for the live activity, besides its [`SocketPermit`]. Dropping it releases the permit.
#[derive(Debug)]
pub(crate) struct FeedPermit {
    sockets: Arc<Sockets>,
    address: Address,
}

/// The permit of one visitor's sit in one room, whose socket may be lost. Dropping it releases the permit.
#[derive(Debug)]
pub(crate) struct SitPermit {
    sockets: Arc<Sockets>,
    /// Shared with the permit that replaces this one when the visitor comes from another address.
    hub: Arc<OwnedSemaphorePermit>,
    /// None for a sit of before the hub's start.
    address: Option<Address>,
}

/// The permit of one socket. Dropping it releases the permit.
#[derive(Debug)]
pub struct SocketPermit {
    sockets: Arc<Sockets>,
    address: Address,
    key: Option<usize>,
    place: Place,
}

impl Sockets {
    /// A set without sockets.
    #[must_use]
    pub fn new(config: &Config, clock: Clock, metrics: TransportMetrics) -> Arc<Self> {
        let limit = config.max_connections.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            permits: Semaphore::new(limit),
            sits: Arc::new(Semaphore::new(limit)),
            limit,
            message_limit: config.message_limit,
            addresses: config.limits.as_ref().map(|limits| AddressLimiter::new(limits, &clock)),
            fair_queue: config.limits.map(|_| FairQueue::new(&clock, metrics.panics.clone())),
            rate_limit: config.limits.map(|limits| RateLimit::new(limits.messages, config.message_limit)),
            clock,
            metrics,
            rejected_addresses: AtomicUsize::new(0),
            unsent_limit: config.max_bytes_in_flight,
            unsent: AtomicUsize::new(0),
            open: Mutex::default(),
        })
    }

    /// Counts a request for a socket, whether or not the socket opens. To be called before the token is checked, which
    /// slows down attempts to guess tokens.
    pub(crate) fn check_address(&self, address: Address) -> Result<(), LimitExceeded> {
        self.check(|addresses| {
            addresses.socket_requests.check(address).and_then(|()| addresses.sockets.check(address))
        })
    }

    /// Admits a socket from this address.
    ///
    /// # Errors
    /// The hub is full or shuts down, or the address has reached a limit.
    pub fn admit(self: &Arc<Self>, address: Address) -> Result<SocketPermit, AdmitError> {
        self.try_acquire(address).inspect_err(|error| match error {
            AdmitError::Full => self.metrics.rejections.count_limit(Limit::Sockets),
            AdmitError::LimitExceeded(limit) => self.count_rejection(*limit),
            AdmitError::Restarting => {}
        })?;
        Ok(SocketPermit { sockets: Arc::clone(self), address, key: None, place: Place::default() })
    }

    fn try_acquire(&self, address: Address) -> Result<(), AdmitError> {
        let permit = self.permits.try_acquire().map_err(|error| match error {
            TryAcquireError::NoPermits => AdmitError::Full,
            TryAcquireError::Closed => AdmitError::Restarting,
        })?;
        if let Some(addresses) = &self.addresses {
            addresses.sockets.add(address)?;
        }
        permit.forget(); // released when the `SocketPermit` is dropped
        Ok(())
    }

    /// Waits until a request from this address may be handled, which is at once unless the address sends much.
    pub(crate) async fn turn(&self, address: Address) {
        if let Some(queue) = &self.fair_queue {
            RequestTurn::new(queue, address).await;
        }
    }

    /// Admits a post from this address.
    pub(crate) fn admit_post(&self, address: Address) -> Result<(), LimitExceeded> {
        self.check(|addresses| addresses.posts.check(address))
    }

    /// Admits a request from this address that is not a post.
    pub(crate) fn admit_read(&self, address: Address) -> Result<(), LimitExceeded> {
        self.check(|addresses| addresses.reads.check(address))
    }

    /// Admits a socket for the live activity from this address.
    pub(crate) fn admit_feed(self: &Arc<Self>, address: Address) -> Result<FeedPermit, LimitExceeded> {
        self.check(|addresses| addresses.live_sockets.add(address))?;
        Ok(FeedPermit { sockets: Arc::clone(self), address })
    }

    /// Admits a sit of a visitor at this address. Sits have limits of their own, as large as those of sockets, so that a
    /// visitor who is held never takes the place of a socket. The address of a sit of before the hub's start is not
    /// known. A visitor who sits already with the permit `current` counts once against the hub's limit.
    pub(crate) fn admit_sit(
        self: &Arc<Self>,
        address: Option<Address>,
        current: Option<&SitPermit>,
    ) -> Result<SitPermit, SitLimit> {
        let acquire = || Arc::clone(&self.sits).try_acquire_owned().map(Arc::new);
        let hub = current.map_or_else(acquire, |current| Ok(Arc::clone(&current.hub)));
        let admitted = hub.map_err(|_| SitLimit::Hub).and_then(|hub| {
            if let (Some(addresses), Some(address)) = (&self.addresses, address) {
                addresses.sits.add(address).map_err(|_| SitLimit::Address)?;
            }
            Ok(hub)
        });
        let hub = admitted.inspect_err(|limit| {
            self.metrics.rejections.count_limit(match limit {
                SitLimit::Hub => Limit::Sits,
                SitLimit::Address => Limit::AddressSits,
            });
        })?;
        Ok(SitPermit { sockets: Arc::clone(self), hub, address })
    }

    /// Counts a request from this address that needs the admin token and lacks a valid one.
    pub(crate) fn count_admin_failure(&self, address: Address) -> Result<(), LimitExceeded> {
        self.check(|addresses| addresses.admin_failures.check(address))
    }

    /// Admits a connection from this address.
    pub(crate) fn admit_connection(
        self: &Arc<Self>,
        address: Address,
    ) -> Result<ConnectionPermit, LimitExceeded> {
        self.check(|addresses| addresses.connections.add(address))?;
        Ok(ConnectionPermit { sockets: Arc::clone(self), address })
    }

    /// Runs a check of the address limiter, if there is one, and counts its rejection.
    fn check(
        &self,
        check: impl FnOnce(&AddressLimiter) -> Result<(), LimitExceeded>,
    ) -> Result<(), LimitExceeded> {
        self.addresses.as_ref().map_or(Ok(()), check).inspect_err(|limit| self.count_rejection(*limit))
    }

    fn count_rejection(&self, limit: LimitExceeded) {
        self.metrics.rejections.count_limit(limit.into());
        self.rejected_addresses.fetch_add(1, Ordering::Relaxed);
    }

    /// The most open sockets.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// The unsent bytes of all sockets at the last sweep.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent.load(Ordering::Relaxed)
    }

    pub(super) fn set_unsent(&self, bytes: usize) {
        self.unsent.store(bytes, Ordering::Relaxed);
    }

    /// The unsent bytes over the limit at the last sweep.
    pub(super) fn excess(&self) -> usize {
        self.unsent().saturating_sub(self.unsent_limit)
    }

    pub(super) fn metrics(&self) -> &TransportMetrics {
        &self.metrics
    }

    /// The number of admitted sockets.
    pub(crate) fn len(&self) -> usize {
        self.limit - self.permits.available_permits()
    }

    /// Whether the hub shuts down.
    pub(crate) fn is_closed(&self) -> bool {
        self.permits.is_closed()
    }

    /// Calls `decide` with each socket of a chunk and the expiry of its token, and returns the sockets with an action.
    /// Returns none after the last chunk.
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

    /// Drops the state of idle addresses, and logs rejections once a minute.
    pub(super) fn prune_addresses(&self, logged: &mut Instant) {
        if let Some(addresses) = &self.addresses {
            addresses.remove_idle();
        }
        if let Some(queue) = &self.fair_queue {
            queue.remove_idle();
        }
        if logged.elapsed() >= LOG_EVERY {
            *logged = Instant::now();
            let count = self.rejected_addresses.swap(0, Ordering::Relaxed);
            if count > 0 {
                warn!(
                    count,
                    "requests were rejected because of their address: behind a proxy, set CLIENT_IP_HEADER"
                );
            }
        }
    }

    /// Admits no more sockets, and closes the open ones in random order, evenly over `spread`, so that clients do not
    /// reconnect all at once.
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

    /// Admits no more sockets, and aborts the open ones.
    pub(crate) fn abort_all(&self) {
        self.permits.close();
        for (_, open) in lock(&self.open).iter() {
            open.writer.abort();
        }
    }
}

impl SocketPermit {
    /// Registers the open socket with the sweep.
    pub(crate) fn register(&mut self, writer: &Arc<SocketWriter>) {
        let open = OpenSocket { writer: Arc::clone(writer), expires: Time::MAX };
        self.key = Some(lock(&self.sockets.open).insert(open));
        if self.sockets.is_closed() {
            // The handshake completed after `close_all`.
            writer.close(CloseCode::Restarting);
        }
    }

    /// Sets when the socket's token expires. The sweep closes the socket then.
    pub(crate) fn set_expiry(&self, expires: Time) {
        let mut open = lock(&self.sockets.open);
        if let Some(open) = self.key.and_then(|key| open.get_mut(key)) {
            open.expires = expires;
        }
    }

    /// Extends the expiry. Returns false, and changes nothing, if the new one is sooner.
    pub(crate) fn extend_expiry(&self, expires: Time) -> bool {
        let mut open = lock(&self.sockets.open);
        let open = self.key.and_then(|key| open.get_mut(key)).filter(|open| open.expires <= expires);
        open.map(|open| open.expires = expires).is_some()
    }

    /// The peer's address.
    pub(crate) fn address(&self) -> Address {
        self.address
    }

    /// Admits a sit of the socket's visitor, who may sit with this permit. Returns none if that is enough.
    pub(crate) fn admit_sit(&self, current: Option<&SitPermit>) -> Result<Option<SitPermit>, SitLimit> {
        let address = Some(self.address);
        let is_enough = current.is_some_and(|current| current.address == address);
        (!is_enough).then(|| self.sockets.admit_sit(address, current)).transpose()
    }

    /// The counters of panics.
    pub(crate) fn panics(&self) -> &Panics {
        &self.sockets.metrics.panics
    }

    /// The longest message of the peer, in bytes.
    pub(crate) fn message_limit(&self) -> usize {
        self.sockets.message_limit
    }

    /// Ready when the peer's next read may be handled, which is at once unless its address sends much.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let queue = self.sockets.fair_queue.as_ref();
        queue.map_or(Poll::Ready(()), |queue| queue.poll_turn(self.address, &mut self.place, cx))
    }

    /// Counts a message, and returns what to do with it.
    pub(crate) fn check_message(&self, rate: &mut RateLimiter) -> Decision {
        let Sockets { rate_limit, clock, metrics, .. } = &*self.sockets;
        let decision =
            rate_limit.map_or(Decision::Allow, |rate_limit| rate.check_message(rate_limit, clock.elapsed()));
        if decision != Decision::Allow {
            metrics.rejections.count_limit(Limit::MessageRate);
        }
        decision
    }

    /// Counts a read, and returns whether the socket may stay open.
    pub(crate) fn check_read(&self, rate: &mut RateLimiter, read: ReadSize) -> bool {
        let Sockets { rate_limit, clock, metrics, .. } = &*self.sockets;
        let is_allowed =
            rate_limit.is_none_or(|rate_limit| rate.check_read(rate_limit, read, clock.elapsed()));
        if !is_allowed {
            metrics.rejections.count_limit(Limit::FrameRate);
        }
        is_allowed
    }

    /// Counts a message with too many frames.
    pub(crate) fn count_too_many_frames(&self) {
        self.sockets.metrics.rejections.count_limit(Limit::MessageFrames);
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some(addresses) = &self.sockets.addresses {
            addresses.connections.remove(self.address);
        }
    }
}

impl Drop for FeedPermit {
    fn drop(&mut self) {
        if let Some(addresses) = &self.sockets.addresses {
            addresses.live_sockets.remove(self.address);
        }
    }
}

impl Drop for SitPermit {
    fn drop(&mut self) {
        if let (Some(addresses), Some(address)) = (&self.sockets.addresses, self.address) {
            addresses.sits.remove(address);
        }
    }
}

impl Drop for SocketPermit {
    fn drop(&mut self) {
        let open = self.key.and_then(|key| lock(&self.sockets.open).try_remove(key));
        drop(open); // after the lock: it is often the last reference to the connection, and closes it
        if let Some(queue) = &self.sockets.fair_queue {
            queue.leave(&mut self.place);
        }
        if let Some(addresses) = &self.sockets.addresses {
            addresses.sockets.remove(self.address);
        }
        self.sockets.permits.add_permits(1);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::num::NonZeroU32;

    use super::super::limits::Limits;
    use super::*;
    use crate::rejections::Rejections;

    #[tokio::test]
    async fn sits_have_limits_of_their_own_and_release_their_permits() {
        let limits = Limits { sockets: NonZeroU32::new(2).unwrap(), ..Limits::DEFAULT };
        let config = Config { max_connections: 3, limits: Some(limits), ..Config::default() };
        let metrics = TransportMetrics::register(Rejections::register(), Panics::register());
        let sockets = Sockets::new(&config, Clock::system(), metrics);
        let [one, two] = [1, 2].map(|last| Some(Ipv4Addr::new(192, 0, 2, last).into()));
        let sit = |address| sockets.admit_sit(address, None);
        let (first, second) = (sit(one).unwrap(), sit(one).unwrap());
        assert_eq!(sit(one).unwrap_err(), SitLimit::Address);
        assert!(sockets.admit(one.unwrap()).is_ok(), "a socket of the address is not rejected for it");
        let third = sit(None).unwrap();
        assert_eq!(sit(two).unwrap_err(), SitLimit::Hub);
        let moved = sockets.admit_sit(two, Some(&third)).unwrap();
        drop(third);
        assert_eq!(sit(two).unwrap_err(), SitLimit::Hub, "a visitor who changed the network sits once");
        drop((first, moved));
        let again = (sit(one).unwrap(), sit(two).unwrap());
        drop((again, second));
        assert_eq!(sockets.sits.available_permits(), 3);
        let addresses = sockets.addresses.as_ref().unwrap();
        assert_eq!((addresses.sits.addresses(), addresses.sockets.addresses()), (0, 0));
    }

    #[tokio::test]
    async fn sockets_are_admitted_up_to_the_limit_and_not_after_the_shutdown() {
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
