//! docs/cluster.md lists exactly the metrics that a node of a cluster has besides those of every hub.

use std::collections::BTreeSet;

use serde_json::json;
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::support::metric_names;

#[tokio::test(flavor = "multi_thread")]
async fn documented_metrics_of_a_cluster_and_those_of_a_node_are_the_same() {
    let cluster = Cluster::start().await;
    let node = &cluster.nodes[0];
    node.until_health("").await;
    // Histograms have no lines before their first value: a change on another node, and a message of this one.
    let _ann = cluster.join(1, "lobby", "ann").await;
    node.until_present("lobby", 1).await;
    let view = json!({ "id": Uuid::now_v7(), "visitor": "ann", "room": "lobby", "path": "/" });
    node.post("/page-view?durable=true").json(&view).send().await.expect(200);
    let page = node.get("/metrics").send().await.text;
    let exported = metric_names(&page);
    let of_every_hub = metric_names(include_str!("../../docs/operations.md"));
    let documented = metric_names(include_str!("../../docs/cluster.md"));
    let of_cluster = exported.difference(&of_every_hub).copied().collect::<BTreeSet<_>>();
    assert_eq!(of_cluster.difference(&documented).collect::<Vec<_>>(), Vec::<&&str>::new(), "not documented");
    assert_eq!(documented.difference(&exported).collect::<Vec<_>>(), Vec::<&&str>::new(), "not exported");
}
