//! Archives: the events of a month in a file of compressed JSON Lines, with its checksum beside it.
//!
//! A file is written under a draft's name, brought to disk, and read back before it gets its own. All
//! that touches the disk happens on threads that may wait, a slice at a time, so that whoever asked for
//! it may stop at any moment. Knows no database.

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
use crate::private;

/// The end of a draft's name.
const DRAFT: &str = ".new";

/// Something about a file is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file is not there.
    #[error("the archive {} is missing in {}", name(path), folder(path))]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It cannot be read or written.
    #[error("the archive {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line is no record.
    #[error("the archive {}, line {line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1 on.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// It is not the file that was written.
    #[error("the archive {} is damaged, or another file: its SHA-256 is {found}, not {expected}", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// As it was written.
        expected: String,
        /// As it is.
        found: String,
    },
    /// What was written does not come back.
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

/// What is in a file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    /// Its lines.
    pub rows: u64,
    /// Its SHA-256, in hexadecimal.
    pub checksum: String,
}

/// The folder of all archives.
#[derive(Debug, Clone)]
pub(crate) struct Archives {
    folder: PathBuf,
}

impl Archives {
    /// The archives in `folder`, by default `archive` beside the database. The first archive creates the folder.
    #[must_use]
    pub(crate) fn new(folder: Option<PathBuf>, database: &Path) -> Self {
        Self { folder: folder.unwrap_or_else(|| database.with_file_name("archive")) }
    }

    /// The name of a month's archive.
    #[must_use]
    pub(crate) fn name(month: Month) -> String {
        format!("breathing-room-{month}.jsonl.gz")
    }

    /// Where the archive of this name is.
    #[must_use]
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn draft(&self, month: Month) -> PathBuf {
        self.path(&format!("{}{DRAFT}", Self::name(month)))
    }

    /// Gives a month's draft its own name, and writes its checksum beside it.
    ///
    /// # Errors
    /// The disk does not do it. The draft or the archive is there either way.
    pub(crate) async fn publish(&self, month: Month, checksum: &str) -> Result<(), ArchiveError> {
        let (draft, path) = (self.draft(month), self.path(&Self::name(month)));
        let (folder, checksum) = (self.folder.clone(), checksum.to_owned());
        aside(path, move |path| {
            fs::rename(draft, path)?;
            put_checksum(path, &checksum)?;
            File::open(folder)?.sync_all()
        })
        .await
    }

    /// Throws a month's draft away.
    ///
    /// # Errors
    /// The disk does not do it.
    pub(crate) async fn discard(&self, month: Month) -> Result<(), ArchiveError> {
        aside(self.draft(month), remove).await
    }

    /// Finishes what a crash cut short: a draft that is what is `expected` gets its name; the checksum
    /// beside the archive is made right.
    ///
    /// # Errors
    /// The disk does not do it.
    pub(crate) async fn finish(&self, month: Month, expected: &str) -> Result<(), ArchiveError> {
        match checksum(self.draft(month)).await {
            Ok(found) if found == expected => return self.publish(month, expected).await,
            Ok(_) | Err(ArchiveError::Missing { .. }) => {}
            Err(other) => return Err(other),
        }
        let expected = expected.to_owned();
        aside(self.path(&Self::name(month)), move |path| {
            let is_there = path.exists();
            if is_there && fs::read_to_string(beside(path)).ok() != Some(line(path, &expected)) {
                put_checksum(path, &expected)?;
            }
            Ok(())
        })
        .await
    }

    /// The months of all files here that have an archive's name, or (`drafts`) a draft's.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) async fn months(&self, drafts: bool) -> Result<Vec<Month>, ArchiveError> {
        aside(self.folder.clone(), move |folder| {
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

/// Where the checksum of an archive stands, as `sha256sum --check` takes it.
fn beside(path: &Path) -> PathBuf {
    path.with_file_name(format!("{}.sha256", name(path)))
}

fn line(path: &Path, checksum: &str) -> String {
    format!("{checksum}  {}\n", name(path))
}

fn put_checksum(path: &Path, checksum: &str) -> io::Result<()> {
    let mut file = private::create(&beside(path))?;
    file.write_all(line(path, checksum).as_bytes())?;
    file.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Does what waits for the disk on a thread that may wait.
async fn aside<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, ArchiveError> {
    let named = path.clone();
    let done = tokio::task::spawn_blocking(move || work(&path)).await;
    done.unwrap_or_else(|gone| Err(io::Error::other(gone))).map_err(|error| ArchiveError::io(&named, error))
}

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
    pub(crate) async fn start(archives: &Archives, month: Month) -> Result<Self, ArchiveError> {
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

    /// Adds events, one to a line.
    ///
    /// # Errors
    /// The disk does not take them.
    pub(crate) async fn add(self, events: Batch) -> Result<Self, ArchiveError> {
        self.write(move || Record::of(&events).map(|record| serde_json::to_string(&record)).collect()).await
    }

    /// Adds lines as they are.
    ///
    /// # Errors
    /// The disk does not take them.
    pub(crate) async fn add_lines(self, lines: Vec<String>) -> Result<Self, ArchiveError> {
        self.write(move || Ok(lines)).await
    }

    async fn write(
        self,
        lines: impl FnOnce() -> serde_json::Result<Vec<String>> + Send + 'static,
    ) -> Result<Self, ArchiveError> {
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
    pub(crate) async fn finish(self) -> Result<Written, ArchiveError> {
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

/// The event of a line, alone in its batch.
///
/// # Errors
/// Why there is none.
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
    /// Lines that were read so far.
    read: u64,
    lines: Box<BufReader<MultiGzDecoder<Hashing<BufReader<File>>>>>,
}

impl Source {
    /// Opens the file.
    ///
    /// # Errors
    /// It is missing, or cannot be read.
    pub(crate) async fn open(path: PathBuf) -> Result<Self, ArchiveError> {
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
        let (rest, slice) = aside(path, read_slice).await?;
        let numbered = (before + 1..).zip(slice);
        let slice: Result<Vec<T>, (u64, String)> =
            numbered.map(|(line, read)| read.map_err(|why| (line, why))).collect();
        let slice = slice.map_err(|(line, why)| ArchiveError::Line { path: rest.path.clone(), line, why })?;
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
pub(crate) async fn checksum(path: PathBuf) -> Result<String, ArchiveError> {
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
