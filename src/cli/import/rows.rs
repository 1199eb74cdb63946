//! Files as rows: JSON Lines, a JSON array or CSV, also compressed with gzip.
//!
//! What a file is, its first bytes tell, not its name. Rows come one at a time, each with the line on which
//! it begins; one that cannot be read is refused, and the next one goes on behind it where that can be known.

use std::io::{self, BufRead, BufReader, Bytes, Chain, Read};

use csv::{ByteRecord, Terminator};
use flate2::bufread::MultiGzDecoder;
use serde_json::Value;

use super::fields::{Fields, Refusal};
use crate::protocol::parse;

/// The most bytes of a row: far more than any that is right, far less than what would fill the memory.
const ROW_LIMIT: usize = 1 << 20;

/// One row of a file.
#[derive(Debug)]
pub(in crate::cli) struct Row {
    /// The line on which it begins.
    pub(in crate::cli) line: u64,
    /// What is in it.
    pub(in crate::cli) fields: Result<Fields, Refusal>,
}

/// The rows of a file.
pub(in crate::cli) type Rows = Box<dyn Iterator<Item = Row>>;

/// Reads a file, whatever it is of these.
pub(in crate::cli) fn read(file: impl Read + 'static) -> io::Result<Rows> {
    let mut bytes: Box<dyn BufRead> = Box::new(BufReader::new(file));
    if bytes.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        bytes = Box::new(BufReader::new(MultiGzDecoder::new(bytes)));
    }
    if bytes.fill_buf()?.starts_with("\u{feff}".as_bytes()) {
        bytes.consume("\u{feff}".len());
    }
    Ok(match bytes.fill_buf()?.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => Box::new(Lines { bytes, line: 0 }),
        Some(b'[') => Box::new(Items { bytes: bytes.bytes(), line: 1, place: Place::Before }),
        _ => Box::new(Table::new(bytes)),
    })
}

fn object(text: &[u8]) -> Result<Fields, Refusal> {
    let text = std::str::from_utf8(text).map_err(|_| Refusal::row("is not UTF-8"))?;
    Ok(Fields::Object(parse::object(text)?))
}

fn unreadable(error: &io::Error) -> Refusal {
    Refusal::row(format_args!("cannot be read, and nothing behind it: {error}"))
}

fn too_long() -> io::Error {
    io::Error::other(format!("it has more than {ROW_LIMIT} bytes"))
}

/// JSON Lines.
struct Lines {
    bytes: Box<dyn BufRead>,
    line: u64,
}

impl Lines {
    fn next_line(&mut self, text: &mut Vec<u8>) -> io::Result<usize> {
        let read = self.bytes.by_ref().take(ROW_LIMIT as u64).read_until(b'\n', text)?;
        if read == ROW_LIMIT && !text.ends_with(b"\n") {
            return Err(too_long());
        }
        Ok(read)
    }
}

impl Iterator for Lines {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        loop {
            let mut text = Vec::new();
            self.line += 1;
            let line = self.line;
            match self.next_line(&mut text) {
                Ok(0) => return None,
                Ok(_) if text.trim_ascii().is_empty() => {}
                Ok(_) => return Some(Row { line, fields: object(&text) }),
                Err(error) => {
                    self.bytes = Box::new(io::empty());
                    return Some(Row { line, fields: Err(unreadable(&error)) });
                }
            }
        }
    }
}

/// Where in a JSON array the reader stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    Inside,
    Behind,
}

/// The items of a JSON array.
struct Items {
    bytes: Bytes<Box<dyn BufRead>>,
    line: u64,
    place: Place,
}

/// What ended an item.
enum End {
    Comma,
    Bracket,
}

impl Items {
    fn byte(&mut self) -> io::Result<Option<u8>> {
        let byte = self.bytes.next().transpose()?;
        self.line += u64::from(byte == Some(b'\n'));
        Ok(byte)
    }

    /// Reads up to the comma or the bracket that ends an item of the array itself, and says on which line the
    /// item begins.
    fn item(&mut self, text: &mut Vec<u8>) -> io::Result<(u64, End)> {
        let (mut depth, mut in_string, mut is_escaped) = (0_u32, false, false);
        let mut begins = None;
        loop {
            let line = self.line;
            let Some(byte) = self.byte()? else {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the array does not end"));
            };
            match byte {
                b'"' if !is_escaped => in_string = !in_string,
                _ if in_string => {}
                b'{' | b'[' => depth += 1,
                b',' if depth == 0 => return Ok((begins.unwrap_or(line), End::Comma)),
                b']' if depth == 0 => return Ok((begins.unwrap_or(line), End::Bracket)),
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            is_escaped = in_string && byte == b'\\' && !is_escaped;
            if !byte.is_ascii_whitespace() {
                begins.get_or_insert(line);
            }
            if begins.is_some() {
                text.push(byte);
            }
            if text.len() > ROW_LIMIT {
                return Err(too_long());
            }
        }
    }

    fn skip_bracket(&mut self) -> io::Result<()> {
        while self.byte()?.is_some_and(|byte| byte != b'[') {}
        Ok(())
    }

    fn is_at_end(&mut self) -> io::Result<bool> {
        while let Some(byte) = self.byte()? {
            if !byte.is_ascii_whitespace() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn try_next(&mut self) -> io::Result<Option<Row>> {
        if self.place == Place::Before {
            self.skip_bracket()?;
            self.place = Place::Inside;
        }
        if self.place == Place::Inside {
            let mut text = Vec::new();
            let (line, end) = self.item(&mut text)?;
            if let End::Bracket = end {
                self.place = Place::Behind;
            }
            // Behind a last comma, and in an empty array, there is no item.
            if matches!(end, End::Comma) || !text.is_empty() {
                return Ok(Some(Row { line, fields: object(&text) }));
            }
        }
        if self.is_at_end()? { Ok(None) } else { Err(io::Error::other("it is behind the end of the array")) }
    }
}

impl Iterator for Items {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        self.try_next().unwrap_or_else(|error| {
            let row = Row { line: self.line, fields: Err(unreadable(&error)) };
            let nothing: Box<dyn BufRead> = Box::new(io::empty());
            (self.bytes, self.place) = (nothing.bytes(), Place::Behind);
            Some(row)
        })
    }
}

/// The text of CSV, and a last end of a line.
type Text = Chain<Box<dyn BufRead>, &'static [u8]>;

/// CSV with a header.
struct Table {
    rows: csv::Reader<Limited<Text>>,
    header: Option<Vec<String>>,
    is_over: bool,
}

impl Table {
    fn new(bytes: Box<dyn BufRead>) -> Self {
        let mut table = csv::ReaderBuilder::new();
        // The reader's own rule for \r\n counts the lines wrongly, so rows end at \n. A last one ends every
        // row, so that the line on which a row began can be told from the one behind it.
        table.has_headers(false).flexible(true).terminator(Terminator::Any(b'\n'));
        let rows = table.from_reader(Limited { bytes: bytes.chain(b"\n".as_slice()), left: ROW_LIMIT });
        Self { rows, header: None, is_over: false }
    }

    /// The next row that is not blank, and the line on which it begins.
    fn next_row(&mut self) -> io::Result<Option<(u64, ByteRecord)>> {
        let mut row = ByteRecord::new();
        loop {
            self.rows.get_mut().left = ROW_LIMIT;
            if !self.rows.read_byte_record(&mut row)? {
                return Ok(None);
            }
            let is_blank = row.len() == 1 && row.iter().all(|cell| cell.trim_ascii().is_empty());
            if !is_blank {
                let lines = row.as_slice().split(|byte| *byte == b'\n').count() as u64;
                return Ok(Some((self.rows.position().line() - lines, row)));
            }
        }
    }

    fn try_next(&mut self) -> io::Result<Option<Row>> {
        let Some((line, row)) = self.next_row()? else { return Ok(None) };
        let cells = texts(&row);
        let Some(header) = &self.header else {
            return match cells.and_then(unique) {
                Ok(names) => {
                    self.header = Some(names);
                    self.try_next()
                }
                Err(refusal) => {
                    self.is_over = true;
                    Ok(Some(Row { line, fields: Err(refusal) }))
                }
            };
        };
        let fields = cells.and_then(|cells| match (cells.len(), header.len()) {
            (there, due) if there != due => {
                Err(Refusal::row(format_args!("has {there} cells, and the header has {due}")))
            }
            _ => Ok(Fields::Cells(header.iter().cloned().zip(cells.into_iter().map(cell)).collect())),
        });
        Ok(Some(Row { line, fields }))
    }
}

impl Iterator for Table {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        if self.is_over {
            return None;
        }
        self.try_next().unwrap_or_else(|error| {
            self.is_over = true;
            Some(Row { line: self.rows.position().line(), fields: Err(unreadable(&error)) })
        })
    }
}

/// The cells of a row. The last one keeps no \r of the row's end.
fn texts(row: &ByteRecord) -> Result<Vec<String>, Refusal> {
    let last = row.len().saturating_sub(1);
    let text = |(place, cell): (usize, &[u8])| {
        let cell = if place == last { cell.strip_suffix(b"\r").unwrap_or(cell) } else { cell };
        String::from_utf8(cell.to_vec()).map_err(|_| Refusal::row("is not UTF-8"))
    };
    row.iter().enumerate().map(text).collect()
}

/// Columns must have names that can be told apart.
fn unique(header: Vec<String>) -> Result<Vec<String>, Refusal> {
    let names: Vec<String> = header.into_iter().map(|name| name.trim().to_owned()).collect();
    match names
        .iter()
        .enumerate()
        .find(|(place, name)| names.iter().take(*place).any(|before| before == *name))
    {
        None => Ok(names),
        Some((_, twice)) => Err(Refusal::field(twice, "stands twice in the header")),
    }
}

fn cell(text: String) -> Value {
    if text.is_empty() { Value::Null } else { Value::String(text) }
}

/// Reads no more than it has left: a quote that is never closed must not bring in the whole file.
struct Limited<R> {
    bytes: R,
    left: usize,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(too_long());
        }
        let read = self.bytes.by_ref().take(self.left as u64).read(buffer)?;
        self.left -= read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    /// Every row's line, with its fields as JSON or why it was refused.
    fn rows(file: impl AsRef<[u8]>) -> Vec<(u64, String)> {
        let rows = read(Cursor::new(file.as_ref().to_vec())).unwrap();
        let text = |row: Row| match row.fields {
            Ok(Fields::Object(values) | Fields::Cells(values)) => {
                (row.line, Value::Object(values).to_string().chars().take(100).collect())
            }
            Err(refusal) => (row.line, refusal.to_string()),
        };
        rows.map(text).collect()
    }

    fn expect(file: impl AsRef<[u8]>, expected: &[(u64, &str)]) {
        let file = file.as_ref();
        let found = rows(file);
        let found: Vec<(u64, &str)> = found.iter().map(|(line, text)| (*line, text.as_str())).collect();
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(&file[..file.len().min(500)]));
    }

    #[test]
    fn json_lines_are_read_line_by_line() {
        expect(
            "{\"a\":1}\n\n{\"a\":2}\r\n  {\"a\":3}",
            &[(1, r#"{"a":1}"#), (3, r#"{"a":2}"#), (4, r#"{"a":3}"#)],
        );
        let broken = rows("\n{\"a\":1\n[1]\n{\"a\":2}\n");
        assert_eq!(broken.iter().map(|row| row.0).collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(broken[1].1, "not a JSON object");
        assert_eq!(broken[2].1, r#"{"a":2}"#);
        expect(b"{\"a\":\"\xff\"}\n{\"a\":1}", &[(1, "is not UTF-8"), (2, r#"{"a":1}"#)]);
    }

    #[test]
    fn a_json_array_is_read_item_by_item() {
        expect("[]", &[]);
        expect(" [ ]\n", &[]);
        expect(r#"[{"a":1},{"a":2}]"#, &[(1, r#"{"a":1}"#), (1, r#"{"a":2}"#)]);
        let pretty = "[\n  {\n    \"a\": [1, {\"b\": \"]},\\\"\\\\\"}]\n  },\n  {\n    \"a\": 2\n  }\n]\n";
        expect(pretty, &[(2, r#"{"a":[1,{"b":"]},\"\\"}]}"#), (5, r#"{"a":2}"#)]);
        expect(
            "[{\"a\":1},\n7,\n\n{\"a\":2},\n]",
            &[(1, r#"{"a":1}"#), (2, "not a JSON object"), (4, r#"{"a":2}"#)],
        );
        expect(
            "[{\"a\":1},\n{\"a\":2}",
            &[(1, r#"{"a":1}"#), (2, "cannot be read, and nothing behind it: the array does not end")],
        );
        expect(
            "[{\"a\":1}]\n[{\"a\":2}]",
            &[
                (1, r#"{"a":1}"#),
                (2, "cannot be read, and nothing behind it: it is behind the end of the array"),
            ],
        );
    }

    #[test]
    fn csv_rows_know_the_line_on_which_they_begin() {
        let expected = [
            (2, r#"{"a":"1","b":"x, \"y\""}"#),
            (3, r#"{"a":"2","b":"two\nlines"}"#),
            (6, r#"{"a":"3","b":null}"#),
        ];
        expect("a,b\n1,\"x, \"\"y\"\"\"\n2,\"two\nlines\"\n\n3,", &expected);
        expect("\u{feff}a,b\n1,\"x, \"\"y\"\"\"\n2,\"two\nlines\"\n\n3,\n", &expected);
        expect("a,b\r\n1,\"x, \"\"y\"\"\"\r\n2,\"two\nlines\"\r\n\r\n3,\r\n", &expected);
        expect("\n\na , b\n1,2\n", &[(4, r#"{"a":"1","b":"2"}"#)]);
        expect(
            "a,b\n1\n1,2,3\n4,5",
            &[
                (2, "has 1 cells, and the header has 2"),
                (3, "has 3 cells, and the header has 2"),
                (4, r#"{"a":"4","b":"5"}"#),
            ],
        );
        expect(b"a,b\n1,\xff\n4,5", &[(2, "is not UTF-8"), (3, r#"{"a":"4","b":"5"}"#)]);
        expect("a,a\n1,2\n", &[(1, "a: stands twice in the header")]);
        expect("", &[]);
        expect("a,b\n", &[]);
    }

    #[test]
    fn what_would_fill_the_memory_is_refused() {
        let long = "x".repeat(2 * ROW_LIMIT);
        let refusal = "cannot be read, and nothing behind it: it has more than 1048576 bytes";
        expect(format!("{{\"a\":1}}\n{{\"a\":\"{long}\"}}\n{{\"a\":2}}"), &[(1, r#"{"a":1}"#), (2, refusal)]);
        expect(
            format!("[{{\"a\":1}},\n{{\"a\":\"{long}\"}},{{\"a\":2}}]"),
            &[(1, r#"{"a":1}"#), (2, refusal)],
        );
        expect(format!("a\n1\n\"{long}\n2"), &[(2, r#"{"a":"1"}"#), (3, refusal)]);
    }

    #[test]
    fn compressed_files_are_read_too() {
        let compressed = |text: &[u8]| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(text).unwrap();
            gzip.finish().unwrap()
        };
        let two = [compressed(b"{\"a\":1}\n"), compressed(b"{\"a\":2}\n")].concat();
        expect(&two, &[(1, r#"{"a":1}"#), (2, r#"{"a":2}"#)]);
        expect(compressed(b"a\n1\n"), &[(2, r#"{"a":"1"}"#)]);
        let cut = rows(&two[..two.len() - 4]);
        assert_eq!(cut[0], (1, r#"{"a":1}"#.to_owned()));
        assert!(cut.last().unwrap().1.starts_with("cannot be read, and nothing behind it"), "{cut:?}");
    }
}
