//! Output of commands: lines on standard output and standard error, and progress bars.
//!
//! Progress bars are on standard error, and only if it is a terminal.

use std::fmt::Display;
use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// Prints a line on standard output. A closed standard output is no error.
pub(super) fn print(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Prints a line on standard error, for messages beside data on standard output.
pub(super) fn print_error(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A progress bar over `total` events.
pub(super) fn event_bar(total: u64) -> ProgressBar {
    bar(total, "{bar:40} {human_pos} of {human_len} events, {per_sec}, {eta} left")
}

/// A progress bar over `total` bytes.
pub(super) fn byte_bar(total: u64) -> ProgressBar {
    bar(total, "{bar:40} {binary_bytes} of {binary_total_bytes}, {eta} left")
}

fn bar(total: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style)
}
