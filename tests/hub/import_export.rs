//! The commands check, export and import on real files.

use std::fs;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::program::{ProgramOutput, Volume};
use crate::support::{Program, open_database, rows};

/// A folder with a database and other files.
struct Workspace {
    folder: TempDir,
}

impl Workspace {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Imports a month of history of all kinds, with bots and special characters.
    async fn with_history() -> Self {
        let workspace = Self::new();
        let mut lines = Vec::new();
        for n in 0..60_u64 {
            let at = 1_772_300_000_000 + n * 40_000_000; // from the end of February 2026
            let id = Uuid::from_u128(u128::from(n) << 100 | u128::from(n));
            let (room, visitor) = (["lobby", "garden"][usize::from(n % 3 == 0)], format!("v{}", n % 7));
            lines.push(json!({ "type": "page-view", "id": id, "room": room, "visitor": visitor, "path": format!("/{}", n % 5),
                "title": "Sit, \"still\"\nand = breathe", "referrer": "https://example.org/a", "at": at, "isBot": n % 10 == 0,
                "props": { "plan": "free", "n": n, "share": 0.1 + 0.2 } }));
            lines.push(json!({ "type": "watch", "id": id, "room": room, "visitor": visitor, "content": "sunrise",
                "state": "ended", "at": at + 90_000, "startedAt": at, "seenAt": at + 90_000, "watchedMs": 60_000 + n,
                "positionMs": 5, "positionAt": at, "durationMs": 90_000, "props": { "q": true }, "propsAt": at }));
            let mut sample =
                json!({ "presentMs": 60_000, "peak": n % 4, "joins": 1, "moodsMs": { "calm": 1_000 } });
            if n % 4 == 0 {
                // Older versions did not count sits.
                let sits = [("heldMs", 9_000), ("sitsBegun", 2), ("sitsCompleted", 1), ("satMs", 30_000)];
                for (key, value) in sits {
                    sample[key] = value.into();
                }
            }
            lines.push(
                json!({ "type": "census", "id": id, "at": at, "hub": sample, "rooms": { room: sample } }),
            );
        }
        let text: Vec<String> = lines.iter().map(Value::to_string).collect();
        let file = workspace.write("history.jsonl", text.join("\n"));
        workspace
            .run(&["import", &file])
            .await
            .expect(0, "180 rows read: 180 taken, 0 already there, 0 refused");
        workspace
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), text).unwrap();
        self.path(name).display().to_string()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    async fn run(&self, arguments: &[&str]) -> ProgramOutput {
        let url = format!("sqlite://{}/hub.db", self.folder.path().display());
        Program::run(arguments, &[("DATABASE_URL", &url)]).await
    }

    async fn export(&self, name: &str, arguments: &[&str]) -> String {
        let out = self.path(name).display().to_string();
        self.run(&[&["export", "--out", &out], arguments].concat()).await.expect(0, "");
        assert!(!self.path(&format!("{name}.part")).exists());
        self.read(name)
    }

    async fn rows(&self, query: &str) -> Vec<Value> {
        rows(&self.path("hub.db"), query).await
    }

    async fn change(&self, statement: &str) {
        let mut connection = open_database(&self.path("hub.db")).await;
        sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

impl ProgramOutput {
    /// The exit code, and the last line of standard output unless it is empty.
    fn expect(&self, code: i32, last_line: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        if !last_line.is_empty() {
            assert_eq!(self.stdout.lines().last(), Some(last_line), "{self:?}");
        }
    }
}

#[tokio::test]
async fn exported_history_imports_identically() {
    let workspace = Workspace::with_history().await;
    for name in ["all.jsonl", "all.csv"] {
        let file = workspace.export(name, &[]).await;
        assert_eq!(file.lines().next().unwrap().starts_with("type,id,room"), name == "all.csv");
        let other = Workspace::new();
        let path = workspace.path(name).display().to_string();
        other.run(&["import", &path]).await.expect(0, "180 rows read: 180 taken, 0 already there, 0 refused");
        assert_eq!(other.export(name, &[]).await, file);
        assert_eq!(other.export("as.jsonl", &[]).await, workspace.export("as.jsonl", &[]).await);
        let rollups = "SELECT json_array(level, at, page_views, watched_ms, visitors) FROM activity_rollups
                       WHERE room = 0 ORDER BY level, at";
        assert_eq!(other.rows(rollups).await, workspace.rows(rollups).await);
        let checked = other.run(&["check"]).await;
        checked.expect(0, "");
        assert!(checked.stdout.starts_with("180 events agree with "), "{checked:?}");
        other.run(&["import", &path]).await.expect(0, "180 rows read: 0 taken, 180 already there, 0 refused");
        assert_eq!(other.export(name, &[]).await, file, "importing twice changes nothing");
        other.run(&["check"]).await.expect(0, "");
    }
}

#[tokio::test]
async fn gzip_archive_is_imported_directly() {
    let workspace = Workspace::with_history().await;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    std::io::Write::write_all(&mut gzip, workspace.export("all.jsonl", &[]).await.as_bytes()).unwrap();
    let other = Workspace::new();
    let archive = other.write("2026-02.jsonl.gz", gzip.finish().unwrap());
    other.run(&["import", &archive]).await.expect(0, "180 rows read: 180 taken, 0 already there, 0 refused");
    assert_eq!(other.export("all.jsonl", &[]).await, workspace.read("all.jsonl"));
}

#[tokio::test]
async fn export_filters_by_time_and_room() {
    let workspace = Workspace::with_history().await;
    let records = |text: String| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = records(workspace.export("all.jsonl", &[]).await);
    let start = |record: &Value| record.get("startedAt").unwrap_or(&record["at"]).as_u64().unwrap();
    let march = 1_772_323_200_000..1_772_496_000_000; // the first two days of it
    let expected: Vec<&Value> = all.iter().filter(|record| march.contains(&start(record))).collect();
    assert!(!expected.is_empty() && expected.len() < all.len());
    for (from, to) in [
        ("2026-03-01", "2026-03-03"),
        ("2026-03-01T01:00:00+01:00", "1772496000000"),
        ("1772323200", "2026-03-03 00:00:00"),
    ] {
        let some = records(workspace.export("some.jsonl", &["--from", from, "--to", to]).await);
        assert_eq!(some.iter().collect::<Vec<_>>(), expected, "{from} {to}");
    }
    let garden = records(workspace.export("garden.jsonl", &["--room", "garden"]).await);
    assert_eq!(garden.len(), 40, "page views and watch sessions, without the presence samples of the hub");
    assert!(garden.iter().all(|record| record["room"] == "garden"));
    // Standard output, with and without `--out -`. JSON Lines is the default format.
    let stdout = workspace.run(&["export", "--room", "garden"]).await;
    assert_eq!(stdout.stdout, workspace.read("garden.jsonl"));
    let stdout = workspace.run(&["export", "--room", "garden", "--out", "-", "--format", "csv"]).await;
    assert_eq!(stdout.stdout, workspace.export("garden.csv", &["--room", "garden"]).await);
    assert_eq!(
        workspace.export("x.csv", &["--room", "garden", "--format", "jsonl"]).await,
        workspace.read("garden.jsonl")
    );
    let never = workspace.run(&["export", "--from", "2026-03-03", "--to", "2026-03-01"]).await;
    never.expect(2, "");
    assert_eq!(never.stderr, "error: --from must be before --to\n");
}

#[tokio::test]
async fn export_and_import_work_while_the_hub_runs() {
    let workspace = Workspace::new();
    let hub = Program::start(workspace.folder.path(), &[("FLUSH_INTERVAL", "20ms")]).await;
    let mut ann = hub.join("lobby", "ann").await;
    for n in 0..50 {
        ann.view_page(Uuid::new_v4(), &format!("/{n}")).await;
    }
    ann.expect_ack(50).await;
    let exported = workspace.export("all.jsonl", &[]).await;
    assert_eq!(exported.matches(r#""type":"page-view""#).count(), 50);
    let view = json!([{ "id": 1, "user_id": "bob", "path": "/old", "timestamp": 1_700_000_000 }]);
    let file = workspace.write("old.json", view.to_string());
    workspace.run(&["import", &file]).await.expect(0, "1 rows read: 1 taken, 0 already there, 0 refused");
    ann.view_page(Uuid::new_v4(), "/last").await;
    ann.expect_ack(51).await;
    assert_eq!(workspace.rows("SELECT count(*) FROM page_views").await, [52]);
    workspace.run(&["check"]).await.expect(0, "");
    hub.signal("TERM").await;
    assert_eq!(hub.wait().await.code(), Some(0));
}

#[tokio::test]
async fn import_waits_for_a_database_lock() {
    let workspace = Workspace::with_history().await;
    let mut other = open_database(&workspace.path("hub.db")).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    workspace.run(&["check"]).await.expect(0, "");
    assert_eq!(workspace.export("all.jsonl", &[]).await.lines().count(), 180, "reading does not wait");
    let file = workspace.write("old.csv", "id,user_id,path,timestamp\n1,ann,/,1700000000\n");
    // The import prints this after SQLite's busy timeout, and then tries again.
    let release = async || {
        sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    };
    let url = format!("sqlite://{}", workspace.path("hub.db").display());
    let settings = [("DATABASE_URL", url.as_str())];
    let output =
        Program::run_and_react(&["import", &file], &settings, "waits for the database", release).await;
    output.expect(0, "1 rows read: 1 taken, 0 already there, 0 refused");
    assert_eq!(output.stderr.lines().count(), 1, "it prints this once: {output:?}");
}

/// The tables of the old worker in four kinds of files, each with valid and invalid rows.
#[tokio::test]
async fn legacy_worker_tables_are_imported() {
    let workspace = Workspace::new();
    let files = [
        workspace.write(
            "views.json",
            r#"[
  { "id": 1, "user_id": "ann", "path": "/a", "referrer": "https://example.org/", "timestamp": "2024-02-29 23:59:59" },
  { "id": 2, "user_id": "a n n", "path": "/a", "referrer": null, "timestamp": 1709251199 },
  { "id": 3, "user_id": "bob", "path": "/b", "referrer": null, "timestamp": 1709251199000 }
]"#,
        ),
        workspace.write(
            "views.csv",
            "id,user_id,path,referrer,timestamp\r\n4,ann,\"/with, comma\",,2024-02-29T23:59:59Z\r\n\
             5,bob,,,1709251199\r\n\r\n6,bob,/b,,2999-01-01\r\n7,bob,/b,,1709251199\r\n",
        ),
        workspace.write(
            "sessions.jsonl",
            "{\"id\":\"s1\",\"user_id\":\"ann\",\"content_id\":\"film\",\"started_at\":1709251199,\"duration\":90,\"completed\":true}\n\
             {\"id\":\"s2\",\"user_id\":\"ann\",\"content_id\":\"film\",\"started_at\":1709251199,\"duration\":-1,\"completed\":0}\n\
             {\"id\":\"s3\",\"user_id\":\n\
             {\"id\":\"s4\",\"user_id\":\"bob\",\"content_id\":\"film\",\"started_at\":\"2024-02-29\",\"duration\":1.5,\"completed\":0}\n",
        ),
        workspace.write(
            "sessions.csv",
            "id,user_id,content_id,started_at,duration,completed\ns5,ann,film,2024-02-29,5,1\ns6,ann,film,2024-02-29,5\n\
             s7,ann,film,2024-02-29,5,false\n",
        ),
    ];
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let import =
        async |arguments: &[&str]| workspace.run(&[&["import"], files.as_slice(), arguments].concat()).await;

    let dry = import(&["--dry-run"]).await;
    dry.expect(1, "14 rows read: 8 are right, 6 refused; nothing was changed");
    assert!(!workspace.path("hub.db").exists());

    let report = workspace.path("refused.txt").display().to_string();
    let output = import(&["--report", &report]).await;
    output.expect(1, "14 rows read: 8 taken, 0 already there, 6 refused");
    assert_eq!(output.stderr, dry.stderr);
    assert_eq!(workspace.read("refused.txt"), output.stderr);
    let folder = format!("{}/", workspace.folder.path().display());
    let rejected = output.stderr.replace(&folder, "");
    assert_eq!(
        rejected.lines().collect::<Vec<_>>(),
        [
            "views.json:3: visitor (user_id): must match [A-Za-z0-9_-]{1,64}",
            "views.csv:3: path: is missing",
            "views.csv:5: at (timestamp): must not be more than 5 minutes in the future",
            "sessions.jsonl:2: duration: must be a number of seconds, from 0 to 1000000000",
            "sessions.jsonl:3: EOF while parsing a value",
            "sessions.csv:3: has 5 cells, and the header has 6",
        ]
    );

    let views = "SELECT json_array(room, visitor, path, referrer, at) FROM page_views ORDER BY path, visitor, referrer";
    assert_eq!(
        workspace.rows(views).await,
        [
            json!(["lobby", "ann", "/a", "https://example.org/", 1_709_251_199_000_u64]),
            json!(["lobby", "bob", "/b", null, 1_709_251_199_000_u64]),
            json!(["lobby", "bob", "/b", null, 1_709_251_199_000_u64]),
            json!(["lobby", "ann", "/with, comma", null, 1_709_251_199_000_u64]),
        ]
    );
    let sessions = "SELECT json_array(visitor, content, state, watched_ms, started_at) FROM watch_sessions
                    ORDER BY watched_ms, state";
    assert_eq!(
        workspace.rows(sessions).await,
        [
            json!(["bob", "film", "paused", 1_500, 1_709_164_800_000_u64]),
            json!(["ann", "film", "ended", 5_000, 1_709_164_800_000_u64]),
            json!(["ann", "film", "paused", 5_000, 1_709_164_800_000_u64]),
            json!(["ann", "film", "ended", 90_000, 1_709_251_199_000_u64]),
        ]
    );

    import(&[]).await.expect(1, "14 rows read: 0 taken, 8 already there, 6 refused");
    workspace.run(&["check"]).await.expect(0, "");
}

#[tokio::test]
async fn legacy_columns_can_be_mapped() {
    let workspace = Workspace::new();
    let views = workspace
        .write("v.csv", "key,member,url,seen,place\n1,ann,/a,1709251199,garden\n2,ann,/b,1709251199,\n");
    let mapping =
        ["--field", "id=key", "--field", "visitor=member", "--field", "path=url", "--field", "at=seen"];
    let arguments =
        [&["import", &views], mapping.as_slice(), &["--field", "room=place", "--room", "hall"]].concat();
    workspace.run(&arguments).await.expect(0, "2 rows read: 2 taken, 0 already there, 0 refused");
    let rooms = "SELECT json_array(path, room) FROM page_views ORDER BY path";
    assert_eq!(workspace.rows(rooms).await, [json!(["/a", "garden"]), json!(["/b", "hall"])]);

    let unknown = workspace.run(&["import", &views]).await;
    unknown.expect(2, "1 rows read: 0 taken, 0 already there, 1 refused");
    assert!(unknown.stderr.contains("v.csv:1: has no type, no path and no content_id"), "{unknown:?}");
    let page_views = workspace.run(&["import", &views, "--kind", "page-views"]).await;
    page_views.expect(2, "");
    assert!(page_views.stderr.contains("v.csv:1: has none of our columns"), "{page_views:?}");
    let half = ["import", &views, "--kind", "page-views", "--field", "id=key"];
    let half = workspace.run(&half).await;
    half.expect(1, "2 rows read: 0 taken, 0 already there, 2 refused");
    assert!(half.stderr.contains("v.csv:2: visitor (user_id): is missing"), "{half:?}");
}

#[tokio::test]
async fn first_20_rejected_rows_are_printed() {
    let workspace = Workspace::new();
    let rows: Vec<String> = (0..25).map(|n| format!("{n},not a visitor,/,1")).collect();
    let file = workspace.write("v.csv", format!("id,user_id,path,timestamp\n{}\n", rows.join("\n")));
    let report = workspace.path("refused.txt").display().to_string();
    let output = workspace.run(&["import", &file]).await;
    output.expect(1, "25 rows read: 0 taken, 0 already there, 25 refused");
    assert_eq!(output.stderr.lines().count(), 21);
    assert_eq!(output.stderr.lines().last(), Some("and 5 more: --report FILE writes all of them to a file"));
    let output = workspace.run(&["import", &file, "--report", &report]).await;
    assert_eq!(output.stderr.lines().last(), Some("and 5 more"));
    assert_eq!(workspace.read("refused.txt").lines().count(), 25);
}

/// The file needs several transactions to import, and several pages to export.
#[tokio::test]
async fn long_import_is_split_into_transactions() {
    let workspace = Workspace::new();
    let row = |n: u64| format!("{n},v{},/{},{}\n", n % 100, n % 10, 1_700_000_000 + n * 10);
    let rows: String = (0..12_000).map(row).collect();
    let file = workspace.write("v.csv", format!("id,user_id,path,timestamp\n{rows}"));
    workspace
        .run(&["import", &file])
        .await
        .expect(0, "12000 rows read: 12000 taken, 0 already there, 0 refused");
    assert_eq!(workspace.export("all.csv", &[]).await.lines().count(), 12_001);
    workspace.run(&["check"]).await.expect(0, "");
}

#[tokio::test]
async fn check_reports_rollup_differences() {
    let workspace = Workspace::with_history().await;
    workspace.run(&["check"]).await.expect(0, "");
    workspace.change("UPDATE activity_rollups SET page_views = page_views + 1 WHERE level = 'day' AND room = 0 AND at = (SELECT min(at) FROM activity_rollups WHERE level = 'day' AND room = 0)").await;
    let output = workspace.run(&["check"]).await;
    output.expect(1, "");
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{output:?}");
    assert!(lines[0].starts_with("day 2026-02-28T00:00:00Z in all rooms: page views "), "{output:?}");
    assert!(lines[1].starts_with("180 events, ") && lines[1].ends_with(" 1 differences"), "{output:?}");
    workspace
        .change("UPDATE months SET archive = 'a.jsonl.gz', checksum = 'abc' WHERE month = '2026-02'")
        .await;
    let output = workspace.run(&["check"]).await;
    output.expect(0, "");
    assert!(output.stdout.starts_with("2026-02 is in an archive and was not recounted\n"), "{output:?}");
}

#[tokio::test]
async fn commands_do_not_create_a_missing_database() {
    let workspace = Workspace::new();
    for command in ["check", "export"] {
        let output = workspace.run(&[command]).await;
        output.expect(2, "");
        let expected = format!("error: there is no database at {}\n", workspace.path("hub.db").display());
        assert_eq!(output.stderr, expected);
        assert_eq!(fs::read_dir(workspace.folder.path()).unwrap().count(), 0);
    }
    let missing = workspace.path("missing.csv").display().to_string();
    let output = workspace.run(&["import", &missing]).await;
    output.expect(2, "");
    assert!(output.stderr.contains("cannot read ") && output.stderr.lines().count() == 1, "{output:?}");
    assert!(!workspace.path("hub.db").exists());
    let nothing = workspace.run(&["import"]).await;
    nothing.expect(2, "");
    assert!(nothing.stderr.contains("<FILE>") && nothing.stderr.lines().count() == 1, "{nothing:?}");
}

#[tokio::test]
async fn failed_export_leaves_no_file() {
    let workspace = Workspace::with_history().await;
    let nowhere = Path::new("nowhere").join("all.csv");
    let out = workspace.path(nowhere.to_str().unwrap()).display().to_string();
    let output = workspace.run(&["export", "--out", &out]).await;
    output.expect(2, "");
    assert!(output.stderr.contains("cannot write ") && output.stderr.contains("all.csv"), "{output:?}");
    // A file cannot replace a folder.
    fs::create_dir(workspace.path("folder.csv")).unwrap();
    fs::write(workspace.path("folder.csv").join("x"), "").unwrap();
    let out = workspace.path("folder.csv").display().to_string();
    workspace.run(&["export", "--out", &out]).await.expect(2, "");
    assert!(!workspace.path("folder.csv.part").exists());
}

/// The bytes of a file by its name, where it exists.
fn bytes(path: &Path) -> Option<Vec<u8>> {
    fs::read(path).ok()
}

#[tokio::test]
async fn export_over_a_file_of_the_hub_is_refused() {
    let workspace = Workspace::with_history().await;
    fs::create_dir(workspace.path("archive")).unwrap();
    let archive = "archive/breathing-room-2025-01.jsonl.gz";
    workspace.write(archive, "an archive");
    fs::hard_link(workspace.path("hub.db"), workspace.path("hard.jsonl")).unwrap();
    std::os::unix::fs::symlink("hub.db", workspace.path("soft.jsonl")).unwrap();
    fs::hard_link(workspace.path("hub.db"), workspace.path("out.jsonl.part")).unwrap();
    let before = bytes(&workspace.path("hub.db"));
    for name in [
        "hub.db",
        "archive/../hub.db",
        "hard.jsonl",
        "soft.jsonl",
        "out.jsonl", // its temporary name is a link to the database
        "hub.db-wal",
        "hub.db-shm",
        "hub.db.lock",
        archive,
    ] {
        let out = workspace.path(name).display().to_string();
        let is_there = workspace.path(name).exists();
        let output = workspace.run(&["export", "--out", &out]).await;
        output.expect(2, "");
        assert!(output.stderr.contains("choose another file for the output"), "{name}: {output:?}");
        assert_eq!(workspace.path(name).exists(), is_there, "{name}");
    }
    assert_eq!(bytes(&workspace.path("hub.db")), before);
    assert_eq!(workspace.read(archive), "an archive");
    // With a folder of archives elsewhere, this is any file.
    let (out, folder) = (workspace.path(archive).display().to_string(), workspace.path("elsewhere"));
    workspace.run(&["export", "--out", &out, "--archive-dir", folder.to_str().unwrap()]).await.expect(0, "");
}

#[tokio::test]
async fn backup_over_a_file_of_the_hub_is_refused() {
    let workspace = Workspace::with_history().await;
    fs::hard_link(workspace.path("hub.db"), workspace.path("backup.db.part")).unwrap();
    let before = bytes(&workspace.path("hub.db"));
    for name in ["hub.db-wal", "hub.db.lock", "backup.db"] {
        let output = workspace.run(&["backup", workspace.path(name).to_str().unwrap()]).await;
        output.expect(2, "");
        assert!(output.stderr.contains("choose another file for the output"), "{name}: {output:?}");
        assert!(!workspace.path("hub.db-wal").exists());
    }
    assert_eq!(bytes(&workspace.path("hub.db")), before);
}

#[tokio::test]
async fn import_report_over_a_file_that_must_stay_is_refused() {
    let workspace = Workspace::with_history().await;
    let row = "id,user_id,path,timestamp\n1,not a visitor,/,1709251199\n";
    let input = workspace.write("in.csv", row);
    fs::hard_link(workspace.path("in.csv"), workspace.path("link.csv")).unwrap();
    fs::create_dir(workspace.path("archive")).unwrap();
    let archive = workspace.write("archive/breathing-room-2025-01.jsonl.gz", "an archive");
    let database = workspace.path("hub.db").display().to_string();
    let before = bytes(&workspace.path("hub.db"));
    let link = workspace.path("link.csv").display().to_string();
    for report in [&input, &link, &database, &format!("{database}-wal"), &archive] {
        for more in [&[][..], &["--dry-run"]] {
            let output = workspace.run(&[&["import", &input, "--report", report], more].concat()).await;
            output.expect(2, "");
            assert!(output.stderr.contains("choose another file for the output"), "{report}: {output:?}");
        }
    }
    assert_eq!((workspace.read("in.csv").as_str(), bytes(&workspace.path("hub.db"))), (row, before));
    // The database that this import would create.
    let other = Workspace::new();
    let report = other.path("hub.db").display().to_string();
    other.run(&["import", &input, "--report", &report]).await.expect(2, "");
    assert!(!other.path("hub.db").exists());
}

#[tokio::test]
async fn export_replaces_its_file_only_when_it_is_complete() {
    let workspace = Workspace::with_history().await;
    let out = workspace.write("all.jsonl", "the last export");
    let reader = fs::File::open(&out).unwrap();
    workspace.run(&["export", "--out", &out]).await.expect(0, "");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut &reader, &mut text).unwrap();
    assert_eq!(text, "the last export", "the old file was not written to");
    assert_eq!(workspace.read("all.jsonl").lines().count(), 180);
    // A device has no name to replace.
    workspace.run(&["export", "--out", "/dev/null"]).await.expect(0, "");
    assert!(!Path::new("/dev/null").metadata().unwrap().is_file() && !Path::new("/dev/null.part").exists());
}

#[tokio::test]
async fn unclosed_quote_is_refused_with_its_line() {
    let workspace = Workspace::new();
    let header = "id,user_id,path,timestamp,title\n";
    let file = format!("{header}1,ann,/a,1709251199,A\n2,ann,/b,1709251199,\"B\n3,ann,/c,1709251199,C\n");
    let file = workspace.write("v.csv", file);
    let output = workspace.run(&["import", &file]).await;
    output.expect(2, "2 rows read: 1 taken, 0 already there, 1 refused");
    let expected = format!("{file}:3: a quote is not closed\nerror: {file} cannot be read to its end\n");
    assert_eq!(output.stderr, expected);
    assert_eq!(workspace.rows("SELECT count(*) FROM page_views").await, [1]);
}

#[tokio::test]
async fn refused_rows_have_the_line_of_the_file() {
    let workspace = Workspace::new();
    // Quotes with line breaks, blank lines and \r\n, and every third row is refused.
    let mut text = "id,user_id,path,timestamp,title\r\n".to_owned();
    let mut expected = Vec::new();
    for n in 0..60 {
        let line = text.matches('\n').count() + 1;
        let visitor = if n % 3 == 0 { "not a visitor" } else { "ann" };
        let title = ["plain", "\"two\nlines\"", "\"a \"\"quote\"\"\r\n\"", "\"\""][n % 4];
        let end = ["\n", "\r\n", "\n\n"][n % 3];
        text.extend([&n.to_string(), ",", visitor, ",/,1709251199,", title, end]);
        expected.extend((n % 3 == 0).then_some(line));
    }
    let file = workspace.write("v.csv", text.trim_end());
    let report = workspace.path("refused.txt").display().to_string();
    workspace
        .run(&["import", &file, "--report", &report])
        .await
        .expect(1, "60 rows read: 40 taken, 0 already there, 20 refused");
    let report = workspace.read("refused.txt");
    let lines = report.lines().map(|row| row[file.len() + 1..].split(':').next().unwrap().parse().unwrap());
    assert_eq!(lines.collect::<Vec<usize>>(), expected);
}

#[tokio::test]
async fn input_without_a_row_of_a_known_kind_is_an_error() {
    let workspace = Workspace::new();
    for (name, text) in [
        ("page.html", "<!doctype html><title>Log in</title>"),
        ("pages.html", "<!doctype html>\n<title>Log in, please</title>\n<p>path</p>\n"),
        ("null.json", "null"),
        ("number.json", "5\n"),
        ("object.json", "{}"),
        ("nested.json", "{\n  \"results\": []\n}\n"),
        ("rows.json", "[{\"name\":1},{\"name\":2}]"),
        ("types.jsonl", "{\"type\":\"FeatureCollection\",\"features\":[]}\n"),
        ("header.csv", "name,age\n"),
        ("binary.db", "SQLite format 3\0\u{10}\0\u{1}\u{1}"),
    ] {
        let file = workspace.write(name, text);
        for more in [&[][..], &["--dry-run"]] {
            let output = workspace.run(&[&["import", &file], more].concat()).await;
            output.expect(2, "");
            assert!(output.stderr.lines().last().unwrap().starts_with("error: "), "{name}: {output:?}");
        }
    }
    // An export without events.
    for (name, text) in [("empty.jsonl", ""), ("empty.json", "[]\n"), ("empty.csv", "type,id,room\n")] {
        let file = workspace.write(name, text);
        workspace.run(&["import", &file]).await.expect(0, "0 rows read: 0 taken, 0 already there, 0 refused");
    }
}

#[tokio::test]
async fn control_characters_of_rows_are_escaped() {
    let workspace = Workspace::new();
    let row = json!({ "type": "page-view", "a\u{1b}]0;title\u{7}\u{9b}2J\u{202e}": 1, "id": Uuid::nil(), "room": "a",
        "visitor": "b", "path": "/", "at": 1 });
    let file = workspace.write("a\u{1b}[31m.jsonl", row.to_string());
    let report = workspace.path("refused.txt").display().to_string();
    let output = workspace.run(&["import", &file, "--report", &report]).await;
    output.expect(1, "1 rows read: 0 taken, 0 already there, 1 refused");
    for text in [&output.stderr, &workspace.read("refused.txt")] {
        assert!(
            text.contains(r"a\u{1b}[31m.jsonl:1: a\u{1b}]0;title\u{7}\u{9b}2J\u{202e}: does not belong"),
            "{text}"
        );
        assert!(text.trim_end().chars().all(|char| !char.is_control()), "{text:?}");
    }
}

/// All files of a folder with their contents and times.
fn state(folder: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(&path).unwrap(), path.metadata().unwrap().modified().unwrap()))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn export_and_check_change_no_file() {
    let workspace = Workspace::with_history().await;
    let before = state(workspace.folder.path());
    assert_eq!(workspace.run(&["export"]).await.stdout.lines().count(), 180);
    workspace.run(&["check"]).await.expect(0, "");
    assert!(state(workspace.folder.path()) == before);
}

#[tokio::test]
async fn export_and_check_do_not_migrate_and_say_when_it_is_due() {
    let workspace = Workspace::with_history().await;
    let versions = "SELECT max(version) FROM _sqlx_migrations";
    let newest = workspace.rows(versions).await[0].as_i64().unwrap();
    let older = "SELECT max(version) FROM _sqlx_migrations WHERE version < (SELECT max(version) FROM _sqlx_migrations)";
    let older = workspace.rows(older).await[0].as_i64().unwrap();
    workspace
        .change("DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)")
        .await;
    let before = state(workspace.folder.path());
    for command in ["check", "export"] {
        let output = workspace.run(&[command]).await;
        output.expect(2, "");
        let schemas = format!("its schema is {older}, that of this version {newest}");
        assert!(
            output.stderr.contains("needs a migration") && output.stderr.contains(&schemas),
            "{output:?}"
        );
        assert_eq!(output.stdout, "");
    }
    assert!(state(workspace.folder.path()) == before);
    let insert = format!(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                          VALUES ({newest}, '', 1, x'', 0), ({}, '', 1, x'', 0)",
        newest + 1
    );
    workspace.change(&insert).await;
    for command in ["check", "export"] {
        let output = workspace.run(&[command]).await;
        output.expect(2, "");
        assert!(output.stderr.contains("was written by a newer version"), "{output:?}");
    }
}

/// A volume that is mounted read-only, after a clean stop and after a crash.
#[tokio::test]
async fn export_and_check_need_no_write_permission() {
    let workspace = Workspace::with_history().await;
    let hub = Program::start(workspace.folder.path(), &[("FLUSH_INTERVAL", "20ms")]).await;
    let mut ann = hub.join("lobby", "ann").await;
    ann.view_page(Uuid::new_v4(), "/").await;
    ann.expect_ack(1).await;
    let Some(volume) = Volume::mount("64m") else { return };
    let copy = |names: &str| {
        let folder = workspace.folder.path().display();
        let copy = format!("(cd '{folder}' && tar cf - {names}) | tar xf -");
        volume.run(&format!("mount -o remount,rw . && rm -f hub.db* && {copy} && mount -o remount,ro ."));
    };
    let run = async |command: &str| {
        let url = format!("sqlite://{}/hub.db", volume.path().display());
        volume.run_command(command, &[("DATABASE_URL", &url)]).await
    };
    // As a snapshot of a hub that runs has it.
    hub.signal("STOP").await;
    copy("hub.db*");
    hub.signal("CONT").await;
    assert_eq!(run("export").await.stdout.lines().count(), 181);
    run("check").await.expect(0, "");
    hub.signal("TERM").await;
    assert_eq!(hub.wait().await.code(), Some(0));
    copy("hub.db");
    let exported = run("export").await;
    assert!(exported.stdout.lines().count() > 181, "presence of the hub is there too: {exported:?}");
    run("check").await.expect(0, "");
    // A log without its index cannot be read here.
    let mut other = open_database(&workspace.path("hub.db")).await;
    sqlx::query("CREATE TABLE other (id INTEGER)").execute(&mut other).await.unwrap();
    copy("hub.db hub.db-wal");
    let output = run("export").await;
    output.expect(2, "");
    assert!(output.stderr.contains("has a write-ahead log without an index"), "{output:?}");
}
