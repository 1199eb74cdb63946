//! A visitor's events, and the outbox with the unacked ones.
//!
//! An event stays in the outbox until it is acked. After a lost socket it is sent again, with the same `id` and a new
//! `ref`. This file does not send anything.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::random_range;
use serde_json::{Value, json};
use uuid::Uuid;

const PAGES: [&str; 6] = ["/", "/today", "/breathe", "/library", "/library/evening", "/about"];
const VIDEOS: [&str; 5] = ["first-light", "rain-on-leaves", "body-scan", "walking-slowly", "evening-talk"];

/// Unacked events. An event has a `ref` after it was sent on the current socket.
#[derive(Default)]
pub(crate) struct Outbox(Vec<Value>);

impl Outbox {
    pub(crate) fn push(&mut self, event: Value) {
        self.0.push(event);
    }

    /// Returns the events that are not sent on the current socket, oldest first.
    pub(crate) fn unsent(&mut self) -> impl Iterator<Item = &mut Value> {
        self.0.iter_mut().filter(|event| event["ref"].is_null())
    }

    /// Removes acked events, and returns their number.
    pub(crate) fn acked(&mut self, up_to: u64) -> u64 {
        self.0.extract_if(.., |event| event["ref"].as_u64().is_some_and(|sent| sent <= up_to)).count() as u64
    }

    /// Marks sent events as unsent, if `is_affected` is true for their `ref`.
    pub(crate) fn mark_unsent(&mut self, is_affected: impl Fn(u64) -> bool) {
        let affected = self.0.iter_mut().filter(|event| event["ref"].as_u64().is_some_and(&is_affected));
        affected.for_each(|event| event["ref"] = Value::Null);
    }
}

pub(crate) fn page_view() -> Value {
    let path = PAGES[random_range(0..PAGES.len())];
    json!({ "type": "page-view", "id": Uuid::new_v4(), "path": path, "at": now_ms() })
}

/// Starts a watch session.
pub(crate) fn watch() -> Value {
    let (content, now) = (VIDEOS[random_range(0..VIDEOS.len())], now_ms());
    json!({ "type": "watch", "id": Uuid::new_v4(), "content": content, "state": "playing",
            "watchedMs": 0, "startedAt": now, "at": now })
}

/// Updates a watch session to this state.
pub(crate) fn update_watch(watch: &mut Value, state: &str) {
    let now = now_ms();
    if let (Some(watched), Some(at)) = (watch["watchedMs"].as_u64(), watch["at"].as_u64())
        && watch["state"] == "playing"
    {
        watch["watchedMs"] = (watched + now.saturating_sub(at)).into();
    }
    watch["at"] = now.into();
    watch["state"] = state.into();
}

#[expect(clippy::disallowed_methods, reason = "a client has its own clock")]
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
