//! Erasure leaves no byte of the visitor and keeps all other rows.
//!
//! It may be interrupted, and the visitor may send events meanwhile.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use flate2::read::MultiGzDecoder;
use sqlx::Connection;

use super::support::*;
use super::*;

/// Rows that refer to a missing text.
const NAMELESS: &str = "
    SELECT count(*) FROM page_views WHERE visitor IS NULL OR path IS NULL OR room IS NULL
    UNION ALL SELECT count(*) FROM watch_sessions WHERE visitor IS NULL OR content IS NULL OR room IS NULL";

impl File {
    /// All stored bytes: the files, and the decompressed archives.
    fn bytes(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let folders = [self.folder.path().to_path_buf(), self.folder.path().join("archive")];
        let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
        let paths = files.map(|file| file.unwrap().path()).filter(|path| path.is_file());
        let mut all: Vec<_> = paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        for (path, packed) in all.clone() {
            if path.extension().is_some_and(|end| end == "gz") {
                let mut text = Vec::new();
                MultiGzDecoder::new(packed.as_slice()).read_to_end(&mut text).unwrap();
                all.push((path, text));
            }
        }
        all
    }

    fn files_with(&self, text: &str) -> Vec<PathBuf> {
        let has =
            |bytes: &[u8]| bytes.windows(text.len()).any(|part| part.eq_ignore_ascii_case(text.as_bytes()));
        self.bytes().into_iter().filter(|(_, bytes)| has(bytes)).map(|(path, _)| path).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn visitor_who_returns_during_erasure_is_a_new_visitor(
        (batch, late) in (batch(), batch()),
        waits in 0..400_usize,
    ) {
        block_on(async {
            let file = File::new().await;
            let (store, archives) = (&file.store, file.archives());
            store.commit(&batch).await.unwrap();
            maintain(store, &archives, "2024-04-10T00:00:00Z").await;
            let ben = VisitorId::try_from("b").unwrap();
            let erasure = async { drop(store.erase(&ben, &archives).await.unwrap()) };
            run_during(waits, erasure, async { store.commit(&late).await.unwrap() }).await;
            file.expect_correct_rollups().await;
            // No row lacks a text.
            assert_eq!(file.numbers(NAMELESS).await, [0, 0]);
            file.restore_all().await;
            file.expect_correct_rollups().await;
        });
    }

    #[test]
    fn events_during_erasure_are_erased_or_of_a_new_visitor(waits in 0..160_usize) {
        block_on(async {
            let file = File::new().await;
            let (store, archives) = (&file.store, file.archives());
            store.commit(&of_three("2024-02-10T00:00:00Z", 6)).await.unwrap();
            let zoe = VisitorId::try_from(ZOE).unwrap();
            let erasure = async { store.erase(&zoe, &archives).await.unwrap() };
            let mut erased = None;
            let erasing = Box::pin(async { erased = Some(erasure.await) });
            let late = of_three("2024-02-10T00:00:00Z", 6);
            run_during(waits, erasing, async { store.commit(&late).await.unwrap() }).await;
            let stored = store.visitor_data(&zoe, &archives).await.unwrap().page_views.len();
            let erased = erased.unwrap();
            assert_eq!(stored as u64 + erased.page_views, 4);
            if stored == 0 {
                store.vacuum().await.unwrap();
                assert!(store.checkpoint().await.unwrap());
                assert_eq!(file.files_with(ZOE), Vec::<PathBuf>::new());
            }
            file.expect_correct_rollups().await;
        });
    }

    #[test]
    fn interrupted_erasure_continues(
        batches in proptest::collection::vec(batch(), 1..4),
        late in batch(),
        waits in 0..600_usize,
    ) {
        let ben = VisitorId::try_from("b").unwrap();
        let (mut folder, before) = in_folder(tempfile::tempdir().unwrap(), async |file| {
            for batch in &batches {
                file.store.commit(batch).await.unwrap();
            }
            maintain(&file.store, &file.archives(), "2024-04-10T00:00:00Z").await;
            file.store.commit(&late).await.unwrap();
            file.everything().await
        });
        // The visitor is the third field of a row.
        let is_bens = |row: &String| row.split(',').nth(2) == Some(r#""b""#);
        // A watch session of two visitors, before and after its archive, is not compared.
        let watches = batches.iter().chain([&late]).flat_map(|batch| &batch.watches);
        let bens: Vec<String> = watches.filter(|watch| watch.actor.visitor == ben).map(|watch| watch.id.to_string()).collect();
        let is_shared = |row: &String| bens.iter().any(|id| row.contains(id));
        let others: Vec<String> = before.iter().filter(|row| !is_bens(row) && !is_shared(row)).cloned().collect();
        run_and_crash(&folder, waits, async |store, archives| store.erase(&ben, archives).await);
        let left;
        (folder, left) = in_folder(folder, async |file| {
            file.expect_correct_rollups().await;
            file.everything().await
        });
        assert!(others.iter().all(|row| left.contains(row)), "{others:#?} {left:#?}");
        in_folder(folder, async |file| {
            file.store.erase(&ben, &file.archives()).await.unwrap();
            file.expect_correct_rollups().await;
            let left = file.everything().await;
            assert!(left.iter().all(|row| !is_bens(row)), "{left:#?}");
            assert!(others.iter().all(|row| left.contains(row)));
            assert_eq!(file.store.erase(&ben, &file.archives()).await.unwrap().page_views, 0);
            file.restore_all().await;
            file.expect_correct_rollups().await;
            assert_eq!(file.rows().await, left);
        });
    }
}

#[tokio::test]
async fn empty_month_gets_no_archive() {
    let file = File::new().await;
    let event = view(1, "ann", "/", "2024-02-09T00:00:00Z", &serde_json::Value::Null);
    file.store.commit(&views([event])).await.unwrap();
    let ann = VisitorId::try_from("ann").unwrap();
    assert_eq!(file.store.erase(&ann, &file.archives()).await.unwrap().page_views, 1);
    let written = file.store.archive(month("2024-02"), &file.archives()).await.unwrap().unwrap();
    assert_eq!((written.rows, file.store.archived_months().await.unwrap().len()), (0, 0));
    file.expect_correct_rollups().await;
}

/// The id to search for.
const ZOE: &str = "Zoe-0f9c2d5e-distinctive";

/// Events of three visitors with random ids, so that pages split within the table.
fn of_three(seen: &str, count: u128) -> Batch {
    let one = |n: u128| {
        let visitor = [ZOE, "ann", "ben"][usize::try_from(n % 3).unwrap()];
        let path = if n.is_multiple_of(5) { format!("/people/{visitor}/{n}") } else { "/".to_owned() };
        let padding = "p".repeat(usize::try_from(n % 40).unwrap() * 20);
        let cut = format!("{}{visitor}", "y".repeat(50));
        let props = serde_json::json!({ "by": visitor, "long": cut, "padding": padding });
        let mut view = view(Uuid::new_v4().as_u128(), visitor, &path, seen, &props);
        view.referrer = Some(format!("https://{visitor}.example/").try_into().unwrap());
        view
    };
    views((0..count).map(one))
}

#[tokio::test]
async fn erasure_leaves_no_byte_of_the_visitor() {
    let file = File::new().await;
    let archives = file.archives();
    for seen in ["2024-01-10T00:00:00Z", "2024-02-10T00:00:00Z", "2024-06-10T00:00:00Z"] {
        for _ in 0..6 {
            file.store.commit(&of_three(seen, 150)).await.unwrap();
        }
    }
    maintain(&file.store, &archives, "2024-06-11T00:00:00Z").await;
    file.store.restore_from(month("2024-02"), &archives).await.unwrap(); // its file stays
    let mentioned =
        view(7, "ben", &format!("/people/{ZOE}/0"), "2024-06-10T00:00:00Z", &serde_json::Value::Null);
    let zoe = VisitorId::try_from(ZOE).unwrap();
    let data = file.store.visitor_data(&zoe, &archives).await.unwrap();
    assert_eq!((data.page_views.len(), data.archives), (900, vec![month("2024-01")]));
    assert!(file.files_with(ZOE).len() >= 4);
    let before = file.everything().await;

    let mut reader = file.store.read().await.unwrap();
    let mut reading = reader.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM months").fetch_all(&mut *reading).await.unwrap();
    let erased = file.store.erase(&zoe, &archives).await.unwrap();
    assert!(!erased.wal_truncated, "a reader blocks the truncation");
    assert_eq!((erased.page_views, erased.watch_sessions), (600, 0));
    assert_eq!(erased.archives.iter().map(|rows| rows.rows).collect::<Vec<_>>(), [300]);
    let folder = archives.path("");
    assert!(
        file.files_with(ZOE).iter().all(|path| !path.starts_with(&folder)),
        "also not in files that remained"
    );
    reading.rollback().await.unwrap();
    drop(reader);
    maintain(&file.store, &archives, "2024-06-11T00:00:00Z").await;

    assert_eq!(file.files_with(ZOE), Vec::<PathBuf>::new());
    assert_eq!(file.files_with(&ZOE[..12]), Vec::<PathBuf>::new(), "not even a prefix");
    let others: Vec<String> = before.into_iter().filter(|row| !row.contains(ZOE)).collect();
    assert_eq!(file.everything().await, others);
    let again = file.store.erase(&zoe, &archives).await.unwrap();
    assert_eq!(again, Erased { wal_truncated: true, ..Erased::default() });
    file.restore_all().await;
    file.expect_correct_rollups().await;
    assert_eq!(file.rows().await, others);

    // A visitor who returns can be erased again.
    file.store.commit(&of_three("2024-06-10T00:00:00Z", 150)).await.unwrap();
    let erased = file.store.erase(&zoe, &archives).await.unwrap();
    assert_eq!((erased.page_views, erased.rollups > 0, erased.wal_truncated), (50, true, true));
    assert_eq!(file.files_with(ZOE), Vec::<PathBuf>::new());
    // Other visitors' events that contain the id stay.
    file.store.commit(&views([mentioned])).await.unwrap();
    file.store.commit(&of_three("2024-06-10T00:00:00Z", 1)).await.unwrap();
    file.store.erase(&zoe, &archives).await.unwrap();
    let bens = file.rows().await.into_iter().filter(|row| row.contains(ZOE)).collect::<Vec<_>>();
    assert!(bens.len() == 1 && bens[0].contains("\"ben\""), "{bens:?}");
    file.expect_correct_rollups().await;
}
