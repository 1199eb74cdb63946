//! `join`: fetches the history of another node, for a node that is new or was away for too long.
//!
//! The database arrives under a temporary name and is checked before it gets its own. Archives arrive as drafts, which the
//! hub publishes at its start if this command is interrupted.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::other_hub::{Download, OtherHub};
use super::output::{byte_bar, print};
use super::{CommandError, Outcome};
use crate::auth::Secret;
use crate::history;
use crate::history::archive::{Archives, checksum};
use crate::history::calendar::timestamp;
use crate::history::store::backup::NewDatabase;
use crate::time::Clock;

/// The settings of `join`.
#[derive(Debug, Args)]
pub(crate) struct JoinSettings {
    /// A node that has the history, such as `http://node-a:8080`
    #[arg(value_name = "URL")]
    pub url: String,
    /// The admin token of that node
    #[arg(long, env, value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Secret,
    /// The SQLite file of this node, which is made
    #[arg(long, env, value_name = "URL", default_value = history::DATABASE_URL)]
    pub database_url: String,
    /// The folder of archives of this node [default: archive beside the database]
    #[arg(long, env, value_name = "FOLDER")]
    pub archive_dir: Option<PathBuf>,
    /// Replace a database that has events, which is kept under another name
    #[arg(long)]
    pub replace: bool,
}

/// Fetches the database and the archives of another node.
/// Errors: the other hub does not answer, a hub is running on the database, it has events, or a file operation failed. The
/// database is unchanged then.
pub(crate) async fn join(settings: JoinSettings, clock: &Clock) -> Result<Outcome, CommandError> {
    let hub = OtherHub::new(&settings.url, settings.admin_token)?;
    let mut database = NewDatabase::begin(&settings.database_url, settings.replace).await?;
    let archives = Archives::new(settings.archive_dir, database.path());
    print(format_args!("{} copies its database", hub.url()));
    let snapshot = hub.file("/snapshot").await?;
    let bytes = snapshot.bytes();
    receive(snapshot, |part| Ok(database.write(part)?)).await?;
    print(format_args!("{bytes} bytes have arrived, and are checked"));
    let mut drafts = Vec::new();
    for (month, expected) in database.check().await? {
        let is_there = |found: Result<String, _>| found.is_ok_and(|found| found == expected);
        if is_there(checksum(archives.path(&Archives::name(month))).await) {
            continue;
        }
        let archive = hub.file(&format!("/archives/{month}")).await?;
        print(format_args!("the archive of {month} has {} bytes", archive.bytes()));
        let (path, mut draft) = archives.create_draft(month).await?;
        receive(archive, |part| draft.write_all(part).map_err(|source| CommandError::output(&path, source)))
            .await?;
        draft.sync_all().map_err(|source| CommandError::output(&path, source))?;
        let found = checksum(path.clone()).await?;
        if found != expected {
            archives.discard(month).await?;
            return Err(CommandError::OtherArchive { month, url: hub.url().clone() });
        }
        drafts.push((month, expected));
    }
    let suffix = timestamp(clock.wall()).strftime(".replaced-%Y%m%dT%H%M%SZ").to_string();
    let path = database.path().to_path_buf();
    let replaced = database.install(&suffix)?;
    for (month, checksum) in drafts {
        archives.publish(month, &checksum).await?;
    }
    print(format_args!("{} has the history of {}: start the hub now", path.display(), hub.url()));
    if let Some(replaced) = replaced {
        print(format_args!("the database before is {}: delete it if you do not need it", replaced.display()));
    }
    Ok(Outcome::Success)
}

/// Receives a file to its end.
async fn receive(
    mut file: Download,
    mut write: impl FnMut(&[u8]) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let bar = byte_bar(file.bytes());
    while let Some(part) = file.next().await? {
        write(&part)?;
        bar.inc(part.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}
