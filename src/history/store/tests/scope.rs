//! What is written into one room never changes an answer about another.
//!
//! Two files get the same events of one room; one of them gets those of the other rooms too.

use super::identity::questions;
use super::support::*;
use super::*;
use crate::history::metrics::HistoryMetrics;
use crate::history::scope::Scope;
use crate::panics::Panics;

/// The room of the questions.
const ROOM: &str = "a";

/// What a batch has of the room. The samples of the whole hub stay as they are.
fn of_the_room(batch: &Batch) -> Batch {
    let mut batch = batch.clone();
    batch.page_views.retain(|view| view.actor.room.as_str() == ROOM);
    batch.watches.retain(|watch| watch.actor.room.as_str() == ROOM);
    batch.samples.iter_mut().for_each(|sample| sample.rooms.retain(|room, _| room.as_str() == ROOM));
    batch
}

impl File {
    /// The answers to all questions about the room, errors included.
    async fn answers_about_the_room(&self) -> Vec<String> {
        let scope = Scope::Room(RoomId::try_from(ROOM).unwrap());
        let metrics = HistoryMetrics::register(&Panics::register());
        let mut answers = Vec::new();
        for query in questions().into_iter().filter(|query| query.scope == scope) {
            let result = self.store.stats(&query, at("2024-03-02T12:00:00Z"), &[], &metrics).await;
            answers.push(match result {
                Ok(result) => serde_json::to_string(&result).unwrap(),
                Err(error) => error.to_string(),
            });
        }
        answers
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_written_into_other_rooms_changes_no_answer_about_a_room(
        batches in proptest::collection::vec(batch(), 1..4),
    ) {
        block_on(async {
            let (alone, among) = (File::new().await, File::new().await);
            for file in [&alone, &among] {
                file.store.list_props(&["plan".to_owned()], at("2024-01-01T00:00:00Z")).await.unwrap();
            }
            for batch in &batches {
                alone.store.commit(&of_the_room(batch)).await.unwrap();
                among.store.commit(batch).await.unwrap();
            }
            let answers = alone.answers_about_the_room().await;
            assert!(answers.len() > 15);
            assert_eq!(among.answers_about_the_room().await, answers);
            for file in [&alone, &among] {
                file.archive_all().await;
            }
            assert_eq!(among.answers_about_the_room().await, alone.answers_about_the_room().await, "in archives");
            for file in [&alone, &among] {
                maintain(&file.store, &file.archives(), "2024-06-10T00:00:00Z").await;
            }
            assert_eq!(among.answers_about_the_room().await, alone.answers_about_the_room().await, "after maintenance");
        });
    }
}
