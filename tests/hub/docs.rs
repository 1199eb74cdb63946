//! docs/operations.md lists exactly the exported metrics, and every health reason. The files in deploy/ use only these
//! metrics and those of docs/cluster.md, and each alert has a test and a section.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::Hub;

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn operations() -> String {
    read("docs/operations.md")
}

/// The metric names in a text, without the suffixes of histograms.
fn names(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text
        .split(|c| !is_part(c))
        .filter(|word| word.starts_with("breathing_room_") || word.starts_with("process_"));
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
        "wal-large",
        "alone",
        "peer-lost",
        "log-away",
        "lagging",
        "log-reset",
        "log-gone",
        "replicas-differ",
    ] {
        assert!(operations().contains(&format!("| `{reason}` |")), "{reason}");
    }
}

#[test]
fn deploy_uses_documented_metrics_only() {
    // A hub exports those of the log only where it has one.
    let documented = operations() + &read("docs/cluster.md");
    let documented = names(&documented);
    for file in [
        "deploy/prometheus/rules.yml",
        "deploy/prometheus/rules_test.yml",
        "deploy/grafana/breathing-room.json",
    ] {
        let text = read(file);
        let used = names(&text);
        assert!(!used.is_empty(), "{file}");
        assert_eq!(used.difference(&documented).collect::<Vec<_>>(), Vec::<&&str>::new(), "{file}");
    }
}

#[test]
fn every_alert_has_a_test_and_a_section() {
    let (rules, tests, operations) =
        (read("deploy/prometheus/rules.yml"), read("deploy/prometheus/rules_test.yml"), operations());
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10);
    for alert in alerts {
        assert!(tests.contains(&format!("- alertname: {alert}\n")), "{alert} has no test");
        assert!(operations.contains(&format!("### {alert}\n")), "{alert} has no section");
        let runbook = format!("runbook_url: \"docs/operations.md#{}\"", alert.to_lowercase());
        assert!(rules.contains(&runbook), "{alert} has no runbook");
    }
}
