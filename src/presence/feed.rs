//! The feed of live activity: the summary over all rooms, told at once and then on change, at most
//! once a second.
//!
//! Its task lives while somebody listens, so that a hub without a dashboard pays nothing. Where many listen to much, it
//! tells them less often, so that all of them together cost a bounded number of bytes a second.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;

use super::broadcast::{SubscriberId, Subscribers};
use super::live_activity::{CachedActivity, LiveActivityCache};
use super::registry::Registry;
use crate::panics::Panics;
use crate::sync::lock;
use crate::time::Clock;
use crate::transport::writer::SocketWriter;

/// The shortest time between two summaries.
const INTERVAL: Duration = Duration::from_secs(1);

/// What all listeners together are told, in bytes a second.
const BYTES_PER_SECOND: usize = 8 * 1024 * 1024;

/// Who listens to the live activity.
#[derive(Debug)]
pub(crate) struct Feed {
    summaries: LiveActivityCache,
    panics: Panics,
    subscribers: Subscribers,
    /// Whether the task runs. Held for O(1).
    is_running: Mutex<bool>,
}

/// One listener's place. Dropping it stops the feed for it.
#[derive(Debug)]
pub(crate) struct FeedSubscription {
    feed: Arc<Feed>,
    place: SubscriberId,
}

impl Feed {
    /// A feed to which nobody listens yet.
    #[must_use]
    pub(crate) fn new(registry: Arc<Registry>, clock: Clock) -> Arc<Self> {
        let panics = registry.metrics().panics.clone();
        let summaries = LiveActivityCache::new(registry, clock);
        Arc::new(Self {
            summaries,
            panics,
            subscribers: Subscribers::default(),
            is_running: Mutex::default(),
        })
    }

    /// The newest summary, at most a tenth of a second old.
    pub(crate) async fn newest(&self) -> Arc<CachedActivity> {
        self.summaries.newest().await
    }

    /// Tells `writer` the summary now, and from now on when it changes.
    pub(crate) async fn subscribe(self: &Arc<Self>, writer: &Arc<SocketWriter>) -> FeedSubscription {
        let place = self.subscribers.enter(Arc::clone(writer));
        let listening = FeedSubscription { feed: Arc::clone(self), place };
        let newest = self.newest().await;
        writer.open(newest.seq, &newest.frame);
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
                self.subscribers.deliver(newest.seq, &newest.frame).await;
                told = newest.seq;
            }
            pause = pause_after(self.subscribers.len(), newest.frame.bytes().len());
        }
    }

    /// Whether nobody listens. Then the task is over.
    fn has_ended(&self) -> bool {
        let mut is_running = lock(&self.is_running);
        *is_running = !self.subscribers.is_empty();
        !*is_running
    }
}

/// How long nobody is told anything after so many were told so many bytes.
fn pause_after(listeners: usize, bytes: usize) -> Duration {
    let millis = listeners.saturating_mul(bytes).saturating_mul(1_000) / BYTES_PER_SECOND;
    INTERVAL.max(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
}

impl Drop for FeedSubscription {
    fn drop(&mut self) {
        self.feed.subscribers.exit(self.place);
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
