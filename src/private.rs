//! Files and folders that only the hub's user may read, since they have personal data.
//!
//! Only new files and folders get this mode. Existing ones keep theirs, which an operator may have set.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// The mode of files.
const FILE: u32 = 0o600;

/// The mode of folders.
const FOLDER: u32 = 0o700;

/// Creates a folder and its missing parents.
/// Errors: the system cannot create it.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER).create(path)
}

/// Opens a file for writing, empties it, and creates it if it is missing.
/// Errors: the system cannot open or create it.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(FILE).open(path)
}

/// Creates a file that must not exist.
/// Errors: it exists, or the system cannot create it.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(FILE).open(path)
}

/// Opens a file for appending, and creates it if it is missing.
/// Errors: the system cannot open or create it.
pub(crate) fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(FILE).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

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
}
