//! agree: many people change moods, come and go on three nodes, and all sockets end with the state of a model.
//! flood: everyone joins at once.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, interval, sleep};

use crate::cluster::{Cluster, Setup};
use crate::figure::{Figure, Scale};
use crate::member::{Member, Seen, millis_since};

/// Moods of the people. `tired` is that of the probes.
const MOODS: [&str; 6] = ["calm", "gratitude", "joy", "love", "peace", "hope"];

/// A room with its people, and what they should see.
struct Room {
    name: String,
    people: Vec<Member>,
    moods: Vec<Option<&'static str>>,
    guest: Option<Member>,
    /// On another node in each room.
    probe: Member,
    is_tired: bool,
}

impl Room {
    async fn open(cluster: &Cluster, number: usize, size: usize) -> Self {
        let name = format!("room-{number}");
        let joins = (0..size).map(|n| {
            let (name, visitor) = (name.clone(), format!("v-{number}-{n}"));
            async move { Member::join(&[cluster.nodes[n % 3].address.as_str()], &name, &visitor).await }
        });
        let people: Vec<Member> = stream::iter(joins).buffer_unordered(20).collect().await;
        let at = cluster.nodes[number % 3].address.as_str();
        let probe = Member::join(&[at], &name, &format!("probe-{number}")).await;
        Self { name, moods: vec![None; people.len()], people, guest: None, probe, is_tired: false }
    }

    /// One change: a mood, or a guest who comes or leaves.
    async fn change(&mut self, random: &mut StdRng, cluster: &Cluster) {
        if random.random_range(0..20) == 0 {
            match self.guest.take() {
                Some(guest) if random.random() => guest.leave().await,
                Some(guest) => {
                    // Broken here and back on another node, before the end of the grace.
                    guest.disconnect();
                    self.guest = Some(self.join_guest(random, cluster).await);
                }
                None => self.guest = Some(self.join_guest(random, cluster).await),
            }
            return;
        }
        let person = random.random_range(0..self.people.len());
        let mood = (random.random_range(0..10) > 0).then(|| MOODS[random.random_range(0..MOODS.len())]);
        self.people[person].set_mood(mood);
        self.moods[person] = mood;
    }

    async fn join_guest(&self, random: &mut StdRng, cluster: &Cluster) -> Member {
        let at = cluster.nodes[random.random_range(0..3)].address.as_str();
        Member::join(&[at], &self.name, &format!("guest-{}", self.name)).await
    }

    /// What everyone should see in the end.
    fn expected(&self) -> (u64, BTreeMap<String, u64>) {
        let mut moods = BTreeMap::new();
        let of_probe = self.is_tired.then_some("tired");
        for mood in self.moods.iter().copied().chain([of_probe]).flatten() {
            *moods.entry(mood.to_owned()).or_default() += 1;
        }
        let guests = u64::from(self.guest.is_some());
        (self.people.len() as u64 + 1 + guests, moods)
    }

    /// The probe changes its mood. Returns the time until all of the room have it.
    fn probe(&mut self) -> impl Future<Output = f64> + use<> {
        self.is_tired = !self.is_tired;
        let count = u64::from(self.is_tired);
        let began = Instant::now();
        self.probe.set_mood(self.is_tired.then_some("tired"));
        let watchers: Vec<_> = self.people.iter().map(Member::watcher).collect();
        async move {
            let all = watchers.into_iter().map(|mut watcher| async move {
                let _ = watcher.wait_for(|seen: &Seen| seen.count("tired") == count).await;
            });
            join_all(all).await;
            millis_since(began)
        }
    }
}

/// Changes at a rate, and probes beside them.
pub async fn agree(scale: Scale) -> Vec<Figure> {
    let seed = rand::random();
    println!("agree: seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let cluster = Cluster::with(Setup { servers: scale.of(1, 3), ..Setup::default() }).await;
    let sizes = scale.of(&[20, 12, 6][..], &[199, 199, 149, 99, 99, 69, 49, 29][..]);
    let mut rooms = Vec::new();
    for (number, size) in sizes.iter().enumerate() {
        rooms.push(Room::open(&cluster, number, *size).await);
    }
    let (seconds, rate) = scale.of((4, 50), (60, 200));
    let mut ticks = interval(Duration::from_secs(1) / rate);
    let mut probes = tokio::task::JoinSet::new();
    let mut latencies = Vec::new();
    for change in 0..seconds * rate {
        ticks.tick().await;
        let number = random.random_range(0..rooms.len());
        rooms[number].change(&mut random, &cluster).await;
        if change % rate == 0 {
            // The next probe of a room begins after the end of the one before.
            latencies.extend(std::mem::take(&mut probes).join_all().await);
            for room in &mut rooms {
                probes.spawn(room.probe());
            }
        }
    }
    latencies.extend(probes.join_all().await);
    for room in &rooms {
        let (present, moods) = room.expected();
        for person in room.people.iter().chain(&room.guest).chain([&room.probe]) {
            let what = format!("{}: {present} present, {moods:?}", room.name);
            person.until(&what, |seen| seen.present == present && seen.moods == moods).await;
        }
        cluster.until_present(&room.name, present).await;
    }
    vec![Figure::millis("agree", "change to the last socket", latencies, 250.0)]
}

/// Many people join one room at once, over all nodes, and leave at once.
pub async fn flood(scale: Scale) -> Vec<Figure> {
    let cluster = Cluster::start().await;
    let people = scale.of(150, 1_500);
    let began = Instant::now();
    let joins = (0..people).map(|n| {
        let address = cluster.nodes[n % 3].address.as_str();
        async move { Member::join(&[address], "hall", &format!("v{n}")).await }
    });
    let members: Vec<Member> = stream::iter(joins).buffer_unordered(100).collect().await;
    let joined = Instant::now();
    for member in &members {
        member.until_present(people as u64).await;
    }
    cluster.until_present("hall", people as u64).await;
    println!("flood: {people} joins in {:?}, all sockets right {:?} later", joined - began, joined.elapsed());
    for node in &cluster.nodes {
        assert_eq!(node.health().await, "", "{}", node.log());
    }
    let agreed = millis_since(joined);
    join_all(members.into_iter().map(Member::leave)).await;
    cluster.until_present("hall", 0).await;
    // A node that counts a person twice, or for ever, shows it within a second digest.
    sleep(Duration::from_secs(scale.of(0, 3))).await;
    cluster.until_present("hall", 0).await;
    vec![Figure::millis("flood", "last join to the last socket", vec![agreed], 3_000.0)]
}
