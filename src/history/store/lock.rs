//! The lock that allows one hub per database.
//!
//! It is an advisory lock (`flock`) on a separate file beside the database: SQLite's own locks are released when any
//! descriptor of the database is closed. The system releases the lock when the process ends in any way, so a leftover
//! file means nothing. Commands and backups do not take it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tracing::warn;

use super::{OpenError, prepare};
use crate::private;

/// Limit of symbolic links, as in the kernel.
const LINKS: usize = 40;

/// Locks a database against other hubs until it is dropped.
#[derive(Debug)]
pub(crate) struct DatabaseLock {
    /// None if the file system has no such locks.
    file: Option<File>,
}

impl DatabaseLock {
    /// Locks the database of a URL, which need not exist. Does not write to it.
    /// Errors: another hub holds the lock, or the folder cannot be created or written.
    pub(crate) async fn acquire(url: &str) -> Result<Self, OpenError> {
        let (_, path) = prepare(url).await?;
        let lock = lock_of(&path).and_then(|lock| Ok((private::create(&lock)?, lock)));
        let (file, lock) = lock.map_err(|source| OpenError::Lock { path: path.clone(), source })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { file: Some(file) }),
            Err(Errno::WOULDBLOCK) => Err(OpenError::InUse { path }),
            Err(error @ (Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)) => {
                warn!(lock = %lock.display(), %error, "cannot lock the database on this file system: make sure that no other hub uses it");
                Ok(Self { file: None })
            }
            Err(error) => Err(OpenError::Lock { path, source: error.into() }),
        }
    }
}

impl Drop for DatabaseLock {
    fn drop(&mut self) {
        // Unlocked explicitly: a child process that is being started shares the descriptor until it calls exec.
        if let Some(file) = &self.file {
            let _ = flock(file, FlockOperation::Unlock);
        }
    }
}

/// Returns the path of a database's lock file, which is the same for all paths to the database.
fn lock_of(database: &Path) -> io::Result<PathBuf> {
    let mut path = database.to_path_buf();
    for _ in 0..LINKS {
        // A link may lead to a file that does not exist yet.
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
    fn lock_path_is_the_same_through_links_and_folders() {
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
    async fn second_lock_fails_until_the_first_is_dropped() {
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
