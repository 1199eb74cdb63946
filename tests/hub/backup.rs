//! The commands backup and restore, beside a running hub.

use std::fs;
use std::path::Path;

use serde_json::json;
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::program::{Faults, ProgramOutput};
use crate::support::{Program, TIMEOUT, give_away, owners, rows};

/// The size of a page, in bytes.
const PAGE: usize = 8_192;

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
    let journal = backup.with_extension("db.part-journal");
    fs::create_dir(folder.path().join("copies")).unwrap();
    let hub = Program::start(folder.path(), &[]).await;
    post(&hub, 10).await;
    let faults = Faults::in_folder(folder.path());
    faults.set("held");
    let writes = async {
        let mut posted = 10;
        while !journal.exists() {
            post(&hub, 5).await;
            posted += 5;
        }
        // SQLite has begun the copy, which waits for its disk.
        post(&hub, 5).await;
        assert!(journal.exists() && !backup.exists(), "the copy is not finished");
        faults.set("");
        posted + 5
    };
    let url = format!("sqlite://{}/hub.db", folder.path().display());
    let settings = [&faults.settings()[..], &[("DATABASE_URL", &url)]].concat();
    let arguments = ["backup", backup.to_str().unwrap()];
    let copy = Program::run(&arguments, &settings);
    let (copied, posted) =
        timeout(TIMEOUT, async { tokio::join!(copy, writes) }).await.expect("both in time");
    assert_eq!(copied.code, Some(0), "{copied:?}");
    assert_eq!(names(backup.parent().unwrap()), ["backup.db"]);
    assert_eq!(fs::metadata(&backup).unwrap().len().to_string(), copied.stdout.split(' ').nth(1).unwrap());
    let in_backup = rows(&backup, COUNT).await[0].as_u64().unwrap();
    assert!((10..posted).contains(&in_backup) && in_backup % 5 == 0, "{in_backup}: whole transactions");

    let refused = run(folder.path(), &["restore", backup.to_str().unwrap()]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("another hub is running"), "{refused:?}");
    hub.signal("TERM").await;
    hub.wait().await;
    let restored = run(folder.path(), &["restore", backup.to_str().unwrap()]).await;
    assert_eq!(restored.code, Some(0), "{restored:?}");
    assert_eq!(rows(&folder.path().join("hub.db"), COUNT).await, [in_backup]);
    let replaced = names(folder.path()).into_iter().find(|name| name.contains(".replaced-")).unwrap();
    assert_eq!(rows(&folder.path().join(replaced), COUNT).await, [posted]);

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
    let page = bytes.len() / 2 / PAGE * PAGE;
    bytes[page..page + PAGE].fill(0xaa);
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

#[tokio::test]
async fn root_restores_a_file_that_belongs_to_the_owner_of_the_one_before_or_of_the_folder() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hub = Program::start(folder.path(), &[]).await;
    post(&hub, 3).await;
    let backup = elsewhere.path().join("backup.db");
    let copied = run(folder.path(), &["backup", backup.to_str().unwrap()]).await;
    assert_eq!(copied.code, Some(0), "{copied:?}");
    hub.signal("TERM").await;
    hub.wait().await;
    let database = folder.path().join("hub.db");
    if !give_away(folder.path(), 10_001) || !give_away(&database, 10_002) {
        return;
    }
    let restore = async || {
        let restored = run(folder.path(), &["restore", backup.to_str().unwrap()]).await;
        assert_eq!(restored.code, Some(0), "{restored:?}");
    };
    restore().await;
    assert!(owners(folder.path()).contains(&(10_002, database)), "{:?}", owners(folder.path()));

    for (_, file) in owners(folder.path()) {
        fs::remove_file(file).unwrap();
    }
    restore().await;
    let owners = owners(folder.path());
    assert!(owners.len() == 2 && owners.iter().all(|(user, _)| *user == 10_001), "with the lock: {owners:?}");
}
