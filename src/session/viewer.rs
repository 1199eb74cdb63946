//! A viewer session: one socket that listens to the live activity and says nothing.
//!
//! It is nobody's presence: viewers are in no room and in no count but that of connections.

use std::future::poll_fn;
use std::sync::Arc;

use super::meter::Meter;
use super::socket::{Incoming, Socket};
use super::sockets::ListenPermit;
use crate::live::Feed;
use crate::panics::Part;
use crate::wire::frame::Frame;
use crate::wire::message::ServerMessage;
use crate::wire::{ClientMessage, CloseCode, ErrorCode, Refusal};

/// Listens until the socket ends. There is nothing to say here: every message is refused.
/// The permit is given back with the socket's end.
pub async fn run(feed: Arc<Feed>, mut socket: Socket, permit: ListenPermit, meter: Meter) {
    let session = async {
        let _listening = feed.listen(socket.outlet()).await;
        refuse_all(&mut socket, &meter).await;
    };
    if meter.panics().catch(Part::Session, session).await.is_none() {
        socket.outlet().close(CloseCode::Internal);
    }
    poll_fn(|cx| socket.poll_finish(cx)).await;
    drop(permit);
}

async fn refuse_all(socket: &mut Socket, meter: &Meter) {
    loop {
        let refusal = match poll_fn(|cx| socket.poll_next(cx)).await {
            Incoming::Text(_) => only_tells(),
            Incoming::TooFast(text) => ClientMessage::too_fast(&text),
            Incoming::Binary(_) => {
                socket.outlet().close(CloseCode::Unsupported);
                continue;
            }
            Incoming::Ended(_) => return,
        };
        meter.refused(refusal.code);
        socket.outlet().send(&Frame::text(&ServerMessage::from(&refusal)));
    }
}

fn only_tells() -> Refusal {
    let message = "type: this socket only tells the live activity".to_owned();
    Refusal { code: ErrorCode::UnknownType, message, reference: None }
}
