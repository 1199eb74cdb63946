//! A viewer session: one socket that listens to the live activity and says nothing.
//!
//! It is nobody's presence: viewers are in no room and in no count but that of connections.

use std::future::poll_fn;
use std::sync::Arc;

use super::meter::Meter;
use super::socket::{Incoming, Socket};
use crate::live::Feed;
use crate::wire::ErrorCode;
use crate::wire::frame::Frame;
use crate::wire::message::ServerMessage;

/// Listens until the socket ends. There is nothing to say here: every message is refused.
pub async fn run(feed: Arc<Feed>, mut socket: Socket, meter: Meter) {
    let listening = feed.listen(socket.outlet());
    while let Incoming::Text(_) = poll_fn(|cx| socket.poll_next(cx)).await {
        meter.refused(ErrorCode::UnknownType);
        socket.outlet().send(&Frame::text(&ServerMessage::Error {
            code: ErrorCode::UnknownType,
            message: "type: this socket only tells the live activity",
            reference: None,
        }));
    }
    drop(listening);
    poll_fn(|cx| socket.poll_finish(cx)).await;
}
