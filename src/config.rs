//! The configuration of a hub: one section for each part, each with its defaults.
//!
//! The program reads it from flags and environment variables (`cli`); an embedder sets its fields.

pub use crate::auth::admin::Access;
pub use crate::auth::keys::{Config as AuthConfig, Secret};
pub use crate::auth::origins::{AllowedOrigins, PublicUrl};
pub use crate::cluster::{BadCluster, Config as ClusterConfig};
pub use crate::history::Config as HistoryConfig;
pub use crate::history::lifecycle::plan::Retention;
pub use crate::history::prop_names::PropNames;
pub use crate::http::settings::Config as HttpConfig;
pub use crate::http::settings::{FrameAncestors, Mode};
pub use crate::presence::Config as PresenceConfig;
pub use crate::protocol::mood::Vocabulary;
pub use crate::protocol::value::Time;
pub use crate::session::Config as SessionConfig;
pub use crate::time::Clock;
pub use crate::transport::Config as TransportConfig;
pub use crate::transport::descriptors::Descriptors;
pub use crate::transport::limits::Limits;
use crate::{auth, cluster, history, http, presence, session, transport};

/// The configuration of a hub. Every section has defaults.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Config {
    /// HTTP: access, and the origins of pages that may connect.
    pub http: http::Config,
    /// Rooms, moods and holds.
    pub presence: presence::Config,
    /// The database and the event queue.
    pub history: history::Config,
    /// Limits of the memory for sessions.
    pub session: session::Config,
    /// Connections, sockets and rate limits.
    pub transport: transport::Config,
    /// Visitor tokens.
    pub auth: auth::Config,
    /// The other nodes.
    pub cluster: cluster::Config,
    /// The wall clock and the monotonic clock. Tests set both.
    pub clock: Clock,
}
