//! Sums of records: equal in all files with the same records, whatever each file went through.
//!
//! `recount` compares the sums with the rows, so that the property tests of this folder hold them too.

use super::support::*;
use super::*;
use crate::history::calendar::Month;
use crate::history::record_sum::RecordSum;

/// What happens to a file between its batches.
#[derive(Debug, Clone, Copy)]
enum Between {
    Nothing,
    /// February is archived, and restored and archived again if it got rows.
    Maintenance,
    /// All archives are restored.
    Restore,
    /// The file is one of an older version, which had no sums.
    Forget,
}

fn between() -> impl Strategy<Value = Between> {
    use Between::{Forget, Maintenance, Nothing, Restore};
    proptest::sample::select(vec![Nothing, Maintenance, Restore, Forget])
}

impl File {
    async fn go_through(&self, what: Between) {
        match what {
            Between::Nothing => {}
            Between::Maintenance => self.maintain_well().await,
            Between::Restore => self.restore_all().await,
            Between::Forget => self.forget_sums().await,
        }
    }

    async fn maintain_well(&self) {
        let report = maintain(&self.store, &self.archives(), "2024-04-10T00:00:00Z").await;
        assert!(report.steps.values().all(|step| step.failures.is_empty()), "{report:?}");
    }

    /// Makes the sums as the migration makes them.
    async fn forget_sums(&self) {
        const FORGET: &str = "UPDATE months SET record_sum = zeroblob(16), record_sum_before = zeroblob(17)";
        sqlx::query(FORGET).execute(&mut *self.store.connection().await.unwrap()).await.unwrap();
    }

    /// Which months have a sum.
    async fn are_known(&self) -> Vec<bool> {
        self.store.month_sums().await.unwrap().iter().map(|month| month.sum.is_some()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn files_with_the_same_records_have_equal_sums_and_archives_whatever_happened_to_them(
        (batches, others, what) in proptest::collection::vec(batch(), 1..4).prop_flat_map(|batches| {
            let others = [shuffled(&batches), shuffled(&batches)];
            let what = proptest::collection::vec(between(), 16);
            (Just(batches), others, what)
        }),
        erased in proptest::sample::select(vec![None, Some("a"), Some("b")]),
    ) {
        let given = [batches, others[0].clone(), others[1].clone()];
        let found = block_on(async {
            let mut found = Vec::new();
            let mut what = what.iter().copied();
            for batches in &given {
                let file = File::new().await;
                for batch in batches {
                    file.store.commit(batch).await.unwrap();
                    file.go_through(what.next().unwrap_or(Between::Nothing)).await;
                    file.expect_correct_rollups().await;
                }
                if let Some(erased) = erased {
                    let visitor = VisitorId::try_from(erased).unwrap();
                    file.store.erase(&visitor, &file.archives(), Erasure::of_all(at("2024-04-09T00:00:00Z"))).await.unwrap();
                    file.expect_correct_rollups().await;
                }
                // Rows that belong to another month now leave the archives that have them, and empty archives go.
                file.restore_all().await;
                file.maintain_well().await;
                let archived: Vec<_> = file.store.months().await.unwrap().into_iter()
                    .filter_map(|state| Some((state.month, state.archive?.checksum))).collect();
                let sums = file.sums().await;
                file.restore_all().await;
                file.expect_correct_rollups().await;
                assert_eq!(file.sums().await, sums, "in archives and in tables");
                found.push((sums, archived, file.rows().await));
            }
            found
        });
        prop_assert_eq!(&found[0], &found[1]);
        prop_assert_eq!(&found[0], &found[2]);
    }

    #[test]
    fn commits_and_erasures_while_records_are_summed_up_count_once(
        (batches, late) in (proptest::collection::vec(batch(), 1..4), batch()),
        (waits, erases) in (0..200_usize, any::<bool>()),
    ) {
        block_on(async {
            let file = File::new().await;
            for batch in &batches {
                file.store.commit(batch).await.unwrap();
            }
            file.forget_sums().await;
            let months: Vec<Month> = file.store.live_months().await.unwrap().into_iter().collect();
            let archives = file.archives();
            let sum = async {
                for month in &months {
                    file.store.sum_records(*month, &archives).await.unwrap();
                }
            };
            let other = async {
                file.store.commit(&late).await.unwrap();
                if erases {
                    let visitor = VisitorId::try_from("a").unwrap();
                    file.store.erase(&visitor, &archives, Erasure::of_all(at("2024-04-09T00:00:00Z"))).await.unwrap();
                }
            };
            Box::pin(run_during(waits, sum, other)).await;
            assert!(file.are_known().await.iter().all(|is_known| *is_known));
            file.expect_correct_rollups().await;
        });
    }
}

#[tokio::test]
async fn sum_is_unknown_until_an_archived_month_with_late_rows_is_restored() {
    let file = File::new().await;
    let seen = |id, seen| views([view(id, "ann", "/", seen, &serde_json::Value::Null)]);
    file.store.commit(&seen(1, "2024-02-10T00:00:00Z")).await.unwrap();
    file.maintain_well().await;
    let before = file.sums().await;
    assert_eq!((file.are_known().await, before.len()), (vec![true], 1));
    // The row is in the archive too, and counts twice until the restore.
    file.store.commit(&seen(1, "2024-02-10T00:00:00Z")).await.unwrap();
    assert_eq!(file.are_known().await, [false]);
    file.maintain_well().await;
    assert_eq!(file.sums().await, before);
}

#[tokio::test]
async fn sum_of_an_archive_of_an_older_version_is_that_of_its_records() {
    let file = File::new().await;
    let seen = |id, seen| views([view(id, "ann", "/", seen, &serde_json::Value::Null)]);
    for id in 1..8 {
        file.store.commit(&seen(id, "2024-02-10T00:00:00Z")).await.unwrap();
    }
    file.maintain_well().await;
    let before = file.sums().await;
    file.forget_sums().await;
    assert_eq!(file.are_known().await, [false]);
    file.maintain_well().await;
    assert_eq!(file.sums().await, before);
}

#[tokio::test]
async fn wrong_sum_is_a_difference_of_the_recount() {
    let file = File::new().await;
    let batch = views([view(1, "ann", "/", "2024-02-10T00:00:00Z", &serde_json::Value::Null)]);
    file.store.commit(&batch).await.unwrap();
    let wrong = RecordSum::default().to_bytes().to_vec();
    let query = sqlx::query("UPDATE months SET record_sum = ?1").bind(wrong);
    query.execute(&mut *file.store.connection().await.unwrap()).await.unwrap();
    let differences = file.store.recount().await.unwrap().differences;
    let [difference] = differences.as_slice() else { panic!("{differences:?}") };
    let line = difference.to_string();
    assert!(line.starts_with("month 2024-02-01T00:00:00Z in all rooms: the sum of records 0000"), "{line}");
}
