//! Rollups of dimensions: a settled month is the same for any order of events, and equals a naive count.
//!
//! Property tests with random events, in real files.

use std::collections::BTreeMap;

use super::support::*;
use super::*;
use crate::history::calendar::{Level, Month, QUARTER_MS};
use crate::history::normalize::{properties, referrer_host};
use crate::history::store::dimensions::{self, VALUES_LIMIT};

/// Level, start in quarter hours, room, dimension and value, by name.
type Key = (i64, u64, String, String, String);

const NOW: &str = "2024-04-10T00:00:00Z";

impl File {
    async fn with_props(names: &[&str]) -> Self {
        let file = Self::new().await;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        file.store.list_props(&names, at(NOW)).await.unwrap();
        file
    }

    /// All rollups of dimensions, by text.
    async fn dimensions(&self) -> BTreeMap<Key, (i64, i64)> {
        const ALL: &str = "
            SELECT level, at, ifnull((SELECT text FROM texts WHERE number = room), ''),
                   CASE dimension WHEN 1 THEN 'page' WHEN 2 THEN 'content' WHEN 3 THEN 'host'
                       ELSE (SELECT name FROM rollup_props WHERE id = dimension) END,
                   ifnull((SELECT text FROM texts WHERE number = value), '(other)'), count, watched_ms
            FROM dimension_rollups";
        let mut reader = self.store.read().await.unwrap();
        let rows = sqlx::query_as(ALL).fetch_all(&mut *reader).await.unwrap();
        let row = |(level, at, room, dimension, value, count, ms): (_, i64, _, _, _, _, _)| {
            ((level, u64::try_from(at).unwrap(), room, dimension, value), (count, ms))
        };
        rows.into_iter().map(row).collect()
    }
}

/// Counts one by one, and folds what is before `settled`.
fn naive(events: &Batch, props: &[&str], settled: Time) -> BTreeMap<Key, (i64, i64)> {
    let mut counts = BTreeMap::<Key, (i64, i64)>::new();
    let mut add = |time: Time, room: &RoomId, dimension: &str, value: &str, ms: i64| {
        for level in [Level::Month, Level::Day, Level::Quarter] {
            for room in [room.as_str(), ""] {
                let start = level.floor(time).millis() / QUARTER_MS;
                let key = (
                    dimensions::number(level),
                    start,
                    room.to_owned(),
                    dimension.to_owned(),
                    value.to_owned(),
                );
                let count = counts.entry(key).or_default();
                *count = (count.0 + 1, count.1 + ms);
            }
        }
    };
    for view in events.page_views.iter().filter(|view| !view.actor.is_bot) {
        let mut one = |dimension: &str, value: &str| add(view.at, &view.actor.room, dimension, value, 0);
        one("page", view.path.as_str());
        if let Some(host) = view.referrer.as_ref().and_then(|referrer| referrer_host(referrer.as_str())) {
            one("host", &host);
        }
        properties(view)
            .filter(|(name, _)| props.contains(&name.as_str()))
            .for_each(|(name, value)| one(&name, &value));
    }
    for watch in events.watches.iter().filter(|watch| !watch.actor.is_bot) {
        let ms = i64::try_from(watch.watched()).unwrap();
        add(watch.started_at, &watch.actor.room, "content", watch.content.as_str(), ms);
    }
    let mut buckets = BTreeMap::<_, Vec<_>>::new();
    for ((level, start, room, dimension, value), count) in counts {
        buckets.entry((level, start, room, dimension)).or_default().push((value, count));
    }
    let mut folded = BTreeMap::<Key, (i64, i64)>::new();
    for ((level, start, room, dimension), mut values) in buckets {
        values.sort_by(|(a, (n, ms)), (b, (m, ns))| (ns, m).cmp(&(ms, n)).then_with(|| a.cmp(b)));
        let is_settled = Month::of(Time::from_millis(start * QUARTER_MS)).next().start() <= settled;
        for (rank, (value, count)) in values.into_iter().enumerate() {
            let is_kept = !is_settled || rank < usize::try_from(VALUES_LIMIT).unwrap();
            let value = if is_kept { value } else { "(other)".to_owned() };
            let sum = folded.entry((level, start, room.clone(), dimension.clone(), value)).or_default();
            *sum = (sum.0 + count.0, sum.1 + count.1);
        }
    }
    folded
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn settled_lists_equal_a_naive_fold_in_any_order(
        (batches, again) in proptest::collection::vec(batch(), 1..4).prop_flat_map(|batches| {
            let again = shuffled(&batches);
            (Just(batches), again)
        }),
        runs in any::<u8>(),
    ) {
        block_on(async {
            let props = ["plan", "yes"];
            let (plain, first, second) = (File::new().await, File::with_props(&props).await, File::with_props(&props).await);
            for batch in &batches {
                plain.store.commit(batch).await.unwrap();
                first.store.commit(batch).await.unwrap();
            }
            for (index, batch) in again.iter().enumerate() {
                second.store.commit(batch).await.unwrap();
                if runs & (1 << index) > 0 {
                    maintain(&second.store, &second.archives(), NOW).await;
                    second.expect_correct_rollups().await;
                }
            }
            // An archived page view that came again with a time in another month counts twice until it is restored.
            second.restore_all().await;
            for file in [&first, &second] {
                let report = maintain(&file.store, &file.archives(), NOW).await;
                assert!(report.steps.values().all(|step| step.failures.is_empty()), "{report:?}");
            }
            let expected = naive(&plain.events().await, &props, at("2024-04-02T00:00:00Z"));
            assert_eq!(first.dimensions().await, expected);
            assert_eq!(second.dimensions().await, expected);
            for file in [first, second] {
                file.restore_all().await;
                let recount = file.store.recount().await.unwrap();
                assert_eq!(recount.differences, []);
                maintain(&file.store, &file.archives(), NOW).await;
                assert_eq!(file.dimensions().await, expected);
            }
        });
    }

    #[test]
    fn interrupted_rebuild_continues_and_counts_each_row_once(
        batches in proptest::collection::vec(batch(), 1..4),
        late in batch(),
        waits in 0..400_usize,
    ) {
        block_on(async {
            let mut file = File::with_props(&["plan"]).await;
            for batch in &batches {
                file.store.commit(batch).await.unwrap();
            }
            // As after an update from a version that counted otherwise.
            sqlx::query("UPDATE months SET counted = X'00'").execute(&file.store.writer).await.unwrap();
            let rebuild = async |store: Store| {
                for month in store.live_months().await.unwrap() {
                    store.settle(month, false).await.unwrap();
                }
            };
            let during = async { file.store.commit(&late).await.unwrap() };
            run_during(waits / 2, rebuild(file.store.clone()), during).await;
            file.expect_correct_rollups().await;
            sqlx::query("UPDATE months SET counted = X'00'").execute(&file.store.writer).await.unwrap();
            let _ = crash_after(waits, rebuild(file.store.clone())).await;
            file.restore_from().await;
            file.store.commit(&late).await.unwrap();
            rebuild(file.store.clone()).await;
            file.expect_correct_rollups().await;
            assert_eq!(file.store.recount().await.unwrap().unsettled, []);
            assert_eq!(file.dimensions().await, naive(&file.events().await, &["plan"], Time::from_millis(0)));
        });
    }
}

/// A page view of each path, which has the number as a property too.
fn numbered(seen: &str, numbers: std::ops::Range<u128>) -> Batch {
    views(
        numbers.map(|n| {
            view(n << 90 | n, "ann", &format!("/{n}"), seen, &serde_json::json!({ "n": n, "m": 1 }))
        }),
    )
}

#[tokio::test]
async fn late_event_of_a_folded_month_is_counted_by_the_next_maintenance() {
    let file = File::new().await;
    let store = &file.store;
    store.commit(&numbered("2024-02-10T00:00:00Z", 0..9)).await.unwrap();
    assert_eq!(store.settle(month("2024-02"), true).await.unwrap(), 6 * 7, "seven of nine in six buckets");
    let of = |dimensions: &BTreeMap<Key, (i64, i64)>, value: &str| {
        let of_month = dimensions.iter().find(|((level, _, room, dimension, text), _)| {
            (*level, room.as_str(), dimension.as_str(), text.as_str()) == (0, "", "page", value)
        });
        of_month.map(|(_, (count, _))| *count)
    };
    let before = file.dimensions().await;
    assert_eq!((of(&before, "/0"), of(&before, "/8"), of(&before, "(other)")), (Some(1), None, Some(7)));

    store
        .commit(&views([view(1 << 100, "ben", "/8", "2024-02-11T00:00:00Z", &serde_json::Value::Null)]))
        .await
        .unwrap();
    assert_eq!(file.dimensions().await, before, "until then the lists stay");
    assert_eq!(store.recount().await.unwrap().unsettled, [month("2024-02")]);
    store.settle(month("2024-02"), true).await.unwrap();
    let after = file.dimensions().await;
    assert_eq!((of(&after, "/8"), of(&after, "/0"), of(&after, "(other)")), (Some(2), Some(1), Some(7)));
    file.expect_correct_rollups().await;
    assert_eq!(store.recount().await.unwrap().unsettled, []);
}

#[tokio::test]
async fn check_finds_a_wrong_row_of_a_folded_month() {
    let file = File::new().await;
    file.store.commit(&numbered("2024-02-10T00:00:00Z", 0..9)).await.unwrap();
    file.store.settle(month("2024-02"), true).await.unwrap();
    file.expect_correct_rollups().await;
    let wrong = "UPDATE dimension_rollups SET count = count + 1 WHERE level = 1 AND room = 0 AND value = 0 AND dimension = 1";
    sqlx::query(wrong).execute(&file.store.writer).await.unwrap();
    let found = file.store.recount().await.unwrap().differences;
    let expected = "day 2024-02-10T00:00:00Z in all rooms: pages (other): 8 is stored, (other): 7 recounted";
    assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
}

#[tokio::test]
async fn only_listed_properties_have_rollups() {
    let file = File::with_props(&["m"]).await;
    let store = &file.store;
    store.commit(&numbered("2024-02-10T00:00:00Z", 0..9)).await.unwrap();
    let props = async || {
        file.numbers("SELECT sum(count) FROM dimension_rollups WHERE dimension >= 16 AND level = 1 AND room = 0 GROUP BY dimension").await
    };
    assert_eq!(props().await, [9]);
    // No text is stored for the values of others.
    assert_eq!(file.numbers("SELECT count(*) FROM texts WHERE text IN ('3', 'n', 'm')").await, [0]);

    // A new name counts from the next quarter hour on, and one that is no longer listed loses its rows.
    store.list_props(&["n".to_owned()], at("2024-02-10T12:01:00Z")).await.unwrap();
    store.commit(&numbered("2024-02-10T12:14:59Z", 10..15)).await.unwrap();
    assert_eq!(props().await, [9]);
    store.commit(&numbered("2024-02-10T12:15:00Z", 20..23)).await.unwrap();
    assert_eq!(props().await, [9, 3]);
    file.expect_correct_rollups().await;
    assert!(store.drop_unlisted_props().await.unwrap() > 0);
    assert_eq!(props().await, [3]);
    assert_eq!(file.numbers("SELECT id FROM rollup_props").await, [17]);
    store.list_props(&["n".to_owned(), "m".to_owned()], at("2024-02-10T12:16:00Z")).await.unwrap();
    assert_eq!(
        file.numbers("SELECT id FROM rollup_props ORDER BY id").await,
        [17, 18],
        "ids are not used again"
    );
    file.expect_correct_rollups().await;
}

#[tokio::test]
async fn erasure_leaves_no_value_in_a_folded_month() {
    let file = File::new().await;
    let (store, archives) = (&file.store, file.archives());
    for (visitor, count) in [("ann", 4), ("zoe", 6)] {
        let of = |n: u128| {
            let id = (u128::from(visitor == "zoe") << 60 | n) << 60;
            view(id, visitor, &format!("/{visitor}"), "2024-02-10T00:00:00Z", &serde_json::Value::Null)
        };
        store.commit(&views((0..count).map(of))).await.unwrap();
    }
    store.commit(&numbered("2024-02-10T00:00:00Z", 100..103)).await.unwrap();
    maintain(store, &archives, NOW).await;
    let pages = async || {
        let all = file
            .dimensions()
            .await
            .into_iter()
            .filter(|((level, _, room, ..), _)| (*level, room.as_str()) == (0, ""));
        all.map(|((.., value), (count, _))| (value, count)).collect::<Vec<_>>()
    };
    assert_eq!(pages().await, [("(other)".to_owned(), 3), ("/ann".to_owned(), 4), ("/zoe".to_owned(), 6)]);
    store
        .erase(&VisitorId::try_from("zoe").unwrap(), &archives, Erasure::of_all(at("2024-06-10T00:00:00Z")))
        .await
        .unwrap();
    assert_eq!(pages().await, [("(other)".to_owned(), 3), ("/ann".to_owned(), 4)]);
    maintain(store, &archives, NOW).await;
    let expected = [("(other)".to_owned(), 2), ("/100".to_owned(), 1), ("/ann".to_owned(), 4)];
    assert_eq!(pages().await, expected);
    assert_eq!(store.archived_months().await.unwrap(), [month("2024-02")].into(), "it is archived again");
}

#[tokio::test]
async fn rollups_of_the_version_before_are_converted_or_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::from_str(&url(&folder)).unwrap().create_if_missing(true);
    let old = SqlitePool::connect_with(options).await.unwrap();
    Migrator::with_migrations(migrations::all().into_iter().take(4).collect()).run(&old).await.unwrap();
    let rows = "
        INSERT INTO texts (number, hash, text) VALUES (1, 1, 'lobby'), (2, 2, '/a'), (3, 3, 'film'), (4, 4, 'x.example');
        INSERT INTO visitors (number, hash, text) VALUES (1, 1, 'ann');
        INSERT INTO months (month, is_live, changes, summed, archive, checksum)
        VALUES ('2024-02', 0, 3, 'yes', 'a.gz', 'x'), ('2024-03', 1, 1, 'no', NULL, NULL);
        INSERT INTO activity_rollups VALUES
            ('day', 0, 1707523200000, 5, 2, 70, 1, '{\"2\":5}', '{\"3\":[2,70]}', '{\"4\":1}', '{}', X'3A30000000000000'),
            ('month', 0, 1706745600000, 5, 2, 70, 1, '{\"2\":5}', '{\"3\":[2,70]}', '{\"4\":1}', '{}', X'3A30000000000000'),
            ('day', 0, 1710028800000, 1, 0, 0, 0, '{\"2\":9}', '{}', '{}', '{\"2\":{\"3\":1}}', X'3A30000000000000');";
    sqlx::raw_sql(rows).execute(&old).await.unwrap();
    old.close().await;

    let store = Store::open(&url(&folder)).await.unwrap();
    let file = File { folder, store };
    assert_eq!(file.numbers("SELECT page_views FROM activity_rollups ORDER BY at").await, [5, 5, 1]);
    assert_eq!(file.store.convert_old_rollups().await.unwrap(), 3);
    assert_eq!(file.store.convert_old_rollups().await.unwrap(), 0);
    let counts = "SELECT count * 1000 + watched_ms FROM dimension_rollups ORDER BY level, dimension";
    assert_eq!(
        file.numbers(counts).await,
        [5_000, 2_070, 1_000, 5_000, 2_070, 1_000],
        "the live month waits"
    );
    assert_eq!(file.numbers("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'old_%'").await, [0]);
}

#[tokio::test]
async fn no_statement_scans_all_rollups_of_dimensions() {
    let file = File::new().await;
    for statement in dimensions::statements() {
        let plan = format!("EXPLAIN QUERY PLAN {statement}");
        let rows = sqlx::query(sqlx::AssertSqlSafe(plan)).fetch_all(&file.store.writer).await.unwrap();
        let steps: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        for step in &steps {
            assert!(!step.contains("SCAN") || step.starts_with("SCAN asked"), "{step} in {statement}");
        }
    }
}
