//! Live activity: what people look at and watch right now.
//!
//! Each session holds an [`VisitorActivity`], whose destructor takes its part back. People are
//! counted, not sessions: two tabs on one page are one. Texts are kept in the order in which they are listed, so that
//! a list costs as much as it has entries, however many texts there are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use uuid::Uuid;

use crate::protocol::VisitorId;
use crate::sync::lock;

/// The most entries of a list.
pub(super) const LIST_LIMIT: usize = 100;

/// What a text takes besides itself that one visitor attends to: its place in the list and in the order, and the map of
/// its visitors.
const ENTRY_BYTES: usize = 512;

/// A text, and how many visitors attend to it.
pub(super) type Attended = (Arc<str>, usize);

/// What everybody looks at and watches.
#[derive(Debug, Default)]
pub(crate) struct ActivityIndex(
    /// O(log n) steps, and [`LIST_LIMIT`] entries for a list.
    Mutex<Tallies>,
);

#[derive(Debug, Default)]
struct Tallies {
    pages: Tally,
    watching: Tally,
}

/// Distinct visitors by what they attend to, each with the number of sessions that do.
#[derive(Debug, Default)]
struct Tally {
    visitors: BTreeMap<Arc<str>, HashMap<VisitorId, u32>>,
    /// The same texts, those with the most visitors first, and ties by name.
    ranking: BTreeSet<(Reverse<usize>, Arc<str>)>,
}

impl Tally {
    /// Adds a session. Returns the text as all share it who attend to it.
    fn add(&mut self, what: &Arc<str>, visitor: &VisitorId) -> Arc<str> {
        let entry = self.visitors.entry(Arc::clone(what));
        let what = Arc::clone(entry.key());
        let visitors = entry.or_default();
        let before = visitors.len();
        *visitors.entry(visitor.clone()).or_default() += 1;
        let after = visitors.len();
        self.rank(&what, before, after);
        what
    }

    fn remove(&mut self, what: &Arc<str>, visitor: &VisitorId) {
        let Some(visitors) = self.visitors.get_mut(what) else { return };
        let before = visitors.len();
        if let Some(sessions) = visitors.get_mut(visitor) {
            *sessions -= 1;
            if *sessions == 0 {
                visitors.remove(visitor);
            }
        }
        let after = visitors.len();
        if after == 0 {
            self.visitors.remove(what);
        }
        self.rank(what, before, after);
    }

    fn rank(&mut self, what: &Arc<str>, before: usize, after: usize) {
        if before != after {
            self.ranking.remove(&(Reverse(before), Arc::clone(what)));
            if after > 0 {
                self.ranking.insert((Reverse(after), Arc::clone(what)));
            }
        }
    }

    fn top(&self) -> Vec<Attended> {
        let first = self.ranking.iter().take(LIST_LIMIT);
        first.map(|(Reverse(count), what)| (Arc::clone(what), *count)).collect()
    }
}

impl ActivityIndex {
    /// The pages that most people are on, at most [`LIST_LIMIT`].
    pub(super) fn top_pages(&self) -> Vec<Attended> {
        lock(&self.0).pages.top()
    }

    /// What most people watch, at most [`LIST_LIMIT`].
    pub(super) fn top_watched(&self) -> Vec<Attended> {
        lock(&self.0).watching.top()
    }
}

/// What one session attends to: the page it saw last and what it plays.
#[derive(Debug)]
pub(crate) struct VisitorActivity {
    activity: Arc<ActivityIndex>,
    visitor: VisitorId,
    page: Option<Arc<str>>,
    playing: Vec<(Uuid, Arc<str>)>,
}

impl VisitorActivity {
    pub(super) fn new(activity: Arc<ActivityIndex>, visitor: VisitorId) -> Self {
        Self { activity, visitor, page: None, playing: Vec::new() }
    }

    /// How many bytes a text takes at most in the list, with its place there.
    #[must_use]
    pub(crate) fn entry_bytes(text: &str) -> usize {
        ENTRY_BYTES + text.len()
    }

    /// The session is on this page now.
    pub(crate) fn set_page(&mut self, path: &Arc<str>) {
        self.clear_page();
        let mut tallies = lock(&self.activity.0);
        self.page = Some(tallies.pages.add(path, &self.visitor));
    }

    /// The session is on no page that is known.
    pub(crate) fn clear_page(&mut self) {
        if let Some(old) = self.page.take() {
            lock(&self.activity.0).pages.remove(&old, &self.visitor);
        }
    }

    /// The session plays `content` under this watch session.
    pub(crate) fn start_watching(&mut self, id: Uuid, content: &Arc<str>) {
        self.stop_watching(id);
        let content = lock(&self.activity.0).watching.add(content, &self.visitor);
        self.playing.push((id, content));
    }

    /// The session no longer plays this watch session.
    pub(crate) fn stop_watching(&mut self, id: Uuid) {
        if let Some(index) = self.playing.iter().position(|(playing, _)| *playing == id) {
            let (_, content) = self.playing.swap_remove(index);
            lock(&self.activity.0).watching.remove(&content, &self.visitor);
        }
    }
}

impl Drop for VisitorActivity {
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

    fn come(activity: &Arc<ActivityIndex>, name: &str) -> VisitorActivity {
        VisitorActivity::new(Arc::clone(activity), VisitorId::try_from(name).unwrap())
    }

    #[test]
    fn people_are_counted_once_and_leave_nothing_behind() {
        let activity = Arc::new(ActivityIndex::default());
        let pages = || activity.top_pages();
        let (mut tab_1, mut tab_2) = (come(&activity, "ann"), come(&activity, "ann"));
        let mut other = come(&activity, "bob");
        tab_1.set_page(&"/a".into());
        tab_2.set_page(&"/a".into());
        other.set_page(&"/b".into());
        assert_eq!(pages(), [("/a".into(), 1), ("/b".into(), 1)]);
        other.set_page(&"/a".into());
        tab_1.set_page(&"/c".into());
        assert_eq!(pages(), [("/a".into(), 2), ("/c".into(), 1)]);

        let film = Uuid::new_v4();
        other.start_watching(film, &"film".into());
        other.start_watching(film, &"film".into());
        assert_eq!(activity.top_watched(), [("film".into(), 1)]);
        drop((tab_1, tab_2, other));
        let Tallies { pages, watching } = &*lock(&activity.0);
        assert!(pages.visitors.is_empty() && watching.visitors.is_empty());
        assert!(pages.ranking.is_empty() && watching.ranking.is_empty());
    }

    #[test]
    fn list_has_the_texts_with_the_most_visitors_and_no_more_than_its_limit() {
        let activity = Arc::new(ActivityIndex::default());
        let mut people = Vec::new();
        for page in 0..2 * LIST_LIMIT {
            for visitor in 0..=page % 3 {
                let mut attention = come(&activity, &format!("v{page}-{visitor}"));
                attention.set_page(&format!("/{page:03}").into());
                people.push(attention);
            }
        }
        let pages = activity.top_pages();
        assert_eq!(
            (pages.len(), &pages[0], &pages[66]),
            (LIST_LIMIT, &("/002".into(), 3), &("/001".into(), 2))
        );
        assert!(pages.is_sorted_by_key(|(path, count)| (Reverse(*count), path.clone())));
    }

    #[test]
    fn a_text_is_kept_once_for_all_who_attend_to_it() {
        let activity = Arc::new(ActivityIndex::default());
        let (mut ann, mut bob) = (come(&activity, "ann"), come(&activity, "bob"));
        ann.set_page(&"/a".into());
        bob.set_page(&"/a".into());
        assert!(Arc::ptr_eq(ann.page.as_ref().unwrap(), bob.page.as_ref().unwrap()));
    }
}
