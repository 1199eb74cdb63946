//! The crowd's own counts: what visitors did, where they are, and violations of the protocol.
//!
//! The hub's counts are compared with these, so that they contain nothing from the hub except the last count that each
//! socket received. This file uses no sockets and prints nothing.

use std::collections::BTreeMap;
use std::fmt::Display;

pub(crate) const HEADER: &str =
    "   time present   joins  leaves   drops returns   moods  events    sent   acked  frames  errors";

#[derive(Default)]
pub(crate) struct Counters {
    /// Sockets opened, closed with 1000, and ended in any other way.
    pub(crate) joins: u64,
    pub(crate) leaves: u64,
    pub(crate) drops: u64,
    /// Visitors who reconnected after a lost connection.
    pub(crate) returns: u64,
    pub(crate) moods: u64,
    /// Events made, sent (some of them again) and acked.
    pub(crate) events: u64,
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    pub(crate) frames: u64,
    errors: u64,
    pub(crate) last_error: Option<String>,
    /// The open tabs, by visitor and tab. A present visitor has a tab 0.
    pub(crate) tabs: BTreeMap<(usize, usize), TabState>,
    /// The number of violations by sentence, with the details of the first.
    violations: BTreeMap<&'static str, (u64, String)>,
}

/// The state of an open tab.
pub(crate) struct TabState {
    pub(crate) room: usize,
    pub(crate) mood: Option<String>,
    /// The last count that the hub sent.
    pub(crate) present: u32,
}

impl Counters {
    /// Records an error that is no violation, such as a restart of the hub.
    pub(crate) fn error(&mut self, what: impl Display) {
        self.errors += 1;
        self.last_error = Some(what.to_string());
    }

    /// Records a violation. Any violation makes the exit code 1.
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

    /// Formats the counters as a row under [`HEADER`].
    pub(crate) fn row(&self, time: &str) -> String {
        let Self { joins, leaves, drops, returns, moods, events, sent, acked, frames, errors, .. } = self;
        let present = &(self.present() as u64);
        let numbers = [present, joins, leaves, drops, returns, moods, events, sent, acked, frames, errors];
        format!("{time:>7}{}", numbers.map(|number| format!("{number:>8}")).concat())
    }
}
