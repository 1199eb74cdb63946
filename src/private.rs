//! Files and folders that only the hub's user may read, since they have personal data.
//!
//! Only new files and folders get this mode. Existing ones keep theirs, which an operator may have set. What root creates gets
//! the owner of the folder that it is in: where the hub runs as another user, the commands of its operator may run as root.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown, lchown};
use std::path::Path;

/// The mode of files.
const FILE: u32 = 0o600;

/// The mode of folders.
const FOLDER: u32 = 0o700;

/// Creates a folder and its missing parents.
/// Errors: the system cannot create it.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    let mut created = DirBuilder::new().mode(FOLDER).create(path);
    if created.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        create_folder(folder_of(path))?;
        created = DirBuilder::new().mode(FOLDER).create(path);
    }
    match created {
        Ok(()) => {
            let new = fs::symlink_metadata(path)?;
            give_to_owner_of(folder_of(path), &new, |user, group| lchown(path, user, group));
            Ok(())
        }
        Err(_) if path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Opens a file for writing, empties it, and creates it if it is missing.
/// Errors: the system cannot open or create it.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    create_or_open(path, OpenOptions::new().write(true).truncate(true))
}

/// Creates a file that must not exist.
/// Errors: it exists, or the system cannot create it.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(FILE).open(path)?;
    take_owner(&file, folder_of(path))?;
    Ok(file)
}

/// Opens a file for appending, and creates it if it is missing.
/// Errors: the system cannot open or create it.
pub(crate) fn append(path: &Path) -> io::Result<File> {
    create_or_open(path, OpenOptions::new().append(true))
}

/// Gives a file the owner and the group of what is at `path`, if this process may.
/// Errors: the system cannot say whose the file is.
pub(crate) fn take_owner(file: &File, path: &Path) -> io::Result<()> {
    give_to_owner_of(path, &file.metadata()?, |user, group| fchown(file, user, group));
    Ok(())
}

/// Creates a file as [`create_new`] does, or opens the one that exists.
fn create_or_open(path: &Path, how: &mut OpenOptions) -> io::Result<File> {
    match create_new(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => how.create(true).mode(FILE).open(path),
    }
}

/// Calls `give` with the owner and the group of what is at `path`, if it belongs to another user than `new`.
fn give_to_owner_of(
    path: &Path,
    new: &Metadata,
    give: impl FnOnce(Option<u32>, Option<u32>) -> io::Result<()>,
) {
    if let Ok(owner) = fs::metadata(path)
        && owner.uid() != new.uid()
    {
        // As with the files that SQLite makes beside the database, this is no error: only root may give a file away.
        let _ = give(Some(owner.uid()), Some(owner.gid()));
    }
}

/// Returns the folder that a file or folder is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    #[test]
    fn new_files_are_private_and_existing_ones_keep_their_mode() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let inner = folder.path().join("outer/inner");
        create_folder(&inner).unwrap();
        assert_eq!([mode(&inner), mode(inner.parent().unwrap())], [0o700; 2]);
        let [first, second, third] = ["first", "second", "third"].map(|name| inner.join(name));
        create(&first).unwrap();
        create_new(&second).unwrap();
        append(&third).unwrap();
        assert_eq!([mode(&first), mode(&second), mode(&third)], [0o600; 3]);
        fs::set_permissions(&first, PermissionsExt::from_mode(0o640)).unwrap();
        create(&first).unwrap();
        assert_eq!(mode(&first), 0o640);
        assert!(create_new(&first).is_err());
    }

    #[test]
    fn new_files_and_folders_belong_to_the_owner_of_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let owner = |path: &Path| fs::metadata(path).map(|file| (file.uid(), file.gid())).unwrap();
        let own = owner(folder.path());
        fs::write(path("existing"), "").unwrap();
        // Without root the files cannot be another user's; all of them then belong to this one.
        let _ = chown(folder.path(), Some(10_001), Some(10_002));
        let expected = owner(folder.path());
        create_folder(&path("outer/inner")).unwrap();
        create(&path("first")).unwrap();
        create_new(&path("outer/inner/second")).unwrap();
        append(&path("third")).unwrap();
        for name in ["outer", "outer/inner", "first", "outer/inner/second", "third"] {
            assert_eq!(owner(&path(name)), expected, "{name}");
        }
        create(&path("existing")).unwrap();
        append(&path("existing")).unwrap();
        assert_eq!(owner(&path("existing")), own);
        take_owner(&File::open(path("existing")).unwrap(), &path("first")).unwrap();
        assert_eq!(owner(&path("existing")), expected);
    }
}
