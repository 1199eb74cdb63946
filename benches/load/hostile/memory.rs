//! The hub's resident memory, sampled each second, and its peak by the kernel.
//!
//! A hub that uses gigabytes is killed before the machine runs out of memory; the run fails then.

use std::fs;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::print_error;

const EVERY: Duration = Duration::from_secs(1);

/// The limit in bytes above which the hub is killed.
const LIMIT: f64 = 4e9;

/// In bytes.
#[derive(Debug, Clone, Copy)]
struct Sample {
    resident: f64,
    /// The maximum since the start of the process.
    peak: f64,
}

/// A running sampler, until it is dropped.
pub(super) struct Memory {
    samples: Receiver<Sample>,
    _stop: Sender<()>,
}

impl Memory {
    /// Starts to sample a process.
    pub(super) fn watch(process: u32) -> Self {
        let (sender, samples) = channel();
        let (stop, stopped) = channel::<()>();
        thread::spawn(move || {
            while let Some(sample) = read(process) {
                if sample.resident > LIMIT {
                    print_error(format_args!(
                        "The hub uses {:.1} GB of memory and is killed.",
                        sample.resident / 1e9
                    ));
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

    /// Returns the largest sample since the last call, and the kernel's peak so far, in bytes.
    pub(super) fn take(&self) -> (f64, f64) {
        self.samples.try_iter().fold((0.0, 0.0), |(resident, peak), sample| {
            (f64::max(resident, sample.resident), f64::max(peak, sample.peak))
        })
    }
}

fn read(process: u32) -> Option<Sample> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1024.0)
    };
    Some(Sample { resident: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
}
