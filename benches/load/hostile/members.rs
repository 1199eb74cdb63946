//! The good members: a thousand people in twenty rooms, each from an address that few others share.
//!
//! One after the other changes mood, and the time is taken until each in the room is told. All see pages,
//! and remember which were acked. Some break off and come back, some leave in groups and come back. Whatever the hub
//! does to one of them that it should not is a failure.

mod group_leave;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;
use uuid::Uuid;

use self::group_leave::Leaving;
use super::tokens::{token, with_token};
use crate::Outcome;
use crate::figure::millis;
use crate::snapshot::{self, State};
use crate::swarm::{Newcomer, PATIENCE, Swarm};

pub(super) const MEMBERS: usize = 1_000;
pub(super) const IN_A_ROOM: usize = 50;
pub(super) const ROOMS: usize = MEMBERS / IN_A_ROOM;
/// In these rooms moods are looked at; in the others people come and go.
const LOOKED_AT: usize = 16;
/// They share so many addresses.
const ADDRESSES: u32 = 100;

/// One of the rooms is looked at this often.
const PROBE: Duration = Duration::from_millis(50);
const PAGE_VIEW: Duration = Duration::from_millis(5);
const BREAK: Duration = Duration::from_millis(100);
/// Longer than the hub waits until it flushes.
const LAST_ACKS: Duration = Duration::from_secs(45);

/// What the first member of each room is in, in turn, and nobody else.
const MOODS: [&str; 2] = ["peace", "hope"];

pub(super) struct Good {
    swarm: Swarm,
    people: People,
    clock: Clock,
    /// Those who leave together now, and how often a group has begun to.
    leaving: Option<Leaving>,
    groups: usize,
}

/// When the next of each is due.
struct Clock {
    probe: Instant,
    page_view: Instant,
    break_off: Instant,
    leave: Instant,
}

struct People {
    members: Vec<Member>,
    /// Whose socket this is.
    by_socket: Vec<usize>,
    probe: Probe,
    /// Milliseconds until somebody was told of a mood.
    latencies: Vec<f64>,
    /// Milliseconds until somebody was told that a group has left.
    leaves: Vec<f64>,
    acked: Vec<Uuid>,
    /// Who was welcomed again, and has to say again what was not acked.
    back: Vec<usize>,
    /// Events that the hub had no room for.
    refused: usize,
}

struct Member {
    /// None while away.
    socket: Option<usize>,
    is_welcomed: bool,
    last_ref: u32,
    unacked: VecDeque<(u32, Uuid)>,
    /// What was refused, to be said again.
    again: Vec<Uuid>,
    /// The newest state that this member was told.
    last: Vec<u8>,
}

#[derive(Default)]
struct Probe {
    count: usize,
    room: usize,
    /// What every state has that tells of it.
    sign: Vec<u8>,
    began: Option<Instant>,
    told: Vec<bool>,
}

#[derive(Deserialize)]
struct Refusal {
    code: String,
    #[serde(rename = "ref")]
    reference: Option<u32>,
}

fn room(member: usize) -> String {
    format!("room-{}", member / IN_A_ROOM)
}

/// Whether it is time, and then the next time is so much later.
fn is_due(next: &mut Instant, every: Duration, now: Instant) -> bool {
    let due = *next <= now;
    if due {
        // After a long wait nobody catches up.
        *next = (*next + every).max(now);
    }
    due
}

impl Good {
    pub(super) fn join(server: SocketAddr) -> Outcome<Self> {
        let mut swarm = Swarm::from_addresses(server, ADDRESSES)?
            .preparing(|request, visitor| with_token(&request, &token(visitor)));
        swarm.join_all(MEMBERS, |index| Newcomer {
            room: room(index),
            visitor: format!("good-{index}"),
            mood: (index % IN_A_ROOM == 0).then_some(MOODS[0]),
        })?;
        let member = |socket| Member {
            socket: Some(socket),
            is_welcomed: true,
            last_ref: 0,
            unacked: VecDeque::new(),
            again: Vec::new(),
            last: Vec::new(),
        };
        let mut people = People {
            members: (0..MEMBERS).map(member).collect(),
            by_socket: (0..MEMBERS).collect(),
            probe: Probe::default(),
            latencies: Vec::new(),
            leaves: Vec::new(),
            acked: Vec::new(),
            back: Vec::new(),
            refused: 0,
        };
        for (who, member) in swarm.here() {
            people.members[who].last.clone_from(&member.last);
        }
        let now = Instant::now();
        let clock = Clock { probe: now, page_view: now, break_off: now, leave: now };
        Ok(Self { swarm, people, clock, leaving: None, groups: 0 })
    }

    /// Lives until a moment.
    pub(super) fn live_until(&mut self, moment: Instant) -> Outcome {
        let mut number = 0;
        loop {
            let now = Instant::now();
            if now >= moment {
                break;
            }
            if is_due(&mut self.clock.probe, PROBE, now) {
                self.change_a_mood()?;
            }
            if is_due(&mut self.clock.page_view, PAGE_VIEW, now) {
                number += 1;
                self.see_a_page(number * 7 % MEMBERS)?;
            }
            if is_due(&mut self.clock.break_off, BREAK, now) {
                number += 1;
                self.break_off(1 + number * 11 % (MEMBERS - 1))?;
            }
            if is_due(&mut self.clock.leave, group_leave::EVERY, now) {
                self.begin_to_leave()?;
            }
            self.go_on_leaving()?;
            self.turn(self.clock.page_view.saturating_duration_since(now))?;
        }
        Ok(())
    }

    /// How long each change took to each member, and each group that left, since this was last asked, in milliseconds.
    pub(super) fn take_times(&mut self) -> (Vec<f64>, Vec<f64>) {
        (std::mem::take(&mut self.people.latencies), std::mem::take(&mut self.people.leaves))
    }

    /// Waits for something to happen, and takes it in.
    pub(super) fn turn(&mut self, wait: Duration) -> Outcome {
        let Self { swarm, people, .. } = self;
        let mut failed = Ok(());
        swarm.turn(wait, &mut |socket, text| {
            if let Err(failure) = people.hear(socket, text) {
                failed = Err(failure);
            }
        })?;
        failed?;
        for who in std::mem::take(&mut self.people.back) {
            self.say_again(who)?;
        }
        Ok(())
    }

    fn change_a_mood(&mut self) -> Outcome {
        let probe = &mut self.people.probe;
        if probe.began.is_some() && probe.told.contains(&false) {
            let waited = probe.began.map(|began| began.elapsed()).unwrap_or_default();
            // It is counted when it comes; the next one waits for it.
            return if waited < PATIENCE { Ok(()) } else { Err("a mood is never told to everybody".into()) };
        }
        let (room, turn) = (probe.count % LOOKED_AT, probe.count / LOOKED_AT);
        let first = room * IN_A_ROOM;
        let Some(socket) =
            self.people.members[first].socket.filter(|_| self.people.members[first].is_welcomed)
        else {
            return Ok(());
        };
        let mood = MOODS[(turn + 1) % 2];
        let members = &self.people.members[first..first + IN_A_ROOM];
        let told = members.iter().map(|member| !member.is_welcomed).collect();
        let (count, sign) = (self.people.probe.count + 1, format!(r#""{mood}":1"#).into_bytes());
        self.people.probe = Probe { count, room, sign, began: Some(Instant::now()), told };
        self.swarm.say(socket, &format!(r#"{{"type":"mood","mood":"{mood}"}}"#))
    }

    fn see_a_page(&mut self, who: usize) -> Outcome {
        let member = &mut self.people.members[who];
        let id = member.again.pop().unwrap_or_else(Uuid::now_v7);
        member.last_ref += 1;
        member.unacked.push_back((member.last_ref, id));
        match member.socket {
            Some(socket) if member.is_welcomed => self.swarm.say(socket, &page_view(member.last_ref, id)),
            // It is said when this member is back.
            _ => Ok(()),
        }
    }

    /// Says again, with new refs, what was not acked on the socket before.
    fn say_again(&mut self, who: usize) -> Outcome {
        let member = &mut self.people.members[who];
        let Some(socket) = member.socket else { return Ok(()) };
        member.last_ref = 0;
        for (reference, _) in &mut member.unacked {
            member.last_ref += 1;
            *reference = member.last_ref;
        }
        let events: Vec<_> =
            member.unacked.iter().map(|(reference, id)| page_view(*reference, *id)).collect();
        self.swarm.say_all(socket, events.iter().map(String::as_str))
    }

    /// The network of this member changes: the hub sees nothing for a moment.
    fn break_off(&mut self, who: usize) -> Outcome {
        let member = &mut self.people.members[who];
        let room = who / IN_A_ROOM;
        // Where groups leave nobody breaks off: a connection that is lost just before would be counted for the grace.
        let is_looked_at = room == self.people.probe.room || room >= LOOKED_AT;
        if is_looked_at || who.is_multiple_of(IN_A_ROOM) || !member.is_welcomed {
            return Ok(());
        }
        if let Some(socket) = member.socket.take() {
            self.swarm.break_off(socket);
            self.come_back(who)?;
        }
        Ok(())
    }

    fn come_back(&mut self, who: usize) -> Outcome {
        let socket = self.swarm.join(&room(who), &format!("good-{who}"), None)?;
        self.people.by_socket.push(who);
        let member = &mut self.people.members[who];
        (member.socket, member.is_welcomed) = (Some(socket), false);
        Ok(())
    }

    /// Waits until everybody has been told the truth and every event is acked.
    pub(super) fn settle(&mut self) -> Outcome<Settled> {
        self.stop_leaving()?;
        let deadline = Instant::now() + LAST_ACKS;
        let mut wrong = String::from("nobody was asked");
        while Instant::now() < deadline {
            self.turn(Duration::from_millis(100))?;
            for who in 0..MEMBERS {
                let is_here = self.people.members[who].is_welcomed;
                if is_here && !self.people.members[who].again.is_empty() {
                    self.see_a_page(who)?;
                }
            }
            match self.people.check() {
                Ok(()) => {
                    let (acked, refused) = (std::mem::take(&mut self.people.acked), self.people.refused);
                    return Ok(Settled { acked, refused });
                }
                Err(failure) => wrong = failure.to_string(),
            }
        }
        Err(format!("{LAST_ACKS:?} were not enough: {wrong}").into())
    }
}

/// What the good members know in the end.
pub(super) struct Settled {
    /// The page views that were acked.
    pub(super) acked: Vec<Uuid>,
    /// How often the hub had no room for one, which was then said again.
    pub(super) refused: usize,
}

fn page_view(reference: u32, id: Uuid) -> String {
    format!(r#"{{"type":"page-view","ref":{reference},"id":"{id}","path":"/rooms/river"}}"#)
}

impl People {
    fn hear(&mut self, socket: usize, text: &[u8]) -> Outcome {
        let who = self.by_socket[socket];
        let member = &mut self.members[who];
        if member.socket != Some(socket) {
            return Ok(());
        }
        if text.starts_with(br#"{"type":"presence""#) || text.starts_with(br#"{"type":"welcome""#) {
            member.last.clear();
            member.last.extend_from_slice(text);
            if !member.is_welcomed {
                member.is_welcomed = true;
                self.back.push(who);
            }
            self.note(who, text);
        } else if let Some(up_to) = snapshot::number(text, b"\"upTo\":") {
            while let Some((_, id)) = member.unacked.pop_front_if(|(reference, _)| *reference <= up_to) {
                self.acked.push(id);
            }
        } else {
            let Refusal { code, reference } = serde_json::from_slice(text)?;
            let at = member.unacked.iter().position(|(refused, _)| Some(*refused) == reference);
            match at.and_then(|at| member.unacked.remove(at)) {
                Some((_, id)) if code == "overloaded" => {
                    member.again.push(id);
                    self.refused += 1;
                }
                _ => {
                    return Err(
                        format!("a good member was refused: {}", String::from_utf8_lossy(text)).into()
                    );
                }
            }
        }
        Ok(())
    }

    /// Somebody was told a state: is it the one that is waited for?
    fn note(&mut self, who: usize, text: &[u8]) {
        let Probe { room, sign, began: Some(began), told, .. } = &mut self.probe else { return };
        if who / IN_A_ROOM == *room
            && !told[who % IN_A_ROOM]
            && text.windows(sign.len()).any(|window| window == sign)
        {
            told[who % IN_A_ROOM] = true;
            self.latencies.push(millis(began.elapsed()));
        }
    }

    /// Whether everybody was told what is so, and every event is acked.
    fn check(&self) -> Outcome {
        for (who, member) in self.members.iter().enumerate() {
            let State { present, moods, .. } = State::parse(&member.last)?;
            let room = who / IN_A_ROOM;
            // How often the first member of this room has changed mood.
            let changes = (self.probe.count + LOOKED_AT - 1 - room.min(LOOKED_AT - 1)) / LOOKED_AT;
            let changes = if room < LOOKED_AT { changes } else { 0 };
            let mood = MOODS[changes % 2];
            let is_right = moods.len() == 1 && moods.get(mood) == Some(&1);
            if present as usize != IN_A_ROOM || !is_right {
                return Err(format!("good-{who} was told {present} and {moods:?}, not {mood}").into());
            }
            let waiting = member.unacked.len() + member.again.len();
            if waiting > 0 {
                return Err(format!("{waiting} events of good-{who} are not acked").into());
            }
        }
        Ok(())
    }
}
