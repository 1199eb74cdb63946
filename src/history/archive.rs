//! Archives: a month's events as compressed JSON Lines in a file, with a checksum file beside it.
//!
//! A draft is written under a temporary name, synced and read back before it gets its final name. All file access is on
//! blocking threads, one slice at a time, so that callers can be cancelled. Knows no database.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::calendar::Month;
use super::event::Batch;
use super::record::Record;
use super::sent_file::SentFile;
use crate::private;

/// The suffix of a draft's name.
const DRAFT: &str = ".new";

/// An archive file is missing, damaged or cannot be accessed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// The file does not exist.
    #[error("the archive {} is missing in {}", name(path), folder(path))]
    Missing {
        /// The expected path.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("the archive {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A line is no valid record.
    #[error("the archive {}, line {line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line number, from 1.
        line: u64,
        /// The parser's message.
        why: String,
    },
    /// The checksum is wrong.
    #[error("the archive {} is damaged, or another file: its SHA-256 is {found}, not {expected}", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// The recorded SHA-256.
        expected: String,
        /// The file's SHA-256.
        found: String,
    },
    /// A draft does not read back as written.
    #[error("the archive {} does not read back as it was written", path.display())]
    ReadBack {
        /// The file.
        path: PathBuf,
    },
}

impl ArchiveError {
    fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            _ => Self::Io { path, source },
        }
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn folder(path: &Path) -> String {
    path.parent().unwrap_or(Path::new("")).display().to_string()
}

/// Row count and checksum of a written archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    /// The number of rows.
    pub rows: u64,
    /// The file's SHA-256, in hexadecimal.
    pub checksum: String,
}

/// The folder of all archives.
#[derive(Debug, Clone)]
pub(crate) struct Archives {
    folder: PathBuf,
}

impl Archives {
    /// The archives in `folder`, by default `archive` beside the database. The first archive creates the folder.
    pub(crate) fn new(folder: Option<PathBuf>, database: &Path) -> Self {
        Self { folder: folder.unwrap_or_else(|| database.with_file_name("archive")) }
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the hub gives files in the folder names like this one.
    pub(crate) fn is_own(name: &OsStr) -> bool {
        name.as_encoded_bytes().starts_with(b"breathing-room-")
            || name.as_encoded_bytes().starts_with(b"erasures")
    }

    /// The file name of a month's archive.
    pub(crate) fn name(month: Month) -> String {
        format!("breathing-room-{month}.jsonl.gz")
    }

    /// The path of an archive.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The path of the ledger of erasures.
    pub(super) fn ledger(&self) -> PathBuf {
        self.path("erasures.jsonl")
    }

    /// Creates the empty draft of a month's archive; a leftover draft is deleted. Returns its path and the file.
    /// Errors: the file cannot be created.
    pub(crate) async fn create_draft(&self, month: Month) -> Result<(PathBuf, File), ArchiveError> {
        let (folder, path) = (self.folder.clone(), self.draft(month));
        let file = blocking(path.clone(), move |path| {
            private::create_folder(&folder)?;
            if let Some(parent) = folder.canonicalize()?.parent() {
                // The folder's own entry must survive a power loss.
                File::open(parent)?.sync_all()?;
            }
            remove(path)?;
            private::create_new(path)
        })
        .await?;
        Ok((path, file))
    }

    /// Opens an archive, to send it.
    /// Errors: it is missing, damaged, or cannot be read.
    pub(super) async fn open(&self, name: &str, expected: &str) -> Result<SentFile, ArchiveError> {
        let path = self.path(name);
        let opened = path.clone();
        let file = SentFile::open(move || File::open(opened), None).await;
        let file = file.map_err(|source| ArchiveError::io(&path, source))?;
        match file.checksum() {
            found if found == expected => Ok(file),
            found => Err(ArchiveError::Checksum { path, expected: expected.to_owned(), found }),
        }
    }

    fn draft(&self, month: Month) -> PathBuf {
        self.path(&format!("{}{DRAFT}", Self::name(month)))
    }

    /// Renames a month's draft to its final name, and writes its checksum file.
    /// Errors: a file operation failed. The draft or the archive still exists.
    pub(crate) async fn publish(&self, month: Month, checksum: &str) -> Result<(), ArchiveError> {
        let (draft, path) = (self.draft(month), self.path(&Self::name(month)));
        let (folder, checksum) = (self.folder.clone(), checksum.to_owned());
        blocking(path, move |path| {
            fs::rename(draft, path)?;
            put_checksum(path, &checksum)?;
            File::open(folder)?.sync_all()
        })
        .await
    }

    /// Deletes a month's draft.
    /// Errors: the file cannot be deleted.
    pub(crate) async fn discard(&self, month: Month) -> Result<(), ArchiveError> {
        blocking(self.draft(month), remove).await
    }

    /// Completes a publication that a crash interrupted: renames a draft that has the checksum `expected`, and corrects
    /// the archive's checksum file.
    /// Errors: a file operation failed.
    pub(crate) async fn finish(&self, month: Month, expected: &str) -> Result<(), ArchiveError> {
        match checksum(self.draft(month)).await {
            Ok(found) if found == expected => return self.publish(month, expected).await,
            Ok(_) | Err(ArchiveError::Missing { .. }) => {}
            Err(other) => return Err(other),
        }
        let expected = expected.to_owned();
        blocking(self.path(&Self::name(month)), move |path| {
            let is_there = path.exists();
            if is_there
                && fs::read_to_string(checksum_path(path)).ok() != Some(checksum_line(path, &expected))
            {
                put_checksum(path, &expected)?;
            }
            Ok(())
        })
        .await
    }

    /// Returns the months of all archives, or of all drafts, in the folder.
    /// Errors: the folder cannot be read.
    pub(crate) async fn months(&self, drafts: bool) -> Result<Vec<Month>, ArchiveError> {
        blocking(self.folder.clone(), move |folder| {
            let entries = match fs::read_dir(folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            let end = if drafts { format!(".jsonl.gz{DRAFT}") } else { ".jsonl.gz".to_owned() };
            let month = |entry: io::Result<fs::DirEntry>| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                name.strip_prefix("breathing-room-")?.strip_suffix(end.as_str())?.parse().ok()
            };
            Ok(entries.filter_map(month).collect())
        })
        .await
    }
}

/// The path of an archive's checksum file, in the format of `sha256sum --check`.
fn checksum_path(path: &Path) -> PathBuf {
    path.with_file_name(format!("{}.sha256", name(path)))
}

fn checksum_line(path: &Path, checksum: &str) -> String {
    format!("{checksum}  {}\n", name(path))
}

fn put_checksum(path: &Path, checksum: &str) -> io::Result<()> {
    let mut file = private::create(&checksum_path(path))?;
    file.write_all(checksum_line(path, checksum).as_bytes())?;
    file.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Runs blocking file access on a blocking thread.
pub(super) async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, ArchiveError> {
    let named = path.clone();
    let done = tokio::task::spawn_blocking(move || work(&path)).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| ArchiveError::io(&named, error))
}

/// Lines per slice. Few in tests, so that there are many slices.
pub(crate) const LINES: usize = if cfg!(test) { 3 } else { 2_000 };

/// Bytes hashed per slice.
const BLOCK: u64 = 4 << 20;

/// An archive that is being written.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
    out: Box<GzEncoder<Hashing<BufWriter<File>>>>,
    rows: u64,
}

impl Draft {
    /// Creates the draft of a month's archive; a leftover draft is deleted.
    /// Errors: the file cannot be created.
    pub(crate) async fn start(archives: &Archives, month: Month) -> Result<Self, ArchiveError> {
        let (path, file) = archives.create_draft(month).await?;
        let out = GzEncoder::new(Hashing::new(BufWriter::new(file)), Compression::default());
        Ok(Self { path, out: Box::new(out), rows: 0 })
    }

    /// Appends events, one per line.
    /// Errors: the file cannot be written.
    pub(crate) async fn add(self, events: Batch) -> Result<Self, ArchiveError> {
        self.write(move || Record::of(events).map(|record| serde_json::to_string(&record)).collect()).await
    }

    /// Appends lines.
    /// Errors: the file cannot be written.
    pub(crate) async fn add_lines(self, lines: Vec<String>) -> Result<Self, ArchiveError> {
        self.write(move || Ok(lines)).await
    }

    async fn write(
        self,
        lines: impl FnOnce() -> serde_json::Result<Vec<String>> + Send + 'static,
    ) -> Result<Self, ArchiveError> {
        let Self { path, mut out, mut rows } = self;
        blocking(path, move |path| {
            for line in lines()? {
                out.write_all(line.as_bytes())?;
                out.write_all(b"\n")?;
                rows += 1;
            }
            Ok(Self { path: path.to_path_buf(), out, rows })
        })
        .await
    }

    /// Syncs the draft and reads it back.
    /// Errors: the file cannot be written, or does not read back.
    pub(crate) async fn finish(self) -> Result<Written, ArchiveError> {
        let Self { path, out, rows } = self;
        let checksum = blocking(path.clone(), move |_| {
            let mut written = out.finish()?;
            written.flush()?;
            written.inner.get_ref().sync_all()?;
            Ok(written.checksum())
        })
        .await?;
        let mut source = Source::open(path.clone()).await?;
        loop {
            let (rest, lines) = source.next(LINES, |line| parse_line(line).map(drop)).await?;
            source = rest;
            if lines.is_empty() {
                break;
            }
        }
        if source.read != rows || source.checksum() != checksum {
            return Err(ArchiveError::ReadBack { path });
        }
        Ok(Written { rows, checksum })
    }
}

/// Parses a line to a batch of one event.
/// Errors: the line is no valid record.
pub(crate) fn parse_line(line: &str) -> Result<Batch, String> {
    let record: Record = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let mut event = Batch::default();
    record.add_to(&mut event).map_err(|bad| format!("props: {bad}"))?;
    Ok(event)
}

/// An archive that is being read.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    /// Lines read so far.
    read: u64,
    lines: Box<BufReader<MultiGzDecoder<Hashing<BufReader<File>>>>>,
}

impl Source {
    /// Opens the file.
    /// Errors: it is missing, or cannot be read.
    pub(crate) async fn open(path: PathBuf) -> Result<Self, ArchiveError> {
        let file = blocking(path.clone(), |path| File::open(path)).await?;
        let lines = BufReader::new(MultiGzDecoder::new(Hashing::new(BufReader::new(file))));
        Ok(Self { path, read: 0, lines: Box::new(lines) })
    }

    /// Maps the next lines, at most `limit`, with `read`. Returns none at the end.
    /// Errors: the file is truncated, or `read` failed for a line.
    pub(crate) async fn next<T: Send + 'static>(
        self,
        limit: usize,
        read: impl Fn(&str) -> Result<T, String> + Send + 'static,
    ) -> Result<(Self, Vec<T>), ArchiveError> {
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
        let (rest, slice) = blocking(path, read_slice).await?;
        let numbered = (before + 1..).zip(slice);
        let slice: Result<Vec<T>, (u64, String)> =
            numbered.map(|(line, read)| read.map_err(|why| (line, why))).collect();
        let slice = slice.map_err(|(line, why)| ArchiveError::Line { path: rest.path.clone(), line, why })?;
        Ok((rest, slice))
    }

    /// The SHA-256 of the bytes read so far, in hexadecimal; at the end, that of the file.
    pub(crate) fn checksum(&self) -> String {
        self.lines.get_ref().get_ref().checksum()
    }
}

/// Returns a file's SHA-256, in hexadecimal.
/// Errors: the file is missing or cannot be read.
pub(crate) async fn checksum(path: PathBuf) -> Result<String, ArchiveError> {
    let mut file = blocking(path.clone(), |path| File::open(path).map(Hashing::new)).await?;
    loop {
        let (rest, read) = blocking(path.clone(), move |_| {
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

/// Hashes all bytes that are read or written.
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
