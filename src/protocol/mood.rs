//! Moods: the configured vocabulary, one mood of it, and the visitors by mood.
//!
//! Inside the hub a mood is an index into the vocabulary. Names are only on the wire.

use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// The default vocabulary, in display order.
pub const DEFAULT_MOODS: &str = "calm,gratitude,presence,joy,love,peace,hope,tired,anxious,sad";

/// The most moods of a vocabulary. It bounds every frame and the counts of every room.
pub(crate) const MOODS_LIMIT: usize = 64;

/// The regular expression that a mood's name matches.
pub(crate) const MOOD_RULE: &str = "[a-z][a-z0-9-]{0,31}";

/// One mood of the hub's vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mood(u8);

impl Mood {
    fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A vocabulary could not be parsed from the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadVocabulary {
    /// A mood's name breaks the rule for names.
    #[error("mood {0:?} must match {MOOD_RULE}")]
    Name(String),
    /// A mood is listed twice.
    #[error("mood {0:?} is listed twice")]
    Twice(String),
    /// More moods than [`MOODS_LIMIT`].
    #[error("at most {MOODS_LIMIT} moods, not {0}")]
    TooMany(usize),
}

/// The moods that visitors may set, in display order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary(Arc<[Box<str>]>);

impl Vocabulary {
    /// Parses a comma-separated list of names, each `[a-z][a-z0-9-]{0,31}`.
    ///
    /// # Errors
    /// A name breaks the rule or is listed twice, or there are more than 64.
    pub fn parse(list: &str) -> Result<Self, BadVocabulary> {
        let mut names: Vec<Box<str>> = Vec::new();
        for name in list.split(',').map(str::trim) {
            let good = matches!(name.len(), 1..=32)
                && name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
            if !good {
                return Err(BadVocabulary::Name(name.to_owned()));
            }
            if names.iter().any(|known| **known == *name) {
                return Err(BadVocabulary::Twice(name.to_owned()));
            }
            names.push(name.into());
        }
        if names.len() > MOODS_LIMIT {
            return Err(BadVocabulary::TooMany(names.len()));
        }
        Ok(Self(names.into()))
    }

    /// Returns the mood of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Mood> {
        let index = self.0.iter().position(|known| **known == *name)?;
        u8::try_from(index).ok().map(Mood)
    }

    /// Returns the name of a mood.
    #[must_use]
    pub fn name(&self, mood: Mood) -> Option<&str> {
        self.0.get(mood.index()).map(|name| &**name)
    }

    /// All names, in display order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }

    /// Counts of 0 for every mood.
    #[must_use]
    pub fn zero(&self) -> MoodCounts {
        MoodCounts(vec![0; self.0.len()].into())
    }

    /// Counts with the names of the moods.
    #[must_use]
    pub fn named<'a>(&'a self, counts: &'a MoodCounts) -> NamedMoods<'a> {
        NamedMoods { vocabulary: self, counts }
    }
}

impl Default for Vocabulary {
    fn default() -> Self {
        Self(DEFAULT_MOODS.split(',').map(Into::into).collect())
    }
}

impl Serialize for Vocabulary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for name in &*self.0 {
            seq.serialize_element(name)?;
        }
        seq.end()
    }
}

/// The number of visitors in each mood of a vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoodCounts(Box<[u32]>);

impl MoodCounts {
    /// Adds a visitor in `mood`.
    pub fn add(&mut self, mood: Mood) {
        if let Some(count) = self.0.get_mut(mood.index()) {
            *count += 1;
        }
    }

    /// Removes a visitor in `mood`, who was added by [`add`](Self::add).
    pub fn remove(&mut self, mood: Mood) {
        if let Some(count) = self.0.get_mut(mood.index()) {
            *count -= 1;
        }
    }

    /// The counts, in the order of the vocabulary.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied()
    }

    /// Adds the counts of another room with the same vocabulary.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }
}

/// Counts by name: a JSON object of the counts above 0.
#[derive(Debug, Clone, Copy)]
pub struct NamedMoods<'a> {
    vocabulary: &'a Vocabulary,
    counts: &'a MoodCounts,
}

impl Serialize for NamedMoods<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, count) in self.vocabulary.0.iter().zip(&self.counts.0) {
            if *count > 0 {
                map.serialize_entry(name, count)?;
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_vocabulary_is_valid() {
        let vocabulary = Vocabulary::default();
        assert_eq!(Vocabulary::parse(DEFAULT_MOODS).as_ref(), Ok(&vocabulary));
        assert!(vocabulary.find("gratitude").is_some());
        assert!(vocabulary.find("Calm").is_none());
    }

    #[test]
    fn invalid_vocabulary_error_names_the_mood_or_the_limit() {
        assert_eq!(Vocabulary::parse("calm,,joy"), Err(BadVocabulary::Name(String::new())));
        assert_eq!(Vocabulary::parse("Calm"), Err(BadVocabulary::Name("Calm".into())));
        assert_eq!(Vocabulary::parse("a,b,a"), Err(BadVocabulary::Twice("a".into())));
        let many: Vec<String> = (0..65).map(|n| format!("m{n}")).collect();
        assert_eq!(Vocabulary::parse(&many.join(",")), Err(BadVocabulary::TooMany(65)));
    }

    #[test]
    fn named_counts_omit_zeros_and_keep_the_order_of_the_vocabulary() {
        let vocabulary = Vocabulary::parse("calm, joy, hope").unwrap();
        let mut counts = vocabulary.zero();
        for mood in ["hope", "calm", "hope", "joy"] {
            counts.add(vocabulary.find(mood).unwrap());
        }
        counts.remove(vocabulary.find("joy").unwrap());
        let json = serde_json::to_string(&vocabulary.named(&counts)).unwrap();
        assert_eq!(json, r#"{"calm":1,"hope":2}"#);
    }
}
