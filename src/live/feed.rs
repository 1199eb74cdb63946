//! The feed of live activity: the summary over all rooms, told at once and then on change, at most
//! once a second.
//!
//! Its task lives while somebody listens, so that a hub without a dashboard pays nothing. Where many listen to much, it
//! tells them less often, so that all of them together cost a bounded number of bytes a second.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;

use super::audience::{Audience, Place};
use super::hub::Hub;
use super::outlet::Outlet;
use super::summary::{Kept, Summaries};
use crate::clock::Clock;
use crate::panics::Panics;
use crate::sync::lock;

/// The shortest time between two summaries.
const INTERVAL: Duration = Duration::from_secs(1);

/// What all listeners together are told, in bytes a second.
const BYTES_PER_SECOND: usize = 8 * 1024 * 1024;

/// Who listens to the live activity.
#[derive(Debug)]
pub struct Feed {
    summaries: Summaries,
    panics: Panics,
    audience: Audience,
    /// Whether the task runs. Held for O(1).
    is_running: Mutex<bool>,
}

/// One listener's place. Dropping it stops the feed for it.
#[derive(Debug)]
pub struct Listening {
    feed: Arc<Feed>,
    place: Place,
}

impl Feed {
    /// A feed to which nobody listens yet.
    #[must_use]
    pub fn new(hub: Arc<Hub>, clock: Clock) -> Arc<Self> {
        let panics = hub.meter().panics.clone();
        let summaries = Summaries::new(hub, clock);
        Arc::new(Self { summaries, panics, audience: Audience::default(), is_running: Mutex::default() })
    }

    /// The newest summary, at most a tenth of a second old.
    pub async fn newest(&self) -> Arc<Kept> {
        self.summaries.newest().await
    }

    /// Tells `outlet` the summary now, and from now on when it changes.
    pub async fn listen(self: &Arc<Self>, outlet: &Arc<Outlet>) -> Listening {
        let place = self.audience.enter(Arc::clone(outlet));
        let listening = Listening { feed: Arc::clone(self), place };
        let newest = self.newest().await;
        outlet.open(newest.seq, &newest.frame);
        if !std::mem::replace(&mut *lock(&self.is_running), true) {
            drop(self.panics.spawn(Arc::clone(self).tell_changes(newest.seq)));
        }
        listening
    }

    /// `told` is what all listeners know.
    async fn tell_changes(self: Arc<Self>, mut told: u64) {
        let mut pause = INTERVAL;
        loop {
            sleep(pause).await;
            if self.has_ended() {
                return;
            }
            let newest = self.newest().await;
            if newest.seq > told {
                // Whoever has come with this one is not told it again.
                self.audience.deliver(newest.seq, &newest.frame).await;
                told = newest.seq;
            }
            pause = pause_after(self.audience.len(), newest.frame.bytes().len());
        }
    }

    /// Whether nobody listens. Then the task is over.
    fn has_ended(&self) -> bool {
        let mut is_running = lock(&self.is_running);
        *is_running = !self.audience.is_empty();
        !*is_running
    }
}

/// How long nobody is told anything after so many were told so many bytes.
fn pause_after(listeners: usize, bytes: usize) -> Duration {
    let millis = listeners.saturating_mul(bytes).saturating_mul(1_000) / BYTES_PER_SECOND;
    INTERVAL.max(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.feed.audience.exit(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feed_writes_at_most_8_mib_a_second_and_at_most_once_a_second() {
        let millis = |listeners, bytes| pause_after(listeners, bytes).as_millis();
        assert_eq!([millis(0, 0), millis(50, 32 * 1024), millis(256, 32 * 1024)], [1_000; 3]);
        assert_eq!(millis(700, 32 * 1024), 2_734);
        assert_eq!(millis(15_000, 32 * 1024), 58_593);
    }
}
