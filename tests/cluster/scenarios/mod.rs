//! The scenarios of docs/cluster.md. Each is a function of the scale that returns its figures and panics on a wrong count.

pub mod agree;
pub mod chaos;
pub mod erase;
pub mod hubs;
pub mod join;
pub mod links;
pub mod log;
pub mod moves;
pub mod samples;
pub mod servers;

use std::pin::Pin;

use crate::figure::{Figure, Scale};

type Run = fn(Scale) -> Pin<Box<dyn Future<Output = Vec<Figure>>>>;

/// All scenarios by name, in the order of the long form.
pub const ALL: [(&str, Run); 25] = [
    ("agree", |scale| Box::pin(agree::agree(scale))),
    ("flood", |scale| Box::pin(agree::flood(scale))),
    ("two-places", |scale| Box::pin(moves::two_places(scale))),
    ("hop", |scale| Box::pin(moves::hop(scale))),
    ("rolling", |scale| Box::pin(moves::rolling(scale))),
    ("kill-hub", |scale| Box::pin(hubs::kill_hub(scale))),
    ("stop-hub", |scale| Box::pin(hubs::stop_hub(scale))),
    ("kill-nats", |scale| Box::pin(servers::kill_nats(scale))),
    ("stop-nats", |scale| Box::pin(servers::stop_nats(scale))),
    ("late-nats", |scale| Box::pin(servers::late_nats(scale))),
    ("split", |scale| Box::pin(links::split(scale))),
    ("stale-mood", |scale| Box::pin(links::stale_mood(scale))),
    ("far", |scale| Box::pin(links::far(scale))),
    ("skew", |scale| Box::pin(links::skew(scale))),
    ("events", |scale| Box::pin(log::events(scale))),
    ("kill-log", |scale| Box::pin(log::kill_log(scale))),
    ("no-quorum", |scale| Box::pin(log::no_quorum(scale))),
    ("log-lost", |scale| Box::pin(log::log_lost(scale))),
    ("differ", |scale| Box::pin(log::differ(scale))),
    ("samples", |scale| Box::pin(samples::samples(scale))),
    ("import", |scale| Box::pin(log::import(scale))),
    ("erase", |scale| Box::pin(erase::erase(scale))),
    ("replica", |scale| Box::pin(log::replica(scale))),
    ("join", |scale| Box::pin(join::join(scale))),
    ("chaos", |scale| Box::pin(chaos::chaos(scale))),
];
