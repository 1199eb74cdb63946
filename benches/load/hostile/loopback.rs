//! The echo: how long a byte takes through the machine's own loopback and back, while all else goes on.
//!
//! Two threads and no hub. What the good members wait beyond this, they wait for the hub; where this is long,
//! the machine has other work, and says little about anything.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::figure::millis;

const EVERY: Duration = Duration::from_millis(10);

/// Goes on until it is dropped.
pub(super) struct Echo {
    times: Receiver<f64>,
    _stop: Sender<()>,
}

impl Echo {
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

    /// Milliseconds of each since this was last asked.
    pub(super) fn take(&self) -> Vec<f64> {
        self.times.try_iter().collect()
    }
}
