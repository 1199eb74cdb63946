//! One archive's file: written line by line, and read back.
//!
//! What is hashed is what is on the disk, that is, what is compressed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::{Archives, FileError, Written, aside, remove};
use crate::history::calendar::Month;
use crate::history::event::Batch;
use crate::history::record::Record;
use crate::private;

/// Lines that are read at once. Few in tests, so that there are many slices.
pub(crate) const LINES: usize = if cfg!(test) { 3 } else { 2_000 };

/// Bytes that are hashed at once.
const BLOCK: u64 = 4 << 20;

/// An archive that is being written.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
    out: Box<GzEncoder<Hashing<BufWriter<File>>>>,
    rows: u64,
}

impl Draft {
    /// Begins the draft of a month's archive, instead of one that was left behind.
    ///
    /// # Errors
    /// The file cannot be made.
    pub(crate) async fn start(archives: &Archives, month: Month) -> Result<Self, FileError> {
        let folder = archives.folder.clone();
        let path = archives.draft(month);
        let file = aside(path.clone(), move |path| {
            private::create_folder(&folder)?;
            if let Some(parent) = folder.canonicalize()?.parent() {
                // The folder itself must not be lost with the power.
                File::open(parent)?.sync_all()?;
            }
            remove(path)?;
            private::create_new(path)
        })
        .await?;
        let out = GzEncoder::new(Hashing::new(BufWriter::new(file)), Compression::default());
        Ok(Self { path, out: Box::new(out), rows: 0 })
    }

    /// Adds facts, one to a line.
    ///
    /// # Errors
    /// The disk does not take them.
    pub(crate) async fn add(self, facts: Batch) -> Result<Self, FileError> {
        self.write(move || Record::of(&facts).map(|record| serde_json::to_string(&record)).collect()).await
    }

    /// Adds lines as they are.
    ///
    /// # Errors
    /// The disk does not take them.
    pub(crate) async fn add_lines(self, lines: Vec<String>) -> Result<Self, FileError> {
        self.write(move || Ok(lines)).await
    }

    async fn write(
        self,
        lines: impl FnOnce() -> serde_json::Result<Vec<String>> + Send + 'static,
    ) -> Result<Self, FileError> {
        let Self { path, mut out, mut rows } = self;
        aside(path, move |path| {
            for line in lines()? {
                out.write_all(line.as_bytes())?;
                out.write_all(b"\n")?;
                rows += 1;
            }
            Ok(Self { path: path.to_path_buf(), out, rows })
        })
        .await
    }

    /// Brings the draft to disk and reads it back.
    ///
    /// # Errors
    /// It is not all there.
    pub(crate) async fn finish(self) -> Result<Written, FileError> {
        let Self { path, out, rows } = self;
        let checksum = aside(path.clone(), move |_| {
            let mut written = out.finish()?;
            written.flush()?;
            written.inner.get_ref().sync_all()?;
            Ok(written.checksum())
        })
        .await?;
        let mut source = Source::open(path.clone()).await?;
        loop {
            let (rest, lines) = source.next(LINES, |line| fact(line).map(drop)).await?;
            source = rest;
            if lines.is_empty() {
                break;
            }
        }
        if source.read != rows || source.checksum() != checksum {
            return Err(FileError::ReadBack { path });
        }
        Ok(Written { rows, checksum })
    }
}

/// The fact of a line, alone in its batch.
///
/// # Errors
/// Why there is none.
pub(crate) fn fact(line: &str) -> Result<Batch, String> {
    let record: Record = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let mut fact = Batch::default();
    record.add_to(&mut fact).map_err(|bad| format!("props: {bad}"))?;
    Ok(fact)
}

/// An archive that is being read.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    /// Lines that were read so far.
    read: u64,
    lines: Box<BufReader<MultiGzDecoder<Hashing<BufReader<File>>>>>,
}

impl Source {
    /// Opens the file.
    ///
    /// # Errors
    /// It is missing, or cannot be read.
    pub(crate) async fn open(path: PathBuf) -> Result<Self, FileError> {
        let file = aside(path.clone(), |path| File::open(path)).await?;
        let lines = BufReader::new(MultiGzDecoder::new(Hashing::new(BufReader::new(file))));
        Ok(Self { path, read: 0, lines: Box::new(lines) })
    }

    /// What `read` makes of each of the next lines, at most `limit` of them; none at the end.
    ///
    /// # Errors
    /// The file ends early, or `read` says what is wrong with a line.
    pub(crate) async fn next<T: Send + 'static>(
        self,
        limit: usize,
        read: impl Fn(&str) -> Result<T, String> + Send + 'static,
    ) -> Result<(Self, Vec<T>), FileError> {
        let Self { path, read: before, mut lines } = self;
        let read_slice = move |path: &Path| {
            let (mut slice, mut line) = (Vec::new(), String::new());
            while slice.len() < limit && lines.read_line(&mut line)? > 0 {
                slice.push(read(line.trim_end()));
                line.clear();
            }
            let read = before + slice.len() as u64;
            Ok((Self { path: path.to_path_buf(), read, lines }, slice))
        };
        let (rest, slice) = aside(path, read_slice).await?;
        let numbered = (before + 1..).zip(slice);
        let slice: Result<Vec<T>, (u64, String)> =
            numbered.map(|(line, read)| read.map_err(|why| (line, why))).collect();
        let slice = slice.map_err(|(line, why)| FileError::Line { path: rest.path.clone(), line, why })?;
        Ok((rest, slice))
    }

    /// The SHA-256 of what was read, in hexadecimal: the file's, at its end.
    #[must_use]
    pub(crate) fn checksum(&self) -> String {
        self.lines.get_ref().get_ref().checksum()
    }
}

/// A file's SHA-256, in hexadecimal.
///
/// # Errors
/// It is missing, or cannot be read.
pub(crate) async fn checksum(path: PathBuf) -> Result<String, FileError> {
    let mut file = aside(path.clone(), |path| File::open(path).map(Hashing::new)).await?;
    loop {
        let (rest, read) = aside(path.clone(), move |_| {
            let read = io::copy(&mut (&mut file).take(BLOCK), &mut io::sink())?;
            Ok((file, read))
        })
        .await?;
        file = rest;
        if read == 0 {
            return Ok(file.checksum());
        }
    }
}

/// Hashes all that passes.
#[derive(Debug)]
struct Hashing<T> {
    inner: T,
    hash: Sha256,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    fn checksum(&self) -> String {
        format!("{:x}", Bytes::copy_from_slice(&self.hash.clone().finalize()))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hash.update(buffer.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
