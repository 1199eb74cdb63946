//! Kills the measured server when the load tool ends early: after a signal, or after its time limit.
//!
//! At most one server runs at a time, so its process id is all the state there is.

use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::{Outcome, print_error};

/// A run that takes longer hangs.
const TIME_LIMIT: Duration = Duration::from_mins(45);

/// The id of the running server's process, or 0.
static SERVER: AtomicI32 = AtomicI32::new(0);

/// Registers the process that ends with the tool.
pub(crate) fn register(process: u32) {
    SERVER.store(process.cast_signed(), Ordering::SeqCst);
}

pub(crate) fn clear() {
    SERVER.store(0, Ordering::SeqCst);
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
        if let Some(process) = Pid::from_raw(SERVER.load(Ordering::SeqCst)) {
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
