//! Sums up what the file of this node has, so that nodes can compare their files.
//!
//! It reads the sums that each commit keeps, and does not know the other nodes.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::status::LogStatus;
use crate::history::store::Store;

/// The time between two looks at what the records of the file add up to.
const SUM: Duration = Duration::from_secs(1);

/// Notes once a second what the records of the file add up to.
pub(super) async fn sum_up(store: Store, status: watch::Sender<LogStatus>) {
    loop {
        sleep(SUM).await;
        // Whatever is wrong with the file, the flush task says so.
        let Ok(Some(records)) = store.records_at_position().await else { continue };
        status.send_if_modified(|status| {
            let before = status.records.replace(records);
            before != status.records
        });
    }
}
