//! `backup` and `restore`: a copy of the database in one file.
//!
//! A hub may run during a backup, and must not run during a restore.

use std::path::PathBuf;

use clap::Args;

use super::output::print;
use super::protected::{ProtectedFiles, part_of};
use super::{CommandError, Outcome};
use crate::history::archive::Archives;
use crate::history::calendar::timestamp;
use crate::history::store::read_only::path_of;
use crate::history::{self, store::backup};
use crate::time::Clock;

/// The settings of `backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupSettings {
    /// The new file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The SQLite file
    #[arg(long, env, value_name = "URL", default_value = history::DATABASE_URL)]
    pub database_url: String,
    /// The folder of archives, which the new file must not replace [default: archive beside the database]
    #[arg(long, env, value_name = "FOLDER")]
    pub archive_dir: Option<PathBuf>,
}

/// The settings of `restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreSettings {
    /// A file that `backup` wrote
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The SQLite file that is replaced
    #[arg(long, env, value_name = "URL", default_value = history::DATABASE_URL)]
    pub database_url: String,
}

/// Copies the database to a new file.
/// Errors: the file exists, or the database cannot be copied.
pub(crate) async fn backup(settings: BackupSettings) -> Result<Outcome, CommandError> {
    let database = path_of(&settings.database_url)?;
    let protected = ProtectedFiles::of(&database, &Archives::new(settings.archive_dir, &database));
    for name in [settings.file.clone(), part_of(&settings.file)] {
        protected.check(&name)?;
    }
    let bytes = backup::backup(&settings.database_url, &settings.file).await?;
    print(format_args!("{}: {bytes} bytes", settings.file.display()));
    Ok(Outcome::Success)
}

/// Replaces the database with a backup.
/// Errors: a hub is running, or the backup is not an intact database of a hub. Nothing is changed then.
pub(crate) async fn restore(settings: RestoreSettings, clock: &Clock) -> Result<Outcome, CommandError> {
    let suffix = timestamp(clock.wall()).strftime(".replaced-%Y%m%dT%H%M%SZ").to_string();
    let replaced = backup::restore(&settings.database_url, &settings.file, &suffix).await?;
    print(format_args!("restored {}", settings.file.display()));
    if let Some(replaced) = replaced {
        print(format_args!("the database before is {}: delete it if you do not need it", replaced.display()));
    }
    Ok(Outcome::Success)
}
