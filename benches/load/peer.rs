//! The hubs on other platforms that `--peers` measures: `ws` on Node.js, and Bun.
//!
//! Their programs are in `benches/peers`, and npm installs what they need there. They do the hub's work
//! for a room, without history and limits: `benches/peers/room.mjs` has the list.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Ws,
    Bun,
}

impl Peer {
    pub(crate) const ALL: [Self; 2] = [Self::Ws, Self::Bun];

    /// The command that runs the peer's hub.
    pub(crate) fn command(self) -> Command {
        let (program, script) = match self {
            Self::Ws => (PathBuf::from("node"), "ws.mjs"),
            Self::Bun => (folder().join("node_modules/.bin/bun"), "bun.mjs"),
        };
        let mut command = Command::new(program);
        command.arg(folder().join(script));
        command
    }

    /// Returns the name with versions. Fails where the peer is not installed.
    pub(crate) fn version(self) -> Outcome<String> {
        let mut command = self.command();
        command.arg("--version");
        let reason = match command.output() {
            Ok(output) if output.status.success() => {
                return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
            }
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        Err(format!(
            "{command:?} failed: {}\n--peers needs Node.js 20 or newer and the packages of {}: run `npm ci` there.",
            reason.trim(),
            folder().display()
        )
        .into())
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers")
}
