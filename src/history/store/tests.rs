//! The store against random events, on real files: any order, any repeats, crashes between statements and
//! reopened files store the same, and the rollups are what a recount gives.

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
mod erasure;
mod support;

/// A file of its own, and the store on it.
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

    /// Every row that the views show.
    async fn rows(&self) -> Vec<String> {
        const EVERYTHING: &str = "
            SELECT json_array(id, room, visitor, content, state, watched_ms, position_ms, duration_ms,
                              started_at, updated_at, props, is_bot) FROM watch_sessions
            UNION ALL
            SELECT json_array(id, room, visitor, path, title, referrer, at, props, is_bot) FROM page_views
            UNION ALL
            SELECT json_array(at, room, present_ms, peak, joins, moods_ms) FROM presence
            ORDER BY 1";
        let rows = sqlx::query(EVERYTHING).fetch_all(&self.store.readers).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn expect_rollups_right(&self) {
        let recount = self.store.recount().await.unwrap();
        let differences: Vec<String> = recount.differences.iter().map(ToString::to_string).collect();
        assert!(differences.is_empty(), "{differences:#?}");
    }
}

fn url(folder: &TempDir) -> String {
    format!("sqlite://{}/a.db", folder.path().display())
}

fn who(name: &str, is_bot: bool) -> Actor {
    let (room, visitor) = (RoomId::try_from(name).unwrap(), VisitorId::try_from(name).unwrap());
    Actor { room, visitor, is_bot }
}

fn at(text: &str) -> Time {
    time(text.parse().unwrap())
}

/// A moment near the end of a leap year's February: few of them, so that messages meet and tie.
fn moment() -> impl Strategy<Value = Time> {
    (0..4_u64, 0..6_u64)
        .prop_map(|(day, quarter)| at("2024-02-27T23:00:00Z").plus(day * DAY_MS + quarter * 10 * 60_000))
}

/// A message as a client may send it: few ids and few times.
fn watch() -> impl Strategy<Value = WatchEvent> {
    let state = proptest::sample::select(vec!["playing", "paused", "ended"]);
    let optional = |limit: u64| proptest::option::of(0..limit);
    let clocks = (moment(), proptest::option::of(moment()), proptest::option::of(moment()));
    (0..4_u128, "[a-c]", state, 0..4_000_000_u64, clocks, optional(9), optional(9), 0..6_u8).prop_map(
        |(id, name, state, watched, (arrived, started, at), position, duration, bot)| {
            let at = at.filter(|at| *at <= arrived);
            let message = serde_json::json!({
                "id": Uuid::from_u128(id), "content": name, "state": state, "watchedMs": watched,
                "startedAt": started, "positionMs": position, "durationMs": duration, "at": at,
                "props": position.map(|position| serde_json::json!({ "p": position })),
            });
            let message = serde_json::from_value(message).unwrap();
            WatchEvent::new(who(&name, bot == 0), message, arrived).unwrap()
        },
    )
}

fn referrer(name: &str) -> String {
    format!("https://www.{name}.example/x")
}

/// What is told once is a function of its id: only repeats of the same event meet.
fn page_view() -> impl Strategy<Value = PageViewEvent> {
    (0..12_u128, moment()).prop_map(|(id, _)| {
        let name = ["a", "b", "c"][usize::try_from(id).unwrap() % 3];
        let seen = at("2024-02-29T23:20:00Z").plus(u64::try_from(id).unwrap() * 10 * 60_000);
        let message = serde_json::json!({
            "id": Uuid::from_u128(id << 90 | id), "at": seen,
            // Some pages are told by the whole address, which is the referrer of others.
            "path": if id % 4 == 1 { referrer(name) } else { format!("/{name}") },
            "referrer": (id % 2 == 0).then(|| referrer(name)),
            "title": (id % 5 == 0).then_some("Title"),
            "props": (id % 3 == 0).then(|| serde_json::json!({ "plan": name, "n": id % 4, "yes": true })),
        });
        let message = serde_json::from_value(message).unwrap();
        PageViewEvent::new(who(name, id % 7 == 3), message, seen).unwrap()
    })
}

fn total() -> impl Strategy<Value = TotalSample> {
    (0..10_u128).prop_map(|id| {
        let sample = |people: u32| RoomSample {
            present_ms: 60_000 * u64::from(people),
            peak: people,
            joins: 1,
            moods_ms: [("calm".to_owned(), 1_000)].into_iter().filter(|_| id % 2 == 0).collect(),
        };
        let people = u32::try_from(id).unwrap();
        let room = |name: &str| (RoomId::try_from(name).unwrap(), sample(people));
        TotalSample {
            id: Uuid::from_u128(id),
            at: at("2024-02-29T23:50:00Z").plus(u64::from(people) * 3 * 60_000),
            hub: sample(2 * people),
            rooms: ["a", "b"][usize::from(id % 3 == 1)..].iter().map(|name| room(name)).collect(),
        }
    })
}

fn batch() -> impl Strategy<Value = Batch> {
    let events = (
        proptest::collection::vec(watch(), 0..8),
        proptest::collection::vec(page_view(), 0..8),
        proptest::collection::vec(total(), 0..4),
    );
    events.prop_map(|(watches, page_views, samples)| Batch { page_views, watches, samples })
}

/// The same events, twice, in another order and in other batches.
fn shuffled(told: &[Batch]) -> impl Strategy<Value = Vec<Batch>> + use<> {
    let all = told.iter().cloned().fold(Batch::default(), |mut all, batch| {
        all.append(batch);
        all
    });
    let twice = |n: usize| (0..n).chain(0..n).collect::<Vec<_>>();
    let orders = (
        Just(twice(all.watches.len())).prop_shuffle(),
        Just(twice(all.page_views.len())).prop_shuffle(),
        Just(twice(all.samples.len())).prop_shuffle(),
    );
    (orders, 1..4_usize).prop_map(move |((watches, views, samples), parts)| {
        let mut batches = vec![Batch::default(); parts];
        let part = |place: usize| place % parts;
        watches.iter().enumerate().for_each(|(n, i)| batches[part(n)].watches.push(all.watches[*i].clone()));
        views
            .iter()
            .enumerate()
            .for_each(|(n, i)| batches[part(n)].page_views.push(all.page_views[*i].clone()));
        samples.iter().enumerate().for_each(|(n, i)| batches[part(n)].samples.push(all.samples[*i].clone()));
        batches
    })
}

/// Runs something until it has waited so many times, and then drops it as a crash would.
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
    fn any_order_and_any_repeats_store_the_same_and_are_rolled_up_right(
        (told, again) in proptest::collection::vec(batch(), 1..4).prop_flat_map(|told| {
            let again = shuffled(&told);
            (Just(told), again)
        }),
    ) {
        let (once, again) = block_on(async {
            let (first, mut second) = (File::new().await, File::new().await);
            for batch in &told {
                first.store.commit(batch).await.unwrap();
            }
            for batch in &again {
                second.store.commit(batch).await.unwrap();
                second.restore_from().await;
            }
            first.expect_rollups_right().await;
            second.expect_rollups_right().await;
            (first.rows().await, second.rows().await)
        });
        prop_assert_eq!(once, again);
    }

    #[test]
    fn a_crash_between_any_two_statements_leaves_all_or_nothing(
        told in proptest::collection::vec((batch(), 0..40_usize), 1..5),
    ) {
        block_on(async {
            let mut file = File::new().await;
            for (batch, waits) in &told {
                let before = file.rows().await;
                if !matches!(crash_after(*waits, file.store.commit(batch)).await, Some(Ok(_))) {
                    file.restore_from().await;
                    let left = file.rows().await;
                    file.expect_rollups_right().await;
                    file.store.commit(batch).await.unwrap();
                    // A crash in the middle of the last statement, COMMIT, may come too late.
                    assert!(left == before || left == file.rows().await);
                }
                file.expect_rollups_right().await;
            }
        });
    }
}

#[tokio::test]
async fn work_that_is_dropped_at_any_wait_is_not_in_the_way_of_what_comes_next() {
    let file = File::new().await;
    let seat = |visitor| SavedHold {
        room: RoomId::try_from("lobby").unwrap(),
        visitor: VisitorId::try_from(visitor).unwrap(),
        mood: None,
        reason: "grace".to_owned(),
        held_until: at("2030-01-01T00:00:00Z"),
    };
    for waits in 0.. {
        let is_over = crash_after(waits, file.store.save_holds(|| vec![seat("ann")])).await.is_some();
        file.store.save_holds(|| vec![seat("bob")]).await.unwrap();
        assert_eq!(file.store.saved_holds().await.unwrap(), [Some(seat("bob"))], "after {waits} waits");
        if is_over {
            break;
        }
    }
}

#[tokio::test]
async fn facts_of_the_first_version_are_adopted() {
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
    file.expect_rollups_right().await;
}

#[tokio::test]
async fn a_database_that_cannot_be_used_says_why() {
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
