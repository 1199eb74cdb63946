//! The self-audit of a running hub: it runs every minute and reports no difference where there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use breathing_room::Config;

use crate::support::{Hub, eventually, manual_clock};

const MOODS: [Option<&str>; 3] = [Some("calm"), Some("joy"), None];

/// Minimum number of audits while visitors join and leave.
const AUDITS: f64 = 5.0;

/// Visitors join, leave, disconnect and change moods in three rooms during consecutive audits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn self_audit_finds_no_difference_under_constant_change() {
    let clock = manual_clock();
    let by_clock = |config: &mut Config| {
        config.clock = clock.clone();
        config.transport.limits = None;
        config.presence.leave_grace = Duration::from_millis(5);
    };
    let hub = Hub::with(by_clock).await;
    let mut visitors = tokio::task::JoinSet::new();
    let is_audited = Arc::new(AtomicBool::new(false));
    for number in 0..12 {
        let (address, is_audited) = (hub.address.clone(), Arc::clone(&is_audited));
        visitors.spawn(async move {
            for visit in 0.. {
                if visit >= 15 && is_audited.load(Ordering::Relaxed) {
                    break;
                }
                let room = format!("room-{}", (number + visit) % 3);
                let query = format!("visitor=v{}", number % 8); // some visitors have two sockets
                let mut client = crate::support::Client::join(&address, &room, &query).await;
                client.set_mood(MOODS[visit % 3]).await;
                client.round_trip().await;
                if visit % 2 == 0 { client.leave().await } else { client.disconnect() }
            }
        });
    }
    let mut audits = 0.0;
    while !visitors.is_empty() {
        let done = async || {
            clock.advance(Duration::from_mins(1));
            hub.metric("breathing_room_audits_total").await > audits
        };
        eventually(done, "another audit ran").await;
        audits = hub.metric("breathing_room_audits_total").await;
        is_audited.store(audits >= AUDITS, Ordering::Relaxed);
        while let Some(ended) = visitors.try_join_next() {
            ended.unwrap();
        }
    }
    assert!(audits >= AUDITS, "{audits} audits");
    assert_eq!(hub.metric("breathing_room_audit_differences_total").await, 0.0);
    hub.expect_debug("liveUsers", 0).await;
}
