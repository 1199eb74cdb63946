//! The feed of live activity: the summary over all rooms, told at once and then on change, at most
//! once a second.
//!
//! Its task lives while somebody listens, so that a hub without a dashboard pays nothing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;

use super::activity::{Kind, LiveActivity};
use super::audience::{Audience, Place};
use super::hub::Hub;
use super::outlet::Outlet;
use crate::clock::Clock;
use crate::sync::lock;
use crate::wire::frame::Frame;

/// The shortest time between two summaries.
const INTERVAL: Duration = Duration::from_secs(1);

/// Who listens to the live activity.
#[derive(Debug)]
pub struct Feed {
    hub: Arc<Hub>,
    clock: Clock,
    audience: Audience,
    /// Held for a comparison of two summaries at most.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the newest summary.
    seq: u64,
    /// That summary, where every listener was told it and none was told another since.
    told: Option<LiveActivity>,
    /// Whether the task runs.
    running: bool,
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
        Arc::new(Self { hub, clock, audience: Audience::default(), state: Mutex::default() })
    }

    /// Tells `outlet` the summary now, and from now on when it changes.
    pub fn listen(self: &Arc<Self>, outlet: &Arc<Outlet>) -> Listening {
        let place = self.audience.enter(Arc::clone(outlet));
        let activity = self.hub.live_activity();
        let mut state = lock(&self.state);
        outlet.open(state.seq, &self.summary(&activity));
        if !std::mem::replace(&mut state.running, true) {
            state.told = Some(activity);
            drop(self.hub.meter().panics.spawn(Arc::clone(self).tell_changes()));
        } else if state.told.as_ref() != Some(&activity) {
            state.told = None;
        }
        Listening { feed: Arc::clone(self), place }
    }

    async fn tell_changes(self: Arc<Self>) {
        loop {
            sleep(INTERVAL).await;
            let activity = self.hub.live_activity();
            let seq = {
                let mut state = lock(&self.state);
                if self.audience.is_empty() {
                    state.running = false;
                    return;
                }
                if state.told.as_ref() == Some(&activity) {
                    continue;
                }
                state.told = Some(activity.clone());
                state.seq += 1;
                state.seq
            };
            self.audience.deliver(seq, &self.summary(&activity));
        }
    }

    fn summary(&self, activity: &LiveActivity) -> Frame {
        Frame::text(&activity.message(Some(Kind::LiveActivity), self.clock.wall()))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.feed.audience.exit(self.place);
    }
}
