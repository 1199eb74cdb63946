//! Several nodes over a transport in memory: a visitor counts once, keeps the mood and the sit from node to node, and no
//! member sees a change of node. The transport over NATS and processes have tests of their own.

use std::time::Duration;

use breathing_room::Config;
use breathing_room::internals::Network;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Client, Hub, eventually};

/// A network that delivers everything at once.
fn network() -> Network {
    Network::new(Box::new(|_, _| vec![Duration::ZERO]))
}

async fn node(network: &Network, name: &str) -> Hub {
    in_folder(network, name, tempfile::tempdir().unwrap()).await
}

async fn in_folder(network: &Network, name: &str, folder: TempDir) -> Hub {
    Hub::in_folder(folder, |config: &mut Config| {
        config.cluster = network.config();
        name.clone_into(&mut config.session.node);
        config.presence.leave_grace = Duration::from_hours(1);
    })
    .await
}

async fn present(hub: &Hub, room: &str) -> u64 {
    hub.get(&format!("/rooms/{room}")).send().await.expect(200)["present"].as_u64().unwrap()
}

async fn expect_present(hub: &Hub, room: &str, expected: u64) {
    eventually(async || present(hub, room).await == expected, &format!("{expected} in the {room}")).await;
}

/// Waits until a node has heard that another one has this many visitors of its own.
async fn expect_people(hub: &Hub, peer: &str, expected: u64) {
    let people = async || {
        let cluster = hub.get("/cluster").admin().send().await.expect(200);
        let nodes = cluster["nodes"].as_array().unwrap().clone();
        nodes.iter().find(|node| node["name"] == peer).and_then(|node| node["people"].as_u64())
    };
    eventually(async || people().await == Some(expected), &format!("{expected} visitors on {peer}")).await;
}

/// The visitors of a node who are held, by reason.
async fn held(hub: &Hub, reason: &str) -> usize {
    let page = hub.get("/metrics").admin().send().await.text;
    let start = format!("breathing_room_held{{reason=\"{reason}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
}

#[tokio::test]
async fn visitors_of_all_nodes_are_in_one_room_and_leave_it() {
    let network = network();
    let (a, b, c) = (node(&network, "a").await, node(&network, "b").await, node(&network, "c").await);
    let mut ann = a.join("lobby", "ann").await;
    let mut bob = b.join_with_mood("lobby", "bob", "calm").await;
    let mut carol = c.join("lobby", "carol").await;
    for client in [&mut ann, &mut bob, &mut carol] {
        client.expect_present(3).await.expect_moods(json!({ "calm": 1 })).await;
    }
    bob.leave().await;
    ann.expect_present(2).await.expect_moods(json!({})).await;
    carol.expect_present(2).await;
    carol.leave().await;
    ann.expect_present(1).await;
    assert_eq!(a.get("/health").send().await.expect(200)["liveUsers"], 1);
    ann.leave().await;
    for hub in [&a, &b, &c] {
        expect_present(hub, "lobby", 0).await;
        eventually(
            async || hub.get("/health").send().await.expect(200)["liveUsers"] == 0,
            "no visitors on any node",
        )
        .await;
    }
}

#[tokio::test]
async fn visitor_on_two_nodes_counts_once_and_closing_one_socket_sends_no_frame() {
    let network = network();
    let (a, b) = (node(&network, "a").await, node(&network, "b").await);
    let mut member = a.join("lobby", "member").await;
    let mut first = a.join_with_mood("lobby", "ann", "calm").await;
    member.expect_present(2).await.expect_moods(json!({ "calm": 1 })).await;
    expect_present(&b, "lobby", 2).await;
    let mut second = b.join("lobby", "ann").await;
    assert_eq!(second.welcome["present"], 2);
    assert_eq!(second.welcome["moods"], json!({ "calm": 1 }), "the mood comes along");
    second.set_mood(Some("joy")).await;
    member.expect_moods(json!({ "joy": 1 })).await;
    first.set_mood(Some("hope")).await;
    second.expect_moods(json!({ "hope": 1 })).await;
    member.expect_moods(json!({ "hope": 1 })).await;
    let frames = member.presence_frames;
    first.leave().await;
    // A later change reaches the member: nothing was in between.
    let _dan = b.join("lobby", "dan").await;
    member.expect_present(3).await.expect_moods(json!({ "hope": 1 })).await;
    assert_eq!(member.presence_frames, frames + 1);
    second.leave().await;
    member.expect_present(2).await.expect_moods(json!({})).await;
}

#[tokio::test]
async fn own_mood_that_is_set_on_another_node_reaches_the_sockets_that_follow_it() {
    let network = network();
    let (a, b) = (node(&network, "a").await, node(&network, "b").await);
    let mut first = Client::join(&a.address, "lobby", "visitor=ann&features=own-mood&mood=calm").await;
    expect_present(&b, "lobby", 1).await;
    let mut second = Client::join(&b.address, "lobby", "visitor=ann&features=own-mood").await;
    assert_eq!(second.welcome["mood"], "calm");
    second.set_mood(Some("joy")).await;
    assert_eq!(second.expect("own-mood").await["mood"], "joy");
    assert_eq!(first.expect("own-mood").await["mood"], "joy");
}

#[tokio::test]
async fn own_sit_that_is_set_on_another_node_reaches_the_sockets_that_follow_it() {
    let network = network();
    let (a, b) = (node(&network, "a").await, node(&network, "b").await);
    let mut laptop = Client::join(&a.address, "lobby", "visitor=ann&features=own-sit").await;
    expect_present(&b, "lobby", 1).await;
    let mut phone = b.join("lobby", "ann").await;
    for for_ms in [600_000, 0] {
        phone.send_json(json!({ "type": "sit", "forMs": for_ms })).await;
        let until = phone.expect("sit").await["until"].clone();
        assert_eq!(laptop.expect("own-sit").await["until"], until);
    }
}

#[tokio::test]
async fn visitor_who_is_lost_on_one_node_and_back_on_another_is_no_change() {
    let network = network();
    let (a, b) = (node(&network, "a").await, node(&network, "b").await);
    let mut member = a.join("lobby", "member").await;
    let mut ann = a.join_with_mood("lobby", "ann", "calm").await;
    member.expect_present(2).await;
    expect_present(&b, "lobby", 2).await;
    for hop in 0..10 {
        let (from, to) = if hop % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let frames = member.presence_frames;
        ann.disconnect();
        // A connection that is lost after the next one has begun leaves a hold, as it does on one node.
        eventually(async || held(from, "grace").await == 1, "the loss is seen").await;
        ann = to.join("lobby", "ann").await;
        assert_eq!(
            (ann.welcome["present"].as_u64(), &ann.welcome["moods"]),
            (Some(2), &json!({ "calm": 1 }))
        );
        member.round_trip().await;
        assert_eq!((member.present, member.presence_frames), (2, frames), "hop {hop}");
    }
    // The holds that she has left behind end with her.
    ann.leave().await;
    member.expect_present(1).await;
    expect_present(&b, "lobby", 1).await;
    for hub in [&a, &b] {
        eventually(async || held(hub, "grace").await == 0, "no holds").await;
    }
}

#[tokio::test]
async fn mood_of_a_visit_that_is_over_does_not_come_back_from_another_node() {
    let network = network();
    let (a, b) = (node(&network, "a").await, node(&network, "b").await);
    let mut member = b.join("lobby", "member").await;
    let ann = a.join_with_mood("lobby", "ann", "sad").await;
    member.expect_moods(json!({ "sad": 1 })).await;
    ann.leave().await;
    member.expect_present(1).await;
    let again = b.join("lobby", "ann").await;
    assert_eq!(again.welcome["moods"], json!({}));
    member.expect_present(2).await.expect_moods(json!({})).await;
}

/// A member on node a, and a visitor in a sit with a socket on each node.
struct Sit {
    member: Client,
    on_a: Client,
    on_b: Client,
    until: Value,
}

async fn sit_on_two_nodes(a: &Hub, b: &Hub) -> Sit {
    let mut member = a.join("lobby", "member").await;
    let mut on_a = a.join("lobby", "ann").await;
    on_a.send_json(json!({ "type": "sit", "forMs": 4_800_000 })).await;
    let until = on_a.expect("sit").await["until"].clone();
    member.expect_present(2).await;
    expect_present(b, "lobby", 2).await;
    let on_b = b.join("lobby", "ann").await;
    assert_eq!(on_b.welcome["sit"], until);
    Sit { member, on_a, on_b, until }
}

#[tokio::test]
async fn presence_sample_names_the_nodes_whose_visitors_it_has() {
    let network = network();
    let (a, b) = (node(&network, "a").await, node(&network, "b").await);
    let ann = a.join("lobby", "ann").await;
    expect_people(&b, "a", 1).await;
    expect_present(&b, "lobby", 1).await;
    b.flush().await;
    let newest = "SELECT nodes FROM presence WHERE room IS NULL ORDER BY at DESC LIMIT 1";
    assert_eq!(b.rows(newest).await, [json!(["a", "b"])]);
    drop(ann);
}

#[tokio::test]
async fn leave_on_one_node_ends_the_sit_that_holds_the_visitor_on_another() {
    let network = network();
    let (a, b) = (node(&network, "a").await, node(&network, "b").await);
    let Sit { mut member, on_a, on_b, .. } = sit_on_two_nodes(&a, &b).await;
    on_a.disconnect();
    a.expect_debug("sessions", 1).await;
    on_b.leave().await;
    member.expect_present(1).await;
    expect_present(&b, "lobby", 1).await;
}

#[tokio::test]
async fn sit_that_was_set_on_one_node_holds_the_visitor_on_another() {
    let network = network();
    let (a, b) = (node(&network, "a").await, node(&network, "b").await);
    let Sit { mut member, on_a, on_b, until } = sit_on_two_nodes(&a, &b).await;
    // To node a, the first socket is the last one until it has heard of the second.
    expect_people(&a, "b", 1).await;
    on_a.leave().await;
    on_b.disconnect();
    eventually(async || held(&b, "sit").await == 1, "a hold for the sit on the node that lost the socket")
        .await;
    member.round_trip().await;
    assert_eq!(member.present, 2);
    let third = a.join("lobby", "ann").await;
    assert_eq!(third.welcome["sit"], until);
    third.leave().await;
    member.expect_present(1).await;
    expect_present(&b, "lobby", 1).await;
}

#[tokio::test]
async fn restart_of_a_node_changes_no_count_on_any_node() {
    let network = network();
    let (mut a, b) = (node(&network, "a").await, node(&network, "b").await);
    let mut member = b.join("lobby", "member").await;
    let ann = a.join_with_mood("lobby", "ann", "calm").await;
    let bob = a.join("lobby", "bob").await;
    member.expect_present(3).await.expect_moods(json!({ "calm": 1 })).await;
    let frames = member.presence_frames;
    a.signal();
    let mut ann = ann;
    ann.expect_close().await;
    let ann = b.join("lobby", "ann").await;
    assert_eq!(ann.welcome["moods"], json!({ "calm": 1 }));
    let folder = a.wait().await;
    drop(bob);
    let a = in_folder(&network, "a", folder).await;
    let bob = a.join("lobby", "bob").await;
    expect_present(&a, "lobby", 3).await;
    member.round_trip().await;
    assert_eq!((member.present, member.presence_frames), (3, frames));
    ann.leave().await;
    member.expect_present(2).await;
    expect_present(&a, "lobby", 2).await;
    bob.leave().await;
    member.expect_present(1).await;
    expect_present(&a, "lobby", 1).await;
}

#[tokio::test]
async fn node_that_starts_late_gets_the_shares_of_the_others() {
    let network = network();
    let a = node(&network, "a").await;
    let mut clients = Vec::new();
    for n in 0..40 {
        clients.push(a.join(&format!("room-{}", n % 3), &format!("v{n}")).await);
    }
    clients.pop().unwrap().leave().await;
    let b = node(&network, "b").await;
    for (room, expected) in [("room-0", 13), ("room-1", 13), ("room-2", 13)] {
        expect_present(&b, room, expected).await;
    }
    let health = b.get("/health").send().await.expect(200);
    assert_eq!(health["liveUsers"], 39);
}
