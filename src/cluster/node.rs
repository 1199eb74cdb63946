//! The node task: publishes this node's share, applies those of the others, and notices who is silent.
//!
//! One task for each hub. It never waits for the transport: what cannot be sent is dropped, and the next digest makes the
//! peers ask for what they miss. Only passes over all rooms let other tasks run in between.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::audit::Audit;
use super::metrics::ClusterMetrics;
use super::outgoing::Messages;
use super::peers::{Action, Moment, Peers};
use super::sealed::{Questions, Refused};
use super::status::{ClusterStatus, NodeState, NodeStatus, OwnState, SILENCE_MS};
use super::transport::{NodeMessage, Sent, Transport};
use super::update::{LogReport, MOST_CHANGES, Update, UpdateContext};
use super::{Cluster, visitors};
use crate::history::log::status::{LogMonitor, RecordsAt};
use crate::panics::Panics;
use crate::presence::Registry;
use crate::protocol::Time;
use crate::time::{Clock, millis};

/// The least time between two deltas.
const BATCH: Duration = Duration::from_millis(40);

/// The time between two digests.
const DIGEST: Duration = Duration::from_secs(1);

/// The time between two comparisons of the histories.
const AUDIT: Duration = Duration::from_secs(5);

/// The time between two looks at what has become silent, or has ended.
const TICK: Duration = Duration::from_millis(100);

/// The least time between two answers with the whole share. One answer serves all nodes that ask.
const ANSWER: Duration = Duration::from_millis(500);

/// How long the goodbye may take to leave this process.
const BYE_TIMEOUT: Duration = Duration::from_millis(500);

/// The time between two log lines about messages that are not read, and between two about the name of this node.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// What the node task is made of.
#[derive(Debug)]
pub(crate) struct NodeParts {
    /// The handle that others have.
    pub cluster: Cluster,
    /// The name of this node.
    pub node: String,
    /// Identifies this run of the node: a random number.
    pub incarnation: u64,
    /// The visitors of this node and of the others.
    pub registry: Arc<Registry>,
    /// The clock.
    pub clock: Clock,
    /// Messages of all nodes.
    pub incoming: mpsc::Receiver<NodeMessage>,
    /// Counters.
    pub metrics: ClusterMetrics,
    /// How long other nodes hold the visitors of this one after its goodbye.
    pub seat_hold: Duration,
    /// How far this node has the log of events; none without a log.
    pub log: Option<LogMonitor>,
}

/// The node task, and how to end it. Dropping it ends the node without a goodbye.
#[derive(Debug)]
pub(crate) struct Running {
    bye: oneshot::Sender<oneshot::Sender<()>>,
    _task: AbortOnDropHandle<()>,
}

impl Running {
    /// Says goodbye, and ends the task.
    pub(crate) async fn leave(self) {
        let (done, is_done) = oneshot::channel();
        if self.bye.send(done).is_ok() {
            let _ = is_done.await; // no error that matters: the task has ended
        }
    }
}

/// Starts the node task.
pub(crate) fn start(panics: &Panics, parts: NodeParts) -> Running {
    let (bye, said) = oneshot::channel();
    Running { bye, _task: AbortOnDropHandle::new(panics.spawn(run(parts, said))) }
}

/// The state of the node task.
#[derive(Debug)]
struct Node {
    cluster: Cluster,
    name: String,
    registry: Arc<Registry>,
    clock: Clock,
    transport: Arc<dyn Transport>,
    metrics: ClusterMetrics,
    peers: Peers,
    messages: Messages,
    questions: Questions,
    started: Time,
    /// When the last delta was published.
    published: Option<Instant>,
    /// When the last answer was published, and whether another one is asked for.
    answered: Option<Instant>,
    is_asked: bool,
    /// When the transport was asked to reconnect.
    reconnected: Option<Instant>,
    /// Whether it has connected since the last tick.
    has_connected: bool,
    logged: Option<Instant>,
    logged_namesake: Option<Instant>,
    gaps: u64,
    was_alone: bool,
    log: Option<LogMonitor>,
    audit: Audit,
    audited: Option<Instant>,
}

/// Runs the node until its goodbye, which it answers.
async fn run(parts: NodeParts, mut bye: oneshot::Receiver<oneshot::Sender<()>>) {
    let NodeParts { cluster, node, incarnation, registry, clock, mut incoming, metrics, seat_hold, log } =
        parts;
    let started = clock.wall();
    let messages = Messages::new(node.clone(), incarnation, started, registry.vocabulary().clone());
    let peers = Peers::new(node.clone(), incarnation, millis(clock.elapsed()));
    let questions = Questions::new(cluster.sealing_key().clone(), node.clone());
    let transport = Arc::clone(cluster.transport());
    let changed = registry.share_changed();
    let mut state = Node {
        cluster,
        name: node,
        registry,
        clock,
        transport,
        metrics,
        peers,
        messages,
        questions,
        started,
        published: None,
        answered: None,
        is_asked: false,
        reconnected: None,
        has_connected: false,
        logged: None,
        logged_namesake: None,
        gaps: 0,
        was_alone: true,
        log,
        audit: Audit::default(),
        audited: None,
    };
    let (mut ticks, mut digests) = (interval(TICK), interval(DIGEST));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    digests.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut flush_at: Option<Instant> = None;
    let done = loop {
        let next = flush_at.unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            done = &mut bye => match done {
                Ok(done) => break done,
                Err(_) => return, // the hub stops at once
            },
            () = sleep_until(next), if flush_at.is_some() => {
                flush_at = None;
                state.publish_changes();
            }
            () = changed.notified(), if flush_at.is_none() => {
                let earliest = state.published.map_or_else(Instant::now, |published| published + BATCH);
                flush_at = Some(earliest);
            }
            _ = digests.tick() => state.publish_digest(),
            _ = ticks.tick() => state.tick().await,
            received = incoming.recv() => match received {
                Some(received) => state.receive(received).await,
                None => return, // the transport is closed
            },
        }
    };
    state.say_bye(seat_hold).await;
    let _ = done.send(()); // the shutdown may not wait any more
}

impl Node {
    fn moment(&self) -> Moment {
        Moment { now: millis(self.clock.elapsed()), wall: self.clock.wall() }
    }

    fn publish(&self, message: Bytes) {
        if self.transport.publish(message) == Sent::Dropped {
            self.metrics.dropped.increment(1);
        }
    }

    /// Publishes the changes of the share, if there are any.
    fn publish_changes(&mut self) {
        let Some(outgoing) = self.registry.take_outgoing() else { return };
        let Moment { now, wall } = self.moment();
        let messages = self.messages.deltas(outgoing, now, wall);
        if !messages.is_empty() {
            self.published = Some(Instant::now());
        }
        for message in messages {
            self.publish(message);
        }
    }

    fn publish_digest(&mut self) {
        self.publish_changes();
        let log = self.log.as_ref().map(LogMonitor::status);
        self.publish(self.messages.digest(self.peers.heard(), log.as_ref(), self.moment()));
        if self.audited.is_none_or(|audited| audited.elapsed() >= AUDIT) {
            self.audited = Some(Instant::now());
            self.audit_records(log.and_then(|log| log.records).as_ref());
        }
        self.show_status();
    }

    /// Compares what the records of this node's file and of the others' add up to.
    fn audit_records(&mut self, own: Option<&RecordsAt>) {
        let found = self.audit.look(own, self.peers.records());
        self.metrics.comparisons.increment(found.comparisons);
        self.metrics.differences.increment(found.differences);
        for (node, position) in found.new {
            error!(
                node,
                position,
                "the history of another node differs from the one of this node, at the same position of the log: \
                 breathing-room check --with its address names the months"
            );
        }
    }

    async fn receive(&mut self, incoming: NodeMessage) {
        let bytes = match incoming {
            NodeMessage::Published(bytes) => bytes,
            NodeMessage::Connected => {
                self.has_connected = true;
                return;
            }
            NodeMessage::Request(question, answer) => {
                let Moment { now, wall } = self.moment();
                match visitors::answer(&self.registry, &mut self.questions, &question, (now, wall)) {
                    // The other node may not wait any more.
                    Ok(found) => drop(found.map(|found| answer.send(found))),
                    Err(refused) => self.note_refused(refused),
                }
                return;
            }
        };
        let moment = self.moment();
        let context = UpdateContext { moods: self.registry.vocabulary(), now: moment.now, wall: moment.wall };
        let update = match Update::decode(&bytes, context) {
            Ok(update) => update,
            Err(bad) => return self.note_unreadable(&bad.to_string()),
        };
        self.registry.observe(update.from.stamp);
        let node = update.from.node.clone();
        let registry = Arc::clone(&self.registry);
        let actions = self.peers.receive(update, moment, |slot| registry.sum_of(slot));
        let is_change = actions.iter().any(|action| matches!(action, Action::Apply { is_replay: false, .. }));
        self.apply(actions).await;
        if is_change && let Some(lag) = self.peers.lag_of(&node) {
            let took = self.moment().now.saturating_sub(moment.now);
            self.metrics.agreement.record(Duration::from_millis(lag + took).as_secs_f64());
        }
    }

    async fn tick(&mut self) {
        let now = self.moment().now;
        let actions = self.peers.tick(now);
        let has_lost = actions.iter().any(|action| matches!(action, Action::Lose(..)));
        self.apply(actions).await;
        if has_lost {
            self.show_status(); // not only with the next digest
        }
        if std::mem::take(&mut self.has_connected) {
            self.publish_digest(); // it shows the others what they have missed
        }
        self.registry.forget_gone(self.peers.has_missing()).await;
        let may_answer = self.answered.is_none_or(|answered| answered.elapsed() >= ANSWER);
        if self.is_asked && may_answer {
            self.publish_share().await;
        }
        self.note_namesake(now);
        self.note_alone(now);
    }

    async fn apply(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Apply { slot, changes, is_replay } => {
                    self.registry.apply_changes(slot, changes, is_replay).await;
                }
                Action::Lose(slot, lost) => {
                    self.registry.lose_share(slot, lost).await;
                    // Holds that had begun before end at their own deadlines.
                    let next = self.registry.sweep_share(slot).await;
                    self.peers.swept(slot, next);
                }
                Action::Sweep(slot) => {
                    let next = self.registry.sweep_share(slot).await;
                    self.peers.swept(slot, next);
                }
                Action::Drop(slot) => self.registry.drop_share(slot).await,
                Action::Ask { node, incarnation } => {
                    let Moment { now, wall } = self.moment();
                    self.publish(self.messages.ask(node, incarnation, now, wall));
                }
                Action::Answer => self.is_asked = true,
            }
        }
    }

    /// Publishes the whole share. Deltas that come in between are later than it.
    async fn publish_share(&mut self) {
        (self.is_asked, self.answered) = (false, Some(Instant::now()));
        self.publish_changes();
        let mut parts = Vec::new();
        // An entry may be newer than the last delta: the next delta has it too.
        self.registry.publish_share(MOST_CHANGES, |part| parts.push(part)).await;
        let (count, mut index) = (parts.len(), 0_u32);
        for part in parts {
            let Moment { now, wall } = self.moment();
            let is_last = index as usize + 1 == count;
            self.publish(self.messages.part(index, is_last, part, now, wall));
            index += 1;
        }
    }

    fn note_refused(&mut self, reason: Refused) {
        self.metrics.unreadable.increment(1);
        if is_due(&mut self.logged) {
            warn!(%reason, "a question of another node is not answered");
        }
    }

    fn note_unreadable(&mut self, reason: &str) {
        self.metrics.unreadable.increment(1);
        if is_due(&mut self.logged) {
            warn!(reason, "a message of another node cannot be read: do all nodes have the same version?");
        }
    }

    /// Logs that another node has the name of this one.
    fn note_namesake(&mut self, now: u64) {
        if self.peers.has_namesake(now) && is_due(&mut self.logged_namesake) {
            error!(
                node = self.name,
                "another node has the name of this one, so that counts lack its visitors: set NODE to another \
                 name on one of them"
            );
        }
    }

    /// Makes another connection where this node does not hear itself.
    fn note_alone(&mut self, now: u64) {
        let is_alone = self.peers.is_alone(now);
        if is_alone != std::mem::replace(&mut self.was_alone, is_alone) {
            if is_alone {
                warn!("this node does not hear its own messages: it is alone, and connects again");
            } else {
                info!(node = self.name, "connected to the cluster");
            }
            self.show_status();
        }
        let is_due = self.reconnected.is_none_or(|at| millis(at.elapsed()) >= SILENCE_MS);
        if is_alone && is_due && self.peers.unheard_ms(now) >= SILENCE_MS {
            self.reconnected = Some(Instant::now());
            self.transport.reconnect();
        }
    }

    fn show_status(&mut self) {
        let now = self.moment().now;
        let (people, sockets) = self.messages.counts();
        let own = NodeStatus {
            name: self.name.clone(),
            is_self: true,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: self.started,
            people,
            sockets,
            heard_ms: self.peers.unheard_ms(now),
            lag_ms: 0,
            skew_ms: 0,
            log: self.log.as_ref().map(|log| LogReport::of(&log.status())),
            differs: false,
            state: NodeState::Live,
        };
        let mut nodes: Vec<_> = self.peers.statuses(now).chain([own]).collect();
        for node in &mut nodes {
            node.differs = self.audit.differs(&node.name);
        }
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let status = ClusterStatus {
            cluster: self.cluster.status().cluster,
            node: self.name.clone(),
            own: match () {
                () if self.peers.is_alone(now) => OwnState::Alone,
                () if self.peers.has_namesake(now) => OwnState::NameTaken,
                () => OwnState::Ok,
            },
            nodes,
            refused: self.registry.refused_entries(),
        };
        self.metrics.show(&status);
        let gaps = self.peers.gaps();
        self.metrics.gaps.increment(gaps - std::mem::replace(&mut self.gaps, gaps));
        self.cluster.set_status(status);
    }

    async fn say_bye(&mut self, seat_hold: Duration) {
        self.publish_changes();
        let Moment { now, wall } = self.moment();
        self.publish(self.messages.bye(millis(seat_hold), now, wall));
        let _ = timeout(BYE_TIMEOUT, self.transport.flush()).await;
    }
}

/// Whether a log line is due, which is then noted.
fn is_due(logged: &mut Option<Instant>) -> bool {
    let is_due = logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL);
    if is_due {
        *logged = Some(Instant::now());
    }
    is_due
}
