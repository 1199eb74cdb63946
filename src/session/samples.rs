//! Presence samples: once a minute, appends the accounting of each room to the journal.
//!
//! A sample spans the end of a minute only by the lateness of the timer, so that the history can add up samples to
//! quarter hours. There is one more sample before a requested flush, after which the next one has the rest of the
//! minute, and one at the shutdown.

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use super::context::SessionContext;
use crate::cluster::{Cluster, ClusterStatus};
use crate::history::event::{self, Batch, NodeName};
use crate::presence::{Sample, Samples};
use crate::protocol::Vocabulary;
use crate::sync::lock;
use crate::time::millis;

/// Takes a sample at the end of every minute, without end.
pub(crate) async fn run(context: &SessionContext) {
    loop {
        context.clock.minute_ends(context.clock.wall()).await;
        take(context);
    }
}

/// Appends the presence since the last sample to the journal.
pub(crate) fn take(context: &SessionContext) {
    let Samples { period, total, rooms, dropped } = context.registry.take_samples();
    let vocabulary = context.registry.vocabulary();
    let present = rooms.into_iter().filter(|(_, sample)| !sample.is_empty());
    let rooms: BTreeMap<_, _> = present.map(|(room, sample)| (room, to_event(vocabulary, &sample))).collect();
    if rooms.is_empty() && total.is_empty() && dropped == 0 {
        return;
    }
    let status = context.cluster.as_ref().map(Cluster::status);
    let nodes: BTreeSet<_> = status.iter().flat_map(ClusterStatus::live_names).filter_map(to_name).collect();
    let (at, id) = context.sample_ids.next(context.clock.wall().minus(millis(period)), &nodes);
    let sample = event::TotalSample { id, at, nodes, hub: to_event(vocabulary, &total), rooms };
    // Events of the other nodes are in their files only.
    let samples = lock(&context.kept_samples).next((at, sample), status.as_ref(), None);
    let batch = Batch { samples, ..Batch::default() };
    let count = batch.sample_count();
    let appended = context.journal.append_all(None, batch);
    let lost = dropped + appended.map_or(count, |_| 0);
    if lost > 0 {
        let of = count + dropped;
        warn!(
            lost,
            of,
            "presence samples are lost: the event queue is full, or too many rooms were opened and closed"
        );
        context.journal.count_lost_samples(lost);
    }
}

fn to_name(node: &str) -> Option<NodeName> {
    node.to_owned().try_into().ok()
}

fn to_event(vocabulary: &Vocabulary, sample: &Sample) -> event::RoomSample {
    let moods: BTreeMap<String, u64> = vocabulary
        .names()
        .zip(&sample.moods)
        .map(|(name, time)| (name.to_owned(), millis(*time)))
        .filter(|(_, millis)| *millis > 0)
        .collect();
    event::RoomSample {
        present_ms: millis(sample.present),
        peak: sample.peak,
        joins: sample.joins,
        moods_ms: moods,
        held_ms: millis(sample.held),
        sits_begun: sample.sits.begun,
        sits_completed: sample.sits.completed,
        sat_ms: millis(sample.sat),
    }
}
