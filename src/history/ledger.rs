//! The ledger of erasures: a file beside the archives, which a database restored from a backup lacks.
//!
//! Each line has a salted hash of the erased visitor's id, and may have an archive's checksum before and after. So a
//! restored hub erases the visitor again, and accepts archives that were rewritten. Lines are only appended; at the limit
//! of bytes the older half is removed. Knows no database.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::warn;
use uuid::Uuid;

use super::archive::{ArchiveError, Archives, blocking};
use super::calendar::Month;
use crate::private;
use crate::protocol::{Time, VisitorId};

/// The limit of the file, in bytes: some 60,000 erasures. Small in tests.
const LIMIT: usize = if cfg!(test) { 2_000 } else { 16 << 20 };

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    /// The erasure. It has a line when it begins, and one for each archive.
    id: Uuid,
    /// Time of the line.
    at: Time,
    /// What is hashed before the visitor's id.
    salt: String,
    /// SHA-256 of both, in hexadecimal.
    visitor: String,
    /// The archive that is rewritten.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    archive: Option<Rewritten>,
    /// Whether older lines were removed before this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    after_removed: bool,
}

/// An archive's checksums before and after an erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Rewritten {
    /// The month, as `2024-02`.
    month: String,
    /// SHA-256 before, in hexadecimal.
    from: String,
    /// SHA-256 after.
    to: String,
}

/// The lines of a ledger.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    path: PathBuf,
    lines: Vec<Line>,
}

impl Ledger {
    /// Reads the ledger in the folder of archives. A missing file is an empty ledger.
    /// Errors: the file cannot be read.
    pub(crate) async fn read(archives: &Archives) -> Result<Self, ArchiveError> {
        let path = archives.ledger();
        let text = blocking(path.clone(), |path| match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            read => read,
        })
        .await?;
        let mut lines = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            match serde_json::from_str(line) {
                Ok(line) => lines.push(line),
                // A crash may have cut one off.
                Err(error) => {
                    warn!(%error, path = %path.display(), "skipped a line of the ledger of erasures");
                }
            }
        }
        Ok(Self { path, lines })
    }

    /// Appends the erasure `id` of a visitor, or with an archive, that this erasure rewrites it, and syncs the file. At
    /// the limit, the older half of the lines is removed.
    /// Errors: the file cannot be written.
    pub(crate) async fn add(
        &self,
        (id, visitor, at): (Uuid, &VisitorId, Time),
        archive: Option<(Month, &str, &str)>,
    ) -> Result<(), ArchiveError> {
        let salt =
            self.lines.first().map_or_else(|| Uuid::new_v4().simple().to_string(), |line| line.salt.clone());
        let archive = archive.map(|(month, from, to)| Rewritten {
            month: month.to_string(),
            from: from.to_owned(),
            to: to.to_owned(),
        });
        let visitor = hash(&salt, visitor.as_str());
        let line = Line { id, at, visitor, salt, archive, after_removed: false };
        blocking(self.path.clone(), move |path| append(path, &line)).await
    }

    /// The first erasure, where older ones were removed: a database without it may need those too.
    pub(crate) fn first_after_removed(&self) -> Option<(Uuid, Time)> {
        self.lines.first().filter(|line| line.after_removed).map(|line| (line.id, line.at))
    }

    /// The ids of all erasures.
    pub(crate) fn ids(&self) -> impl Iterator<Item = Uuid> {
        self.lines.iter().map(|line| line.id)
    }

    /// Returns the erasures of a visitor that are among `ids`.
    pub(crate) fn erasure_of(&self, visitor: &str, is_asked: impl Fn(&Uuid) -> bool) -> Option<Uuid> {
        let mut hashes = BTreeMap::<&str, String>::new();
        let mut asked = self.lines.iter().filter(|line| is_asked(&line.id));
        let found = asked.find(|line| {
            let hash = hashes.entry(line.salt.as_str()).or_insert_with(|| hash(&line.salt, visitor));
            *hash == line.visitor
        });
        found.map(|line| line.id)
    }

    /// Whether erasures turned the archive of a month with the checksum `from` into one with the checksum `to`.
    pub(crate) fn explains(&self, month: Month, from: &str, to: &str) -> bool {
        let (month, mut reached) = (month.to_string(), vec![from]);
        for Rewritten { month: other, from, to } in self.lines.iter().filter_map(|line| line.archive.as_ref())
        {
            if *other == month && reached.contains(&from.as_str()) {
                reached.push(to);
            }
        }
        from != to && reached.contains(&to)
    }

    /// Whether erasures rewrote the archive of a month with this checksum.
    pub(crate) fn has_rewritten(&self, month: Month, checksum: &str) -> bool {
        let month = month.to_string();
        let mut rewritten = self.lines.iter().filter_map(|line| line.archive.as_ref());
        rewritten.any(|archive| archive.month == month && archive.from == checksum)
    }
}

fn append(path: &Path, line: &Line) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    private::create_folder(folder)?;
    let text = fs::read_to_string(path).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(String::new()),
        _ => Err(error),
    })?;
    let line = format!("{}\n", serde_json::to_string(line)?);
    if text.len() + line.len() > LIMIT {
        replace(path, &(newer_half(&text)? + &line))?;
    } else {
        // A crash may have cut off the last line.
        let start = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let mut file = private::append(path)?;
        file.write_all(format!("{start}{line}").as_bytes())?;
        file.sync_all()?;
    }
    fs::File::open(folder)?.sync_all()
}

/// Returns the lines of the newer half, the first of which says that there were others.
fn newer_half(text: &str) -> io::Result<String> {
    let lines: Vec<&str> = text.lines().collect();
    let (_, newer) = lines.split_at(lines.len() / 2);
    let mut newer = newer.iter().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let mut half = String::new();
    if let Some(first) = newer.next() {
        half.push_str(&serde_json::to_string(&Line { after_removed: true, ..first })?);
        half.push('\n');
    }
    for line in newer {
        half.push_str(&serde_json::to_string(&line)?);
        half.push('\n');
    }
    Ok(half)
}

/// Replaces a file by one with this text.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private::create_new(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)
}

fn hash(salt: &str, visitor: &str) -> String {
    let digest = Sha256::new().chain_update(salt).chain_update(visitor).finalize();
    format!("{:x}", Bytes::copy_from_slice(&digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ledger_knows_erasures_by_hash_and_explains_archives() {
        let folder = tempfile::tempdir().unwrap();
        let archives = Archives::new(Some(folder.path().join("archive")), Path::new(""));
        let (ann, at) = (VisitorId::try_from("Ann-1").unwrap(), Time::from_millis(1_700_000_000_000));
        let month: Month = "2024-02".parse().unwrap();
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for (id, archive) in [
            (first, None),
            (first, Some((month, "a", "b"))),
            (second, Some((month, "b", "c"))),
            (second, Some(("2024-03".parse().unwrap(), "c", "d"))),
        ] {
            Ledger::read(&archives).await.unwrap().add((id, &ann, at), archive).await.unwrap();
        }
        // What a crash left.
        let file = archives.ledger();
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("Ann") && text.lines().count() == 4, "{text}");
        fs::write(&file, format!("{text}{}", &text[..40])).unwrap();
        Ledger::read(&archives).await.unwrap().add((second, &ann, at), None).await.unwrap();

        let ledger = Ledger::read(&archives).await.unwrap();
        assert_eq!(ledger.ids().collect::<Vec<_>>(), [first, first, second, second, second]);
        assert_eq!(ledger.erasure_of("Ann-1", |_| true), Some(first));
        assert_eq!(ledger.erasure_of("Ann-1", |id| *id == second), Some(second));
        assert_eq!(ledger.erasure_of("ann-1", |_| true), None);
        for (from, to, expected) in
            [("a", "b", true), ("a", "c", true), ("b", "a", false), ("a", "d", false), ("a", "a", false)]
        {
            assert_eq!(ledger.explains(month, from, to), expected, "{from} {to}");
        }
        assert!(ledger.has_rewritten(month, "a") && !ledger.has_rewritten(month, "c"));
    }

    #[tokio::test]
    async fn full_ledger_loses_its_older_half_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let archives = Archives::new(Some(folder.path().join("archive")), Path::new(""));
        let at = |number: u128| Time::from_millis(1_700_000_000_000 + u64::try_from(number).unwrap());
        let mut largest = 0;
        for number in 1..=100 {
            let visitor = VisitorId::try_from(format!("visitor-{number}")).unwrap();
            let erasure = (Uuid::from_u128(number), &visitor, at(number));
            Ledger::read(&archives).await.unwrap().add(erasure, None).await.unwrap();
            largest = largest.max(fs::metadata(archives.ledger()).unwrap().len());
        }
        assert!((1_700..=LIMIT as u64).contains(&largest), "{largest}");
        let ledger = Ledger::read(&archives).await.unwrap();
        let ids: Vec<_> = ledger.ids().map(|id| id.as_u128()).collect();
        assert!(ids.len() >= 4 && ids.last() == Some(&100) && ids.is_sorted(), "{ids:?}");
        assert_eq!(ledger.first_after_removed(), Some((Uuid::from_u128(ids[0]), at(ids[0]))));
        assert!(ledger.erasure_of("visitor-100", |_| true).is_some(), "the salt stays");
        assert_eq!(fs::read_dir(folder.path().join("archive")).unwrap().count(), 1, "only the ledger");
    }
}
