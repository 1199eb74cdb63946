//! The program: startup errors, shutdown signals, the database lock, and file descriptors.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use crate::support::client::Disconnect;
use crate::support::program::ProgramOutput;
use crate::support::request::Connection;
use crate::support::{Client, Hub, Program, TIMEOUT, rows};

#[tokio::test]
async fn help_lists_settings_and_defaults() {
    let help = Program::run(&["--help"], &[]).await;
    assert_eq!(help.code, Some(0));
    for name in [
        "--listen",
        "LISTEN",
        "FLUSH_INTERVAL",
        "LEAVE_GRACE",
        "RATE_LIMITS",
        "CLIENT_IP_HEADER",
        "ADDRESS_SOCKETS",
        "[default: 1000]",
        "MESSAGE_RATE",
        "SEAT_HOLD",
        "SIT_LIMIT",
        "RUST_LOG",
        "[default: 30s]",
    ] {
        assert!(help.stdout.contains(name), "{name}\n{}", help.stdout);
    }
    assert!(!help.stdout.contains("the-admins-token"), "secrets are not shown");
    let documented = include_str!("../../docs/operations.md");
    for setting in help.stdout.split("[env: ").skip(1) {
        let name = setting.split(['=', ']']).next().unwrap();
        assert!(documented.contains(&format!("`{name}`")), "{name} is not in docs/operations.md");
    }
}

#[tokio::test]
async fn startup_errors_are_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let used = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let used = used.local_addr().unwrap().to_string();
    let _holder = tokio::net::TcpListener::bind(&used).await;
    let file = folder.path().join("file");
    std::fs::write(&file, "no database, no folder, just words ".repeat(40)).unwrap();
    let below_a_file = format!("sqlite://{}/hub.db", file.display());
    let no_database = format!("sqlite://{}", file.display());
    let database = format!("sqlite://{}/hub.db", folder.path().display());
    let short = "a-secret-of-too-few-bytes";
    for (setting, code, words) in [
        (("LISTEN", used.as_str()), 1, "cannot listen on"),
        (("DATABASE_URL", below_a_file.as_str()), 1, "cannot make the folder"),
        (
            ("DATABASE_URL", no_database.as_str()),
            1,
            "is no database of a hub: it is not SQLite's. It was not changed",
        ),
        (("DATABASE_URL", "postgres://x"), 1, "DATABASE_URL"),
        (("FLUSH_INTERVAL", "soon"), 2, "--flush-interval"),
        (("RETENTION", "400d"), 2, "number of months"),
        (("ALLOWED_ORIGINS", "example.org"), 2, "--allowed-origins"),
        (("TOKEN_SECRET", short), 1, "TOKEN_SECRET: must have at least 32 bytes"),
        (("TOKEN_JWKS", "/nowhere/keys.json"), 1, "TOKEN_JWKS: cannot read /nowhere/keys.json"),
        (("TOKEN_AUDIENCE", "hub"), 1, "TOKEN_AUDIENCE"),
        (("RUST_LOG", "=="), 1, "RUST_LOG"),
    ] {
        let output = Program::run(&[], &[("DATABASE_URL", &database), ("RUST_LOG", "error"), setting]).await;
        assert_eq!(output.code, Some(code), "{setting:?}: {output:?}");
        assert_eq!(output.stderr.trim_end().lines().count(), 1, "{output:?}");
        assert!(output.stderr.contains(words), "{output:?}");
        assert!(!output.stderr.contains(short), "secrets are not shown");
    }
}

#[tokio::test]
async fn signal_closes_sockets_with_1012_flushes_and_exits_0() {
    for name in ["TERM", "INT"] {
        let folder = tempfile::tempdir().unwrap();
        let hub = Program::start(folder.path(), &[("FLUSH_INTERVAL", "1h")]).await;
        let mut clients = Vec::new();
        for n in 0..20 {
            let mut client = hub.join("lobby", &format!("v{n}")).await;
            client.view_page(Uuid::new_v4(), &format!("/{n}")).await;
            client.round_trip().await;
            clients.push(client);
        }
        let mut stubborn = hub.join("lobby", "stubborn").await; // reads only later, so that it does not answer the close
        let signalled = Instant::now();
        hub.signal(name).await;
        for mut client in clients {
            assert_eq!(client.expect_disconnect().await, Disconnect::Closed(1012));
        }
        let status = hub.wait().await;
        assert_eq!(status.code(), Some(0), "{name}");
        assert!(signalled.elapsed() < Duration::from_secs(10), "{:?}", signalled.elapsed());
        assert_eq!(stubborn.expect_disconnect().await, Disconnect::Closed(1012));
        let stored = rows(&folder.path().join("hub.db"), "SELECT count(*) FROM page_views").await;
        assert_eq!(stored, [20], "{name}: queued events are on disk");
    }
}

#[tokio::test]
async fn new_sockets_get_503_during_shutdown() {
    let mut hub = Hub::start().await;
    let _open = hub.join("lobby", "ann").await; // does not answer the close, which keeps the hub draining for a moment
    hub.signal();
    let asked = async {
        loop {
            let response = hub.get("/rooms/lobby/socket").upgrade().send().await;
            if response.status != 101 {
                return response;
            }
        }
    };
    let response = tokio::time::timeout(TIMEOUT, asked).await.unwrap();
    response.expect_error(503, "restarting");
    assert!(response.header("retry-after").parse::<u32>().is_ok());
}

#[tokio::test]
async fn listen_backlog_holds_1000_connections() {
    let listener = breathing_room::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    for n in 0..1_000 {
        // No connection is accepted: one that exceeds the backlog never connects.
        let connecting = tokio::net::TcpStream::connect(address);
        let connected = tokio::time::timeout(TIMEOUT, connecting).await;
        waiting.push(connected.unwrap_or_else(|_| panic!("connection {n} is not in the backlog")).unwrap());
    }
}

/// Starts a hub on this database, which must exit with one line of error.
async fn expect_startup_error(url: &str) -> ProgramOutput {
    let output = Program::run(&[], &[("DATABASE_URL", url), ("RUST_LOG", "error")]).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert_eq!(output.stderr.trim_end().lines().count(), 1, "{output:?}");
    output
}

#[tokio::test]
async fn second_hub_on_the_same_database_fails_startup() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| format!("sqlite://{}/{name}", folder.path().display());
    std::os::unix::fs::symlink("hub.db", folder.path().join("linked.db")).unwrap();
    let hub = Program::start(folder.path(), &[("FLUSH_INTERVAL", "20ms")]).await;
    let mut ann = hub.join("lobby", "ann").await;
    for url in [at("hub.db"), at("linked.db")] {
        let output = expect_startup_error(&url).await;
        assert!(output.stderr.starts_with("error: another hub is running on the database "), "{output:?}");
        assert!(output.stderr.contains("stop that one first"), "{output:?}");
    }
    let reference = ann.view_page(Uuid::new_v4(), "/").await;
    ann.expect_ack(reference).await; // the first hub works

    // Commands and backups do not take the lock.
    for command in ["check", "export"] {
        let output = Program::run(&[command], &[("DATABASE_URL", &at("hub.db"))]).await;
        assert_eq!(output.code, Some(0), "{command}: {output:?}");
    }
    let backup = folder.path().join("backup.db");
    let mut other = crate::support::open_database(&folder.path().join("hub.db")).await;
    sqlx::query("VACUUM INTO ?1").bind(backup.to_str()).execute(&mut other).await.unwrap();
    let beside = Program::run(&["check"], &[("DATABASE_URL", &at("backup.db"))]).await;
    assert_eq!(beside.code, Some(0), "{beside:?}");
}

#[tokio::test]
async fn database_lock_is_released_after_stop_and_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    for signal in ["TERM", "KILL"] {
        let hub = Program::start(folder.path(), &[]).await;
        expect_startup_error(&format!("sqlite://{}/hub.db", folder.path().display())).await;
        hub.signal(signal).await;
        hub.wait().await;
    }
    assert!(folder.path().join("hub.db.lock").exists(), "the lock file stays");
    Program::start(folder.path(), &[]).await;
}

#[tokio::test]
async fn second_signal_exits_130_immediately() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Program::start(folder.path(), &[]).await;
    let _open: Vec<Client> = vec![hub.join("lobby", "ann").await, hub.join("lobby", "bob").await];
    hub.signal("TERM").await;
    // The hub has handled the first signal when it rejects new sockets.
    let draining = async || hub.get("/rooms/lobby/socket").upgrade().send().await.status == 503;
    crate::support::eventually(draining, "the hub drains").await;
    hub.signal("INT").await;
    assert_eq!(hub.wait().await.code(), Some(130));
}

#[tokio::test]
async fn restarted_hub_serves_its_history() {
    let hub = Hub::start().await;
    let mut ann = hub.join("lobby", "ann").await;
    let reference = ann.view_page(Uuid::new_v4(), "/before").await;
    ann.expect_ack(reference).await;
    ann.leave().await;
    let folder = hub.stop().await;
    let hub = Program::start(folder.path(), &[]).await;
    let stats: Value = hub.get("/unified-stats?range=24h").send().await.expect(200);
    assert_eq!(stats["totals"]["pageViews"], json!(1));
}

/// Opens connections with an incomplete request head.
async fn open_incomplete(address: &str, count: usize) -> Vec<tokio::net::TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        // The hub may have closed this connection already.
        let _ = stream.write_all(b"G").await;
        streams.push(stream);
    }
    streams
}

#[tokio::test]
async fn descriptor_limit_is_raised_and_exhaustion_is_reported_as_full() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Program::start_with_file_limits((64, 200), folder.path(), &[("FLUSH_INTERVAL", "50ms")]).await;
    // Of the hard limit of 200, 48 are reserved for files and 50 for requests.
    assert_eq!(hub.metric("breathing_room_connections_limit").await, 102.0);
    let mut clients = Vec::new();
    for n in 0..102 {
        clients.push(hub.join("lobby", &format!("v{n}")).await);
    }
    let full = hub.get("/rooms/lobby/socket").upgrade().send().await;
    full.expect_error(503, "full");
    let incomplete = open_incomplete(&hub.address, 80).await;
    let is_full = async || match hub.get("/health").try_send().await {
        Ok(response) => response.status == 503 && response.expect_error(503, "full").contains("full"),
        Err(_) => false,
    };
    crate::support::eventually(is_full, "there is no descriptor left for a request").await;
    let reference = clients[0].view_page(Uuid::new_v4(), "/").await;
    clients[0].expect_ack(reference).await; // the database has reserved descriptors
    clients.pop().unwrap().leave().await;
    clients[0].expect_present(101).await;
    drop(incomplete);
    let responses = async || hub.get("/health").try_send().await.is_ok_and(|response| response.status == 200);
    crate::support::eventually(responses, "requests are answered again").await;
    hub.signal("TERM").await;
    assert_eq!(clients[0].expect_disconnect().await, Disconnect::Closed(1012));
    assert_eq!(hub.wait().await.code(), Some(0));
}

#[tokio::test]
async fn accept_errors_are_retried_with_pauses() {
    use rustix::process::{Resource, Rlimit, prlimit};

    let folder = tempfile::tempdir().unwrap();
    let hub = Program::start(folder.path(), &[]).await;
    let mut ann = hub.join("lobby", "ann").await;
    let mut open = Connection::open_database(&hub.address).await;
    open.metric("breathing_room_visitors").await; // the kernel reports the connection with its first bytes
    let allow = |files| {
        let limit = Rlimit { current: Some(files), maximum: Some(1_000) };
        prlimit(Some(hub.id()), Resource::Nofile, limit).unwrap();
    };
    allow(0);
    let waiting = open_incomplete(&hub.address, 20).await;
    let began = Instant::now();
    for _ in 0..20 {
        ann.round_trip().await; // open sockets work
    }
    // Accepting is retried, as the metrics on an open connection show.
    let tried = async || open.metric("breathing_room_accept_errors_total").await >= 5.0;
    crate::support::eventually(tried, "accepting is tried again").await;
    allow(1_000);
    let mut bob = hub.join("lobby", "bob").await;
    bob.expect_present(2).await;
    let errors = hub.metric("breathing_room_accept_errors_total").await;
    let pauses = began.elapsed().as_secs_f64() / 0.05;
    assert!((1.0..=pauses + 2.0).contains(&errors), "{errors} errors in {pauses} pauses");
    drop(waiting);
}
