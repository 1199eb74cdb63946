//! Round trips of records through both export formats, errors of rows and of settings.
//!
//! An exported record is imported unchanged; an invalid row is rejected with the name of its field.

use std::collections::BTreeMap;
use std::io::Cursor;

use clap::{CommandFactory, Parser};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::export::{Format, RecordWriter};
use super::import::{native, rows};
use super::{Cli, CliCommand, columns};
use crate::history::event::RoomSample;
use crate::history::record::Record;
use crate::protocol::{BoundedText, Props, RoomId, SafeInteger, Time, VisitorId, WatchState};

fn text<const MIN: usize, const MAX: usize>() -> impl Strategy<Value = BoundedText<MIN, MAX>> {
    let awkward = "([^\0]|[\r\n\", ;\u{feff}=é]){1,12}";
    awkward.prop_map(|text| BoundedText::try_from(text).unwrap())
}

fn integer() -> impl Strategy<Value = SafeInteger> {
    (0..1_u64 << 53).prop_map(|number| SafeInteger::try_from(number).unwrap())
}

fn time() -> impl Strategy<Value = Time> {
    (0..253_402_300_800_000_u64).prop_map(Time::from_millis)
}

fn props() -> impl Strategy<Value = Option<Map<String, Value>>> {
    let value = prop_oneof![
        ".{0,8}".prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
    ];
    let object = proptest::collection::btree_map(".{0,8}", value, 0..4);
    let flat = |object: BTreeMap<String, Value>| {
        let object: Map<String, Value> = object.into_iter().filter(|(_, value)| !value.is_null()).collect();
        Props::try_from(object.clone()).is_ok().then_some(object)
    };
    proptest::option::of(object).prop_map(move |object| object.and_then(flat))
}

fn ids() -> impl Strategy<Value = (Uuid, RoomId, VisitorId, bool)> {
    (any::<u128>(), "[a-z0-9][a-z0-9-]{0,9}", "[A-Za-z0-9_-]{1,9}", any::<bool>()).prop_map(
        |(id, room, visitor, is_bot)| {
            let (room, visitor) = (RoomId::try_from(room).unwrap(), VisitorId::try_from(visitor).unwrap());
            (Uuid::from_u128(id), room, visitor, is_bot)
        },
    )
}

fn page_view() -> impl Strategy<Value = Record> {
    let texts = (text(), proptest::option::of(text()), proptest::option::of(text()));
    (ids(), texts, time(), props()).prop_map(|((id, room, visitor, is_bot), texts, at, props)| {
        let (path, title, referrer) = texts;
        Record::PageView { id, room, visitor, is_bot, path, title, referrer, at, props }
    })
}

fn watch() -> impl Strategy<Value = Record> {
    let states = proptest::sample::select(vec![WatchState::Paused, WatchState::Playing, WatchState::Ended]);
    let times = (time(), time(), time(), proptest::option::of(time()), proptest::option::of(time()));
    let measures = (integer(), proptest::option::of(integer()), proptest::option::of(integer()));
    (ids(), text(), states, times, measures, props()).prop_map(
        |((id, room, visitor, is_bot), content, state, times, (watched, position_ms, duration_ms), props)| {
            let (at, started_at, seen_at, position_at, props_at) = times;
            let watched_ms = watched.get();
            Record::Watch {
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
            }
        },
    )
}

fn sample() -> impl Strategy<Value = RoomSample> {
    let moods_ms = proptest::collection::btree_map(".{0,6}", integer().prop_map(SafeInteger::get), 0..4);
    let sits = proptest::array::uniform4(integer().prop_map(SafeInteger::get));
    (integer(), any::<u32>(), any::<u32>(), moods_ms, sits).prop_map(
        |(present, peak, joins, moods_ms, sits)| {
            let [held_ms, sits_begun, sits_completed, sat_ms] = sits;
            let present_ms = present.get();
            RoomSample { present_ms, peak, joins, moods_ms, held_ms, sits_begun, sits_completed, sat_ms }
        },
    )
}

fn presence_sample() -> impl Strategy<Value = Record> {
    let rooms = proptest::collection::btree_map(ids().prop_map(|(_, room, ..)| room), sample(), 0..4);
    let nodes = proptest::collection::btree_set("[a-z]{1,9}", 0..3);
    let nodes = nodes.prop_map(|names| names.into_iter().map(|name| name.try_into().unwrap()).collect());
    (ids(), time(), nodes, sample(), rooms).prop_map(|((id, ..), at, nodes, hub, rooms)| Record::Census {
        id,
        at,
        nodes,
        hub,
        rooms,
    })
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    proptest::collection::vec(prop_oneof![page_view(), watch(), presence_sample()], 0..8)
}

fn written(format: Format, records: &[Record]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut lines = RecordWriter::new(format, &mut file);
    lines.begin().unwrap();
    for record in records {
        lines.write(record).unwrap();
    }
    lines.flush().unwrap();
    drop(lines);
    file
}

fn read(file: Vec<u8>) -> Vec<Record> {
    let latest = Time::from_millis(u64::MAX);
    let rows = rows::read(Cursor::new(file), |_| Ok(())).unwrap();
    rows.map(|row| native::read(row.fields.unwrap(), latest).unwrap()).collect()
}

proptest! {
    #[test]
    fn csv_round_trip_keeps_records(records in records()) {
        prop_assert_eq!(read(written(Format::Csv, &records)), records);
    }

    #[test]
    fn json_lines_round_trip_keeps_records(records in records()) {
        let file = written(Format::Jsonl, &records);
        prop_assert_eq!(file.split(|byte| *byte == b'\n').count() - 1, records.len());
        prop_assert_eq!(read(file), records);
    }

    #[test]
    fn csv_has_a_column_for_each_field_and_rows_parse_as_serde_does(record in prop_oneof![page_view(), watch(), presence_sample()]) {
        let fields: Map<String, Value> = serde_json::from_value(serde_json::to_value(&record).unwrap()).unwrap();
        for name in fields.keys() {
            prop_assert!(columns::COLUMNS.contains(&name.as_str()), "{}", name);
        }
        let line = written(Format::Jsonl, std::slice::from_ref(&record));
        prop_assert_eq!(serde_json::from_slice::<Record>(&line).unwrap(), record);
    }
}

#[test]
fn csv_loses_empty_texts_only() {
    let view = json!({ "type": "page-view", "id": Uuid::nil(), "room": "a", "visitor": "b", "path": "/", "title": "",
        "at": 1 });
    let mut view: Record = serde_json::from_value(view).unwrap();
    assert_eq!(read(written(Format::Jsonl, std::slice::from_ref(&view))), [view.clone()]);
    let found = read(written(Format::Csv, std::slice::from_ref(&view)));
    let Record::PageView { title, .. } = &mut view else { panic!("no page view") };
    *title = None;
    assert_eq!(found, [view]);
}

#[test]
fn row_error_names_field_and_rule() {
    let error = |row: &str| {
        let row = rows::read(Cursor::new(row.as_bytes().to_vec()), |_| Ok(())).unwrap().next().unwrap();
        native::read(row.fields.unwrap(), Time::from_millis(1_000)).unwrap_err().to_string()
    };
    let view = |change: Value| {
        let mut row = json!({ "type": "page-view", "id": Uuid::nil(), "room": "a", "visitor": "b", "path": "/", "at": 1 });
        row.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        error(&row.to_string())
    };
    assert_eq!(view(json!({ "type": "visit" })), "type: must be page-view, watch or census");
    assert_eq!(view(json!({ "path": null })), "path: is missing");
    assert_eq!(view(json!({ "room": "A" })), "room: must match [a-z0-9][a-z0-9-]{0,63}");
    assert_eq!(view(json!({ "refferer": "x" })), "refferer: does not belong to this type");
    assert_eq!(view(json!({ "at": 1_001 })), "at: must not be more than 5 minutes in the future");
    assert!(view(json!({ "at": "2026-11-20" })).starts_with("at: invalid type: string"));
    assert!(view(json!({ "id": "17" })).starts_with("id: "));
    let csv = error("type,id,at,hub,rooms\ncensus,17,1,{},{}\n");
    assert!(csv.starts_with("id: "), "{csv}");
    let csv = error("type,id,at,hub\ncensus,00000000-0000-0000-0000-000000000000,soon,1\n");
    assert!(csv.starts_with("at: invalid type: string \"soon\""), "{csv}");
}

#[test]
fn command_line_definition_is_valid() {
    Cli::command().debug_assert();
}

#[test]
fn serve_is_the_default_command() {
    for args in [vec!["breathing-room"], vec!["breathing-room", "serve"]] {
        let cli = Cli::try_parse_from(args.into_iter().chain(["--listen", "127.0.0.1:1"])).unwrap();
        assert!(matches!(cli.into_command(), CliCommand::Serve(settings) if settings.listen.port() == 1));
    }
}

#[test]
fn wrong_setting_is_named_in_the_first_line() {
    for (flag, value) in [
        ("--listen", "here"),
        ("--flush-interval", "soon"),
        ("--flush-interval", "0s"),
        ("--leave-grace", "25h"),
        ("--queue-limit", "0"),
        ("--queue-bytes", "64MB"),
        ("--retention", "400d"),
        ("--message-rate", "0"),
        ("--client-ip-header", "no header"),
        ("--client-ip-header", "Cookie"),
        ("--public-url", "hub.example.org"),
        ("--moods", "Calm"),
        ("--dashboard", "friends"),
        ("--public-props", "plan,"),
        ("--frame-ancestors", "example.org"),
        ("--allowed-origins", "example.org"),
    ] {
        let error = Cli::try_parse_from(["breathing-room", flag, value]).unwrap_err().to_string();
        assert!(error.lines().next().unwrap().contains(flag), "{error}");
    }
    for (command, flag, value) in [
        ("export", "--from", "yesterday"),
        ("export", "--room", "The Lobby"),
        ("export", "--format", "xml"),
        ("import", "--field", "user_id"),
        ("import", "--field", "user=user_id"),
        ("import", "--kind", "sessions"),
        ("token", "--visitor", "a b"),
        ("token", "--expires", "0s"),
    ] {
        let error = Cli::try_parse_from(["breathing-room", command, flag, value]).unwrap_err().to_string();
        assert!(error.lines().next().unwrap().contains(flag), "{error}");
    }
}
