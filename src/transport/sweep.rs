//! The liveness sweep: finds idle, half-open and stalled sockets, and those with an expired token.
//!
//! It passes all sockets at a fixed rate and counts passes instead of reading clocks. It pings an idle peer. It aborts
//! the socket of a peer that stays idle, accepts no unsent byte, or does not answer a close. Only the expiry of a token
//! is a time. When too many bytes are unsent, it sheds load: it aborts stalled sockets before their timeout.

use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, warn};

use super::metrics::AbortReason;
use super::sockets::Sockets;
use super::writer::{SocketWriter, WriterStatus};
use crate::protocol::frame::Frame;
use crate::protocol::message::ServerMessage;
use crate::protocol::{CloseCode, Time};
use crate::rejections::Limit;
use crate::time::Clock;

/// The time limit for the answer to a ping, or the ping interval, if that is less.
const PONG_WAIT: Duration = Duration::from_secs(8);

/// How long a peer may accept no unsent byte, or twice the ping interval, if that is less.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// The time limit for the answer to a close frame.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Runs the sweep without end.
pub async fn run(sockets: &Sockets, ping_interval: Duration, clock: &Clock) {
    let timeouts = Timeouts::new(ping_interval);
    let pings = Pings::new();
    let mut logged = Instant::now();
    let mut ticks = interval(timeouts.interval);
    // After a suspend of the machine, peers get their whole time to answer.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut pass = SweepPass { timeouts, now: clock.wall(), excess: sockets.excess(), unsent: 0 };
        if pass.excess > 0 {
            warn!(
                unsent = sockets.unsent(),
                "too many unsent bytes: the hub aborts sockets that do not read"
            );
        }
        let mut chunk = 0;
        while let Some(actions) =
            sockets.sweep_chunk(chunk, |writer, expires| pass.decide(writer.sweep(), expires))
        {
            for (writer, action) in actions {
                action.apply(&writer, &pings, sockets);
            }
            chunk += 1;
            yield_now().await;
        }
        sockets.set_unsent(pass.unsent);
        sockets.prune_addresses(&mut logged);
    }
}

/// The frames of a ping.
#[derive(Debug)]
struct Pings {
    plain: Frame,
    /// The ping, and the message for the page.
    with_keepalive: Vec<u8>,
}

impl Pings {
    fn new() -> Self {
        let (plain, keepalive) = (Frame::ping(), Frame::json(&ServerMessage::Keepalive {}));
        let with_keepalive = [plain.bytes(), keepalive.bytes()].concat();
        Self { plain, with_keepalive }
    }
}

/// One pass over all sockets.
#[derive(Debug)]
struct SweepPass {
    timeouts: Timeouts,
    now: Time,
    /// Unsent bytes over the limit that are still to be shed.
    excess: usize,
    /// Unsent bytes of the sockets that are not aborted.
    unsent: usize,
}

/// What the sweep does with a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Ping {
        keepalive: bool,
    },
    /// Closes it: its token has expired.
    Close,
    Abort(AbortReason),
    /// Aborts it before its timeout, to shed load.
    Shed,
}

impl SweepPass {
    fn decide(&mut self, status: WriterStatus, expires: Time) -> Option<Action> {
        // Checked first, so that the bytes of sockets that time out anyway count as shed too.
        if self.excess > 0 && status.stalled > 1 {
            self.excess = self.excess.saturating_sub(status.unsent);
            return Some(Action::Shed);
        }
        if let Some(reason) = self.timeouts.decide(status) {
            return Some(Action::Abort(reason));
        }
        self.unsent += status.unsent;
        if expires <= self.now {
            return Some(Action::Close);
        }
        let is_due = status.idle == self.timeouts.ping_after;
        is_due.then_some(Action::Ping { keepalive: status.keepalive })
    }
}

impl Action {
    fn apply(self, writer: &SocketWriter, pings: &Pings, sockets: &Sockets) {
        let reason = match self {
            Self::Ping { keepalive: false } => return writer.send(&pings.plain),
            Self::Ping { keepalive: true } => return writer.send_bytes(&pings.with_keepalive),
            Self::Close => return writer.close(CloseCode::TokenEnded),
            Self::Abort(reason) => reason,
            Self::Shed => {
                sockets.metrics().rejections.count_limit(Limit::BytesInFlight);
                AbortReason::Stalled
            }
        };
        // False if an earlier pass aborted it: its session may need more than one pass to end.
        if writer.abort() {
            debug!(?reason, "aborting a socket");
            sockets.metrics().count_abort(reason);
        }
    }
}

/// How long a peer may accept no unsent byte.
#[must_use]
pub fn stall_limit(ping_interval: Duration) -> Duration {
    STALL_LIMIT.min(ping_interval * 2)
}

/// The timeouts, in passes of the sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Timeouts {
    interval: Duration,
    ping_after: u32,
    abort_after: u32,
    stalled_after: u32,
    close_wait: u32,
}

impl Timeouts {
    /// One pass a second, or more for ping intervals under 25 s.
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

    /// Returns the timeout that a socket has exceeded, if any.
    fn decide(self, status: WriterStatus) -> Option<AbortReason> {
        let timeouts = [
            (AbortReason::Stalled, status.stalled > self.stalled_after),
            (AbortReason::Unclosed, status.closing > self.close_wait),
            (AbortReason::Silent, status.idle > self.abort_after),
        ];
        timeouts.into_iter().find_map(|(reason, is_exceeded)| is_exceeded.then_some(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_counted_in_passes() {
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
    fn stalled_sockets_are_shed_until_the_excess_is_gone() {
        let timeouts = Timeouts::new(Duration::from_secs(25));
        let mut pass = SweepPass { timeouts, now: Time::from_millis(0), excess: 15, unsent: 0 };
        let status = |stalled| WriterStatus { idle: 1, stalled, closing: 0, unsent: 10, keepalive: false };
        let mut decide = |stalled| pass.decide(status(stalled), Time::MAX);
        assert_eq!(decide(1), None, "not stalled for more than a pass");
        assert_eq!(decide(31), Some(Action::Shed), "it times out anyway, and its bytes count");
        assert_eq!([decide(2), decide(2)], [Some(Action::Shed), None]);
        assert_eq!(decide(31), Some(Action::Abort(AbortReason::Stalled)));
        assert_eq!(pass.unsent, 20);
    }
}
