//! The lifecycle of old history: monthly rollups, archives, pruning, and failures of single steps.

use std::fs;
use std::io::Read;
use std::time::Duration;

use breathing_room::config::{Clock, Time};
use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use crate::support::Hub;

const DAY: Duration = Duration::from_hours(24);

/// A hub in the morning of 30 January 2024, and its clock.
async fn hub_of_2024() -> (Hub, Clock) {
    let clock = Clock::manual(Time::from_millis(1_706_600_000_000));
    let hub = Hub::with(|config| config.clock = clock.clone()).await;
    (hub, clock)
}

fn lines(packed: &[u8]) -> Vec<Value> {
    let mut text = String::new();
    MultiGzDecoder::new(packed).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn old_history_is_rolled_up_archived_and_pruned() {
    let (hub, clock) = hub_of_2024().await;
    for path in ["/", "/", "/garden"] {
        hub.post_page_view("ann", path).await;
    }
    clock.advance(30 * DAY); // 29 February
    hub.post_page_view("ben", "/").await;
    let report = hub.run_maintenance().await;
    let counts = |report: &Value| {
        let steps = report["steps"].as_object().unwrap();
        assert!(
            steps.values().all(|step| step["failures"] == json!([]) && step["tookMs"].is_u64()),
            "{report}"
        );
        ["quarters", "months", "archive"].map(|step| report["steps"][step]["count"].as_u64().unwrap_or(0))
    };
    assert_eq!(counts(&report), [0, 1, 0], "January gets monthly rollups");
    let levels =
        "SELECT json_array(level, count(*), sum(page_views)) FROM activity_rollups WHERE room = 0 GROUP BY 1";
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [4]);

    clock.advance(62 * DAY); // 1 May
    assert_eq!(
        counts(&hub.run_maintenance().await),
        [1, 1, 0],
        "January's quarter-hour rollups are pruned, February gets monthly rollups"
    );
    clock.advance(304 * DAY); // 1 March 2025
    let report = hub.run_maintenance().await;
    assert_eq!(counts(&report), [1, 0, 1], "January is older than 13 months");
    assert_eq!(report["archived"], json!([{ "month": "2024-01", "rows": 3 }]));
    assert_eq!(counts(&hub.run_maintenance().await), [0, 0, 0], "nothing is due any more");

    // The rows are in the archive, and the rollups still count them.
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [1]);
    let rollups = [json!(["day", 2, 4]), json!(["month", 2, 4])];
    assert_eq!(hub.rows(&levels.replace("GROUP BY 1", "GROUP BY level")).await, rollups);
    let rows = lines(&fs::read(hub.archives().join("breathing-room-2024-01.jsonl.gz")).unwrap());
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row["type"] == "page-view" && row["visitor"] == "ann"), "{rows:?}");
    let beside = fs::read_to_string(hub.archives().join("breathing-room-2024-01.jsonl.gz.sha256")).unwrap();
    assert!(
        beside.ends_with("  breathing-room-2024-01.jsonl.gz\n") && beside.find(' ') == Some(64),
        "{beside}"
    );
    assert_eq!(hub.metric("breathing_room_archived_months_total").await, 1.0);
    assert!(hub.metric("breathing_room_freed_pages_total").await > 0.0);
    assert_eq!(hub.metric("breathing_room_maintenance_failures_total").await, 0.0);
    assert!(hub.metric("breathing_room_maintenance_duration_seconds_count").await > 0.0);
}

#[tokio::test]
async fn failed_maintenance_step_does_not_stop_the_others() {
    let (hub, clock) = hub_of_2024().await;
    hub.post_page_view("ann", "/").await;
    clock.advance(500 * DAY);
    fs::write(hub.archives(), "no folder").unwrap();
    let report = hub.run_maintenance().await;
    let failures = report["steps"]["archive"]["failures"].as_array().unwrap();
    assert_eq!((failures.len(), &report["archived"]), (1, &json!([])), "{report}");
    assert_eq!(report["steps"]["months"]["count"], 1);
    assert_eq!(report["steps"]["checkpoint"]["count"], 1);
    // The search for files that a crash has left fails too.
    assert_eq!(hub.metric("breathing_room_maintenance_failures_total").await, 2.0);
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [1], "the rows stay in the database");

    fs::remove_file(hub.archives()).unwrap();
    assert_eq!(hub.run_maintenance().await["archived"], json!([{ "month": "2024-01", "rows": 1 }]));
}

#[tokio::test]
async fn parallel_maintenance_requests_share_one_run_and_need_admin() {
    let (hub, _) = hub_of_2024().await;
    hub.post("/maintain").send().await.expect_error(401, "unauthorized");
    hub.get("/maintain").admin().send().await.expect_error(405, "method-not-allowed");
    let all = (0..5).map(|_| Box::pin(hub.run_maintenance()));
    for report in futures_util::future::join_all(all).await {
        assert!(report["tookMs"].is_u64() && report["steps"]["vacuum"].is_object(), "{report}");
    }
}
