//! Bodies of events: accepted as a whole, or rejected as a whole with the index and the field of the first invalid event.
//!
//! Accepted events are the same after they are written as records and read again.

use breathing_room::config::Time;
use breathing_room::internals::{
    Actor, ApiError, Batch, ErrorCode, Event, PageViewEvent, ParseError, WatchEvent, parse_events,
};

use super::message::ERROR_LIMIT;
use super::record;

pub fn check(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let view = |who, view, at| PageViewEvent::new(who, view, at).map(Event::PageView);
    let watch = |who, watch, at| WatchEvent::new(who, watch, at).map(Event::Watch);
    for now in [Time::from_millis(1_800_000_000_000), Time::MAX] {
        check_result(text, parse_events(text, false, now, bad_body(view)));
        check_result(text, parse_events(text, true, now, bad_body(watch)));
    }
}

fn bad_body<T>(
    event: impl Fn(Actor, T, Time) -> Result<Event, ParseError>,
) -> impl Fn(Actor, T, Time) -> Result<Event, ApiError> {
    move |who, fields, at| event(who, fields, at).map_err(ApiError::BadBody)
}

fn check_result(text: &str, outcome: Result<Batch, ApiError>) {
    let is_array = text.trim_start().starts_with('[');
    match outcome {
        Ok(batch) => {
            assert!(if is_array { batch.len() <= 100 } else { batch.len() == 1 });
            record::check_round_trip(&batch);
        }
        Err(ApiError::BadBody(ParseError { code, message })) => {
            assert!(message.len() <= ERROR_LIMIT, "{} bytes: {message}", message.len());
            assert!(matches!(code, ErrorCode::BadJson | ErrorCode::BadField), "{message}");
            if is_array && code == ErrorCode::BadField {
                let index = message.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
                let index = index.and_then(|(index, _)| index.parse().ok());
                assert!(index.is_some_and(|index: u8| index < 100) || message.starts_with("array: "));
            }
        }
        Err(error) => panic!("{error}"),
    }
}
