//! Access: the order of checks, CORS headers of rejections, origins and addresses behind proxies, the admin token, file
//! modes, and secrets in logs.

use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use axum::http::HeaderName;
use breathing_room::config::{Access, AllowedOrigins, Clock, Limits, PropNames, PublicUrl, Secret, Time};
use breathing_room::internals::{Claims, VisitorId};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use uuid::Uuid;

use crate::support::request::Response;
use crate::support::{ADMIN_TOKEN, Client, Hub, Program, Request, START, manual_clock};

const SECRET: &str = "a secret of more than thirty-two bytes";
const APP: &str = "https://app.example.org";
const EVIL: &str = "https://evil.example.org";
const HEADER: &str = "fly-client-ip";

/// The `Authorization` header of a visitor's token, which is valid for a minute.
fn bearer(visitor: &str) -> String {
    let visitor = VisitorId::try_from(visitor).unwrap();
    let claims = Claims { visitor, room: None, expires: Time::from_millis(START + 60_000) };
    format!("Bearer {}", claims.sign(&Secret::from(SECRET.to_owned()), None).unwrap())
}

/// A hub that requires tokens and allows one open and one post per second and address, with a burst of ten.
async fn strict_hub() -> Hub {
    Hub::with(|config| {
        config.clock = manual_clock();
        config.auth.secret = Some(Secret::from(SECRET.to_owned()));
        config.http.allowed_origins = AllowedOrigins::parse(APP).unwrap();
        config.http.client_ip_header = Some(HeaderName::from_static(HEADER));
        let one = NonZeroU32::MIN;
        config.transport.limits = Some(Limits { opened: one, posts: one, ..Limits::DEFAULT });
    })
    .await
}

fn page_view(visitor: &str) -> Value {
    json!({ "id": Uuid::new_v4(), "path": "/", "visitor": visitor, "room": "lobby" })
}

#[tokio::test]
async fn socket_checks_run_in_order_origin_rate_token_parameters_upgrade() {
    let hub = strict_hub().await;
    let (exhausted, fresh) = ("192.0.2.1", "192.0.2.2");
    for _ in 0..10 {
        let rejected = hub.get("/rooms/lobby/socket").upgrade().header(HEADER, exhausted).send().await;
        rejected.expect_error(401, "unauthorized");
    }
    let too_fast = || hub.get("/rooms/lobby/socket").upgrade().header(HEADER, exhausted);
    let rejected = too_fast().header("authorization", &bearer("ann")).send().await;
    rejected.expect_error(429, "too-fast"); // ten invalid tokens have used the address's burst
    // The first failed check gives the error, with and without an upgrade.
    for upgrade in [false, true] {
        let ask = |path: &str, address: &str| {
            let request = hub.get(path).header(HEADER, address);
            if upgrade { request.upgrade().header("sec-websocket-version", "8") } else { request }
        };
        let (bad, good) = ("/rooms/lobby/socket?mood=furious", "/rooms/lobby/socket?mood=calm");
        let foreign = ask(bad, exhausted).header("origin", EVIL).send().await;
        foreign.expect_error(403, "forbidden-origin");
        ask(bad, exhausted).send().await.expect_error(429, "too-fast");
        ask(bad, fresh).send().await.expect_error(401, "unauthorized");
        let authorized = |path: &str| ask(path, fresh).header("authorization", &bearer("ann"));
        authorized(bad).send().await.expect_error(400, "unknown-mood");
        authorized("/rooms/Lobby/socket").send().await.expect_error(400, "bad-room");
        authorized(good).send().await.expect_error(426, "upgrade-required");
    }
    ask_live(&hub, exhausted, Some(EVIL)).await.expect_error(403, "forbidden-origin");
    ask_live(&hub, exhausted, None).await.expect_error(429, "too-fast");
    ask_live(&hub, fresh, None).await.expect_error(426, "upgrade-required");
    assert_eq!(hub.debug("connections").await, 0, "a rejected request releases its connection permit");
}

async fn ask_live(hub: &Hub, address: &str, origin: Option<&str>) -> Response {
    let request = hub.get("/live").header(HEADER, address);
    match origin {
        Some(origin) => request.header("origin", origin).send().await,
        None => request.send().await,
    }
}

#[tokio::test]
async fn requests_rejected_for_their_origin_use_no_rate_limit() {
    let hub = strict_hub().await;
    let address = "192.0.2.1";
    let post = || {
        let post = hub.post("/page-view").header(HEADER, address).json(&page_view("ann"));
        post.header("authorization", &bearer("ann"))
    };
    let join = || {
        let join = hub.get("/rooms/lobby/socket").upgrade().header(HEADER, address);
        join.header("authorization", &bearer("ann"))
    };
    for _ in 0..20 {
        post().header("origin", EVIL).send().await.expect_error(403, "forbidden-origin");
        join().header("origin", EVIL).send().await.expect_error(403, "forbidden-origin");
    }
    for _ in 0..10 {
        post().send().await.expect(202);
        assert_eq!(join().send().await.status, 101);
    }
    post().send().await.expect_error(429, "too-fast");
    join().send().await.expect_error(429, "too-fast");
}

#[tokio::test]
async fn post_token_is_checked_before_query_and_body() {
    let hub = strict_hub().await;
    let post = |address: &str| hub.post("/page-view?durable=perhaps").header(HEADER, address).body("{");
    let authorized = |address: &str| post(address).header("authorization", &bearer("ann"));
    post("192.0.2.1").send().await.expect_error(401, "unauthorized");
    authorized("192.0.2.1").send().await.expect_error(400, "bad-parameter");
    for _ in 0..8 {
        post("192.0.2.1").send().await.expect_error(401, "unauthorized");
    }
    authorized("192.0.2.1").send().await.expect_error(429, "too-fast");
    authorized("192.0.2.1").header("origin", EVIL).send().await.expect_error(403, "forbidden-origin");
}

#[tokio::test]
async fn connection_limit_is_checked_last() {
    let hub = Hub::with(|config| {
        config.clock = manual_clock();
        config.auth.secret = Some(Secret::from(SECRET.to_owned()));
        config.transport.max_connections = 1;
    })
    .await;
    let ask = || hub.get("/rooms/lobby/socket").header("authorization", &bearer("ann"));
    ask().send().await.expect_error(426, "upgrade-required");
    let token = bearer("ann");
    let _ann = Client::join_with_header(("authorization", &token), &hub.address, "lobby", "").await;
    hub.get("/rooms/lobby/socket").upgrade().send().await.expect_error(401, "unauthorized");
    ask().send().await.expect_error(503, "full");
    ask().upgrade().send().await.expect_error(503, "full");
}

/// The CORS headers with which any page can read the rejection, without credentials.
fn expect_readable_by_all(response: &Response, status: u16) {
    assert_eq!(response.status, status, "{}", response.text);
    assert!(response.expect(status)["error"]["code"].is_string());
    assert_eq!(response.header("access-control-allow-origin"), "*", "{response:?}");
    assert_eq!(response.header("access-control-allow-credentials"), "");
    assert_eq!(response.header("access-control-expose-headers"), "Retry-After");
    assert!(response.header("vary").contains("Origin"));
}

#[tokio::test]
async fn rejections_of_sockets_and_posts_are_readable_by_all_origins() {
    let hub = strict_hub().await;
    for path in ["/rooms/lobby/socket", "/live", "/rooms/Lobby/socket"] {
        for request in [hub.get(path), hub.get(path).upgrade()] {
            expect_readable_by_all(&request.header("origin", EVIL).send().await, 403);
        }
    }
    let post = || hub.post("/page-view").header("content-type", "text/plain").body("{");
    expect_readable_by_all(&post().header("origin", EVIL).send().await, 403);
    // Pages of allowed origins can read all responses, with credentials.
    for (status, request) in [
        (401, hub.get("/rooms/lobby/socket").upgrade()),
        (401, hub.get("/rooms/lobby/socket")),
        (401, post()),
    ] {
        let response = request.header("origin", APP).send().await;
        assert_eq!((response.status, response.header("access-control-allow-origin")), (status, APP));
        assert_eq!(response.header("access-control-allow-credentials"), "true");
    }
    // Successful responses are readable by allowed origins only.
    let room = hub.get("/rooms/lobby").header("origin", EVIL).send().await;
    assert_eq!((room.status, room.header("access-control-allow-origin")), (200, ""));
}

#[tokio::test]
async fn request_with_two_origin_headers_is_rejected_in_either_order() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let hub = Hub::with(|config| config.http.allowed_origins = AllowedOrigins::parse("*").unwrap()).await;
    for (first, second) in [(APP, EVIL), (EVIL, APP)] {
        let mut peer = tokio::net::TcpStream::connect(&hub.address).await.unwrap();
        let head = format!(
            "GET /rooms/lobby/socket HTTP/1.1\r\nhost: hub\r\norigin: {first}\r\norigin: {second}\r\n\
             connection: close\r\n\r\n"
        );
        peer.write_all(head.as_bytes()).await.unwrap();
        let mut response = String::new();
        peer.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 403 ") && response.contains("forbidden-origin"), "{response}");
    }
}

#[tokio::test]
async fn own_origin_must_match_the_scheme_when_it_is_known() {
    let open = async |hub: &Hub, origin: &str, header: Option<(&'static str, &str)>| {
        let upgrade = hub.get("/rooms/lobby/socket").upgrade();
        let upgrade = upgrade.header("host", "hub.example.org:443").header("origin", origin);
        let upgrade = match header {
            Some((name, value)) => upgrade.header(name, value),
            None => upgrade,
        };
        upgrade.send().await.status
    };
    let (https, http) = ("https://hub.example.org:443", "http://hub.example.org:443");
    let plain = Hub::start().await;
    let found = Some(("x-forwarded-proto", "https"));
    assert_eq!(open(&plain, https, None).await, 101, "the default port does not change the origin");
    assert_eq!(open(&plain, http, found).await, 101, "X-Forwarded-Proto is ignored without a proxy");
    let proxied = Hub::with(|config| {
        config.http.client_ip_header = Some(HeaderName::from_static("x-forwarded-for"));
    })
    .await;
    assert_eq!(open(&proxied, http, None).await, 101);
    for found in [("x-forwarded-proto", "https"), ("x-forwarded-proto", "wss"), ("forwarded", "proto=https")]
    {
        assert_eq!(open(&proxied, https, Some(found)).await, 101, "{found:?}");
        assert_eq!(open(&proxied, http, Some(found)).await, 403, "{found:?}");
    }
    let public = Hub::with(|config| {
        config.http.public_url = Some(PublicUrl::parse("https://hub.example.org").unwrap());
    })
    .await;
    assert_eq!(open(&public, https, None).await, 101);
    assert_eq!(open(&public, "http://hub.example.org", None).await, 403);
    assert_eq!(open(&public, "https://other.example.org", None).await, 403);
}

#[tokio::test]
async fn rejected_origin_and_missing_client_address_are_logged_once() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Program::start_with_log(folder.path(), &[("CLIENT_IP_HEADER", "X-Real-IP")]).await;
    for origin in [EVIL, EVIL, "https://\u{e9}vil.example.org", APP, EVIL] {
        let mut request = hub.get("/live").upgrade();
        request = request.header("origin", origin);
        request.send().await.expect_error(403, "forbidden-origin");
    }
    for _ in 0..3 {
        hub.get("/rooms/lobby/socket").send().await.expect_error(426, "upgrade-required");
    }
    hub.signal("TERM").await;
    hub.wait().await;
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    let lines = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert_eq!(lines("rejected a page of this origin"), 3, "{log}");
    assert_eq!((lines(EVIL), lines(APP), lines("https://\\xc3\\xa9vil")), (1, 1, 1), "{log}");
    assert_eq!(lines("CLIENT_IP_HEADER has no address"), 1, "{log}");
}

#[tokio::test]
async fn unsupported_client_ip_header_fails_startup() {
    for header in ["Cookie", "Host", "X-Forwarded-Proto", ""] {
        let output = Program::run(&[], &[("CLIENT_IP_HEADER", header)]).await;
        assert_eq!((output.code, output.stderr.lines().count()), (Some(2), 1), "{output:?}");
        assert!(output.stderr.contains("--client-ip-header"), "{}", output.stderr);
    }
}

#[tokio::test]
async fn forwarded_header_separates_client_addresses() {
    let hub = Hub::with(|config| {
        config.clock = manual_clock();
        config.http.client_ip_header = Some(HeaderName::from_static("forwarded"));
        config.transport.limits = Some(Limits { opened: NonZeroU32::MIN, ..Limits::DEFAULT });
    })
    .await;
    let ask = |found: &str| -> Request { hub.get("/live").header("forwarded", found) };
    for _ in 0..10 {
        ask("for=\"[2001:db8::1]\";proto=https").send().await.expect_error(426, "upgrade-required");
    }
    ask("for=\"[2001:db8::1]:4711\"").send().await.expect_error(429, "too-fast");
    ask("for=\"[2001:db8:1::1]\"").send().await.expect_error(426, "upgrade-required");
}

// The admin token

const PRIVATE: &str = "private, no-store";

#[tokio::test]
async fn admin_dashboard_protects_history_and_live_activity() {
    let hub = Hub::with(|config| config.http.dashboard = Access::Admin).await;
    hub.post_page_view("ann", "/").await;
    for path in ["/unified-stats?range=24h", "/live-activity"] {
        hub.get(path).send().await.expect_error(401, "unauthorized");
        let wrong = hub.get(path).header("authorization", "Bearer no-admins-token-at-all");
        wrong.send().await.expect_error(401, "unauthorized");
        let response = hub.get(path).admin().send().await;
        response.expect(200);
        assert_eq!(response.header("cache-control"), PRIVATE, "{path}");
    }
    for path in ["/debug", "/visitors/ann/data"] {
        assert_eq!(hub.get(path).admin().send().await.header("cache-control"), PRIVATE, "{path}");
    }
    hub.get("/unified-stats?range=1y").send().await.expect_error(401, "unauthorized");
    let offer = |offer: &str| hub.get("/live").upgrade().header("sec-websocket-protocol", offer);
    for rejected in [
        hub.get("/live"),
        hub.get("/live").upgrade(),
        offer("breathing-room.v1"),
        offer("breathing-room.v1, bearer.no-admins-token-at-all"),
    ] {
        let rejected = rejected.send().await;
        assert!(rejected.expect_error(401, "unauthorized").contains("admin token"));
    }
    hub.get("/live").admin().send().await.expect_error(426, "upgrade-required");
    assert_eq!(hub.get("/live").upgrade().admin().send().await.status, 101);
    let offered = offer(&format!("breathing-room.v1, bearer.{ADMIN_TOKEN}")).send().await;
    assert_eq!((offered.status, offered.header("sec-websocket-protocol")), (101, "breathing-room.v1"));
    // Rooms and health stay public.
    assert_eq!(hub.get("/rooms/lobby").send().await.header("cache-control"), "public, max-age=5");
    hub.get("/health").send().await.expect(200);
    hub.join("lobby", "ann").await.leave().await;
}

#[tokio::test]
async fn breakdown_by_property_needs_admin_unless_property_is_public() {
    let hub = Hub::with(|config| config.http.public_props = PropNames::parse("plan, lang").unwrap()).await;
    let mut view = page_view("ann");
    view["props"] = json!({ "plan": "free", "email": "ann@example.org" });
    hub.post("/page-view?durable=true").json(&view).send().await.expect(200);
    let values = |response: &Response| response.expect(200)["prop"]["values"][0]["value"].clone();
    let rejected = hub.get("/unified-stats?prop=email").send().await;
    assert!(rejected.expect_error(401, "unauthorized").contains("PUBLIC_PROPS"), "{}", rejected.text);
    assert!(!rejected.text.contains("ann@example.org"));
    let found = hub.get("/unified-stats?prop=email").admin().send().await;
    assert_eq!((values(&found), found.header("cache-control")), (json!("ann@example.org"), PRIVATE));
    let public = hub.get("/unified-stats?prop=plan").send().await;
    assert_eq!(values(&public), "free");
    assert!(public.header("cache-control").starts_with("public"), "{public:?}");
    // The cached response is not served without the admin token.
    hub.get("/unified-stats?prop=email").send().await.expect_error(401, "unauthorized");
}

#[tokio::test]
async fn failed_admin_requests_are_rate_limited_and_valid_token_always_passes() {
    let clock = manual_clock();
    let hub = Hub::with(|config| {
        config.clock = clock.clone();
        config.http.dashboard = Access::Admin;
        config.http.client_ip_header = Some(HeaderName::from_static(HEADER));
        let one = NonZeroU32::MIN;
        config.transport.limits = Some(Limits { posts: one, ..Limits::DEFAULT });
    })
    .await;
    let guess = |request: Request, address: &str| {
        request.header(HEADER, address).header("authorization", "Bearer no-admins-token-at-all")
    };
    for path in ["/debug", "/unified-stats", "/live-activity", "/visitors/ann/data", "/"] {
        for request in [hub.get(path), Request::new(&hub.address, "HEAD", path)] {
            assert_eq!(guess(request, "192.0.2.1").send().await.status, 401, "{path}");
        }
    }
    for paced in [hub.post("/flush"), hub.get("/live-activity"), hub.get("/"), hub.get("/visitors/ann/data")]
    {
        let paced = guess(paced, "192.0.2.1").send().await;
        paced.expect_error(429, "too-fast");
        assert_eq!(paced.header("retry-after"), "10");
    }
    assert_eq!(
        guess(hub.get("/debug"), "192.0.2.2").send().await.status,
        401,
        "another address has its own rate"
    );
    for _ in 0..20 {
        hub.post("/flush").admin().header(HEADER, "192.0.2.1").send().await.expect(200);
        hub.get("/debug").admin().header(HEADER, "192.0.2.1").send().await.expect(200);
    }
    assert_eq!(hub.metric("breathing_room_limited_total{reason=\"admin-failures\"}").await, 4.0);
    clock.advance(Duration::from_secs(1));
    assert_eq!(guess(hub.get("/debug"), "192.0.2.1").send().await.status, 401);
    // A request without a token is not a failed admin request.
    for _ in 0..20 {
        assert_eq!(hub.get("/").header(HEADER, "192.0.2.3").send().await.status, 401);
    }
}

#[tokio::test]
async fn short_admin_token_fails_startup_with_one_line() {
    for token in ["", "a", "fifteen-letters"] {
        let output = Program::run(&[], &[("ADMIN_TOKEN", token)]).await;
        let line = "error: ADMIN_TOKEN: must have at least 16 bytes\n";
        assert_eq!((output.code, output.stderr.as_str()), (Some(1), line), "{output:?}");
    }
}

// Visitors

#[tokio::test]
async fn visitor_subprotocol_sets_the_visitor_and_is_not_echoed() {
    let hub = Hub::start().await;
    let join = async |offer: &str, query: &str| {
        let client =
            Client::join_with_header(("sec-websocket-protocol", offer), &hub.address, "lobby", query).await;
        client.welcome["visitor"].as_str().unwrap().to_owned()
    };
    assert_eq!(join("breathing-room.v1, visitor.ann", "").await, "ann");
    assert_eq!(join("visitor.ann, breathing-room.v1", "visitor=bob&mood=calm").await, "ann");
    assert_eq!(
        join("breathing-room.v1", "visitor=bob").await,
        "bob",
        "without a subprotocol the query applies"
    );
    let offer =
        |offer: &str| hub.get("/rooms/lobby/socket").upgrade().header("sec-websocket-protocol", offer);
    for (offered, echoed) in [("breathing-room.v1, visitor.ann", "breathing-room.v1"), ("visitor.ann", "")] {
        let response = offer(offered).send().await;
        assert_eq!((response.status, response.header("sec-websocket-protocol")), (101, echoed));
    }
    for bad in ["visitor.", "visitor.a~b", &format!("visitor.{}", "x".repeat(65))] {
        offer(&format!("breathing-room.v1, {bad}")).send().await.expect_error(400, "bad-visitor");
    }
}

#[tokio::test]
async fn visitor_of_the_token_wins_and_other_credentials_are_ignored() {
    let hub = strict_hub().await;
    let token = bearer("ann").replacen("Bearer ", "bearer.", 1);
    let offer = format!("breathing-room.v1, visitor.bob, {token}");
    let url = format!("ws://{}/rooms/lobby/socket?visitor=cat", hub.address);
    for foreign in ["Basic YTpi", "Bearer of-the-proxy"] {
        let mut request = url.as_str().into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", offer.parse().unwrap());
        request.headers_mut().insert("authorization", foreign.parse().unwrap());
        let ann = Client::connect(request).await.unwrap().expect_welcome().await;
        assert_eq!(ann.welcome["visitor"], "ann");
    }
}

// Files

#[tokio::test]
async fn files_are_readable_by_their_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("made/by-the-hub");
    let clock = Clock::manual(Time::from_millis(1_706_600_000_000)); // January 2024
    let url = format!("sqlite://{}/hub.db", inner.display());
    let hub = Hub::with(|config| {
        config.clock = clock.clone();
        config.history.database_url = url.clone();
    })
    .await;
    hub.post_page_view("ann", "/").await;
    for name in ["hub.db", "hub.db-wal", "hub.db-shm"] {
        assert_eq!(mode(&inner.join(name)), 0o600, "{name}");
    }
    let (out, report) = (inner.join("out.jsonl"), folder.path().join("report"));
    let settings = [("DATABASE_URL", url.as_str())];
    let exported = Program::run(&["export", "--out", out.to_str().unwrap()], &settings).await;
    assert_eq!((exported.code, mode(&out)), (Some(0), 0o600), "{exported:?}");
    let arguments = ["import", out.to_str().unwrap(), "--report", report.to_str().unwrap()];
    let imported = Program::run(&arguments, &settings).await;
    assert_eq!((imported.code, mode(&report)), (Some(0), 0o600), "{imported:?}");
    clock.advance(Duration::from_hours(24 * 500));
    assert_eq!(hub.run_maintenance().await["archived"][0]["month"], "2024-01");
    let archives = inner.join("archive");
    let mut modes: Vec<_> =
        std::fs::read_dir(&archives).unwrap().map(|file| mode(&file.unwrap().path())).collect();
    modes.extend([
        mode(&archives) & !0o100,
        mode(&inner) & !0o100,
        mode(&folder.path().join("made")) & !0o100,
    ]);
    assert_eq!(modes, [0o600; 5], "an archive, its checksum, and three folders (0o700)");
    // An existing file keeps its mode.
    std::fs::set_permissions(&report, PermissionsExt::from_mode(0o640)).unwrap();
    let imported = Program::run(&arguments, &settings).await;
    assert_eq!((imported.code, mode(&report)), (Some(0), 0o640), "{imported:?}");
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

// Logs

#[tokio::test]
async fn no_log_level_prints_tokens_or_visitors() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("TOKEN_SECRET", SECRET),
        ("DASHBOARD", "admin"),
        ("RUST_LOG", "trace,tungstenite=trace,tungstenite::protocol=trace"),
    ];
    let hub = Program::start_with_log(folder.path(), &settings).await;
    let mut tokens = Vec::new();
    for hours in ["1h", "2h", "3h"] {
        let made =
            Program::run(&["token", "--visitor", "ann-of-the-test", "--expires", hours], &settings).await;
        tokens.push(made.stdout.trim_end().to_owned());
    }
    let join = async |header: (&'static str, String)| {
        Client::join_with_header((header.0, &header.1), &hub.address, "lobby", "").await
    };
    let mut ann = join(("authorization", format!("Bearer {}", tokens[0]))).await;
    let offer = format!("breathing-room.v1, visitor.ann-of-the-test, bearer.{}", tokens[1]);
    let mut tab = join(("sec-websocket-protocol", offer)).await;
    tab.send_json(json!({ "type": "token", "token": tokens[2] })).await;
    tab.round_trip().await;
    ann.send_json(json!({ "type": "token", "token": "no-token-at-all" })).await;
    ann.expect_error("bad-field").await;
    for path in ["/debug", "/unified-stats", "/visitors/ann-of-the-test/data"] {
        hub.get(path).admin().send().await.expect(200);
    }
    let wrong = hub.get("/debug").header("authorization", "Bearer no-admins-token-at-all");
    wrong.send().await.expect_error(401, "unauthorized");
    ann.leave().await;
    hub.signal("TERM").await;
    hub.wait().await;
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("DEBUG") && log.contains("stopped"), "RUST_LOG sets the level: {log}");
    let secrets = tokens.iter().map(String::as_str);
    for secret in
        secrets.chain([ADMIN_TOKEN, SECRET, "no-token-at-all", "no-admins-token", "ann-of-the-test"])
    {
        let found = log.lines().find(|line| line.contains(secret));
        assert_eq!(found, None, "{secret}");
    }
}
