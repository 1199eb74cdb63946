//! Maintenance, archiving and restoring: no crash loses a row, and no row counts twice.
//!
//! Other commits come in between, and archives are missing or damaged.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::support::*;
use super::*;
use crate::history::lifecycle;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn maintenance_between_commits_keeps_rows_and_counts(
        batches in proptest::collection::vec((batch(), any::<bool>()), 1..6),
    ) {
        block_on(async {
            let (file, plain) = (File::new().await, File::new().await);
            for (batch, runs) in &batches {
                file.store.commit(batch).await.unwrap();
                plain.store.commit(batch).await.unwrap();
                if *runs {
                    // February is archived, March is not.
                    let report = maintain(&file.store, &file.archives(), "2024-04-10T00:00:00Z").await;
                    assert!(report.steps.values().all(|step| step.failures.is_empty()), "{report:?}");
                    plain.store.drop_quarters(at("2024-01-11T00:00:00Z")).await.unwrap();
                }
                file.expect_correct_rollups().await;
                assert_eq!(file.everything().await, plain.rows().await);
            }
            file.restore_all().await;
            file.expect_correct_rollups().await;
            assert_eq!(file.rows().await, plain.rows().await);
        });
    }

    #[test]
    fn crash_during_maintenance_loses_no_rows(
        batches in proptest::collection::vec((batch(), 0..500_usize, 0..300_usize), 1..4),
    ) {
        let (mut folder, ()) = in_folder(tempfile::tempdir().unwrap(), async |_| ());
        for (batch, waits, more) in &batches {
            let before;
            (folder, before) = in_folder(folder, async |file| {
                file.store.commit(batch).await.unwrap();
                file.everything().await
            });
            let steps = [("2024-04-10T00:00:00Z", *waits), ("2024-06-10T00:00:00Z", *more)];
            for (now, waits) in steps {
                run_and_crash(&folder, waits, async |store, archives| {
                    maintain(store, archives, now).await;
                    Ok(())
                });
                let left;
                (folder, left) = in_folder(folder, async |file| {
                    file.expect_correct_rollups().await;
                    file.everything().await
                });
                assert_eq!(left, before);
            }
            for name in ["2024-02", "2024-03"] {
                run_and_crash(&folder, *more, async |store, archives| {
                    store.restore_from(month(name), archives).await
                });
            }
            let left;
            (folder, left) = in_folder(folder, async |file| file.everything().await);
            assert_eq!(left, before);
        }
        in_folder(folder, async |file| {
            let before = file.everything().await;
            file.restore_all().await;
            file.expect_correct_rollups().await;
            assert_eq!(file.rows().await, before);
        });
    }

    #[test]
    fn commits_during_maintenance_are_stored_and_counted_once(
        batches in proptest::collection::vec(batch(), 1..3),
        (late, later) in (batch(), batch()),
        (waits, more) in (0..400_usize, 0..300_usize),
    ) {
        block_on(async {
            let (file, plain) = (File::new().await, File::new().await);
            let (store, archives) = (&file.store, file.archives());
            for batch in &batches {
                store.commit(batch).await.unwrap();
                plain.store.commit(batch).await.unwrap();
            }
            let run = async { drop(maintain(store, &archives, "2024-06-10T00:00:00Z").await) };
            Box::pin(run_during(waits, run, async { store.commit(&late).await.unwrap() })).await;
            plain.store.commit(&late).await.unwrap();
            file.expect_correct_rollups().await;
            assert_eq!(file.everything().await, plain.rows().await);

            let february = async { store.restore_from(month("2024-02"), &archives).await.unwrap() };
            run_during(more, february, async { store.commit(&later).await.unwrap() }).await;
            plain.store.commit(&later).await.unwrap();
            file.expect_correct_rollups().await;
            assert_eq!(file.everything().await, plain.rows().await);
            file.restore_all().await;
            file.expect_correct_rollups().await;
            assert_eq!(file.rows().await, plain.rows().await);
        });
    }

}

#[tokio::test]
async fn new_database_makes_no_quarter_rollups_of_old_events() {
    let file = File::new().await;
    file.store.begin_quarters(at("2024-02-10T12:00:00Z")).await.unwrap();
    let seen = ["2024-02-09T23:59:59Z", "2024-02-10T00:00:00Z", "2024-02-12T00:00:00Z"];
    let events = (1..).zip(seen).map(|(id, seen)| view(id, "ann", "/", seen, &serde_json::Value::Null));
    file.store.commit(&views(events)).await.unwrap();
    let quarters = "SELECT count(*) FROM activity_rollups WHERE level = 'quarter' AND room = 0";
    assert_eq!(file.numbers(quarters).await, [2]);
    file.expect_correct_rollups().await;
    // A database with history keeps its start.
    file.store.begin_quarters(at("2024-02-11T00:00:00Z")).await.unwrap();
    assert_eq!(file.store.drop_quarters(at("2024-02-10T23:00:00Z")).await.unwrap(), 0);
    assert_eq!(file.store.drop_quarters(at("2024-02-11T01:00:00Z")).await.unwrap(), 1);
    assert_eq!(file.numbers(quarters).await, [1]);
    file.expect_correct_rollups().await;
    assert_eq!(file.store.drop_quarters(at("2034-02-10T00:00:00Z")).await.unwrap(), 1);
    file.expect_correct_rollups().await;
    assert_eq!(
        file.numbers("SELECT quarters_from FROM horizon").await,
        [i64::try_from(at("2034-02-10T00:00:00Z").millis()).unwrap()]
    );
}

/// Events at both ends of a leap year's February, of each kind and with all fields.
fn february() -> Batch {
    let props = serde_json::json!({ "exact": 31.245_270_191_439_438, "big": 1e300, "n": -7 });
    let seen = [
        "2024-01-31T23:59:59.999Z",
        "2024-02-01T00:00:00Z",
        "2024-02-29T23:59:59.999Z",
        "2024-03-01T00:00:00Z",
    ];
    let events = (1..).zip(seen).map(|(id, seen)| view(id << 100, "ann", "/é\"\\", seen, &props));
    let watch = |id: u128, started: &str| {
        let message = serde_json::json!({
            "id": Uuid::from_u128(id), "content": "film", "state": "paused", "watchedMs": 90_000,
            "startedAt": at(started), "positionMs": 5, "durationMs": 9, "at": at(started).plus(120_000),
            "props": { "x": 0.1 },
        });
        let arrived = at(started).plus(150_000);
        WatchEvent::new(actor("ben", id == 3), serde_json::from_value(message).unwrap(), arrived).unwrap()
    };
    let watches = [(1, "2024-02-29T23:59:00Z"), (2, "2024-03-01T00:00:00Z"), (3, "2024-02-11T00:00:00Z")];
    let total = |id: u128, room: Option<&str>, seen: &str| {
        let moods_ms = [("calm".to_owned(), 30_000)].into();
        let sample = RoomSample {
            present_ms: 90_000,
            peak: 3,
            joins: 2,
            moods_ms,
            held_ms: 5_000,
            sits_begun: 2,
            sits_completed: 1,
            sat_ms: 40_000,
        };
        let rooms = room.map(|room| (RoomId::try_from(room).unwrap(), sample.clone()));
        let (id, nodes) = (Uuid::from_u128(id), ["a".to_owned().try_into().unwrap()].into());
        TotalSample { id, at: at(seen), nodes, hub: sample, rooms: rooms.into_iter().collect() }
    };
    Batch {
        page_views: events.collect(),
        watches: watches.into_iter().map(|(id, started)| watch(id, started)).collect(),
        samples: vec![
            total(1, None, "2024-02-29T23:59:00Z"),
            total(2, Some("lobby"), "2024-02-29T23:59:00Z"),
            total(3, None, "2024-03-01T00:00:00Z"),
        ],
    }
}

#[tokio::test]
async fn archive_and_restore_keep_rows_and_rollups() {
    let file = File::new().await;
    let archives = file.archives();
    file.store.commit(&february()).await.unwrap();
    file.store.sum_month(month("2024-02")).await.unwrap();
    let before = (file.rows().await, file.rollups().await);
    let written = file.store.archive(month("2024-02"), &archives).await.unwrap().unwrap();
    assert_eq!(written.rows, 6);
    assert_eq!(file.store.archive(month("2024-02"), &archives).await.unwrap(), None);
    assert_eq!(file.store.archived_months().await.unwrap(), [month("2024-02")].into());
    assert_eq!((file.rows().await.len(), file.rollups().await), (before.0.len() - 7, before.1.clone()));
    assert_eq!(file.everything().await, before.0);
    let recount = file.store.recount().await.unwrap();
    assert_eq!((recount.archived, recount.differences), (vec![month("2024-02")], vec![]));

    let beside = fs::read_to_string(archives.path("breathing-room-2024-02.jsonl.gz.sha256")).unwrap();
    assert_eq!(beside, format!("{}  breathing-room-2024-02.jsonl.gz\n", written.checksum));
    file.store.restore_from(month("2024-02"), &archives).await.unwrap();
    file.store.restore_from(month("2024-02"), &archives).await.unwrap(); // nothing to do
    assert_eq!((file.rows().await, file.rollups().await), before);
    file.expect_correct_rollups().await;
    assert!(archives.path("breathing-room-2024-02.jsonl.gz").exists(), "the file remains");
    let again = file.store.archive(month("2024-02"), &archives).await.unwrap();
    assert_eq!(again, Some(written));
}

#[tokio::test]
async fn missing_or_wrong_archive_is_named_and_nothing_changes() {
    let file = File::new().await;
    let archives = file.archives();
    file.store.commit(&february()).await.unwrap();
    let none = file.store.restore(month("2024-02"), archives.path("x")).await.unwrap_err().to_string();
    assert_eq!(none, "the month 2024-02 is not archived");
    file.store.archive(month("2024-02"), &archives).await.unwrap();
    let before = (file.rows().await, file.rollups().await);

    let path = archives.path("breathing-room-2024-02.jsonl.gz");
    let whole = fs::read(&path).unwrap();
    let ann = VisitorId::try_from("ann").unwrap();
    for (bytes, words) in
        [(Some(&whole[..whole.len() / 2]), "damaged, or another file"), (None, "is missing in")]
    {
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let reopened = file.store.restore_from(month("2024-02"), &archives).await.unwrap_err().to_string();
        assert!(
            reopened.contains("breathing-room-2024-02.jsonl.gz") && reopened.contains(words),
            "{reopened}"
        );
        let folder = file.folder.path().join("archive").display().to_string();
        assert!(reopened.contains(&folder), "{reopened}");
        assert!(file.store.visitor_data(&ann, &archives, None).await.is_err());
        assert!(
            file.store.erase(&ann, &archives, Erasure::of_all(at("2024-06-10T00:00:00Z"))).await.is_err()
        );
        assert_eq!((file.rows().await, file.rollups().await), before);
    }
    fs::write(&path, whole).unwrap();
    file.store.restore_from(month("2024-02"), &archives).await.unwrap();
    file.expect_correct_rollups().await;
}

#[tokio::test]
async fn archiving_returns_free_pages_to_the_disk() {
    let file = File::new().await;
    let size = async || {
        file.store.checkpoint().await.unwrap();
        fs::metadata(file.store.path()).unwrap().len()
    };
    let small = size().await;
    let long = "x".repeat(900);
    let events =
        (0..2_000).map(|id| view(id, "ann", "/", "2024-02-09T00:00:00Z", &serde_json::json!({ "x": long })));
    file.store.commit(&views(events)).await.unwrap();
    assert!(size().await > small + 1_000_000);
    let report = maintain(&file.store, &file.archives(), "2024-06-10T00:00:00Z").await;
    assert!(report.steps.values().all(|step| step.failures.is_empty()), "{report:?}");
    assert_eq!((report.archived.len(), report.archived[0].rows), (1, 2_000));
    assert_eq!(file.numbers("SELECT freelist_count FROM pragma_freelist_count").await, [0]);
    assert!(size().await < small + 200_000, "{} after {small}", size().await);
    let wal = file.folder.path().join("a.db-wal");
    assert_eq!(fs::metadata(wal).unwrap().len(), 0);
}

#[tokio::test]
async fn archived_month_is_deleted_in_many_transactions_and_after_a_crash() {
    let file = File::new().await;
    let events = |month: &str, ids: std::ops::Range<u128>| {
        views(ids.map(|id| view(id, "ann", "/", &format!("{month}-09T00:00:00Z"), &serde_json::Value::Null)))
    };
    file.store.commit(&events("2024-02", 0..500)).await.unwrap();
    file.store.commit(&events("2024-03", 2_000..2_030)).await.unwrap();
    let commits = file.count_commits().await;
    file.store.archive(month("2024-02"), &file.archives()).await.unwrap().unwrap();
    // The slices double from a few rows on.
    assert!(commits.load(Ordering::Relaxed) > 6, "{commits:?}");
    assert_eq!(file.numbers(TABLES_OF_FEBRUARY).await, [0]);

    let (store, archives) = (&file.store, file.archives());
    let march = month("2024-03");
    for waits in (0..).step_by(9) {
        let finished = crash_after(waits, store.archive(march, &archives)).await;
        assert_eq!(file.everything().await.len(), 530);
        if finished.is_some() {
            break;
        }
        let is_live = store.live_months().await.unwrap().contains(&march);
        if !is_live {
            store.restore_from(march, &archives).await.unwrap();
        }
    }
    store.drop_retired().await.unwrap();
    assert_eq!(file.numbers(RETIRED_TABLES).await, [0]);
    file.expect_correct_rollups().await;
}

const TABLES_OF_FEBRUARY: &str = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '%2024_02'";
const RETIRED_TABLES: &str = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'dropped%'";

#[tokio::test]
async fn worker_stops_with_its_last_handle_while_the_writer_is_busy() {
    let file = File::new().await;
    let (lifecycle, commands) = lifecycle::open();
    let worker = worker(&file.store, &file.archives(), "2024-06-10T00:00:00Z");
    let running = tokio::spawn(lifecycle::run(commands, worker));
    lifecycle.maintain().await.unwrap();
    let _busy = file.store.begin().await.unwrap();
    assert!(crash_after(0, pin!(lifecycle.maintain())).await.is_none(), "the command is queued");
    for _ in 0..10 {
        tokio::task::yield_now().await; // the runtime has one thread, so the worker has received the command now
    }
    drop(lifecycle);
    let soon = Duration::from_secs(4); // less than the timeout of the writer connection
    tokio::time::timeout(soon, running).await.unwrap().unwrap();
}
