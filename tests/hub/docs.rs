//! docs/operations.md lists exactly the exported metrics and the health reasons. The files in deploy/ use only these metrics
//! and those of docs/cluster.md, and each alert has a test and a section. Links between pages lead somewhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::layers::files;
use crate::support::{Hub, metric_names};

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn operations() -> String {
    read("docs/operations.md")
}

#[tokio::test]
async fn documented_and_exported_metrics_are_the_same() {
    let hub = Hub::start().await;
    hub.post_page_view("ann", "/").await;
    hub.run_maintenance().await;
    hub.get("/unified-stats?range=24h").send().await.expect(200);
    let page = hub.get("/metrics").send().await.text;
    let operations = operations();
    let (exported, documented) = (metric_names(&page), metric_names(&operations));
    assert_eq!(exported.difference(&documented).collect::<Vec<_>>(), Vec::<&&str>::new(), "not documented");
    assert_eq!(documented.difference(&exported).collect::<Vec<_>>(), Vec::<&&str>::new(), "not exported");
}

/// The values of all enums in a schema.
fn values<'a>(document: &'a Value, schema: &'a Value, found: &mut BTreeSet<&'a str>) {
    match schema {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                values(document, document.pointer(reference.trim_start_matches('#')).unwrap(), found);
            }
            for (key, field) in fields {
                match (key.as_str(), field) {
                    ("enum", Value::Array(named)) => found.extend(named.iter().filter_map(Value::as_str)),
                    ("const", Value::String(named)) => found.extend([named.as_str()]),
                    _ => values(document, field, found),
                }
            }
        }
        Value::Array(schemas) => schemas.iter().for_each(|schema| values(document, schema, found)),
        _ => {}
    }
}

#[tokio::test]
async fn documented_and_possible_health_reasons_are_the_same() {
    let document = Hub::start().await.get("/openapi.json").send().await.expect(200);
    let mut possible = BTreeSet::new();
    let health = &document["components"]["schemas"]["Health"]["properties"]["reason"];
    values(&document, health, &mut possible);
    let operations = operations();
    let section = operations.split("\n## ").find(|section| section.starts_with("Health\n")).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let documented: BTreeSet<&str> = rows.map(|(name, _)| name).filter(|name| *name != "reason").collect();
    assert!(possible.len() > 10, "{possible:?}");
    assert_eq!(documented, possible);
}

#[test]
fn deploy_uses_documented_metrics_only() {
    // A hub exports those of the log only where it has one.
    let documented = operations() + &read("docs/cluster.md");
    let documented = metric_names(&documented);
    for file in [
        "deploy/prometheus/rules.yml",
        "deploy/prometheus/rules_test.yml",
        "deploy/grafana/breathing-room.json",
    ] {
        let text = read(file);
        let used = metric_names(&text);
        assert!(!used.is_empty(), "{file}");
        assert_eq!(used.difference(&documented).collect::<Vec<_>>(), Vec::<&&str>::new(), "{file}");
    }
}

/// All pages.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = files(&root.join("docs"), "md");
    let top = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    pages.extend(top.filter(|path| path.extension().is_some_and(|end| end == "md")));
    pages.extend(["fuzz/README.md", "web/client/README.md"].map(|name| root.join(name)));
    pages
}

/// Lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The anchors that GitHub makes of the headings in a text.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings =
        prose(text).filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#'));
    let kept = |c: char| c.is_alphanumeric() || ['-', '_', ' '].contains(&c);
    headings
        .map(|line| line.trim().to_lowercase().chars().filter(|c| kept(*c)).collect::<String>())
        .map(|line| line.replace(' ', "-"))
        .collect()
}

#[test]
fn relative_links_of_all_pages_lead_to_files_and_headings() {
    let (mut checked, mut broken) = (0, Vec::new());
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        let links = prose(&text).flat_map(|line| line.split("](").skip(1));
        for target in links.map(|link| link.split(')').next().unwrap()).filter(|link| !link.contains(':')) {
            checked += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let has_anchor =
                || anchor.is_empty() || anchors(&std::fs::read_to_string(&to).unwrap()).contains(anchor);
            if !to.exists() || !has_anchor() {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(checked > 100, "{checked}");
    assert_eq!(broken, [""; 0]);
}

#[test]
fn every_alert_has_a_test_and_a_section() {
    let (rules, tests, operations) =
        (read("deploy/prometheus/rules.yml"), read("deploy/prometheus/rules_test.yml"), operations());
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10);
    assert_eq!(rules.matches("\n        for: ").count(), alerts.len(), "each alert says how long it waits");
    for alert in alerts {
        assert!(tests.contains(&format!("- alertname: {alert}\n")), "{alert} has no test");
        assert!(operations.contains(&format!("### {alert}\n")), "{alert} has no section");
        let runbook = format!("runbook_url: \"docs/operations.md#{}\"", alert.to_lowercase());
        assert!(rules.contains(&runbook), "{alert} has no runbook");
    }
}
