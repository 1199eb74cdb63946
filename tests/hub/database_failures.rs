//! Database failures: a full, read-only, slow, broken or missing disk, and damaged or foreign files.
//!
//! Each test checks the same: presence works, health has the reason, an ack means that the event is in the file at the
//! database path, and the hub recovers with the disk, without a restart.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::Connection;
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::program::{Faults, Volume};
use crate::support::{Client, Hub, Program, eventually, open_database, rows};

/// The size of a page, in bytes.
const PAGE: u64 = 8_192;

const OFTEN: (&str, &str) = ("FLUSH_INTERVAL", "50ms");

const SMALL_QUEUE: (&str, &str) = ("QUEUE_LIMIT", "10");

/// Ann's client. Her first page view is committed.
async fn ann(hub: &Program) -> Client {
    let mut ann = hub.join("lobby", "ann").await;
    let first = ann.view_page(Uuid::new_v4(), "/before").await;
    ann.expect_ack(first).await;
    ann
}

async fn expect_health(hub: &Program, reason: &str) {
    let is_so = async || {
        let health = hub.get("/health").send().await;
        health.status == 503 && health.expect(503)["reason"] == reason
    };
    eventually(is_so, &format!("health is degraded: {reason}")).await;
}

async fn expect_recovery(hub: &Program) {
    eventually(async || hub.get("/health").send().await.status == 200, "health is ok again").await;
}

/// A join, a mood change and a leave are published within a second.
async fn expect_live_presence(hub: &Program, ann: &mut Client) {
    let began = Instant::now();
    let mut bob = hub.join("lobby", "bob").await;
    ann.expect_present(2).await;
    bob.set_mood(Some("calm")).await;
    ann.expect_moods(json!({ "calm": 1 })).await;
    bob.leave().await;
    ann.expect_present(1).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

/// The figures come to have these page views: a read that began during the failure may end after it.
async fn expect_views(hub: &Program, views: u64) {
    let has_all = async || {
        let stats = hub.get("/unified-stats?range=24h").send().await.expect(200);
        stats["totals"]["pageViews"] == views
    };
    eventually(has_all, &format!("{views} page views, each stored once")).await;
}

/// Fills the queue of ten with Ann's events; a presence sample may be in it too. Returns the last accepted `ref`.
async fn fill_queue(ann: &mut Client) -> u64 {
    for n in 0..12 {
        ann.view_page(Uuid::new_v4(), &format!("/{n}")).await;
    }
    ann.expect_error("overloaded").await["ref"].as_u64().unwrap() - 1
}

/// Injects a failure with this reason and repairs it. Presence works meanwhile, and accepted events are acked afterwards.
/// Returns their number.
async fn fail_and_repair(
    hub: &Program,
    ann: &mut Client,
    fail: impl FnOnce(),
    reason: &str,
    repair: impl FnOnce(),
) -> u64 {
    fail();
    let accepted = fill_queue(ann).await;
    expect_health(hub, reason).await;
    expect_live_presence(hub, ann).await;
    repair();
    ann.expect_ack(accepted).await;
    expect_recovery(hub).await;
    accepted
}

async fn views(folder: &Path) -> u64 {
    rows(&folder.join("hub.db"), "SELECT count(*) FROM page_views").await[0].as_u64().unwrap()
}

#[tokio::test]
async fn full_disk_queues_events_up_to_the_limit_and_recovers() {
    let Some(volume) = Volume::mount("2m") else { return };
    let hub = volume.start(&[OFTEN, SMALL_QUEUE]).await;
    let mut ann = ann(&hub).await;
    volume.run("dd if=/dev/zero of=filling bs=4k 2>/dev/null; true");
    let mut posted = 0;
    loop {
        let view = json!({ "id": Uuid::new_v4(), "path": "/", "visitor": "carol", "room": "lobby" });
        let response = hub.post("/page-view?durable=true").json(&view).send().await;
        posted += 1;
        if response.status != 200 {
            assert!(response.expect_error(503, "not-committed").contains("queued"));
            break;
        }
    }
    expect_health(&hub, "disk-full").await;
    let accepted = fill_queue(&mut ann).await;
    expect_live_presence(&hub, &mut ann).await;
    volume.run("rm filling");
    ann.expect_ack(accepted).await;
    expect_recovery(&hub).await;
    expect_views(&hub, posted + accepted).await;
}

#[tokio::test]
async fn io_errors_degrade_health_until_the_disk_works() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::in_folder(folder.path());
    let hub = Program::start(folder.path(), &[&faults.settings()[..], &[OFTEN, SMALL_QUEUE]].concat()).await;
    let mut ann = ann(&hub).await;
    let accepted =
        fail_and_repair(&hub, &mut ann, || faults.set("broken"), "disk-error", || faults.set("")).await;
    assert_eq!(views(folder.path()).await, accepted);
}

/// Linux remounts a failed volume read-only, also under open files.
#[tokio::test]
async fn disk_that_becomes_read_only_degrades_health_and_recovers() {
    let Some(volume) = Volume::mount("4m") else { return };
    let beside = tempfile::tempdir().unwrap();
    let faults = Faults::in_folder(beside.path());
    let hub = volume.start(&[&faults.settings()[..], &[OFTEN, SMALL_QUEUE]].concat()).await;
    let mut ann = ann(&hub).await;
    let fail = || {
        volume.run("mkdir -p view && mount --bind . view && mount -o remount,bind,ro $PWD/view && mount --bind view .");
        faults.set("read-only");
    };
    let repair = || {
        volume.run("mount -o remount,bind,rw $PWD");
        faults.set("");
    };
    let accepted = fail_and_repair(&hub, &mut ann, fail, "read-only", repair).await;
    expect_views(&hub, accepted).await;
}

#[tokio::test]
async fn disk_remounted_read_only_degrades_health_and_fails_startup() {
    let Some(volume) = Volume::mount("32m") else { return };
    volume.run("mkdir data");
    let url = format!("sqlite://{}/data/hub.db", volume.path().display());
    let settings = [OFTEN, SMALL_QUEUE, ("DATABASE_URL", &url)];
    let hub = volume.start(&settings).await;
    let mut ann = ann(&hub).await;
    // The copy is read-only before it is in place: a mount with files open for writing cannot become read-only.
    volume.run("cp -r data copy && mount --bind copy copy && mount -o remount,bind,ro $PWD/copy && mount --bind copy data");
    ann.view_page(Uuid::new_v4(), "/meanwhile").await;
    expect_health(&hub, "read-only").await;
    // A reader that opens the file now opens it read-only for all connections of the process.
    hub.get("/unified-stats?range=7d").send().await;
    let accepted = fill_queue(&mut ann).await;
    expect_live_presence(&hub, &mut ann).await;
    volume.run("mount -o remount,bind,rw $PWD/data");
    ann.expect_ack(accepted).await;
    expect_recovery(&hub).await;
    expect_views(&hub, accepted).await;
    drop(ann);
    hub.signal("TERM").await;
    hub.wait().await;

    volume.run("mount -o remount,bind,ro $PWD/data");
    let output = volume.run_hub(&[("DATABASE_URL", &url), ("RUST_LOG", "error")]).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert_eq!(output.stderr.trim_end().lines().count(), 1, "{output:?}");
    assert!(output.stderr.contains("hub.db cannot be written: Read-only file system"), "{output:?}");
    let url = format!("sqlite://{}/data/new.db", volume.path().display());
    let output = volume.run_hub(&[("DATABASE_URL", &url), ("RUST_LOG", "error")]).await;
    assert!(output.stderr.contains("new.db cannot be written: Read-only file system"), "{output:?}");
}

#[tokio::test]
async fn slow_disk_delays_acks_only() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::in_folder(folder.path());
    // Without limits, one address may fill the whole queue.
    let settings = [&faults.settings()[..], &[OFTEN, SMALL_QUEUE, ("RATE_LIMITS", "off")]].concat();
    let hub = Program::start(folder.path(), &settings).await;
    let mut ann = ann(&hub).await;
    faults.set("slow");
    let began = Instant::now();
    let reference = ann.view_page(Uuid::new_v4(), "/slow").await;
    // The flush is running.
    for _ in 0..3 {
        expect_live_presence(&hub, &mut ann).await;
    }
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(hub.get("/health").send().await.expect(200)["pendingPageViews"], 1);
    ann.expect_ack(reference).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "the ack follows the fsync");
    let accepted = fill_queue(&mut ann).await;
    expect_health(&hub, "queue-full").await;
    faults.set("");
    ann.expect_ack(accepted).await;
    expect_recovery(&hub).await;
}

#[tokio::test]
async fn lock_of_another_program_degrades_health_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Program::start(folder.path(), &[OFTEN, SMALL_QUEUE]).await;
    let mut ann = ann(&hub).await;
    let mut other = open_database(&folder.path().join("hub.db")).await;
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
    let accepted = fill_queue(&mut ann).await;
    expect_health(&hub, "locked").await;
    expect_live_presence(&hub, &mut ann).await;
    other.close().await.unwrap();
    ann.expect_ack(accepted).await;
    expect_recovery(&hub).await;
    assert_eq!(views(folder.path()).await, accepted);
}

#[tokio::test]
async fn missing_volume_loses_no_events_when_it_returns() {
    let folder = tempfile::tempdir().unwrap();
    let (there, away) = (folder.path().join("data"), folder.path().join("away"));
    fs::create_dir(&there).unwrap();
    let hub = Program::start(&there, &[OFTEN, SMALL_QUEUE]).await;
    let mut ann = ann(&hub).await;
    let (fail, repair) = (|| fs::rename(&there, &away).unwrap(), || fs::rename(&away, &there).unwrap());
    let accepted = fail_and_repair(&hub, &mut ann, fail, "file-gone", repair).await;
    assert_eq!(views(&there).await, accepted);
}

#[tokio::test]
async fn acked_events_are_in_the_file_at_the_database_path() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Program::start(folder.path(), &[OFTEN]).await;
    let mut ann = ann(&hub).await;
    let file = folder.path().join("hub.db");
    let backup = folder.path().join("backup.db");
    let mut other = open_database(&file).await;
    sqlx::query("VACUUM INTO ?1").bind(backup.to_str()).execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    for end in ["", "-wal", "-shm"] {
        fs::remove_file(folder.path().join(format!("hub.db{end}"))).unwrap();
    }
    let reference = ann.view_page(Uuid::new_v4(), "/meanwhile").await;
    expect_health(&hub, "file-gone").await;
    assert!(!file.exists(), "the hub does not create an empty database in its place");
    // The hub does not write to a file of another program either.
    let mut foreign = sqlx::sqlite::SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    foreign = foreign.pragma("application_id", "7");
    let mut foreign = sqlx::ConnectOptions::connect(&foreign).await.unwrap();
    sqlx::query("CREATE TABLE theirs (x)").execute(&mut foreign).await.unwrap();
    foreign.close().await.unwrap();
    let before = fs::read(&file).unwrap();
    expect_health(&hub, "foreign").await;
    let steps = hub.post("/maintain").admin().send().await.expect(200)["steps"].clone();
    hub.post("/init-db").admin().send().await.expect(500);
    assert!(fs::read(&file).unwrap() == before, "{steps}");
    fs::rename(&backup, &file).unwrap();
    ann.expect_ack(reference).await;
    expect_recovery(&hub).await;
    assert_eq!(views(folder.path()).await, 2);
    let stats = hub.get("/unified-stats?range=24h").send().await.expect(200);
    assert_eq!(stats["totals"]["pageViews"], 2, "readers have reopened the file too");
}

#[tokio::test]
async fn damaged_file_is_not_written_and_recovers_after_repair() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Program::start(folder.path(), &[OFTEN, SMALL_QUEUE]).await;
    let mut ann = ann(&hub).await;
    let file = folder.path().join("hub.db");
    let mut other = open_database(&file).await;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut other).await.unwrap();
    // After a failed commit the writer opens a new connection, which has no cached pages.
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
    let accepted = fill_queue(&mut ann).await;
    expect_health(&hub, "locked").await;
    let whole = fs::read(&file).unwrap();
    damage_pages(&file);
    let damaged = fs::read(&file).unwrap();
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    expect_health(&hub, "damaged").await;
    expect_live_presence(&hub, &mut ann).await;
    assert!(fs::read(&file).unwrap() == damaged, "the hub does not write to the damaged file");
    fs::OpenOptions::new().write(true).open(&file).unwrap().write_all_at(&whole, 0).unwrap();
    ann.expect_ack(accepted).await;
    expect_recovery(&hub).await;
    assert_eq!(views(folder.path()).await, accepted);
}

/// Overwrites all pages but the first with noise.
fn damage_pages(file: &Path) {
    let length = fs::metadata(file).unwrap().len() - PAGE;
    let noise = vec![0xa5; usize::try_from(length).unwrap()];
    fs::OpenOptions::new().write(true).open(file).unwrap().write_all_at(&noise, PAGE).unwrap();
}

/// A database with some history of a stopped hub.
async fn stopped() -> (TempDir, PathBuf) {
    let hub = Hub::start().await;
    for n in 0..20 {
        hub.post_page_view("ann", &format!("/{n}")).await;
    }
    let file = hub.file();
    (hub.stop().await, file)
}

/// A name, a function that damages a file, words of the error, and whether the header or the schema shows the damage.
type Damage<'a> = (&'a str, &'a dyn Fn(&Path), &'a str, bool);

#[tokio::test]
async fn damaged_or_foreign_file_fails_startup_unchanged() {
    let cut = |file: &Path| {
        let length = fs::metadata(file).unwrap().len();
        fs::OpenOptions::new().write(true).open(file).unwrap().set_len(length / 2 / PAGE * PAGE).unwrap();
    };
    let flip = |at: u64| {
        move |file: &Path| {
            let open = fs::OpenOptions::new().write(true).open(file).unwrap();
            open.write_all_at(&[0xff; 16], at).unwrap();
        }
    };
    // A page with rows: damage to a free one is none. All these databases have the same pages.
    let (_sample, file) = stopped().await;
    let page = rows(&file, "SELECT rootpage FROM sqlite_schema WHERE name = 'months'").await[0].as_u64();
    let flip_page = flip((page.unwrap() - 1) * PAGE);
    let damages: [Damage; 6] = [
        (
            "words",
            &|file| fs::write(file, "no database, just words ".repeat(400)).unwrap(),
            "no database",
            true,
        ),
        ("cut off", &cut, "damaged", true),
        ("a flipped header", &flip(0), "no database", true),
        ("a flipped page", &flip_page, "damaged", false),
        ("noise", &damage_pages, "damaged", true),
        ("another program's", &flip(68), "another program's", true),
    ];
    for (name, damage, words, is_shown) in damages {
        let (folder, file) = stopped().await;
        damage(&file);
        let before = fs::read(&file).unwrap();
        let url = format!("sqlite://{}", file.display());
        let arguments: &[&str] = if is_shown { &[] } else { &["--check-first"] };
        let output = Program::run(arguments, &[("DATABASE_URL", &url), ("RUST_LOG", "error")]).await;
        assert_eq!(output.code, Some(1), "{name}: {output:?}");
        assert_eq!(output.stderr.trim_end().lines().count(), 1, "{name}: {output:?}");
        assert!(output.stderr.contains(words) && output.stderr.contains("hub.db"), "{name}: {output:?}");
        assert!(output.stderr.contains("not changed"), "{name}: {output:?}");
        assert!(fs::read(&file).unwrap() == before, "{name}");
        let names = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name());
        let names: Vec<_> = names.filter(|name| name != "hub.db.lock").collect();
        assert_eq!(names, ["hub.db"], "{name}: no other file is created");
    }
}

#[tokio::test]
async fn empty_file_becomes_a_new_database() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("hub.db"), "").unwrap();
    let hub = Program::start(folder.path(), &[OFTEN]).await;
    ann(&hub).await;
}

/// A database with a damaged page in the middle of a month's page views, of a hub that stopped in order.
async fn damaged_in_the_middle() -> TempDir {
    const MIDDLE: &str = "
        WITH leaf AS (
            SELECT pageno FROM dbstat WHERE name LIKE '%page_views_2%' AND pagetype = 'leaf' ORDER BY path
        )
        SELECT pageno FROM leaf LIMIT 1 OFFSET (SELECT count(*) / 2 FROM leaf)";
    let hub = Hub::start().await;
    for _ in 0..10 {
        // These ids rise, so that later ones are in the last pages.
        let view = |_| json!({ "id": Uuid::now_v7(), "path": "/", "visitor": "ann", "room": "lobby" });
        let views: Vec<_> = (0..100).map(view).collect();
        hub.post("/page-view?durable=true").json(&json!(views)).send().await.expect(200);
    }
    let folder = hub.stop().await;
    let file = folder.path().join("hub.db");
    let page = rows(&file, MIDDLE).await[0].as_u64().unwrap();
    // The last connection to close copies the log into the file, and would repair the page. Of two that close at once
    // none is the last one, and the log stays until the next.
    let log = folder.path().join("hub.db-wal");
    let is_copied = async || {
        rows(&file, "SELECT 1").await;
        !log.exists()
    };
    eventually(is_copied, "all connections are closed").await;
    let open = fs::OpenOptions::new().write(true).open(&file).unwrap();
    open.write_all_at(&[0xff; 64], (page - 1) * PAGE).unwrap();
    folder
}

/// Starts a hub that must not start, because its database is damaged.
async fn expect_refusal(folder: &Path, arguments: &[&str], settings: &[(&str, &str)]) {
    let file = folder.join("hub.db");
    let before = fs::read(&file).unwrap();
    let url = format!("sqlite://{}", file.display());
    let settings = [&[("DATABASE_URL", url.as_str()), ("RUST_LOG", "error")], settings].concat();
    let output = Program::run(arguments, &settings).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("is damaged") && output.stderr.contains("not changed"), "{output:?}");
    assert!(fs::read(&file).unwrap() == before);
}

/// Stores the end of the last run, as if it were that of a hub on this boot of the system or on another one.
async fn set_last_run(folder: &Path, boot_id: Option<&str>, is_clean: bool) {
    let mut database = open_database(&folder.join("hub.db")).await;
    let set = sqlx::query("UPDATE last_run SET boot_id = coalesce(?1, boot_id), is_clean = ?2");
    set.bind(boot_id).bind(is_clean).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
}

#[tokio::test]
async fn hub_serves_at_once_and_then_reports_a_damaged_page() {
    let folder = damaged_in_the_middle().await;
    let hub = Program::start_with_log(folder.path(), &[OFTEN]).await;
    let mut ann = ann(&hub).await;
    expect_health(&hub, "damaged").await;
    assert_eq!(hub.metric("breathing_room_database_damaged").await, 1.0);
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("the database file is damaged") && log.contains("restore a backup"), "{log}");
    // Commits go on, and none of them clears the reason.
    let next = ann.view_page(Uuid::new_v4(), "/next").await;
    ann.expect_ack(next).await;
    expect_health(&hub, "damaged").await;
}

#[tokio::test]
async fn check_first_refuses_a_damaged_page_unchanged() {
    let folder = damaged_in_the_middle().await;
    expect_refusal(folder.path(), &["--check-first"], &[]).await;
    expect_refusal(folder.path(), &[], &[("CHECK_FIRST", "on")]).await;
}

#[tokio::test]
async fn crash_of_the_machine_checks_the_file_before_serving() {
    let folder = damaged_in_the_middle().await;
    set_last_run(folder.path(), Some("another"), false).await;
    expect_refusal(folder.path(), &[], &[]).await;
    set_last_run(folder.path(), Some("another"), true).await;
    let hub = Program::start(folder.path(), &[]).await;
    expect_health(&hub, "damaged").await;

    let whole = tempfile::tempdir().unwrap();
    let hub = Program::start(whole.path(), &[]).await;
    hub.signal("TERM").await;
    hub.wait().await;
    assert_eq!(rows(&whole.path().join("hub.db"), "SELECT is_clean FROM last_run").await, [1]);
    set_last_run(whole.path(), Some("another"), false).await;
    let _hub = Program::start_with_log(whole.path(), &[]).await;
    let log = fs::read_to_string(whole.path().join("log")).unwrap();
    assert!(log.contains("the machine stopped while a hub was running"), "{log}");
}

#[tokio::test]
async fn killed_process_does_not_check_the_file_before_serving() {
    let folder = damaged_in_the_middle().await;
    let file = folder.path().join("hub.db");
    let hub = Program::start(folder.path(), &[]).await;
    let runs = "SELECT count(*) FROM last_run WHERE NOT is_clean";
    eventually(async || rows(&file, runs).await == [1], "the run is stored").await;
    hub.signal("KILL").await;
    hub.wait().await;
    assert_eq!(rows(&file, runs).await, [1]);
    let hub = Program::start(folder.path(), &[]).await;
    expect_health(&hub, "damaged").await;
}

#[tokio::test]
async fn file_that_replaces_a_damaged_one_is_checked_too() {
    let folder = damaged_in_the_middle().await;
    let file = folder.path().join("hub.db");
    let hub = Program::start(folder.path(), &[OFTEN]).await;
    expect_health(&hub, "damaged").await;
    let (other, beside) = (Hub::start().await.stop().await, folder.path().join("beside.db"));
    fs::copy(other.path().join("hub.db"), &beside).unwrap();
    for end in ["-wal", "-shm"] {
        fs::remove_file(folder.path().join(format!("hub.db{end}"))).unwrap();
    }
    fs::rename(&beside, &file).unwrap();
    ann(&hub).await;
    expect_recovery(&hub).await;
    assert_eq!(views(folder.path()).await, 1);
}
