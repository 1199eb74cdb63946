//! Records: events as JSON objects, one per line of an export or an archive.
//!
//! A record has all values of its row, so that a round trip keeps the event unchanged. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::event::{Actor, Batch, Event, NodeName, PageViewEvent, RoomSample, TotalSample, WatchEvent};
use crate::protocol::value::BadValue;
use crate::protocol::{BoundedText, Props, RoomId, SafeInteger, Time, VisitorId, WatchState};

/// An event. Unknown fields are rejected, so that a misspelled name loses no value silently.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Record {
    /// A page view.
    #[serde(rename_all = "camelCase")]
    PageView {
        /// The id. With visitor and room it identifies the page view.
        id: Uuid,
        /// The room.
        room: RoomId,
        /// The visitor.
        visitor: VisitorId,
        /// Whether the visitor is a known bot.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_bot: bool,
        /// The page's path.
        path: BoundedText<1, 512>,
        /// The page's title.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        title: Option<BoundedText<0, 1024>>,
        /// The referrer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        referrer: Option<BoundedText<0, 1024>>,
        /// Time of the page view.
        at: Time,
        /// The app's own properties.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<Props>)]
        props: Option<Map<String, Value>>,
    },
    /// The merged state of a watch session.
    #[serde(rename_all = "camelCase")]
    Watch {
        /// The id. With visitor and room it identifies the watch session.
        id: Uuid,
        /// The room.
        room: RoomId,
        /// The visitor.
        visitor: VisitorId,
        /// Whether the visitor is a known bot.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_bot: bool,
        /// The content.
        content: BoundedText<1, 512>,
        /// The last state.
        state: WatchState,
        /// Time of the last message.
        at: Time,
        /// The maximum that a client claimed or the hub measured.
        watched_ms: u64,
        /// Start of the session.
        started_at: Time,
        /// The latest time at which the session was known to run.
        seen_at: Time,
        /// The last position.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        position_ms: Option<SafeInteger>,
        /// Time of the position.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        position_at: Option<Time>,
        /// Length of the content.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration_ms: Option<SafeInteger>,
        /// The last properties.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<Props>)]
        props: Option<Map<String, Value>>,
        /// Time of the properties.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        props_at: Option<Time>,
    },
    /// A presence sample of at most one minute.
    Census {
        /// The id. With the start it identifies the sample.
        id: Uuid,
        /// Start of the sample.
        at: Time,
        /// The nodes of the cluster whose visitors it has.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        #[schema(value_type = Vec<String>)]
        nodes: BTreeSet<NodeName>,
        /// The whole hub.
        hub: RoomSample,
        /// The rooms that were not empty.
        rooms: BTreeMap<RoomId, RoomSample>,
    },
}

impl Record {
    /// Returns the records of a batch.
    pub fn of(batch: Batch) -> impl Iterator<Item = Self> {
        let views = batch.page_views.into_iter().map(Self::from);
        let watches = batch.watches.into_iter().map(Self::from);
        views.chain(watches).chain(batch.samples.into_iter().map(Self::from))
    }

    /// Adds the record's event to a batch.
    ///
    /// # Errors
    /// The properties are nested or too long.
    pub fn add_to(self, batch: &mut Batch) -> Result<(), BadValue> {
        let to_props = |props: Option<Map<String, Value>>| props.map(Props::try_from).transpose();
        match self {
            Self::PageView { id, room, visitor, is_bot, path, title, referrer, at, props } => {
                let (actor, props) = (Actor { room, visitor, is_bot }, to_props(props)?);
                batch.push(Event::PageView(PageViewEvent { actor, id, path, title, referrer, at, props }));
            }
            Self::Watch {
                id,
                room,
                visitor,
                is_bot,
                content,
                state,
                at,
                watched_ms,
                started_at,
                seen_at,
                position_ms,
                position_at,
                duration_ms,
                props,
                props_at,
            } => batch.push(Event::Watch(WatchEvent {
                actor: Actor { room, visitor, is_bot },
                id,
                content,
                state,
                at,
                watched_ms,
                started_at,
                seen_at,
                position_ms: position_ms.map(|position| (position_at.unwrap_or(at), position)),
                duration_ms,
                props: to_props(props)?.map(|props| (props_at.unwrap_or(at), props)),
            })),
            Self::Census { id, at, nodes, hub, rooms } => {
                batch.samples.push(TotalSample { id, at, nodes, hub, rooms });
            }
        }
        Ok(())
    }
}

impl From<PageViewEvent> for Record {
    fn from(event: PageViewEvent) -> Self {
        let PageViewEvent { actor, id, path, title, referrer, at, props } = event;
        let Actor { room, visitor, is_bot } = actor;
        let props = props.as_ref().map(object);
        Self::PageView { id, room, visitor, is_bot, path, title, referrer, at, props }
    }
}

impl From<WatchEvent> for Record {
    fn from(event: WatchEvent) -> Self {
        let WatchEvent { actor, id, content, state, at, watched_ms, started_at, seen_at, .. } = event;
        let Actor { room, visitor, is_bot } = actor;
        let (position_at, position_ms) = event.position_ms.unzip();
        let (props_at, props) = event.props.as_ref().map(|(at, props)| (*at, object(props))).unzip();
        Self::Watch {
            id,
            room,
            visitor,
            is_bot,
            content,
            state,
            at,
            watched_ms,
            started_at,
            seen_at,
            position_ms,
            position_at,
            duration_ms: event.duration_ms,
            props,
            props_at,
        }
    }
}

impl From<TotalSample> for Record {
    fn from(total: TotalSample) -> Self {
        let TotalSample { id, at, nodes, hub, rooms } = total;
        Self::Census { id, at, nodes, hub, rooms }
    }
}

fn object(props: &Props) -> Map<String, Value> {
    serde_json::from_str(props.as_json()).unwrap_or_default()
}
