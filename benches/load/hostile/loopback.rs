//! The loopback probe: the round trip of one byte over the loopback interface, during the whole run.
//!
//! Two threads, without the hub. It is the part of the members' latency that is the machine's. Where it is long,
//! the machine is overloaded, and the latencies say little about the hub.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::figure::millis;

const EVERY: Duration = Duration::from_millis(10);

/// A running probe, until it is dropped.
pub(super) struct LoopbackProbe {
    times: Receiver<f64>,
    _stop: Sender<()>,
}

impl LoopbackProbe {
    pub(super) fn start() -> Outcome<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let mut near = TcpStream::connect(listener.local_addr()?)?;
        let (mut far, _) = listener.accept()?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let (sender, times) = channel();
        let (stop, stopped) = channel::<()>();
        thread::spawn(move || {
            let mut byte = [0];
            while far.read_exact(&mut byte).is_ok() && far.write_all(&byte).is_ok() {}
        });
        thread::spawn(move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                let began = Instant::now();
                if near.write_all(&[0]).is_err() || near.read_exact(&mut [0]).is_err() {
                    break;
                }
                let _ = sender.send(millis(began.elapsed()));
            }
        });
        Ok(Self { times, _stop: stop })
    }

    /// Returns the round trips since the last call, in milliseconds.
    pub(super) fn take(&self) -> Vec<f64> {
        self.times.try_iter().collect()
    }
}
