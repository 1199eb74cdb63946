//! Property tests of the store on real files.
//!
//! Any order, repeats, crashes between statements and reopened files store the same rows, and rollups equal a recount.

use std::pin::pin;
use std::task::Poll;

use proptest::prelude::*;
use sqlx::Row;
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::history::calendar::{DAY_MS, time};
use crate::history::event::{Actor, PageViewEvent, RoomSample, TotalSample, WatchEvent};
use crate::protocol::{RoomId, Time, VisitorId};

mod archiving;
mod dimensions;
mod erasure;
mod identity;
mod scope;
mod sums;
mod support;

/// A store on its own file.
struct File {
    folder: TempDir,
    store: Store,
}

impl File {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&url(&folder)).await.unwrap();
        Self { folder, store }
    }

    async fn restore_from(&mut self) {
        self.store.close().await;
        self.store = Store::open(&url(&self.folder)).await.unwrap();
    }

    /// All rows of the public views.
    async fn rows(&self) -> Vec<String> {
        const EVERYTHING: &str = "
            SELECT json_array(id, room, visitor, content, state, watched_ms, position_ms, duration_ms,
                              started_at, updated_at, props, is_bot) FROM watch_sessions
            UNION ALL
            SELECT json_array(id, room, visitor, path, title, referrer, at, props, is_bot) FROM page_views
            UNION ALL
            SELECT json_array(at, room, present_ms, peak, joins, moods_ms, held_ms, sits_begun,
                              sits_completed, sat_ms) FROM presence
            ORDER BY 1";
        let rows = sqlx::query(EVERYTHING).fetch_all(&mut *self.store.read().await.unwrap()).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn expect_correct_rollups(&self) {
        let recount = self.store.recount().await.unwrap();
        let differences: Vec<String> = recount.differences.iter().map(ToString::to_string).collect();
        assert!(differences.is_empty(), "{differences:#?}");
    }
}

fn url(folder: &TempDir) -> String {
    format!("sqlite://{}/a.db", folder.path().display())
}

fn actor(name: &str, is_bot: bool) -> Actor {
    let (room, visitor) = (RoomId::try_from(name).unwrap(), VisitorId::try_from(name).unwrap());
    Actor { room, visitor, is_bot }
}

fn at(text: &str) -> Time {
    time(text.parse().unwrap())
}

/// A time near the end of a leap year's February. There are few, so that messages collide.
fn time_near_leap_day() -> impl Strategy<Value = Time> {
    (0..4_u64, 0..6_u64)
        .prop_map(|(day, quarter)| at("2024-02-27T23:00:00Z").plus(day * DAY_MS + quarter * 10 * 60_000))
}

/// A message as a client may send it, with few ids and times.
fn watch() -> impl Strategy<Value = WatchEvent> {
    let state = proptest::sample::select(vec!["playing", "paused", "ended"]);
    let optional = |limit: u64| proptest::option::of(0..limit);
    let clocks = (
        time_near_leap_day(),
        proptest::option::of(time_near_leap_day()),
        proptest::option::of(time_near_leap_day()),
    );
    (0..4_u128, "[a-c]", state, 0..4_000_000_u64, clocks, optional(9), optional(9), 0..6_u8).prop_map(
        |(id, name, state, watched, (arrived, started, at), position, duration, bot)| {
            let at = at.filter(|at| *at <= arrived);
            let message = serde_json::json!({
                "id": Uuid::from_u128(id), "content": name, "state": state, "watchedMs": watched,
                "startedAt": started, "positionMs": position, "durationMs": duration, "at": at,
                "props": position.map(|position| serde_json::json!({ "p": position })),
            });
            let message = serde_json::from_value(message).unwrap();
            WatchEvent::new(actor(&name, bot == 0), message, arrived).unwrap()
        },
    )
}

fn referrer(name: &str) -> String {
    format!("https://www.{name}.example/x")
}

/// A page view, with few ids, so that some have one identity and different records.
fn page_view() -> impl Strategy<Value = PageViewEvent> {
    (0..12_u128, 0..3_usize, 0..4_u64).prop_map(|(id, visitor, variant)| {
        let name = ["a", "b", "c"][visitor];
        let seen = at("2024-02-29T23:20:00Z").plus(u64::try_from(id).unwrap() * 10 * 60_000);
        // Of the others, two are at the same time, and one is of another month.
        let seen = seen.minus([0, 0, DAY_MS, 40 * DAY_MS][usize::try_from(variant).unwrap()]);
        let message = serde_json::json!({
            "id": Uuid::from_u128(id << 90 | id), "at": seen,
            // Some paths are whole URLs that are also referrers.
            "path": if id % 4 == 1 { referrer(name) } else { format!("/{name}{variant}") },
            "referrer": (id % 2 == 0).then(|| referrer(name)),
            "title": (id % 5 == 0).then(|| format!("Title {variant}")),
            "props": (id % 3 == 0).then(|| serde_json::json!({ "plan": name, "n": variant, "yes": true })),
        });
        let message = serde_json::from_value(message).unwrap();
        PageViewEvent::new(actor(name, id % 7 == 3), message, seen).unwrap()
    })
}

/// A sample, with few ids, so that some come again as another node or a partition made them.
fn total_sample() -> impl Strategy<Value = TotalSample> {
    (0..10_u128, 0..4_usize).prop_map(|(id, variant)| {
        // The last one is a part of the first one, with another room.
        let nodes = [["a", "b"].as_slice(), &["b"], &["a", "c"], &["a", "b"]][variant];
        let rooms = [["a", "b"].as_slice(), &["b", "a"], &["b"], &["c"]][variant];
        let (people, variant) = (u32::try_from(id).unwrap(), u32::try_from(variant % 3).unwrap());
        let sample = |people: u32| RoomSample {
            present_ms: 60_000 * u64::from(people),
            // The sample that counts does not have the highest peak.
            peak: people + 5 - variant,
            joins: 3 - variant,
            moods_ms: [(["calm", "joy", "awe"][variant as usize].to_owned(), 1_000)].into(),
            held_ms: 900 * u64::from(variant),
            sits_begun: u64::from(people),
            sits_completed: u64::from(2 - variant),
            sat_ms: 30_000 * u64::from(variant % 2),
        };
        let room = |name: &&str| (RoomId::try_from(*name).unwrap(), sample(people));
        TotalSample {
            id: Uuid::from_u128(id),
            at: at("2024-02-29T23:50:00Z").plus(u64::from(people) * 3 * 60_000),
            nodes: nodes.iter().map(|name| (*name).to_owned().try_into().unwrap()).collect(),
            hub: sample(2 * people),
            rooms: rooms.iter().map(room).collect(),
        }
    })
}

fn batch() -> impl Strategy<Value = Batch> {
    let events = (
        proptest::collection::vec(watch(), 0..8),
        proptest::collection::vec(page_view(), 0..8),
        proptest::collection::vec(total_sample(), 0..4),
    );
    events.prop_map(|(watches, page_views, samples)| Batch { page_views, watches, samples })
}

/// The same events twice, in another order and other batches.
fn shuffled(batches: &[Batch]) -> impl Strategy<Value = Vec<Batch>> + use<> {
    let all: Batch = batches.iter().cloned().collect();
    let twice = |n: usize| (0..n).chain(0..n).collect::<Vec<_>>();
    let orders = (
        Just(twice(all.watches.len())).prop_shuffle(),
        Just(twice(all.page_views.len())).prop_shuffle(),
        Just(twice(all.samples.len())).prop_shuffle(),
    );
    (orders, 1..4_usize).prop_map(move |((watches, views, samples), parts)| {
        let mut shuffled = vec![Batch::default(); parts];
        let part = |index: usize| index % parts;
        watches.iter().enumerate().for_each(|(n, i)| shuffled[part(n)].watches.push(all.watches[*i].clone()));
        views
            .iter()
            .enumerate()
            .for_each(|(n, i)| shuffled[part(n)].page_views.push(all.page_views[*i].clone()));
        samples.iter().enumerate().for_each(|(n, i)| shuffled[part(n)].samples.push(all.samples[*i].clone()));
        shuffled
    })
}

/// Polls a future until it was pending `waits` times, and then drops it, as a crash does.
async fn crash_after<T>(waits: usize, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut left = waits;
    std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn order_and_repeats_do_not_change_rows_or_rollups(
        (batches, again) in proptest::collection::vec(batch(), 1..4).prop_flat_map(|batches| {
            let again = shuffled(&batches);
            (Just(batches), again)
        }),
    ) {
        let (once, again) = block_on(async {
            let (first, mut second) = (File::new().await, File::new().await);
            for batch in &batches {
                first.store.commit(batch).await.unwrap();
            }
            for batch in &again {
                second.store.commit(batch).await.unwrap();
                second.restore_from().await;
            }
            first.expect_correct_rollups().await;
            second.expect_correct_rollups().await;
            (first.rows().await, second.rows().await)
        });
        prop_assert_eq!(once, again);
    }

    #[test]
    fn crash_between_statements_leaves_all_or_nothing(
        batches in proptest::collection::vec((batch(), 0..40_usize), 1..5),
    ) {
        block_on(async {
            let mut file = File::new().await;
            for (batch, waits) in &batches {
                let before = file.rows().await;
                if !matches!(crash_after(*waits, file.store.commit(batch)).await, Some(Ok(_))) {
                    file.restore_from().await;
                    let left = file.rows().await;
                    file.expect_correct_rollups().await;
                    file.store.commit(batch).await.unwrap();
                    // A crash during COMMIT may be too late to undo it.
                    assert!(left == before || left == file.rows().await);
                }
                file.expect_correct_rollups().await;
            }
        });
    }
}

#[tokio::test]
async fn dropped_transaction_does_not_block_the_next() {
    let file = File::new().await;
    let hold = |visitor| SavedHold {
        room: RoomId::try_from("lobby").unwrap(),
        visitor: VisitorId::try_from(visitor).unwrap(),
        mood: None,
        reason: "grace".to_owned(),
        held_until: at("2030-01-01T00:00:00Z"),
        stopped_at: None,
        latest: at("2030-01-01T00:00:00Z"),
        sit_until: None,
        sit_latest: None,
    };
    for waits in 0.. {
        let is_over = crash_after(waits, file.store.save_holds(|| vec![hold("ann")])).await.is_some();
        file.store.save_holds(|| vec![hold("bob")]).await.unwrap();
        assert_eq!(file.store.saved_holds().await.unwrap(), [Some(hold("bob"))], "after {waits} waits");
        if is_over {
            break;
        }
    }
}

#[tokio::test]
async fn events_of_the_first_version_are_backfilled() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::from_str(&url(&folder)).unwrap().create_if_missing(true);
    let old = SqlitePool::connect_with(options).await.unwrap();
    let first = Migrator::with_migrations(migrations::all().into_iter().take(1).collect());
    first.run(&old).await.unwrap();
    let rows = "
        INSERT INTO raw_page_views VALUES (randomblob(16), 'lobby', 'ann', '/', NULL, NULL, 1700000000000, '{\"a\":1}');
        INSERT INTO raw_watch_sessions (id, room, visitor, content, state, watched_ms, started_at, seen_at, updated_at)
        VALUES (randomblob(16), 'lobby', 'ann', 'film', 'ended', 5, 1700000000000, 1700000000009, 1700000000009)";
    sqlx::raw_sql(rows).execute(&old).await.unwrap();
    old.close().await;

    let store = Store::open(&url(&folder)).await.unwrap();
    let file = File { folder, store };
    let rows = file.rows().await.join(" ");
    assert!(rows.contains(r#""lobby","ann","/",null,null,1700000000000,"{\"a\":1}",0]"#), "{rows:?}");
    assert!(rows.contains(r#""lobby","ann","film","ended",5,null,null,1700000000000,1700000000009,null,0]"#));
    file.expect_correct_rollups().await;
}

#[tokio::test]
async fn unusable_database_has_a_specific_error() {
    for url in ["postgres://x/y", "sqlite::memory:", "sqlite://"] {
        assert!(matches!(Store::open(url).await, Err(OpenError::Url { .. })), "{url}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("not-a-folder");
    std::fs::write(&file, "not a database, but long enough to be read as one".repeat(20)).unwrap();
    let below = Store::open(&format!("sqlite://{}/a.db", file.display())).await;
    assert!(matches!(below, Err(OpenError::Folder { .. })), "{below:?}");
    let itself = Store::open(&format!("sqlite://{}", file.display())).await;
    assert!(matches!(itself, Err(OpenError::Unusable(DatabaseFileError::Foreign { .. }))), "{itself:?}");
}
