//! Deterministic simulation: three nodes in simulated time, over a transport that loses, delays, repeats, reorders and
//! cuts off, against a model of who is present.
//!
//! Each seed gives one scenario of random steps: visitors join, leave, are lost, set moods and sit on any node, nodes are
//! restarted in order or killed, also with a clock that was set back, clocks are apart, and the network fails and heals. When the network is good for some
//! seconds, all nodes and all sockets must have the state of the model. `CLUSTER_SEED=7` repeats one seed, and
//! `CLUSTER_SEEDS=2000` runs more of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::memory::Network;
use super::metrics::ClusterMetrics;
use super::node::{self, NodeParts, Running};
use super::sealed::SealingKey;
use super::transport::INCOMING_LIMIT;
use super::{Cluster, ClusterStatus, OwnState};
use crate::panics::Panics;
use crate::presence::audit::audit;
use crate::presence::metrics::PresenceMetrics;
use crate::presence::share::ClusterKey;
use crate::presence::{self, Hold, HoldReason, Membership, PermittedSit, Registry, SitOutcome, expiry};
use crate::protocol::frame::Frame;
use crate::protocol::{Features, RoomId, Time, VisitorId};
use crate::sync::lock;
use crate::time::Clock;
use crate::transport::writer::SocketWriter;
use model::{Person, PersonHold};

const NODES: [&str; 3] = ["a", "b", "c"];
const ROOMS: [&str; 2] = ["lobby", "garden"];
const VISITORS: [&str; 5] = ["ann", "bob", "carol", "dan", "eve"];
const MOODS: [&str; 3] = ["calm", "joy", "sad"];

const START: u64 = 1_796_083_200_000;
const GRACE: u64 = 3_000;
const SEAT_HOLD: u64 = 12_000;

/// The time in which all nodes agree after the network is good again.
const SETTLE: u64 = 5_000;

type Member = (&'static str, &'static str);

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    Good,
    Slow,
    Lossy,
    /// The first node cannot reach the second one, nor be reached.
    Cut(usize, usize),
    /// The node reaches none, not even itself.
    Alone(usize),
}

/// One socket.
struct Socket {
    node: usize,
    member: Member,
    membership: Option<Membership>,
    peer: TcpStream,
    read: Vec<u8>,
    seq: u64,
    state: (u64, BTreeMap<String, u64>),
}

impl Socket {
    /// Reads the states that have arrived. Their numbers rise.
    fn read(&mut self) {
        let mut buffer = [0; 4_096];
        while let Ok(length @ 1..) = self.peer.try_read(&mut buffer) {
            self.read.extend(&buffer[..length]);
        }
        loop {
            let (start, length) = match self.read[..] {
                [0x81, length @ 0..126, ..] => (2, usize::from(length)),
                [0x81, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
                _ => return,
            };
            if self.read.len() < start + length {
                return;
            }
            let text: Vec<u8> = self.read.drain(..start + length).skip(start).collect();
            let message: Value = serde_json::from_slice(&text).unwrap();
            if message["type"] == "presence" {
                let seq = message["seq"].as_u64().unwrap();
                assert!(seq > self.seq, "seq rises on one socket: {seq} after {}", self.seq);
                self.seq = seq;
                let moods = serde_json::from_value(message["moods"].clone()).unwrap();
                self.state = (message["present"].as_u64().unwrap(), moods);
            }
        }
    }
}

/// One node, while it runs.
struct SimulatedNode {
    registry: Arc<Registry>,
    cluster: Cluster,
    running: Running,
}

struct Simulation {
    random: StdRng,
    network: Network,
    weather: Arc<Mutex<Weather>>,
    clocks: Vec<Clock>,
    nodes: Vec<Option<SimulatedNode>>,
    /// Who was held when a node stopped in order, and when that was.
    saved: BTreeMap<usize, (Vec<presence::Occupant>, Instant, Time)>,
    /// Nodes that were killed: their next runs do not know the visitors of the one before.
    killed: BTreeSet<usize>,
    sockets: Vec<Socket>,
    persons: BTreeMap<Member, Person>,
    now: u64,
    log: Vec<String>,
    listener: TcpListener,
    is_skewed: bool,
}

impl Simulation {
    async fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let is_skewed = random.random_range(0..4) == 0;
        let mut ahead = || if is_skewed { random.random_range(0..40_000) } else { 20_000 };
        let clocks = NODES.map(|_| Clock::manual(Time::from_millis(START + ahead()))).to_vec();
        let weather = Arc::new(Mutex::new(Weather::Good));
        let network = network(seed, Arc::clone(&weather));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut simulation = Self {
            random,
            network,
            weather,
            clocks,
            nodes: vec![None, None, None],
            saved: BTreeMap::new(),
            killed: BTreeSet::new(),
            sockets: Vec::new(),
            persons: BTreeMap::new(),
            now: 0,
            log: Vec::new(),
            listener,
            is_skewed,
        };
        for node in 0..NODES.len() {
            simulation.start(node);
        }
        simulation.pass(1_500).await;
        simulation
    }

    fn say(&mut self, line: &str) {
        self.log.push(format!("{:>7} ms  {line}", self.now));
    }

    fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.random.random_range(0..choices.len())]
    }

    /// Starts a node, with the visitors who were held when it stopped in order.
    fn start(&mut self, node: usize) {
        self.nodes[node] = Some(self.open(node));
    }

    /// Opens a node that the simulation does not keep.
    fn open(&mut self, node: usize) -> SimulatedNode {
        let panics = Panics::register();
        let config = presence::Config { max_rooms_per_visitor: None, ..presence::Config::default() };
        let key = ClusterKey::derive("the-admins-token", "test");
        let clock = self.clocks[node].clone();
        let metrics = PresenceMetrics::register(&panics);
        let registry = Registry::open(config, clock.clone(), metrics, Some(key));
        if let Some((occupants, stopped, wall)) = self.saved.remove(&node) {
            let away = stopped.elapsed();
            for presence::Occupant { room, visitor, mood, hold, sit, sit_holds, .. } in occupants {
                let now = Instant::now();
                let hold = hold.filter(|hold| hold.reason != HoldReason::Sit).map(|hold| {
                    let left = hold.deadline.saturating_duration_since(stopped);
                    Hold::new(
                        hold.reason,
                        now,
                        left.min(Duration::from_millis(SEAT_HOLD)).saturating_sub(away),
                    )
                });
                let sit = sit.filter(|sit| sit.deadline > now);
                let by_sit = sit.filter(|_| sit_holds).map(Hold::from);
                let hold = hold.into_iter().chain(by_sit).max_by_key(|hold| hold.deadline);
                if let Some(hold) = hold.filter(|hold| hold.deadline > now) {
                    let sit = sit.map(|sit| PermittedSit { sit, permit: None });
                    registry.restore(&room, &visitor, mood, (hold, sit), Some(wall)).unwrap();
                }
            }
        }
        let (sender, incoming) = mpsc::channel(INCOMING_LIMIT);
        let connect = self.network.config().connect.unwrap();
        let name = NODES[node].to_owned();
        let transport = connect.0(&name, sender);
        let status = ClusterStatus::at_start("test".to_owned(), name.clone());
        let cluster = Cluster::new(transport, SealingKey::derive("the-admins-token", "test"), status);
        let parts = NodeParts {
            cluster: cluster.clone(),
            node: name,
            incarnation: self.random.random(),
            registry: Arc::clone(&registry),
            clock,
            incoming,
            metrics: ClusterMetrics::register(),
            seat_hold: Duration::from_millis(SEAT_HOLD),
            log: None,
        };
        let running = node::start(&panics, parts);
        SimulatedNode { registry, cluster, running }
    }

    /// Starts a node that is down, on a machine whose wall clock was set back.
    fn start_again(&mut self, node: usize, back_ms: u64) {
        self.say(&format!("{} starts again, and its clock {back_ms} ms back", NODES[node]));
        self.clocks[node] = Clock::manual(self.clocks[node].wall().minus(back_ms));
        self.start(node);
    }

    /// Lets time pass, in steps.
    async fn pass(&mut self, millis: u64) {
        let mut left = millis;
        while left > 0 {
            let step = left.min(100);
            left -= step;
            self.now += step;
            let by = Duration::from_millis(step);
            self.clocks.iter().for_each(|clock| clock.advance(by));
            tokio::time::advance(by).await;
            self.run_until_idle().await;
        }
        let now = self.now;
        for person in self.persons.values_mut() {
            person.holds.retain(|hold| hold.until > now);
            person.killed.take_if(|(_, until)| *until <= now);
            person.sit.take_if(|until| *until <= now);
            if !person.may_count(now) {
                (person.mood, person.sit) = (None, None);
            }
        }
    }

    async fn run_until_idle(&mut self) {
        for _ in 0..12 {
            for node in self.nodes.iter().flatten() {
                expiry::expire_due(&node.registry).await;
            }
            yield_now().await;
        }
        self.sockets.iter_mut().for_each(Socket::read);
    }

    async fn join(&mut self, node: usize, member: Member, mood: Option<&'static str>) {
        let Some(running) = &self.nodes[node] else { return };
        let person = self.persons.get(&member);
        if person.is_some_and(|person| person.may_count(self.now) && !person.counts(self.now)) {
            return; // whether the visit and its mood go on is not known
        }
        let peer = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
        let writer = Arc::new(SocketWriter::new(self.listener.accept().await.unwrap().0));
        let (room, visitor) = names(member);
        let registry = &running.registry;
        let set = mood.and_then(|mood| registry.vocabulary().find(mood));
        let joined = registry.join(&room, &visitor, set, Arc::clone(&writer), Features::default()).unwrap();
        let snapshot = joined.snapshot;
        writer.open(snapshot.seq, &Frame::json(&"welcome"));
        let named = serde_json::to_value(registry.vocabulary().named(&snapshot.moods)).unwrap();
        let state = (snapshot.present.into(), serde_json::from_value(named).unwrap());
        let membership = Some(joined.membership);
        self.sockets.push(Socket {
            node,
            member,
            membership,
            peer,
            read: Vec::new(),
            seq: snapshot.seq,
            state,
        });
        self.say(&format!("{member:?} joins {} in mood {mood:?}", NODES[node]));
        let person = self.persons.entry(member).or_default();
        person.sockets.push(node);
        person.holds.clear(); // a join ends each hold
        if let Some((sure, _)) = &mut person.killed {
            *sure = 0;
        }
        person.mood = mood.or(person.mood);
    }

    fn end(&mut self, index: usize, is_lost: bool) {
        let mut socket = self.sockets.remove(index);
        let membership = socket.membership.take().unwrap();
        let (node, member, now) = (socket.node, socket.member, self.now);
        if is_lost {
            let grace = Duration::from_millis(GRACE);
            membership.leave_with_hold(HoldReason::Grace, grace, SitOutcome::Holds);
        } else {
            drop(membership);
        }
        self.say(&format!("{member:?} {} {}", if is_lost { "is lost on" } else { "leaves" }, NODES[node]));
        let person = self.persons.get_mut(&member).unwrap();
        let index = person.sockets.iter().position(|on| *on == node).unwrap();
        person.sockets.remove(index);
        if is_lost {
            person.is_lost(node, now);
        } else {
            person.has_left(node, now);
        }
        if !person.may_count(now) {
            (person.mood, person.sit) = (None, None);
        }
    }

    /// A visitor begins a sit, sets another end of it, or ends it, while the network is good. All nodes get to know it.
    async fn sit(&mut self, index: usize) {
        self.settle().await;
        let length = self.choose(&[0, 0, 1_000, 9_000, 40_000, 70_000]);
        let socket = &self.sockets[index];
        let (node, member) = (socket.node, socket.member);
        let membership = socket.membership.as_ref().unwrap();
        membership.sit(Duration::from_millis(length), |_| Ok(None)).unwrap();
        self.say(&format!("{member:?} sits for {length} ms on {}", NODES[node]));
        let person = self.persons.get_mut(&member).unwrap();
        (person.sit, person.is_sit_unsure) = (Some(self.now + length).filter(|_| length > 0), false);
        self.pass(300).await;
    }

    fn set_mood(&mut self, index: usize) {
        let mood = if self.random.random_range(0..4) == 0 { None } else { Some(self.choose(&MOODS)) };
        let socket = &self.sockets[index];
        let (node, member) = (socket.node, socket.member);
        let registry = &self.nodes[node].as_ref().unwrap().registry;
        let set = mood.and_then(|mood| registry.vocabulary().find(mood));
        socket.membership.as_ref().unwrap().set_mood(set);
        self.say(&format!("{member:?} sets mood {mood:?} on {}", NODES[node]));
        self.persons.get_mut(&member).unwrap().mood = mood;
    }

    /// Stops a node in order: its visitors are held for the seat hold.
    async fn stop(&mut self, node: usize) {
        let Some(SimulatedNode { registry, running, .. }) = self.nodes[node].take() else { return };
        self.say(&format!("{} is stopped", NODES[node]));
        registry.begin_restart();
        let now = self.now;
        for mut socket in self.take_sockets(node) {
            let membership = socket.membership.take().unwrap();
            membership.leave_with_hold(HoldReason::Grace, Duration::from_millis(GRACE), SitOutcome::Holds);
            let person = self.persons.get_mut(&socket.member).unwrap();
            person.sockets.retain(|on| *on != node);
            person.holds.push(PersonHold { node, until: now + SEAT_HOLD, is_sit: person.sit(now).is_some() });
            person.is_killed(0, now + SEAT_HOLD + 300); // the other nodes look ten times in a second
        }
        self.persons.values_mut().for_each(|person| person.loses_node(now));
        self.saved.insert(node, (registry.occupants(), Instant::now(), self.clocks[node].wall()));
        running.leave().await;
        self.network.remove(NODES[node]);
    }

    /// Kills a node: its visitors are held until 15 s after its last message, which is at most a second old.
    fn kill(&mut self, node: usize) {
        let Some(killed) = self.nodes[node].take() else { return };
        self.say(&format!("{} is killed", NODES[node]));
        self.network.remove(NODES[node]);
        drop(killed);
        self.killed.insert(node);
        let now = self.now;
        let sockets = self.take_sockets(node);
        for mut socket in sockets {
            std::mem::forget(socket.membership.take()); // its registry is gone
            self.persons.get_mut(&socket.member).unwrap().is_killed(now + 13_500, now + 17_000);
        }
        for person in self.persons.values_mut() {
            person.sockets.retain(|on| *on != node);
            let held: Vec<_> = person.holds.extract_if(.., |hold| hold.node == node).collect();
            for PersonHold { until, is_sit, .. } in held {
                let sure = if is_sit { 0 } else { until.min(now + 13_500) };
                person.is_killed(sure, until.max(now + 17_000));
            }
            person.loses_node(now);
        }
    }

    fn take_sockets(&mut self, node: usize) -> Vec<Socket> {
        self.sockets.extract_if(.., |socket| socket.node == node).collect()
    }

    fn set_weather(&mut self, weather: Weather) {
        self.say(&format!("the network is {weather:?}"));
        *lock(&self.weather) = weather;
    }

    /// Lets the network be good for a while. Then all nodes and sockets have the state of the model.
    async fn settle(&mut self) {
        self.set_weather(Weather::Good);
        let holds = self.persons.values().flat_map(|person| &person.holds);
        let ends: Vec<u64> = holds.map(|hold| hold.until).collect();
        self.pass(SETTLE).await;
        if ends.iter().any(|end| *end <= self.now && self.now - end < 300) {
            self.pass(300).await; // until all nodes have heard of the end
        }
        for room in ROOMS {
            self.check(room).await;
        }
    }

    async fn check(&mut self, room: &'static str) {
        let now = self.now;
        let persons = self.persons.iter().filter(|((of, _), _)| *of == room);
        let (mut least, mut most, mut moods) = (0, 0, BTreeMap::<String, u64>::new());
        let mut connected = 0;
        for (_, person) in persons {
            let is_sure = !person.sockets.is_empty() || person.holds.iter().any(|hold| hold.until > now);
            connected += u64::from(is_sure);
            least += u64::from(person.counts(now));
            most += u64::from(person.may_count(now));
            if let Some(mood) = person.mood.filter(|_| person.counts(now)) {
                *moods.entry(mood.to_owned()).or_default() += 1;
            }
        }
        self.say(&format!("{room}: {least} to {most} are expected, {moods:?}"));
        let mut states = BTreeSet::new();
        for (index, (name, node)) in NODES.iter().zip(&self.nodes).enumerate() {
            let Some(node) = node else { continue };
            let snapshot = node.registry.snapshot(&RoomId::try_from(room).unwrap());
            let named = serde_json::to_value(node.registry.vocabulary().named(&snapshot.moods)).unwrap();
            let found: BTreeMap<String, u64> = serde_json::from_value(named).unwrap();
            let present = u64::from(snapshot.present);
            if self.killed.contains(&index) && most > connected {
                continue;
            }
            assert!(
                (least..=most).contains(&present),
                "{room} on {name}: {present} present: {:?}",
                self.persons
            );
            if least == most {
                assert_eq!(found, moods, "moods of the {room} on {name}: {:?}", self.persons);
                states.insert((present, found.into_iter().collect::<Vec<_>>()));
            }
            assert_eq!(audit(&node.registry).await, [], "the audit of {name}");
            assert_ne!(node.cluster.status().own, OwnState::NameTaken, "{name} was restarted at most");
        }
        if least == most {
            assert!(states.len() <= 1, "all nodes agree");
            let knows = |node: usize| !self.killed.contains(&node) || most == connected;
            for socket in self.sockets.iter().filter(|socket| socket.member.0 == room && knows(socket.node)) {
                assert_eq!(socket.state, (least, moods.clone()), "the last state of a socket of {room}");
            }
        }
    }

    async fn step(&mut self) {
        let running: Vec<usize> = (0..3).filter(|node| self.nodes[*node].is_some()).collect();
        let down: Vec<usize> = (0..3).filter(|node| self.nodes[*node].is_none()).collect();
        let socket = (!self.sockets.is_empty()).then(|| self.random.random_range(0..self.sockets.len()));
        match (self.random.random_range(0..100), socket) {
            (0..30, _) if self.sockets.len() < 14 => {
                let (node, member) = (self.choose(&running), (self.choose(&ROOMS), self.choose(&VISITORS)));
                let mood = (self.random.random_range(0..3) == 0).then(|| self.choose(&MOODS));
                self.join(node, member, mood).await;
            }
            (30..42, Some(index)) => self.end(index, false),
            (42..54, Some(index)) => self.end(index, true),
            (54..63, Some(index)) => self.set_mood(index),
            (63..66, Some(index)) => self.sit(index).await,
            (66..74, _) if !self.is_skewed => {
                let (one, other) = (self.choose(&[0, 1, 2]), self.choose(&[0, 1, 2]));
                let weathers = [
                    Weather::Good,
                    Weather::Slow,
                    Weather::Lossy,
                    Weather::Cut(one, other),
                    Weather::Alone(one),
                ];
                let weather = self.choose(&weathers);
                self.set_weather(weather);
            }
            (74..78, _) if down.is_empty() => {
                self.settle().await;
                let node = self.choose(&running);
                if self.random.random() { self.stop(node).await } else { self.kill(node) }
            }
            (78..84, _) if !down.is_empty() => {
                let is_good = *lock(&self.weather) == Weather::Good;
                let back = if is_good { self.choose(&[0, 0, 0, 30_000]) } else { 0 };
                self.is_skewed |= back > 0;
                self.start_again(down[0], back);
                if self.is_skewed {
                    self.pass(1_100).await; // until it has heard the clocks of the others
                }
            }
            (84..88, _) => self.settle().await,
            _ => {}
        }
        let longest = self.choose(&[3, 60, 400, 2_000, 20_000]);
        let pause = self.random.random_range(1..=longest);
        // Moods of nodes with clocks apart are ordered by what they have heard of each other.
        self.pass(if self.is_skewed { pause + 300 } else { pause }).await;
    }

    /// Brings everything to an end. Nothing is left then, not even of visitors who are gone.
    async fn finish(&mut self) {
        self.settle().await;
        for node in 0..NODES.len() {
            if self.nodes[node].is_none() {
                self.start(node);
            }
        }
        while !self.sockets.is_empty() {
            self.end(0, false);
            self.pass(7).await;
        }
        self.pass(20_000).await;
        self.settle().await;
        self.pass(150_000).await;
        for (name, node) in NODES.iter().zip(&self.nodes) {
            let node = node.as_ref().unwrap();
            let outgoing = node.registry.take_outgoing().unwrap();
            assert_eq!(
                (outgoing.sum.entries, outgoing.sum.sum, outgoing.people),
                (0, 0, 0),
                "the share of {name}"
            );
            let totals = node.registry.totals();
            assert_eq!((totals.visitors, totals.rooms), (0, 0), "{name}");
            let status = node.cluster.status();
            assert_eq!((status.live(), status.silent()), (3, 0), "{name}: {status:?}");
        }
    }
}

fn names((room, visitor): Member) -> (RoomId, VisitorId) {
    (RoomId::try_from(room).unwrap(), VisitorId::try_from(visitor).unwrap())
}

/// A network with this weather.
fn network(seed: u64, weather: Arc<Mutex<Weather>>) -> Network {
    let mut random = StdRng::seed_from_u64(seed ^ 0x5eed);
    Network::new(Box::new(move |from, to| {
        let index = |name: &str| NODES.iter().position(|node| *node == name).unwrap();
        let (from, to) = (index(from), index(to));
        let mut after = |most: u64| Duration::from_millis(random.random_range(0..=most));
        match *lock(&weather) {
            Weather::Cut(a, b) if (from, to) == (a, b) || (from, to) == (b, a) => Vec::new(),
            Weather::Alone(node) if from == node || to == node => Vec::new(),
            Weather::Good | Weather::Cut(..) | Weather::Alone(_) => vec![after(3)],
            Weather::Slow => vec![after(300)],
            Weather::Lossy => match after(9).as_millis() {
                0 | 1 => Vec::new(),
                2 => vec![after(100), after(700)],
                _ => vec![after(60)],
            },
        }
    }))
}

mod model;
mod scenarios;
