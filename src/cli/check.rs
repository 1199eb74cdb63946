//! `check`: the rollups against a recount of the facts.
//!
//! It changes none of the history, and a hub of the same version may go on meanwhile.

use clap::Args;

use super::{Failure, Outcome, say};
use crate::history::{self, Store};

/// The settings of `check`.
#[derive(Debug, Args)]
pub struct CheckSettings {
    /// The SQLite file
    #[arg(long, env, value_name = "URL", default_value = history::DATABASE_URL)]
    pub database_url: String,
}

/// Recounts the history, prints each difference, and sums up.
///
/// # Errors
/// There is no database, or it cannot be read.
pub(crate) async fn check(settings: CheckSettings) -> Result<Outcome, Failure> {
    let store = Store::open_existing(&settings.database_url).await?;
    let recount = store.recount().await?;
    store.close().await;
    for difference in &recount.differences {
        say(difference);
    }
    for month in &recount.archived {
        say(format_args!("{month} is in an archive and was not recounted"));
    }
    let (rows, rollups) = (recount.rows, recount.rollups);
    match recount.differences.len() {
        0 => say(format_args!("{rows} facts agree with {rollups} rollups")),
        n => say(format_args!("{rows} facts, {rollups} rollups: {n} differences")),
    }
    Ok(if recount.differences.is_empty() { Outcome::Clean } else { Outcome::Faulty })
}
