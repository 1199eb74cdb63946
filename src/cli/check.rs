//! `check`: compares the rollups with a recount of the events, and the months with those of another hub.
//!
//! It only reads. A hub of the same version may run meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use clap::Args;
use serde::Deserialize;

use super::other_hub::OtherHub;
use super::output::print;
use super::{CommandError, Outcome};
use crate::auth::Secret;
use crate::history::calendar::Month;
use crate::history::record_sum::RecordSum;
use crate::history::store::CheckFirst;
use crate::history::store::month_sums::MonthSum;
use crate::history::{self, Store};

/// The settings of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckSettings {
    /// The SQLite file
    #[arg(long, env, value_name = "URL", default_value = history::DATABASE_URL)]
    pub database_url: String,
    /// Another node, such as `http://node-a:8080`, whose months should have the same records
    #[arg(long, value_name = "URL")]
    pub with: Option<String>,
    /// The admin token of that node
    #[arg(long, env, value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<Secret>,
}

/// Recounts the history and prints each difference and a summary; then compares the months with another hub, if one is
/// named.
/// Errors: the database is missing, needs a migration, or cannot be read, or the other hub does not answer.
pub(crate) async fn check(settings: CheckSettings) -> Result<Outcome, CommandError> {
    let other = match (settings.with, settings.admin_token) {
        (None, _) => None,
        (Some(url), Some(token)) => Some(OtherHub::new(&url, token)?),
        (Some(_), None) => return Err(CommandError::NoAdminToken),
    };
    let store = Store::open_read_only(&settings.database_url, CheckFirst::Always).await?;
    let recount = store.recount().await?;
    let own = store.month_sums().await?;
    store.close().await?;
    for difference in &recount.differences {
        print(difference);
    }
    for month in &recount.archived {
        print(format_args!("{month} is in an archive and was not recounted"));
    }
    for month in &recount.unsettled {
        print(format_args!("{month} waits for maintenance to rebuild its lists, which were not compared"));
    }
    for month in &recount.unsummed {
        print(format_args!("{month} waits for maintenance to sum up its records, which were not compared"));
    }
    let (rows, rollups) = (recount.rows, recount.rollups);
    match recount.differences.len() {
        0 => print(format_args!("{rows} events agree with {rollups} rollups")),
        n => print(format_args!("{rows} events, {rollups} rollups: {n} differences")),
    }
    let agrees = match other {
        Some(other) => compare(&own, &other).await?,
        None => true,
    };
    Ok(if agrees && recount.differences.is_empty() { Outcome::Success } else { Outcome::Problems })
}

/// The part of an answer to `GET /replica` that is compared.
#[derive(Debug, Deserialize)]
struct OtherMonths {
    months: Vec<OtherMonth>,
}

#[derive(Debug, Deserialize)]
struct OtherMonth {
    month: String,
    sum: Option<RecordSum>,
}

/// Compares the months with those of another hub, and prints each one that is not equal. Returns whether none differs.
async fn compare(own: &[MonthSum], other: &OtherHub) -> Result<bool, CommandError> {
    let OtherMonths { months } = other.json("/replica").await?;
    let months = months
        .into_iter()
        .filter_map(|OtherMonth { month, sum }| Some(MonthSum { month: month.parse().ok()?, sum }));
    let (mut equal, mut differences) = (0, 0);
    for (month, comparison) in comparisons(own, &months.collect::<Vec<_>>()) {
        match comparison {
            Comparison::Equal => equal += 1,
            Comparison::Different(..) => {
                differences += 1;
                print(format_args!("{month} differs: {comparison}"));
            }
            Comparison::Unknown => {
                print(format_args!(
                    "{month} waits for maintenance on one of the nodes, and was not compared"
                ));
            }
        }
    }
    let url = other.url();
    match differences {
        0 => print(format_args!("{equal} months are equal to those of {url}")),
        n => print(format_args!("{equal} months are equal to those of {url}: {n} differences")),
    }
    Ok(differences == 0)
}

/// How a month compares on two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    /// The sum here, and the one there.
    Different(RecordSum, RecordSum),
    /// One of the nodes does not know its sum.
    Unknown,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal => f.write_str("equal"),
            Self::Different(own, other) => write!(f, "its records sum up to {own} here and to {other} there"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// Compares all months that one of the nodes has. A month that a node does not have has no records there.
fn comparisons(own: &[MonthSum], other: &[MonthSum]) -> BTreeMap<Month, Comparison> {
    let by_month = |sums: &[MonthSum]| -> BTreeMap<Month, Option<RecordSum>> {
        sums.iter().map(|month| (month.month, month.sum)).collect()
    };
    let (own, other) = (by_month(own), by_month(other));
    let sum = |sums: &BTreeMap<Month, Option<RecordSum>>, month: &Month| {
        sums.get(month).copied().unwrap_or(Some(RecordSum::default()))
    };
    let months: BTreeSet<Month> = own.keys().chain(other.keys()).copied().collect();
    let compared = months.into_iter().map(|month| match (sum(&own, &month), sum(&other, &month)) {
        (Some(own), Some(other)) if own == other => (month, Comparison::Equal),
        (Some(own), Some(other)) => (month, Comparison::Different(own, other)),
        _ => (month, Comparison::Unknown),
    });
    compared.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_compare_by_their_sums_and_a_missing_month_has_no_records() {
        let sum = |digit: &str| -> RecordSum { digit.repeat(32).parse().unwrap() };
        let sums = |sums: &[(&str, Option<RecordSum>)]| -> Vec<MonthSum> {
            sums.iter().map(|(month, sum)| MonthSum { month: month.parse().unwrap(), sum: *sum }).collect()
        };
        let own = sums(&[
            ("2026-01", Some(sum("1"))),
            ("2026-02", Some(sum("2"))),
            ("2026-03", None),
            ("2026-04", Some(sum("0"))),
        ]);
        let other = sums(&[
            ("2026-01", Some(sum("1"))),
            ("2026-02", Some(sum("3"))),
            ("2026-03", Some(sum("4"))),
            ("2026-05", Some(sum("5"))),
        ]);
        let found: Vec<(String, Comparison)> =
            comparisons(&own, &other).into_iter().map(|(month, how)| (month.to_string(), how)).collect();
        let expected = [
            ("2026-01", Comparison::Equal),
            ("2026-02", Comparison::Different(sum("2"), sum("3"))),
            ("2026-03", Comparison::Unknown),
            ("2026-04", Comparison::Equal),
            ("2026-05", Comparison::Different(sum("0"), sum("5"))),
        ];
        assert_eq!(found, expected.map(|(month, how)| (month.to_owned(), how)));
    }
}
