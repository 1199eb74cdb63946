//! What commits and erasures record for the sweep of unused texts.
//!
//! A sweep runs in several transactions, so that a commit of any process between them must keep the texts that it uses.

use sqlx::SqliteConnection;

use super::codec::json;
use crate::history::rollup::DictionaryId;

/// Records that texts may be unused, so that a sweep is due.
pub(super) async fn set_sweep_due(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE text_sweep SET state = 'due' WHERE state = 'done'").execute(connection).await?;
    Ok(())
}

/// Records the texts that a commit uses, if a sweep is running.
pub(super) async fn record(
    connection: &mut SqliteConnection,
    texts: impl Iterator<Item = DictionaryId>,
) -> Result<(), sqlx::Error> {
    const IS_RUNNING: &str = "SELECT state = 'running' FROM text_sweep";
    const RECORD: &str = "INSERT OR IGNORE INTO used_texts SELECT value FROM json_each(?1)";
    if sqlx::query_scalar(IS_RUNNING).fetch_one(&mut *connection).await? {
        let texts: Vec<DictionaryId> = texts.collect();
        sqlx::query(RECORD).bind(json(&texts)?).execute(connection).await?;
    }
    Ok(())
}
