//! What a client of NATS without the admin token sees of the cluster, and what it can ask.

use crate::cluster::Cluster;
use crate::spy::Spy;
use crate::support::eventually;

const VISITORS: [&str; 3] = ["ann-with-a-long-id", "bob-with-a-long-id", "carol-with-a-long-id"];

#[tokio::test(flavor = "multi_thread")]
async fn client_of_nats_without_the_token_finds_no_id_and_gets_no_answer() {
    let cluster = Cluster::start().await;
    let mut spy = Spy::start(&cluster.nats.address(0)).await;
    let mut members = Vec::new();
    for (n, visitor) in VISITORS.iter().enumerate() {
        members.push(cluster.join(n, "lobby", visitor).await);
    }
    cluster.until_present("lobby", 3).await;
    let listed = async || {
        let page = cluster.nodes[0].get("/rooms/lobby/visitors?after=a").admin().send().await.expect(200);
        assert_eq!(page["missing"], serde_json::json!([]));
        let visitors = page["visitors"].as_array().unwrap().clone();
        visitors.iter().map(|it| it["visitor"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed().await, VISITORS);
    eventually(async || spy.answers("breathing-room.ask.") == 2, "the spy sees both answers").await;

    // It asks in clear text, and repeats the question that it has seen.
    let asked = spy.messages("breathing-room.ask.node-1").remove(0);
    let clear = br#"{"room":"lobby","after":null,"limit":1000}"#;
    spy.ask(&asked.subject, clear, "spy.clear").await;
    spy.ask(&asked.subject, &asked.payload, "spy.repeated").await;
    let refused = async || cluster.nodes[1].metric("breathing_room_cluster_unreadable_updates_total").await;
    eventually(async || refused().await == 2.0, "both questions are refused").await;
    assert_eq!(listed().await, VISITORS, "questions of nodes are answered meanwhile");
    eventually(async || spy.answers("breathing-room.ask.") == 4, "and the spy sees it").await;
    assert!(spy.messages("spy.").is_empty(), "no answers to its own questions");

    for visitor in VISITORS {
        assert!(!spy.has(visitor.as_bytes()), "{visitor} in a message");
    }
    assert!(spy.has(b"lobby"), "it did see the updates");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_with_one_name_are_degraded_and_say_so() {
    let mut cluster = Cluster::start().await;
    let ann = cluster.join(0, "lobby", "ann").await;
    cluster.until_present("lobby", 1).await;
    // A quick restart is no namesake, which would be seen after 5 s.
    cluster.nodes[1].stop().await;
    cluster.nodes[1].open().await;
    cluster.until_whole().await;
    let namesake = cluster.namesake_of(1).await;
    for node in [&cluster.nodes[1], &namesake] {
        node.until_health("name-taken").await;
        assert_eq!(node.cluster().await["state"], "name-taken");
        assert_eq!(node.room("lobby").await["cluster"]["silent"], 1);
        assert!(node.log().contains("another node has the name of this one"), "{}", node.log());
    }
    assert_eq!(cluster.nodes[1].log().matches("another node has the name").count(), 1, "once a minute");
    drop(namesake);
    cluster.nodes[1].until_health("").await;
    cluster.until_whole().await;
    drop(ann);
}
