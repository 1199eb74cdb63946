//! Visitor tokens: which sockets and posts they authorize, and when they expire.

use std::time::Duration;

use breathing_room::Config;
use breathing_room::config::{Secret, Time};
use breathing_room::internals::{Claims, RoomId, VisitorId};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::client::Disconnect;
use crate::support::{Client, Hub, Program, Request, START, manual_clock};

const SECRET: &str = "a secret of more than thirty-two bytes";

fn secret() -> Secret {
    Secret::from(SECRET.to_owned())
}

/// A hub that requires tokens, with a manual clock.
async fn hub_with_tokens() -> Hub {
    Hub::with(require_tokens).await
}

fn require_tokens(config: &mut Config) {
    config.clock = manual_clock();
    config.auth.secret = Some(secret());
}

/// A token that expires this long after [`START`].
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

pub fn page_view(visitor: &str, room: &str) -> Value {
    json!({ "id": Uuid::new_v4(), "path": "/", "visitor": visitor, "room": room })
}

#[tokio::test]
async fn token_sets_the_visitor_and_overrides_the_query() {
    let hub = hub_with_tokens().await;
    let ann = join(&hub, &token("ann", None, 60), "lobby", "visitor=bob").await;
    assert_eq!(ann.welcome["visitor"], "ann");
    let tab = join(&hub, &token("ann", Some("lobby"), 60), "lobby", "visitor=b%20d").await;
    assert_eq!((tab.welcome["visitor"].as_str(), tab.present), (Some("ann"), 1));
    // A browser offers the token as a subprotocol. The hub does not echo it.
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
    let hub = hub_with_tokens().await;
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
            assert_eq!(response.status, 101, "the leeway applies to exp");
            continue;
        }
        assert!(response.expect_error(401, "unauthorized").contains(words), "{header:?}: {}", response.text);
        assert_eq!(response.header("www-authenticate"), "Bearer");
    }
    // Public routes need no token.
    for path in ["/rooms/lobby", "/live-activity", "/unified-stats?range=24h", "/health"] {
        hub.get(path).send().await.expect(200);
    }
    assert_eq!(hub.get("/live").upgrade().send().await.status, 101);
}

#[tokio::test]
async fn posts_need_a_token_for_each_visitor_and_room() {
    let hub = hub_with_tokens().await;
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
    let rejected = post(&json!([ann, bob]), in_lobby()).send().await;
    assert!(rejected.expect_error(401, "unauthorized").contains("another visitor"));
    let rejected = post(&page_view("ann", "garden"), in_lobby()).send().await;
    assert!(rejected.expect_error(401, "unauthorized").contains("another room"));
    assert_eq!(hub.get("/health").send().await.expect(200)["pendingPageViews"], 0);
    assert_eq!(post(&json!([ann]), in_lobby()).send().await.expect(202)["queued"], 1);
    post(&page_view("ann", "garden"), Some(token("ann", None, 60))).send().await.expect(202);
}

#[tokio::test]
async fn socket_closes_when_its_token_expires_unless_renewed() {
    let clock = manual_clock();
    let hub = Hub::with(|config| {
        require_tokens(config);
        config.clock = clock.clone();
        config.transport.ping_interval = Duration::from_secs(5); // the sweep, which checks expiry, runs more often
    })
    .await;
    let mut ann = join(&hub, &token("ann", Some("lobby"), 60), "lobby", "").await;
    let mut bob = join(&hub, &token("bob", None, 60), "lobby", "").await;
    let message = |token: String| json!({ "type": "token", "token": token });
    clock.advance(Duration::from_millis(89_999));
    for (bad, words) in [
        (message("x".to_owned()), "token: must be a JWT"),
        (message(token("bob", None, 600)), "token: sub: is another visitor's"),
        (message(token("ann", Some("garden"), 600)), "token: room: opens another room"),
        (message(token("ann", None, 10)), "token: has expired"),
        (json!({ "type": "token" }), "missing field `token`"),
        (json!({ "type": "token", "token": 7 }), "token: invalid type"),
    ] {
        ann.send_json(bad).await;
        let rejected = ann.expect_error("bad-field").await;
        assert!(rejected["message"].as_str().unwrap().starts_with(words), "{rejected}");
    }
    ann.send_json(message(token("ann", None, 600))).await;
    ann.round_trip().await;
    // A token that expires earlier than the current one is rejected.
    ann.send_json(message(token("ann", None, 599))).await;
    let rejected = ann.expect_error("bad-field").await;
    assert!(
        rejected["message"].as_str().unwrap().starts_with("token: exp: ends before the current token"),
        "{rejected}"
    );
    ann.send_json(message(token("ann", None, 600))).await;
    ann.round_trip().await;
    bob.round_trip().await;
    clock.advance(Duration::from_millis(1));
    assert_eq!(bob.expect_disconnect().await, Disconnect::Closed(1008));
    // The sweep checks Ann's socket before Bob's, so it stays open.
    ann.expect_present(1).await.round_trip().await;
    clock.advance(Duration::from_mins(9));
    assert_eq!(ann.expect_disconnect().await, Disconnect::Closed(1008));
}

#[tokio::test]
async fn hub_without_token_keys_rejects_token_messages() {
    let hub = Hub::start().await;
    let mut ann = hub.join("lobby", "ann").await;
    ann.send_json(json!({ "type": "token", "token": token("ann", None, 60) })).await;
    let rejected = ann.expect_error("bad-field").await;
    assert_eq!(rejected["message"], "token: this hub takes no tokens");
    // A token in the upgrade request is ignored.
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
        let rejected = Program::run(&["token", "--visitor", "ann"], settings).await;
        assert_eq!((rejected.code, rejected.stdout.as_str()), (Some(2), ""), "{rejected:?}");
    }
}

#[tokio::test]
async fn visitor_token_reads_and_erases_own_data_only() {
    let hub = hub_with_tokens().await;
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

#[tokio::test]
async fn sit_holds_the_visitor_over_the_end_of_the_token() {
    let clock = manual_clock();
    let hub = Hub::with(|config| {
        require_tokens(config);
        config.clock = clock.clone();
        config.transport.ping_interval = Duration::from_secs(2); // which sets the pace of the sweep
    })
    .await;
    let mut ann = join(&hub, &token("ann", None, 60), "lobby", "").await;
    let mut bob = join(&hub, &token("bob", None, 60), "lobby", "").await;
    ann.send_json(json!({ "type": "sit", "forMs": 3_600_000 })).await;
    let until = ann.expect("sit").await["until"].clone();
    clock.advance(Duration::from_secs(91));
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.expect_close().await, (1008, "token-expired".to_owned()));
    }
    drop((ann, bob));
    hub.expect_debug("sessions", 0).await;
    let lobby = hub.get("/rooms/lobby").send().await.expect(200);
    assert_eq!((&lobby["present"], &lobby["held"]), (&json!(1), &json!(1)), "Ann, and not Bob");
    let ann = join(&hub, &token("ann", None, 600), "lobby", "").await;
    assert_eq!(ann.welcome["sit"], until);
}
