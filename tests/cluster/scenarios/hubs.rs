//! Hubs that crash or hang.

use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::figure::{Figure, Scale};
use crate::member::{Member, Range, millis_since};
use crate::support::eventually;

/// A killed hub's people are out 15 s after its last message and not before, except those who come back elsewhere; none
/// of them is a ghost.
pub async fn kill_hub(scale: Scale) -> Vec<Figure> {
    let mut cluster = Cluster::start().await;
    let mut ends = Vec::new();
    for _ in 0..scale.of(1, 20) {
        let observers = [
            Member::join(&[&cluster.nodes[1].address], "lobby", "observer-1").await,
            Member::join(&[&cluster.nodes[2].address], "lobby", "observer-2").await,
        ];
        let (mut back, mut gone) = (Vec::new(), Vec::new());
        for n in 0..4 {
            back.push(cluster.join(0, "lobby", &format!("back-{n}")).await);
            gone.push(Member::join(&[&cluster.nodes[0].address], "lobby", &format!("gone-{n}")).await);
        }
        for observer in &observers {
            observer.until_present(10).await;
            observer.reset_range();
        }
        let killed = Instant::now();
        cluster.nodes[0].kill().await;
        drop(gone);
        cluster.nodes[1].until_health("peer-lost").await;
        assert_eq!(cluster.nodes[1].room("lobby").await["cluster"]["silent"], 1);
        for member in back.iter().chain(&observers) {
            member.until("the first dip", |seen| seen.present < 10).await;
            // The last message of a node is at most a second older than its death.
            assert!(killed.elapsed() >= Duration::from_secs(14), "out after {:?}", killed.elapsed());
            member.until_present(6).await;
        }
        ends.push(millis_since(killed));
        for observer in &observers {
            assert_eq!(observer.range(), Range { min: 6, max: 10 }, "those who came back stayed");
        }
        cluster.nodes[0].open().await;
        cluster.until_whole().await;
        cluster.until_present("lobby", 6).await;
        for member in back.into_iter().chain(observers) {
            member.leave().await;
        }
        cluster.until_present("lobby", 0).await;
    }
    vec![Figure::millis("kill-hub", "death to the others out", ends, 16_500.0)]
}

/// A hub that hangs does not delay an answer of the others, which say that a node is silent.
pub async fn stop_hub(scale: Scale) -> Vec<Figure> {
    let cluster = Cluster::start().await;
    let ann = Member::join(&[&cluster.nodes[0].address], "lobby", "ann").await;
    let bob = Member::join(&[&cluster.nodes[2].address], "lobby", "bob").await;
    ann.until_present(2).await;
    let visitors = async || cluster.nodes[0].get("/rooms/lobby/visitors").admin().send().await.expect(200);
    let all = visitors().await;
    let names: Vec<_> = all["visitors"].as_array().unwrap().iter().map(|it| it["visitor"].clone()).collect();
    assert_eq!((names, all["missing"].clone()), (vec!["ann".into(), "bob".into()], serde_json::json!([])));

    cluster.nodes[2].signal("STOP").await;
    let mut answers = Vec::new();
    for _ in 0..scale.of(20, 200) {
        let began = Instant::now();
        assert_eq!(cluster.nodes[0].room("lobby").await["present"], 2);
        answers.push(millis_since(began));
    }
    let some = visitors().await;
    assert_eq!(
        (some["visitors"][0]["visitor"].clone(), some["missing"][0].clone()),
        ("ann".into(), "node-2".into())
    );
    cluster.nodes[0].until_health("peer-lost").await;
    cluster.nodes[2].signal("CONT").await;
    cluster.until_whole().await;
    cluster.nodes[0].until_health("").await;
    cluster.until_present("lobby", 2).await;
    let is_complete = async || visitors().await["missing"] == serde_json::json!([]);
    eventually(is_complete, "all nodes answer again").await;
    drop(bob);
    vec![Figure::millis("stop-hub", "count beside a node that hangs", answers, 100.0)]
}
