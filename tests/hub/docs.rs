//! docs/operations.md: it lists exactly the exported metrics, and every health reason.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::Hub;

fn operations() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap()
}

/// The metric names in a text, without the suffixes of histograms.
fn names(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text.split(|c| !is_part(c)).filter(|word| word.starts_with("breathing_room_"));
    words
        .map(|word| {
            ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word)
        })
        .collect()
}

#[tokio::test]
async fn documented_and_exported_metrics_are_the_same() {
    let hub = Hub::start().await;
    hub.post_page_view("ann", "/").await;
    hub.run_maintenance().await;
    hub.get("/unified-stats?range=24h").send().await.expect(200);
    let page = hub.get("/metrics").send().await.text;
    let operations = operations();
    let (exported, documented) = (names(&page), names(&operations));
    assert_eq!(exported.difference(&documented).collect::<Vec<_>>(), Vec::<&&str>::new(), "not documented");
    assert_eq!(documented.difference(&exported).collect::<Vec<_>>(), Vec::<&&str>::new(), "not exported");
}

#[tokio::test]
async fn every_health_reason_is_documented() {
    let health = Hub::start().await.get("/health").send().await.expect(200);
    assert_eq!(health["reason"], Value::Null);
    for reason in [
        "locked",
        "disk-full",
        "read-only",
        "disk-error",
        "damaged",
        "file-gone",
        "foreign",
        "database-error",
        "queue-full",
        "overdue",
    ] {
        assert!(operations().contains(&format!("| `{reason}` |")), "{reason}");
    }
}
