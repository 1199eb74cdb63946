//! The listed properties: those of which page views are counted by value.
//!
//! The table is the rule for commits, recounts and queries, so that commands need no setting.

use sqlx::SqliteConnection;
use tokio::time::Instant;

use super::codec::{json, millis};
use super::slices::SliceSize;
use super::{LifecycleError, OpenError, Store, dimensions};
use crate::history::calendar::Level;
use crate::history::rollup::RollupProp;
use crate::protocol::Time;

impl Store {
    /// Lists the properties that get rollups. A new one counts page views from the next quarter hour on, or all in a
    /// database without history.
    ///
    /// # Errors
    /// The database failed.
    pub async fn list_props(&self, names: &[String], now: Time) -> Result<(), OpenError> {
        const UNLIST: &str = "
            UPDATE rollup_props SET is_listed = 0
            WHERE is_listed AND name NOT IN (SELECT value FROM json_each(?1))";
        const ADD: &str = "
            INSERT INTO rollup_props (name, from_at)
            SELECT DISTINCT value, iif(EXISTS (SELECT 1 FROM months), ?2, 0) FROM json_each(?1)
            WHERE value NOT IN (SELECT name FROM rollup_props WHERE is_listed)";
        // The writer has no limit of time, so that a slow disk does not stop the start.
        let mut writer = self.writer.acquire().await.map_err(OpenError::Write)?;
        let listed = dimensions::rules(&mut writer).await.map_err(OpenError::Write)?.props;
        drop(writer);
        // Mostly nothing changes; then no write lock is needed.
        let has = |name: &String| listed.iter().any(|prop| prop.name == *name);
        if names.iter().all(has) && listed.iter().all(|prop| names.contains(&prop.name)) {
            return Ok(());
        }
        let (names, from) =
            (json(names).map_err(OpenError::Write)?, Level::Quarter.after(Level::Quarter.floor(now)));
        let mut transaction = self.writer.begin().await.map_err(OpenError::Write)?;
        sqlx::query(UNLIST).bind(&names).execute(&mut *transaction).await.map_err(OpenError::Write)?;
        let add = sqlx::query(ADD).bind(&names).bind(millis(from));
        add.execute(&mut *transaction).await.map_err(OpenError::Write)?;
        transaction.commit().await.map_err(OpenError::Write)
    }

    /// Deletes the rollups of properties that are no longer listed. Returns how many rows they had.
    /// Errors: the database failed.
    pub(crate) async fn drop_unlisted_props(&self) -> Result<u64, LifecycleError> {
        const UNLISTED: &str = "SELECT id FROM rollup_props WHERE NOT is_listed";
        const DELETE: &str =
            "DELETE FROM rollup_props WHERE NOT is_listed AND id IN (SELECT value FROM json_each(?1))";
        let ids: Vec<u32> = sqlx::query_scalar(UNLISTED).fetch_all(&mut *self.read().await?).await?;
        if ids.is_empty() {
            return Ok(0);
        }
        let ids = json(&ids)?;
        let (mut deleted, mut after, mut size) = (0, None, SliceSize::rows());
        loop {
            let mut reader = self.read().await?;
            let found = dimensions::of_dimensions(&mut reader, &ids, after, size.get()).await?;
            drop(reader);
            let Some(last) = found.last() else { break };
            after = Some(*last);
            let started = Instant::now();
            let mut transaction = self.begin().await?;
            dimensions::delete(&mut transaction, dimensions::TABLE, &found).await?;
            transaction.commit().await?;
            size.adapt(started.elapsed());
            deleted += found.len() as u64;
        }
        sqlx::query(DELETE).bind(ids).execute(&mut *self.connection().await?).await?;
        Ok(deleted)
    }
}

/// Returns the property with rollups of this name.
pub(in crate::history) async fn listed(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Option<RollupProp>, sqlx::Error> {
    let props = dimensions::rules(connection).await?.props;
    Ok(props.into_iter().find(|prop| prop.name == name))
}
