//! The dictionary: each text is stored once, and rows refer to it by id.
//!
//! Nothing is cached between transactions, so that a rollback needs no cleanup and another process may add texts.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::SqliteConnection;

use super::codec::json;
use super::{dimensions, used_texts};
use crate::history::event::Batch;
use crate::history::normalize::referrer_host;
use crate::history::rollup::{ALL_ROOMS, DictionaryId, DictionaryIds, DimensionRules};
use crate::history::scope::Scope;

/// A dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::history) enum Dictionary {
    /// Rooms, paths, titles and other texts.
    Texts,
    /// Visitor ids.
    Visitors,
}

impl Dictionary {
    fn find(self) -> &'static str {
        match self {
            Self::Texts => {
                "SELECT json_group_array(coalesce(
                     (SELECT texts.number FROM text_hashes AS found JOIN texts ON texts.number = found.number
                      WHERE found.hash = value ->> 0 AND text = value ->> 1),
                     (SELECT texts.number FROM new_text_hashes AS found JOIN texts ON texts.number = found.number
                      WHERE found.hash = value ->> 0 AND text = value ->> 1),
                     0))
                 FROM json_each(?1)"
            }
            Self::Visitors => {
                "SELECT json_group_array(ifnull((SELECT number FROM visitors
                                                 WHERE hash = value ->> 0
                                                   AND ifnull(text, 'erased-' || hash) = value ->> 1), 0))
                 FROM json_each(?1)"
            }
        }
    }

    /// The statements that add texts: `?1` has their hashes and texts, `?2` is the first number.
    fn add(self) -> &'static [&'static str] {
        match self {
            Self::Texts => &[
                "INSERT INTO texts (number, hash, text)
                 SELECT ?2 + key, value ->> 0, value ->> 1 FROM json_each(?1)",
                "INSERT INTO new_text_hashes (hash, number) SELECT value ->> 0, ?2 + key FROM json_each(?1)",
            ],
            Self::Visitors => &["INSERT INTO visitors (number, hash, text)
                 SELECT ?2 + key, value ->> 0, value ->> 1 FROM json_each(?1)"],
        }
    }

    /// Moves the hashes of all new texts to the large table, in its order: each of its pages changes once in a run.
    fn end_run(self) -> &'static [&'static str] {
        match self {
            Self::Texts => &[
                "INSERT INTO text_hashes SELECT hash, number FROM new_text_hashes ORDER BY hash, number",
                "DELETE FROM new_text_hashes",
            ],
            Self::Visitors => &[],
        }
    }

    fn next(self) -> &'static str {
        match self {
            Self::Texts => "SELECT ifnull(max(number), 0) + 1 FROM texts",
            Self::Visitors => "SELECT ifnull(max(number), 0) + 1 FROM visitors",
        }
    }
}

/// New texts whose hashes move to the large table at once. With a million distinct paths a commit then takes 0.88 of the CPU.
/// Few in tests, so that there are many runs.
const RUN: u64 = if cfg!(test) { 4 } else { 65_536 };

/// A text and its hash, by which it is found.
#[derive(Debug, Serialize)]
struct Hashed<'a>(i64, &'a str);

impl<'a> Hashed<'a> {
    /// An erasure hides a visitor's entry: it has no text, and a random number in place of the hash. Until its rows are
    /// gone, they are of a visitor with the name `erased-` and this number.
    fn new(dictionary: Dictionary, text: &'a str) -> Self {
        let hidden = text.strip_prefix("erased-").and_then(|hash| hash.parse().ok());
        if let (Dictionary::Visitors, Some(hash)) = (dictionary, hidden) {
            return Self(hash, text);
        }
        let digest = Sha256::digest(text.as_bytes());
        let first = digest.first_chunk().copied().unwrap_or_default();
        Self(i64::from_be_bytes(first), text)
    }
}

/// The texts of a batch.
#[derive(Debug, Default)]
struct Texts<'a> {
    shared: HashSet<&'a str>,
    visitors: HashSet<&'a str>,
    hosts: HashMap<&'a str, String>,
    /// Values of properties with rollups.
    values: HashSet<String>,
}

impl<'a> Texts<'a> {
    fn of(batches: &[&'a Batch], rules: &DimensionRules) -> Self {
        let mut all = Self::default();
        for batch in batches {
            all.add(batch, rules);
        }
        all
    }

    fn add(&mut self, batch: &'a Batch, rules: &DimensionRules) {
        for view in &batch.page_views {
            self.visitors.insert(view.actor.visitor.as_str());
            self.shared.extend([view.actor.room.as_str(), view.path.as_str()]);
            self.shared.extend(view.title.as_ref().map(crate::protocol::value::BoundedText::as_str));
            if let Some(referrer) = view.referrer.as_ref().map(crate::protocol::value::BoundedText::as_str) {
                self.shared.insert(referrer);
                if !self.hosts.contains_key(referrer)
                    && let Some(host) = referrer_host(referrer)
                {
                    self.hosts.insert(referrer, host);
                }
            }
            self.values.extend(rules.values(view).map(|(_, value)| value));
        }
        for watch in &batch.watches {
            self.visitors.insert(watch.actor.visitor.as_str());
            self.shared.extend([watch.actor.room.as_str(), watch.content.as_str()]);
        }
        self.shared.extend(
            batch
                .samples
                .iter()
                .flat_map(|total| total.rooms.keys())
                .map(crate::protocol::ids::RoomId::as_str),
        );
    }
}

/// Returns the dictionary ids of all texts of the events, and adds missing texts.
pub(super) async fn intern(
    connection: &mut SqliteConnection,
    batches: &[&Batch],
) -> Result<DictionaryIds, sqlx::Error> {
    ids_of_batches(connection, batches, true).await
}

/// Returns the dictionary ids of all texts of the events that have one.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    batches: &[&Batch],
) -> Result<DictionaryIds, sqlx::Error> {
    ids_of_batches(connection, batches, false).await
}

async fn ids_of_batches(
    connection: &mut SqliteConnection,
    batches: &[&Batch],
    may_add: bool,
) -> Result<DictionaryIds, sqlx::Error> {
    let rules = dimensions::rules(connection).await?;
    let Texts { shared: mut texts, visitors, hosts, values } = Texts::of(batches, &rules);
    texts.extend(hosts.values().map(String::as_str));
    texts.extend(values.iter().map(String::as_str));
    let texts = resolve(connection, Dictionary::Texts, texts, may_add).await?;
    if may_add {
        used_texts::record(connection, texts.values().copied()).await?;
    }
    let visitors = resolve(connection, Dictionary::Visitors, visitors, may_add).await?;
    let host = |(referrer, host): (&str, String)| Some((referrer.into(), *texts.get(host.as_str())?));
    let hosts = hosts.into_iter().filter_map(host).collect();
    Ok(DictionaryIds { texts, visitors, hosts, rules })
}

async fn resolve(
    connection: &mut SqliteConnection,
    dictionary: Dictionary,
    texts: HashSet<&str>,
    may_add: bool,
) -> Result<HashMap<Box<str>, DictionaryId>, sqlx::Error> {
    let mut all: Vec<Hashed> = texts.into_iter().map(|text| Hashed::new(dictionary, text)).collect();
    // In the order of the hashes, so that each page of their table is read once.
    all.sort_unstable_by_key(|text| text.0);
    let mut ids = look_up(connection, dictionary, &all).await?;
    let new: Vec<Hashed> = all.into_iter().filter(|text| !ids.contains_key(text.1)).collect();
    if may_add && !new.is_empty() {
        let next: DictionaryId = sqlx::query_scalar(dictionary.next()).fetch_one(&mut *connection).await?;
        let (texts, end) = (json(&new)?, u64::from(next) + new.len() as u64);
        for add in dictionary.add() {
            sqlx::query(*add).bind(&texts).bind(next).execute(&mut *connection).await?;
        }
        if u64::from(next) / RUN != end / RUN {
            for statement in dictionary.end_run() {
                sqlx::query(*statement).execute(&mut *connection).await?;
            }
        }
        ids.extend((next..).zip(&new).map(|(id, text)| (text.1.into(), id)));
    }
    Ok(ids)
}

async fn look_up(
    connection: &mut SqliteConnection,
    dictionary: Dictionary,
    texts: &[Hashed<'_>],
) -> Result<HashMap<Box<str>, DictionaryId>, sqlx::Error> {
    if texts.is_empty() {
        return Ok(HashMap::new());
    }
    let found: String =
        sqlx::query_scalar(dictionary.find()).bind(json(texts)?).fetch_one(connection).await?;
    let found: Vec<DictionaryId> =
        serde_json::from_str(&found).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let known = texts.iter().zip(found).filter(|(_, id)| *id > 0);
    Ok(known.map(|(text, id)| (text.1.into(), id)).collect())
}

/// Overwrites those of these texts that no commit has recorded as used. Returns how many.
pub(super) async fn overwrite_unused(
    connection: &mut SqliteConnection,
    texts: &[DictionaryId],
) -> Result<u64, sqlx::Error> {
    const UNUSED: &str = "
        SELECT json_group_array(number) FROM texts
        WHERE number IN (SELECT value FROM json_each(?1))
          AND NOT EXISTS (SELECT 1 FROM used_texts WHERE used_texts.number = texts.number)";
    const FORGET: [&str; 2] = [
        "DELETE FROM text_hashes WHERE (hash, number) IN
             (SELECT hash, number FROM texts WHERE number IN (SELECT value FROM json_each(?1)))",
        "DELETE FROM new_text_hashes WHERE (hash, number) IN
             (SELECT hash, number FROM texts WHERE number IN (SELECT value FROM json_each(?1)))",
    ];
    const OVERWRITE: &str =
        "UPDATE texts SET hash = NULL, text = NULL WHERE number IN (SELECT value FROM json_each(?1))";
    let unused: String = sqlx::query_scalar(UNUSED).bind(json(texts)?).fetch_one(&mut *connection).await?;
    for forget in FORGET {
        sqlx::query(forget).bind(&unused).execute(&mut *connection).await?;
    }
    Ok(sqlx::query(OVERWRITE).bind(&unused).execute(connection).await?.rows_affected())
}

/// Returns the id of a text.
pub(in crate::history) async fn id(
    connection: &mut SqliteConnection,
    dictionary: Dictionary,
    text: &str,
) -> Result<Option<DictionaryId>, sqlx::Error> {
    let found = look_up(connection, dictionary, &[Hashed::new(dictionary, text)]).await?;
    Ok(found.get(text).copied())
}

/// The scope of a query in the database: the key of its rollups. Only [`scope`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::history) struct ScopeId(DictionaryId);

impl ScopeId {
    /// The room's dictionary id, or that of all rooms.
    pub(in crate::history) fn id(self) -> DictionaryId {
        self.0
    }
}

/// Finds a scope. A room that is in no event has none, and no figures.
pub(in crate::history) async fn scope(
    connection: &mut SqliteConnection,
    scope: &Scope,
) -> Result<Option<ScopeId>, sqlx::Error> {
    let id = match scope {
        Scope::Hub => Some(ALL_ROOMS),
        Scope::Room(room) => id(connection, Dictionary::Texts, room.as_str()).await?,
    };
    Ok(id.map(ScopeId))
}

/// Returns the ids of those texts that have one.
pub(in crate::history) async fn ids(
    connection: &mut SqliteConnection,
    dictionary: Dictionary,
    texts: &[String],
) -> Result<Vec<DictionaryId>, sqlx::Error> {
    let texts: Vec<Hashed> = texts.iter().map(|text| Hashed::new(dictionary, text)).collect();
    Ok(look_up(connection, dictionary, &texts).await?.into_values().collect())
}

/// Returns the text of an id.
pub(in crate::history) async fn text(
    connection: &mut SqliteConnection,
    id: DictionaryId,
) -> Result<Option<String>, sqlx::Error> {
    let text = sqlx::query_scalar("SELECT text FROM texts WHERE number = ?1").bind(id);
    Ok(text.fetch_optional(connection).await?.flatten())
}

/// The lookup statement, for the test of query plans.
#[cfg(test)]
pub(in crate::history) fn find_statement(dictionary: Dictionary) -> &'static str {
    dictionary.find()
}
