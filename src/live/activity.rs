//! Live activity: what people look at and watch right now, and the summary over all rooms.
//!
//! Each session holds an [`Attention`], whose destructor takes its part back. People are
//! counted, not sessions: two tabs on one page are one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::hub::Totals;
use super::room::Room;
use crate::sync::lock;
use crate::wire::mood::NamedMoods;
use crate::wire::{MoodCounts, RoomId, Time, VisitorId, Vocabulary};

/// The most rooms, pages and contents that a summary lists.
const LIST_LIMIT: usize = 100;

/// What everybody looks at and watches.
#[derive(Debug, Default)]
pub struct Activity(
    /// O(1) steps, and one pass for a summary.
    Mutex<Tallies>,
);

#[derive(Debug, Default)]
struct Tallies {
    pages: Tally,
    watching: Tally,
}

/// Distinct visitors by what they attend to, each with the number of sessions that do.
#[derive(Debug, Default)]
struct Tally(HashMap<Arc<str>, HashMap<VisitorId, u32>>);

impl Tally {
    fn add(&mut self, what: &Arc<str>, visitor: &VisitorId) {
        *self.0.entry(Arc::clone(what)).or_default().entry(visitor.clone()).or_default() += 1;
    }

    fn remove(&mut self, what: &Arc<str>, visitor: &VisitorId) {
        let Some(visitors) = self.0.get_mut(what) else { return };
        if let Some(sessions) = visitors.get_mut(visitor) {
            *sessions -= 1;
            if *sessions == 0 {
                visitors.remove(visitor);
            }
        }
        if visitors.is_empty() {
            self.0.remove(what);
        }
    }

    fn top(&self) -> Vec<(Arc<str>, usize)> {
        let counted = self.0.iter().map(|(what, visitors)| (Arc::clone(what), visitors.len()));
        top(counted.collect(), |(what, count)| (*count, Arc::clone(what)))
    }
}

/// The largest first, ties by name, and not more than [`LIST_LIMIT`].
fn top<T, N: Ord>(mut all: Vec<T>, size_and_name: impl Fn(&T) -> (usize, N)) -> Vec<T> {
    all.sort_by(|a, b| {
        let (a, b) = (size_and_name(a), size_and_name(b));
        b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1))
    });
    all.truncate(LIST_LIMIT);
    all
}

impl Activity {
    /// What is going on in `rooms` and in front of people's eyes.
    pub(super) fn summary(
        &self,
        vocabulary: &Vocabulary,
        totals: Totals,
        rooms: &[Arc<Room>],
    ) -> LiveActivity {
        let mut moods = vocabulary.zero();
        let mut listed = Vec::with_capacity(rooms.len());
        for room in rooms {
            let counts = room.counts();
            moods.merge(&counts.moods);
            listed.push((room.id().clone(), counts.present, counts.moods));
        }
        let listed =
            top(listed, |(room, present, _)| (usize::try_from(*present).unwrap_or(usize::MAX), room.clone()));
        let tallies = lock(&self.0);
        LiveActivity {
            vocabulary: vocabulary.clone(),
            totals,
            rooms: listed,
            moods,
            watching: tallies.watching.top(),
            pages: tallies.pages.top(),
        }
    }
}

/// A summary of everything live, as `GET /live-activity` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveActivity {
    vocabulary: Vocabulary,
    totals: Totals,
    rooms: Vec<(RoomId, u32, MoodCounts)>,
    moods: MoodCounts,
    watching: Vec<(Arc<str>, usize)>,
    pages: Vec<(Arc<str>, usize)>,
}

impl LiveActivity {
    /// The summary as a message; `kind` is its `type` on a socket.
    #[must_use]
    pub fn message(&self, kind: Option<Kind>, timestamp: Time) -> Summary<'_> {
        let named = |counts| self.vocabulary.named(counts);
        let rooms = self.rooms.iter();
        let (watching, pages) = (self.watching.iter(), self.pages.iter());
        Summary {
            kind,
            live_users: self.totals.visitors,
            sessions: self.totals.sessions,
            rooms: rooms
                .map(|(room, present, moods)| InRoom { room, present: *present, moods: named(moods) })
                .collect(),
            moods: named(&self.moods),
            watching: watching.map(|(content, count)| Watching { content, count: *count }).collect(),
            pages: pages.map(|(path, count)| OnPage { path, count: *count }).collect(),
            timestamp,
        }
    }
}

/// What is going on, over all rooms.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary<'a> {
    /// Only on a socket.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Kind, required = false)]
    kind: Option<Kind>,
    /// Distinct visitors over all rooms.
    live_users: usize,
    /// Open room sockets of people.
    sessions: usize,
    /// The largest first, at most 100 of them; so are the lists below.
    rooms: Vec<InRoom<'a>>,
    /// People by mood, over all rooms.
    moods: NamedMoods<'a>,
    /// What people watch now.
    watching: Vec<Watching<'a>>,
    /// The pages that people are on.
    pages: Vec<OnPage<'a>>,
    /// The hub's wall clock.
    timestamp: Time,
}

/// The `type` of a summary on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The only one there is.
    LiveActivity,
}

/// How many are in a room.
#[derive(Debug, Serialize, ToSchema)]
struct InRoom<'a> {
    room: &'a RoomId,
    present: u32,
    moods: NamedMoods<'a>,
}

/// How many watch something.
#[derive(Debug, Serialize, ToSchema)]
struct Watching<'a> {
    content: &'a str,
    count: usize,
}

/// How many are on a page.
#[derive(Debug, Serialize, ToSchema)]
struct OnPage<'a> {
    path: &'a str,
    count: usize,
}

/// What one session attends to: the page it saw last and what it plays.
#[derive(Debug)]
pub struct Attention {
    activity: Arc<Activity>,
    visitor: VisitorId,
    page: Option<Arc<str>>,
    playing: Vec<(Uuid, Arc<str>)>,
}

impl Attention {
    pub(super) fn new(activity: Arc<Activity>, visitor: VisitorId) -> Self {
        Self { activity, visitor, page: None, playing: Vec::new() }
    }

    /// The session is on this page now.
    pub fn look_at(&mut self, path: Arc<str>) {
        let mut tallies = lock(&self.activity.0);
        if let Some(old) = self.page.take() {
            tallies.pages.remove(&old, &self.visitor);
        }
        tallies.pages.add(&path, &self.visitor);
        self.page = Some(path);
    }

    /// The session plays `content` under this watch session.
    pub fn play(&mut self, id: Uuid, content: Arc<str>) {
        self.stop(id);
        lock(&self.activity.0).watching.add(&content, &self.visitor);
        self.playing.push((id, content));
    }

    /// The session no longer plays this watch session.
    pub fn stop(&mut self, id: Uuid) {
        if let Some(index) = self.playing.iter().position(|(playing, _)| *playing == id) {
            let (_, content) = self.playing.swap_remove(index);
            lock(&self.activity.0).watching.remove(&content, &self.visitor);
        }
    }
}

impl Drop for Attention {
    fn drop(&mut self) {
        let mut tallies = lock(&self.activity.0);
        if let Some(page) = &self.page {
            tallies.pages.remove(page, &self.visitor);
        }
        for (_, content) in &self.playing {
            tallies.watching.remove(content, &self.visitor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_counted_once_and_leave_nothing_behind() {
        let activity = Arc::new(Activity::default());
        let who = |name: &str| Attention::new(Arc::clone(&activity), VisitorId::try_from(name).unwrap());
        let pages = || lock(&activity.0).pages.top();
        let (mut tab_1, mut tab_2, mut other) = (who("ann"), who("ann"), who("bob"));
        tab_1.look_at("/a".into());
        tab_2.look_at("/a".into());
        other.look_at("/b".into());
        assert_eq!(pages(), [("/a".into(), 1), ("/b".into(), 1)]);
        other.look_at("/a".into());
        tab_1.look_at("/c".into());
        assert_eq!(pages(), [("/a".into(), 2), ("/c".into(), 1)]);

        let film = Uuid::new_v4();
        other.play(film, "film".into());
        other.play(film, "film".into());
        assert_eq!(lock(&activity.0).watching.top(), [("film".into(), 1)]);
        drop((tab_1, tab_2, other));
        assert!(lock(&activity.0).pages.0.is_empty() && lock(&activity.0).watching.0.is_empty());
    }
}
