//! A room session: one visitor's socket in one room, from welcome to leaving.
//!
//! It takes messages one by one: moods go to its seat, events to the journal, refusals back to the
//! client. It acks when the journal says that an epoch is committed. Whatever ends it, its seat, its
//! attention and its watch time end with it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::acks::Acks;
use super::meter::Meter;
use super::socket::{End, Incoming, Socket};
use super::watch_clock::WatchClocks;
use crate::clock::Clock;
use crate::history::event::{Event, PageViewFact, WatchFact, Who};
use crate::history::{Epoch, Journal};
use crate::live::{Attention, Hub, Seat};
use crate::wire::frame::Frame;
use crate::wire::message::ServerMessage;
use crate::wire::{
    ClientMessage, CloseCode, ErrorCode, Mood, PROTOCOL, PageView, Ref, Refusal, SessionId, Time, Watch,
    WatchState,
};

/// The most watch sessions that may play at once on one socket.
const PLAYING_LIMIT: usize = 16;

/// What every room session needs. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Context {
    /// Who is here.
    pub hub: Arc<Hub>,
    /// What happened.
    pub journal: Journal,
    /// How long things have played.
    pub clocks: Arc<WatchClocks>,
    /// Both clocks.
    pub clock: Clock,
    /// What was refused.
    pub meter: Meter,
    /// How long a visitor whose socket was lost stays present.
    pub leave_grace: Duration,
}

/// One socket in one room.
struct RoomSession {
    context: Context,
    socket: Socket,
    id: SessionId,
    who: Who,
    seat: Seat,
    attention: Attention,
    committed: watch::Receiver<Epoch>,
    acks: Acks,
    last_ref: Option<Ref>,
    last_watch: Time,
    /// The newest facts of the watch sessions that play on this socket, and when they came.
    playing: Vec<(WatchFact, Duration)>,
}

/// Why the session woke up.
enum Wake {
    Message(Utf8Bytes),
    Committed(Epoch),
    Ended(End),
}

/// Joins, serves the socket until it ends, and leaves; where the socket was lost, after the grace.
pub async fn run(context: Context, mut socket: Socket, who: Who, mood: Option<Mood>) {
    let outlet = Arc::clone(socket.outlet());
    let Ok((seat, counts)) = context.hub.join(&who.room, &who.visitor, mood, Arc::clone(&outlet)) else {
        // The last room was opened between this upgrade's check and now.
        outlet.close(CloseCode::Overloaded);
        socket.next().await;
        return socket.finish().await;
    };
    let id = SessionId::new();
    let welcome = ServerMessage::Welcome {
        protocol: PROTOCOL,
        session: id,
        visitor: &who.visitor,
        room: &who.room,
        seq: counts.seq,
        present: counts.present,
        moods: context.hub.vocabulary().named(&counts.moods),
        vocabulary: context.hub.vocabulary(),
        server_time: context.clock.wall(),
    };
    outlet.open(counts.seq, &Frame::text(&welcome));
    let attention = context.hub.attention(&who.visitor);
    let committed = context.journal.committed();
    let session = RoomSession {
        context,
        socket,
        id,
        who,
        seat,
        attention,
        committed,
        acks: Acks::default(),
        last_ref: None,
        last_watch: Time::from_millis(0),
        playing: Vec::new(),
    };
    session.serve().await;
}

impl RoomSession {
    async fn serve(mut self) {
        let end = loop {
            match self.wake().await {
                Wake::Message(text) => self.take(&text),
                Wake::Committed(epoch) => self.ack(epoch),
                Wake::Ended(end) => break end,
            }
        };
        self.stop_playing();
        match end {
            End::Left => drop(self.seat),
            End::Lost => {
                let (hold, grace) = (self.seat.lose(), self.context.leave_grace);
                tokio::spawn(async move {
                    tokio::time::sleep(grace).await;
                    drop(hold);
                });
            }
        }
        self.socket.finish().await;
    }

    async fn wake(&mut self) -> Wake {
        let waiting_for = self.acks.waiting_for();
        tokio::select! {
            incoming = self.socket.next() => match incoming {
                Incoming::Text(text) => Wake::Message(text),
                Incoming::Ended(end) => Wake::Ended(end),
            },
            Ok(epoch) = self.committed.wait_for(|epoch| Some(*epoch) >= waiting_for), if waiting_for.is_some() => {
                Wake::Committed(*epoch)
            }
        }
    }

    fn take(&mut self, text: &str) {
        if let Err(refusal) = ClientMessage::parse(text).and_then(|message| self.obey(message)) {
            self.context.meter.refused(refusal.code);
            self.socket.outlet().send(&Frame::text(&ServerMessage::Error {
                code: refusal.code,
                message: &refusal.message,
                reference: refusal.reference,
            }));
        }
    }

    fn obey(&mut self, message: ClientMessage) -> Result<(), Refusal> {
        match message {
            ClientMessage::Mood(None) => {
                self.seat.set_mood(None);
                Ok(())
            }
            ClientMessage::Mood(Some(name)) => {
                let mood = self.context.hub.vocabulary().find(&name).ok_or_else(unknown_mood)?;
                self.seat.set_mood(Some(mood));
                Ok(())
            }
            ClientMessage::PageView(reference, view) => self.page_view(reference, view),
            ClientMessage::Watch(reference, watch) => self.watch(reference, watch),
        }
    }

    fn page_view(&mut self, reference: Ref, view: PageView) -> Result<(), Refusal> {
        self.check_rising(reference)?;
        let path = view.path.shared();
        let fact = PageViewFact::new(self.who.clone(), view, self.context.clock.wall());
        self.append(reference, Event::PageView(fact))?;
        self.attention.look_at(path);
        Ok(())
    }

    fn watch(&mut self, reference: Ref, watch: Watch) -> Result<(), Refusal> {
        self.check_rising(reference)?;
        let (id, state, content) = (watch.id, watch.state, watch.content.shared());
        let others = self.playing.iter().filter(|(fact, _)| fact.id() != id).count();
        if state == WatchState::Playing && others >= PLAYING_LIMIT {
            let rule = format!("state: at most {PLAYING_LIMIT} watch sessions may play at once");
            return Err(refuse(ErrorCode::BadField, rule, reference));
        }
        // Two messages in one millisecond still have an order.
        self.last_watch = self.context.clock.wall().max(self.last_watch.plus(1));
        let now = self.context.clock.elapsed();
        let fact = WatchFact::new(self.who.clone(), watch, self.last_watch)
            .measured(self.context.clocks.total(id, now), Duration::ZERO);
        self.append(reference, Event::Watch(fact.clone()))?;
        self.playing.retain(|(playing, _)| playing.id() != id);
        if self.context.clocks.tell(self.id, id, fact.state_at(), now) {
            self.attention.play(id, content);
            self.playing.push((fact, now));
        } else {
            self.attention.stop(id);
        }
        Ok(())
    }

    fn check_rising(&self, reference: Ref) -> Result<(), Refusal> {
        match self.last_ref {
            Some(last) if reference <= last => {
                let rule = format!("ref: must rise; the last one on this socket was {last}");
                Err(refuse(ErrorCode::BadField, rule, reference))
            }
            _ => Ok(()),
        }
    }

    /// Queues the event. Only events that were taken use up their `ref`.
    fn append(&mut self, reference: Ref, event: Event) -> Result<(), Refusal> {
        let epoch = self
            .context
            .journal
            .append(event)
            .map_err(|full| refuse(ErrorCode::Overloaded, full.to_string(), reference))?;
        self.last_ref = Some(reference);
        self.acks.queued(epoch, reference);
        Ok(())
    }

    fn ack(&mut self, committed: Epoch) {
        if let Some(up_to) = self.acks.committed(committed) {
            self.socket.outlet().send(&Frame::text(&ServerMessage::Ack { up_to }));
        }
    }

    /// The socket is gone: what played on it no longer does, and how long it did is kept.
    fn stop_playing(&mut self) {
        let now = self.context.clock.elapsed();
        for (fact, since) in self.playing.drain(..) {
            if let Some(total) = self.context.clocks.lose(self.id, fact.id(), now) {
                let fact = fact.measured(total, now.saturating_sub(since));
                self.context.journal.append_measured(Event::Watch(fact));
            }
        }
    }
}

fn unknown_mood() -> Refusal {
    let message = "mood: not in this hub's vocabulary (see welcome.vocabulary)".to_owned();
    Refusal { code: ErrorCode::UnknownMood, message, reference: None }
}

fn refuse(code: ErrorCode, message: String, reference: Ref) -> Refusal {
    Refusal { code, message, reference: Some(reference) }
}
