//! Messages of clients: parsed into values within their limits, or rejected with a short error.
//!
//! An accepted message is the same after it is written, field by field, and parsed again.

use breathing_room::internals::{
    BoundedText, ClientMessage, ErrorCode, PageView, Props, Ref, ServerMessage, Watch, WatchState,
};
use serde_json::{Value, json};

/// The longest error, in bytes: it may quote the client's message, but not all of it.
pub const ERROR_LIMIT: usize = 512;

pub fn check(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match ClientMessage::parse(text) {
        Ok(message) => {
            let text_again = serialize(&message).to_string();
            assert_eq!(ClientMessage::parse(&text_again), Ok(message), "{text_again}");
        }
        Err(rejection) => {
            assert!(
                !matches!(
                    rejection.code,
                    ErrorCode::UnknownMood | ErrorCode::Overloaded | ErrorCode::SitRefused
                ),
                "{rejection:?}"
            );
            assert!(rejection.message.len() <= ERROR_LIMIT, "{} bytes: {rejection}", rejection.message.len());
            let answer = serde_json::to_value(ServerMessage::from(&rejection)).expect("JSON");
            assert_eq!(answer.get("ref").and_then(Value::as_u64), rejection.reference.map(number));
        }
    }
    let reference = ClientMessage::too_fast(text).reference;
    assert!(reference.is_none_or(|reference| (1..1 << 53).contains(&number(reference))));
}

fn number(reference: Ref) -> u64 {
    reference.to_string().parse().expect("a number")
}

fn serialize(message: &ClientMessage) -> Value {
    match message {
        ClientMessage::Mood(mood) => json!({ "type": "mood", "mood": mood }),
        ClientMessage::Token(token) => json!({ "type": "token", "token": token }),
        ClientMessage::Sit(length) => json!({ "type": "sit", "forMs": length }),
        ClientMessage::Ping => json!({ "type": "ping" }),
        ClientMessage::PageView(reference, view) => {
            let PageView { id, path, title, referrer, at, props } = view;
            check_length(Some(path.as_str()), 1..=512);
            check_length(title.as_ref().map(BoundedText::as_str), 0..=1024);
            check_length(referrer.as_ref().map(BoundedText::as_str), 0..=1024);
            json!({ "type": "page-view", "ref": reference, "id": id, "path": path, "title": title,
                "referrer": referrer, "at": at, "props": object(props.as_ref()) })
        }
        ClientMessage::Watch(reference, watch) => {
            let Watch { id, content, state, watched_ms, .. } = watch;
            let Watch { started_at, position_ms, duration_ms, at, props, .. } = watch;
            check_length(Some(content.as_str()), 1..=512);
            assert!(matches!(state, WatchState::Playing | WatchState::Paused | WatchState::Ended));
            json!({ "type": "watch", "ref": reference, "id": id, "content": content, "state": state,
                "watchedMs": watched_ms, "startedAt": started_at, "positionMs": position_ms,
                "durationMs": duration_ms, "at": at, "props": object(props.as_ref()) })
        }
    }
}

fn check_length(text: Option<&str>, bytes: std::ops::RangeInclusive<usize>) {
    assert!(text.is_none_or(|text| bytes.contains(&text.len()) && !text.contains('\0')));
}

/// Returns properties as in a message. They must be flat and within the length limit.
fn object(props: Option<&Props>) -> Option<Value> {
    let text = props?.as_json();
    check_length(Some(text), 2..=Props::LIMIT);
    let value: Value = serde_json::from_str(text).expect("JSON");
    let flat = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
    assert!(value.as_object().expect("an object").values().all(flat));
    Some(value)
}
