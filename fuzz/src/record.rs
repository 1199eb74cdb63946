//! Lines of an import or an archive: an event, or rejected. An event is the same after it is written and read again.

use breathing_room::internals::{Batch, Record};

pub fn check(bytes: &[u8]) {
    let Ok(record) = serde_json::from_slice::<Record>(bytes) else { return };
    let mut batch = Batch::default();
    if record.add_to(&mut batch).is_ok() {
        assert_eq!(batch.len(), 1);
        assert!(!batch.months().is_empty());
        check_round_trip(&batch);
    }
}

/// Checks that all events of a batch are the same after they are written as lines and read again.
pub fn check_round_trip(batch: &Batch) {
    let mut back = Batch::default();
    for record in Record::of(batch.clone()) {
        let line = serde_json::to_string(&record).expect("JSON");
        let read: Record = serde_json::from_str(&line).expect("a record");
        read.add_to(&mut back).expect("good properties");
    }
    assert_eq!(&back, batch);
}
