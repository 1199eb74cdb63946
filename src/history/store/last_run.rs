//! The last run: whether the hub, or the machine under it, stopped in order.
//!
//! A file may be damaged when a machine stops without its last writes. A process that is killed leaves them to the
//! system. So each run stores the id of the system's boot, and at its end that it was clean.

use sqlx::sqlite::SqliteConnection;

use super::{CommitError, Store};

/// Whether the last run has no clean end, and the system was booted since. A file of an older version counts as clean.
pub(super) async fn machine_has_crashed(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    const EXISTS: &str = "SELECT count(*) FROM sqlite_schema WHERE name = 'last_run'";
    const UNCLEAN: &str = "SELECT boot_id FROM last_run WHERE NOT is_clean";
    let exists: i64 = sqlx::query_scalar(EXISTS).fetch_one(&mut *connection).await?;
    if exists == 0 {
        return Ok(false);
    }
    let last: Option<Option<String>> = sqlx::query_scalar(UNCLEAN).fetch_optional(connection).await?;
    // An unknown id shows nothing.
    Ok(last.flatten().zip(boot_id()).is_some_and(|(last, now)| last != now))
}

impl Store {
    /// Stores that a run on this boot has begun.
    /// Errors: the database is locked, full, gone or damaged.
    pub(super) async fn begin_run(&self) -> Result<(), CommitError> {
        self.set_last_run(false).await
    }

    /// Stores that the run ended in order. Call it after the last commit.
    /// Errors: as above.
    pub(crate) async fn end_run(&self) -> Result<(), CommitError> {
        self.set_last_run(true).await
    }

    async fn set_last_run(&self, is_clean: bool) -> Result<(), CommitError> {
        const SET: &str = "REPLACE INTO last_run (only_row, boot_id, is_clean) VALUES (1, ?1, ?2)";
        let mut transaction = self.begin().await?;
        sqlx::query(SET).bind(boot_id()).bind(is_clean).execute(&mut *transaction).await?;
        transaction.commit().await
    }
}

/// The id of the system's boot, if it is known.
#[cfg(target_os = "linux")]
fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// The id or the time of the system's boot, if it is known.
#[cfg(not(target_os = "linux"))]
fn boot_id() -> Option<String> {
    let sysctl = |name| {
        let output = std::process::Command::new("sysctl").args(["-n", name]).output().ok()?;
        let value = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !value.is_empty()).then_some(value)
    };
    sysctl("kern.bootsessionuuid").or_else(|| sysctl("kern.boottime"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_an_unclean_end_before_another_boot_is_a_crash_of_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        let has_crashed = async || machine_has_crashed(&mut store.connection().await.unwrap()).await.unwrap();
        let on_boot = async |id: Option<&str>| {
            let set = sqlx::query("UPDATE last_run SET boot_id = ?1").bind(id);
            set.execute(&mut *store.connection().await.unwrap()).await.unwrap();
        };
        assert!(!has_crashed().await, "there was no run yet");
        store.begin_run().await.unwrap();
        assert!(!has_crashed().await, "the process was killed");
        on_boot(Some("another")).await;
        assert!(has_crashed().await);
        on_boot(None).await;
        assert!(!has_crashed().await, "the id is unknown");
        store.end_run().await.unwrap();
        on_boot(Some("another")).await;
        assert!(!has_crashed().await, "the end was clean");
        sqlx::query("DROP TABLE last_run").execute(&mut *store.connection().await.unwrap()).await.unwrap();
        assert!(!has_crashed().await, "an older version has no record");
    }
}
