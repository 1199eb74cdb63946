//! Who is in a room, asked of each node: shares have keyed hashes of visitors and no ids.
//!
//! A question and its answer are JSON, and sealed: only the node that has the visitors knows their ids, and only nodes
//! with the admin token can ask for them.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::Cluster;
use super::sealed::{Questions, Refused};
use super::status::NodeState;
use crate::presence::Registry;
use crate::protocol::frame::to_json;
use crate::protocol::{RoomId, Time, VisitorId};

/// How long a node may take to answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The most visitors of an answer.
pub(crate) const MOST: usize = 1_000;

/// A page of the visitors of a room.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Question {
    /// The room.
    pub room: RoomId,
    /// The last visitor of the page before.
    pub after: Option<VisitorId>,
    /// The most visitors, at most [`MOST`].
    pub limit: usize,
}

/// A visitor in a room of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoomVisitor {
    /// The visitor.
    pub visitor: VisitorId,
    /// The mood that was set on this node, by its name.
    pub mood: Option<String>,
    /// When the visitor entered the room on this node.
    pub since: Time,
    /// Why the visitor counts without a socket; none with a socket.
    pub held: Option<String>,
}

/// Visitors of all nodes that answered, by visitor and node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundVisitors {
    /// Each visitor with the node. A visitor on two nodes is here twice.
    pub visitors: Vec<(String, RoomVisitor)>,
    /// Whether there are more after these.
    pub has_more: bool,
    /// The nodes that did not answer.
    pub missing: Vec<String>,
}

/// Answers the question of another node, from memory. A question that a later version asks in another form has no answer.
/// Errors: the question is not of a node with the key, or of another time.
pub(crate) fn answer(
    registry: &Registry,
    questions: &mut Questions,
    asked: &[u8],
    (now, wall): (u64, Time),
) -> Result<Option<Bytes>, Refused> {
    let question = questions.open(asked, now, wall)?;
    let Ok(question) = serde_json::from_slice(&question) else { return Ok(None) };
    Ok(questions.seal_answer(asked, to_json(&own(registry, &question))))
}

/// The visitors of this node, by their ids.
pub(crate) fn own(registry: &Registry, Question { room, after, limit }: &Question) -> Vec<RoomVisitor> {
    let vocabulary = registry.vocabulary();
    let found = registry.visitors_of(room, after.as_ref(), (*limit).min(MOST)).into_iter();
    found
        .map(|(listed, since)| RoomVisitor {
            visitor: listed.visitor,
            mood: listed.mood.and_then(|mood| vocabulary.name(mood)).map(str::to_owned),
            since,
            held: listed.held.map(|reason| <&str>::from(reason).to_owned()),
        })
        .collect()
}

/// Asks all other nodes, and adds what this node knows. Takes at most a second.
pub(crate) async fn find(
    cluster: &Cluster,
    registry: &Registry,
    question: &Question,
    wall: Time,
) -> FoundVisitors {
    let (status, key) = (cluster.status(), cluster.sealing_key());
    let text = to_json(question);
    let others = status.nodes.iter().filter(|node| !node.is_self && node.state != NodeState::Left);
    let answers = others.map(async |node| {
        let visitors = async {
            let asked = key.seal_question(&node.name, wall, &text)?;
            let answer = cluster.transport().request(&node.name, asked.clone(), TIMEOUT).await.ok()?;
            serde_json::from_slice(&key.open_answer(&asked, &answer)?).ok()
        };
        (node.name.clone(), visitors.await)
    });
    let mut answers = join_all(answers).await;
    answers.push((status.node.clone(), Some(own(registry, question))));
    merge(answers, question.limit)
}

/// Merges the answers of nodes, of which each has its first visitors up to the limit.
pub(crate) fn merge(answers: Vec<(String, Option<Vec<RoomVisitor>>)>, limit: usize) -> FoundVisitors {
    let mut found = FoundVisitors::default();
    for (node, answer) in answers {
        match answer {
            Some(visitors) => found.visitors.extend(visitors.into_iter().map(|it| (node.clone(), it))),
            None => found.missing.push(node),
        }
    }
    found.missing.sort_unstable();
    found.visitors.sort_unstable_by(|(a, one), (b, two)| (&one.visitor, a).cmp(&(&two.visitor, b)));
    // Up to the limit of distinct visitors, so that no visitor is on two pages.
    let mut distinct = 0;
    let mut last = None;
    let end = found.visitors.iter().position(|(_, it)| {
        if last.replace(&it.visitor) != Some(&it.visitor) {
            distinct += 1;
        }
        distinct > limit
    });
    found.has_more = end.is_some() || distinct == limit;
    found.visitors.truncate(end.unwrap_or(usize::MAX));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visitors(names: &[&str]) -> Vec<RoomVisitor> {
        let visitor = |name: &&str| RoomVisitor {
            visitor: VisitorId::try_from(*name).unwrap(),
            mood: None,
            since: Time::from_millis(0),
            held: None,
        };
        names.iter().map(visitor).collect()
    }

    fn names(found: &FoundVisitors) -> Vec<String> {
        found.visitors.iter().map(|(node, it)| format!("{}@{node}", it.visitor)).collect()
    }

    #[test]
    fn visitors_of_nodes_are_merged_by_id_and_a_page_has_whole_visitors() {
        let answers = || {
            vec![
                ("z".to_owned(), Some(visitors(&["ann", "bob", "cid"]))),
                ("a".to_owned(), Some(visitors(&["ann", "dan"]))),
                ("m".to_owned(), None),
            ]
        };
        let found = merge(answers(), 10);
        assert_eq!(names(&found), ["ann@a", "ann@z", "bob@z", "cid@z", "dan@a"]);
        assert_eq!((found.has_more, found.missing), (false, vec!["m".to_owned()]));
        let page = merge(answers(), 1);
        assert_eq!((names(&page), page.has_more), (vec!["ann@a".to_owned(), "ann@z".to_owned()], true));
        assert_eq!(names(&merge(answers(), 3)), ["ann@a", "ann@z", "bob@z", "cid@z"]);
        assert!(merge(answers(), 4).has_more, "a node may have more than it was asked for");
        assert_eq!(merge(Vec::new(), 4), FoundVisitors::default());
    }
}
