//! Files and folders that only the hub's user may read: what they hold is about people.
//!
//! Only what is new gets this mode: what is there already keeps the one that somebody gave it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Of files.
const FILE: u32 = 0o600;

/// Of folders.
const FOLDER: u32 = 0o700;

/// Makes a folder, and those above it that are missing.
///
/// # Errors
/// The system does not.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER).create(path)
}

/// Opens a file to be written from its beginning, and makes it if it is missing.
///
/// # Errors
/// The system does not.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(FILE).open(path)
}

/// Makes a file that must not be there yet.
///
/// # Errors
/// It is there, or the system makes none.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(FILE).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_new_is_its_owners_alone_and_what_is_there_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let inner = folder.path().join("outer/inner");
        create_folder(&inner).unwrap();
        assert_eq!([mode(&inner), mode(inner.parent().unwrap())], [0o700; 2]);
        let [first, second] = ["first", "second"].map(|name| inner.join(name));
        create(&first).unwrap();
        create_new(&second).unwrap();
        assert_eq!([mode(&first), mode(&second)], [0o600; 2]);
        fs::set_permissions(&first, PermissionsExt::from_mode(0o640)).unwrap();
        create(&first).unwrap();
        assert_eq!(mode(&first), 0o640);
        assert!(create_new(&first).is_err());
    }
}
