//! Progress bars: on standard error, and only where that is a terminal.
//!
//! How they look, and nothing of what they measure.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over so many facts.
pub(super) fn facts(total: u64) -> ProgressBar {
    bar(total, "{bar:40} {human_pos} of {human_len} facts, {per_sec}, {eta} left")
}

/// A bar over so many bytes.
pub(super) fn bytes(total: u64) -> ProgressBar {
    bar(total, "{bar:40} {binary_bytes} of {binary_total_bytes}, {eta} left")
}

fn bar(total: u64, template: &str) -> ProgressBar {
    // A bar that does not look as it should is still a bar.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style)
}
