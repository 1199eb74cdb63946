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

/// The time of erasures.
fn now() -> Time {
    at("2024-06-10T06:00:00Z")
}

/// Rows that refer to a missing text.
const NAMELESS: &str = "
    SELECT count(*) FROM page_views WHERE visitor IS NULL OR path IS NULL OR room IS NULL
    UNION ALL SELECT count(*) FROM watch_sessions WHERE visitor IS NULL OR content IS NULL OR room IS NULL";

impl File {
    /// All pages of a visitor's data.
    pub(super) async fn visitor_data(&self, visitor: &str) -> PersonalData {
        let (visitor, mut all) = (visitor.try_into().unwrap(), PersonalData::default());
        loop {
            let cursor = all.next.take();
            let mut page = self.store.visitor_data(&visitor, &self.archives(), cursor).await.unwrap();
            assert!(serde_json::to_vec(&page).unwrap().len() < 20_000, "bounded");
            all.page_views.append(&mut page.page_views);
            all.watch_sessions.append(&mut page.watch_sessions);
            page.archives.retain(|month| !all.archives.contains(month));
            all.archives.append(&mut page.archives);
            all.next = page.next;
            if all.next.is_none() {
                return all;
            }
        }
    }

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
            let erasure = async { drop(store.erase(&ben, &archives, Erasure::of_all(now())).await.unwrap()) };
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
            let erasure = async { store.erase(&zoe, &archives, Erasure::of_all(now())).await.unwrap() };
            let mut erased = None;
            let erasing = Box::pin(async { erased = Some(erasure.await) });
            let late = of_three("2024-02-10T00:00:00Z", 6);
            run_during(waits, erasing, async { store.commit(&late).await.unwrap() }).await;
            let stored = file.visitor_data(ZOE).await.page_views.len();
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
        run_and_crash(&folder, waits, async |store, archives| store.erase(&ben, archives, Erasure::of_all(now())).await);
        let left;
        (folder, left) = in_folder(folder, async |file| {
            file.expect_correct_rollups().await;
            file.everything().await
        });
        assert!(others.iter().all(|row| left.contains(row)), "{others:#?} {left:#?}");
        in_folder(folder, async |file| {
            file.store.erase(&ben, &file.archives(), Erasure::of_all(now())).await.unwrap();
            file.expect_correct_rollups().await;
            let left = file.everything().await;
            assert!(left.iter().all(|row| !is_bens(row)), "{left:#?}");
            assert!(others.iter().all(|row| left.contains(row)));
            assert_eq!(file.store.erase(&ben, &file.archives(), Erasure::of_all(now())).await.unwrap().page_views, 0);
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
    assert_eq!(file.store.erase(&ann, &file.archives(), Erasure::of_all(now())).await.unwrap().page_views, 1);
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
    let data = file.visitor_data(ZOE).await;
    assert_eq!((data.page_views.len(), data.archives), (900, vec![month("2024-01")]));
    assert!(file.files_with(ZOE).len() >= 4);
    let before = file.everything().await;

    let mut reader = file.store.read().await.unwrap();
    let mut reading = reader.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM months").fetch_all(&mut *reading).await.unwrap();
    let erased = file.store.erase(&zoe, &archives, Erasure::of_all(now())).await.unwrap();
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
    let again = file.store.erase(&zoe, &archives, Erasure::of_all(now())).await.unwrap();
    assert_eq!(again, Erased { wal_truncated: true, ..Erased::default() });
    file.restore_all().await;
    file.expect_correct_rollups().await;
    assert_eq!(file.rows().await, others);

    // A visitor who returns can be erased again.
    file.store.commit(&of_three("2024-06-10T00:00:00Z", 150)).await.unwrap();
    let erased = file.store.erase(&zoe, &archives, Erasure::of_all(now())).await.unwrap();
    assert_eq!((erased.page_views, erased.rollups > 0, erased.wal_truncated), (50, true, true));
    assert_eq!(file.files_with(ZOE), Vec::<PathBuf>::new());
    // Other visitors' events that contain the id stay.
    file.store.commit(&views([mentioned])).await.unwrap();
    file.store.commit(&of_three("2024-06-10T00:00:00Z", 1)).await.unwrap();
    file.store.erase(&zoe, &archives, Erasure::of_all(now())).await.unwrap();
    let bens = file.rows().await.into_iter().filter(|row| row.contains(ZOE)).collect::<Vec<_>>();
    assert!(bens.len() == 1 && bens[0].contains("\"ben\""), "{bens:?}");
    file.expect_correct_rollups().await;
}

/// Page views and a watch session of one visitor, each with texts of its own.
fn of_visitor(visitor: &str, seen: &str, word: &str) -> Batch {
    let id = |n: u128| Uuid::from_u128(Uuid::new_v4().as_u128() ^ n);
    let room = RoomId::try_from(format!("{word}-room").to_ascii_lowercase()).unwrap();
    let actor = Actor { room, visitor: VisitorId::try_from(visitor).unwrap(), is_bot: false };
    let view = |n: u128| {
        let message = serde_json::json!({
            "id": id(n), "path": format!("/{word}-path/{n}"), "title": format!("Diary of {word}-title@{n}"),
            "referrer": format!("https://{word}-host.example/{word}-referrer/{n}"), "at": at(seen),
            "props": { format!("{word}-key"): format!("{word}-value-{n}") },
        });
        PageViewEvent::new(actor.clone(), serde_json::from_value(message).unwrap(), at(seen)).unwrap()
    };
    let message = serde_json::json!({
        "id": id(0), "content": format!("{word}-content"), "state": "paused", "watchedMs": 5, "at": at(seen),
        "startedAt": at(seen), "props": { format!("{word}-key"): format!("{word}-watched") },
    });
    let watch = WatchEvent::new(actor.clone(), serde_json::from_value(message).unwrap(), at(seen)).unwrap();
    Batch { page_views: (0..7).map(view).collect(), watches: vec![watch], samples: Vec::new() }
}

const UNTITLED: &str = "SELECT count(*) FROM page_views WHERE title IS NULL OR referrer IS NULL";

/// The texts of [`of_visitor`], one of each kind.
fn texts(word: &str) -> Vec<String> {
    let kinds = ["room", "path", "title", "host", "referrer", "key", "value", "content", "watched"];
    kinds.iter().map(|kind| format!("{word}-{kind}")).collect()
}

impl File {
    /// The texts that are in a file, but for the archives.
    fn texts_in_database(&self, word: &str) -> Vec<String> {
        let folder = self.archives().path("");
        let is_there = |text: &String| self.files_with(text).iter().any(|path| !path.starts_with(&folder));
        texts(word).into_iter().filter(is_there).collect()
    }
}

#[tokio::test]
async fn texts_that_only_an_erased_visitor_had_are_gone_from_every_file() {
    let file = File::new().await;
    let archives = file.archives();
    for seen in ["2024-01-10T00:00:00Z", "2024-02-10T00:00:00Z", "2024-06-10T00:00:00Z"] {
        for _ in 0..20 {
            file.store.commit(&of_visitor("ann", seen, "common")).await.unwrap();
            file.store.commit(&of_visitor("jane", seen, "Secret")).await.unwrap();
        }
        file.store.commit(&of_visitor("jane", seen, "common")).await.unwrap();
    }
    maintain(&file.store, &archives, "2024-03-11T00:00:00Z").await;
    assert_eq!(file.store.archived_months().await.unwrap(), [month("2024-01")].into());
    for text in texts("Secret") {
        assert!(file.files_with(&text).len() > 1, "{text} in database and archive");
    }
    let (jane, ann) = ("jane".try_into().unwrap(), VisitorId::try_from("ann").unwrap());
    file.store.erase(&jane, &archives, Erasure::of_all(now())).await.unwrap();
    for text in texts("Secret") {
        assert_eq!(file.files_with(&text), Vec::<PathBuf>::new(), "{text}");
    }
    assert_eq!(file.texts_in_database("common"), texts("common"));
    assert_eq!(file.numbers(NAMELESS).await, [0, 0]);
    assert_eq!(file.numbers(UNTITLED).await, [0]);
    file.restore_all().await;
    file.expect_correct_rollups().await;
    file.store.erase(&ann, &archives, Erasure::of_all(now())).await.unwrap();
    for text in texts("common") {
        assert_eq!(file.files_with(&text), Vec::<PathBuf>::new(), "{text}");
    }
    for left in [
        "SELECT count(*) FROM texts WHERE text IS NOT NULL OR hash IS NOT NULL",
        "SELECT count(*) FROM text_hashes",
        "SELECT count(*) FROM new_text_hashes",
    ] {
        assert_eq!(file.numbers(left).await, [0], "{left}");
    }
}

#[tokio::test]
async fn texts_that_only_archived_rows_had_are_gone_from_the_database() {
    let file = File::new().await;
    for seen in ["2024-01-10T00:00:00Z", "2024-02-10T00:00:00Z"] {
        file.store.commit(&of_visitor("ann", seen, "January")).await.unwrap();
    }
    file.store.commit(&of_visitor("ann", "2024-06-10T00:00:00Z", "june")).await.unwrap();
    assert_eq!(file.texts_in_database("January"), texts("January"));
    maintain(&file.store, &file.archives(), "2024-06-11T00:00:00Z").await;
    let left = file.texts_in_database("January");
    // Rollups still count the others.
    for gone in ["January-title", "January-referrer", "January-watched"] {
        assert!(!left.contains(&gone.to_owned()), "{left:?}");
    }
    assert!(left.contains(&"January-path".to_owned()), "{left:?}");
    assert_eq!(file.texts_in_database("june"), texts("june"));
    file.restore_all().await;
    file.expect_correct_rollups().await;
    assert_eq!(file.numbers(NAMELESS).await, [0, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn interrupted_erasure_is_finished_by_maintenance(waits in 0..900_usize) {
        let (folder, ()) = in_folder(tempfile::tempdir().unwrap(), async |file| {
            for seen in ["2024-01-10T00:00:00Z", "2024-06-10T00:00:00Z"] {
                file.store.commit(&of_visitor("ann", seen, "common")).await.unwrap();
                file.store.commit(&of_visitor(ZOE, seen, "secret")).await.unwrap();
            }
            maintain(&file.store, &file.archives(), "2024-06-11T00:00:00Z").await;
        });
        let zoe = VisitorId::try_from(ZOE).unwrap();
        run_and_crash(&folder, waits, async |store, archives| store.erase(&zoe, archives, Erasure::of_all(now())).await);
        in_folder(folder, async |file| {
            let archives = file.archives();
            file.expect_correct_rollups().await;
            let has_begun = file.archives().path("erasures.jsonl").exists();
            maintain(&file.store, &archives, "2024-06-11T00:00:00Z").await;
            for text in texts("secret").iter().map(String::as_str).chain([ZOE]) {
                assert_eq!(file.files_with(text).is_empty(), has_begun, "{text} {:?}", file.files_with(text));
            }
            file.restore_all().await;
            file.expect_correct_rollups().await;
            assert_eq!(file.numbers(NAMELESS).await, [0, 0]);
        });
    }

    #[test]
    fn texts_that_commits_use_during_an_erasure_stay(waits in 0..900_usize) {
        block_on(async {
            let file = File::new().await;
            let (store, archives) = (&file.store, file.archives());
            store.commit(&of_visitor("jane", "2024-06-10T00:00:00Z", "secret")).await.unwrap();
            let jane = VisitorId::try_from("jane").unwrap();
            let erasure = async { drop(store.erase(&jane, &archives, Erasure::of_all(now())).await.unwrap()) };
            let late = of_visitor("ann", "2024-06-10T00:00:00Z", "secret");
            run_during(waits, erasure, async { store.commit(&late).await.unwrap() }).await;
            assert_eq!(file.numbers(NAMELESS).await, [0, 0]);
            assert_eq!(file.numbers(UNTITLED).await, [0]);
            assert_eq!(file.rows().await.len(), late.len());
            file.expect_correct_rollups().await;
        });
    }
}

#[tokio::test]
async fn erasure_and_its_rewrite_are_many_short_transactions() {
    let file = File::new().await;
    for _ in 0..2 {
        file.store.commit(&of_three("2024-06-10T00:00:00Z", 600)).await.unwrap();
    }
    let commits = file.count_commits().await;
    file.store
        .erase(&VisitorId::try_from(ZOE).unwrap(), &file.archives(), Erasure::of_all(now()))
        .await
        .unwrap();
    // Slices double from a few rows on: 400 rows are deleted, and 800 are copied and dropped.
    assert!(commits.load(std::sync::atomic::Ordering::Relaxed) > 30, "{commits:?}");
    file.expect_correct_rollups().await;
}

/// Replaces the database of `file` with `backup`.
async fn replace(file: File, backup: &Path) -> File {
    file.store.close().await;
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(file.folder.path().join(format!("a.db{end}")));
    }
    fs::copy(backup, file.folder.path().join("a.db")).unwrap();
    let store = Store::open(&url(&file.folder)).await.unwrap();
    File { folder: file.folder, store }
}

#[tokio::test]
async fn applied_erasures_are_forgotten_with_the_lines_that_a_full_ledger_loses() {
    let file = File::new().await;
    let archives = file.archives();
    for number in 0..20 {
        let visitor = format!("visitor-{number}");
        file.store.commit(&of_visitor(&visitor, "2024-06-10T00:00:00Z", "common")).await.unwrap();
        let visitor = VisitorId::try_from(visitor).unwrap();
        file.store.erase(&visitor, &archives, Erasure::of_all(now())).await.unwrap();
    }
    maintain(&file.store, &archives, "2024-06-11T00:00:00Z").await;
    let lines = fs::read_to_string(archives.path("erasures.jsonl")).unwrap().lines().count();
    assert!((4..20).contains(&lines), "{lines}");
    assert_eq!(file.numbers("SELECT count(*) FROM applied_erasures").await, [i64::try_from(lines).unwrap()]);
}

#[tokio::test]
async fn restored_database_erases_again_and_accepts_archives_that_erasures_rewrote() {
    let file = File::new().await;
    let archives = file.archives();
    for seen in ["2024-01-10T00:00:00Z", "2024-06-10T00:00:00Z"] {
        for (visitor, word) in [("ann", "common"), ("ben", "other"), (ZOE, "secret")] {
            file.store.commit(&of_visitor(visitor, seen, word)).await.unwrap();
        }
    }
    maintain(&file.store, &archives, "2024-06-11T00:00:00Z").await;
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = elsewhere.path().join("backup.db");
    backup::backup(&url(&file.folder), &backup).await.unwrap();
    let [zoe, ben] = [ZOE, "ben"].map(|visitor| VisitorId::try_from(visitor).unwrap());
    // The archive is rewritten twice.
    file.store.erase(&zoe, &archives, Erasure::of_all(now())).await.unwrap();
    file.store.erase(&ben, &archives, Erasure::of_all(now())).await.unwrap();
    let ledger = fs::read_to_string(archives.path("erasures.jsonl")).unwrap();
    assert!(!ledger.contains(ZOE) && ledger.lines().count() == 4, "{ledger}");

    let file = replace(file, &backup).await;
    assert!(!file.files_with(ZOE).is_empty());
    let report = maintain(&file.store, &archives, "2024-06-11T00:00:00Z").await;
    assert!(report.steps.values().all(|step| step.failures.is_empty()), "{report:?}");
    for text in texts("secret").iter().chain(&texts("other")).map(String::as_str).chain([ZOE]) {
        assert_eq!(file.files_with(text), Vec::<PathBuf>::new(), "{text}");
    }
    file.expect_correct_rollups().await;
    // A visitor who returns stays: the erasure is applied once.
    file.store.commit(&of_visitor(ZOE, "2024-06-10T00:00:00Z", "again")).await.unwrap();
    maintain(&file.store, &archives, "2024-06-11T00:00:00Z").await;
    assert_eq!(file.texts_in_database("again"), texts("again"));
    file.restore_all().await;
    file.expect_correct_rollups().await;

    let file = replace(file, &backup).await;
    file.store.restore_from(month("2024-01"), &archives).await.unwrap();
    assert_eq!(file.numbers("SELECT count(*) FROM page_views WHERE visitor = 'ann'").await, [14]);
    let file = replace(file, &backup).await;
    let ann = VisitorId::try_from("ann").unwrap();
    let erased = file.store.erase(&ann, &archives, Erasure::of_all(now())).await.unwrap();
    assert_eq!((erased.page_views, erased.archives.len()), (7, 1));
}

#[tokio::test]
async fn visitor_data_comes_in_bounded_pages_and_only_archives_with_rows_are_read() {
    let file = File::new().await;
    let archives = file.archives();
    for seen in ["2024-01-10T00:00:00Z", "2024-02-10T00:00:00Z", "2024-06-10T00:00:00Z"] {
        file.store.commit(&of_visitor(ZOE, seen, "common")).await.unwrap();
        file.store.commit(&of_three(seen, 90)).await.unwrap();
    }
    file.store.commit(&of_visitor("ann", "2023-12-10T00:00:00Z", "common")).await.unwrap();
    let before = file.visitor_data(ZOE).await;
    assert_eq!((before.page_views.len(), before.watch_sessions.len()), (3 * 37, 3));
    maintain(&file.store, &archives, "2024-06-11T00:00:00Z").await;
    // December has no row of this visitor.
    fs::remove_file(archives.path("breathing-room-2023-12.jsonl.gz")).unwrap();
    let after = file.visitor_data(ZOE).await;
    assert_eq!(after.archives, [month("2024-01"), month("2024-02")]);
    let sorted = |data: &PersonalData| {
        let records = data.page_views.iter().chain(&data.watch_sessions);
        let mut all: Vec<String> = records.map(|record| serde_json::to_string(record).unwrap()).collect();
        all.sort();
        all
    };
    assert_eq!(sorted(&after), sorted(&before));
    // A month that is restored between two pages is not missed.
    let visitor = VisitorId::try_from(ZOE).unwrap();
    let first = file.store.visitor_data(&visitor, &archives, None).await.unwrap();
    file.store.restore_from(month("2024-01"), &archives).await.unwrap();
    let (mut all, mut next) = (first.page_views.len(), first.next);
    while let Some(cursor) = next {
        let page = file.store.visitor_data(&visitor, &archives, Some(cursor)).await.unwrap();
        (all, next) = (all + page.page_views.len(), page.next);
    }
    assert!(all >= before.page_views.len());
    assert!(file.store.visitor_data(&"ann".try_into().unwrap(), &archives, None).await.is_err());
}

#[tokio::test]
async fn erasure_up_to_a_time_keeps_what_the_returned_visitor_has_since() {
    let file = File::new().await;
    let nothing = serde_json::Value::Null;
    let (before, after) = ("2024-06-10T05:00:00Z", "2024-06-10T07:00:00Z");
    let props = serde_json::json!({ "by": ZOE });
    let mut events = vec![view(1, "ann", "/", before, &nothing), view(2, "ann", "/", after, &nothing)];
    events.extend((3..9).map(|n| view(n, ZOE, "/", before, &props)));
    events.extend((9..16).map(|n| view(n, ZOE, "/back", after, &nothing)));
    file.store.commit(&views(events)).await.unwrap();
    let zoe = VisitorId::try_from(ZOE).unwrap();
    let erasure = Erasure { until: Some(now()), ..Erasure::of_all(now()) };
    let erased = file.store.erase(&zoe, &file.archives(), erasure).await.unwrap();
    assert_eq!(erased.page_views, 6);
    file.expect_correct_rollups().await;
    let kept = file.visitor_data(ZOE).await.page_views;
    assert_eq!(kept.len(), 7);
    assert_eq!(file.visitor_data("ann").await.page_views.len(), 2);
    let sums = file.numbers("SELECT count(*) FROM erasures").await;
    assert_eq!(sums, [0]);
    // What remains is erased by an erasure of all.
    assert_eq!(file.store.erase(&zoe, &file.archives(), Erasure::of_all(now())).await.unwrap().page_views, 7);
    assert_eq!(file.files_with(ZOE), Vec::<PathBuf>::new());
    file.expect_correct_rollups().await;
}
