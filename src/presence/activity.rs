//! The activity index: the pages that visitors are on and the contents that they watch, now.
//!
//! Each session has a [`VisitorActivity`], and its destructor removes its entries. Visitors are counted, not sessions:
//! two tabs on one page are one. Texts are stored in the order of the list, so that a list costs O(entries), whatever
//! the number of texts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use uuid::Uuid;

use crate::protocol::VisitorId;
use crate::sync::lock;

/// The most entries of a list.
pub(super) const LIST_LIMIT: usize = 100;

/// Memory that a text with one visitor takes besides the text itself: its entries in the map and in the order, and the
/// map of its visitors.
const ENTRY_BYTES: usize = 512;

/// A page or a content, and its number of visitors.
pub(super) type RankedText = (Arc<str>, usize);

/// The pages and contents of all visitors.
#[derive(Debug, Default)]
pub(crate) struct ActivityIndex(
    /// Held for O(log n) changes, and for [`LIST_LIMIT`] entries of a list.
    Mutex<Rankings>,
);

#[derive(Debug, Default)]
struct Rankings {
    pages: Ranking,
    watched: Ranking,
}

/// Distinct visitors by text, in the order of their number.
#[derive(Debug, Default)]
struct Ranking {
    /// The visitors of each text, with their sessions on it.
    visitors: BTreeMap<Arc<str>, HashMap<VisitorId, u32>>,
    /// The same texts, those with the most visitors first, and then by text.
    order: BTreeSet<(Reverse<usize>, Arc<str>)>,
}

impl Ranking {
    /// Adds a session. Returns the text that all sessions on it share.
    fn add(&mut self, text: &Arc<str>, visitor: &VisitorId) -> Arc<str> {
        let entry = self.visitors.entry(Arc::clone(text));
        let text = Arc::clone(entry.key());
        let visitors = entry.or_default();
        let before = visitors.len();
        *visitors.entry(visitor.clone()).or_default() += 1;
        let after = visitors.len();
        self.reorder(&text, before, after);
        text
    }

    fn remove(&mut self, text: &Arc<str>, visitor: &VisitorId) {
        let Some(visitors) = self.visitors.get_mut(text) else { return };
        let before = visitors.len();
        if let Some(sessions) = visitors.get_mut(visitor) {
            *sessions -= 1;
            if *sessions == 0 {
                visitors.remove(visitor);
            }
        }
        let after = visitors.len();
        if after == 0 {
            self.visitors.remove(text);
        }
        self.reorder(text, before, after);
    }

    fn reorder(&mut self, text: &Arc<str>, before: usize, after: usize) {
        if before != after {
            self.order.remove(&(Reverse(before), Arc::clone(text)));
            if after > 0 {
                self.order.insert((Reverse(after), Arc::clone(text)));
            }
        }
    }

    fn top(&self) -> Vec<RankedText> {
        let first = self.order.iter().take(LIST_LIMIT);
        first.map(|(Reverse(count), text)| (Arc::clone(text), *count)).collect()
    }
}

impl ActivityIndex {
    /// The pages with the most visitors, at most [`LIST_LIMIT`].
    pub(super) fn top_pages(&self) -> Vec<RankedText> {
        lock(&self.0).pages.top()
    }

    /// The contents with the most visitors, at most [`LIST_LIMIT`].
    pub(super) fn top_watched(&self) -> Vec<RankedText> {
        lock(&self.0).watched.top()
    }
}

/// The activity of one session: its last page, and the contents that it plays.
#[derive(Debug)]
pub(crate) struct VisitorActivity {
    index: Arc<ActivityIndex>,
    visitor: VisitorId,
    page: Option<Arc<str>>,
    playing: Vec<(Uuid, Arc<str>)>,
}

impl VisitorActivity {
    pub(super) fn new(index: Arc<ActivityIndex>, visitor: VisitorId) -> Self {
        Self { index, visitor, page: None, playing: Vec::new() }
    }

    /// The most bytes that a text takes in the index.
    pub(crate) fn entry_bytes(text: &str) -> usize {
        ENTRY_BYTES + text.len()
    }

    /// Sets the session's page.
    pub(crate) fn set_page(&mut self, path: &Arc<str>) {
        self.clear_page();
        self.page = Some(lock(&self.index.0).pages.add(path, &self.visitor));
    }

    /// Removes the session's page.
    pub(crate) fn clear_page(&mut self) {
        if let Some(old) = self.page.take() {
            lock(&self.index.0).pages.remove(&old, &self.visitor);
        }
    }

    /// Adds `content` as played by this watch session.
    pub(crate) fn start_watching(&mut self, id: Uuid, content: &Arc<str>) {
        self.stop_watching(id);
        let content = lock(&self.index.0).watched.add(content, &self.visitor);
        self.playing.push((id, content));
    }

    /// Removes the content of this watch session.
    pub(crate) fn stop_watching(&mut self, id: Uuid) {
        if let Some(index) = self.playing.iter().position(|(playing, _)| *playing == id) {
            let (_, content) = self.playing.swap_remove(index);
            lock(&self.index.0).watched.remove(&content, &self.visitor);
        }
    }
}

impl Drop for VisitorActivity {
    fn drop(&mut self) {
        let mut rankings = lock(&self.index.0);
        if let Some(page) = &self.page {
            rankings.pages.remove(page, &self.visitor);
        }
        for (_, content) in &self.playing {
            rankings.watched.remove(content, &self.visitor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(index: &Arc<ActivityIndex>, visitor: &str) -> VisitorActivity {
        VisitorActivity::new(Arc::clone(index), VisitorId::try_from(visitor).unwrap())
    }

    #[test]
    fn visitors_are_counted_once_and_removed_with_their_sessions() {
        let index = Arc::new(ActivityIndex::default());
        let pages = || index.top_pages();
        let (mut tab_1, mut tab_2) = (session(&index, "ann"), session(&index, "ann"));
        let mut other = session(&index, "bob");
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
        assert_eq!(index.top_watched(), [("film".into(), 1)]);
        drop((tab_1, tab_2, other));
        let Rankings { pages, watched } = &*lock(&index.0);
        assert!(pages.visitors.is_empty() && watched.visitors.is_empty());
        assert!(pages.order.is_empty() && watched.order.is_empty());
    }

    #[test]
    fn list_has_the_texts_with_the_most_visitors_up_to_its_limit() {
        let index = Arc::new(ActivityIndex::default());
        let mut sessions = Vec::new();
        for page in 0..2 * LIST_LIMIT {
            for visitor in 0..=page % 3 {
                let mut session = session(&index, &format!("v{page}-{visitor}"));
                session.set_page(&format!("/{page:03}").into());
                sessions.push(session);
            }
        }
        let pages = index.top_pages();
        assert_eq!(
            (pages.len(), &pages[0], &pages[66]),
            (LIST_LIMIT, &("/002".into(), 3), &("/001".into(), 2))
        );
        assert!(pages.is_sorted_by_key(|(path, count)| (Reverse(*count), path.clone())));
    }

    #[test]
    fn sessions_on_one_page_share_its_text() {
        let index = Arc::new(ActivityIndex::default());
        let (mut ann, mut bob) = (session(&index, "ann"), session(&index, "bob"));
        ann.set_page(&"/a".into());
        bob.set_page(&"/a".into());
        assert!(Arc::ptr_eq(ann.page.as_ref().unwrap(), bob.page.as_ref().unwrap()));
    }
}
