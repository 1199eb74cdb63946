//! The builder of endpoints for the OpenAPI document. An endpoint is one method of one path.
//!
//! It adds the error responses of the middleware, such as those for rate limits and disallowed origins.

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

/// The content type of everything except files, pages and metrics.
pub(super) const JSON: &str = "application/json";

/// The content type of an error that a browser shows.
const HTML: &str = "text/html";

/// Schemas by name.
pub(super) type Schemas = BTreeMap<String, RefOr<Schema>>;

/// The token that an endpoint requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    /// The admin token.
    Admin,
    /// The admin token, if the hub is configured so; else none.
    ConfiguredAdmin,
    /// A visitor's token, if the hub requires visitor tokens; else none.
    ConfiguredVisitor,
    /// The admin token, or the token of the visitor in the path.
    VisitorOrAdmin,
}

impl Security {
    fn requirements(self) -> Vec<SecurityRequirement> {
        let token = |name: &str| SecurityRequirement::new(name, [] as [&str; 0]);
        let (admin, visitor) = (token(ADMIN), token(VISITOR));
        match self {
            Self::Admin => vec![admin],
            Self::ConfiguredAdmin => vec![SecurityRequirement::default(), admin],
            Self::ConfiguredVisitor => vec![SecurityRequirement::default(), visitor],
            Self::VisitorOrAdmin => vec![admin, visitor],
        }
    }
}

/// The name of the admin token's security scheme.
pub(super) const ADMIN: &str = "admin";

/// The name of the visitor tokens' security scheme.
pub(super) const VISITOR: &str = "visitor";

/// One method of one path.
pub(super) struct Endpoint {
    pub(super) path: &'static str,
    pub(super) method: HttpMethod,
    pub(super) operation: OperationBuilder,
    /// The schemas that the operation refers to.
    pub(super) schemas: Schemas,
}

impl Endpoint {
    /// `id` is the operation's name in generated clients. Every endpoint may respond with 429 (rate limit or too many
    /// connections), 500 (the handler panicked) and 503 (no more connections).
    fn new(method: HttpMethod, path: &'static str, id: &str, summary: &str) -> Self {
        let operation = OperationBuilder::new().operation_id(Some(id)).summary(Some(summary));
        Self { path, method, operation, schemas: Schemas::new() }.errors(&[429, 500, 503])
    }

    pub(super) fn get(path: &'static str, id: &str, summary: &str) -> Self {
        Self::new(HttpMethod::Get, path, id, summary)
    }

    /// Pages of origins that are not allowed get 403.
    pub(super) fn post(path: &'static str, id: &str, summary: &str) -> Self {
        Self::new(HttpMethod::Post, path, id, summary).errors(&[403])
    }

    /// Pages of origins that are not allowed get 403.
    pub(super) fn delete(path: &'static str, id: &str, summary: &str) -> Self {
        Self::new(HttpMethod::Delete, path, id, summary).errors(&[403])
    }

    pub(super) fn tag(mut self, tag: &str) -> Self {
        self.operation = self.operation.tag(tag);
        self
    }

    pub(super) fn description(mut self, description: &str) -> Self {
        self.operation = self.operation.description(Some(description));
        self
    }

    pub(super) fn security(mut self, security: Security) -> Self {
        self.operation = self.operation.securities(Some(security.requirements()));
        self.errors(&[401, 429])
    }

    /// Adds a path parameter of type `T`, and 400 if it breaks its rule.
    pub(super) fn path_param<T: ToSchema>(self, name: &str) -> Self {
        let schema = reference(&T::name());
        self.schema::<T>().path_param_of(name, schema).errors(&[400])
    }

    /// Adds a path parameter with a schema of its own.
    pub(super) fn path_param_of(mut self, name: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path);
        self.operation = self.operation.parameter(parameter.required(Required::True).schema(Some(schema)));
        self
    }

    /// Adds the query parameters, and 400 if one breaks its rule.
    pub(super) fn query<T: IntoParams>(mut self) -> Self {
        self.operation = self.operation.parameters(Some(T::into_params(|| Some(ParameterIn::Query))));
        self.errors(&[400])
    }

    /// Adds a request body: JSON, or JSON as plain text, as beacons send it, also compressed.
    pub(super) fn body(mut self, body: RefOr<Schema>) -> Self {
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .content_media_type(JSON)
            .content_schema(Some(body.clone()));
        let request = RequestBodyBuilder::new()
            .required(Some(Required::True))
            .description(Some(
                "At most 64 KiB. It may be compressed, with `Content-Encoding: gzip`, and then has at most 64 KiB \
                 before and after its decompression. Another encoding gets 415 with `Accept-Encoding: gzip`.",
            ))
            .content(JSON, ContentBuilder::new().schema(Some(body)).build())
            .content("text/plain", ContentBuilder::new().schema(Some(text)).build());
        self.operation = self.operation.request_body(Some(request.build()));
        self.errors(&[400, 408, 413, 415])
    }

    /// Adds a JSON response.
    pub(super) fn response<T: ToSchema>(self, status: u16, description: &str) -> Self {
        let schema = reference(&T::name());
        self.schema::<T>().add_response(status, description, &[JSON], schema, &[])
    }

    /// Adds a JSON response with a status that error responses have too.
    pub(super) fn response_or_error<T: ToSchema>(self, status: u16, description: &str) -> Self {
        let either = OneOfBuilder::new().item(reference(&T::name())).item(reference(&ErrorBody::name()));
        self.schema::<T>().add_response(status, description, &[JSON], either, &["Retry-After"])
    }

    /// Adds a JSON response with `Cache-Control`.
    pub(super) fn response_with_cache_control<T: ToSchema>(self, status: u16, description: &str) -> Self {
        let schema = reference(&T::name());
        self.schema::<T>().add_response(status, description, &[JSON], schema, &["Cache-Control"])
    }

    /// Adds a response of text with one of these content types.
    pub(super) fn text_response(self, status: u16, description: &str, types: &[&str]) -> Self {
        self.add_response(status, description, types, ObjectBuilder::new().schema_type(Type::String), &[])
    }

    /// Adds a response with a file and its digest.
    pub(super) fn file_response(self, description: &str, content_type: &str) -> Self {
        let headers = ["Cache-Control", "Content-Length", "Repr-Digest"];
        self.add_response(200, description, &[content_type], ObjectBuilder::new(), &headers)
    }

    /// Adds a redirect without a body.
    pub(super) fn redirect(self, status: u16, description: &str) -> Self {
        self.add_response(status, description, &[], ObjectBuilder::new(), &["Location"])
    }

    /// Adds a 200 with an entity tag, and the 304 that goes with it.
    pub(super) fn response_with_etag(
        self,
        description: &str,
        types: &[&str],
        schema: impl Into<RefOr<Schema>>,
    ) -> Self {
        let headers = ["ETag", "Cache-Control"];
        self.add_response(200, description, types, schema, &headers).add_response(
            304,
            "The client's copy is current.",
            &[],
            ObjectBuilder::new(),
            &headers,
        )
    }

    /// Adds the switch to WebSocket, and the errors of rejected upgrades.
    pub(super) fn websocket(self) -> Self {
        let headers = ["Upgrade", "Sec-WebSocket-Accept", "Sec-WebSocket-Protocol"];
        self.add_response(101, "A WebSocket: see /asyncapi.json.", &[], ObjectBuilder::new(), &headers)
            .errors(&[400, 403, 404, 426])
    }

    /// Adds error responses with these statuses.
    pub(super) fn errors(mut self, statuses: &[u16]) -> Self {
        for status in statuses {
            let code = StatusCode::from_u16(*status).unwrap_or_default();
            let headers = ApiError::headers(code);
            let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
            let (description, schema) = (describe_error(*status), reference(&ErrorBody::name()));
            self = self.add_response(*status, description, &[JSON, HTML], schema, &names);
        }
        self.schema::<ErrorBody>()
    }

    /// Adds the schema of `T` and all schemas that it refers to.
    pub(super) fn schema<T: ToSchema>(mut self) -> Self {
        collect::<T>(&mut self.schemas);
        self
    }

    fn add_response(
        mut self,
        status: u16,
        description: &str,
        types: &[&str],
        schema: impl Into<RefOr<Schema>>,
        headers: &[&str],
    ) -> Self {
        let schema = schema.into();
        let mut response = ResponseBuilder::new().description(description);
        for content_type in types {
            // A page is text, whatever the JSON is.
            let is_page = *content_type == HTML && types.contains(&JSON);
            let text = ObjectBuilder::new().schema_type(Type::String).into();
            let schema = if is_page { text } else { schema.clone() };
            response = response.content(*content_type, ContentBuilder::new().schema(Some(schema)).build());
        }
        for header in headers {
            let text = ObjectBuilder::new().schema_type(Type::String);
            response = response.header(*header, HeaderBuilder::new().schema(Some(text)).build());
        }
        self.operation = self.operation.response(status.to_string(), response);
        self
    }
}

/// Adds the schema of `T` and all schemas that it refers to.
pub(super) fn collect<T: ToSchema>(schemas: &mut Schemas) {
    let mut found = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut found);
    merge(schemas, found);
}

/// Adds schemas to others. Two different schemas must not have the same name.
pub(super) fn merge(schemas: &mut Schemas, more: impl IntoIterator<Item = (String, RefOr<Schema>)>) {
    for (name, schema) in more {
        let known = schemas.get(&name);
        debug_assert!(known.is_none_or(|known| *known == schema), "two schemas have the name {name}");
        schemas.insert(name, schema);
    }
}

/// Returns what an error with this status means.
fn describe_error(status: u16) -> &'static str {
    match status {
        400 => "A parameter or field breaks a rule: the message names both.",
        401 => "The token is missing, or not valid for this request.",
        403 => "The origin of the page is not allowed.",
        404 => "There is nothing at this address, or the hub is a replica (`MODE`), which has no rooms.",
        408 => "The body took longer than 10 s to arrive.",
        410 => "There are no heartbeats any more: presence is the open socket.",
        413 => "The body is over 64 KiB.",
        415 => "The body is neither JSON nor text.",
        426 => "The request is not a WebSocket upgrade.",
        429 => "This address, or this visitor, exceeds a limit.",
        500 => "Internal error: the hub's log has the details.",
        503 => "The hub is full, overloaded or stopping, or the database is not available. Try again later.",
        _ => "The request was rejected.",
    }
}
