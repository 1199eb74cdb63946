//! The opening handshake over raw TCP: invalid requests that clients do not send, and slow readers of responses.

use std::fs;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::yield_now;
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::{Hub, Program, TIMEOUT, eventually};

const KEY: &str = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n";

/// Bytes per read.
const PIECE: usize = 1_000;

/// Reads one response. Returns its status, its head in lower case, and its body.
async fn read_answer(reading: &mut (impl AsyncReadExt + Unpin)) -> (u16, String, String) {
    let read = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(reading.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        // Small reads keep the window small, so that the hub writes in small pieces too.
        for piece in body.chunks_mut(PIECE) {
            reading.read_exact(piece).await.unwrap();
            yield_now().await;
        }
        (head[9..12].parse().unwrap(), head, String::from_utf8(body).unwrap())
    };
    timeout(TIMEOUT, read).await.expect("a complete response in time")
}

/// Sends a request with exactly these headers. Returns the status and the body.
async fn ask(hub: &Hub, request: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(&hub.address).await.unwrap();
    stream.write_all(format!("{request}\r\n{headers}\r\n").as_bytes()).await.unwrap();
    let (status, _, body) = read_answer(&mut stream).await;
    (status, body)
}

fn code(body: &str) -> Value {
    serde_json::from_str::<Value>(body).unwrap()["error"]["code"].clone()
}

#[tokio::test]
async fn missing_or_duplicate_host_is_400_on_every_route() {
    let hub = Hub::start().await;
    let upgrade = format!("{UPGRADE}{KEY}");
    for request in
        ["GET /health HTTP/1.1", "GET / HTTP/1.1", "POST /page-view HTTP/1.1", "GET /nowhere HTTP/1.1"]
    {
        for hosts in ["", "host: a\r\nhost: b\r\n", "host: a\r\nhost: a\r\n"] {
            let (status, body) = ask(&hub, request, hosts).await;
            assert_eq!((status, code(&body)), (400, json!("bad-host")), "{request} {hosts:?}");
        }
    }
    for hosts in ["", "host: a\r\nhost: b\r\n"] {
        let (status, body) = ask(&hub, "GET /live HTTP/1.1", &format!("{hosts}{upgrade}")).await;
        assert_eq!((status, code(&body)), (400, json!("bad-host")), "{hosts:?}");
    }
    assert_eq!(ask(&hub, "GET /live HTTP/1.1", &format!("host: a\r\n{upgrade}")).await.0, 101);
    assert_eq!(ask(&hub, "GET /health HTTP/1.0", "").await.0, 200, "HTTP/1.0 needs no Host");
    assert_eq!(ask(&hub, "GET /health HTTP/1.0", "host: a\r\nhost: b\r\n").await.0, 400);
}

#[tokio::test]
async fn upgrade_with_two_keys_is_400() {
    let hub = Hub::start().await;
    let (status, body) = ask(&hub, "GET /live HTTP/1.1", &format!("host: a\r\n{UPGRADE}{KEY}{KEY}")).await;
    assert_eq!((status, code(&body)), (400, json!("bad-upgrade")));
}

#[tokio::test]
async fn upgrade_with_a_body_is_400_and_its_body_is_not_parsed_as_frames() {
    let hub = Hub::start().await;
    let mood = r#"{"type":"mood","mood":"love"}"#;
    let frame = [&[0x81, 0x80 | u8::try_from(mood.len()).unwrap(), 0, 0, 0, 0], mood.as_bytes()].concat();
    for announced in ["content-length: 35\r\n", "transfer-encoding: chunked\r\n", "expect: 100-continue\r\n"]
    {
        let mut stream = TcpStream::connect(&hub.address).await.unwrap();
        let head = format!("GET /rooms/lobby/socket HTTP/1.1\r\nhost: a\r\n{UPGRADE}{KEY}{announced}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (status, _, body) = read_answer(&mut stream).await;
        assert_eq!((status, code(&body)), (400, json!("bad-upgrade")), "{announced}");
        let _ = stream.write_all(&frame).await; // the hub may have closed the connection
        assert_eq!(hub.get("/rooms/lobby").send().await.expect(200)["moods"], json!({}));
    }
    let nothing = format!("host: a\r\n{UPGRADE}{KEY}content-length: 0\r\n");
    assert_eq!(ask(&hub, "GET /live HTTP/1.1", &nothing).await.0, 101, "a length of 0 is no body");
}

#[tokio::test]
async fn plain_get_of_a_socket_is_426_without_upgrade() {
    let hub = Hub::start().await;
    let response = hub.get("/live").send().await;
    response.expect_error(426, "upgrade-required");
    assert_eq!(
        (response.header("upgrade"), response.header("connection")),
        ("", ""),
        "hop-by-hop headers are not sent"
    );
    assert_eq!(response.header("sec-websocket-version"), "13");
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_that_contain_a_handshake_reach_a_slow_reader_unbuffered() {
    const ANSWERS: usize = 2_000;
    let folder = tempfile::tempdir().unwrap();
    let hub = Program::start(folder.path(), &[("RATE_LIMITS", "off")]).await;
    let mut clients = Vec::new();
    for n in 0..20 {
        let mut client = hub.join("lobby", &format!("v{n}")).await;
        client.view_page(Uuid::new_v4(), &format!("/{n}{}", "HTTP/1.1 101 ".repeat(38))).await;
        client.round_trip().await;
        clients.push(client);
    }
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{}/status", hub.id().as_raw_nonzero())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:").map(str::to_owned)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
    };
    // The hub writes in many pieces, which start at any position of those texts.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let (reading, mut writing) = socket.connect(hub.address.parse().unwrap()).await.unwrap().into_split();
    let before = resident();
    let requests = tokio::spawn(async move {
        let request = "GET /live-activity HTTP/1.1\r\nhost: hub\r\n\r\n";
        for _ in 0..ANSWERS {
            writing.write_all(request.as_bytes()).await.unwrap();
        }
        writing
    });
    let (mut reading, mut bytes) = (BufReader::with_capacity(PIECE, reading), 0);
    for response in 0..ANSWERS {
        let (status, _, body) = read_answer(&mut reading).await;
        assert_eq!(status, 200);
        let activity: Value =
            serde_json::from_str(&body).unwrap_or_else(|_| panic!("response {response}: {body}"));
        assert_eq!(activity["sessions"], 20);
        bytes += body.len();
    }
    drop(requests.await.unwrap());
    let grown = resident().saturating_sub(before);
    assert!(bytes > 16 * 1024 * 1024 && grown < bytes / 2 / 1024, "{grown} kB more after {bytes} bytes");
    eventually(async || hub.get("/health").send().await.status == 200, "others are served").await;
}
