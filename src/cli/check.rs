//! `check`: compares the rollups with a recount of the events.
//!
//! It only reads. A hub of the same version may run meanwhile.

use clap::Args;

use super::output::print;
use super::{CommandError, Outcome};
use crate::history::store::CheckFirst;
use crate::history::{self, Store};

/// The settings of `check`.
#[derive(Debug, Args)]
pub struct CheckSettings {
    /// The SQLite file
    #[arg(long, env, value_name = "URL", default_value = history::DATABASE_URL)]
    pub database_url: String,
}

/// Recounts the history and prints each difference and a summary.
/// Errors: the database is missing, needs a migration, or cannot be read.
pub(crate) async fn check(settings: CheckSettings) -> Result<Outcome, CommandError> {
    let store = Store::open_read_only(&settings.database_url, CheckFirst::Always).await?;
    let recount = store.recount().await?;
    store.close().await?;
    for difference in &recount.differences {
        print(difference);
    }
    for month in &recount.archived {
        print(format_args!("{month} is in an archive and was not recounted"));
    }
    for month in &recount.unsettled {
        print(format_args!("{month} waits for maintenance to rebuild its lists, which were not compared"));
    }
    for month in &recount.unsummed {
        print(format_args!("{month} waits for maintenance to sum up its records, which were not compared"));
    }
    let (rows, rollups) = (recount.rows, recount.rollups);
    match recount.differences.len() {
        0 => print(format_args!("{rows} events agree with {rollups} rollups")),
        n => print(format_args!("{rows} events, {rollups} rollups: {n} differences")),
    }
    Ok(if recount.differences.is_empty() { Outcome::Success } else { Outcome::Problems })
}
