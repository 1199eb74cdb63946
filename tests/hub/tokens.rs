//! Who may come in: tokens, and the sites whose pages may ask.

use std::num::NonZeroU32;
use std::time::Duration;

use breathing_room::Config;
use breathing_room::config::{AllowedOrigins, Limits, Secret, Time};
use breathing_room::internals::{Claims, RoomId, VisitorId};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::client::Disconnect;
use crate::support::request::Response;
use crate::support::{Client, Hub, Program, Request, START, manual_clock};

const SECRET: &str = "a secret of more than thirty-two bytes";

fn secret() -> Secret {
    Secret::from(SECRET.to_owned())
}

/// A hub that asks for tokens and goes by the tests' clock.
async fn guarded() -> Hub {
    Hub::with(ask_for_tokens).await
}

fn ask_for_tokens(config: &mut Config) {
    config.clock = manual_clock();
    config.auth.secret = Some(secret());
}

/// A token from the tests' start on.
fn token(visitor: &str, room: Option<&str>, seconds: u64) -> String {
    let claims = Claims {
        visitor: VisitorId::try_from(visitor).unwrap(),
        room: room.map(|room| RoomId::try_from(room).unwrap()),
        expires: Time::from_millis(START + seconds * 1000),
    };
    claims.sign(&secret(), None).unwrap()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

async fn join(hub: &Hub, token: &str, room: &str, query: &str) -> Client {
    Client::join_with_header(("authorization", &bearer(token)), &hub.address, room, query).await
}

fn page_view(visitor: &str, room: &str) -> Value {
    json!({ "id": Uuid::new_v4(), "path": "/", "visitor": visitor, "room": room })
}

#[tokio::test]
async fn token_sets_the_visitor_and_overrides_the_query() {
    let hub = guarded().await;
    let ann = join(&hub, &token("ann", None, 60), "lobby", "visitor=bob").await;
    assert_eq!(ann.welcome["visitor"], "ann");
    let tab = join(&hub, &token("ann", Some("lobby"), 60), "lobby", "visitor=b%20d").await;
    assert_eq!((tab.welcome["visitor"].as_str(), tab.present), (Some("ann"), 1));
    // As a browser offers it. The token is not echoed, and does not come back in any other way.
    let offer = format!("breathing-room.v1, bearer.{}", token("cat", None, 60));
    let offered = [("breathing-room.v1", offer.as_str()), ("", offer.split(", ").nth(1).unwrap())];
    for (echoed, offer) in offered {
        let upgrade = hub.get("/rooms/lobby/socket").upgrade().header("sec-websocket-protocol", offer);
        let response = upgrade.send().await;
        assert_eq!((response.status, response.header("sec-websocket-protocol")), (101, echoed));
    }
}

#[tokio::test]
async fn invalid_token_is_rejected_with_401() {
    let hub = guarded().await;
    let good = token("ann", None, 60);
    let forged = format!("{}{}", &good[..good.len() - 8], "AAAAAAAA");
    for (path, header, words) in [
        ("lobby", None, "this needs a token"),
        ("lobby", Some(("authorization", "Basic YTpi".to_owned())), "this needs a token"),
        ("lobby", Some(("sec-websocket-protocol", "breathing-room.v1".to_owned())), "this needs a token"),
        ("lobby", Some(("authorization", bearer("x"))), "must be a JWT"),
        ("lobby", Some(("authorization", bearer(crate::support::ADMIN_TOKEN))), "must be a JWT"),
        ("lobby", Some(("authorization", bearer(&forged))), "is not signed with a key"),
        ("lobby", Some(("sec-websocket-protocol", format!("bearer.{forged}"))), "is not signed with a key"),
        ("lobby", Some(("authorization", bearer(&token("ann", None, 0)))), ""),
        ("garden", Some(("authorization", bearer(&token("ann", Some("lobby"), 60)))), "opens another room"),
    ] {
        let upgrade = hub.get(&format!("/rooms/{path}/socket?visitor=ann")).upgrade();
        let upgrade = match &header {
            Some((name, value)) => upgrade.header(name, value),
            None => upgrade,
        };
        let response = upgrade.send().await;
        if words.is_empty() {
            assert_eq!(response.status, 101, "an exp of now still has its leeway");
            continue;
        }
        assert!(response.expect_error(401, "unauthorized").contains(words), "{header:?}: {}", response.text);
        assert_eq!(response.header("www-authenticate"), "Bearer");
    }
    // What everybody may see, everybody sees.
    for path in ["/rooms/lobby", "/live-activity", "/unified-stats?range=24h", "/health"] {
        hub.get(path).send().await.expect(200);
    }
    assert_eq!(hub.get("/live").upgrade().send().await.status, 101);
}

#[tokio::test]
async fn posts_need_a_token_for_each_visitor_and_room() {
    let hub = guarded().await;
    let post = |body: &Value, token: Option<String>| {
        let post = hub.post("/page-view").json(body);
        match token {
            Some(token) => post.header("authorization", &bearer(&token)),
            None => post,
        }
    };
    let [ann, bob] = ["ann", "bob"].map(|visitor| page_view(visitor, "lobby"));
    post(&ann, None).send().await.expect_error(401, "unauthorized");
    let in_lobby = || Some(token("ann", Some("lobby"), 60));
    let refused = post(&json!([ann, bob]), in_lobby()).send().await;
    assert!(refused.expect_error(401, "unauthorized").contains("another visitor"));
    let refused = post(&page_view("ann", "garden"), in_lobby()).send().await;
    assert!(refused.expect_error(401, "unauthorized").contains("another room"));
    assert_eq!(hub.get("/health").send().await.expect(200)["pendingPageViews"], 0);
    assert_eq!(post(&json!([ann]), in_lobby()).send().await.expect(202)["queued"], 1);
    post(&page_view("ann", "garden"), Some(token("ann", None, 60))).send().await.expect(202);
}

#[tokio::test]
async fn socket_closes_when_its_token_expires_unless_renewed() {
    let clock = manual_clock();
    let hub = Hub::with(|config| {
        ask_for_tokens(config);
        config.clock = clock.clone();
        config.transport.ping_interval = Duration::from_secs(5); // the sweep comes by more often
    })
    .await;
    let mut ann = join(&hub, &token("ann", Some("lobby"), 60), "lobby", "").await;
    let mut bob = join(&hub, &token("bob", None, 60), "lobby", "").await;
    let say = |token: String| json!({ "type": "token", "token": token });
    clock.advance(Duration::from_millis(89_999));
    for (message, words) in [
        (say("x".to_owned()), "token: must be a JWT"),
        (say(token("bob", None, 600)), "token: sub: is another visitor's"),
        (say(token("ann", Some("garden"), 600)), "token: room: opens another room"),
        (say(token("ann", None, 10)), "token: has expired"),
        (json!({ "type": "token" }), "missing field `token`"),
        (json!({ "type": "token", "token": 7 }), "token: invalid type"),
    ] {
        ann.send_json(message).await;
        let refused = ann.expect_error("bad-field").await;
        assert!(refused["message"].as_str().unwrap().starts_with(words), "{refused}");
    }
    ann.send_json(say(token("ann", None, 600))).await;
    ann.round_trip().await;
    // The time of an old one does not come back.
    ann.send_json(say(token("ann", None, 599))).await;
    let refused = ann.expect_error("bad-field").await;
    assert!(
        refused["message"].as_str().unwrap().starts_with("token: exp: ends before the token"),
        "{refused}"
    );
    ann.send_json(say(token("ann", None, 600))).await;
    ann.round_trip().await;
    bob.round_trip().await;
    clock.advance(Duration::from_millis(1));
    assert_eq!(bob.expect_disconnect().await, Disconnect::Closed(1008));
    // Ann's socket is passed before Bob's was: she is still here.
    ann.expect_present(1).await.round_trip().await;
    clock.advance(Duration::from_mins(9));
    assert_eq!(ann.expect_disconnect().await, Disconnect::Closed(1008));
}

#[tokio::test]
async fn hub_without_token_keys_rejects_token_messages() {
    let hub = Hub::start().await;
    let mut ann = hub.join("lobby", "ann").await;
    ann.send_json(json!({ "type": "token", "token": token("ann", None, 60) })).await;
    let refused = ann.expect_error("bad-field").await;
    assert_eq!(refused["message"], "token: this hub asks for none");
    // One that is brought along says nothing.
    let bob = join(&hub, "whatever", "lobby", "visitor=bob").await;
    assert_eq!(bob.welcome["visitor"], "bob");
}

#[tokio::test]
async fn token_command_signs_tokens_that_the_hub_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("TOKEN_SECRET", SECRET), ("TOKEN_AUDIENCE", "hub")];
    let hub = Program::start(folder.path(), &settings).await;
    let made =
        Program::run(&["token", "--visitor", "ann", "--room", "lobby", "--expires", "1h"], &settings).await;
    assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""), "{made:?}");
    let header = ("authorization", bearer(made.stdout.trim_end()));
    let ann = Client::join_with_header((header.0, &header.1), &hub.address, "lobby", "").await;
    assert_eq!(ann.welcome["visitor"], "ann");
    let elsewhere = hub.get("/rooms/garden/socket").upgrade().header(header.0, &header.1).send().await;
    assert!(elsewhere.expect_error(401, "unauthorized").contains("another room"));
    let made = Program::run(&["token", "--visitor", "ann"], &[settings[0]]).await;
    let header = bearer(made.stdout.trim_end());
    let response = hub.get("/rooms/lobby/socket").upgrade().header("authorization", &header).send().await;
    assert!(response.expect_error(401, "unauthorized").contains("audience"));
    for settings in [&[][..], &[("TOKEN_SECRET", "short")]] {
        let refused = Program::run(&["token", "--visitor", "ann"], settings).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:?}");
    }
}

// Origins

const APP: &str = "https://app.example.org";
const EVIL: &str = "https://evil.example.org";

async fn hub_for(origins: &str) -> Hub {
    let origins = AllowedOrigins::parse(origins).unwrap();
    Hub::with(|config| config.http.allowed_origins = origins).await
}

async fn from(origin: &str, request: Request) -> Response {
    request.header("origin", origin).send().await
}

/// What a browser needs in order to show the answer to a page of this origin.
fn expect_readable(response: &Response, origin: &str) {
    assert_eq!(response.header("access-control-allow-origin"), origin, "{response:?}");
    assert_eq!(response.header("access-control-allow-credentials"), "true");
    assert!(response.header("vary").contains("Origin"), "{response:?}");
}

/// What any page may read, which brings no credentials: why it was refused.
fn expect_readable_by_all(response: &Response) {
    assert_eq!(response.header("access-control-allow-origin"), "*", "{response:?}");
    assert_eq!(response.header("access-control-allow-credentials"), "");
}

fn expect_unreadable(response: &Response) {
    assert_eq!(response.header("access-control-allow-origin"), "", "{response:?}");
    assert!(response.header("vary").contains("Origin"), "{response:?}");
}

#[tokio::test]
async fn socket_from_a_foreign_origin_is_rejected() {
    let hub = Hub::start().await;
    let own = format!("http://{}", hub.address);
    for path in ["/rooms/lobby/socket", "/live"] {
        let upgrade = || hub.get(path).upgrade();
        assert_eq!(upgrade().send().await.status, 101, "who has no origin is no page");
        for origin in [own.as_str(), "http://localhost:5173", "https://[::1]"] {
            assert_eq!(from(origin, upgrade()).await.status, 101, "{origin}");
        }
        for origin in [EVIL, APP, "null", "http://localhost.evil.example.org"] {
            from(origin, upgrade()).await.expect_error(403, "forbidden-origin");
        }
    }
    let hub = hub_for(APP).await;
    let upgrade = || hub.get("/rooms/lobby/socket").upgrade();
    assert_eq!(from(APP, upgrade()).await.status, 101);
    for origin in [EVIL, "http://app.example.org", "http://localhost", &format!("http://{}", hub.address)] {
        from(origin, upgrade()).await.expect_error(403, "forbidden-origin");
    }
    let hub = hub_for("*").await;
    for origin in [EVIL, "null"] {
        assert_eq!(from(origin, hub.get("/live").upgrade()).await.status, 101, "{origin}");
    }
}

#[tokio::test]
async fn beacon_from_a_foreign_origin_is_rejected() {
    let hub = hub_for(&format!("self,{APP}")).await;
    let view = page_view("ann", "lobby").to_string();
    let beacon = || hub.post("/page-view").header("content-type", "text/plain").body(view.clone());
    for origin in [EVIL, "null", "http://localhost"] {
        let refused = from(origin, beacon()).await;
        refused.expect_error(403, "forbidden-origin");
        expect_readable_by_all(&refused);
    }
    assert_eq!(hub.get("/health").send().await.expect(200)["pendingPageViews"], 0);
    let taken = from(APP, beacon()).await;
    taken.expect(202);
    expect_readable(&taken, APP);
    // An error is an answer, too.
    let refused = from(APP, hub.post("/page-view").body("{")).await;
    refused.expect_error(400, "bad-json");
    expect_readable(&refused, APP);
    let any = hub_for("*").await;
    expect_readable(&from(EVIL, any.post("/page-view").body(view.clone())).await, EVIL);
    beacon().send().await.expect(202);
}

#[tokio::test]
async fn preflight_lists_allowed_methods_and_headers() {
    let hub = hub_for(APP).await;
    let ask = |path| {
        Request::new(&hub.address, "OPTIONS", path)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type")
    };
    for path in ["/page-view", "/watch-session", "/flush"] {
        let response = from(APP, ask(path)).await;
        assert_eq!((response.status, response.text.as_str()), (204, ""));
        expect_readable(&response, APP);
        assert!(response.header("access-control-allow-methods").contains("POST"));
        assert_eq!(response.header("access-control-allow-headers"), "authorization, content-type");
        assert_eq!(response.header("access-control-max-age"), "7200");
        let refused = from(EVIL, ask(path)).await;
        refused.expect_error(403, "forbidden-origin");
        expect_readable_by_all(&refused);
    }
    ask("/page-view").send().await.expect_error(405, "method-not-allowed");
}

#[tokio::test]
async fn errors_are_readable_by_allowed_origins() {
    let origins = AllowedOrigins::parse(APP).unwrap();
    let hub = Hub::with(|config| {
        config.http.allowed_origins = origins;
        config.transport.limits = Some(Limits { posts: NonZeroU32::MIN, ..Limits::DEFAULT });
    })
    .await;
    let unknown = from(APP, hub.get("/nowhere")).await;
    unknown.expect_error(404, "not-found");
    expect_readable(&unknown, APP);
    let too_fast = loop {
        let response = from(APP, hub.post("/presence")).await;
        if response.status == 429 {
            break response;
        }
    };
    expect_readable(&too_fast, APP);
    assert_eq!(too_fast.header("access-control-expose-headers"), "Retry-After");
}

#[tokio::test]
async fn public_reads_are_readable_by_allowed_origins_only() {
    let hub = hub_for(APP).await;
    for path in ["/rooms/lobby", "/live-activity", "/unified-stats?range=24h", "/health"] {
        let response = from(APP, hub.get(path)).await;
        response.expect(200);
        expect_readable(&response, APP);
        // A cache must not give one site what was meant for another.
        for other in [from(EVIL, hub.get(path)).await, hub.get(path).send().await] {
            other.expect(200);
            expect_unreadable(&other);
        }
    }
    // The library may be used from anywhere, and is the same for all.
    let library = from(EVIL, hub.get("/client/breathing-room.js")).await;
    if library.status == 200 {
        assert_eq!(library.header("access-control-allow-origin"), "*");
        assert_eq!(library.header("access-control-allow-credentials"), "");
    }
}

#[tokio::test]
async fn visitor_token_reads_and_erases_own_data_only() {
    let hub = guarded().await;
    for visitor in ["ann", "bob"] {
        let post = hub.post("/page-view?durable=true").json(&page_view(visitor, "lobby"));
        post.header("authorization", &bearer(&token(visitor, None, 60))).send().await.expect(200);
    }
    let ask = async |method: &str, token: &str| {
        let request = Request::new(&hub.address, method, "/visitors/ann/data");
        request.header("authorization", &bearer(token)).send().await
    };
    for method in ["GET", "DELETE"] {
        for other in [token("bob", None, 60), token("ann", Some("lobby"), 60), "nonsense".to_owned()] {
            assert_eq!(ask(method, &other).await.status, 401);
        }
    }
    let ann = token("ann", None, 60);
    assert_eq!(ask("GET", &ann).await.expect(200)["pageViews"].as_array().unwrap().len(), 1);
    assert_eq!(ask("DELETE", &ann).await.expect(200)["erased"]["pageViews"], 1);
    assert_eq!(ask("GET", &ann).await.expect(200)["pageViews"], json!([]));
    assert_eq!(hub.rows("SELECT json_quote(visitor) FROM page_views").await, ["bob"]);
}
