//! The lock: one hub per database.
//!
//! An advisory lock (`flock`) on a file of its own beside the database, since SQLite's own locks would go with any
//! descriptor of the database that is closed. That the file exists says nothing: the system frees the lock when the
//! process ends, however it does. Commands and backups do not take it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tracing::warn;

use super::{OpenError, prepare};
use crate::private;

/// Symbolic links that are followed, as by the system.
const LINKS: usize = 40;

/// Keeps other hubs from a database until it is dropped.
#[derive(Debug)]
pub(crate) struct DatabaseLock {
    /// None where the system has no such locks there.
    file: Option<File>,
}

impl DatabaseLock {
    /// Takes the lock of the database that a URL names, whether there is one or not. Nothing is written to it.
    ///
    /// # Errors
    /// Another hub has it, or the folder cannot be made or written to.
    pub(crate) async fn acquire(url: &str) -> Result<Self, OpenError> {
        let (_, path) = prepare(url).await?;
        let lock = lock_of(&path).and_then(|lock| Ok((private::create(&lock)?, lock)));
        let (file, lock) = lock.map_err(|source| OpenError::Lock { path: path.clone(), source })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { file: Some(file) }),
            Err(Errno::WOULDBLOCK) => Err(OpenError::InUse { path }),
            Err(error @ (Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)) => {
                warn!(lock = %lock.display(), %error, "cannot lock here: see to it that no other hub has this database");
                Ok(Self { file: None })
            }
            Err(error) => Err(OpenError::Lock { path, source: error.into() }),
        }
    }
}

impl Drop for DatabaseLock {
    fn drop(&mut self) {
        // Not only closed: a child that this process is starting right now has the same descriptor until it runs.
        if let Some(file) = &self.file {
            let _ = flock(file, FlockOperation::Unlock);
        }
    }
}

/// Where the lock of a database is: the same file by whatever way its path leads to it.
fn lock_of(database: &Path) -> io::Result<PathBuf> {
    let mut path = database.to_path_buf();
    for _ in 0..LINKS {
        // A link may lead to a file that is not there yet.
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().map_or_else(|| target.clone(), |folder| folder.join(&target));
    }
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    Ok(folder.canonicalize()?.join(name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn lock_is_the_same_through_links_and_folders() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("data")).unwrap();
        symlink("data", at("linked")).unwrap();
        symlink("linked/hub.db", at("by-file.db")).unwrap();
        symlink("by-file.db", at("twice.db")).unwrap();
        let lock = lock_of(&at("data/hub.db")).unwrap();
        assert_eq!(lock, folder.path().canonicalize().unwrap().join("data/hub.db.lock"));
        for name in ["linked/hub.db", "by-file.db", "twice.db", "data/../linked/./hub.db"] {
            assert_eq!(lock_of(&at(name)).unwrap(), lock, "{name}");
        }
        symlink("round.db", at("round.db")).unwrap();
        assert!(lock_of(&at("round.db")).is_ok(), "a circle of links is SQLite's to refuse");
    }

    #[tokio::test]
    async fn second_lock_is_refused_until_the_first_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/new/hub.db", folder.path().display());
        let first = DatabaseLock::acquire(&url).await.unwrap();
        let error = DatabaseLock::acquire(&url).await.unwrap_err();
        assert!(matches!(&error, OpenError::InUse { .. }), "{error}");
        drop(first);
        DatabaseLock::acquire(&url).await.unwrap();
        assert!(!folder.path().join("new/hub.db").exists(), "the database is not made");
    }
}
