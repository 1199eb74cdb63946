//! No server outlives the load tool: not after a signal, and not after the longest time that it may run.
//!
//! At most one server runs at a time, so its number is all there is to remember.

use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::{Outcome, complain};

/// Beyond this something hangs.
const LONGEST: Duration = Duration::from_mins(45);

/// The server that runs, or 0.
static RUNNING: AtomicI32 = AtomicI32::new(0);

/// From now on this process is ended with the tool.
pub(crate) fn watch_over(process: u32) {
    RUNNING.store(process.cast_signed(), Ordering::SeqCst);
}

pub(crate) fn has_ended() {
    RUNNING.store(0, Ordering::SeqCst);
}

/// Starts to watch, in a thread of its own, which sleeps all the time.
pub(crate) fn start() -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = runtime.block_on(async {
        std::io::Result::Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    })?;
    thread::spawn(move || {
        let reason = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => "it was interrupted",
                _ = terminate.recv() => "it was told to stop",
                () = tokio::time::sleep(LONGEST) => "it took too long",
            }
        });
        complain(format_args!("The load tool ends early: {reason}."));
        if let Some(process) = Pid::from_raw(RUNNING.load(Ordering::SeqCst)) {
            let _ = kill_process(process, Signal::KILL);
        }
        #[expect(clippy::disallowed_methods, reason = "what is measured may hang, so nobody is asked")]
        std::process::exit(130);
    });
    Ok(())
}
