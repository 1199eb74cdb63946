//! The feed: the live activity of all rooms, sent to each subscriber at once and then when it changes.
//!
//! It publishes at most once a second, and its task runs only while there are subscribers. Many subscribers to a large
//! list get it less often, so that all of them together get a bounded number of bytes per second.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;

use super::broadcast::{SubscriberId, Subscribers};
use super::coverage::CoverageSource;
use super::live_activity::{CachedActivity, LiveActivityCache};
use super::registry::Registry;
use crate::panics::Panics;
use crate::protocol::Features;
use crate::sync::lock;
use crate::time::Clock;
use crate::transport::writer::SocketWriter;

/// The shortest time between two broadcasts.
const INTERVAL: Duration = Duration::from_secs(1);

/// The most bytes per second to all subscribers together.
const BYTES_PER_SECOND: usize = 8 * 1024 * 1024;

/// Publishes the live activity.
#[derive(Debug)]
pub(crate) struct Feed {
    cache: LiveActivityCache,
    panics: Panics,
    subscribers: Subscribers,
    /// Whether the task runs. Held for O(1).
    is_running: Mutex<bool>,
}

/// One subscription to the feed. Its destructor ends it.
#[derive(Debug)]
pub(crate) struct FeedSubscription {
    feed: Arc<Feed>,
    id: SubscriberId,
}

impl Feed {
    /// A feed without subscribers.
    pub(crate) fn new(registry: Arc<Registry>, coverage: CoverageSource, clock: Clock) -> Arc<Self> {
        let panics = registry.metrics().panics.clone();
        let cache = LiveActivityCache::new(registry, coverage, clock);
        Arc::new(Self { cache, panics, subscribers: Subscribers::default(), is_running: Mutex::default() })
    }

    /// The live activity, at most 100 ms old.
    pub(crate) async fn newest(&self) -> Arc<CachedActivity> {
        self.cache.newest().await
    }

    /// Sends the live activity to `writer` now, and from now on when it changes.
    pub(crate) async fn subscribe(self: &Arc<Self>, writer: &Arc<SocketWriter>) -> FeedSubscription {
        let id = self.subscribers.subscribe(Arc::clone(writer), Features::default());
        let subscription = FeedSubscription { feed: Arc::clone(self), id };
        let newest = self.newest().await;
        writer.open(newest.seq, &newest.frame);
        if !std::mem::replace(&mut *lock(&self.is_running), true) {
            drop(self.panics.spawn(Arc::clone(self).publish_changes(newest.seq)));
        }
        subscription
    }

    /// `published` is the `seq` that all subscribers have.
    async fn publish_changes(self: Arc<Self>, mut published: u64) {
        let mut pause = INTERVAL;
        loop {
            sleep(pause).await;
            if self.stop_if_unused() {
                return;
            }
            let newest = self.newest().await;
            if newest.seq > published {
                // Subscribers that got this one with their first message are skipped.
                self.subscribers.broadcast(newest.seq, &newest.frame).await;
                published = newest.seq;
            }
            pause = pause_after(self.subscribers.len(), newest.frame.bytes().len());
        }
    }

    /// Returns whether there are no subscribers. Then the task must end.
    fn stop_if_unused(&self) -> bool {
        let mut is_running = lock(&self.is_running);
        *is_running = !self.subscribers.is_empty();
        !*is_running
    }
}

/// The pause after a broadcast of this many bytes to this many subscribers.
fn pause_after(subscribers: usize, bytes: usize) -> Duration {
    let millis = subscribers.saturating_mul(bytes).saturating_mul(1_000) / BYTES_PER_SECOND;
    INTERVAL.max(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
}

impl Drop for FeedSubscription {
    fn drop(&mut self) {
        self.feed.subscribers.unsubscribe(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feed_sends_at_most_8_mib_a_second_and_at_most_once_a_second() {
        let millis = |subscribers, bytes| pause_after(subscribers, bytes).as_millis();
        assert_eq!([millis(0, 0), millis(50, 32 * 1024), millis(256, 32 * 1024)], [1_000; 3]);
        assert_eq!(millis(700, 32 * 1024), 2_734);
        assert_eq!(millis(15_000, 32 * 1024), 58_593);
    }
}
