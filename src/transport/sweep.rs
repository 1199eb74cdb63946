//! The sweep: finds sockets that are dead, silent or at the end of their token, and does what is due.
//!
//! It passes all sockets at a steady rate and counts passes instead of reading clocks: a peer that was
//! silent for some passes is pinged, and one that stays silent, takes nothing of what waits for it, or
//! does not answer a close, is cut off. Only the end of a token is a time.

use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, warn};

use super::metrics::AbortReason;
use super::sockets::Sockets;
use super::writer::SocketWriter;
use super::writer::WriterStatus;
use crate::protocol::frame::Frame;
use crate::protocol::{CloseCode, Time};
use crate::rejections::Limit;
use crate::time::Clock;

/// How long a peer has to answer a ping, or as long as the ping interval, where that is less.
const PONG_WAIT: Duration = Duration::from_secs(8);

/// A peer that takes nothing of what waits for it is cut off after this, or twice the ping interval.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// How long a peer has to answer a close frame.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Passes all sockets again and again and does what is due, for as long as it is polled.
pub async fn run(sockets: &Sockets, ping_interval: Duration, clock: &Clock) {
    let timeouts = Timeouts::new(ping_interval);
    let ping = Frame::ping();
    let mut logged = Instant::now();
    let mut ticks = interval(timeouts.interval);
    // After a pause of the whole machine, peers get their time to answer.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut pass = SweepPass { timeouts, now: clock.wall(), excess: sockets.excess(), unsent: 0 };
        if pass.excess > 0 {
            warn!(unsent = sockets.unsent(), "too many bytes wait for peers: cutting off who takes nothing");
        }
        let mut chunk = 0;
        while let Some(due) = sockets.sweep_chunk(chunk, |writer, end| pass.decide(writer.sweep(), end)) {
            for (writer, due) in due {
                due.apply(&writer, &ping, sockets);
            }
            chunk += 1;
            yield_now().await;
        }
        sockets.set_unsent(pass.unsent);
        sockets.prune_addresses(&mut logged);
    }
}

/// One pass over all sockets.
#[derive(Debug)]
struct SweepPass {
    timeouts: Timeouts,
    now: Time,
    /// Bytes that wait for peers and are more than may.
    excess: usize,
    /// Bytes that wait for those who are not cut off.
    unsent: usize,
}

/// What is to be done about a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Ping,
    /// Its token has ended.
    Close,
    Abort(AbortReason),
    /// It is cut off before its time, because too much waits for all peers.
    Shed,
}

impl SweepPass {
    fn decide(&mut self, status: WriterStatus, end: Time) -> Option<Action> {
        // First, because the bytes of whoever is dead anyway are free too.
        if self.excess > 0 && status.stalled > 1 {
            self.excess = self.excess.saturating_sub(status.unsent);
            return Some(Action::Shed);
        }
        if let Some(reason) = self.timeouts.decide(status) {
            return Some(Action::Abort(reason));
        }
        self.unsent += status.unsent;
        if end <= self.now {
            return Some(Action::Close);
        }
        (status.idle == self.timeouts.ping_after).then_some(Action::Ping)
    }
}

impl Action {
    fn apply(self, writer: &SocketWriter, ping: &Frame, sockets: &Sockets) {
        let reason = match self {
            Self::Ping => return writer.send(ping),
            Self::Close => return writer.close(CloseCode::TokenEnded),
            Self::Abort(reason) => reason,
            Self::Shed => {
                sockets.metrics().rejections.limited(Limit::BytesInFlight);
                AbortReason::Stalled
            }
        };
        // Its session may take more than a pass to end.
        if writer.abort() {
            debug!(?reason, "cutting off a socket");
            sockets.metrics().count_abort(reason);
        }
    }
}

/// How long a peer may take nothing of what waits for it.
#[must_use]
pub fn stall_limit(ping_interval: Duration) -> Duration {
    STALL_LIMIT.min(ping_interval * 2)
}

/// The limits of the sweep, in passes of the sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Timeouts {
    interval: Duration,
    ping_after: u32,
    abort_after: u32,
    stalled_after: u32,
    close_wait: u32,
}

impl Timeouts {
    /// A pass a second, or more often where pings are.
    fn new(ping_interval: Duration) -> Self {
        let interval = (ping_interval / 25).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let passes = |time: Duration| {
            let passes = time.as_nanos().div_ceil(interval.as_nanos());
            u32::try_from(passes).unwrap_or(u32::MAX).max(1)
        };
        let ping_after = passes(ping_interval);
        Self {
            interval,
            ping_after,
            abort_after: ping_after.saturating_add(passes(PONG_WAIT.min(ping_interval))),
            stalled_after: passes(stall_limit(ping_interval)),
            close_wait: passes(CLOSE_WAIT),
        }
    }

    /// What is dead about a socket, if anything is.
    fn decide(self, status: WriterStatus) -> Option<AbortReason> {
        let signs = [
            (AbortReason::Stalled, status.stalled > self.stalled_after),
            (AbortReason::Unclosed, status.closing > self.close_wait),
            (AbortReason::Silent, status.idle > self.abort_after),
        ];
        signs.into_iter().find_map(|(reason, is_so)| is_so.then_some(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sweep_is_patient_in_passes() {
        let timeouts = Timeouts::new(Duration::from_secs(25));
        assert_eq!(timeouts.interval, Duration::from_secs(1));
        assert_eq!((timeouts.ping_after, timeouts.abort_after), (25, 33));
        assert_eq!((timeouts.stalled_after, timeouts.close_wait), (30, 2));
        let quick = Timeouts::new(Duration::from_millis(500));
        assert_eq!(quick.interval, Duration::from_millis(20));
        assert_eq!((quick.ping_after, quick.abort_after), (25, 50));
        assert_eq!((quick.stalled_after, quick.close_wait), (50, 100));
    }

    #[test]
    fn too_much_is_shed_until_it_is_no_more_whoever_it_waits_for() {
        let timeouts = Timeouts::new(Duration::from_secs(25));
        let mut pass = SweepPass { timeouts, now: Time::from_millis(0), excess: 15, unsent: 0 };
        let waiting = |stuck| WriterStatus { idle: 1, stalled: stuck, closing: 0, unsent: 10 };
        let mut decide = |stuck| pass.decide(waiting(stuck), Time::MAX);
        assert_eq!(decide(1), None, "it may still take it");
        assert_eq!(decide(31), Some(Action::Shed), "it is dead anyway, and its bytes count");
        assert_eq!([decide(2), decide(2)], [Some(Action::Shed), None]);
        assert_eq!(decide(31), Some(Action::Abort(AbortReason::Stalled)));
        assert_eq!(pass.unsent, 20);
    }
}
