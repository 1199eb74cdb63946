//! A log in memory, for tests: it can be away, lose all its messages, or forget the first ones.
//! Messages can be deleted.
//!
//! Appends and reads are answered at once.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::watch;

use super::{Log, LogEntry, LogError, LogReader, LogState};
use crate::protocol::Time;

/// A log. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct MemoryLog(Arc<watch::Sender<State>>);

#[derive(Debug, Clone, Default)]
struct State {
    /// How often the log was made.
    made: u32,
    /// Messages that were forgotten.
    forgotten: usize,
    /// With their ids. Deleted ones are none.
    messages: Vec<(String, Option<Bytes>)>,
    is_away: bool,
    /// How many messages it was asked to append, repeated ones included.
    asked: usize,
}

impl MemoryLog {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }

    /// Whether it answers with errors.
    pub(super) fn set_away(&self, is_away: bool) {
        self.0.send_modify(|state| state.is_away = is_away);
    }

    /// Deletes it. The next request makes another one.
    pub(super) fn delete(&self) {
        self.0.send_modify(|state| *state = State { made: state.made + 1, ..State::default() });
    }

    /// Forgets this many messages.
    pub(super) fn forget(&self, count: usize) {
        self.0.send_modify(|state| state.forgotten = count);
    }

    /// Appends bytes as another program would.
    pub(super) fn push(&self, message: &'static [u8]) {
        self.0.send_modify(|state| state.messages.push((String::new(), Some(Bytes::from_static(message)))));
    }

    /// Appends a message once more, as after the time in which the log knows ids.
    pub(super) fn repeat(&self, message: Bytes) {
        self.0.send_modify(|state| state.messages.push((String::new(), Some(message))));
    }

    /// How many messages it was asked to append while it was not away, repeated ones included.
    pub(super) fn asked(&self) -> usize {
        self.0.borrow().asked
    }

    /// All messages that were ever appended to this log and not deleted.
    pub(super) fn messages(&self) -> Vec<Bytes> {
        self.0.borrow().messages.iter().filter_map(|(_, message)| message.clone()).collect()
    }
}

impl State {
    /// The position before the first message that is left.
    fn before_first(&self) -> usize {
        let left = self.messages.iter().skip(self.forgotten).position(|(_, message)| message.is_some());
        left.map_or(self.messages.len(), |skipped| self.forgotten + skipped)
    }
}

impl Log for MemoryLog {
    fn append(&self, id: String, message: Bytes) -> BoxFuture<'static, Result<u64, LogError>> {
        let log = self.clone();
        async move {
            let mut result = Err(LogError::TimedOut);
            log.0.send_modify(|state| {
                if state.is_away {
                    return;
                }
                state.asked += 1;
                let known = state.messages.iter().position(|(known, _)| *known == id);
                let index = known.unwrap_or_else(|| {
                    state.messages.push((id, Some(message)));
                    state.messages.len() - 1
                });
                result = Ok(index as u64 + 1);
            });
            result
        }
        .boxed()
    }

    fn state(&self) -> BoxFuture<'static, Result<LogState, LogError>> {
        let state = self.0.borrow();
        let found = LogState {
            name: state.made.to_string(),
            first: state.before_first() as u64 + 1,
            last: state.messages.len() as u64,
        };
        std::future::ready(if state.is_away { Err(LogError::Unreachable) } else { Ok(found) }).boxed()
    }

    fn read(&self, after: u64) -> BoxFuture<'static, Result<Box<dyn LogReader>, LogError>> {
        let (state, made) = (self.0.subscribe(), self.0.borrow().made);
        let reader = MemoryReader { state, made, after: usize::try_from(after).unwrap() };
        std::future::ready(Ok(Box::new(reader) as Box<dyn LogReader>)).boxed()
    }

    fn delete(&self, position: u64) -> BoxFuture<'static, Result<(), LogError>> {
        let mut result = Err(LogError::TimedOut);
        self.0.send_modify(|state| {
            if !state.is_away {
                state.messages[usize::try_from(position).unwrap() - 1].1 = None;
                result = Ok(());
            }
        });
        std::future::ready(result).boxed()
    }
}

struct MemoryReader {
    state: watch::Receiver<State>,
    made: u32,
    after: usize,
}

impl LogReader for MemoryReader {
    fn next(&mut self) -> BoxFuture<'_, Result<LogEntry, LogError>> {
        async move {
            let (made, after) = (self.made, self.after);
            let is_over = |state: &State| state.is_away || state.made != made;
            let next = |state: &State| {
                let left = state.messages.iter().skip(after).position(|(_, message)| message.is_some());
                left.map(|skipped| after + skipped)
            };
            let state = self.state.wait_for(|state| is_over(state) || next(state).is_some()).await;
            let state = state.map_err(|_| LogError::Interrupted)?;
            if is_over(&state) {
                return Err(LogError::Interrupted);
            }
            let index = next(&state).unwrap();
            let behind = state.messages[index + 1..].iter().filter(|(_, message)| message.is_some()).count();
            let message = state.messages[index].1.clone().unwrap();
            self.after = index + 1;
            Ok(LogEntry {
                position: self.after as u64,
                behind: behind as u64,
                stored: Time::from_millis(0),
                message,
            })
        }
        .boxed()
    }
}
