//! Presence samples: once a minute, appends the accounting of each room to the journal.
//!
//! A sample spans the end of a minute only by the lateness of the timer, so that the history can add up samples to
//! quarter hours. There is one more sample before a requested flush, after which the next one has the rest of the
//! minute, and one at the shutdown. Where several nodes have one log, a sample goes through it to all of them: one node
//! writes it, and all take whole minutes only, so that any of them can.

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use super::context::SessionContext;
use super::sample_ids::Span;
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
        append(context, true);
    }
}

/// Appends the presence since the last sample to the journal, before the minute is over. Where other nodes write samples
/// too, it waits for the end of the minute, or is in the samples of the others.
pub(crate) fn take(context: &SessionContext) {
    let status = context.cluster.as_ref().map(Cluster::status);
    if lock(&context.kept_samples).may_split(status.as_ref()) {
        append(context, false);
    }
}

fn append(context: &SessionContext, is_minute_end: bool) {
    let Samples { period, total, rooms, dropped } = context.registry.take_samples();
    let vocabulary = context.registry.vocabulary();
    let present = rooms.into_iter().filter(|(_, sample)| !sample.is_empty());
    let rooms: BTreeMap<_, _> = present.map(|(room, sample)| (room, to_event(vocabulary, &sample))).collect();
    if rooms.is_empty() && total.is_empty() && dropped == 0 {
        return;
    }
    let status = context.cluster.as_ref().map(Cluster::status);
    let nodes: BTreeSet<_> = status.iter().flat_map(ClusterStatus::live_names).filter_map(to_name).collect();
    let span = Span { ms: millis(period), end: context.clock.wall(), is_minute_end };
    let cluster = status.as_ref().map(|status| status.cluster.as_str());
    let (at, id) = context.sample_ids.next(span, cluster);
    let parts = event::TotalSample { id, at, nodes, hub: to_event(vocabulary, &total), rooms }.split();
    let samples = lock(&context.kept_samples).next((at, parts), status.as_ref());
    let batch = Batch { samples: samples.into_iter().flatten().collect(), ..Batch::default() };
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
