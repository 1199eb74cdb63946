//! Readers: read-only connections that are limited in time, and a gate that pauses them.
//!
//! SQLite cannot reset the write-ahead log while a transaction reads from it, so the log grows for as long as reads
//! overlap. Each read goes through the gate. A checkpoint closes the gate for a moment: new reads wait, and those that
//! run are interrupted when they take too long.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use sqlx::{ConnectOptions, Sqlite};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::timeout;

/// Limit of reader connections.
pub(super) const READERS: u32 = 4;

/// How long a read waits for a connection, and for the gate.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long reads may go on after a pause was requested.
const PAUSE_GRACE: Duration = Duration::from_secs(1);

/// How long a pause waits for the reads to end.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest work without a rest of a background read.
const WORK: Duration = Duration::from_millis(20);

/// The longest sleep within a rest, so that a background read makes way for a pause soon.
const NAP: Duration = Duration::from_millis(50);

/// Steps of SQLite's virtual machine, or pages of an integrity check, between two looks at the clock.
pub(super) const STEPS: i32 = 200;

/// The readers of a database. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Readers {
    pool: SqlitePool,
    gate: ReadGate,
    /// The longest time of a read.
    limit: Option<Duration>,
}

impl Readers {
    pub(super) fn new(pool: SqlitePool, limit: Option<Duration>) -> Self {
        Self { pool, gate: ReadGate::new(), limit }
    }

    /// Returns a connection. Its statements are interrupted after the limit, and when it is dropped.
    /// Errors: all connections are in use for too long, or the file cannot be opened.
    pub(super) async fn read(&self) -> Result<ReadConnection, sqlx::Error> {
        // The connection first: what waits for one does not delay a pause.
        let mut connection = self.pool.acquire().await?;
        let permit = self.gate.enter().await?;
        let over = Over::default();
        let (is_over, gate) = (Arc::clone(&over.0), self.gate.clone());
        let deadline = self.limit.and_then(|limit| Instant::now().checked_add(limit));
        let may_go_on = move || {
            let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            !(is_late || is_over.load(Ordering::Relaxed) || gate.interrupts())
        };
        connection.lock_handle().await?.set_progress_handler(STEPS, may_go_on);
        Ok(ReadConnection { connection, _over: over, _permit: permit })
    }

    /// Opens a connection of its own, for long reads beside the others.
    /// Errors: the file cannot be opened.
    pub(super) async fn open_background(&self) -> Result<BackgroundReader, sqlx::Error> {
        let connection = self.pool.connect_options().connect().await?;
        Ok(BackgroundReader { connection, gate: self.gate.clone() })
    }

    /// Closes the connections that are not in use. They keep what SQLite shares among the connections to one file, and
    /// that is read-only if the first of them opened it on a read-only volume.
    pub(super) async fn close_idle(&self) {
        while let Some(connection) = self.pool.try_acquire() {
            // It is gone in any case.
            let _ = connection.close().await;
        }
    }

    pub(super) fn gate(&self) -> &ReadGate {
        &self.gate
    }

    pub(super) fn pool(&self) -> &SqlitePool {
        &self.pool
    }
}

/// A connection for long reads, one after the other.
#[derive(Debug)]
pub(super) struct BackgroundReader {
    connection: SqliteConnection,
    gate: ReadGate,
}

impl BackgroundReader {
    /// Begins a read. After each unit of work it rests for `rest` of them, and it is interrupted as soon as a pause is
    /// requested.
    /// Errors: the gate is closed for too long.
    pub(super) async fn read(
        &mut self,
        rest: u32,
    ) -> Result<ReadConnection<&mut SqliteConnection>, sqlx::Error> {
        let permit = self.gate.enter().await?;
        let over = Over::default();
        let (is_over, gate) = (Arc::clone(&over.0), self.gate.clone());
        let may_go_on = move || !(is_over.load(Ordering::Relaxed) || gate.is_closing());
        let mut began = Instant::now();
        let pace = move || {
            let worked = began.elapsed();
            if worked >= WORK {
                let rested = Instant::now();
                let left = || (worked * rest).saturating_sub(rested.elapsed());
                while !left().is_zero() && may_go_on() {
                    nap(left().min(NAP));
                }
                began = Instant::now();
            }
            may_go_on()
        };
        self.connection.lock_handle().await?.set_progress_handler(STEPS, pace);
        Ok(ReadConnection { connection: &mut self.connection, _over: over, _permit: permit })
    }
}

#[expect(clippy::disallowed_methods, reason = "on the connection's own thread, which has no tasks")]
fn nap(time: Duration) {
    std::thread::sleep(time);
}

/// A connection that has passed the gate. It should have one short transaction.
#[derive(Debug)]
pub(in crate::history) struct ReadConnection<C = PoolConnection<Sqlite>> {
    // Dropped in this order: the statement ends, then its transaction, and then a pause may begin.
    _over: Over,
    connection: C,
    _permit: OwnedRwLockReadGuard<()>,
}

impl<C: Deref<Target = SqliteConnection>> Deref for ReadConnection<C> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl<C: DerefMut<Target = SqliteConnection>> DerefMut for ReadConnection<C> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

/// Interrupts the statement of a connection when it is dropped: one whose future was dropped would otherwise go on.
#[derive(Debug, Default)]
pub(super) struct Over(pub(super) Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The gate of all reads. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct ReadGate(Arc<Gate>);

#[derive(Debug)]
struct Gate {
    /// Shared by reads, exclusive for a pause. Requests are served in their order.
    lock: Arc<RwLock<()>>,
    base: Instant,
    /// When reads are interrupted, in milliseconds since `base`; the maximum is never.
    interrupt_at: AtomicU64,
}

impl ReadGate {
    fn new() -> Self {
        let interrupt_at = AtomicU64::new(u64::MAX);
        Self(Arc::new(Gate { lock: Arc::default(), base: Instant::now(), interrupt_at }))
    }

    /// Waits until the gate is open.
    /// Errors: it was closed for too long.
    pub(super) async fn enter(&self) -> Result<OwnedRwLockReadGuard<()>, sqlx::Error> {
        let entered = timeout(ACQUIRE_TIMEOUT, Arc::clone(&self.0.lock).read_owned()).await;
        entered.map_err(|_| sqlx::Error::PoolTimedOut)
    }

    /// Closes the gate and waits until no read runs, up to a limit. The gate opens when the pause is dropped.
    pub(super) async fn pause(&self) -> Option<Pause> {
        let at = self.0.base.elapsed() + PAUSE_GRACE;
        self.0.interrupt_at.store(u64::try_from(at.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        // Opened again also if this future is dropped.
        let mut pause = Pause { gate: self.clone(), guard: None };
        let guard = timeout(PAUSE_TIMEOUT, Arc::clone(&self.0.lock).write_owned()).await;
        pause.guard = Some(guard.ok()?);
        Some(pause)
    }

    /// Whether a pause was requested.
    fn is_closing(&self) -> bool {
        self.0.interrupt_at.load(Ordering::Relaxed) != u64::MAX
    }

    fn interrupts(&self) -> bool {
        let at = self.0.interrupt_at.load(Ordering::Relaxed);
        at != u64::MAX && self.0.base.elapsed().as_millis() >= u128::from(at)
    }
}

/// No read runs and none begins until this is dropped.
#[derive(Debug)]
pub(super) struct Pause {
    gate: ReadGate,
    guard: Option<OwnedRwLockWriteGuard<()>>,
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.gate.0.interrupt_at.store(u64::MAX, Ordering::Relaxed);
        drop(self.guard.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::store::Store;
    use crate::history::store::error::result_code;

    const ENDLESS: &str =
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

    async fn limited(limit: Option<Duration>) -> (tempfile::TempDir, Readers) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        (folder, Readers::new(store.readers.pool().clone(), limit))
    }

    async fn is_interrupted(connection: &mut SqliteConnection) -> bool {
        let error = sqlx::query(ENDLESS).fetch_all(connection).await.unwrap_err();
        result_code(&error) == Some(9)
    }

    #[tokio::test]
    async fn read_over_its_limit_is_interrupted_and_its_connection_is_used_again() {
        let (_folder, readers) = limited(Some(Duration::from_millis(20))).await;
        for _ in 0..2 * READERS {
            let mut connection = readers.read().await.unwrap();
            assert!(is_interrupted(&mut connection).await);
        }
        let mut connection = readers.read().await.unwrap();
        let months: i64 =
            sqlx::query_scalar("SELECT count(*) FROM months").fetch_one(&mut *connection).await.unwrap();
        assert_eq!(months, 0);
    }

    #[tokio::test]
    async fn dropped_read_is_interrupted() {
        let (_folder, readers) = limited(None).await;
        for _ in 0..2 * READERS {
            let mut connection = readers.read().await.unwrap();
            let endless = sqlx::query(ENDLESS).fetch_all(&mut *connection);
            assert!(timeout(Duration::from_millis(20), endless).await.is_err());
        }
        // Each of them would block a connection for ever.
        readers.read().await.unwrap();
    }

    #[tokio::test]
    async fn pause_interrupts_reads_and_holds_new_ones() {
        let (_folder, readers) = limited(None).await;
        let mut connection = readers.read().await.unwrap();
        let running = tokio::spawn(async move { is_interrupted(&mut connection).await });
        let pause = readers.gate().pause().await.unwrap();
        assert!(running.await.unwrap());
        let waiting = readers.clone();
        let mut waiting = tokio::spawn(async move { drop(waiting.read().await.unwrap()) });
        assert!(timeout(Duration::from_millis(50), &mut waiting).await.is_err(), "the gate is closed");
        drop(pause);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn pause_gives_up_while_a_transaction_stays_open() {
        let (_folder, readers) = limited(None).await;
        let open = readers.read().await.unwrap();
        assert!(readers.gate().pause().await.is_none());
        readers.read().await.unwrap();
        drop(open);
        assert!(readers.gate().pause().await.is_some());
    }

    #[tokio::test]
    async fn background_read_makes_way_for_a_pause() {
        let (_folder, readers) = limited(None).await;
        let mut reader = readers.open_background().await.unwrap();
        let mut connection = reader.read(1_000).await.unwrap();
        let (pause, is_interrupted) = tokio::join!(readers.gate().pause(), async {
            let is_interrupted = is_interrupted(&mut connection).await;
            drop(connection);
            is_interrupted
        });
        assert!(pause.is_some() && is_interrupted);
        drop(pause);
        let mut connection = reader.read(0).await.unwrap();
        let months = sqlx::query_scalar("SELECT count(*) FROM months").fetch_one(&mut *connection).await;
        assert_eq!(months.ok(), Some(0));
    }
}
