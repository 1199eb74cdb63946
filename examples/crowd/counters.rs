//! What the crowd knows by itself: what was done, who is where, and what was not right.
//!
//! It is the other side of every comparison, so it takes nothing from the hub but what a socket was
//! last told. It knows nothing of sockets and prints nothing.

use std::collections::BTreeMap;
use std::fmt::Display;

pub(crate) const HEADER: &str =
    "   time    here   joins  leaves   drops returns   moods  events    sent   acked  frames  errors";

#[derive(Default)]
pub(crate) struct Counters {
    /// Sockets opened, closed with 1000, and ended in any other way.
    pub(crate) joins: u64,
    pub(crate) leaves: u64,
    pub(crate) drops: u64,
    /// People who came back after a lost connection.
    pub(crate) returns: u64,
    pub(crate) moods: u64,
    /// Events made, sent (some of them again) and acked.
    pub(crate) events: u64,
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    pub(crate) frames: u64,
    errors: u64,
    pub(crate) last_error: Option<String>,
    /// The open tabs, by person and tab. Whoever is here has a tab 0.
    pub(crate) tabs: BTreeMap<(usize, usize), TabState>,
    /// For each sentence, how often there was a reason for it, and the first reason.
    violations: BTreeMap<&'static str, (u64, String)>,
}

/// Where a tab is.
pub(crate) struct TabState {
    pub(crate) room: usize,
    pub(crate) mood: Option<String>,
    /// How many people the hub last said are in the room.
    pub(crate) present: u32,
}

impl Counters {
    /// Something that may happen to anybody, such as a hub that restarts.
    pub(crate) fn error(&mut self, what: impl Display) {
        self.errors += 1;
        self.last_error = Some(what.to_string());
    }

    /// Something that must not happen. Any complaint makes the exit code 1.
    pub(crate) fn violation(&mut self, sentence: &'static str, reason: impl Display) {
        self.violations.entry(sentence).or_insert_with(|| (0, reason.to_string())).0 += 1;
    }

    pub(crate) fn violations(&self) -> impl Iterator<Item = String> {
        self.violations.iter().map(|(sentence, (times, reason))| match times {
            1 => format!("{sentence}: {reason}."),
            _ => format!("{sentence}, {times} times; the first: {reason}."),
        })
    }

    pub(crate) fn present(&self) -> usize {
        self.tabs.keys().filter(|(_, tab)| *tab == 0).count()
    }

    /// What stands under the header.
    pub(crate) fn row(&self, time: &str) -> String {
        let Self { joins, leaves, drops, returns, moods, events, sent, acked, frames, errors, .. } = self;
        let present = &(self.present() as u64);
        let numbers = [present, joins, leaves, drops, returns, moods, events, sent, acked, frames, errors];
        format!("{time:>7}{}", numbers.map(|number| format!("{number:>8}")).concat())
    }
}
