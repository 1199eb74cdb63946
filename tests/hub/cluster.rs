//! What a hub without a cluster answers about it: `tests/cluster` has the hubs that have one.

use serde_json::{Value, json};

use crate::support::{Hub, eventually};

#[tokio::test]
async fn hub_of_its_own_is_single_and_names_no_node() {
    let hub = Hub::with(|config| config.session.node = "here".to_owned()).await;
    let _ann = hub.join("lobby", "ann").await;
    let mut status = hub.get("/cluster").admin().send().await.expect(200);
    status["timestamp"].take();
    let single = json!({ "cluster": null, "node": "here", "state": "single", "nodes": [], "refused": 0, "log": null,
        "timestamp": null });
    assert_eq!(status, single);
    for path in ["/rooms/lobby", "/live-activity"] {
        let counts = hub.get(path).send().await.expect(200);
        assert_eq!((&counts["node"], &counts["cluster"]), (&Value::Null, &Value::Null), "{path}");
    }
}

#[tokio::test]
async fn admin_lists_the_visitors_of_a_room_in_pages() {
    let hub = Hub::with(|config| {
        config.session.node = "here".to_owned();
        config.presence.leave_grace = std::time::Duration::from_hours(1);
    })
    .await;
    for path in ["/cluster", "/rooms/lobby/visitors"] {
        hub.get(path).send().await.expect_error(401, "unauthorized");
    }
    let get = async |path: &str| hub.get(path).admin().send().await.expect(200);
    let empty = json!({ "room": "lobby", "visitors": [], "next": null, "missing": [] });
    assert_eq!(get("/rooms/lobby/visitors").await, empty);

    let _cid = hub.join("lobby", "cid").await;
    let _ann = hub.join_with_mood("lobby", "ann", "calm").await;
    let _elsewhere = hub.join("garden", "eve").await;
    hub.join_with_mood("lobby", "bob", "joy").await.disconnect();
    hub.expect_held(1).await;
    let page = get("/rooms/lobby/visitors?limit=2").await;
    let visitors = page["visitors"].as_array().unwrap();
    let fields = |visitor: &Value| ["visitor", "mood", "node", "held"].map(|name| visitor[name].clone());
    let all: Vec<_> = visitors.iter().map(fields).collect();
    assert_eq!(all[0], [json!("ann"), json!("calm"), json!("here"), Value::Null]);
    assert_eq!(all[1], [json!("bob"), json!("joy"), json!("here"), json!("grace")]);
    assert_eq!((all.len(), &page["next"]), (2, &json!("bob")));
    let rest = get("/rooms/lobby/visitors?limit=2&after=bob").await;
    assert_eq!((&rest["visitors"][0]["visitor"], &rest["next"]), (&json!("cid"), &Value::Null));

    for bad in ["limit=0", "limit=1001", "limit=x", "after=a%20b"] {
        let path = format!("/rooms/lobby/visitors?{bad}");
        hub.get(&path).admin().send().await.expect_error(400, "bad-parameter");
    }
    eventually(async || get("/cluster").await["state"] == "single", "it stays single").await;
}
