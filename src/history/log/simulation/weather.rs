//! A log that fails: it loses, delays and repeats messages, answers late or not at all, and interrupts its readers.
//!
//! Each node has its own way to the log in memory. What was sent arrives although the node that sent it crashes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::history::log::memory::MemoryLog;
use crate::history::log::{Log, LogEntry, LogError, LogReader, LogState};
use crate::sync::lock;

/// How long a node waits for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// How the ways to the log are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    Good,
    /// Everything takes up to 1.5 s, and an answer as long again.
    Slow,
    /// Messages and answers are lost, come late or twice, and readers are interrupted.
    Lossy,
    /// Messages arrive, and no answer comes back.
    Deaf,
    /// No node reaches the log.
    Away,
    /// This node does not reach it.
    AwayFrom(usize),
}

/// The log as one node reaches it.
#[derive(Debug, Clone)]
pub(super) struct FaultyLog {
    pub(super) log: MemoryLog,
    pub(super) weather: watch::Receiver<Weather>,
    pub(super) node: usize,
    random: Arc<Mutex<StdRng>>,
}

/// What becomes of a message.
enum Fate {
    /// It arrives after the first time, and the answer after the second.
    Arrives(Duration, Duration),
    /// It arrives, and once more.
    Repeated,
    Lost,
    Refused,
}

impl FaultyLog {
    pub(super) fn new(log: MemoryLog, weather: watch::Receiver<Weather>, node: usize, seed: u64) -> Self {
        Self { log, weather, node, random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))) }
    }

    fn fate(&self) -> Fate {
        let weather = *self.weather.borrow();
        let mut random = lock(&self.random);
        let mut up_to = |millis: u64| Duration::from_millis(random.random_range(0..=millis));
        match weather {
            Weather::Good => Fate::Arrives(up_to(5), up_to(5)),
            Weather::Slow => Fate::Arrives(up_to(1_500), up_to(1_500)),
            Weather::Lossy => match random.random_range(0..8) {
                0 => Fate::Lost,
                // It arrives, and the answer is lost.
                1 => Fate::Arrives(Duration::ZERO, ANSWER_LIMIT * 2),
                // It arrives long after the publish has timed out.
                2 => Fate::Arrives(Duration::from_millis(random.random_range(2_000..20_000)), Duration::ZERO),
                3 => Fate::Repeated,
                _ => Fate::Arrives(Duration::ZERO, Duration::ZERO),
            },
            Weather::Deaf => Fate::Arrives(Duration::ZERO, ANSWER_LIMIT * 2),
            weather if is_away(weather, self.node) => {
                if random.random_range(0..2) == 0 {
                    Fate::Lost
                } else {
                    Fate::Refused
                }
            }
            Weather::Away | Weather::AwayFrom(_) => Fate::Arrives(Duration::ZERO, Duration::ZERO),
        }
    }
}

fn is_away(weather: Weather, node: usize) -> bool {
    weather == Weather::Away || weather == Weather::AwayFrom(node)
}

impl Log for FaultyLog {
    fn append(&self, id: String, message: Bytes) -> BoxFuture<'static, Result<u64, LogError>> {
        let (log, fate) = (self.log.clone(), self.fate());
        async move {
            let (arrives, answers) = match fate {
                Fate::Arrives(arrives, answers) => (arrives, answers),
                Fate::Repeated => {
                    log.repeat(message.clone());
                    (Duration::ZERO, Duration::ZERO)
                }
                Fate::Refused => return Err(LogError::Unreachable),
                Fate::Lost => {
                    sleep(ANSWER_LIMIT).await;
                    return Err(LogError::TimedOut);
                }
            };
            let (sender, answer) = oneshot::channel();
            tokio::spawn(async move {
                sleep(arrives).await;
                let stored = log.append(id, message).await;
                sleep(answers).await;
                let _ = sender.send(stored); // no receiver: the publish has timed out, or the node has crashed
            });
            let answer = timeout(ANSWER_LIMIT, answer).await.map_err(|_| LogError::TimedOut)?;
            answer.map_err(|_| LogError::TimedOut)?
        }
        .boxed()
    }

    fn state(&self) -> BoxFuture<'static, Result<LogState, LogError>> {
        let (log, fate) = (self.log.clone(), self.fate());
        async move {
            match fate {
                Fate::Arrives(arrives, answers) if arrives + answers < ANSWER_LIMIT => {
                    sleep(arrives).await;
                    let state = log.state().await;
                    sleep(answers).await;
                    state
                }
                Fate::Repeated => log.state().await,
                Fate::Refused => Err(LogError::Unreachable),
                Fate::Arrives(..) | Fate::Lost => {
                    sleep(ANSWER_LIMIT).await;
                    Err(LogError::TimedOut)
                }
            }
        }
        .boxed()
    }

    fn delete(&self, position: u64) -> BoxFuture<'static, Result<(), LogError>> {
        Log::delete(&self.log, position)
    }

    fn read(&self, after: u64) -> BoxFuture<'static, Result<Box<dyn LogReader>, LogError>> {
        let (inner, faults) = (self.log.read(after), self.clone());
        async move { Ok(Box::new(FaultyReader { inner: inner.await?, faults }) as Box<dyn LogReader>) }
            .boxed()
    }
}

struct FaultyReader {
    inner: Box<dyn LogReader>,
    faults: FaultyLog,
}

impl LogReader for FaultyReader {
    fn next(&mut self) -> BoxFuture<'_, Result<LogEntry, LogError>> {
        async move {
            let node = self.faults.node;
            let mut weather = self.faults.weather.clone();
            let entry = tokio::select! {
                biased;
                _ = weather.wait_for(|weather| is_away(*weather, node)) => return Err(LogError::Interrupted),
                entry = self.inner.next() => entry?,
            };
            match self.faults.fate() {
                Fate::Arrives(arrives, _) if arrives < ANSWER_LIMIT => sleep(arrives).await,
                Fate::Arrives(..) | Fate::Repeated => {}
                Fate::Lost | Fate::Refused => return Err(LogError::Interrupted),
            }
            Ok(entry)
        }
        .boxed()
    }
}
