//! Archives: the facts of a month in a file of compressed JSON Lines, with its checksum beside it.
//!
//! A file is written under a draft's name, brought to disk, and read back before it gets its own. All
//! that touches the disk happens on threads that may wait, a slice at a time, so that whoever asked for
//! it may stop at any moment. Knows no database.

mod file;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(crate) use file::{Draft, LINES, Source, checksum, fact};

use super::Store;
use super::calendar::Month;
use crate::private;

/// The end of a draft's name.
const DRAFT: &str = ".new";

/// Something about a file is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
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

impl FileError {
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
    /// Those in this folder, which is made when there is something to put there.
    #[must_use]
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Those of a store: in this folder, or else in `archive` beside its file.
    #[must_use]
    pub(crate) fn of(store: &Store, folder: Option<PathBuf>) -> Self {
        Self::new(folder.unwrap_or_else(|| store.file().with_file_name("archive")))
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
    pub(crate) async fn publish(&self, month: Month, checksum: &str) -> Result<(), FileError> {
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
    pub(crate) async fn discard(&self, month: Month) -> Result<(), FileError> {
        aside(self.draft(month), remove).await
    }

    /// Finishes what a crash cut short: a draft that is what is `expected` gets its name; the checksum
    /// beside the archive is made right.
    ///
    /// # Errors
    /// The disk does not do it.
    pub(crate) async fn finish(&self, month: Month, expected: &str) -> Result<(), FileError> {
        match checksum(self.draft(month)).await {
            Ok(found) if found == expected => return self.publish(month, expected).await,
            Ok(_) | Err(FileError::Missing { .. }) => {}
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
    pub(crate) async fn months(&self, drafts: bool) -> Result<Vec<Month>, FileError> {
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
) -> Result<T, FileError> {
    let named = path.clone();
    let done = tokio::task::spawn_blocking(move || work(&path)).await;
    done.unwrap_or_else(|gone| Err(io::Error::other(gone))).map_err(|error| FileError::io(&named, error))
}
