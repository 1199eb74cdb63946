//! Output of commands: lines on standard output and standard error, and progress bars.
//!
//! Lines may quote rows and names of files, so their control characters are escaped: a terminal would obey them. Progress
//! bars are on standard error, and only if it is a terminal.

use std::fmt::Display;
use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// Prints a line on standard output. A closed standard output is no error.
pub(super) fn print(line: impl Display) {
    let _ = writeln!(io::stdout(), "{}", escaped(&line.to_string()));
}

/// Prints a line on standard error, for messages beside data on standard output.
pub(super) fn print_error(line: impl Display) {
    let _ = writeln!(io::stderr(), "{}", escaped(&line.to_string()));
}

/// Escapes control characters, line breaks included, and characters that change the direction of text.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        let is_direction = matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if char.is_control() || is_direction {
            escaped.extend(char.escape_default());
        } else {
            escaped.push(char);
        }
    }
    escaped
}

/// Escapes what is written to a terminal, line by line.
pub(super) struct Escaping<W: Write> {
    terminal: W,
    /// The start of a line that is not complete.
    line: Vec<u8>,
}

impl<W: Write> Escaping<W> {
    pub(super) fn new(terminal: W) -> Self {
        Self { terminal, line: Vec::new() }
    }
}

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if let Some(line) = self.line.strip_suffix(b"\n") {
                writeln!(self.terminal, "{}", escaped(&String::from_utf8_lossy(line)))?;
                self.line.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.terminal.flush()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_directions_are_escaped() {
        let text = "é😀 \u{1b}[2J\u{9b}1m\u{7}\r\n\t\u{7f}\u{202e}\u{2066}\u{200f}\u{61c}\u{2028}\0";
        let expected =
            "é😀 \\u{1b}[2J\\u{9b}1m\\u{7}\\r\\n\\t\\u{7f}\\u{202e}\\u{2066}\\u{200f}\\u{61c}\\u{2028}\\u{0}";
        assert_eq!(escaped(text), expected);
    }

    #[test]
    fn terminal_gets_whole_escaped_lines() {
        let mut shown = Vec::new();
        let mut terminal = Escaping::new(&mut shown);
        for byte in "a\u{1b}é\nb\u{202e}\n".bytes() {
            terminal.write_all(&[byte]).unwrap();
        }
        assert_eq!(String::from_utf8(shown).unwrap(), "a\\u{1b}é\nb\\u{202e}\n");
    }
}
