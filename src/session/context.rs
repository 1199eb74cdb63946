//! The context of room sessions: the parts of the hub that each of them uses.
//!
//! One for the whole hub. It stands below the session and its events, so that neither imports the other for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::sample_ids::SampleIds;
use super::watch_clock::WatchClocks;
use crate::auth::Tokens;
use crate::cluster::Cluster;
use crate::cluster::kept_samples::KeptSamples;
use crate::history::Journal;
use crate::history::event::TotalSample;
use crate::panics::Panics;
use crate::presence::Registry;
use crate::quota::Quota;
use crate::rejections::Rejections;
use crate::time::Clock;

/// The parts of the hub that room sessions use.
#[derive(Debug)]
pub(crate) struct SessionContext {
    /// All rooms.
    pub registry: Arc<Registry>,
    /// The queue of events for the history.
    pub journal: Journal,
    /// The playing time of all watch sessions.
    pub clocks: Arc<WatchClocks>,
    /// The ids of this node's presence samples.
    pub sample_ids: SampleIds,
    /// The presence samples that another node should write.
    pub kept_samples: Mutex<KeptSamples<Vec<TotalSample>>>,
    /// Bytes of live state of all sockets: pages and watch sessions, for the live activity and the watch clocks.
    pub live_state: Arc<Quota>,
    /// Wall and monotonic time.
    pub clock: Clock,
    /// The keys and the audience of visitor tokens; none where the hub takes no tokens.
    pub tokens: Option<Tokens>,
    /// Counters of rejected messages and events.
    pub rejections: Rejections,
    /// Counters of sessions that panicked.
    pub panics: Panics,
    /// How long a visitor whose socket was lost stays present.
    pub leave_grace: Duration,
    /// This node's part in the cluster; none where the hub is alone.
    pub cluster: Option<Cluster>,
}
