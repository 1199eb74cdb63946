//! `kill -9` at random moments under load: each acked event is on disk, and no event counts twice.
//!
//! Clients follow the protocol: they keep unacked events and send them again with the same ids. `ROUNDS=200` runs more
//! rounds than the default; `SEED` repeats the moments of a run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use breathing_room::config::Clock;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use crate::support::{Client, Program, Request, rows};

const ROUNDS: u64 = 5;
const SOCKETS: usize = 8;
const POSTERS: usize = 2;
/// Unacked events per socket.
const WINDOW: usize = 100;
const PAGES_IN_A_POST: usize = 5;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// The events of one client, over all its connections.
#[derive(Default)]
struct ClientEvents {
    pages: Vec<Uuid>,
    /// The largest `watchedMs` sent for each watch session.
    watched: BTreeMap<Uuid, u64>,
    /// Unacked events, in the order of their first sending.
    unacked: VecDeque<Value>,
    acked: usize,
}

impl ClientEvents {
    /// Makes an event: a page view, or a message of a new or a running watch session.
    fn next(&mut self, round: u64) -> Value {
        let id = Uuid::now_v7();
        let event = if self.pages.len() % 4 < 3 || self.watched.len() > self.pages.len() / 2 {
            self.pages.push(id);
            json!({ "type": "page-view", "id": id, "path": format!("/round/{round}") })
        } else {
            let goes_on = self.watched.len() % 2 == 1;
            let last = self.watched.last_key_value().map(|(id, watched)| (*id, *watched));
            let (id, watched) = last.filter(|(_, watched)| goes_on && *watched < 9_000).unwrap_or((id, 0));
            self.watched.insert(id, watched + 1_500);
            let started_at = Clock::system().wall().millis() - 3_600_000;
            json!({
                "type": "watch", "id": id, "content": "river", "state": "paused",
                "startedAt": started_at, "watchedMs": watched + 1_500,
            })
        };
        self.unacked.push_back(event.clone());
        event
    }

    /// Sends unacked events again and then new ones, until the hub is killed; in the `last` round, until all are acked.
    async fn over_a_socket(&mut self, address: &str, visitor: &str, round: u64, last: bool) {
        let url = format!("ws://{address}/rooms/lobby/socket?visitor={visitor}");
        let Ok(mut client) = Client::connect(&url).await else { return };
        let (mut sent, mut acked) = (0, 0);
        loop {
            while sent - acked < WINDOW && !(last && sent - acked == self.unacked.len()) {
                let known = self.unacked.get(sent - acked).cloned();
                let mut event = known.unwrap_or_else(|| self.next(round));
                sent += 1;
                event["ref"] = sent.into();
                if client.try_send_json(event).await.is_err() {
                    break;
                }
            }
            match client.next().await {
                Ok(message) if message["type"] == "ack" => {
                    let up_to = usize::try_from(message["upTo"].as_u64().unwrap()).unwrap();
                    self.unacked.drain(..up_to - acked);
                    self.acked += up_to - acked;
                    acked = up_to;
                }
                Ok(message) => assert_ne!(message["type"], "error", "{message}"),
                Err(_) => return,
            }
            if last && self.unacked.is_empty() {
                return;
            }
        }
    }

    /// Does the same with durable posts of page views.
    async fn over_http(&mut self, address: &str, visitor: &str, round: u64, last: bool) {
        loop {
            if self.unacked.is_empty() {
                if last {
                    return;
                }
                for _ in 0..PAGES_IN_A_POST {
                    let id = Uuid::now_v7();
                    self.pages.push(id);
                    let path = format!("/round/{round}");
                    self.unacked
                        .push_back(json!({ "id": id, "path": path, "visitor": visitor, "room": "lobby" }));
                }
            }
            let body = Value::from(Vec::from(self.unacked.clone()));
            let post = Request::new(address, "POST", "/page-view?durable=true").json(&body);
            let Ok(response) = post.try_send().await else { return };
            assert_eq!(response.expect(200)["committed"], self.unacked.len());
            self.acked += self.unacked.len();
            self.unacked.clear();
        }
    }
}

/// Runs all clients until the hub is killed; in the last round, until all events are acked.
fn run_clients(
    clients: &mut Vec<ClientEvents>,
    hub: &Program,
    round: u64,
    last: bool,
) -> JoinSet<(usize, ClientEvents)> {
    let mut running = JoinSet::new();
    for (index, mut events) in clients.drain(..).enumerate() {
        let (address, visitor) = (hub.address.clone(), format!("v{index}"));
        running.spawn(async move {
            if index < SOCKETS {
                events.over_a_socket(&address, &visitor, round, last).await;
            } else {
                events.over_http(&address, &visitor, round, last).await;
            }
            (index, events)
        });
    }
    running
}

async fn join_clients(running: JoinSet<(usize, ClientEvents)>) -> Vec<ClientEvents> {
    let mut clients = running.join_all().await;
    clients.sort_by_key(|(index, _)| *index);
    clients.into_iter().map(|(_, events)| events).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_no_acked_event_and_duplicates_none() {
    let (rounds, seed) = (setting("ROUNDS", ROUNDS), setting("SEED", rand::random()));
    println!("SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let settings = [("FLUSH_INTERVAL", "20ms"), ("RATE_LIMITS", "off")];
    let mut clients: Vec<ClientEvents> = (0..SOCKETS + POSTERS).map(|_| ClientEvents::default()).collect();
    let mut sent_again = 0;
    for round in 0..rounds {
        let hub = Program::start(folder.path(), &settings).await;
        let running = run_clients(&mut clients, &hub, round, false);
        sleep(Duration::from_millis(random.random_range(5..400))).await;
        hub.signal("KILL").await;
        hub.wait().await;
        clients = join_clients(running).await;
        sent_again += clients.iter().map(|events| events.unacked.len()).sum::<usize>();
    }
    let acked: usize = clients.iter().map(|events| events.acked).sum();
    let hub = Program::start(folder.path(), &settings).await;
    clients = join_clients(run_clients(&mut clients, &hub, rounds, true)).await;
    assert!(clients.iter().all(|events| events.unacked.is_empty()), "all events are acked at the end");
    let pages: BTreeSet<String> =
        clients.iter().flat_map(|events| &events.pages).map(Uuid::to_string).collect();
    let stats = hub.get("/unified-stats?range=24h").send().await.expect(200);
    assert_eq!(stats["totals"]["pageViews"], pages.len(), "each page view counts once");
    hub.signal("TERM").await;
    assert_eq!(hub.wait().await.code(), Some(0));

    let file = folder.path().join("hub.db");
    let stored = rows(&file, "SELECT json_quote(id) FROM page_views").await;
    let found: BTreeSet<String> = stored.iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    let (missing, doubled) = (pages.difference(&found).count(), stored.len() - found.len());
    assert_eq!((missing, doubled, stored.len()), (0, 0, pages.len()));
    let watched: BTreeMap<Uuid, u64> = clients.iter().flat_map(|events| events.watched.clone()).collect();
    let stored = rows(&file, "SELECT json_array(id, watched_ms) FROM watch_sessions").await;
    let found: Vec<(Uuid, u64)> =
        stored.into_iter().map(|row| serde_json::from_value(row).unwrap()).collect();
    assert_eq!((found.len(), BTreeMap::from_iter(found)), (watched.len(), watched.clone()));
    let url = format!("sqlite://{}", file.display());
    let check = Program::run(&["check"], &[("DATABASE_URL", &url)]).await;
    assert_eq!(check.code, Some(0), "{check:?}");
    println!(
        "{rounds} kills: {acked} events acked before them, {sent_again} sent again; {} page views and {} watch \
         sessions: {missing} missing, {doubled} duplicated; {}",
        pages.len(),
        watched.len(),
        check.stdout.trim(),
    );
}
