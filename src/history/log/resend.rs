//! Publishes the erasures and the events of the last days again, after the log has lost messages.
//!
//! It reads raw rows page by page, and publishes one message after the other. A hub that stops meanwhile begins again at
//! its next start; events merge, so repeats change nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::Log;
use super::command::{Command, MOST_ERASED};
use super::erasures::Erasures;
use super::follow::{LogParts, Lost};
use super::message::{Encoded, Encoder, Origin, PART_BYTES};
use super::status::LogStatus;
use crate::history::calendar::Month;
use crate::history::event::{Batch, Mergeable};
use crate::history::store::{CommitError, ReadError, Store};
use crate::protocol::Time;

/// The pause after the first failure of a message, which doubles up to the longest.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(15);

/// The file failed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// A log that has lost messages, and the time of the first event that is published again.
pub(super) type LostLog = (Arc<str>, Time);

/// When what is published again.
#[derive(Debug, Default)]
pub(super) struct Resends {
    /// After the next flush.
    due: Option<LostLog>,
    /// Now, and for which log.
    task: Option<(Arc<str>, AbortOnDropHandle<()>)>,
    /// How often that began.
    count: u64,
}

impl Resends {
    /// A log has lost messages. What is under way for it already goes on.
    pub(super) fn note(&mut self, log: &Arc<str>, Lost { since, is_new }: Lost) {
        let task = self.task.as_ref().filter(|(name, _)| name == log);
        let is_under_way = task.is_some_and(|(_, task)| !task.is_finished());
        if is_new || !is_under_way {
            self.due = Some((Arc::clone(log), since));
        }
    }

    /// Whether something begins after the next flush.
    pub(super) fn is_due(&self) -> bool {
        self.due.is_some()
    }

    /// Takes what begins after the flush that begins now.
    pub(super) fn take_due(&mut self) -> Option<LostLog> {
        self.due.take()
    }

    /// The flush failed.
    pub(super) fn put_back(&mut self, due: Option<LostLog>) {
        self.due = self.due.take().or(due);
    }

    /// Begins to publish.
    pub(super) fn begin(
        &mut self,
        (log, from): LostLog,
        parts: &LogParts,
        origin: Origin,
        status: &watch::Sender<LogStatus>,
    ) {
        let resend = Resend {
            log: Arc::clone(&parts.log),
            store: parts.store.clone(),
            encoder: Encoder::again(origin, self.count),
            erasures: parts.erasures.clone(),
            name: log.to_string(),
            from,
            status: status.clone(),
        };
        self.count += 1;
        self.task = Some((log, AbortOnDropHandle::new(parts.panics.spawn(resend.run()))));
    }
}

/// What is published again.
#[derive(Debug)]
struct Resend {
    log: Arc<dyn Log>,
    store: Store,
    encoder: Encoder,
    /// The name of the log.
    name: String,
    /// The time of the first event.
    from: Time,
    status: watch::Sender<LogStatus>,
    erasures: Erasures,
}

impl Resend {
    /// Publishes all events, however long it takes.
    async fn run(mut self) {
        // A file from a backup may have events of visitors who were erased since.
        self.erasures.until_repeated().await;
        loop {
            match self.publish().await {
                Ok(events) => {
                    info!(events, "the events of the last days are in the log again");
                    self.status.send_modify(|status| status.is_resending = false);
                    return;
                }
                Err(error) => {
                    warn!(%error, "cannot publish the events of the last days again: trying again");
                    sleep(RETRY_MAX).await;
                }
            }
        }
    }

    async fn publish(&mut self) -> Result<usize, Failed> {
        for visitors in self.erasures.all().chunks(MOST_ERASED) {
            let command = self.encoder.command(&Command::Erase { visitors: visitors.to_vec() });
            self.append(command).await;
        }
        let (mut count, mut last) = (0, 0);
        let first = Month::of(self.from);
        for month in self.store.live_months().await?.into_iter().filter(|month| *month >= first) {
            let mut pages = self.store.events(month);
            while let Some(mut page) = pages.next().await? {
                page.page_views.retain(|view| view.time() >= self.from);
                page.watches.retain(|watch| watch.time() >= self.from);
                page.samples.retain(|sample| sample.time() >= self.from);
                count += page.len();
                last = self.publish_page(page).await.unwrap_or(last);
            }
        }
        self.store.end_resend(&self.name, last).await?;
        Ok(count)
    }

    /// Returns the position of the last message, of which there may be none.
    async fn publish_page(&mut self, mut page: Batch) -> Option<u64> {
        let mut last = None;
        self.erasures.drop_from(&mut page);
        while !page.is_empty() {
            for encoded in self.encoder.encode(page.split_front(PART_BYTES)) {
                last = Some(self.append(encoded).await);
            }
        }
        last
    }

    /// Publishes a message, and returns its position.
    async fn append(&self, Encoded { id, message, .. }: Encoded) -> u64 {
        let mut retry = RETRY_MIN;
        loop {
            // The status says that the log is away.
            if let Ok(position) = self.log.append(id.to_string(), message.clone()).await {
                return position;
            }
            sleep(retry).await;
            retry = (retry * 2).min(RETRY_MAX);
        }
    }
}
