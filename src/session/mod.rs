//! Sessions: one for each socket. Only sessions use both presence and history.
//!
//! [`room`] is the session of a room socket, [`feed_session`] that of a live-activity socket. [`events`] appends the
//! events of a client to the journal and acknowledges them; a [`watch_clock`] measures how long a watch session played.
//! [`samples`] appends the presence of each minute to the journal.

mod context;
pub(crate) mod events;
pub(crate) mod feed_session;
pub(crate) mod room;
mod sample_ids;
pub(crate) mod samples;
pub(crate) mod watch_clock;

pub(crate) use context::SessionContext;
pub(crate) use sample_ids::SampleIds;
pub(crate) use watch_clock::WatchClocks;

/// The settings of sessions.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The most watch clocks: watch sessions that the hub measures at once.
    pub watch_clocks: usize,
    /// The most bytes of live state of all sockets (current page, what plays), besides presence.
    pub live_state: u64,
    /// The name of this node, from which its presence samples have their ids.
    pub node: String,
}

/// The host's name.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

impl Default for Config {
    fn default() -> Self {
        Self { watch_clocks: 100_000, live_state: 32 * 1024 * 1024, node: host_name() }
    }
}
