//! A room session: one visitor's socket in one room, from the welcome to its end.
//!
//! It handles one message after another: sets moods, appends events to the journal, and answers bad messages with an
//! error. It acks events when their epoch is committed. Its end, for whatever reason, drops its membership, its entries
//! in the live activity and its watch clocks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::Duration;

use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::context::SessionContext;
use super::events::Events;
use crate::auth::BadToken;
use crate::history::Epoch;
use crate::history::event::Actor;
use crate::panics::PanicScope;
use crate::presence::{HoldReason, Joined, Membership, SitOutcome};
use crate::protocol::frame::Frame;
use crate::protocol::message::ServerMessage;
use crate::protocol::parse::ParseError;
use crate::protocol::{
    ClientMessage, CloseCode, ErrorCode, Features, MessageError, Mood, PING_AFTER_MS, PROTOCOL_VERSION,
    SessionId, Time,
};
use crate::transport::socket::{Socket, SocketEnd, SocketInput};

/// One socket in one room: a future that is ready when the session is over and its socket has ended.
///
/// It is written by hand, with boxes for what only some sessions need, because every idle visitor has one: as an
/// `async fn` it was seven times as large.
#[derive(Debug)]
pub(crate) struct RoomSession {
    context: Arc<SessionContext>,
    id: SessionId,
    socket: Socket,
    /// None when the session is over and only its socket still has to end.
    membership: Option<Membership>,
    /// None before the first event.
    events: Option<Box<Events>>,
}

/// Why the session woke up.
enum Wake {
    Message(Utf8Bytes),
    TooFast(Utf8Bytes),
    Binary,
    Committed(Epoch),
    Ended(SocketEnd),
}

impl Future for RoomSession {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let session = self.get_mut();
        let step = catch_unwind(AssertUnwindSafe(|| session.poll_steps(cx)));
        step.unwrap_or_else(|_| session.fail(cx))
    }
}

impl RoomSession {
    /// Joins the room, or subscribes to it as a bot, and sends the welcome. Closes the socket with
    /// 1013 where a limit of rooms was reached since the request was checked.
    pub(crate) fn join(
        context: Arc<SessionContext>,
        socket: Socket,
        actor: &Actor,
        mood: Option<Mood>,
        features: Features,
    ) -> Self {
        let (id, writer) = (SessionId::new(), socket.writer());
        let joined = if actor.is_bot {
            Ok(context.registry.join_as_bot(&actor.room, &actor.visitor, Arc::clone(writer)))
        } else {
            context.registry.join(&actor.room, &actor.visitor, mood, Arc::clone(writer), features)
        };
        let membership = joined.map(|Joined { membership, snapshot: counts, mood, sit }| {
            let vocabulary = context.registry.vocabulary();
            let welcome = ServerMessage::Welcome {
                protocol: PROTOCOL_VERSION,
                session: id,
                visitor: &actor.visitor,
                room: &actor.room,
                seq: counts.seq,
                present: counts.present,
                moods: vocabulary.named(&counts.moods),
                vocabulary,
                server_time: context.clock.wall(),
                ping_after_ms: PING_AFTER_MS,
                sit,
                mood: features.own_mood.then(|| mood.and_then(|mood| vocabulary.name(mood))),
            };
            writer.open(counts.seq, &Frame::json(&welcome));
            if features.keepalive {
                writer.enable_keepalive();
            }
            membership.follow(mood, sit);
            membership
        });
        let membership = membership.inspect_err(|_| writer.close(CloseCode::Overloaded)).ok();
        Self { context, id, socket, membership, events: None }
    }

    fn poll_steps(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        while self.membership.is_some() {
            match ready!(self.poll_wake(cx)) {
                Wake::Message(text) => self.receive(&text),
                Wake::TooFast(text) => self.reject(&ClientMessage::too_fast(&text)),
                Wake::Binary => self.socket.writer().close(CloseCode::Unsupported),
                Wake::Committed(epoch) => self.ack(epoch),
                Wake::Ended(end) => self.leave(end),
            }
        }
        self.socket.poll_finish(cx)
    }

    /// Ends the session after a panic: like a lost connection for the room, and with 1011 on the socket.
    fn fail(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        self.context.panics.count(PanicScope::Session);
        if self.membership.is_none() {
            return Poll::Ready(()); // the panic was in the socket's end: only dropping it is left
        }
        self.socket.writer().close(CloseCode::Internal);
        self.leave(SocketEnd::Lost);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_wake(&mut self, cx: &mut task::Context<'_>) -> Poll<Wake> {
        if let Some(events) = &mut self.events
            && let Poll::Ready(epoch) = events.poll_commit(cx)
        {
            return Poll::Ready(Wake::Committed(epoch));
        }
        self.socket.poll_next(cx).map(|incoming| match incoming {
            SocketInput::Text(text) => Wake::Message(text),
            SocketInput::TooFast(text) => Wake::TooFast(text),
            SocketInput::Binary(_) => Wake::Binary,
            SocketInput::Ended(end) => Wake::Ended(end),
        })
    }

    fn receive(&mut self, text: &str) {
        if let Err(error) = ClientMessage::parse(text).and_then(|message| self.apply(message)) {
            self.reject(&error);
        }
    }

    fn reject(&self, error: &MessageError) {
        self.context.rejections.count_error(error.code);
        self.send(&ServerMessage::from(error));
    }

    fn send(&self, message: &ServerMessage) {
        self.socket.writer().send(&Frame::json(message));
    }

    fn apply(&mut self, message: ClientMessage) -> Result<(), MessageError> {
        let Some(membership) = &self.membership else { return Ok(()) };
        let new_events = || {
            let (context, address) = (Arc::clone(&self.context), self.socket.address());
            Box::new(Events::new(context, self.id, actor(membership), address))
        };
        match message {
            ClientMessage::Mood(name) => {
                let vocabulary = self.context.registry.vocabulary();
                let find = |name: &str| vocabulary.find(name).ok_or_else(unknown_mood);
                let mood = name.as_deref().map(find).transpose()?;
                // The room coalesces moods of all the visitor's sockets; this one must know that its own was set. The
                // room's message comes after this one and has the newest.
                if membership.features().own_mood {
                    self.send(&ServerMessage::OwnMood { mood: name.as_deref() });
                }
                membership.set_mood(mood);
            }
            ClientMessage::PageView(reference, view) => {
                self.events.get_or_insert_with(new_events).page_view(reference, view)?;
            }
            ClientMessage::Watch(reference, watch) => {
                self.events.get_or_insert_with(new_events).watch(reference, watch)?;
            }
            ClientMessage::Token(token) => {
                let expires = self.expiry_of(&token, membership).map_err(|bad| bad_token(&bad))?;
                if !self.socket.extend_expiry(expires) {
                    return Err(bad_token(&BadToken::EndsSooner));
                }
            }
            ClientMessage::Sit(length) => {
                let length = Duration::from_millis(length.get());
                let until = membership.sit(length, |current| self.socket.admit_sit(current));
                let until = until.map_err(|refused| MessageError {
                    code: ErrorCode::SitRefused,
                    message: refused.to_string(),
                    reference: None,
                })?;
                self.send(&ServerMessage::Sit { until });
            }
            ClientMessage::Ping => self.send(&ServerMessage::Pong { server_time: self.context.clock.wall() }),
        }
        Ok(())
    }

    fn ack(&mut self, committed: Epoch) {
        if let Some(up_to) = self.events.as_mut().and_then(|events| events.committed(committed)) {
            self.send(&ServerMessage::Ack { up_to });
        }
    }

    /// Returns when a token of this visitor for this room expires.
    fn expiry_of(&self, token: &str, membership: &Membership) -> Result<Time, BadToken> {
        let tokens = self.context.tokens.as_ref().ok_or(BadToken::NotConfigured)?;
        let claims = tokens.verify(token, self.context.clock.wall())?;
        Ok(claims.for_visitor(membership.visitor())?.for_room(membership.room())?.expires_with_leeway())
    }

    /// Ends the session: its events at once, its membership after the leave grace unless the visitor left.
    fn leave(&mut self, end: SocketEnd) {
        self.events = None;
        let Some(membership) = self.membership.take() else { return };
        let sit = match end {
            SocketEnd::Left => return drop(membership),
            SocketEnd::Lost => SitOutcome::Holds,
            SocketEnd::Closed => SitOutcome::Waits,
            SocketEnd::Rejected => SitOutcome::Ends,
        };
        membership.leave_with_hold(HoldReason::Grace, self.context.leave_grace, sit);
    }
}

fn actor(membership: &Membership) -> Actor {
    Actor {
        room: membership.room().clone(),
        visitor: membership.visitor().clone(),
        is_bot: membership.is_bot(),
    }
}

fn bad_token(bad: &BadToken) -> MessageError {
    let ParseError { code, message } = ParseError::field("token", &bad.to_string());
    MessageError { code, message, reference: None }
}

fn unknown_mood() -> MessageError {
    let message = "mood: not in this hub's vocabulary (see welcome.vocabulary)".to_owned();
    MessageError { code: ErrorCode::UnknownMood, message, reference: None }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::{SinkExt, StreamExt};
    use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;
    use crate::cluster::kept_samples::KeptSamples;
    use crate::history::capacity::JournalLimits;
    use crate::history::{self, journal};
    use crate::panics::Panics;
    use crate::presence::{self, Registry};
    use crate::protocol::{RoomId, VisitorId};
    use crate::quota::{Quota, Sharing};
    use crate::rejections::Rejections;
    use crate::session::{SampleIds, WatchClocks};
    use crate::time::Clock;
    use crate::transport::metrics::TransportMetrics;
    use crate::transport::{Config, Sockets};

    /// Counts panics, and makes one: the counter of rejected messages panics.
    #[derive(Debug, Default)]
    struct Recorder(Arc<AtomicU64>);

    struct Trap;

    impl CounterFn for Trap {
        fn increment(&self, _: u64) {
            panic!("a test");
        }

        fn absolute(&self, _: u64) {}
    }

    impl metrics::Recorder for Recorder {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            match key.name() {
                "breathing_room_refused_total" => Counter::from_arc(Arc::new(Trap)),
                "breathing_room_panics_total" => Counter::from_arc(Arc::clone(&self.0)),
                _ => Counter::noop(),
            }
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    fn context(metrics: &TransportMetrics) -> Arc<SessionContext> {
        let TransportMetrics { rejections, panics, .. } = metrics.clone();
        let clock = Clock::system();
        let limits = JournalLimits { events: 10, bytes: 10_000, sharing: Sharing::Fair, rate: None };
        let registry = Registry::new(
            presence::Config::default(),
            clock.clone(),
            presence::metrics::PresenceMetrics::register(&panics),
        );
        let (journal, _) =
            journal::open(limits, clock.clone(), history::metrics::HistoryMetrics::register(&panics));
        let clocks = Arc::new(WatchClocks::new(10, rejections.clone()));
        let live_state = Arc::new(Quota::new(10_000, Sharing::Fair));
        let leave_grace = Duration::ZERO;
        Arc::new(SessionContext {
            registry,
            journal,
            clocks,
            sample_ids: SampleIds::new("test".to_owned()),
            kept_samples: std::sync::Mutex::new(KeptSamples::new(None)),
            live_state,
            clock,
            tokens: None,
            rejections,
            panics,
            leave_grace,
            cluster: None,
        })
    }

    async fn join(
        context: &Arc<SessionContext>,
        sockets: &Arc<Sockets>,
        name: &str,
    ) -> WebSocketStream<TcpStream> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let permit = sockets.admit(Ipv4Addr::LOCALHOST.into()).unwrap();
        let (room, visitor) = (RoomId::try_from("lobby").unwrap(), VisitorId::try_from(name).unwrap());
        let actor = Actor { room, visitor, is_bot: false };
        let socket = Socket::new(stream.into(), permit);
        tokio::spawn(RoomSession::join(Arc::clone(context), socket, &actor, None, Features::default()));
        let mut peer = WebSocketStream::from_raw_socket(peer, Role::Client, None).await;
        assert!(peer.next().await.unwrap().unwrap().to_text().unwrap().contains("welcome"));
        peer
    }

    /// The text of the next message.
    async fn next_text(peer: &mut WebSocketStream<TcpStream>) -> String {
        peer.next().await.unwrap().unwrap().into_text().unwrap().to_string()
    }

    #[tokio::test]
    async fn panic_closes_one_session_with_1011_and_no_other() {
        let recorder = Recorder::default();
        let metrics = metrics::with_local_recorder(&recorder, || {
            TransportMetrics::register(Rejections::register(), Panics::register())
        });
        let context = context(&metrics);
        let sockets = Sockets::new(&Config::default(), Clock::system(), metrics);
        let mut ann = join(&context, &sockets, "ann").await;
        let mut bob = join(&context, &sockets, "bob").await;
        assert!(next_text(&mut ann).await.contains("\"present\":2"));
        bob.send(Message::text("not json")).await.unwrap();
        bob.send(Message::text("not read any more")).await.unwrap();
        let end = bob.next().await.unwrap().unwrap();
        assert!(matches!(&end, Message::Close(Some(frame)) if u16::from(frame.code) == 1011), "{end:?}");
        assert!(next_text(&mut ann).await.contains("\"present\":1"), "a panic is like a lost connection");
        assert_eq!(recorder.0.load(Ordering::Relaxed), 1);
        ann.send(Message::text(r#"{"type":"mood","mood":"calm"}"#)).await.unwrap();
        assert!(next_text(&mut ann).await.contains("\"calm\":1"), "the other session continues");
        drop(bob);
        while sockets.len() > 1 {
            tokio::task::yield_now().await;
        }
    }
}
