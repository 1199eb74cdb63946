//! Reads rows from JSON Lines, a JSON array or CSV, also compressed with gzip.
//!
//! The first bytes decide the format, not the file's name. Each row has the line on which it begins. A row that cannot be
//! parsed is an error, and reading continues behind it if its end is known.

use std::io::{self, BufRead, BufReader, Bytes, Chain, Read};

use csv::{ByteRecord, Terminator};
use flate2::bufread::MultiGzDecoder;
use serde_json::Value;

use super::fields::{Fields, RowError};
use crate::protocol::parse;

/// Limit of a row in bytes: far above each valid row, far below the memory.
const ROW_LIMIT: usize = 1 << 20;

/// One row of a file.
#[derive(Debug)]
pub(in crate::cli) struct Row {
    /// The line on which the row begins.
    pub(in crate::cli) line: u64,
    /// The row's fields.
    pub(in crate::cli) fields: Result<Fields, RowError>,
}

/// The rows of a file.
pub(in crate::cli) type Rows = Box<dyn Iterator<Item = Row>>;

/// Reads a file of any of these formats. `check` says whether rows with the columns of a CSV header are of a known kind.
pub(in crate::cli) fn read(
    file: impl Read + 'static,
    check: impl Fn(&[String]) -> Result<(), RowError> + 'static,
) -> io::Result<Rows> {
    let mut bytes: Box<dyn BufRead> = Box::new(BufReader::new(file));
    if bytes.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        bytes = Box::new(BufReader::new(MultiGzDecoder::new(bytes)));
    }
    if bytes.fill_buf()?.starts_with("\u{feff}".as_bytes()) {
        bytes.consume("\u{feff}".len());
    }
    Ok(match bytes.fill_buf()?.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => Box::new(JsonLines { bytes, line: 0 }),
        Some(b'[') => Box::new(JsonArray { bytes: bytes.bytes(), line: 1, position: Position::Before }),
        _ => Box::new(CsvTable::new(bytes, Box::new(check))),
    })
}

fn object(text: &[u8]) -> Result<Fields, RowError> {
    let text = std::str::from_utf8(text).map_err(|_| RowError::row("is not UTF-8"))?;
    Ok(Fields::Object(parse::object(text)?))
}

fn unreadable(error: &io::Error) -> RowError {
    RowError::last(format_args!("cannot be read, and nothing behind it: {error}"))
}

fn too_long() -> io::Error {
    io::Error::other(format!("it has more than {ROW_LIMIT} bytes"))
}

/// Reads JSON Lines.
struct JsonLines {
    bytes: Box<dyn BufRead>,
    line: u64,
}

impl JsonLines {
    fn next_line(&mut self, text: &mut Vec<u8>) -> io::Result<usize> {
        let read = self.bytes.by_ref().take(ROW_LIMIT as u64).read_until(b'\n', text)?;
        if read == ROW_LIMIT && !text.ends_with(b"\n") {
            return Err(too_long());
        }
        Ok(read)
    }
}

impl Iterator for JsonLines {
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

/// The reader's position in a JSON array.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    Before,
    Inside,
    After,
}

/// Reads the items of a JSON array.
struct JsonArray {
    bytes: Bytes<Box<dyn BufRead>>,
    line: u64,
    position: Position,
}

/// The byte that ended an item.
enum ItemEnd {
    Comma,
    Bracket,
}

impl JsonArray {
    fn byte(&mut self) -> io::Result<Option<u8>> {
        let byte = self.bytes.next().transpose()?;
        self.line += u64::from(byte == Some(b'\n'));
        Ok(byte)
    }

    /// Reads up to the comma or the bracket that ends an item of the outer array, and returns the line on which the item
    /// begins.
    fn item(&mut self, text: &mut Vec<u8>) -> io::Result<(u64, ItemEnd)> {
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
                b',' if depth == 0 => return Ok((begins.unwrap_or(line), ItemEnd::Comma)),
                b']' if depth == 0 => return Ok((begins.unwrap_or(line), ItemEnd::Bracket)),
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
        if self.position == Position::Before {
            self.skip_bracket()?;
            self.position = Position::Inside;
        }
        if self.position == Position::Inside {
            let mut text = Vec::new();
            let (line, end) = self.item(&mut text)?;
            if let ItemEnd::Bracket = end {
                self.position = Position::After;
            }
            // After a trailing comma, and in an empty array, there is no item.
            if matches!(end, ItemEnd::Comma) || !text.is_empty() {
                return Ok(Some(Row { line, fields: object(&text) }));
            }
        }
        if self.is_at_end()? { Ok(None) } else { Err(io::Error::other("it is behind the end of the array")) }
    }
}

impl Iterator for JsonArray {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        self.try_next().unwrap_or_else(|error| {
            let row = Row { line: self.line, fields: Err(unreadable(&error)) };
            let nothing: Box<dyn BufRead> = Box::new(io::empty());
            (self.bytes, self.position) = (nothing.bytes(), Position::After);
            Some(row)
        })
    }
}

/// CSV text, and a final line break.
type Text = Chain<Box<dyn BufRead>, &'static [u8]>;

/// Says whether rows with the columns of a header are of a known kind.
type HeaderCheck = Box<dyn Fn(&[String]) -> Result<(), RowError>>;

/// Reads CSV with a header.
struct CsvTable {
    rows: csv::Reader<Limited<Text>>,
    header: Option<Vec<String>>,
    check: HeaderCheck,
    is_over: bool,
}

impl CsvTable {
    fn new(bytes: Box<dyn BufRead>, check: HeaderCheck) -> Self {
        let mut table = csv::ReaderBuilder::new();
        // The csv crate counts lines wrongly with \r\n, so rows end at \n. The final line break ends the last row too, so
        // that a row's first line can be computed from the reader's position.
        table.has_headers(false).flexible(true).terminator(Terminator::Any(b'\n'));
        let bytes = bytes.chain(b"\n".as_slice());
        let rows = table.from_reader(Limited { bytes, left: ROW_LIMIT, quotes: Quotes::default() });
        Self { rows, header: None, check, is_over: false }
    }

    /// Returns the next row that is not blank, and its first line.
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

    /// Returns the line of the quote that the file does not close, if the row that was read has it.
    fn unclosed(&self) -> Option<u64> {
        let Quotes { bytes, is_at_end, opened, state, .. } = self.rows.get_ref().quotes;
        let has_all = is_at_end && self.rows.position().byte() == bytes;
        (has_all && state == Quote::Inside).then_some(opened)
    }

    fn try_next(&mut self) -> io::Result<Option<Row>> {
        let Some((line, row)) = self.next_row()? else { return Ok(None) };
        if let Some(line) = self.unclosed() {
            self.is_over = true;
            return Ok(Some(Row { line, fields: Err(RowError::last("a quote is not closed")) }));
        }
        let cells = texts(&row);
        let Some(header) = &self.header else {
            let names = cells.and_then(unique).and_then(|names| (self.check)(&names).map(|()| names));
            return match names {
                Ok(names) => {
                    self.header = Some(names);
                    self.try_next()
                }
                Err(error) => {
                    self.is_over = true;
                    Ok(Some(Row { line, fields: Err(RowError::last(error)) }))
                }
            };
        };
        let fields = cells.and_then(|cells| match (cells.len(), header.len()) {
            (there, due) if there != due => {
                Err(RowError::row(format_args!("has {there} cells, and the header has {due}")))
            }
            _ => Ok(Fields::Cells(header.iter().cloned().zip(cells.into_iter().map(cell)).collect())),
        });
        Ok(Some(Row { line, fields }))
    }
}

impl Iterator for CsvTable {
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

/// Returns the cells of a row, the last one without the \r of the line end.
fn texts(row: &ByteRecord) -> Result<Vec<String>, RowError> {
    let last = row.len().saturating_sub(1);
    let text = |(place, cell): (usize, &[u8])| {
        let cell = if place == last { cell.strip_suffix(b"\r").unwrap_or(cell) } else { cell };
        String::from_utf8(cell.to_vec()).map_err(|_| RowError::row("is not UTF-8"))
    };
    row.iter().enumerate().map(text).collect()
}

/// Rejects duplicate column names.
fn unique(header: Vec<String>) -> Result<Vec<String>, RowError> {
    let names: Vec<String> = header.into_iter().map(|name| name.trim().to_owned()).collect();
    match names
        .iter()
        .enumerate()
        .find(|(place, name)| names.iter().take(*place).any(|before| before == *name))
    {
        None => Ok(names),
        Some((_, twice)) => Err(RowError::field(twice, "is twice in the header")),
    }
}

fn cell(text: String) -> Value {
    if text.is_empty() { Value::Null } else { Value::String(text) }
}

/// Reads at most `left` bytes, so that a quote that is never closed does not read the whole file. Follows the quotes.
struct Limited<R> {
    bytes: R,
    left: usize,
    quotes: Quotes,
}

/// Where in a cell the reader is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Quote {
    /// At the start of a cell.
    #[default]
    Start,
    /// In a cell without quotes, where a quote has no meaning.
    Outside,
    /// Behind an open quote.
    Inside,
    /// Behind a quote that closes the cell, or is the first of two.
    Second,
}

/// The quotes of the bytes that were read, in the dialect of the csv crate, which does not say whether one is open.
#[derive(Debug, Clone, Copy)]
struct Quotes {
    state: Quote,
    /// The current line.
    line: u64,
    /// The line of the last quote that was opened.
    opened: u64,
    /// How many bytes were read.
    bytes: u64,
    is_at_end: bool,
}

impl Default for Quotes {
    fn default() -> Self {
        Self { state: Quote::Start, line: 1, opened: 1, bytes: 0, is_at_end: false }
    }
}

impl Quotes {
    fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.state = match (self.state, *byte) {
                (Quote::Start, b'"') => {
                    self.opened = self.line;
                    Quote::Inside
                }
                (Quote::Inside, b'"') => Quote::Second,
                (Quote::Inside, _) | (Quote::Second, b'"') => Quote::Inside,
                (_, b',' | b'\n') => Quote::Start,
                _ => Quote::Outside,
            };
            self.line += u64::from(*byte == b'\n');
        }
        self.bytes += bytes.len() as u64;
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(too_long());
        }
        let read = self.bytes.by_ref().take(self.left as u64).read(buffer)?;
        self.left -= read;
        self.quotes.read(buffer.get(..read).unwrap_or_default());
        self.quotes.is_at_end = read == 0;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    /// Each row's line, with its fields as JSON or its error.
    fn rows(file: impl AsRef<[u8]>) -> Vec<(u64, String)> {
        let rows = read(Cursor::new(file.as_ref().to_vec()), |_| Ok(())).unwrap();
        let text = |row: Row| match row.fields {
            Ok(Fields::Object(values) | Fields::Cells(values)) => {
                (row.line, Value::Object(values).to_string().chars().take(100).collect())
            }
            Err(error) => (row.line, error.to_string()),
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
    fn json_lines_give_rows_with_line_numbers() {
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
    fn json_array_gives_rows_with_line_numbers() {
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
    fn csv_gives_rows_with_line_numbers() {
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
        expect("a,a\n1,2\n", &[(1, "a: is twice in the header")]);
        expect("", &[]);
        expect("a,b\n", &[]);
    }

    #[test]
    fn quote_that_is_not_closed_is_rejected_with_its_line() {
        let unclosed = "a quote is not closed";
        expect("a,b\n1,2\n3,\"4\n5,6\n7,8\n", &[(2, r#"{"a":"1","b":"2"}"#), (3, unclosed)]);
        expect("a,b\n1,\"2", &[(2, unclosed)]);
        expect("a,b\n1,\"2\n\n", &[(2, unclosed)]);
        expect("a,b\n\"1\n\",\"2\n3,4\n", &[(3, unclosed)]);
        expect("a,\"b\n1,2\n", &[(1, unclosed)]);
        expect("a,b\r\n1,\"\"\"2\r\n", &[(2, unclosed)]);
        // These quotes are closed, or none.
        expect("a,b\n1,\"2\n\"", &[(2, r#"{"a":"1","b":"2\n"}"#)]);
        expect("a,b\n1,\"\"\"\"\n3,4\"5\n", &[(2, r#"{"a":"1","b":"\""}"#), (3, r#"{"a":"3","b":"4\"5"}"#)]);
        expect("a,b\n1,\"2\"3\"\n", &[(2, r#"{"a":"1","b":"23\""}"#)]);
    }

    #[test]
    fn unknown_header_ends_the_file() {
        let check = |names: &[String]| {
            if names.contains(&"id".to_owned()) { Ok(()) } else { Err(RowError::row("is unknown")) }
        };
        for file in ["<html>\n<p>a,b\n", "null", "null\n"] {
            let rows: Vec<Row> = read(Cursor::new(file.as_bytes().to_vec()), check).unwrap().collect();
            assert_eq!(rows.len(), 1, "{file}");
            assert_eq!((rows[0].line, &rows[0].fields), (1, &Err(RowError::last("is unknown"))), "{file}");
        }
        assert_eq!(read(Cursor::new(b"id\n".to_vec()), check).unwrap().count(), 0);
    }

    #[test]
    fn row_above_the_limit_is_rejected() {
        let long = "x".repeat(2 * ROW_LIMIT);
        let error = "cannot be read, and nothing behind it: it has more than 1048576 bytes";
        expect(format!("{{\"a\":1}}\n{{\"a\":\"{long}\"}}\n{{\"a\":2}}"), &[(1, r#"{"a":1}"#), (2, error)]);
        expect(format!("[{{\"a\":1}},\n{{\"a\":\"{long}\"}},{{\"a\":2}}]"), &[(1, r#"{"a":1}"#), (2, error)]);
        expect(format!("a\n1\n\"{long}\n2"), &[(2, r#"{"a":"1"}"#), (3, error)]);
    }

    #[test]
    fn gzip_files_are_decompressed() {
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
