//! The file: whether it is a database of the hub's, whole, and still the one at its path.
//!
//! SQLite goes on writing to a file that was moved, deleted or replaced, and what it commits there is lost. So the
//! path is compared before and after each transaction. And no file is written to before it was looked through.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::io::Errno;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::time::Instant;

use super::BUSY_TIMEOUT;
use super::error::code;
use crate::sync::lock;

/// In the header of every file that the hub makes: "room". Older ones have 0.
pub(super) const APPLICATION_ID: i32 = 0x726f_6f6d;

/// A look through the file that takes longer is told in the log.
const LONG: Duration = Duration::from_secs(1);

/// The file is nothing to write to. It was not changed.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// There is no file, or no way to it.
    #[error("there is no database at {}: {source}", path.display())]
    Gone {
        /// Where it was looked for.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It was there before a commit, and another one, or none, after it.
    #[error("the database {} was moved or replaced while it was written", path.display())]
    Moved {
        /// Where it was.
        path: PathBuf,
    },
    /// The file, its folder or its volume takes no writes.
    #[error("the database {} cannot be written: {source}", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Its pages do not hang together.
    #[error("the database {} is damaged ({what})", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite has found first.
        what: String,
    },
    /// It is a file of something else.
    #[error("the file {} is no database of a hub: {what}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// It cannot be read.
    #[error("cannot read the database {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: sqlx::Error,
    },
}

/// A file, however it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

/// The path of the database, and which file is open. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct Place(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// Held to read or write two words.
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    file: Option<Identity>,
    /// When another file came to the path: connections from before are of no use.
    replaced: Option<Instant>,
}

impl Place {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(Arc::new(Shared { path, open: Mutex::default() }))
    }

    /// Notes which file is at the path, which was just opened.
    pub(super) async fn opened(&self) -> Result<(), Unfit> {
        let found = self.look().await?;
        lock(&self.0.open).file = Some(found);
        Ok(())
    }

    /// Whether the file at the path is the one that is open.
    pub(super) async fn is_same(&self) -> Result<bool, Unfit> {
        let found = self.look().await?;
        Ok(self.file() == Some(found))
    }

    /// Takes the file that is now at the path for the hub's, where it is good.
    pub(super) async fn adopt(&self) -> Result<(), Unfit> {
        let found = self.look().await?;
        examine(&self.0.path, false).await?;
        *lock(&self.0.open) = Open { file: Some(found), replaced: Some(Instant::now()) };
        Ok(())
    }

    /// Whether a connection of this age has the file that was at the path last.
    pub(super) fn is_current(&self, age: Duration) -> bool {
        lock(&self.0.open).replaced.is_none_or(|replaced| age < replaced.elapsed())
    }

    /// Which file is open.
    pub(super) fn file(&self) -> Option<Identity> {
        lock(&self.0.open).file
    }

    /// After a commit to `file`: what it wrote must be where it will be looked for.
    pub(super) async fn confirm(&self, file: Option<Identity>) -> Result<(), Unfit> {
        let found = self.look().await?;
        if file == Some(found) { Ok(()) } else { Err(Unfit::Moved { path: self.0.path.clone() }) }
    }

    /// What keeps everybody from writing to the file, where something does.
    pub(super) async fn refusal(&self) -> Option<Unfit> {
        refusal(self.0.path.clone()).await
    }

    async fn look(&self) -> Result<Identity, Unfit> {
        let shared = Arc::clone(&self.0);
        // A volume that hangs must not hang the worker, and everybody on it.
        let found = tokio::task::spawn_blocking(move || std::fs::metadata(&shared.path)).await;
        let found = found.map_err(io::Error::other).flatten();
        let found = found.map_err(|source| Unfit::Gone { path: self.0.path.clone(), source })?;
        Ok(Identity { device: found.dev(), inode: found.ino() })
    }
}

/// What keeps everybody from writing to a file or beside it, where something does. SQLite calls a volume that turned
/// read-only an I/O error, or says that it cannot open the file.
pub(super) async fn refusal(path: PathBuf) -> Option<Unfit> {
    let ask = move || {
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        // Asked, not tried: to close a file of our own would let go of SQLite's locks on it.
        let is_refusal = |error: &Errno| matches!(*error, Errno::ROFS | Errno::ACCESS | Errno::PERM);
        let refused = |place| access(place, Access::WRITE_OK).err().filter(is_refusal);
        let source = refused(path.as_path()).or_else(|| refused(folder))?.into();
        Some(Unfit::ReadOnly { path, source })
    };
    tokio::task::spawn_blocking(ask).await.ok()?
}

/// Looks through a file, without a change to it: is it a database of a hub's, and whole? A new file may be empty.
pub(super) async fn examine(path: &Path, may_be_new: bool) -> Result<(), Unfit> {
    if may_be_new && std::fs::metadata(path).map_or(true, |file| file.len() == 0) {
        return Ok(());
    }
    let started = Instant::now();
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    // Without a log nobody writes, and then nothing needs to be locked, nor made beside the file.
    let options =
        SqliteConnectOptions::new().filename(path).read_only(true).immutable(!Path::new(&log).exists());
    let looked = async {
        let mut connection = options.busy_timeout(BUSY_TIMEOUT).connect().await?;
        let found = find_flaw(&mut connection, may_be_new).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(found)
    };
    let flaw = looked.await.unwrap_or_else(Flaw::Unreadable);
    if started.elapsed() > LONG {
        tracing::info!(took = ?started.elapsed(), "looked through the database");
    }
    let path = path.to_path_buf();
    match flaw {
        Flaw::None => Ok(()),
        Flaw::Foreign(what) => Err(Unfit::Foreign { path, what }),
        Flaw::Damage(what) => Err(Unfit::Damaged { path, what }),
        Flaw::Unreadable(source) => Err(match code(&source) {
            Some(11) => Unfit::Damaged { path, what: source.to_string() },
            Some(26) => Unfit::Foreign { path, what: "it is not SQLite's" },
            _ => Unfit::Unreadable { path, source },
        }),
    }
}

/// What is wrong with a file.
enum Flaw {
    None,
    Foreign(&'static str),
    Damage(String),
    Unreadable(sqlx::Error),
}

async fn find_flaw(connection: &mut SqliteConnection, may_be_new: bool) -> Result<Flaw, sqlx::Error> {
    const TABLES: &str =
        "SELECT count(*), count(*) FILTER (WHERE name = '_sqlx_migrations') FROM sqlite_schema";
    let application: i32 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await?;
    let (tables, migrations): (i64, i64) = sqlx::query_as(TABLES).fetch_one(&mut *connection).await?;
    if tables == 0 && !may_be_new {
        return Ok(Flaw::Foreign("it is empty"));
    }
    if ![0, APPLICATION_ID].contains(&application) || (tables > 0 && migrations == 0) {
        return Ok(Flaw::Foreign("it is another program's"));
    }
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut *connection).await?;
    Ok(if verdict == "ok" { Flaw::None } else { Flaw::Damage(verdict.replace('\n', " ")) })
}
