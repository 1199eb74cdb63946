//! All open sockets: how many there may be, which of them are dead, and how they end together.
//!
//! One sweep passes all sockets at a steady pace and counts passes instead of reading clocks: a peer
//! that was silent for some passes is pinged, and one that stays silent, takes nothing of what
//! waits for it, or does not answer a close, is cut off. Only the end of a token is a time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::seq::SliceRandom;
use slab::Slab;
use tokio::sync::{Semaphore, TryAcquireError};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::debug;

use crate::clock::Clock;
use crate::live::Outlet;
use crate::sync::lock;
use crate::wire::frame::Frame;
use crate::wire::{CloseCode, Time};

/// How long a peer has to answer a ping.
const PONG_WAIT: Duration = Duration::from_secs(8);

/// A socket that takes nothing of what waits for it is closed after this.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// How long a peer has to answer a close frame.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Sockets that are passed between two yields.
const CHUNK: usize = 256;

/// A socket cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many are open as may be.
    #[error("the hub is full: come back later")]
    Full,
    /// The hub is about to stop.
    #[error("the hub restarts: come back in a moment")]
    Restarting,
}

/// All open sockets.
#[derive(Debug)]
pub struct Sockets {
    /// Places for sockets; closed when no more may open.
    places: Semaphore,
    limit: usize,
    /// Held for O(1), or for one chunk of the sweep.
    open: Mutex<Slab<Open>>,
}

/// One open socket.
#[derive(Debug)]
struct Open {
    outlet: Arc<Outlet>,
    /// When the token ends that it was opened with.
    end: Time,
}

/// A place for one socket. Dropping it gives the place back.
#[derive(Debug)]
pub struct Admission {
    sockets: Arc<Sockets>,
    key: Option<usize>,
}

impl Sockets {
    /// No sockets yet, and at most `limit`.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Arc::new(Self { places: Semaphore::new(limit), limit, open: Mutex::default() })
    }

    /// Keeps a place for a socket that is about to open.
    ///
    /// # Errors
    /// The hub is full or about to stop.
    pub fn admit(self: &Arc<Self>) -> Result<Admission, Refused> {
        let place = self.places.try_acquire().map_err(|error| match error {
            TryAcquireError::NoPermits => Refused::Full,
            TryAcquireError::Closed => Refused::Restarting,
        })?;
        place.forget(); // the admission's destructor gives it back
        Ok(Admission { sockets: Arc::clone(self), key: None })
    }

    /// How many places are taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.limit - self.places.available_permits()
    }

    /// Whether no place is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the hub is about to stop.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.places.is_closed()
    }

    /// Passes all sockets again and again and cuts off the dead, for as long as it is polled.
    pub async fn sweep(&self, ping_interval: Duration, clock: &Clock) {
        let pace = Pace::new(ping_interval);
        let ping = Frame::ping();
        let mut pass = interval(pace.interval);
        // After a pause of the whole machine, peers get their time to answer.
        pass.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pass.tick().await;
            let now = clock.wall();
            let mut from = 0;
            while let Some(chunk) = self.chunk(from) {
                for (outlet, end) in &chunk {
                    if *end <= now {
                        outlet.close(CloseCode::TokenEnded);
                    }
                    pace.apply(outlet, &ping);
                }
                from += CHUNK;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Admits no more sockets and closes the open ones, in random order and evenly over `spread`, so
    /// that they do not all come back at once.
    pub async fn close_all(&self, code: CloseCode, spread: Duration) {
        self.places.close();
        let mut outlets: Vec<_> = lock(&self.open).iter().map(|(_, open)| Arc::clone(&open.outlet)).collect();
        outlets.shuffle(&mut rand::rng());
        let started = Instant::now();
        let count = u32::try_from(outlets.len()).unwrap_or(u32::MAX);
        for (index, outlet) in (0_u32..).zip(outlets) {
            sleep_until(started + spread * index / count).await;
            outlet.close(code);
        }
    }

    /// Cuts off whoever is still there.
    pub fn kill_all(&self) {
        self.places.close();
        lock(&self.open).iter().for_each(|(_, open)| open.outlet.kill());
    }

    fn chunk(&self, from: usize) -> Option<Vec<(Arc<Outlet>, Time)>> {
        let open = lock(&self.open);
        let keys = from..open.capacity().min(from + CHUNK);
        let found = keys.clone().filter_map(|key| open.get(key));
        (!keys.is_empty()).then(|| found.map(|open| (Arc::clone(&open.outlet), open.end)).collect())
    }
}

impl Admission {
    /// The socket is open: from now on the sweep looks after it.
    pub fn opened(&mut self, outlet: &Arc<Outlet>) {
        let open = Open { outlet: Arc::clone(outlet), end: Time::END };
        self.key = Some(lock(&self.sockets.open).insert(open));
        if self.sockets.is_closed() {
            // It was on its way when the others were closed.
            outlet.close(CloseCode::Restarting);
        }
    }

    /// From then on the sweep closes the socket.
    pub fn set_end(&self, end: Time) {
        let mut open = lock(&self.sockets.open);
        if let Some(open) = self.key.and_then(|key| open.get_mut(key)) {
            open.end = end;
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            lock(&self.sockets.open).try_remove(key);
        }
        self.sockets.places.add_permits(1);
    }
}

/// The limits of patience, in passes of the sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    interval: Duration,
    ping_after: u32,
    dead_after: u32,
    stalled_after: u32,
    close_wait: u32,
}

impl Pace {
    /// A pass a second, or more often where pings are.
    fn new(ping_interval: Duration) -> Self {
        let interval = (ping_interval / 25).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let passes = |time: Duration| {
            let passes = time.as_nanos().div_ceil(interval.as_nanos());
            u32::try_from(passes).unwrap_or(u32::MAX).max(1)
        };
        let ping_after = passes(ping_interval);
        Self {
            interval,
            ping_after,
            dead_after: ping_after.saturating_add(passes(PONG_WAIT.min(ping_interval))),
            stalled_after: passes(STALL_LIMIT),
            close_wait: passes(CLOSE_WAIT),
        }
    }

    fn apply(self, outlet: &Outlet, ping: &Frame) {
        let vitals = outlet.sweep();
        if vitals.silent > self.dead_after
            || vitals.stuck > self.stalled_after
            || vitals.closing > self.close_wait
        {
            debug!(?vitals, "cutting off a socket");
            outlet.kill();
        } else if vitals.silent == self.ping_after {
            outlet.send(ping);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sweep_is_patient_in_passes() {
        let pace = Pace::new(Duration::from_secs(25));
        assert_eq!(pace.interval, Duration::from_secs(1));
        assert_eq!((pace.ping_after, pace.dead_after), (25, 33));
        assert_eq!((pace.stalled_after, pace.close_wait), (30, 2));
        let quick = Pace::new(Duration::from_millis(500));
        assert_eq!(quick.interval, Duration::from_millis(20));
        assert_eq!((quick.ping_after, quick.dead_after), (25, 50));
    }

    #[tokio::test]
    async fn places_are_counted_and_end_with_the_hub() {
        let sockets = Sockets::new(2);
        let first = sockets.admit().unwrap();
        let _second = sockets.admit().unwrap();
        assert_eq!(sockets.admit().unwrap_err(), Refused::Full);
        drop(first);
        assert_eq!(sockets.len(), 1);
        sockets.close_all(CloseCode::Restarting, Duration::ZERO).await;
        assert_eq!(sockets.admit().unwrap_err(), Refused::Restarting);
    }
}
