//! Stats over the history: totals, series, time zones, caching, bots, and properties.

use std::time::Duration;

use breathing_room::config::{AllowedOrigins, Clock, PropNames, PublicUrl, Time};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Hub, START, eventually, manual_clock};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

async fn stats(hub: &Hub, query: &str) -> Value {
    hub.get(&format!("/unified-stats?{query}")).admin().send().await.expect(200)
}

async fn post_view(hub: &Hub, visitor: &str, room: &str, path: &str, at: u64) {
    let view = json!({ "id": Uuid::now_v7(), "path": path, "at": at, "visitor": visitor, "room": room });
    hub.post("/page-view?durable=true").json(&view).send().await.expect(200);
}

/// The points of a series with page views: their offsets from `START` in hours, and their page views.
fn page_views_by_hour(response: &Value) -> Vec<(i64, u64)> {
    let point = |point: &Value| {
        let offset = point["at"].as_i64().unwrap() - i64::try_from(START).unwrap();
        (offset / i64::try_from(HOUR).unwrap(), point["pageViews"].as_u64().unwrap())
    };
    response["series"].as_array().unwrap().iter().map(point).filter(|(_, views)| *views > 0).collect()
}

#[tokio::test]
async fn stats_include_all_events_of_the_range() {
    let clock = manual_clock();
    let hub = Hub::with_clock(&clock).await;
    let mut ann = hub.join_with_mood("lobby", "ann", "calm").await;
    let mut bob = hub.join("garden", "bob").await;
    clock.advance(Duration::from_secs(30));
    let referrer = "https://www.example.org/a?b";
    for (path, referrer) in [("/a", Some(referrer)), ("/b", None), ("/a", Some(referrer))] {
        let view = json!({ "type": "page-view", "id": Uuid::now_v7(), "path": path, "referrer": referrer });
        ann.send_event(view).await;
    }
    bob.view_page(Uuid::now_v7(), "/b").await;
    let old = json!({ "type": "page-view", "id": Uuid::now_v7(), "path": "/c", "at": START - 26 * HOUR });
    bob.send_event(old).await;
    bob.send_event(json!({ "type": "watch", "id": Uuid::now_v7(), "content": "dawn", "state": "ended",
        "watchedMs": 1234, "startedAt": START - 5000, "at": START }))
        .await;
    ann.round_trip().await;
    bob.round_trip().await;
    hub.flush().await;

    let day = stats(&hub, "range=24h").await;
    let totals = json!({ "pageViews": 4, "visitors": 2, "watchSessions": 1, "watchedMs": 1234, "joins": 2,
        "peakPresent": 2, "averagePresent": 0.0, "averageHeld": 0.0,
        "sits": { "begun": 0, "completed": 0, "minutes": 0.0 } });
    assert_eq!(day["totals"], totals);
    assert_eq!((&day["range"], &day["tz"], &day["step"]), (&json!("24h"), &json!("UTC"), &json!("hour")));
    assert_eq!((&day["from"], &day["to"]), (&json!(START - DAY), &json!(START + 15 * MINUTE)));
    let pages = json!([{ "path": "/a", "pageViews": 2 }, { "path": "/b", "pageViews": 2 }]);
    assert_eq!(day["topPages"], pages);
    assert_eq!(day["topContent"], json!([{ "content": "dawn", "watchSessions": 1, "watchedMs": 1234 }]));
    assert_eq!(day["topReferrers"], json!([{ "referrer": "example.org", "pageViews": 2 }]));
    assert_eq!(day["moods"], json!({ "calm": 30_000 }));
    assert_eq!(day["series"].as_array().unwrap().len(), 25);
    assert_eq!(page_views_by_hour(&day), [(0, 4)]);
    assert_eq!(day["series"][24]["moods"], json!({ "calm": 30_000 }));
    assert_eq!(day["series"][24]["averagePresent"], 2.0); // two visitors for the half minute that has passed
    assert_eq!(day["previous"]["totals"]["pageViews"], 1);
    assert_eq!(day["previous"]["to"], day["from"]);

    let week = stats(&hub, "range=7d&room=garden").await;
    assert_eq!((&week["totals"]["pageViews"], &week["totals"]["visitors"]), (&json!(2), &json!(1)));
    assert_eq!((&week["totals"]["peakPresent"], &week["moods"]), (&json!(1), &json!({})));
    assert_eq!(stats(&hub, "range=30d").await["totals"]["pageViews"], 5);
    assert_eq!(stats(&hub, "range=12mo").await["totals"]["pageViews"], 5);
    assert_eq!(stats(&hub, "room=unheard-of").await["totals"]["pageViews"], 0);
    let custom = format!("from={}&to={}", START - 27 * HOUR, START - 25 * HOUR);
    assert_eq!(stats(&hub, &custom).await["topPages"], json!([{ "path": "/c", "pageViews": 1 }]));
}

#[tokio::test]
async fn days_follow_the_time_zone_across_dst_changes() {
    // New York leaves daylight time on 1 November 2026, a day of 25 hours that begins at 04:00 UTC.
    let now = 1_793_700_000_000; // 2026-11-03T10:00:00Z
    let clock = Clock::manual(Time::from_millis(now));
    let hub = Hub::with_clock(&clock).await;
    let midnight = 1_793_505_600_000; // 2026-11-01T04:00:00Z
    for at in [midnight - 1, midnight, midnight + 25 * HOUR - 1, midnight + 25 * HOUR] {
        post_view(&hub, "ann", "lobby", "/", at).await;
    }
    let days = |response: Value| -> Vec<(u64, u64, u64)> {
        let point = |point: &Value| {
            let number = |key: &str| point[key].as_u64().unwrap();
            (number("at"), number("pageViews"), number("visitors"))
        };
        response["series"].as_array().unwrap().iter().map(point).filter(|(_, views, _)| *views > 0).collect()
    };
    assert_eq!(
        days(stats(&hub, "range=30d&tz=America/New_York").await),
        [(midnight - DAY, 1, 1), (midnight, 2, 1), (midnight + 25 * HOUR, 1, 1)]
    );
    // Berlin is 1 h ahead of UTC on that day, Kathmandu 5 h 45 min.
    assert_eq!(
        days(stats(&hub, "range=30d&tz=Europe/Berlin").await),
        [(midnight - 5 * HOUR, 2, 1), (midnight + 19 * HOUR, 2, 1)]
    );
    let kathmandu = midnight + 14 * HOUR + 15 * MINUTE; // 18:15 UTC
    assert_eq!(
        days(stats(&hub, "range=30d&tz=Asia/Kathmandu").await),
        [(kathmandu - DAY, 2, 1), (kathmandu, 2, 1)]
    );

    // Germany goes to summer time on 29 March 2026, a day of 23 hours that begins at 23:00 UTC.
    let now = 1_774_951_200_000; // 2026-03-31T10:00:00Z
    let hub = Hub::with_clock(&Clock::manual(Time::from_millis(now))).await;
    let midnight = 1_774_738_800_000; // 2026-03-28T23:00:00Z
    for at in [midnight - 1, midnight, midnight + 23 * HOUR - 1, midnight + 23 * HOUR] {
        post_view(&hub, "ann", "lobby", "/", at).await;
    }
    assert_eq!(
        days(stats(&hub, "range=30d&tz=Europe/Berlin").await),
        [(midnight - DAY, 1, 1), (midnight, 2, 1), (midnight + 23 * HOUR, 1, 1)]
    );
}

#[tokio::test]
async fn stats_are_cached_until_a_commit_changes_them() {
    let hub = Hub::with_clock(&manual_clock()).await;
    post_view(&hub, "ann", "lobby", "/", START).await;
    assert_eq!(stats(&hub, "range=24h&room=lobby").await["cached"], false);
    let again = hub.get("/unified-stats?range=24h&room=lobby").send().await;
    assert_eq!(again.expect(200)["cached"], true);
    assert!(again.header("cache-control").starts_with("public, max-age="));
    let etag = again.header("etag").to_owned();
    let known = hub.get("/unified-stats?range=24h&room=lobby").header("if-none-match", &etag).send().await;
    assert_eq!((known.status, known.text.as_str(), known.header("etag")), (304, "", etag.as_str()));

    // A commit to another room does not invalidate the cache entry.
    post_view(&hub, "ann", "garden", "/", START).await;
    assert_eq!(stats(&hub, "range=24h&room=lobby").await["cached"], true);
    post_view(&hub, "bob", "lobby", "/", START).await;
    let newer = hub.get("/unified-stats?range=24h&room=lobby").header("if-none-match", &etag).send().await;
    assert_eq!(newer.expect(200)["totals"]["pageViews"], 2);
    assert_eq!(stats(&hub, "range=24h").await["totals"]["pageViews"], 3);
    assert!(hub.metric("breathing_room_stats_answers_total").await >= 6.0);
}

#[tokio::test]
async fn stale_stats_are_served_while_revalidating() {
    let clock = manual_clock();
    let hub = Hub::with_clock(&clock).await;
    post_view(&hub, "ann", "lobby", "/", START).await;
    let first = stats(&hub, "range=7d&tz=Asia/Tokyo").await;
    clock.advance(Duration::from_mins(1));
    let stale = stats(&hub, "range=7d&tz=Asia/Tokyo").await;
    assert_eq!(stale["generatedAt"], first["generatedAt"]);
    let is_newer =
        async || stats(&hub, "range=7d&tz=Asia/Tokyo").await["generatedAt"] != first["generatedAt"];
    eventually(is_newer, "the cache entry is renewed").await;
    clock.advance(Duration::from_mins(30));
    assert_eq!(stats(&hub, "range=7d&tz=Asia/Tokyo").await["cached"], false); // too old to be served
}

#[tokio::test]
async fn equal_stats_requests_share_one_query() {
    let hub = Hub::with_clock(&manual_clock()).await;
    post_view(&hub, "ann", "lobby", "/", START).await;
    let queries = async || {
        let page = hub.get("/metrics").send().await.text;
        let name = r#"breathing_room_stats_query_duration_seconds_count{query="activity"}"#;
        let line = page.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
    };
    // The four that every dashboard asks for are there from the start, and again after the commit.
    eventually(async || queries().await >= 4, "the first answers are made").await;
    let before = queries().await;
    let asked = (0..50).map(|_| Box::pin(stats(&hub, "range=30d&tz=Asia/Tokyo")));
    let responses = futures_util::future::join_all(asked).await;
    assert!(responses.iter().all(|response| response["totals"]["pageViews"] == 1));
    assert_eq!(queries().await, before + 1);
}

#[tokio::test]
async fn bot_events_are_stored_and_excluded_from_stats() {
    let hub = Hub::with_clock(&manual_clock()).await;
    let view = json!({ "id": Uuid::now_v7(), "path": "/", "visitor": "bot", "room": "lobby" });
    let bot = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    let post = hub.post("/page-view?durable=true").header("user-agent", bot).json(&view);
    post.send().await.expect(200);
    post_view(&hub, "ann", "lobby", "/", START).await;
    assert_eq!(hub.rows("SELECT sum(is_bot) FROM page_views").await, [1]);
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [2]);
    let response = stats(&hub, "range=24h").await;
    assert_eq!((&response["totals"]["pageViews"], &response["totals"]["visitors"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn stats_break_down_page_views_by_property() {
    let hub = Hub::with_clock(&manual_clock()).await;
    for (n, plan) in (0..6).map(|n| (n, if n % 3 == 0 { "plus" } else { "free" })) {
        let view = json!({ "id": Uuid::now_v7(), "path": "/", "visitor": "ann", "room": "lobby",
            "props": { "plan": plan, "step": n, "long": "x".repeat(100) } });
        hub.post("/page-view?durable=true").json(&view).send().await.expect(200);
    }
    let plans = stats(&hub, "prop=plan").await["prop"].clone();
    let values = json!([{ "value": "free", "pageViews": 4 }, { "value": "plus", "pageViews": 2 }]);
    assert_eq!(plans, json!({ "key": "plan", "values": values, "other": { "pageViews": 0 } }));
    assert_eq!(stats(&hub, "prop=step").await["prop"]["values"].as_array().unwrap().len(), 6);
    let long = json!([{ "value": format!("{}…", "x".repeat(64)), "pageViews": 6 }]);
    assert_eq!(stats(&hub, "prop=long").await["prop"]["values"], long);
    assert_eq!(stats(&hub, "prop=unheard-of").await["prop"]["values"], json!([]));
    assert!(stats(&hub, "").await.get("prop").is_none());
}

#[tokio::test]
async fn lists_order_by_count_then_text_and_name_the_rest_as_other() {
    let hub = Hub::with_clock(&manual_clock()).await;
    let mut views = Vec::new();
    for n in (0..14).rev() {
        for _ in 0..=u32::from(n == 13) {
            views.push(
                json!({ "id": Uuid::now_v7(), "path": format!("/{n:02}"), "visitor": "ann", "room": "lobby",
                "referrer": format!("https://{n:02}.example/"), "at": START }),
            );
        }
        let watched = 1_000 + n;
        let watch = json!({ "id": Uuid::now_v7(), "content": format!("c{n:02}"), "state": "ended", "watchedMs": watched,
            "startedAt": START - 5000, "at": START, "visitor": "ann", "room": "lobby" });
        hub.post("/watch-session?durable=true").json(&watch).send().await.expect(200);
    }
    for view in &views {
        hub.post("/page-view?durable=true").json(view).send().await.expect(200);
    }
    let day = stats(&hub, "").await;
    let texts = |list: &str, field: &str| -> Vec<String> {
        day[list].as_array().unwrap().iter().map(|row| row[field].as_str().unwrap().to_owned()).collect()
    };
    let expected: Vec<String> = [13].into_iter().chain(0..9).map(|n| format!("/{n:02}")).collect();
    assert_eq!(texts("topPages", "path"), expected);
    let hosts: Vec<String> = expected.iter().map(|path| format!("{}.example", &path[1..])).collect();
    assert_eq!(texts("topReferrers", "referrer"), hosts);
    let contents: Vec<String> = (4..14).rev().map(|n| format!("c{n:02}")).collect();
    assert_eq!(texts("topContent", "content"), contents);
    let other = json!({ "pages": { "pageViews": 4 }, "content": { "watchSessions": 4, "watchedMs": 4_006 },
        "referrers": { "pageViews": 4 } });
    assert_eq!(day["other"], other);
}

#[tokio::test]
async fn own_origins_are_no_referrers() {
    let hub = Hub::with(|config| {
        config.http.allowed_origins = AllowedOrigins::parse("self,https://www.own.example").unwrap();
        config.http.public_url = Some(PublicUrl::parse("https://hub.example").unwrap());
    })
    .await;
    for (n, host) in ["own.example", "WWW.own.example.", "hub.example", "other.example"].iter().enumerate() {
        let view = json!({ "id": Uuid::now_v7(), "path": format!("/{n}"), "visitor": "ann", "room": "lobby",
            "referrer": format!("https://{host}/x") });
        hub.post("/page-view?durable=true").json(&view).send().await.expect(200);
    }
    let day = stats(&hub, "").await;
    assert_eq!(day["topReferrers"], json!([{ "referrer": "other.example", "pageViews": 1 }]));
    assert_eq!(day["other"]["referrers"], json!({ "pageViews": 0 }));
    assert_eq!(day["totals"]["pageViews"], 4);
}

#[tokio::test]
async fn listed_property_is_answered_from_rollups_and_others_from_raw_rows() {
    let clock = manual_clock();
    let hub = Hub::with(|config| {
        config.clock = clock.clone();
        config.history.rollup_props = PropNames::parse("plan").unwrap();
        config.history.retention = "1month".parse().unwrap();
    })
    .await;
    for n in 0..24 {
        let view = json!({ "id": Uuid::now_v7(), "path": "/", "visitor": "ann", "room": "lobby",
            "props": { "plan": format!("p{:02}", n % 12), "other": format!("p{:02}", n % 12), "n": 1.0 } });
        hub.post("/page-view?durable=true").json(&view).send().await.expect(200);
    }
    let listed = stats(&hub, "prop=plan").await["prop"].clone();
    let raw = stats(&hub, "prop=other").await["prop"].clone();
    assert_eq!((&listed["values"], &listed["other"]), (&raw["values"], &json!({ "pageViews": 4 })));
    assert_eq!((raw["values"].as_array().unwrap().len(), &raw["other"]), (10, &listed["other"]));
    assert_eq!(stats(&hub, "prop=n").await["prop"]["values"], json!([{ "value": "1", "pageViews": 24 }]));
    assert_eq!(stats(&hub, "prop=other&room=unheard-of").await["prop"]["values"], json!([]));

    clock.advance(Duration::from_hours(24 * 80));
    hub.run_maintenance().await;
    let year = "range=12mo&prop=";
    assert_eq!(stats(&hub, &format!("{year}plan")).await["prop"]["values"], listed["values"]);
    let archived = hub.get(&format!("/unified-stats?{year}other")).admin().send().await;
    assert!(archived.expect_error(400, "bad-parameter").contains("from that day on"), "{}", archived.text);
    hub.get("/unified-stats?range=24h&prop=other").admin().send().await.expect(200);
}

#[tokio::test]
async fn answer_of_a_past_range_is_kept_for_an_hour_until_a_commit_changes_it() {
    let clock = manual_clock();
    let hub = Hub::with_clock(&clock).await;
    post_view(&hub, "ann", "lobby", "/", START - 26 * HOUR).await;
    let past = format!("from={}&to={}", START - 27 * HOUR, START - 25 * HOUR);
    assert_eq!(stats(&hub, &past).await["cached"], false);
    let generated = stats(&hub, &past).await["generatedAt"].clone();
    clock.advance(Duration::from_mins(59));
    // A commit of another day.
    post_view(&hub, "ann", "lobby", "/", START + 30 * MINUTE).await;
    let kept = stats(&hub, &past).await;
    assert_eq!((&kept["cached"], &kept["generatedAt"]), (&json!(true), &generated));
    assert_eq!(stats(&hub, "").await["totals"]["pageViews"], 1);
    post_view(&hub, "ben", "lobby", "/", START - 26 * HOUR).await;
    assert_eq!(stats(&hub, &past).await["totals"]["pageViews"], 2);
    let generated = stats(&hub, &past).await["generatedAt"].clone();
    clock.advance(Duration::from_mins(62));
    eventually(async || stats(&hub, &past).await["generatedAt"] != generated, "a newer answer").await;
}

#[tokio::test]
async fn events_too_old_or_a_day_ahead_are_rejected() {
    let hub = Hub::with_clock(&manual_clock()).await;
    let post = async |at: u64| {
        let view = json!({ "id": Uuid::now_v7(), "path": "/", "at": at, "visitor": "ann", "room": "lobby" });
        hub.post("/page-view").json(&view).send().await
    };
    for at in [START - 7 * DAY, START + DAY - 1] {
        post(at).await.expect(202);
    }
    let old = post(START - 7 * DAY - 1).await.expect_error(400, "bad-field");
    assert_eq!(old, "at: must not be more than 7 days ago");
    let ahead = post(START + DAY).await.expect_error(400, "bad-field");
    assert_eq!(ahead, "at: must not be a day or more in the future");
    let mut ann = hub.join("lobby", "ann").await;
    let id = Uuid::now_v7();
    ann.send_event(
        json!({ "type": "watch", "id": id, "content": "c", "state": "playing", "watchedMs": 0, "at": 1 }),
    )
    .await;
    ann.expect_error("bad-field").await;
}

#[tokio::test]
async fn time_that_is_ahead_becomes_now_and_is_counted() {
    let hub = Hub::with_clock(&manual_clock()).await;
    let view =
        |at: u64| json!({ "id": Uuid::now_v7(), "path": "/", "at": at, "visitor": "ann", "room": "lobby" });
    hub.post("/page-view").json(&json!([view(START + 23 * HOUR), view(START - 1)])).send().await.expect(202);
    let mut ann = hub.join("lobby", "ann").await;
    ann.send_event(json!({ "type": "page-view", "id": Uuid::now_v7(), "path": "/", "at": START + 1 })).await;
    // The client's clock is ahead by an hour: it played for ten minutes.
    ann.send_event(json!({ "type": "watch", "id": Uuid::now_v7(), "content": "c", "state": "ended",
        "watchedMs": 10 * MINUTE, "startedAt": START + 50 * MINUTE, "at": START + HOUR }))
        .await;
    ann.round_trip().await;
    hub.flush().await;
    assert_eq!(hub.metric("breathing_room_event_times_ahead_total").await, 3.0);
    assert_eq!(hub.rows("SELECT at FROM page_views ORDER BY at").await, [START - 1, START, START]);
    let sessions = "SELECT json_array(started_at, updated_at, watched_ms) FROM watch_sessions";
    let [started, at, watched] = [START - 10 * MINUTE, START + 1, 10 * MINUTE];
    let rows = hub.rows(sessions).await;
    assert!(
        rows == [json!([started, at - 1, watched])] || rows == [json!([started + 1, at, watched])],
        "{rows:?}"
    );
}

#[tokio::test]
async fn range_in_seconds_is_rejected() {
    let hub = Hub::with_clock(&manual_clock()).await;
    let (from, to) = (START / 1000 - 3_600, START / 1000);
    let error = hub.get(&format!("/unified-stats?from={from}&to={to}")).send().await;
    let message = error.expect_error(400, "bad-parameter");
    assert!(
        message.starts_with("from: must be milliseconds") && message.contains("seconds: multiply"),
        "{message}"
    );
}

#[tokio::test]
async fn hosts_and_property_values_are_counted_under_one_name() {
    let hub = Hub::with_clock(&manual_clock()).await;
    let referrers = [
        "https://www.Example.org/",
        "http://example.org.:80/a",
        "https://www.com/",
        "https://bücher.example/",
        "https://xn--bcher-kva.example./",
        "app:///opened",
    ];
    for (n, referrer) in referrers.iter().enumerate() {
        // 1.0 is sent as it is written: `json!` keeps the kind of a number.
        let step = [json!(1), json!(1.0), json!(2.5)][n % 3].clone();
        let view = json!({ "id": Uuid::now_v7(), "path": "/", "referrer": referrer, "visitor": "ann",
            "room": "lobby", "props": { "step": step } });
        hub.post("/page-view?durable=true").json(&view).send().await.expect(200);
    }
    let day = stats(&hub, "prop=step").await;
    let referrer = |host: &str, views: u64| json!({ "referrer": host, "pageViews": views });
    let expected = [referrer("example.org", 2), referrer("xn--bcher-kva.example", 2), referrer("www.com", 1)];
    assert_eq!(day["topReferrers"], json!(expected));
    let values = json!([{ "value": "1", "pageViews": 4 }, { "value": "2.5", "pageViews": 2 }]);
    assert_eq!(day["prop"]["values"], values);
}

#[tokio::test]
async fn whole_number_with_a_fraction_of_zero_is_accepted() {
    let hub = Hub::with_clock(&manual_clock()).await;
    let mut ann = hub.join("lobby", "ann").await;
    let id = Uuid::now_v7();
    let watch = format!(
        r#"{{"type":"watch","ref":1.0,"id":"{id}","content":"c","state":"ended","watchedMs":5000.0,
            "startedAt":{}.0,"positionMs":5e3,"at":{START}.0}}"#,
        START - MINUTE
    );
    ann.send_text(&watch).await;
    ann.round_trip().await;
    hub.flush().await;
    ann.expect_ack(1).await;
    let sessions = "SELECT json_array(started_at, updated_at, watched_ms, position_ms) FROM watch_sessions";
    assert_eq!(hub.rows(sessions).await, [json!([START - MINUTE, START, 5000, 5000])]);
}
