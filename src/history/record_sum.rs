//! Sums of records: equal for the same records, whatever their order and batches.
//!
//! A record counts with the first 128 bits of the SHA-256 of its line in an export, which has names and no dictionary
//! ids. Sums are modulo 2^128, so that a record can be subtracted again. SHA-256 is stable in all versions, is in the tree
//! already, and is fast enough with the instructions of the CPU. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::calendar::Month;
use super::event::{Batch, Mergeable};
use super::record::Record;
use crate::protocol::schema::{schema, text_like};

/// The sum of a set of records. Written as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RecordSum(u128);

/// A text is no sum of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a sum of 32 hexadecimal digits")]
pub(crate) struct BadSum;

impl RecordSum {
    /// Adds the records of another sum.
    pub(crate) fn add(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }

    /// Removes the records of another sum.
    pub(crate) fn subtract(&mut self, other: Self) {
        self.0 = self.0.wrapping_sub(other.0);
    }

    /// The sum as the database has it.
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, BadSum> {
        Ok(Self(u128::from_be_bytes(bytes.try_into().map_err(|_| BadSum)?)))
    }
}

impl fmt::Display for RecordSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for RecordSum {
    type Err = BadSum;

    fn from_str(text: &str) -> Result<Self, BadSum> {
        let is_sum = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let sum = is_sum.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        sum.map(Self).ok_or(BadSum)
    }
}

impl Serialize for RecordSum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RecordSum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

schema!(RecordSum, text_like("[0-9a-f]{32}").description(Some("The sum of the records of a month.")));

/// The kinds of records, in the order in which a month is summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RecordKind {
    /// Page views.
    PageView,
    /// Watch sessions.
    Watch,
    /// Presence samples.
    Census,
}

/// How far the records of a month are summed up: those before a kind and an id.
pub(crate) type SummedBefore = (RecordKind, Uuid);

/// Encodes how far records are summed up: a byte for the kind, and the id.
pub(crate) fn encode((kind, id): SummedBefore) -> Vec<u8> {
    let kind = match kind {
        RecordKind::PageView => 0,
        RecordKind::Watch => 1,
        RecordKind::Census => 2,
    };
    [&[kind], id.as_bytes().as_slice()].concat()
}

/// Decodes what [`encode`] made.
/// Errors: the bytes are not of this form.
pub(crate) fn decode(bytes: &[u8]) -> Result<SummedBefore, BadSum> {
    let (kind, id) = bytes.split_first().ok_or(BadSum)?;
    let kind = match kind {
        0 => RecordKind::PageView,
        1 => RecordKind::Watch,
        2 => RecordKind::Census,
        _ => return Err(BadSum),
    };
    Ok((kind, Uuid::from_slice(id).map_err(|_| BadSum)?))
}

/// The sums of months of which not all records are summed up have these only.
pub(crate) type PartlySummed = BTreeMap<Month, SummedBefore>;

/// A change of the sums of months.
#[derive(Debug)]
pub(crate) struct SumDelta<'a> {
    partly: &'a PartlySummed,
    months: BTreeMap<Month, RecordSum>,
    /// A record's line.
    line: Vec<u8>,
}

impl<'a> SumDelta<'a> {
    /// No change. Of the months in `partly`, records that are not summed up yet do not count.
    pub(crate) fn new(partly: &'a PartlySummed) -> Self {
        Self { partly, months: BTreeMap::new(), line: Vec::new() }
    }

    /// Adds the records of these events.
    pub(crate) fn add(&mut self, events: Batch) {
        self.apply(events, RecordSum::add);
    }

    /// Removes the records of these events.
    pub(crate) fn subtract(&mut self, events: Batch) {
        self.apply(events, RecordSum::subtract);
    }

    /// The change of each month.
    pub(crate) fn months(self) -> BTreeMap<Month, RecordSum> {
        self.months
    }

    fn apply(&mut self, events: Batch, change: fn(&mut RecordSum, RecordSum)) {
        self.apply_kind(RecordKind::PageView, events.page_views, change);
        self.apply_kind(RecordKind::Watch, events.watches, change);
        self.apply_kind(RecordKind::Census, events.samples, change);
    }

    fn apply_kind<T: Mergeable>(
        &mut self,
        kind: RecordKind,
        events: Vec<T>,
        change: fn(&mut RecordSum, RecordSum),
    ) where
        Record: From<T>,
    {
        for event in events {
            let month = Month::of(event.time());
            if self.partly.get(&month).is_none_or(|before| (kind, event.id()) < *before) {
                let sum = sum_of(&Record::from(event), &mut self.line);
                change(self.months.entry(month).or_default(), sum);
            }
        }
    }
}

/// The sum of one record.
fn sum_of(record: &Record, line: &mut Vec<u8>) -> RecordSum {
    line.clear();
    // A record has texts, numbers and maps of texts: it can always be written.
    let _ = serde_json::to_writer(&mut *line, record);
    let hash: [u8; 32] = Sha256::digest(&line).into();
    RecordSum(hash.first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::archive::parse_line;

    const VIEW: &str = r#"{"type":"page-view","id":"018f0e6e-0000-7000-8000-000000000001","room":"r","visitor":"v","path":"/","at":1700000000000}"#;

    fn sums(partly: &PartlySummed, lines: &[&str]) -> BTreeMap<Month, RecordSum> {
        let mut delta = SumDelta::new(partly);
        for line in lines {
            delta.add(parse_line(line).unwrap());
        }
        delta.months()
    }

    #[test]
    fn record_counts_with_the_sha256_of_its_export_line() {
        // printf '%s' "$VIEW" | sha256sum | cut -c1-32
        let month: Month = "2023-11".parse().unwrap();
        let sum = sums(&PartlySummed::new(), &[VIEW])[&month];
        assert_eq!(sum.to_string(), "6d763398943f5ac99129522a2c07f7fb");
        assert_eq!((sum.to_string().parse(), RecordSum::from_bytes(&sum.to_bytes())), (Ok(sum), Ok(sum)));
        for bad in ["", "+0000000000000000000000000000000", "0", "g0000000000000000000000000000000"] {
            assert_eq!(bad.parse::<RecordSum>(), Err(BadSum), "{bad}");
        }
    }

    #[test]
    fn order_does_not_change_a_sum_and_a_changed_record_does() {
        let other = VIEW.replace("0001\"", "0002\"");
        let none = PartlySummed::new();
        assert_eq!(sums(&none, &[VIEW, &other]), sums(&none, &[&other, VIEW]));
        assert_ne!(sums(&none, &[VIEW]), sums(&none, &[&other]));
        assert_ne!(
            sums(&none, &[VIEW, VIEW]),
            sums(&none, &[VIEW]),
            "a record that is there twice counts twice"
        );
        let mut delta = SumDelta::new(&none);
        delta.add(parse_line(VIEW).unwrap());
        delta.subtract(parse_line(VIEW).unwrap());
        assert!(delta.months().values().all(|sum| *sum == RecordSum::default()));
    }

    #[test]
    fn records_that_are_not_summed_up_yet_do_not_count() {
        let month: Month = "2023-11".parse().unwrap();
        let id: Uuid = "018f0e6e-0000-7000-8000-000000000001".parse().unwrap();
        let counts = |before| !sums(&[(month, before)].into(), &[VIEW]).is_empty();
        assert!(!counts((RecordKind::PageView, Uuid::nil())) && !counts((RecordKind::PageView, id)));
        assert!(counts((RecordKind::PageView, Uuid::max())) && counts((RecordKind::Watch, Uuid::nil())));
        for before in [(RecordKind::PageView, Uuid::nil()), (RecordKind::Watch, id), (RecordKind::Census, id)]
        {
            assert_eq!(decode(&encode(before)), Ok(before));
        }
        assert_eq!(decode(&[0; 17]), Ok((RecordKind::PageView, Uuid::nil())), "as the migration sets it");
        assert_eq!([decode(&[]), decode(&[3; 17]), decode(&[0; 16])], [Err(BadSum); 3]);
    }
}
