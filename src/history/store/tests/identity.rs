//! What identifies a row, how rows of one identity merge, and how tables of an older version get the key of today.
//!
//! The answers of a store do not depend on the order in which it got its events.

use serde_json::Value;
use sqlx::AssertSqlSafe;
use strum::VariantArray;

use super::support::*;
use super::*;
use crate::history::calendar::Month;
use crate::history::metrics::HistoryMetrics;
use crate::history::record::Record;
use crate::history::record_sum::RecordSum;
use crate::history::stats::{Range, StatsQuery, Zone};
use crate::history::store::partition::{Partitions, RowKind};
use crate::history::store::read::Pages;
use crate::panics::Panics;

const NOTHING: Value = Value::Null;

/// A page view with the id 7.
fn seven(visitor: &str, path: &str, seen: &str) -> PageViewEvent {
    view(7, visitor, path, seen, &NOTHING)
}

fn samples(samples: impl IntoIterator<Item = TotalSample>) -> Batch {
    Batch { samples: samples.into_iter().collect(), ..Batch::default() }
}

/// The paths of all page views, with their visitors.
async fn paths(file: &File) -> Vec<String> {
    const PATHS: &str = "SELECT visitor || path FROM page_views ORDER BY 1";
    sqlx::query_scalar(PATHS).fetch_all(&mut *file.store.read().await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn rows_with_one_id_are_separate_by_visitor_and_room() {
    let file = File::new().await;
    let mut batch = views(["ann", "bob"].map(|name| seven(name, "/", "2024-02-09T00:00:00Z")));
    let mut elsewhere = seven("ann", "/", "2024-02-09T00:00:00Z");
    elsewhere.actor.room = RoomId::try_from("garden").unwrap();
    batch.page_views.push(elsewhere);
    let session = |visitor: &str, room: &str, watched: u64| {
        let message = serde_json::json!({ "id": Uuid::from_u128(7), "content": "film", "state": "ended",
            "watchedMs": watched, "startedAt": at("2024-02-09T00:00:00Z") });
        let room = RoomId::try_from(room).unwrap();
        let actor = Actor { room, ..actor(visitor, false) };
        WatchEvent::new(actor, serde_json::from_value(message).unwrap(), at("2024-02-09T01:00:00Z")).unwrap()
    };
    batch.watches = vec![session("ann", "lobby", 5), session("bob", "lobby", 9), session("ann", "garden", 7)];
    let changes = file.store.commit(&batch).await.unwrap();
    assert_eq!((changes.page_views, changes.watch_sessions), (3, 3));
    let again = file.store.commit(&batch).await.unwrap();
    assert!(again.is_empty(), "{again:?}");
    let watched = file.numbers("SELECT watched_ms FROM watch_sessions ORDER BY visitor, room").await;
    assert_eq!(watched, [7, 5, 9]);
    file.expect_correct_rollups().await;

    let ann = VisitorId::try_from("ann").unwrap();
    let data = file.store.visitor_data(&ann, &file.archives(), None).await.unwrap();
    assert_eq!((data.page_views.len(), data.watch_sessions.len()), (2, 2));
    let erased =
        file.store.erase(&ann, &file.archives(), Erasure::of_all(at("2024-06-10T00:00:00Z"))).await.unwrap();
    assert_eq!((erased.page_views, erased.watch_sessions), (2, 2));
    assert_eq!(paths(&file).await, ["bob/"]);
    file.expect_correct_rollups().await;
}

#[tokio::test]
async fn earlier_page_view_holds_then_the_smaller_record() {
    let given = [
        seven("ann", "/b", "2024-03-01T00:00:00Z"),
        seven("ann", "/c", "2024-02-29T23:59:59Z"), // in another month
        seven("ann", "/b", "2024-02-29T23:59:59Z"),
        seven("ann", "/d", "2024-02-29T23:59:59Z"),
        seven("ann", "/a", "2024-03-02T00:00:00Z"),
    ];
    let expected = views([given[2].clone()]);
    for first in 0..given.len() {
        let file = File::new().await;
        for event in given[first..].iter().chain(&given[..first]) {
            file.store.commit(&views([event.clone()])).await.unwrap();
            file.expect_correct_rollups().await;
        }
        assert_eq!(file.events().await, expected);
        let counts =
            "SELECT page_views FROM activity_rollups WHERE level = 'day' AND room = 0 AND page_views > 0";
        assert_eq!(file.numbers(counts).await, [1]);
    }
}

#[tokio::test]
async fn page_view_merges_with_its_archived_one() {
    let (early, late) =
        (seven("ann", "/a", "2024-02-10T00:00:00Z"), seven("ann", "/b", "2024-02-20T00:00:00Z"));
    let elsewhere = seven("ann", "/c", "2024-01-31T00:00:00Z");
    for (archived, later, expected) in [
        (&early, &late, &early),
        (&late, &early, &early),
        (&late, &elsewhere, &elsewhere), // earlier, and in a month of its own
    ] {
        let file = File::new().await;
        let other = view(8, "bob", "/", "2024-02-15T00:00:00Z", &NOTHING);
        file.store.commit(&views([archived.clone(), other.clone()])).await.unwrap();
        file.store.archive(month("2024-02"), &file.archives()).await.unwrap().unwrap();
        file.store.commit(&views([later.clone()])).await.unwrap();
        file.store.restore_from(month("2024-02"), &file.archives()).await.unwrap();
        file.expect_correct_rollups().await;
        let mut all = vec![expected.clone(), other];
        all.sort_by_key(|view| view.id);
        assert_eq!(file.events().await.page_views, all);
    }
}

/// A minute's sample of these nodes: in each room, this many people for the whole minute, in this mood.
fn minute(nodes: &[&str], people: u32, mood: &str, rooms: &[&str]) -> TotalSample {
    let sample = RoomSample {
        present_ms: 60_000 * u64::from(people),
        peak: people,
        moods_ms: [(mood.to_owned(), 1_000)].into(),
        ..RoomSample::default()
    };
    let room = |name: &&str| (RoomId::try_from(*name).unwrap(), sample.clone());
    TotalSample {
        id: Uuid::from_u128(1),
        at: at("2024-02-29T23:50:00Z"),
        nodes: nodes.iter().map(|node| (*node).to_owned().try_into().unwrap()).collect(),
        hub: sample.clone(),
        rooms: rooms.iter().map(room).collect(),
    }
}

/// Commits the samples in both orders, each twice, and returns what they become.
async fn merged(one: &TotalSample, two: &TotalSample) -> TotalSample {
    let (file, other) = (File::new().await, File::new().await);
    for (file, given) in [(&file, [one, two, one, two]), (&other, [two, one, one, two])] {
        for sample in given {
            file.store.commit(&samples([sample.clone()])).await.unwrap();
            file.expect_correct_rollups().await;
        }
    }
    let [merged] = file.events().await.samples.try_into().unwrap();
    assert_eq!(other.events().await.samples, std::slice::from_ref(&merged));
    assert_eq!(file.answers().await, other.answers().await);
    merged
}

#[tokio::test]
async fn sample_of_more_nodes_counts_then_the_larger_one() {
    // The nodes a and b, and a node that has heard nothing of a but has the higher peak.
    let (more, fewer) =
        (minute(&["a", "b"], 2, "calm", &["lobby"]), minute(&["b"], 3, "joy", &["lobby", "garden"]));
    let kept = merged(&more, &fewer).await;
    assert_eq!((kept.hub.present_ms, kept.hub.peak, kept.hub.moods_ms.len()), (120_000, 3, 1));
    assert_eq!((&kept.hub.moods_ms, &kept.nodes), (&more.hub.moods_ms, &more.nodes));
    // A room that only the other one has keeps its peak.
    let rooms = kept.rooms.values().map(|room| (room.present_ms, room.peak, room.moods_ms.len()));
    assert_eq!(rooms.collect::<Vec<_>>(), [(0, 3, 0), (120_000, 3, 1)]);

    let (smaller, larger) = (minute(&["a", "b"], 2, "calm", &[]), minute(&["b", "c"], 3, "joy", &[]));
    assert_eq!(merged(&smaller, &larger).await, larger);
}

#[tokio::test]
async fn parts_of_a_sample_become_one_with_all_rooms() {
    let rooms: Vec<String> = (0..1_101).map(|number| format!("room-{number}")).collect();
    let whole = minute(&["a"], 1, "calm", &rooms.iter().map(String::as_str).collect::<Vec<_>>());
    let mut parts = whole.clone().split();
    assert_eq!(parts.iter().map(|part| part.rooms.len()).collect::<Vec<_>>(), [500, 500, 101]);
    let file = File::new().await;
    parts.rotate_left(1);
    for part in parts {
        file.store.commit(&samples([part])).await.unwrap();
        file.expect_correct_rollups().await;
    }
    assert_eq!(file.events().await.samples, [whole]);
    let empty = minute(&["a"], 0, "calm", &[]);
    assert_eq!(empty.clone().split(), [empty]);
}

#[tokio::test]
async fn samples_with_one_id_and_other_starts_are_separate() {
    let file = File::new().await;
    let one = minute(&["a"], 1, "calm", &["lobby"]);
    let next = TotalSample { at: at("2024-02-29T23:51:00Z"), ..one.clone() };
    assert_eq!(file.store.commit(&samples([one.clone(), next.clone()])).await.unwrap().samples, 2);
    assert!(file.store.commit(&samples([next.clone()])).await.unwrap().is_empty());
    assert_eq!(file.events().await.samples, [one, next]);
    file.expect_correct_rollups().await;
}

#[tokio::test]
async fn pages_have_each_row_of_one_id_once_and_by_text() {
    let file = File::new().await;
    let names = ["zoe", "bob", "ann", "eve", "dan", "cat", "flo"]; // not in the order of dictionary ids
    for name in names {
        file.store.commit(&views([seven(name, "/", "2024-02-09T00:00:00Z")])).await.unwrap();
    }
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    for limit in 1..=8 {
        let (mut read, mut pages) = (Vec::new(), Pages::new(month("2024-02"), limit));
        while let Some(page) = pages.read(&file.store).await.unwrap() {
            assert!(page.len() <= limit as usize);
            read.extend(page.page_views.into_iter().map(|view| view.actor.visitor.to_string()));
        }
        assert_eq!(read, sorted, "{limit} rows per page");
    }
}

/// The questions of the property test, in the time of its events.
pub(super) fn questions() -> Vec<StatsQuery> {
    let days = Range::between(at("2024-02-28T00:00:00Z"), at("2024-03-01T00:00:00Z")).unwrap();
    let ranges = Range::NAMED.into_iter().chain([days]);
    let rooms = [None, RoomId::try_from("a").ok(), RoomId::try_from("b").ok()];
    let by_prop = ranges.clone().flat_map(|range| {
        let of = [
            (None, "plan"),
            (None, "n"),
            (RoomId::try_from("a").ok(), "plan"),
            (RoomId::try_from("a").ok(), "n"),
        ];
        of.map(|(room, prop)| StatsQuery {
            prop: Some(prop.to_owned()),
            ..StatsQuery::new(room.into(), range)
        })
    });
    let query = |range| {
        rooms.clone().into_iter().flat_map(move |room| {
            ["UTC", "Asia/Kolkata"].map(|zone| {
                let (zone, room) = (Zone::find(zone).unwrap(), room.clone());
                StatsQuery { range, scope: room.into(), zone, prop: None }
            })
        })
    };
    ranges.flat_map(query).chain(by_prop).collect()
}

impl File {
    /// The answers to every question, as their readers get them.
    async fn answers(&self) -> Vec<String> {
        let mut answers = Vec::new();
        let metrics = HistoryMetrics::register(&Panics::register());
        for query in questions() {
            let result = self.store.stats(&query, at("2024-03-02T12:00:00Z"), &[], &metrics).await.unwrap();
            answers.push(serde_json::to_string(&result).unwrap());
        }
        for name in ["a", "b", "c"] {
            let visitor = VisitorId::try_from(name).unwrap();
            let data = self.visitor_data(visitor.as_str()).await;
            answers.push(serde_json::to_string(&data).unwrap());
        }
        let export = self.events().await;
        answers.extend(Record::of(export).map(|record| serde_json::to_string(&record).unwrap()));
        answers
    }

    /// The sums of the records of all months that have records.
    pub(super) async fn sums(&self) -> Vec<(Month, RecordSum)> {
        let sums = self.store.month_sums().await.unwrap().into_iter();
        sums.map(|month| (month.month, month.sum.expect("all records are summed up"))).collect()
    }

    /// Archives all months, and returns the checksums of the files.
    pub(super) async fn archive_all(&self) -> Vec<String> {
        let mut checksums = Vec::new();
        for month in self.store.live_months().await.unwrap() {
            self.store.sum_month(month).await.unwrap();
            let written = self.store.archive(month, &self.archives()).await.unwrap().unwrap();
            // A month whose last page view has merged into another month has no rows and no archive.
            checksums.extend(Some(written.checksum).filter(|_| written.rows > 0));
        }
        checksums
    }

    /// Makes the tables of all months as an older version made them.
    async fn make_old_keys(&self) {
        let mut writer = self.store.begin().await.unwrap();
        let partitions = Partitions::read(&mut writer).await.unwrap();
        for month in &partitions.live {
            for kind in RowKind::VARIANTS {
                let (table, copy, names) = (kind.table(*month), kind.copy(*month), kind.names().join(", "));
                let create = kind.create(&copy).replace("id BLOB NOT NULL", "id BLOB NOT NULL PRIMARY KEY");
                let (columns, constraints) = create.split_once(", PRIMARY KEY (").unwrap();
                let (_, options) = constraints.rsplit_once(") STRICT").unwrap();
                let rows = format!("INSERT INTO {copy} SELECT {names} FROM {table}");
                for statement in [format!("{columns}) STRICT{options}"), rows] {
                    sqlx::query(AssertSqlSafe(statement)).execute(&mut *writer).await.unwrap();
                }
            }
            partitions.replace(&mut writer, *month).await.unwrap();
        }
        sqlx::query("UPDATE months SET row_key = 0").execute(&mut *writer).await.unwrap();
        writer.commit().await.unwrap();
    }

    /// Whether the tables of each live month have the key of today, by month.
    async fn keys(&self) -> Vec<i64> {
        self.numbers("SELECT row_key FROM months WHERE is_live ORDER BY month").await
    }

    /// The tables of unfinished conversions.
    async fn copies(&self) -> Vec<i64> {
        self.numbers("SELECT count(*) FROM sqlite_schema WHERE name LIKE '%\\_new' ESCAPE '\\'").await
    }
}

/// Events of all kinds in February and March. Each has an id of its own.
fn two_months() -> Batch {
    let times = ["2024-02-09T00:00:00Z", "2024-03-09T00:00:00Z"];
    let mut batch = Batch::default();
    for (id, seen) in (0..24).zip(times.into_iter().cycle()) {
        let visitor = ["ann", "bob", "cat"][usize::try_from(id).unwrap() % 3];
        batch.page_views.push(view(id << 100, visitor, "/", seen, &NOTHING));
        let message = serde_json::json!({ "id": Uuid::from_u128(id << 99), "content": "film", "state": "paused",
            "watchedMs": 9, "startedAt": at(seen), "at": at(seen).plus(60_000) });
        let message = serde_json::from_value(message).unwrap();
        batch.watches.push(WatchEvent::new(actor(visitor, false), message, at(seen).plus(60_000)).unwrap());
        let sample = RoomSample { peak: 1, ..RoomSample::default() };
        let rooms = [(RoomId::try_from("lobby").unwrap(), sample.clone())].into();
        batch.samples.push(TotalSample {
            id: Uuid::from_u128(id),
            at: at(seen),
            nodes: [].into(),
            hub: sample,
            rooms,
        });
    }
    batch
}

#[tokio::test]
async fn month_with_the_old_key_is_converted_when_it_changes() {
    let file = File::new().await;
    file.store.commit(&two_months()).await.unwrap();
    let before = file.rows().await;
    file.make_old_keys().await;
    assert_eq!(file.rows().await, before);
    assert!(file.store.commit(&two_months()).await.unwrap().is_empty(), "all are known by the old key");
    assert_eq!(file.keys().await, [0, 0]);

    // The id of a page view of Ann.
    let bob = views([view(6 << 100, "bob", "/", "2024-02-10T00:00:00Z", &NOTHING)]);
    assert_eq!(file.store.commit(&bob).await.unwrap().page_views, 1);
    assert_eq!((file.keys().await, file.copies().await), (vec![1, 0], vec![0]));
    let rows = file.rows().await;
    assert_eq!(rows.len(), before.len() + 1);
    assert!(before.iter().all(|row| rows.contains(row)), "all rows are kept");
    file.expect_correct_rollups().await;

    // A page view of March was in February.
    let moved = views([view(1 << 100, "bob", "/earlier", "2024-02-29T00:00:00Z", &NOTHING)]);
    assert_eq!(file.store.commit(&moved).await.unwrap().page_views, 1);
    assert_eq!((file.keys().await, file.copies().await), (vec![1, 1], vec![0]));
    assert_eq!(file.rows().await.len(), rows.len());
    file.expect_correct_rollups().await;
}

#[tokio::test]
async fn conversion_continues_after_a_crash() {
    let mut file = File::new().await;
    file.store.commit(&two_months()).await.unwrap();
    file.make_old_keys().await;
    let late = views([view(6 << 100, "bob", "/", "2024-02-10T00:00:00Z", &NOTHING)]);
    let before = file.rows().await;
    let mut crashes = 0;
    // Too few polls for a whole conversion.
    while crash_after(60, file.store.commit(&late)).await.is_none() {
        crashes += 1;
        assert!(crashes < 40, "it starts over");
        file.restore_from().await;
        assert_eq!(file.rows().await, before);
        file.expect_correct_rollups().await;
    }
    assert!(crashes > 1);
    assert_eq!((file.keys().await, file.copies().await), (vec![1, 0], vec![0]));
    let rows = file.rows().await;
    assert_eq!(rows.len(), before.len() + 1);
    assert!(before.iter().all(|row| rows.contains(row)), "all rows are kept");
    file.expect_correct_rollups().await;
}

#[tokio::test]
async fn archive_of_the_old_key_is_restored_into_the_new_one() {
    let file = File::new().await;
    file.store.commit(&two_months()).await.unwrap();
    file.make_old_keys().await;
    let before = file.rows().await;
    // The conversion has begun.
    let late = views([view(6 << 100, "bob", "/", "2024-02-10T00:00:00Z", &NOTHING)]);
    assert!(crash_after(60, file.store.commit(&late)).await.is_none());
    assert_ne!(file.copies().await, [0]);
    file.store.archive(month("2024-02"), &file.archives()).await.unwrap().unwrap();
    assert_eq!((file.keys().await, file.copies().await), (vec![0], vec![0]));
    file.store.restore_from(month("2024-02"), &file.archives()).await.unwrap();
    assert_eq!((file.keys().await, file.rows().await), (vec![1, 0], before));
    file.store.commit(&late).await.unwrap();
    file.expect_correct_rollups().await;

    // Late rows of an archived month whose table has the old key.
    file.store.archive(month("2024-02"), &file.archives()).await.unwrap().unwrap();
    file.store.commit(&two_months()).await.unwrap();
    file.make_old_keys().await;
    file.store.restore_from(month("2024-02"), &file.archives()).await.unwrap();
    assert_eq!(file.keys().await, [1, 0]);
    file.expect_correct_rollups().await;
}

#[tokio::test]
async fn erasure_in_a_month_with_the_old_key_keeps_others() {
    let file = File::new().await;
    file.store.commit(&two_months()).await.unwrap();
    file.make_old_keys().await;
    let ann = VisitorId::try_from("ann").unwrap();
    let others = file.rows().await.into_iter().filter(|row| !row.contains("\"ann\"")).collect::<Vec<_>>();
    let erased =
        file.store.erase(&ann, &file.archives(), Erasure::of_all(at("2024-06-10T00:00:00Z"))).await.unwrap();
    assert_eq!((erased.page_views, erased.watch_sessions), (8, 8));
    assert_eq!((file.rows().await, file.keys().await), (others, vec![1, 1]));
    file.expect_correct_rollups().await;
}

#[tokio::test]
async fn month_of_the_schema_before_is_converted() {
    const OLD: &str = "
        INSERT INTO texts VALUES (1, NULL, 'lobby'), (2, NULL, '/');
        INSERT INTO visitors VALUES (1, NULL, 'ann'), (2, NULL, 'bot');
        INSERT INTO months (month, changes) VALUES ('2024-02', 1);
        CREATE TABLE page_views_2024_02 (id BLOB NOT NULL PRIMARY KEY, at INTEGER NOT NULL, room INTEGER NOT NULL,
            visitor INTEGER NOT NULL, path INTEGER NOT NULL, title INTEGER, referrer INTEGER, props TEXT,
            is_bot INTEGER NOT NULL) STRICT, WITHOUT ROWID;
        CREATE TABLE watch_sessions_2024_02 (id BLOB NOT NULL PRIMARY KEY, room INTEGER NOT NULL, visitor INTEGER NOT NULL,
            content INTEGER NOT NULL, state TEXT NOT NULL, at INTEGER NOT NULL,
            watched_ms INTEGER NOT NULL, started_at INTEGER NOT NULL, seen_at INTEGER NOT NULL,
            position_ms INTEGER, position_at INTEGER, duration_ms INTEGER, props TEXT, props_at INTEGER,
            is_bot INTEGER NOT NULL) STRICT, WITHOUT ROWID;
        CREATE TABLE presence_2024_02 (id BLOB NOT NULL PRIMARY KEY, at INTEGER NOT NULL, samples TEXT NOT NULL) STRICT;
        DROP VIEW raw_page_views; DROP VIEW raw_watch_sessions; DROP VIEW raw_presence;
        CREATE VIEW raw_page_views AS SELECT * FROM page_views_2024_02;
        CREATE VIEW raw_watch_sessions AS SELECT * FROM watch_sessions_2024_02;
        CREATE VIEW raw_presence AS SELECT * FROM presence_2024_02;
        INSERT INTO page_views_2024_02 VALUES (unhex(printf('%032x', 7)), 1707436800000, 1, 2, 2, NULL, NULL, NULL, 1);";
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::from_str(&url(&folder)).unwrap().create_if_missing(true);
    let old = SqlitePool::connect_with(options).await.unwrap();
    let before = Migrator::with_migrations(migrations::all().into_iter().take(4).collect());
    before.run(&old).await.unwrap();
    sqlx::raw_sql(OLD).execute(&old).await.unwrap();
    old.close().await;

    let store = Store::open(&url(&folder)).await.unwrap();
    let file = File { folder, store };
    assert_eq!((paths(&file).await, file.keys().await), (vec!["bot/".to_owned()], vec![0]));
    file.store.commit(&views([seven("ann", "/", "2024-02-09T00:00:00Z")])).await.unwrap();
    assert_eq!(
        (paths(&file).await, file.keys().await),
        (vec!["ann/".to_owned(), "bot/".to_owned()], vec![1])
    );
    file.expect_correct_rollups().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn order_batches_and_repeats_do_not_change_any_answer(
        (batches, second, third) in proptest::collection::vec(batch(), 1..4).prop_flat_map(|batches| {
            let (second, third) = (shuffled(&batches), shuffled(&batches));
            (Just(batches), second, third)
        }),
    ) {
        let given = [batches, second, third];
        let answers = block_on(async {
            let mut answers = Vec::new();
            for batches in &given {
                let file = File::new().await;
                file.store.list_props(&["plan".to_owned()], at("2024-01-01T00:00:00Z")).await.unwrap();
                for batch in batches {
                    file.store.commit(batch).await.unwrap();
                }
                file.expect_correct_rollups().await;
                let (before, sums) = (file.answers().await, file.sums().await);
                let checksums = file.archive_all().await;
                assert_eq!(file.sums().await, sums, "in archives");
                file.restore_all().await;
                file.expect_correct_rollups().await;
                assert_eq!(file.answers().await, before, "after a restore");
                assert_eq!(file.sums().await, sums, "after a restore");
                answers.push((before, checksums, sums));
            }
            answers
        });
        prop_assert_eq!(&answers[0], &answers[1]);
        prop_assert_eq!(&answers[0], &answers[2]);
    }
}
