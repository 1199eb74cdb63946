//! Whether another node that runs has the name of this one.
//!
//! Pure: the time is passed in. Messages under the name of this node may also be the last ones of its own run before,
//! which come late, or which that process sends while it stops. Those end soon, or with a goodbye. So the name is taken
//! when another run was heard for longer than that, and until it is heard no more.

use super::status::SILENCE_MS;

/// For how long, in ms, another run is heard before the name is taken.
const OVERLAP_MS: u64 = 5_000;

/// What was heard under the name of this node from other runs.
#[derive(Debug, Default)]
pub(super) struct Namesake {
    /// The first and the last message, without a break between them.
    heard: Option<(u64, u64)>,
    /// The last run that said goodbye: what comes of it is late.
    left: Option<u64>,
}

impl Namesake {
    /// Notes a message of another run.
    pub(super) fn hear(&mut self, incarnation: u64, is_bye: bool, now: u64) {
        if is_bye {
            (self.heard, self.left) = (None, Some(incarnation));
        } else if self.left != Some(incarnation) {
            let before = self.heard.filter(|(_, last)| now.saturating_sub(*last) < SILENCE_MS);
            self.heard = Some((before.map_or(now, |(first, _)| first), now));
        }
    }

    /// Whether another node has the name.
    pub(super) fn is_there(&self, now: u64) -> bool {
        self.heard.is_some_and(|(first, last)| {
            last.saturating_sub(first) >= OVERLAP_MS && now.saturating_sub(last) < SILENCE_MS
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_taken_while_another_run_is_heard_for_longer_than_5_s() {
        let mut namesake = Namesake::default();
        for second in 0..5 {
            namesake.hear(7, false, second * 1_000);
            assert!(!namesake.is_there(second * 1_000));
        }
        namesake.hear(7, false, 5_000);
        assert!(namesake.is_there(5_000) && namesake.is_there(7_999));
        assert!(!namesake.is_there(8_000), "it is heard no more");
        namesake.hear(7, false, 9_000);
        assert!(!namesake.is_there(9_000), "after a break it begins again");
    }

    #[test]
    fn last_messages_of_the_run_before_are_no_namesake() {
        let mut namesake = Namesake::default();
        // It still runs for some seconds, and its messages come late, at once.
        for at in [0, 1_000, 2_000, 4_900, 4_900, 4_900] {
            namesake.hear(7, false, at);
        }
        namesake.hear(7, true, 4_950);
        for at in [5_000, 6_000, 7_000, 8_000, 9_000, 10_500] {
            namesake.hear(7, false, at); // later than its goodbye
            assert!(!namesake.is_there(at));
        }
    }
}
