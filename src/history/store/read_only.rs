//! A database that is opened only to read it: it is not changed, and no write permission is needed.
//!
//! SQLite reads a database in WAL mode through an index of its write-ahead log, the file `-shm`, which it creates if it is
//! missing. Without a log no hub is running, and nothing needs an index: the file is then read as it is (`immutable`),
//! without locks, and its state is compared at the end.

use std::fs;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::database_file::{self, BUSY_TIMEOUT, CheckFirst, DatabaseFile};
use super::error::result_code;
use super::readers::{READERS, Readers};
use super::{OpenError, Store, WAL_LIMIT, applied, migrations, parse_url, pool};

/// A store whose writes fail.
#[derive(Debug)]
pub(crate) struct ReadOnlyStore {
    store: Store,
    path: PathBuf,
    /// The state of a file that is read without locks.
    unlocked: Option<FileState>,
}

impl Deref for ReadOnlyStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl ReadOnlyStore {
    /// Closes the store.
    /// Errors: a hub has changed the file that was read without locks.
    pub(crate) async fn close(self) -> Result<(), OpenError> {
        self.store.close().await;
        let path = self.path;
        match self.unlocked {
            Some(before) if FileState::of(&path).ok() != Some(before) => Err(OpenError::Changed { path }),
            _ => Ok(()),
        }
    }
}

/// What a write to a file changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileState {
    inode: (u64, u64),
    length: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl FileState {
    fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        let modified = (file.mtime(), file.mtime_nsec());
        Ok(Self { inode: (file.dev(), file.ino()), length: file.len(), modified })
    }
}

impl Store {
    /// Opens an existing database for reading, as it is: without a migration. `check` says whether the whole file is
    /// checked first.
    /// Errors: there is no database, it needs a migration, it cannot be read, or it is not a hub's.
    pub(crate) async fn open_read_only(url: &str, check: CheckFirst) -> Result<ReadOnlyStore, OpenError> {
        let (options, path) = parse_url(url)?;
        // SQLite has the log beside the file that a link leads to.
        let Ok(path) = path.canonicalize() else { return Err(OpenError::Missing { path }) };
        let length = |suffix| fs::metadata(beside(&path, suffix)).map(|file| file.len()).ok();
        let has_index = length("-shm").is_some();
        // The log of a hub that has just started is empty.
        let has_log = length("-wal").is_some_and(|length| length > 0 || has_index);
        let unlocked = if has_log { None } else { FileState::of(&path).ok() };
        let needs_index = |error| match error {
            OpenError::File { path, source } if has_log && result_code(&source) == Some(14) => {
                OpenError::NoIndex { path }
            }
            other => other,
        };
        database_file::check(&path, false, check).await.map_err(OpenError::from).map_err(needs_index)?;
        let options = options.filename(&path).read_only(true).immutable(!has_log).busy_timeout(BUSY_TIMEOUT);
        let file = DatabaseFile::new(path.clone());
        file.opened().await?;
        let connections = pool(READERS, &file).connect_lazy_with(options);
        let readers = Readers::new(connections.clone(), None);
        let store = Self::of(connections, readers, file, &path, WAL_LIMIT);
        store.needs_no_migration(&path).await?;
        Ok(ReadOnlyStore { store, path, unlocked })
    }

    async fn needs_no_migration(&self, path: &Path) -> Result<(), OpenError> {
        const OLD: &str = "SELECT count(*) FROM sqlite_schema WHERE name = 'old_page_views'";
        let last = |versions: Vec<i64>| versions.last().copied().unwrap_or_default();
        let found = last(applied(&self.writer).await?);
        let expected = last(migrations::all().iter().map(|migration| migration.version).collect());
        let not_read = |source| OpenError::File { path: path.to_path_buf(), source };
        let unmoved: i64 = sqlx::query_scalar(OLD).fetch_one(&self.writer).await.map_err(not_read)?;
        let path = path.to_path_buf();
        match found.cmp(&expected) {
            std::cmp::Ordering::Greater => Err(OpenError::Newer { path, found, expected }),
            std::cmp::Ordering::Equal if unmoved == 0 => Ok(()),
            _ => Err(OpenError::NeedsMigration { path, found, expected }),
        }
    }
}

/// The path of a database's URL.
/// Errors: the URL names no SQLite file.
pub(crate) fn path_of(url: &str) -> Result<PathBuf, OpenError> {
    Ok(parse_url(url)?.1)
}

/// The file beside `path` whose name has this suffix.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::archive::parse_line;

    async fn database() -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/a.db", folder.path().display());
        Store::open(&url).await.unwrap().close().await;
        (folder, url)
    }

    #[tokio::test]
    async fn hub_that_changes_the_file_meanwhile_is_noticed() {
        let (folder, url) = database().await;
        let reader = Store::open_read_only(&url, CheckFirst::Never).await.unwrap();
        assert_eq!(reader.live_months().await.unwrap().len(), 0);
        reader.close().await.unwrap();
        let reader = Store::open_read_only(&url, CheckFirst::Never).await.unwrap();
        let hub = Store::open(&url).await.unwrap();
        hub.commit(&parse_line(PAGE_VIEW).unwrap()).await.unwrap();
        hub.close().await; // copies the log into the file
        let error = reader.close().await.unwrap_err();
        assert!(matches!(error, OpenError::Changed { .. }), "{error}");
        assert!(folder.path().join("a.db").exists());
    }

    #[tokio::test]
    async fn log_of_a_running_hub_is_read_and_writes_fail() {
        let (_folder, url) = database().await;
        let hub = Store::open(&url).await.unwrap();
        hub.commit(&parse_line(PAGE_VIEW).unwrap()).await.unwrap();
        let reader = Store::open_read_only(&url, CheckFirst::Never).await.unwrap();
        assert_eq!(reader.live_months().await.unwrap().len(), 1);
        let other = parse_line(&PAGE_VIEW.replace("0001\"", "0002\"")).unwrap();
        assert!(reader.commit(&other).await.is_err());
        reader.close().await.unwrap();
        hub.close().await;
    }

    #[tokio::test]
    async fn missing_database_is_not_created() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/new/a.db", folder.path().display());
        let error = Store::open_read_only(&url, CheckFirst::Never).await.unwrap_err();
        assert!(matches!(error, OpenError::Missing { .. }), "{error}");
        assert!(!folder.path().join("new").exists());
    }

    const PAGE_VIEW: &str = r#"{"type":"page-view","id":"018f0e6e-0000-7000-8000-000000000001","room":"r","visitor":"v",
        "path":"/","at":1700000000000}"#;
}
