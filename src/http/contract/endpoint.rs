//! The words in which the table of `openapi` is told: one endpoint is one method of one address.
//!
//! What the layers around all handlers answer is said here, once: no room, foreign origins, too many posts.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ContentBuilder, HeaderBuilder, RefOr, Required};
use utoipa::{IntoParams, ToSchema};

use crate::http::error::{ApiError, ErrorBody};
use crate::protocol::schema::reference;

/// JSON, in which everything is that is no page.
pub(super) const JSON: &str = "application/json";

/// Schemas by their names.
pub(super) type Schemas = BTreeMap<String, RefOr<Schema>>;

/// Who may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Whoever has the admin's token.
    Admin,
    /// Where the configuration says so, whoever has the admin's token; else everybody.
    PerhapsAdmin,
    /// Where the hub asks for tokens, whoever has a visitor's; else everybody.
    PerhapsVisitor,
    /// Whoever has the admin's token, or that of the visitor whom it is about.
    VisitorOrAdmin,
}

impl Who {
    fn requirements(self) -> Vec<SecurityRequirement> {
        let token = |name: &str| SecurityRequirement::new(name, [] as [&str; 0]);
        let (admin, visitor) = (token(ADMIN), token(VISITOR));
        match self {
            Self::Admin => vec![admin],
            Self::PerhapsAdmin => vec![SecurityRequirement::default(), admin],
            Self::PerhapsVisitor => vec![SecurityRequirement::default(), visitor],
            Self::VisitorOrAdmin => vec![admin, visitor],
        }
    }
}

/// The admin's token, by its name in the document.
pub(super) const ADMIN: &str = "admin";

/// A visitor's token, by its name in the document.
pub(super) const VISITOR: &str = "visitor";

/// One method of one address.
pub(super) struct Endpoint {
    pub(super) path: &'static str,
    pub(super) method: HttpMethod,
    pub(super) operation: OperationBuilder,
    /// What it names of the document's schemas.
    pub(super) schemas: Schemas,
}

impl Endpoint {
    /// `id` names it in clients that are made from the document. Where a handler panics there is a 500, and where
    /// no more connections can be held a 503; whoever asks too fast, or has too many connections, gets a 429.
    fn new(method: HttpMethod, path: &'static str, id: &str, summary: &str) -> Self {
        let operation = OperationBuilder::new().operation_id(Some(id)).summary(Some(summary));
        Self { path, method, operation, schemas: Schemas::new() }.refuses(&[429, 500, 503])
    }

    pub(super) fn get(path: &'static str, id: &str, summary: &str) -> Self {
        Self::new(HttpMethod::Get, path, id, summary)
    }

    /// From a page of a foreign origin it is refused.
    pub(super) fn post(path: &'static str, id: &str, summary: &str) -> Self {
        Self::new(HttpMethod::Post, path, id, summary).refuses(&[403])
    }

    /// From a page of a foreign origin it is refused.
    pub(super) fn delete(path: &'static str, id: &str, summary: &str) -> Self {
        Self::new(HttpMethod::Delete, path, id, summary).refuses(&[403])
    }

    pub(super) fn tag(mut self, tag: &str) -> Self {
        self.operation = self.operation.tag(tag);
        self
    }

    pub(super) fn says(mut self, description: &str) -> Self {
        self.operation = self.operation.description(Some(description));
        self
    }

    pub(super) fn only_for(mut self, who: Who) -> Self {
        self.operation = self.operation.securities(Some(who.requirements()));
        self.refuses(&[401, 429])
    }

    /// A name in the address, which is refused where it breaks its rule.
    pub(super) fn named<T: ToSchema>(self, name: &str) -> Self {
        let schema = reference(&T::name());
        self.knows::<T>().in_path(name, schema).refuses(&[400])
    }

    pub(super) fn in_path(mut self, name: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path);
        self.operation = self.operation.parameter(parameter.required(Required::True).schema(Some(schema)));
        self
    }

    /// The parameters of its query, which are refused where one breaks its rule.
    pub(super) fn asks<T: IntoParams>(mut self) -> Self {
        self.operation = self.operation.parameters(Some(T::into_params(|| Some(ParameterIn::Query))));
        self.refuses(&[400])
    }

    /// A body, as JSON or, from beacons, as text that is JSON.
    pub(super) fn takes(mut self, body: RefOr<Schema>) -> Self {
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .content_media_type(JSON)
            .content_schema(Some(body.clone()));
        let request = RequestBodyBuilder::new()
            .required(Some(Required::True))
            .content(JSON, ContentBuilder::new().schema(Some(body)).build())
            .content("text/plain", ContentBuilder::new().schema(Some(text)).build());
        self.operation = self.operation.request_body(Some(request.build()));
        self.refuses(&[400, 408, 413, 415])
    }

    /// Answers JSON.
    pub(super) fn answers<T: ToSchema>(self, status: u16, description: &str) -> Self {
        let schema = reference(&T::name());
        self.knows::<T>().responds(status, description, &[JSON], schema, &[])
    }

    /// Answers JSON where everything else is refused with this status.
    pub(super) fn answers_or_refuses<T: ToSchema>(self, status: u16, description: &str) -> Self {
        let either = OneOfBuilder::new().item(reference(&T::name())).item(reference(&ErrorBody::name()));
        self.knows::<T>().responds(status, description, &[JSON], either, &["Retry-After"])
    }

    /// Answers JSON that is told when it may be asked for again.
    pub(super) fn answers_for_a_while<T: ToSchema>(self, status: u16, description: &str) -> Self {
        let schema = reference(&T::name());
        self.knows::<T>().responds(status, description, &[JSON], schema, &["Cache-Control"])
    }

    /// Answers text of one of these types.
    pub(super) fn answers_text(self, status: u16, description: &str, kinds: &[&str]) -> Self {
        self.responds(status, description, kinds, ObjectBuilder::new().schema_type(Type::String), &[])
    }

    /// What it answers with 200 has a tag, by which whoever has it already gets 304.
    pub(super) fn answers_tagged(
        self,
        description: &str,
        kinds: &[&str],
        schema: impl Into<RefOr<Schema>>,
    ) -> Self {
        let headers = ["ETag", "Cache-Control"];
        self.responds(200, description, kinds, schema, &headers).responds(
            304,
            "You have it already.",
            &[],
            ObjectBuilder::new(),
            &headers,
        )
    }

    /// Switches to WebSocket.
    pub(super) fn opens_socket(self) -> Self {
        let headers = ["Upgrade", "Sec-WebSocket-Accept", "Sec-WebSocket-Protocol"];
        self.responds(101, "A WebSocket: see /asyncapi.json.", &[], ObjectBuilder::new(), &headers)
            .refuses(&[400, 403, 426])
    }

    /// Refuses with these statuses, as everything is refused here.
    pub(super) fn refuses(mut self, statuses: &[u16]) -> Self {
        for status in statuses {
            let code = StatusCode::from_u16(*status).unwrap_or_default();
            let headers = ApiError::headers(code);
            let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
            self = self.responds(*status, why(*status), &[JSON], reference(&ErrorBody::name()), &names);
        }
        self.knows::<ErrorBody>()
    }

    /// Takes the schemas along that `T` is made of.
    pub(super) fn knows<T: ToSchema>(mut self) -> Self {
        collect::<T>(&mut self.schemas);
        self
    }

    fn responds(
        mut self,
        status: u16,
        description: &str,
        kinds: &[&str],
        schema: impl Into<RefOr<Schema>>,
        headers: &[&str],
    ) -> Self {
        let schema = schema.into();
        let mut response = ResponseBuilder::new().description(description);
        for kind in kinds {
            response = response.content(*kind, ContentBuilder::new().schema(Some(schema.clone())).build());
        }
        for header in headers {
            let text = ObjectBuilder::new().schema_type(Type::String);
            response = response.header(*header, HeaderBuilder::new().schema(Some(text)).build());
        }
        self.operation = self.operation.response(status.to_string(), response);
        self
    }
}

/// The schema of `T` under its name, and all that it refers to.
pub(super) fn collect<T: ToSchema>(schemas: &mut Schemas) {
    let mut found = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut found);
    merge(schemas, found);
}

/// Adds schemas to others, of which none may have the name of another.
pub(super) fn merge(schemas: &mut Schemas, more: impl IntoIterator<Item = (String, RefOr<Schema>)>) {
    for (name, schema) in more {
        let known = schemas.get(&name);
        debug_assert!(known.is_none_or(|known| *known == schema), "two types are called {name}");
        schemas.insert(name, schema);
    }
}

/// What a refusal with this status means.
fn why(status: u16) -> &'static str {
    match status {
        400 => "Something breaks its rule: the message names both.",
        401 => "A token is missing, or not good for this.",
        403 => "The request comes from a page of a foreign origin.",
        404 => "There is nothing of this name.",
        408 => "The body took longer than 10 s to arrive.",
        410 => "Heartbeats are over: presence is the open socket.",
        413 => "The body is over 64 KiB.",
        415 => "The body is neither JSON nor text.",
        426 => "The request does not ask for a WebSocket.",
        429 => "Too much comes from this address, or from this visitor.",
        500 => "The hub failed, which its log explains.",
        503 => "Not now: the hub is full, overloaded or stopping, or the database does not answer.",
        _ => "Refused.",
    }
}
