//! The sweep: finds sockets that are dead, silent or at the end of their token, and does what is due.
//!
//! It passes all sockets at a steady rate and counts passes instead of reading clocks: a peer that was
//! silent for some passes is pinged, and one that stays silent, takes nothing of what waits for it, or
//! does not answer a close, is cut off. Only the end of a token is a time.

use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, warn};

use super::metrics::CutOff;
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
    let patience = Patience::new(ping_interval);
    let ping = Frame::ping();
    let mut logged = Instant::now();
    let mut ticks = interval(patience.interval);
    // After a pause of the whole machine, peers get their time to answer.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut pass = Pass { patience, now: clock.wall(), excess: sockets.excess(), unsent: 0 };
        if pass.excess > 0 {
            warn!(unsent = sockets.unsent(), "too many bytes wait for peers: cutting off who takes nothing");
        }
        let mut chunk = 0;
        while let Some(due) = sockets.pass(chunk, |writer, end| pass.judge(writer.sweep(), end)) {
            for (writer, due) in due {
                due.be_done(&writer, &ping, sockets);
            }
            chunk += 1;
            yield_now().await;
        }
        sockets.set_unsent(pass.unsent);
        sockets.look_after_addresses(&mut logged);
    }
}

/// One pass over all sockets.
#[derive(Debug)]
struct Pass {
    patience: Patience,
    now: Time,
    /// Bytes that wait for peers and are more than may.
    excess: usize,
    /// Bytes that wait for those who are not cut off.
    unsent: usize,
}

/// What is to be done about a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Ping,
    /// Its token has ended.
    Close,
    CutOff(CutOff),
    /// It is cut off before its time, because too much waits for all peers.
    Shed,
}

impl Pass {
    fn judge(&mut self, vitals: WriterStatus, end: Time) -> Option<Due> {
        // First, because the bytes of whoever is dead anyway are free too.
        if self.excess > 0 && vitals.stuck > 1 {
            self.excess = self.excess.saturating_sub(vitals.unsent);
            return Some(Due::Shed);
        }
        if let Some(because) = self.patience.judge(vitals) {
            return Some(Due::CutOff(because));
        }
        self.unsent += vitals.unsent;
        if end <= self.now {
            return Some(Due::Close);
        }
        (vitals.silent == self.patience.ping_after).then_some(Due::Ping)
    }
}

impl Due {
    fn be_done(self, writer: &SocketWriter, ping: &Frame, sockets: &Sockets) {
        let because = match self {
            Self::Ping => return writer.send(ping),
            Self::Close => return writer.close(CloseCode::TokenEnded),
            Self::CutOff(because) => because,
            Self::Shed => {
                sockets.metrics().rejections.limited(Limit::BytesInFlight);
                CutOff::Stalled
            }
        };
        // Its session may take more than a pass to end.
        if writer.abort() {
            debug!(?because, "cutting off a socket");
            sockets.metrics().cut_off(because);
        }
    }
}

/// How long a peer may take nothing of what waits for it.
#[must_use]
pub fn stall_limit(ping_interval: Duration) -> Duration {
    STALL_LIMIT.min(ping_interval * 2)
}

/// The limits of patience, in passes of the sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Patience {
    interval: Duration,
    ping_after: u32,
    dead_after: u32,
    stalled_after: u32,
    close_wait: u32,
}

impl Patience {
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
            dead_after: ping_after.saturating_add(passes(PONG_WAIT.min(ping_interval))),
            stalled_after: passes(stall_limit(ping_interval)),
            close_wait: passes(CLOSE_WAIT),
        }
    }

    /// What is dead about a socket, if anything is.
    fn judge(self, vitals: WriterStatus) -> Option<CutOff> {
        let signs = [
            (CutOff::Stalled, vitals.stuck > self.stalled_after),
            (CutOff::Unclosed, vitals.closing > self.close_wait),
            (CutOff::Silent, vitals.silent > self.dead_after),
        ];
        signs.into_iter().find_map(|(because, is_so)| is_so.then_some(because))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sweep_is_patient_in_passes() {
        let patience = Patience::new(Duration::from_secs(25));
        assert_eq!(patience.interval, Duration::from_secs(1));
        assert_eq!((patience.ping_after, patience.dead_after), (25, 33));
        assert_eq!((patience.stalled_after, patience.close_wait), (30, 2));
        let quick = Patience::new(Duration::from_millis(500));
        assert_eq!(quick.interval, Duration::from_millis(20));
        assert_eq!((quick.ping_after, quick.dead_after), (25, 50));
        assert_eq!((quick.stalled_after, quick.close_wait), (50, 100));
    }

    #[test]
    fn too_much_is_shed_until_it_is_no_more_whoever_it_waits_for() {
        let patience = Patience::new(Duration::from_secs(25));
        let mut pass = Pass { patience, now: Time::from_millis(0), excess: 15, unsent: 0 };
        let waiting = |stuck| WriterStatus { silent: 1, stuck, closing: 0, unsent: 10 };
        let mut judge = |stuck| pass.judge(waiting(stuck), Time::END);
        assert_eq!(judge(1), None, "it may still take it");
        assert_eq!(judge(31), Some(Due::Shed), "it is dead anyway, and its bytes count");
        assert_eq!([judge(2), judge(2)], [Some(Due::Shed), None]);
        assert_eq!(judge(31), Some(Due::CutOff(CutOff::Stalled)));
        assert_eq!(pass.unsent, 20);
    }
}
