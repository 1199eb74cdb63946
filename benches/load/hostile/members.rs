//! The honest members: 1,000 visitors in 20 rooms, from 100 addresses.
//!
//! They change moods in turn, and the tool measures the time until each member of the room has the change. They
//! send page views and record the acks. Some disconnect and come back, some leave in groups and come back. A
//! refused message, a closed socket or a wrong state of one of them is an error.

mod group_leave;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;
use uuid::Uuid;

use self::group_leave::GroupLeave;
use super::tokens::{token, with_token};
use crate::Outcome;
use crate::figure::millis;
use crate::snapshot::{self, Snapshot};
use crate::swarm::{Join, Swarm, TIMEOUT};

pub(super) const MEMBERS: usize = 1_000;
pub(super) const IN_A_ROOM: usize = 50;
pub(super) const ROOMS: usize = MEMBERS / IN_A_ROOM;
/// The number of rooms in which moods change, the first ones; in the others groups leave.
const MOOD_ROOMS: usize = 16;
/// The number of source addresses.
const ADDRESSES: u32 = 100;

/// The intervals of mood probes, page views and disconnects, over all members.
const PROBE: Duration = Duration::from_millis(50);
const PAGE_VIEW: Duration = Duration::from_millis(5);
const DISCONNECT: Duration = Duration::from_millis(100);
/// Longer than the hub's flush interval.
const LAST_ACKS: Duration = Duration::from_secs(45);

/// The moods of the first member of each room, in turn. The other members have none.
const MOODS: [&str; 2] = ["peace", "hope"];

pub(super) struct Members {
    swarm: Swarm,
    state: MembersState,
    due: Due,
    /// The group that is leaving now, and the number of groups so far.
    leaving: Option<GroupLeave>,
    groups: usize,
}

/// When the next of each act is due.
struct Due {
    probe: Instant,
    page_view: Instant,
    disconnect: Instant,
    leave: Instant,
}

/// What the members know and measure.
struct MembersState {
    members: Vec<Member>,
    /// The member of each socket.
    by_socket: Vec<usize>,
    probe: Probe,
    /// From a mood change until a member has it, in milliseconds.
    latencies: Vec<f64>,
    /// From the leave of a group until the room has it, in milliseconds.
    leaves: Vec<f64>,
    acked: Vec<Uuid>,
    /// Members that are welcomed again and have to resend what was not acked.
    to_resend: Vec<usize>,
    /// Events that the hub refused with `overloaded`.
    refused: usize,
}

struct Member {
    /// `None` while disconnected.
    socket: Option<usize>,
    is_welcomed: bool,
    last_ref: u32,
    unacked: VecDeque<(u32, Uuid)>,
    /// Refused events to send again.
    refused: Vec<Uuid>,
    /// The last snapshot that this member has.
    last: Vec<u8>,
}

#[derive(Default)]
struct Probe {
    count: usize,
    room: usize,
    /// The bytes that every snapshot with the change has.
    pattern: Vec<u8>,
    began: Option<Instant>,
    /// By member of the room: whether the change is received or not expected.
    received: Vec<bool>,
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

/// Returns whether an act is due, and then schedules the next one.
fn is_due(next: &mut Instant, every: Duration, now: Instant) -> bool {
    let due = *next <= now;
    if due {
        // Acts that were missed during a long wait are dropped.
        *next = (*next + every).max(now);
    }
    due
}

impl Members {
    pub(super) fn join(server: SocketAddr) -> Outcome<Self> {
        let mut swarm = Swarm::from_addresses(server, ADDRESSES)?
            .with_edit(|request, visitor| with_token(&request, &token(visitor)));
        swarm.join_all(MEMBERS, |index| Join {
            room: room(index),
            visitor: format!("honest-{index}"),
            mood: (index % IN_A_ROOM == 0).then_some(MOODS[0]),
        })?;
        let member = |socket| Member {
            socket: Some(socket),
            is_welcomed: true,
            last_ref: 0,
            unacked: VecDeque::new(),
            refused: Vec::new(),
            last: Vec::new(),
        };
        let mut state = MembersState {
            members: (0..MEMBERS).map(member).collect(),
            by_socket: (0..MEMBERS).collect(),
            probe: Probe::default(),
            latencies: Vec::new(),
            leaves: Vec::new(),
            acked: Vec::new(),
            to_resend: Vec::new(),
            refused: 0,
        };
        for (index, client) in swarm.open_clients() {
            state.members[index].last.clone_from(&client.last);
        }
        let now = Instant::now();
        let due = Due { probe: now, page_view: now, disconnect: now, leave: now };
        Ok(Self { swarm, state, due, leaving: None, groups: 0 })
    }

    /// Runs the acts that are due, until a moment.
    pub(super) fn run_until(&mut self, moment: Instant) -> Outcome {
        let mut number = 0;
        loop {
            let now = Instant::now();
            if now >= moment {
                break;
            }
            if is_due(&mut self.due.probe, PROBE, now) {
                self.change_a_mood()?;
            }
            if is_due(&mut self.due.page_view, PAGE_VIEW, now) {
                number += 1;
                self.send_page_view(number * 7 % MEMBERS)?;
            }
            if is_due(&mut self.due.disconnect, DISCONNECT, now) {
                number += 1;
                self.reconnect(1 + number * 11 % (MEMBERS - 1))?;
            }
            if is_due(&mut self.due.leave, group_leave::EVERY, now) {
                self.start_group_leave()?;
            }
            self.continue_group_leave()?;
            self.turn(self.due.page_view.saturating_duration_since(now))?;
        }
        Ok(())
    }

    /// Returns the latencies of mood changes and of groups that left since the last call, in milliseconds.
    pub(super) fn take_times(&mut self) -> (Vec<f64>, Vec<f64>) {
        (std::mem::take(&mut self.state.latencies), std::mem::take(&mut self.state.leaves))
    }

    /// Waits for events and handles them.
    pub(super) fn turn(&mut self, wait: Duration) -> Outcome {
        let Self { swarm, state, .. } = self;
        let mut failed = Ok(());
        swarm.turn(wait, &mut |socket, text| {
            if let Err(failure) = state.receive(socket, text) {
                failed = Err(failure);
            }
        })?;
        failed?;
        for index in std::mem::take(&mut self.state.to_resend) {
            self.resend(index)?;
        }
        Ok(())
    }

    fn change_a_mood(&mut self) -> Outcome {
        let probe = &mut self.state.probe;
        if probe.began.is_some() && probe.received.contains(&false) {
            let waited = probe.began.map(|began| began.elapsed()).unwrap_or_default();
            // The next change waits until all members have this one.
            return if waited < TIMEOUT {
                Ok(())
            } else {
                Err("a mood change did not reach all members".into())
            };
        }
        let (room, turn) = (probe.count % MOOD_ROOMS, probe.count / MOOD_ROOMS);
        let first = room * IN_A_ROOM;
        let Some(socket) = self.state.members[first].socket.filter(|_| self.state.members[first].is_welcomed)
        else {
            return Ok(());
        };
        let mood = MOODS[(turn + 1) % 2];
        let members = &self.state.members[first..first + IN_A_ROOM];
        let received = members.iter().map(|member| !member.is_welcomed).collect();
        let (count, pattern) = (self.state.probe.count + 1, format!(r#""{mood}":1"#).into_bytes());
        self.state.probe = Probe { count, room, pattern, began: Some(Instant::now()), received };
        self.swarm.send(socket, &format!(r#"{{"type":"mood","mood":"{mood}"}}"#))
    }

    fn send_page_view(&mut self, index: usize) -> Outcome {
        let member = &mut self.state.members[index];
        let id = member.refused.pop().unwrap_or_else(Uuid::now_v7);
        member.last_ref += 1;
        member.unacked.push_back((member.last_ref, id));
        match member.socket {
            Some(socket) if member.is_welcomed => self.swarm.send(socket, &page_view(member.last_ref, id)),
            // It is sent after the reconnect.
            _ => Ok(()),
        }
    }

    /// Sends again, with new refs, what was not acked on the socket before.
    fn resend(&mut self, index: usize) -> Outcome {
        let member = &mut self.state.members[index];
        let Some(socket) = member.socket else { return Ok(()) };
        member.last_ref = 0;
        for (reference, _) in &mut member.unacked {
            member.last_ref += 1;
            *reference = member.last_ref;
        }
        let events: Vec<_> =
            member.unacked.iter().map(|(reference, id)| page_view(*reference, *id)).collect();
        self.swarm.send_all(socket, events.iter().map(String::as_str))
    }

    /// Closes the connection without a close frame, and joins again.
    fn reconnect(&mut self, index: usize) -> Outcome {
        let member = &mut self.state.members[index];
        let room = index / IN_A_ROOM;
        // In the rooms of the groups no member disconnects: it would count until the end of the leave grace.
        let is_measured = room == self.state.probe.room || room >= MOOD_ROOMS;
        if is_measured || index.is_multiple_of(IN_A_ROOM) || !member.is_welcomed {
            return Ok(());
        }
        if let Some(socket) = member.socket.take() {
            self.swarm.disconnect(socket);
            self.rejoin(index)?;
        }
        Ok(())
    }

    fn rejoin(&mut self, index: usize) -> Outcome {
        let socket = self.swarm.join(&room(index), &format!("honest-{index}"), None)?;
        self.state.by_socket.push(index);
        let member = &mut self.state.members[index];
        (member.socket, member.is_welcomed) = (Some(socket), false);
        Ok(())
    }

    /// Waits until every member has the right state and every event is acked.
    pub(super) fn settle(&mut self) -> Outcome<Settled> {
        self.stop_group_leave()?;
        let deadline = Instant::now() + LAST_ACKS;
        let mut wrong = String::from("no member was checked");
        while Instant::now() < deadline {
            self.turn(Duration::from_millis(100))?;
            for index in 0..MEMBERS {
                let is_welcomed = self.state.members[index].is_welcomed;
                if is_welcomed && !self.state.members[index].refused.is_empty() {
                    self.send_page_view(index)?;
                }
            }
            match self.state.check() {
                Ok(()) => {
                    let (acked, refused) = (std::mem::take(&mut self.state.acked), self.state.refused);
                    return Ok(Settled { acked, refused });
                }
                Err(failure) => wrong = failure.to_string(),
            }
        }
        Err(format!("timeout of {LAST_ACKS:?}: {wrong}").into())
    }
}

/// The result of the honest members at the end.
pub(super) struct Settled {
    /// The acked page views.
    pub(super) acked: Vec<Uuid>,
    /// How often the hub refused one with `overloaded`; it was sent again.
    pub(super) refused: usize,
}

fn page_view(reference: u32, id: Uuid) -> String {
    format!(r#"{{"type":"page-view","ref":{reference},"id":"{id}","path":"/rooms/river"}}"#)
}

impl MembersState {
    fn receive(&mut self, socket: usize, text: &[u8]) -> Outcome {
        let index = self.by_socket[socket];
        let member = &mut self.members[index];
        if member.socket != Some(socket) {
            return Ok(());
        }
        if text.starts_with(br#"{"type":"presence""#) || text.starts_with(br#"{"type":"welcome""#) {
            member.last.clear();
            member.last.extend_from_slice(text);
            if !member.is_welcomed {
                member.is_welcomed = true;
                self.to_resend.push(index);
            }
            self.note_probe(index, text);
        } else if let Some(up_to) = snapshot::number(text, b"\"upTo\":") {
            while let Some((_, id)) = member.unacked.pop_front_if(|(reference, _)| *reference <= up_to) {
                self.acked.push(id);
            }
        } else {
            let Refusal { code, reference } = serde_json::from_slice(text)?;
            let at = member.unacked.iter().position(|(refused, _)| Some(*refused) == reference);
            match at.and_then(|at| member.unacked.remove(at)) {
                Some((_, id)) if code == "overloaded" => {
                    member.refused.push(id);
                    self.refused += 1;
                }
                _ => {
                    return Err(
                        format!("an honest member was refused: {}", String::from_utf8_lossy(text)).into()
                    );
                }
            }
        }
        Ok(())
    }

    /// Records the latency where this snapshot is the first one of this member with the probe's change.
    fn note_probe(&mut self, index: usize, text: &[u8]) {
        let Probe { room, pattern, began: Some(began), received, .. } = &mut self.probe else { return };
        if index / IN_A_ROOM == *room
            && !received[index % IN_A_ROOM]
            && text.windows(pattern.len()).any(|window| window == pattern)
        {
            received[index % IN_A_ROOM] = true;
            self.latencies.push(millis(began.elapsed()));
        }
    }

    /// Checks that every member has the right state, and that every event is acked.
    fn check(&self) -> Outcome {
        for (index, member) in self.members.iter().enumerate() {
            let Snapshot { present, moods, .. } = Snapshot::parse(&member.last)?;
            let room = index / IN_A_ROOM;
            // The mood changes of the first member of this room.
            let changes = (self.probe.count + MOOD_ROOMS - 1 - room.min(MOOD_ROOMS - 1)) / MOOD_ROOMS;
            let changes = if room < MOOD_ROOMS { changes } else { 0 };
            let mood = MOODS[changes % 2];
            let is_right = moods.len() == 1 && moods.get(mood) == Some(&1);
            if present as usize != IN_A_ROOM || !is_right {
                return Err(format!("honest-{index} has {present} and {moods:?}, expected {mood}").into());
            }
            let waiting = member.unacked.len() + member.refused.len();
            if waiting > 0 {
                return Err(format!("{waiting} events of honest-{index} are not acked").into());
            }
        }
        Ok(())
    }
}
