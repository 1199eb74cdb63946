//! Counters of what the hub rejects, by reason.
//!
//! Every part counts its rejections here. All counters exist from the start.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::{Counter, counter, describe_counter};
use strum::{IntoStaticStr, VariantArray};

use crate::protocol::ErrorCode;

/// A limit that a client reached: the label `reason` of `breathing_room_limited_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Limit {
    /// Open sockets of the hub.
    Sockets,
    /// Rooms of the hub.
    Rooms,
    /// Rooms of one visitor.
    VisitorRooms,
    /// Open sockets of one address.
    AddressSockets,
    /// Open connections of one address that are not sockets.
    AddressConnections,
    /// Sits of the hub.
    Sits,
    /// Sits of one address.
    AddressSits,
    /// New sockets a second of one address.
    AddressSocketRate,
    /// Open sockets of one address for the live activity.
    AddressLiveSockets,
    /// Posts a second of one address.
    AddressPostRate,
    /// Other requests a second of one address.
    AddressReadRate,
    /// Requests of one address without a valid admin token.
    AdminFailures,
    /// Messages a second on one socket.
    MessageRate,
    /// Frames and bytes a second on one socket.
    FrameRate,
    /// Frames of one message.
    MessageFrames,
    /// Pending events of the hub.
    Queue,
    /// Pending events of one address.
    AddressQueue,
    /// Events a second of one address.
    AddressEventRate,
    /// Watch clocks of the hub: one was evicted.
    WatchClocks,
    /// Bytes of live state: a page is not listed, or a watch session is not measured.
    LiveState,
    /// Requests for personal data.
    PersonalData,
    /// Bytes in flight of the hub: request bodies, unsent bytes.
    BytesInFlight,
    /// Bytes of the request bodies of one address.
    AddressBytesInFlight,
    /// Pieces of a request's body.
    BodyPieces,
    /// Open files of the process.
    Descriptors,
}

/// The counters of one hub. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Rejections(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    errors: HashMap<ErrorCode, Counter>,
    limits: HashMap<Limit, Counter>,
}

impl Rejections {
    /// Registers the counters with the current recorder.
    #[must_use]
    pub fn register() -> Self {
        const ERRORS: &str = "breathing_room_refused_total";
        const LIMITS: &str = "breathing_room_limited_total";
        describe_counter!(ERRORS, "Rejected messages and events, by the error code of the answer");
        describe_counter!(LIMITS, "Rejected requests, events and sockets, by the limit that was reached");
        let errors = ErrorCode::VARIANTS.iter();
        let errors = errors.map(|code| (*code, counter!(ERRORS, "reason" => code.as_str())));
        let limits = Limit::VARIANTS.iter();
        let limits = limits.map(|limit| (*limit, counter!(LIMITS, "reason" => <&str>::from(limit))));
        Self(Arc::new(Counters { errors: errors.collect(), limits: limits.collect() }))
    }

    /// Counts a message or an event that was rejected with this code.
    pub(crate) fn count_error(&self, code: ErrorCode) {
        if let Some(counter) = self.0.errors.get(&code) {
            counter.increment(1);
        }
    }

    /// Counts what was rejected or dropped because of this limit.
    pub(crate) fn count_limit(&self, limit: Limit) {
        if let Some(counter) = self.0.limits.get(&limit) {
            counter.increment(1);
        }
    }
}
