//! What the operator's machines ask for: the private address for metrics, and the command `health`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use crate::support::{Program, Request, eventually, open_database};

const AT: &str = "address=127.0.0.1:";

/// The private address, from the log line that names the setting.
async fn private_address(folder: &Path) -> String {
    let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
    let find = |log: &str| {
        let line = log.lines().find(|line| line.contains("METRICS_LISTEN")).map(str::to_owned)?;
        let port: String = line.split_once(AT)?.1.chars().take_while(char::is_ascii_digit).collect();
        Some(format!("127.0.0.1:{port}"))
    };
    eventually(async || find(&log()).is_some(), "the private address is logged").await;
    find(&log()).unwrap()
}

/// The whole answer of the private address, which the hub's contract does not describe.
fn answer(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn private_address_has_metrics_and_health_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("METRICS_LISTEN", "127.0.0.1:0"), ("METRICS", "admin"), ("ADDRESS_READ_RATE", "1")];
    let hub = Program::start_with_log(folder.path(), &settings).await;
    let private = private_address(folder.path()).await;
    let at_private = async |path: &str| Request::new(&private, "GET", path).send().await;
    for _ in 0..30 {
        let metrics = at_private("/metrics").await;
        assert_eq!(metrics.status, 200, "no token and no rate: {}", metrics.text);
        assert!(metrics.text.contains("breathing_room_visitors 0"), "{}", metrics.text);
    }
    assert_eq!(at_private("/health").await.status, 200);
    for path in ["/", "/live-activity", "/unified-stats", "/debug"] {
        assert!(answer(&private, path).starts_with("HTTP/1.0 404"), "{path}");
    }
    hub.get("/metrics").send().await.expect(404);
    hub.get("/metrics").admin().send().await.expect(404);
    hub.get("/health").send().await.expect(200);
    hub.signal("TERM").await;
    assert!(hub.wait().await.success());
}

#[tokio::test]
async fn private_address_that_is_in_use_stops_the_start_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let url = format!("sqlite://{}/hub.db", folder.path().display());
    let failed = Program::run(&[], &[("DATABASE_URL", &url), ("METRICS_LISTEN", &address)]).await;
    assert_eq!(failed.code, Some(1));
    let last = failed.stderr.lines().last().unwrap();
    assert!(last.starts_with(&format!("error: cannot listen on METRICS_LISTEN {address}: ")), "{last}");
}

#[tokio::test]
async fn health_command_says_ok_degraded_or_that_no_hub_answers() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Program::start(folder.path(), &[("FLUSH_INTERVAL", "100ms")]).await;
    let listen = hub.address.clone();
    let health = async || Program::run(&["health"], &[("LISTEN", &listen)]).await;
    let ok = health().await;
    assert_eq!((ok.code, ok.stdout.as_str()), (Some(0), "ok\n"), "{ok:?}");
    let mut other = open_database(&folder.path().join("hub.db")).await;
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
    let view =
        serde_json::json!({ "id": uuid::Uuid::now_v7(), "visitor": "ann", "room": "lobby", "path": "/" });
    hub.post("/page-view").json(&view).send().await.expect(202);
    eventually(async || health().await.code == Some(1), "the hub is degraded").await;
    assert_eq!(health().await.stdout, "degraded: locked\n");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    hub.signal("TERM").await;
    assert!(hub.wait().await.success());
    let gone = health().await;
    assert_eq!(gone.code, Some(2));
    assert!(gone.stderr.starts_with(&format!("error: no hub answers at {listen}: ")), "{gone:?}");
}
