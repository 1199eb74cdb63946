//! The replica of a node: sums of its months, its snapshot, and a node that joins.

use std::fs;
use std::path::Path;

use breathing_room::config::Mode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::program::{ProgramOutput, Volume};
use crate::support::{ADMIN_TOKEN, Hub, Program, Request, TIMEOUT, eventually, give_away, owners, rows};

const COUNT: &str = "SELECT count(*) FROM page_views";

/// A page view of a month, as a line of an export.
fn line(month: &str, visitor: &str, title: &str) -> String {
    let at: jiff::Timestamp = format!("{month}-10T12:00:00Z").parse().unwrap();
    let (id, at) = (Uuid::new_v4(), at.as_millisecond());
    json!({ "type": "page-view", "id": id, "room": "lobby", "visitor": visitor, "path": "/", "title": title, "at": at })
        .to_string()
}

fn url(folder: &Path) -> String {
    format!("sqlite://{}/hub.db", folder.display())
}

async fn run(folder: &Path, arguments: &[&str]) -> ProgramOutput {
    Program::run(arguments, &[("DATABASE_URL", &url(folder))]).await
}

/// Imports records into the database of a folder.
async fn import(folder: &Path, lines: &[String]) {
    let file = folder.join("records.jsonl");
    fs::write(&file, lines.join("\n")).unwrap();
    let output = run(folder, &["import", file.to_str().unwrap()]).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    fs::remove_file(file).unwrap();
}

async fn post(hub: &Program, visitor: &str) {
    let view = json!({ "id": Uuid::now_v7(), "visitor": visitor, "room": "lobby", "path": "/" });
    hub.post("/page-view?durable=true").json(&view).send().await.expect(200);
}

/// The names of the files in a folder, without the lock.
fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "hub.db.lock").collect();
    names.sort();
    names
}

/// Asks for a file with the admin token, and returns the connection.
async fn ask(hub: &Program, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&hub.address).await.unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n",
        hub.address
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// The head and the body of an answer.
async fn answer(mut stream: TcpStream) -> (String, Vec<u8>) {
    let mut answer = Vec::new();
    timeout(TIMEOUT, stream.read_to_end(&mut answer)).await.expect("an answer in time").unwrap();
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n").expect("a head");
    (String::from_utf8_lossy(&answer[..end]).to_lowercase(), answer[end + 4..].to_vec())
}

/// The sums of the months of a node.
async fn sums(hub: &Program) -> Value {
    hub.get("/replica").header("authorization", &format!("Bearer {ADMIN_TOKEN}")).send().await.expect(200)["months"]
        .clone()
}

#[tokio::test]
async fn snapshot_is_the_whole_database_without_what_belongs_to_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Program::start(folder.path(), &[("FLUSH_INTERVAL", "50ms"), ("LEAVE_GRACE", "1m")]).await;
    post(&hub, "ann").await;
    drop(hub.join("lobby", "bob").await);
    let file = folder.path().join("hub.db");
    let holds = "SELECT count(*) FROM seats";
    eventually(async || rows(&file, holds).await == [1], "the hold of a lost visitor").await;

    let (head, body) = answer(ask(&hub, "/snapshot").await).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(
        head.contains(&format!("content-length: {}", body.len())) && head.contains("repr-digest: sha-256=:")
    );
    assert!(
        head.contains("content-type: application/vnd.sqlite3")
            && head.contains("cache-control: private, no-store")
    );
    let copy = folder.path().join("copy/hub.db");
    fs::create_dir(copy.parent().unwrap()).unwrap();
    fs::write(&copy, &body).unwrap();
    assert_eq!(rows(&copy, COUNT).await, [1]);
    assert_eq!(
        (rows(&copy, holds).await, rows(&copy, "SELECT count(*) FROM last_run").await),
        (vec![json!(0)], vec![json!(0)])
    );
    assert!(!body.windows(3).any(|part| part == b"bob"), "no byte of a hold is left");
    assert!(!names(folder.path()).iter().any(|name| name.contains("snapshot")), "{:?}", names(folder.path()));
    for path in ["/snapshot", "/replica", "/archives/2024-01"] {
        hub.get(path).send().await.expect_error(401, "unauthorized");
    }
}

#[tokio::test]
async fn one_snapshot_is_sent_at_a_time_and_ends_with_its_client() {
    let folder = tempfile::tempdir().unwrap();
    // More than the buffers of a connection.
    let lines: Vec<String> =
        (0..3_000).map(|_| line("2024-02", "ann", &Uuid::new_v4().to_string().repeat(28))).collect();
    import(folder.path(), &lines).await;
    let hub = Program::start(folder.path(), &[]).await;
    let mut first = ask(&hub, "/snapshot").await;
    timeout(TIMEOUT, first.read_u8()).await.expect("the first byte in time").unwrap();
    let (head, body) = answer(ask(&hub, "/snapshot").await).await;
    assert!(head.starts_with("http/1.1 503") && head.contains("retry-after: "), "{head}");
    assert!(String::from_utf8_lossy(&body).contains("another snapshot"), "{body:?}");
    drop(first);
    eventually(async || answer(ask(&hub, "/snapshot").await).await.0.starts_with("http/1.1 200"), "its turn")
        .await;
    // A client that goes away while SQLite copies.
    drop(ask(&hub, "/snapshot").await);
    eventually(async || answer(ask(&hub, "/snapshot").await).await.0.starts_with("http/1.1 200"), "its turn")
        .await;
    assert!(!names(folder.path()).iter().any(|name| name.contains("snapshot")), "{:?}", names(folder.path()));
}

#[tokio::test]
async fn snapshot_is_refused_where_the_volume_has_no_room() {
    let Some(volume) = Volume::mount("48m") else { return };
    let hub = volume.start(&[]).await;
    post(&hub, "ann").await;
    let request = hub.get("/snapshot").header("authorization", &format!("Bearer {ADMIN_TOKEN}"));
    let message = request.send().await.expect_error(503, "disk-full");
    assert!(message.contains("has no room for a copy of the database"), "{message}");
    post(&hub, "bob").await;
}

#[tokio::test]
async fn snapshot_that_a_crash_left_is_deleted_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("hub.db.snapshot"), "a part of a copy").unwrap();
    let _hub = Program::start(folder.path(), &[]).await;
    assert!(!names(folder.path()).contains(&"hub.db.snapshot".to_owned()));
}

#[tokio::test]
async fn node_that_joins_has_the_history_and_the_archives_and_check_says_whether_they_agree() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let months = ["2024-01", "2024-02"];
    let lines: Vec<String> =
        months.iter().flat_map(|month| ["ann", "bob"].map(|name| line(month, name, "A title"))).collect();
    import(old.path(), &lines).await;
    let settings = [("RETENTION", "1month"), ("FLUSH_INTERVAL", "50ms")];
    let hub = Program::start(old.path(), &settings).await;
    let request = hub.post("/maintain").header("authorization", &format!("Bearer {ADMIN_TOKEN}"));
    assert_eq!(request.send().await.expect(200)["archived"].as_array().unwrap().len(), 2);
    post(&hub, "cat").await;

    let from = format!("http://{}", hub.address);
    let joined = run(new.path(), &["join", &from]).await;
    assert_eq!(joined.code, Some(0), "{joined:?}");
    assert!(joined.stdout.contains("start the hub now"), "{joined:?}");
    assert_eq!(names(new.path()), ["archive", "hub.db"]);
    assert_eq!(names(&new.path().join("archive")), names(&old.path().join("archive")));
    let agrees = run(new.path(), &["check", "--with", &from]).await;
    assert_eq!(agrees.code, Some(0), "{agrees:?}");
    assert!(agrees.stdout.contains("3 months are equal"), "{agrees:?}");

    let other = Program::start(new.path(), &settings).await;
    assert_eq!(sums(&other).await, sums(&hub).await);
    let admin = |request: Request| request.header("authorization", &format!("Bearer {ADMIN_TOKEN}"));
    let data = admin(other.get("/visitors/ann/data")).send().await.expect(200);
    assert_eq!(data["archives"], json!(months), "{data}");

    let running = run(new.path(), &["join", &from, "--replace"]).await;
    assert_eq!(running.code, Some(2), "{running:?}");
    assert!(running.stderr.contains("another hub is running"), "{running:?}");
    post(&other, "dan").await;
    let differs = run(new.path(), &["check", "--with", &from]).await;
    assert_eq!(differs.code, Some(1), "{differs:?}");
    let this_month = sums(&hub).await[2]["month"].as_str().unwrap().to_owned();
    assert!(differs.stdout.contains(&format!("{this_month} differs: ")), "{differs:?}");
    assert!(!differs.stdout.contains("2024-01 differs"), "{differs:?}");
    other.signal("TERM").await;
    other.wait().await;

    let refused = run(new.path(), &["join", &from]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("has events") && refused.stderr.contains("--replace"), "{refused:?}");
    let replaced = run(new.path(), &["join", &from, "--replace"]).await;
    assert_eq!(replaced.code, Some(0), "{replaced:?}");
    assert!(
        names(new.path()).iter().any(|name| name.starts_with("hub.db.replaced-")),
        "{:?}",
        names(new.path())
    );
    assert_eq!(run(new.path(), &["check", "--with", &from]).await.code, Some(0));
}

#[tokio::test]
async fn root_joins_with_files_that_belong_to_the_owner_of_the_folder() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    if !give_away(new.path(), 10_001) {
        return;
    }
    import(old.path(), &[line("2024-01", "ann", "A title")]).await;
    let hub = Program::start(old.path(), &[("RETENTION", "1month")]).await;
    let request = hub.post("/maintain").header("authorization", &format!("Bearer {ADMIN_TOKEN}"));
    request.send().await.expect(200);
    let joined = run(new.path(), &["join", &format!("http://{}", hub.address)]).await;
    assert_eq!(joined.code, Some(0), "{joined:?}");
    let owners = owners(new.path());
    // The database, its lock, the folder of archives, an archive and its checksum.
    assert!(owners.len() == 5 && owners.iter().all(|(user, _)| *user == 10_001), "{owners:?}");
}

#[tokio::test]
async fn join_that_fails_changes_nothing() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    import(old.path(), &[line("2024-01", "ann", "A title")]).await;
    let hub = Program::start(old.path(), &[("RETENTION", "1month")]).await;
    let request = hub.post("/maintain").header("authorization", &format!("Bearer {ADMIN_TOKEN}"));
    request.send().await.expect(200);
    let from = format!("http://{}", hub.address);
    let fails = async |arguments: &[&str], settings: &[(&str, &str)], words: &str| {
        let database = url(new.path());
        let settings = [&[("DATABASE_URL", database.as_str())], settings].concat();
        let output = Program::run(arguments, &settings).await;
        assert_eq!(output.code, Some(2), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(words), "{arguments:?}: {output:?}");
        assert_eq!(names(new.path()), [""; 0], "{arguments:?}");
    };
    fails(&["join", &from], &[("ADMIN_TOKEN", "another-admin-token")], "/snapshot answers 401: this needs")
        .await;
    fails(&["join", "node-a:8080"], &[], "must be the URL of a hub").await;
    fails(&["join", "http://127.0.0.1:1"], &[], "http://127.0.0.1:1/snapshot: ").await;
    // A part of the hub's archive is missing.
    let archive = old.path().join("archive/breathing-room-2024-01.jsonl.gz");
    fs::write(&archive, "another file").unwrap();
    fails(&["join", &from], &[], "/archives/2024-01 answers 503: the archive").await;
}

#[tokio::test]
async fn replica_answers_about_the_history_and_opens_no_rooms() {
    let folder = tempfile::tempdir().unwrap();
    import(folder.path(), &[line("2024-02", "ann", "A title")]).await;
    let hub = Hub::in_folder(folder, |config| config.http.mode = Mode::Replica).await;
    let view = json!({ "id": Uuid::now_v7(), "visitor": "ann", "room": "lobby", "path": "/" });
    let rejected = [
        hub.get("/rooms/lobby/socket?visitor=ann").upgrade(),
        hub.get("/room/lobby"),
        hub.post("/page-view").json(&view),
        hub.post("/watch-session").json(&view),
    ];
    for request in rejected {
        let message = request.send().await.expect_error(404, "replica");
        assert!(message.contains("this hub is a replica"), "{message}");
    }
    let february = "/unified-stats?from=1706745600000&to=1709251200000";
    assert_eq!(hub.get(february).send().await.expect(200)["totals"]["pageViews"], 1);
    assert_ne!(hub.get("/").send().await.status, 404);
    hub.get("/live-activity").send().await.expect(200);
    hub.get("/replica").admin().send().await.expect(200);
}

#[tokio::test]
async fn mode_is_a_setting_of_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Program::start(folder.path(), &[("MODE", "replica")]).await;
    hub.get("/rooms/lobby/socket").send().await.expect_error(404, "replica");
    let output = run(folder.path(), &["serve", "--mode", "both"]).await;
    assert_eq!(output.code, Some(2), "{output:?}");
    assert!(output.stderr.contains("--mode") && output.stderr.contains("hub, replica"), "{output:?}");
}
