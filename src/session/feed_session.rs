//! The session of a live-activity socket: sends the live activity, and rejects every message.
//!
//! It is in no room and in no count except that of sockets.

use std::future::poll_fn;
use std::sync::Arc;

use crate::panics::{PanicScope, Panics};
use crate::presence::Feed;
use crate::protocol::frame::Frame;
use crate::protocol::message::ServerMessage;
use crate::protocol::{ClientMessage, CloseCode, ErrorCode, MessageError};
use crate::rejections::Rejections;
use crate::transport::FeedPermit;
use crate::transport::socket::{Socket, SocketInput};

/// Runs the session until its socket has ended, and then releases the permit.
pub(crate) async fn run(
    feed: Arc<Feed>,
    mut socket: Socket,
    permit: FeedPermit,
    rejections: Rejections,
    panics: Panics,
) {
    let session = async {
        let _subscription = feed.subscribe(socket.writer()).await;
        reject_all(&mut socket, &rejections).await;
    };
    if panics.catch(PanicScope::Session, session).await.is_none() {
        socket.writer().close(CloseCode::Internal);
    }
    poll_fn(|cx| socket.poll_finish(cx)).await;
    drop(permit);
}

async fn reject_all(socket: &mut Socket, rejections: &Rejections) {
    loop {
        let error = match poll_fn(|cx| socket.poll_next(cx)).await {
            SocketInput::Text(_) => read_only(),
            SocketInput::TooFast(text) => ClientMessage::too_fast(&text),
            SocketInput::Binary(_) => {
                socket.writer().close(CloseCode::Unsupported);
                continue;
            }
            SocketInput::Ended(_) => return,
        };
        rejections.count_error(error.code);
        socket.writer().send(&Frame::json(&ServerMessage::from(&error)));
    }
}

fn read_only() -> MessageError {
    let message = "type: this socket accepts no messages, it only sends the live activity".to_owned();
    MessageError { code: ErrorCode::UnknownType, message, reference: None }
}
