//! Personal data of one visitor: complete export, and erasure from the database, its files and the archives.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use breathing_room::config::{Clock, Time};
use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Hub, Program, Request, eventually};

/// An id that does not occur by chance.
const ZOE: &str = "Zoe-5d1f0c7e";

const DATA: &str = "/visitors/Zoe-5d1f0c7e/data";

fn nothing() -> Value {
    json!({ "erased": { "pageViews": 0, "watchSessions": 0, "rollups": 0, "queued": 0, "archives": [] } })
}

/// The files below `folder` that contain `text`, compressed or not.
fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
            continue;
        }
        let mut bytes = fs::read(&path).unwrap();
        if path.extension().is_some_and(|end| end == "gz") {
            MultiGzDecoder::new(bytes.clone().as_slice()).read_to_end(&mut bytes).unwrap();
        }
        if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn visitor_data_is_exported_and_erased_completely() {
    let clock = Clock::manual(Time::from_millis(1_706_600_000_000));
    let hub = Hub::with(|config| config.clock = clock.clone()).await;
    let view = json!({
        "id": Uuid::new_v4(), "path": format!("/people/{ZOE}"), "title": "Me", "visitor": ZOE, "room": "lobby",
        "referrer": format!("https://example.org/?from={ZOE}"), "props": { "me": ZOE, "score": 0.1 },
    });
    hub.post("/page-view?durable=true").json(&view).send().await.expect(200);
    for path in ["/", "/garden"] {
        hub.post_page_view("ann", path).await;
    }
    clock.advance(Duration::from_hours(500 * 24));
    let report = hub.run_maintenance().await;
    assert_eq!(report["archived"], json!([{ "month": "2024-01", "rows": 3 }]));
    let mut zoe = hub.join("lobby", ZOE).await;
    zoe.view_page(Uuid::new_v4(), "/new").await;
    let watch =
        json!({ "type": "watch", "id": Uuid::new_v4(), "content": "film", "state": "ended", "watchedMs": 0 });
    let last = zoe.send_event(watch).await;
    zoe.expect_ack(last).await;
    zoe.leave().await;
    hub.post_page_view("ann", "/new").await;

    let data = hub.get(DATA).admin().send().await;
    assert_eq!(data.header("cache-control"), "private, no-store");
    let data = data.expect(200);
    assert_eq!(
        (&data["visitor"], &data["pending"], &data["archives"]),
        (&json!(ZOE), &json!(0), &json!(["2024-01"]))
    );
    let views = data["pageViews"].as_array().unwrap();
    assert_eq!((views.len(), &views[0]["path"], &views[1]["path"]), (2, &view["path"], &json!("/new")));
    assert_eq!((&views[0]["props"], &views[0]["at"]), (&view["props"], &json!(1_706_600_000_000_u64)));
    assert_eq!(data["watchSessions"].as_array().unwrap().len(), 1);
    assert_eq!(data["watchSessions"][0]["content"], "film");

    let erased = hub.delete(DATA).admin().send().await.expect(200);
    let rollups = &erased["erased"]["rollups"];
    assert!(rollups.as_u64().unwrap() >= 6, "{erased}"); // the day and month of January, the quarter hour and day of today, for the room and for the hub
    let expected = json!({
        "pageViews": 1, "watchSessions": 1, "rollups": rollups, "queued": 0,
        "archives": [{ "month": "2024-01", "rows": 1 }],
    });
    assert_eq!(erased, json!({ "erased": expected }));
    assert_eq!(files_with(hub.file().parent().unwrap(), ZOE), Vec::<PathBuf>::new());
    let again = async || hub.delete(DATA).admin().send().await.expect(200) == nothing();
    eventually(again, "the second erasure has nothing to do, and says that nothing is left").await;
    let empty = json!({ "visitor": ZOE, "pageViews": [], "watchSessions": [], "archives": [], "pending": 0 });
    assert_eq!(hub.get(DATA).admin().send().await.expect(200), empty);

    // Ann's data is unchanged.
    let ann = hub.get("/visitors/ann/data").admin().send().await.expect(200);
    assert_eq!((ann["pageViews"].as_array().unwrap().len(), &ann["archives"]), (3, &json!(["2024-01"])));
    let days = "SELECT json_array(page_views, watch_sessions, visitors) FROM activity_rollups
                WHERE level = 'day' AND room = 0 ORDER BY at";
    assert_eq!(hub.rows(days).await, [json!([2, 0, 1]), json!([1, 0, 1])]);
}

#[tokio::test]
async fn erased_queued_events_are_dropped_and_acked() {
    let hub = Hub::with(|config| config.history.flush_interval = Duration::from_hours(1)).await;
    let mut zoe = hub.join("lobby", ZOE).await;
    zoe.view_page(Uuid::new_v4(), "/").await;
    zoe.round_trip().await;
    let mut expected = nothing();
    expected["erased"]["queued"] = json!(1);
    assert_eq!(hub.delete(DATA).admin().send().await.expect(200), expected);
    zoe.expect_ack(1).await; // otherwise the client would send it again
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [0]);
    assert_eq!(files_with(hub.file().parent().unwrap(), ZOE), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn erasure_with_a_missing_archive_erases_nothing() {
    let clock = Clock::manual(Time::from_millis(1_706_600_000_000));
    let hub = Hub::with(|config| config.clock = clock.clone()).await;
    hub.post_page_view(ZOE, "/").await;
    clock.advance(Duration::from_hours(500 * 24));
    hub.run_maintenance().await;
    hub.post_page_view(ZOE, "/").await;
    let (archive, elsewhere) =
        (hub.archives().join("breathing-room-2024-01.jsonl.gz"), hub.archives().join("x"));
    fs::rename(&archive, &elsewhere).unwrap();
    for request in [hub.get(DATA), hub.delete(DATA)] {
        let message = request.admin().send().await.expect_error(503, "archive-unavailable");
        assert!(message.contains("breathing-room-2024-01.jsonl.gz is missing in"), "{message}");
    }
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [1]);
    fs::rename(&elsewhere, &archive).unwrap();
    let erased = hub.delete(DATA).admin().send().await.expect(200);
    assert_eq!(
        (&erased["erased"]["pageViews"], &erased["erased"]["archives"][0]["rows"]),
        (&json!(1), &json!(1))
    );
}

#[tokio::test]
async fn visitor_data_needs_the_admin_token() {
    let hub = Hub::start().await;
    for request in [hub.get(DATA), hub.delete(DATA)] {
        request.send().await.expect_error(401, "unauthorized");
    }
    hub.get("/visitors/a%20b/data").admin().send().await.expect_error(400, "bad-visitor");
    hub.post(DATA).admin().send().await.expect_error(405, "method-not-allowed");
    assert_eq!(hub.delete("/visitors/unknown/data").admin().send().await.expect(200), nothing());
}

#[tokio::test]
async fn erasure_is_logged_only_when_it_erased_something() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Program::start_with_log(folder.path(), &[]).await;
    let view = json!({ "id": Uuid::new_v4(), "path": "/", "visitor": ZOE, "room": "lobby" });
    hub.post("/page-view?durable=true").json(&view).send().await.expect(200);
    for _ in 0..5 {
        Request::new(&hub.address, "DELETE", DATA).admin().send().await.expect(200);
    }
    hub.signal("TERM").await;
    let log = folder.path().join("log");
    assert!(hub.wait().await.success());
    let log = fs::read_to_string(log).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("erased")).count(), 1, "{log}");
}

#[tokio::test]
async fn texts_of_an_erased_visitor_are_gone_from_all_files() {
    let clock = Clock::manual(Time::from_millis(1_706_600_000_000));
    let hub = Hub::with(|config| config.clock = clock.clone()).await;
    let view = |visitor: &str, word: &str| {
        json!({
            "id": Uuid::new_v4(), "path": format!("/{word}-path"), "title": format!("Diary of {word}@title"),
            "visitor": visitor, "room": format!("{word}-room"), "props": { "mail": format!("{word}@prop") },
            "referrer": format!("https://{word}-host.example/{word}-referrer"),
        })
    };
    let post = async |visitor: &str, word: &str| {
        hub.post("/page-view?durable=true").json(&view(visitor, word)).send().await.expect(200);
    };
    let secrets = ["path", "host", "referrer", "room"].map(|kind| format!("jane-{kind}"));
    let secrets = || secrets.iter().cloned().chain(["jane@title".to_owned(), "jane@prop".to_owned()]);
    for _ in 0..2 {
        for (visitor, word) in [(ZOE, "jane"), (ZOE, "all"), ("ann", "all")] {
            post(visitor, word).await;
        }
        // January is archived.
        clock.advance(Duration::from_hours(500 * 24));
        hub.run_maintenance().await;
    }
    for secret in secrets() {
        assert!(!files_with(hub.file().parent().unwrap(), &secret).is_empty(), "{secret}");
    }
    hub.delete(DATA).admin().send().await.expect(200);
    for secret in secrets() {
        assert_eq!(files_with(hub.file().parent().unwrap(), &secret), Vec::<PathBuf>::new(), "{secret}");
    }
    let titles = "SELECT title FROM page_views";
    assert!(hub.rows(titles).await.iter().all(|title| title == "Diary of all@title"));
}

#[tokio::test]
async fn visitor_data_comes_in_pages_and_flushes_at_most_once_in_five_seconds() {
    let hub = Hub::with(|config| config.history.flush_interval = Duration::from_hours(1)).await;
    let view = |n: u64| {
        let props = json!({ "text": "x".repeat(900), "n": n });
        json!({ "id": Uuid::new_v4(), "path": "/", "visitor": ZOE, "room": "lobby", "props": props })
    };
    for slice in 0..60 {
        let views: Vec<Value> = (0..50).map(|n| view(slice * 50 + n)).collect();
        hub.post("/page-view?durable=true").json(&json!(views)).send().await.expect(200);
    }
    let (mut cursor, mut pages, mut found) = (String::new(), 0, Vec::new());
    loop {
        let response = hub.get(&format!("{DATA}{cursor}")).admin().send().await;
        let page = response.expect(200);
        assert!(page.to_string().len() < 1_100_000, "a page is bounded");
        found.extend(
            page["pageViews"].as_array().unwrap().iter().map(|view| view["props"]["n"].as_u64().unwrap()),
        );
        pages += 1;
        match page["next"].as_str() {
            Some(next) => cursor = format!("?cursor={next}"),
            None => break,
        }
    }
    found.sort_unstable();
    assert!(pages > 2 && found == (0..3_000).collect::<Vec<_>>(), "{pages} pages, {} views", found.len());
    let bad = hub.get(&format!("{DATA}?cursor=x")).admin().send().await.expect_error(400, "bad-parameter");
    assert!(bad.contains("cursor"), "{bad}");

    // Of two requests within five seconds at most one flushes, so that one of three has an event that is pending.
    loop {
        let began = Instant::now();
        let mut pending = Vec::new();
        for path in [DATA.to_owned(), format!("{DATA}{cursor}"), DATA.to_owned()] {
            hub.post("/page-view").json(&view(0)).send().await.expect(202);
            pending.push(hub.get(&path).admin().send().await.expect(200)["pending"].as_u64().unwrap());
        }
        if began.elapsed() < Duration::from_secs(5) {
            let flushes = pending.iter().filter(|pending| **pending == 0).count();
            break assert!(flushes <= 1, "{pending:?}");
        }
    }
}

/// A page view of January 2024, as `import` reads it.
fn old_view(visitor: &str, path: &str) -> String {
    let view = json!({
        "type": "page-view", "id": Uuid::new_v4(), "room": "lobby", "visitor": visitor, "path": path,
        "at": 1_706_600_000_000_u64,
    });
    format!("{view}\n")
}

#[tokio::test]
async fn hub_of_an_older_backup_erases_again_without_a_request() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let url = format!("sqlite://{}", at("hub.db"));
    let run = async |arguments: &[&str]| {
        let output = Program::run(arguments, &[("DATABASE_URL", &url)]).await;
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
        output
    };
    fs::write(
        at("old.jsonl"),
        [old_view(ZOE, "/secret"), old_view("ann", "/"), old_view("ben", "/")].concat(),
    )
    .unwrap();
    run(&["import", &at("old.jsonl")]).await;
    fs::remove_file(at("old.jsonl")).unwrap();
    let hub = Program::start(folder.path(), &[]).await;
    let view = json!({ "id": Uuid::new_v4(), "path": "/secret", "visitor": ZOE, "room": "lobby" });
    hub.post("/page-view?durable=true").json(&view).send().await.expect(200);
    let report = hub.post("/maintain").admin().send().await.expect(200);
    assert_eq!(report["archived"], json!([{ "month": "2024-01", "rows": 3 }]));
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = elsewhere.path().join("backup.db").display().to_string();
    run(&["backup", &backup]).await;
    Request::new(&hub.address, "DELETE", DATA).admin().send().await.expect(200);
    hub.signal("TERM").await;
    assert!(hub.wait().await.success());
    run(&["restore", &backup]).await;
    for name in fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()) {
        if name.display().to_string().contains(".replaced-") {
            fs::remove_file(name).unwrap();
        }
    }
    assert!(!files_with(folder.path(), ZOE).is_empty());

    let hub = Program::start(folder.path(), &[]).await;
    let report = hub.post("/maintain").admin().send().await.expect(200);
    let steps = report["steps"].as_object().unwrap();
    assert!(steps.values().all(|step| step["failures"] == json!([])), "{report}");
    let data = hub.get(DATA).admin().send().await.expect(200);
    assert_eq!((&data["pageViews"], &data["archives"]), (&json!([]), &json!([])));
    for text in [ZOE, "/secret"] {
        assert_eq!(files_with(folder.path(), text), Vec::<PathBuf>::new(), "{text}");
    }
    // Erasing others and importing into that month work.
    let path = "/visitors/ann/data";
    let erased = Request::new(&hub.address, "DELETE", path).admin().send().await.expect(200);
    assert_eq!(erased["erased"]["archives"], json!([{ "month": "2024-01", "rows": 1 }]));
    let file = elsewhere.path().join("late.jsonl").display().to_string();
    fs::write(&file, old_view("cleo", "/")).unwrap();
    run(&["import", &file]).await;
    run(&["check"]).await;
}
