//! Kills the tool's processes when the load tool ends early: after a signal, or after its time limit.
//!
//! Few processes run at a time, so a short list of their ids is all the state there is.

use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::{Outcome, print_error};

/// A run that takes longer hangs.
const TIME_LIMIT: Duration = Duration::from_mins(45);

/// The ids of running processes, or 0. A cluster has the most: servers, hubs and crowds.
static PROCESSES: [AtomicI32; 16] = [const { AtomicI32::new(0) }; 16];

/// Registers a process that ends with the tool.
pub(crate) fn register(process: u32) {
    replace(0, process.cast_signed());
}

/// Forgets a process that has ended.
pub(crate) fn clear(process: u32) {
    replace(process.cast_signed(), 0);
}

fn replace(old: i32, new: i32) {
    let order = Ordering::SeqCst;
    PROCESSES.iter().find(|process| process.compare_exchange(old, new, order, order).is_ok());
}

/// Starts the thread that waits for a signal or the time limit.
pub(crate) fn start() -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = runtime.block_on(async {
        std::io::Result::Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    })?;
    thread::spawn(move || {
        let reason = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
                () = tokio::time::sleep(TIME_LIMIT) => "the time limit of 45 minutes",
            }
        });
        print_error(format_args!("The load tool ends early: {reason}."));
        for process in PROCESSES.iter().filter_map(|process| Pid::from_raw(process.load(Ordering::SeqCst))) {
            let _ = kill_process(process, Signal::KILL);
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the main thread may hang and cannot be asked to return"
        )]
        std::process::exit(130);
    });
    Ok(())
}
