//! Taste that can be checked: who imports whom, what every file says first, and where SQL may stand.

use std::fs;
use std::path::{Path, PathBuf};

/// Each part and what it may import of ours. `http` and the top level may import everything.
const LAYERS: [(&str, &[&str]); 9] = [
    ("wire", &["wire"]),
    ("panics.rs", &[]),
    ("private.rs", &[]),
    ("address.rs", &[]),
    ("quota.rs", &["address", "sync"]),
    ("token", &["wire", "token", "clock"]),
    ("live", &["wire", "live", "clock", "panics", "sync"]),
    ("history", &["wire", "history", "clock", "panics", "private", "sync", "address", "quota"]),
    (
        "session",
        &["wire", "token", "live", "history", "session", "clock", "panics", "sync", "address", "quota"],
    ),
];

/// What of the history a session may know: how to append, and when it is committed.
const SESSIONS_HISTORY: [&str; 5] =
    ["history::capacity", "history::event", "history::journal", "history::{Epoch", "history::Epoch"];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&source, &mut paths);
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path.strip_prefix(&source).unwrap().to_path_buf(), text)
    };
    paths.into_iter().map(read).collect()
}

/// The code before the file's own tests.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap()
}

#[test]
fn each_part_imports_only_what_lies_below_it() {
    for (path, text) in sources() {
        let part = path.iter().next().unwrap().to_str().unwrap();
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == part) else { continue };
        for import in text.split("crate::").skip(1) {
            let module: String = import.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            assert!(allowed.contains(&module.as_str()), "{} imports crate::{module}", path.display());
        }
        if part == "session" {
            for import in code(&text).split("crate::").skip(1).filter(|import| import.starts_with("history"))
            {
                let known = SESSIONS_HISTORY.iter().any(|known| import.starts_with(known));
                assert!(known, "{} imports {}", path.display(), import.lines().next().unwrap());
            }
        }
    }
}

#[test]
fn every_file_says_what_lives_there_in_two_to_eight_lines() {
    for (path, text) in sources() {
        let lines = text.lines().take_while(|line| line.starts_with("//!")).count();
        let maximum = if path == Path::new("lib.rs") { 60 } else { 8 };
        assert!((2..=maximum).contains(&lines), "{}: {lines} lines", path.display());
    }
}

#[test]
fn sql_stands_in_the_store_and_the_stats_only() {
    for (path, text) in sources() {
        let allowed = ["history/store", "history/stats"].iter().any(|part| path.starts_with(part));
        assert!(allowed || !text.contains("sqlx::"), "{} knows sqlx", path.display());
    }
}

#[test]
fn one_file_is_unsafe() {
    let is_unsafe = |text: &str| text.contains("unsafe_code") || text.contains("unsafe {");
    let found: Vec<_> =
        sources().into_iter().filter(|(_, text)| is_unsafe(text)).map(|(path, _)| path).collect();
    assert_eq!(found, [Path::new("http/defer.rs")]);
}

#[test]
fn no_file_is_two_files() {
    for (path, text) in sources() {
        let lines = code(&text).lines().count();
        assert!(lines <= 400, "{}: {lines} lines without its tests", path.display());
    }
}
