//! Schemas of the protocol's types, for `/openapi.json` and `/asyncapi.json` (JSON Schema 2020-12).
//!
//! Plain structs derive their schema. The schemas here are for types with a rule in code. They use the constants by which
//! values are checked, so that document and check cannot differ.

use std::borrow::Cow;
use strum::VariantArray;

use utoipa::openapi::schema::{
    AllOfBuilder, ArrayBuilder, ObjectBuilder, OneOfBuilder, Ref as Reference, Schema, SchemaType, Type,
};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use super::code::ErrorCode;
use super::ids::{RoomId, SessionId, VisitorId};
use super::message::{ClientMessage, PageView, Ref, Watch};
use super::mood::{MOOD_RULE, MOODS_LIMIT, NamedMoods, Vocabulary};
use super::value::{BoundedText, MAX_SAFE_INTEGER, MAX_TIME, Props, SafeInteger, Time};

/// Text that matches the regular expression `rule` as a whole.
pub(crate) fn text_like(rule: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(format!("^{rule}$")))
}

/// One of these words.
pub(crate) fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words))
}

fn integer(least: u64, most: u64) -> ObjectBuilder {
    let bound = |number| usize::try_from(number).unwrap_or(usize::MAX);
    let integer = ObjectBuilder::new().schema_type(Type::Integer);
    integer.minimum(Some(bound(least))).maximum(Some(bound(most)))
}

/// Implements the schema of a type, with the type's name.
macro_rules! schema {
    ($type:ty, $schema:expr) => {
        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                $schema.into()
            }
        }

        impl utoipa::ToSchema for $type {}
    };
}
pub(crate) use schema;

schema!(RoomId, text_like(Self::RULE).description(Some(Self::DESCRIPTION)));

schema!(VisitorId, text_like(Self::RULE).description(Some(Self::DESCRIPTION)));

schema!(SessionId, {
    let uuid = SchemaFormat::KnownFormat(KnownFormat::Uuid);
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(uuid))
        .description(Some("The id of one socket: a UUIDv7."))
});

schema!(
    Ref,
    integer(1, MAX_SAFE_INTEGER).description(Some("A client's number for an event on one socket. It rises."))
);

schema!(
    SafeInteger,
    integer(0, MAX_SAFE_INTEGER).description(Some("A duration or a position, in milliseconds."))
);

schema!(Time, integer(0, MAX_TIME).description(Some("A time: milliseconds since the Unix epoch, UTC.")));

schema!(
    ErrorCode,
    one_of(Self::VARIANTS.iter().map(|code| code.as_str())).description(Some("Why a message was rejected."))
);

schema!(Props, {
    let value = SchemaType::from_iter([Type::String, Type::Number, Type::Boolean]);
    let text = format!("A flat object. Its JSON text without white space has at most {} bytes.", Self::LIMIT);
    ObjectBuilder::new()
        .additional_properties(Some(RefOr::T(Schema::from(ObjectBuilder::new().schema_type(value).build()))))
        .description(Some(text))
});

schema!(Vocabulary, {
    let moods =
        ArrayBuilder::new().items(text_like(MOOD_RULE)).min_items(Some(1)).max_items(Some(MOODS_LIMIT));
    moods.unique_items(true).description(Some("The moods that may be set, in display order."))
});

schema!(NamedMoods<'_>, {
    let count = integer(1, u32::MAX.into()).build();
    ObjectBuilder::new()
        .property_names(Some(text_like(MOOD_RULE).build()))
        .additional_properties(Some(RefOr::T(Schema::from(count))))
        .max_properties(Some(MOODS_LIMIT))
        .description(Some("Visitors by mood; only counts above 0."))
});

impl<const MIN: usize, const MAX: usize> PartialSchema for BoundedText<MIN, MAX> {
    fn schema() -> RefOr<Schema> {
        // A schema counts characters, which have at least one byte each.
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[^\\x00]*$"));
        let least = (MIN > 0).then_some(MIN);
        let bytes = format!("Text of at most {MAX} bytes of UTF-8, without U+0000.");
        text.min_length(least).max_length(Some(MAX)).description(Some(bytes)).into()
    }
}

impl<const MIN: usize, const MAX: usize> ToSchema for BoundedText<MIN, MAX> {
    fn name() -> Cow<'static, str> {
        format!("Text{MIN}To{MAX}").into()
    }
}

// `ClientMessage::parse` parses the type first, and then the fields of that type.
schema!(ClientMessage, {
    let mood = SchemaType::from_iter([Type::String, Type::Null]);
    let mood = text_like(MOOD_RULE).schema_type(mood);
    let token = ObjectBuilder::new().schema_type(Type::String).description(Some("A JWT."));
    let length = reference(&SafeInteger::name());
    let event = |kind, fields: Cow<str>| {
        let head = of_type(kind).property("ref", reference(&Ref::name())).required("ref");
        AllOfBuilder::new().item(head).item(reference(&fields))
    };
    OneOfBuilder::new()
        .item(of_type("mood").property("mood", mood).required("mood"))
        .item(event("page-view", PageView::name()))
        .item(event("watch", Watch::name()))
        .item(of_type("token").property("token", token).required("token"))
        .item(of_type("sit").property("forMs", length).required("forMs"))
        .item(of_type("ping"))
});

fn of_type(kind: &str) -> ObjectBuilder {
    ObjectBuilder::new().property("type", one_of([kind])).required("type")
}

/// A reference to a schema in the document's components.
pub(crate) fn reference(name: &str) -> RefOr<Schema> {
    Reference::from_schema_name(name).into()
}
