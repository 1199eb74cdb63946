//! The commands backup and restore, beside a running hub.

use std::fs;
use std::path::Path;

use serde_json::json;
use uuid::Uuid;

use crate::support::program::ProgramOutput;
use crate::support::{Program, rows};

const COUNT: &str = "SELECT count(*) FROM page_views";

async fn run(folder: &Path, arguments: &[&str]) -> ProgramOutput {
    let url = format!("sqlite://{}/hub.db", folder.display());
    Program::run(arguments, &[("DATABASE_URL", &url)]).await
}

async fn post(hub: &Program, count: usize) {
    let view = |_| json!({ "id": Uuid::now_v7(), "visitor": "ann", "room": "lobby", "path": "/" });
    let views: Vec<_> = (0..count).map(view).collect();
    hub.post("/page-view?durable=true").json(&json!(views)).send().await.expect(200);
}

/// The names of the files in a folder, without the database's lock.
fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "hub.db.lock").collect();
    names.sort();
    names
}

#[tokio::test]
async fn backup_during_writes_is_whole_and_restores() {
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("copies/backup.db");
    fs::create_dir(folder.path().join("copies")).unwrap();
    let hub = Program::start(folder.path(), &[]).await;
    post(&hub, 10).await;
    let writes = async {
        for _ in 0..20 {
            post(&hub, 5).await;
        }
    };
    let arguments = ["backup", backup.to_str().unwrap()];
    let (copied, ()) = tokio::join!(run(folder.path(), &arguments), writes);
    assert_eq!(copied.code, Some(0), "{copied:?}");
    assert_eq!(names(backup.parent().unwrap()), ["backup.db"]);
    assert_eq!(fs::metadata(&backup).unwrap().len().to_string(), copied.stdout.split(' ').nth(1).unwrap());
    let in_backup = rows(&backup, COUNT).await[0].as_u64().unwrap();
    assert!((10..=110).contains(&in_backup) && in_backup % 5 == 0, "{in_backup}: whole transactions");

    let refused = run(folder.path(), &["restore", backup.to_str().unwrap()]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("another hub is running"), "{refused:?}");
    hub.signal("TERM").await;
    hub.wait().await;
    let restored = run(folder.path(), &["restore", backup.to_str().unwrap()]).await;
    assert_eq!(restored.code, Some(0), "{restored:?}");
    assert_eq!(rows(&folder.path().join("hub.db"), COUNT).await, [in_backup]);
    let replaced = names(folder.path()).into_iter().find(|name| name.contains(".replaced-")).unwrap();
    assert_eq!(rows(&folder.path().join(replaced), COUNT).await, [110]);

    let hub = Program::start(folder.path(), &[]).await;
    post(&hub, 1).await;
    let checked = run(folder.path(), &["check"]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

#[tokio::test]
async fn failed_backup_or_restore_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let hub = Program::start(folder.path(), &[]).await;
    post(&hub, 3).await;
    hub.signal("TERM").await;
    hub.wait().await;
    fs::write(at("other"), "not a database, but long enough to be read as one".repeat(20)).unwrap();
    fs::copy(at("hub.db"), at("damaged.db")).unwrap();
    let mut bytes = fs::read(at("damaged.db")).unwrap();
    let page = bytes.len() / 2 / 4096 * 4096;
    bytes[page..page + 4096].fill(0xaa);
    fs::write(at("damaged.db"), bytes).unwrap();
    let before = (names(folder.path()), fs::read(at("hub.db")).unwrap());
    for (arguments, words) in [
        (["backup", &at("other")], "exists"),
        (["backup", &at("hub.db")], "is a file of the database"),
        (["backup", &at("nowhere/backup.db")], "cannot write"),
        (["restore", &at("missing.db")], "cannot read the database"),
        (["restore", &at("other")], "is no database of a hub"),
        (["restore", &at("damaged.db")], "is damaged"),
        (["restore", &at("hub.db")], "is the database itself"),
    ] {
        let output = run(folder.path(), &arguments).await;
        assert_eq!(output.code, Some(2), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(words), "{arguments:?}: {output:?}");
        assert_eq!((names(folder.path()), fs::read(at("hub.db")).unwrap()), before, "{arguments:?}");
    }
}
