//! Request bodies: too long, in too many chunks, or unread; and connections with many rejected requests.

use std::num::NonZeroU32;

use breathing_room::config::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Hub, TIMEOUT, manual_clock};

/// Sends bytes and then `GET /health` with `connection: close`. Returns everything that the hub sends until it closes.
async fn responses(hub: &Hub, bytes: &[u8]) -> String {
    let mut peer = TcpStream::connect(&hub.address).await.unwrap();
    peer.write_all(bytes).await.unwrap();
    peer.write_all(b"GET /health HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    timeout(TIMEOUT, peer.read_to_string(&mut text)).await.expect("the end in time").unwrap();
    text
}

fn post(framing: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST /page-view HTTP/1.1\r\nhost: hub\r\n{framing}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn too_large_body_gets_413_and_the_connection_stays_open() {
    let hub = Hub::start().await;
    let body = vec![b' '; 200 * 1024];
    let text = responses(&hub, &post("content-length: 204800", &body)).await;
    assert!(text.starts_with("HTTP/1.1 413 ") && text.contains("HTTP/1.1 200 "), "{text}");
    let chunked = [b"32000\r\n", &body[..], b"\r\n0\r\n\r\n"].concat();
    let text = responses(&hub, &post("transfer-encoding: chunked", &chunked)).await;
    assert!(text.starts_with("HTTP/1.1 413 ") && text.contains("HTTP/1.1 200 "), "{text}");
}

#[tokio::test]
async fn unread_body_is_drained_for_every_status() {
    let hub = Hub::start().await;
    let body = vec![b' '; 100 * 1024];
    for (request, status) in [
        ("POST /nowhere", "404"),
        ("POST /presence", "410"),
        ("POST /flush", "401"),
        ("PUT /page-view", "405"),
        ("GET /live-activity", "200"),
        ("GET /", "200"),
    ] {
        let head = format!("{request} HTTP/1.1\r\nhost: hub\r\ncontent-length: 102400\r\n\r\n");
        let text = responses(&hub, &[head.as_bytes(), &body].concat()).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {text}");
        assert!(text.contains("memory-first"), "{request}: {text}");
    }
}

#[tokio::test]
async fn body_over_the_drain_limit_closes_the_connection() {
    let hub = Hub::start().await;
    let mut peer = TcpStream::connect(&hub.address).await.unwrap();
    peer.write_all(&post("content-length: 1000000000", b"[")).await.unwrap();
    let mut text = String::new();
    timeout(TIMEOUT, peer.read_to_string(&mut text)).await.expect("the end in time").unwrap();
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
}

#[tokio::test]
async fn expect_continue_with_too_large_body_gets_413_without_100() {
    let hub = Hub::start().await;
    let mut peer = TcpStream::connect(&hub.address).await.unwrap();
    peer.write_all(&post("expect: 100-continue\r\ncontent-length: 204800", b"")).await.unwrap();
    let mut text = String::new();
    timeout(TIMEOUT, peer.read_to_string(&mut text)).await.expect("the end in time").unwrap();
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
}

#[tokio::test]
async fn body_in_one_byte_chunks_is_rejected_early() {
    let hub = Hub::start().await;
    let body = b"1\r\n \r\n".repeat(60_000);
    let mut peer = TcpStream::connect(&hub.address).await.unwrap();
    let (mut reader, mut writer) = peer.split();
    let mut response = [0; 12];
    let request = post("transfer-encoding: chunked", &body);
    let (_, read) = tokio::join!(writer.write_all(&request), reader.read_exact(&mut response));
    read.unwrap();
    assert_eq!(&response, b"HTTP/1.1 400");
    let page = hub.get("/metrics").send().await.text;
    assert!(page.contains("breathing_room_limited_total{reason=\"body-pieces\"} 1\n"), "{page}");
}

#[tokio::test]
async fn connection_is_closed_after_ten_rejections_in_a_row() {
    let hub = Hub::with(|config| {
        config.clock = manual_clock();
        config.transport.limits = Some(Limits { posts: NonZeroU32::MIN, ..Limits::DEFAULT });
    })
    .await;
    let posts = post("content-length: 2", b"[]").repeat(100);
    let text = responses(&hub, &posts).await;
    assert_eq!(text.matches("HTTP/1.1 202 ").count(), 10, "{text}");
    assert_eq!(text.matches("HTTP/1.1 429 ").count(), 10, "{text}");
    assert_eq!(text.matches("connection: close").count(), 1);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut gzip, bytes).unwrap();
    gzip.finish().unwrap()
}

#[tokio::test]
async fn gzip_body_is_accepted_and_bounded_after_inflation() {
    let hub = Hub::start().await;
    let send = async |encoding: &str, body: Vec<u8>| {
        let post = hub.post("/page-view?durable=true").header("content-type", "application/json");
        post.header("content-encoding", encoding).body(body).send().await
    };
    let view = |n: u64| {
        let id = uuid::Uuid::from_u128(n.into());
        serde_json::json!({ "id": id, "path": "/", "visitor": "ann", "room": "lobby", "title": "x".repeat(400) })
    };
    let views: Vec<_> = (0..100).map(view).collect();
    let body = serde_json::to_vec(&views).unwrap();
    assert_eq!(send("gzip", gzip(&body)).await.expect(200)["committed"], 100);
    assert_eq!(send("X-GZIP", gzip(&body)).await.expect(200)["committed"], 100);
    for plain in ["identity", "", ", "] {
        assert_eq!(send(plain, body.clone()).await.expect(200)["committed"], 100, "{plain}");
    }
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [100]);

    send("gzip", gzip(&vec![b' '; 64 * 1024 + 1])).await.expect_error(413, "too-large");
    send("gzip", gzip(&vec![b' '; 40_000_000])).await.expect_error(413, "too-large");
    for bad in [b"[]".to_vec(), gzip(b"[]")[..15].to_vec(), [gzip(b"[]"), vec![0; 3]].concat(), Vec::new()] {
        send("gzip", bad).await.expect_error(400, "broken-body");
    }
    send("gzip", gzip(b"{")).await.expect_error(400, "bad-json");
}

#[tokio::test]
async fn other_encoding_gets_415_that_names_gzip() {
    let hub = Hub::start().await;
    let post = |name, value| hub.post("/page-view").header(name, value).body("[]").send();
    for encoding in ["br", "deflate", "zstd", "gzip, gzip", "gzip, br", "*"] {
        let response = post("content-encoding", encoding).await;
        response.expect_error(415, "unsupported-encoding");
        assert_eq!(response.header("accept-encoding"), "gzip", "{encoding}");
    }
    let media_type = post("content-type", "image/png").await;
    media_type.expect_error(415, "unsupported-media-type");
    assert_eq!(media_type.header("accept-encoding"), "");
}

#[tokio::test]
async fn preflight_allows_a_compressed_post() {
    let hub = Hub::start().await;
    let preflight = crate::support::Request::new(&hub.address, "OPTIONS", "/page-view")
        .header("origin", "http://localhost:3000")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-encoding, content-type");
    let response = preflight.send().await;
    assert_eq!(response.status, 204);
    let allowed: Vec<&str> = response.header("access-control-allow-headers").split(", ").collect();
    assert_eq!(allowed, ["authorization", "content-type", "content-encoding", "visitor"]);
}
