//! What sessions and requests count for `/metrics`: what was refused, and why, and what of the presence
//! history was lost.
//!
//! One counter for each error code, made at start.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::{Counter, counter, describe_counter};

use super::limits::TooMuch;
use crate::history::capacity::Full;
use crate::panics::Panics;
use crate::wire::ErrorCode;

/// A limit that somebody met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Open sockets, all together.
    Sockets,
    /// Rooms, all together.
    Rooms,
    /// Rooms that one visitor is in.
    VisitorRooms,
    /// Open sockets of one address.
    AddressSockets,
    /// Open connections of one address that are no sockets.
    AddressConnections,
    /// Sockets a second that one address opens.
    AddressSocketRate,
    /// Open sockets of one address for the live activity.
    AddressLiveSockets,
    /// Posts a second of one address.
    AddressPostRate,
    /// Other requests a second of one address.
    AddressReadRate,
    /// Requests of one address that lack a good admin token.
    AdminFailures,
    /// Messages a second on one socket.
    MessageRate,
    /// Frames and bytes a second on one socket, beyond what its messages need.
    FrameRate,
    /// Frames of one message.
    MessageFrames,
    /// Events that wait to be written, all together.
    Queue,
    /// Events of one address that wait to be written.
    AddressQueue,
    /// Watch clocks, all together: an address has lost one.
    WatchClocks,
    /// Bytes of live state: something is not listed, or not measured.
    LiveState,
    /// Requests for what is kept of a person.
    PersonalData,
    /// Bytes that the hub keeps for others, all together.
    BytesInFlight,
    /// Bytes of one address's request bodies that are on their way.
    AddressBytesInFlight,
    /// Pieces that a request's body comes in.
    BodyPieces,
    /// Open files of the process.
    Descriptors,
}

impl Limit {
    const ALL: [Self; 22] = [
        Self::Sockets,
        Self::Rooms,
        Self::VisitorRooms,
        Self::AddressSockets,
        Self::AddressConnections,
        Self::AddressSocketRate,
        Self::AddressLiveSockets,
        Self::AddressPostRate,
        Self::AddressReadRate,
        Self::AdminFailures,
        Self::MessageRate,
        Self::FrameRate,
        Self::MessageFrames,
        Self::Queue,
        Self::AddressQueue,
        Self::WatchClocks,
        Self::LiveState,
        Self::PersonalData,
        Self::BytesInFlight,
        Self::AddressBytesInFlight,
        Self::BodyPieces,
        Self::Descriptors,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::Rooms => "rooms",
            Self::VisitorRooms => "visitor-rooms",
            Self::AddressSockets => "address-sockets",
            Self::AddressConnections => "address-connections",
            Self::AddressSocketRate => "address-socket-rate",
            Self::AddressLiveSockets => "address-live-sockets",
            Self::AddressPostRate => "address-post-rate",
            Self::AddressReadRate => "address-read-rate",
            Self::AdminFailures => "admin-failures",
            Self::MessageRate => "message-rate",
            Self::FrameRate => "frame-rate",
            Self::MessageFrames => "message-frames",
            Self::Queue => "queue",
            Self::AddressQueue => "address-queue",
            Self::WatchClocks => "watch-clocks",
            Self::LiveState => "live-state",
            Self::PersonalData => "personal-data",
            Self::BytesInFlight => "bytes-in-flight",
            Self::AddressBytesInFlight => "address-bytes-in-flight",
            Self::BodyPieces => "body-pieces",
            Self::Descriptors => "descriptors",
        }
    }
}

impl From<TooMuch> for Limit {
    fn from(limit: TooMuch) -> Self {
        match limit {
            TooMuch::Open => Self::AddressSockets,
            TooMuch::Connected => Self::AddressConnections,
            TooMuch::Opened => Self::AddressSocketRate,
            TooMuch::Live => Self::AddressLiveSockets,
            TooMuch::Posts => Self::AddressPostRate,
            TooMuch::Reads => Self::AddressReadRate,
            TooMuch::AdminFailures => Self::AdminFailures,
        }
    }
}

impl From<Full> for Limit {
    fn from(full: Full) -> Self {
        match full {
            Full::Queue => Self::Queue,
            Full::Address => Self::AddressQueue,
        }
    }
}

/// Why the sweep cuts a socket off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CutOff {
    /// The peer was not heard, not even after a ping.
    Silent,
    /// The peer takes nothing of what waits for it.
    Stalled,
    /// The peer does not answer a close.
    Unclosed,
}

impl CutOff {
    const ALL: [Self; 3] = [Self::Silent, Self::Stalled, Self::Unclosed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Stalled => "stalled",
            Self::Unclosed => "unclosed",
        }
    }
}

/// Counters of what went wrong. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Meter(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    refused: HashMap<ErrorCode, Counter>,
    limited: HashMap<Limit, Counter>,
    cut_off: HashMap<CutOff, Counter>,
    samples_lost: Counter,
    panics: Panics,
}

impl Meter {
    /// Registers the counters with the recorder that is current; panics are counted by `panics`.
    #[must_use]
    pub fn register(panics: &Panics) -> Self {
        const REFUSED: &str = "breathing_room_refused_total";
        const LIMITED: &str = "breathing_room_limited_total";
        const CUT_OFF: &str = "breathing_room_cut_off_total";
        const SAMPLES_LOST: &str = "breathing_room_presence_samples_lost_total";
        describe_counter!(REFUSED, "Messages and events refused, by the error code of the answer");
        describe_counter!(LIMITED, "What was refused or cut off, by the limit that it met");
        describe_counter!(CUT_OFF, "Sockets that were dead, and in which way");
        describe_counter!(SAMPLES_LOST, "Presence samples for which the journal had no room");
        let refused = ErrorCode::ALL.map(|code| (code, counter!(REFUSED, "reason" => code.as_str())));
        let limited = Limit::ALL.map(|limit| (limit, counter!(LIMITED, "limit" => limit.as_str())));
        let cut_off = CutOff::ALL.map(|why| (why, counter!(CUT_OFF, "because" => why.as_str())));
        Self(Arc::new(Counters {
            refused: HashMap::from(refused),
            limited: HashMap::from(limited),
            cut_off: HashMap::from(cut_off),
            samples_lost: counter!(SAMPLES_LOST),
            panics: panics.clone(),
        }))
    }

    /// Something was refused for this reason.
    pub fn refused(&self, reason: ErrorCode) {
        if let Some(counter) = self.0.refused.get(&reason) {
            counter.increment(1);
        }
    }

    /// Somebody met this limit.
    pub fn limited(&self, limit: Limit) {
        if let Some(counter) = self.0.limited.get(&limit) {
            counter.increment(1);
        }
    }

    /// What becomes of a session that panics.
    #[must_use]
    pub fn panics(&self) -> &Panics {
        &self.0.panics
    }

    /// A socket was dead in this way.
    pub fn cut_off(&self, because: CutOff) {
        if let Some(counter) = self.0.cut_off.get(&because) {
            counter.increment(1);
        }
    }

    /// So many presence samples will not be in the history.
    pub fn samples_lost(&self, count: usize) {
        self.0.samples_lost.increment(count as u64);
    }
}
