//! Protected files: what the output of a command must not replace.
//!
//! A file is the same under each of its names, so files are compared by device and inode. A file that does not exist yet
//! is compared by its folder and name.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::CommandError;
use crate::history::archive::Archives;

/// The suffixes of the files of a database: itself, SQLite's files beside it, the hub's lock, and a copy for a node that joins.
const DATABASE: [&str; 6] = ["", "-wal", "-shm", "-journal", ".lock", ".snapshot"];

/// The files that must stay, each with what it is.
#[derive(Debug, Default)]
pub(super) struct ProtectedFiles {
    files: HashMap<(u64, u64), &'static str>,
    names: HashMap<PathBuf, &'static str>,
    archives: Option<PathBuf>,
}

impl ProtectedFiles {
    /// The files of a database and its archives.
    pub(super) fn of(database: &Path, archives: &Archives) -> Self {
        let mut protected = Self { archives: archives.folder().canonicalize().ok(), ..Self::default() };
        for path in [database.to_path_buf(), resolved(database)] {
            for suffix in DATABASE {
                let mut name = path.clone().into_os_string();
                name.push(suffix);
                protected.add(Path::new(&name), "a file of the database");
            }
        }
        let entries = fs::read_dir(archives.folder()).into_iter().flatten().filter_map(Result::ok);
        for entry in entries.filter(|entry| Archives::is_own(&entry.file_name())) {
            protected.add(&entry.path(), ARCHIVE);
        }
        protected
    }

    /// Adds a file.
    pub(super) fn add(&mut self, path: &Path, what: &'static str) {
        if let Ok(file) = fs::metadata(path) {
            self.files.insert(id(&file), what);
        }
        self.names.insert(resolved(path), what);
    }

    /// Checks that a path leads to no protected file.
    /// Errors: it does.
    pub(super) fn check(&self, path: &Path) -> Result<(), CommandError> {
        let name = resolved(path);
        let file = fs::metadata(path).ok();
        let what = file.and_then(|file| self.files.get(&id(&file))).or_else(|| self.names.get(&name));
        let what = what.copied().or_else(|| self.is_archive(&name).then_some(ARCHIVE));
        match what {
            None => Ok(()),
            Some(what) => Err(CommandError::Protected { path: path.to_path_buf(), what }),
        }
    }

    /// Checks that an open file is no protected file.
    /// Errors: it is one.
    pub(super) fn check_open(&self, file: BorrowedFd<'_>, name: &Path) -> Result<(), CommandError> {
        let file = file.try_clone_to_owned().and_then(|file| File::from(file).metadata());
        match file.ok().and_then(|file| self.files.get(&id(&file)).copied()) {
            None => Ok(()),
            Some(what) => Err(CommandError::Protected { path: name.to_path_buf(), what }),
        }
    }

    fn is_archive(&self, name: &Path) -> bool {
        self.archives.is_some()
            && name.parent() == self.archives.as_deref()
            && name.file_name().is_some_and(Archives::is_own)
    }
}

/// The temporary name of a file that is being written.
pub(super) fn part_of(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

/// What an archive is called in errors.
const ARCHIVE: &str = "an archive";

fn id(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Returns the path without links, which may be that of a missing file.
fn resolved(path: &Path) -> PathBuf {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    path.canonicalize()
        .or_else(|_| Ok::<_, io::Error>(folder.canonicalize()?.join(path.file_name().unwrap_or_default())))
        .unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn protected_file_is_found_under_each_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("archive")).unwrap();
        for name in ["hub.db", "hub.db-shm", "archive/breathing-room-2025-01.jsonl.gz", "in.csv", "out.csv"] {
            fs::write(at(name), "").unwrap();
        }
        fs::hard_link(at("hub.db"), at("hard.db")).unwrap();
        fs::hard_link(at("archive/breathing-room-2025-01.jsonl.gz"), at("hard.gz")).unwrap();
        symlink("hub.db", at("soft.db")).unwrap();
        symlink(folder.path(), at("folder")).unwrap();
        // The database is named by a link, and its files are beside the target.
        let mut protected = ProtectedFiles::of(&at("soft.db"), &Archives::new(None, &at("soft.db")));
        protected.add(&at("in.csv"), "an input");
        for name in [
            "hub.db",
            "hard.db",
            "soft.db",
            "folder/hub.db",
            "archive/../hub.db-shm",
            "hub.db-wal",
            "hub.db.lock",
            "folder/hub.db-journal",
            "hard.gz",
            "archive/breathing-room-2025-01.jsonl.gz",
            "archive/breathing-room-2025-02.jsonl.gz",
            "folder/archive/breathing-room-2025-02.jsonl.gz.sha256",
            "in.csv",
            "folder/in.csv",
        ] {
            assert!(matches!(protected.check(&at(name)), Err(CommandError::Protected { .. })), "{name}");
        }
        for name in ["out.csv", "new.csv", "hub.db-new", "archive/mine.jsonl", "nowhere/hub.db"] {
            assert!(protected.check(&at(name)).is_ok(), "{name}");
        }
        let open = File::options().append(true).open(at("hard.db")).unwrap();
        assert!(protected.check_open(open.as_fd(), Path::new("standard output")).is_err());
    }
}
