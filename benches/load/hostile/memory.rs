//! The hub's resident memory, looked at each second, and its peak, which the kernel keeps.
//!
//! A hub that takes gigabytes is killed before the machine suffers; the run has failed then.

use std::fs;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::complain;

const EVERY: Duration = Duration::from_secs(1);

/// Beyond this the machine is at stake.
const END: f64 = 4e9;

/// Bytes.
#[derive(Debug, Clone, Copy)]
struct Sample {
    resident: f64,
    /// The most since the process began.
    peak: f64,
}

/// Goes on until it is dropped.
pub(super) struct Memory {
    samples: Receiver<Sample>,
    _stop: Sender<()>,
}

impl Memory {
    /// Of this process.
    pub(super) fn watch(process: u32) -> Self {
        let (sender, samples) = channel();
        let (stop, stopped) = channel::<()>();
        thread::spawn(move || {
            while let Some(sample) = look(process) {
                if sample.resident > END {
                    complain(format_args!("The hub has {:.1} GB and is killed.", sample.resident / 1e9));
                    let _ = Pid::from_raw(process.cast_signed()).map(|pid| kill_process(pid, Signal::KILL));
                }
                let _ = sender.send(sample);
                if stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
        });
        Self { samples, _stop: stop }
    }

    /// The largest sample since this was last asked, and the kernel's peak so far, in bytes.
    pub(super) fn take(&self) -> (f64, f64) {
        self.samples.try_iter().fold((0.0, 0.0), |(resident, peak), sample| {
            (f64::max(resident, sample.resident), f64::max(peak, sample.peak))
        })
    }
}

fn look(process: u32) -> Option<Sample> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1024.0)
    };
    Some(Sample { resident: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
}
