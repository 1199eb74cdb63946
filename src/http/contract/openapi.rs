//! The OpenAPI 3.1 document: all endpoints, in the order of `http::routes`.
//!
//! The types are those that the handlers parse and send. `tests/hub/contract.rs` compares this table with the routes.

use utoipa::ToSchema;
use utoipa::openapi::path::PathItem;
use utoipa::openapi::schema::{
    AllOfBuilder, ArrayBuilder, ComponentsBuilder, ObjectBuilder, OneOfBuilder, Schema, Type,
};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{
    InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, PathsBuilder, RefOr, ServerBuilder,
};

use super::DESCRIPTION;
use super::endpoint::{ADMIN, Endpoint, JSON, Schemas, Security, VISITOR, merge};
use crate::history::calendar::Month;
use crate::history::lifecycle::MaintenanceReport;
use crate::history::stats::{StatsResponse, Zone};
use crate::history::store::Migrated;
use crate::http::cluster::{ClusterBody, VisitorsBody, VisitorsParams};
use crate::http::events::{Committed, EVENTS_LIMIT, PostParams, Queued, Sender};
use crate::http::operate::{FlushReport, Health, Memory};
use crate::http::personal_data::{Data, DataParams, ErasureBody};
use crate::http::replica::{GZIP, ReplicaBody, SQLITE};
use crate::http::rooms::RoomBody;
use crate::http::stats::StatsParams;
use crate::http::websocket::JoinParams;
use crate::presence::live_activity::LiveActivity;
use crate::protocol::schema::{one_of, reference};
use crate::protocol::{PageView, RoomId, Time, VisitorId, Watch};

/// The rules of all paths.
const COMMON_RULES: &str = "An unknown path gets 404 and an unknown method 405, both with the JSON body of all errors. \
    The response to `HEAD` is that to `GET` without the body. A browser's preflight gets 204. A request with a head \
    that is not HTTP or over 16 KiB is rejected before it is routed: 400, 414 or 431 without a body. \
    docs/protocol.md defines the terms.";

/// Builds the document.
pub(super) fn document() -> OpenApi {
    let mut schemas = Schemas::new();
    let mut paths = PathsBuilder::new();
    let parts: [(&str, Vec<Endpoint>); 5] = [
        ("live", live()),
        ("events", events()),
        ("history", history()),
        ("operation", operation()),
        ("files", files()),
    ];
    for (tag, endpoints) in parts {
        for endpoint in endpoints {
            let Endpoint { path, method, operation, schemas: new } = endpoint.tag(tag);
            paths = paths.path(path, PathItem::new(method, operation));
            merge(&mut schemas, new);
        }
    }
    let bearer = |description: &str| {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some(description.to_owned());
        SecurityScheme::Http(scheme)
    };
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme(
            ADMIN,
            bearer("The admin token: `ADMIN_TOKEN`, or the one that the hub generated and logged at start."),
        )
        .security_scheme(
            VISITOR,
            bearer("A visitor token: a JWT in which `sub` is the visitor and `exp` is required."),
        );
    let info = InfoBuilder::new()
        .title("breathing-room")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(format!("{DESCRIPTION}\n\n{COMMON_RULES}")))
        .license(Some(LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE")).build()));
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([ServerBuilder::new().url("/").build()]))
        .paths(paths)
        .components(Some(components.build()))
        .build()
}

fn live() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/rooms/{room}", "room", "The current state of a room")
            .description("For an empty room, all counts are 0.")
            .path_param::<RoomId>("room")
            .response_with_cache_control::<RoomBody>(200, "The number of visitors, and of visitors in each mood."),
        Endpoint::get("/rooms/{room}/visitors", "roomVisitors", "The visitors of a room, and the nodes they are on")
            .description("Each node is asked, for at most a second.")
            .path_param::<RoomId>("room")
            .query::<VisitorsParams>()
            .schema::<VisitorId>()
            .security(Security::Admin)
            .response_with_cache_control::<VisitorsBody>(200, "A page of visitors, by id. Empty for an empty room."),
        Endpoint::get("/rooms/{room}/socket", "roomSocket", "Joins a room for as long as the socket is open")
            .description(
                "A browser offers its token as the subprotocol `bearer.{token}`, together with `breathing-room.v1`. The \
                 subprotocol `visitor.{id}` keeps the visitor's id out of the URL. A request without an upgrade runs \
                 the same checks, and gets 426 if the upgrade would be accepted.",
            )
            .path_param::<RoomId>("room")
            .query::<JoinParams>()
            .schema::<VisitorId>()
            .security(Security::ConfiguredVisitor)
            .websocket(),
        Endpoint::get("/live-activity", "liveActivity", "The live activity over all rooms")
            .security(Security::ConfiguredAdmin)
            .response_with_cache_control::<LiveActivity>(200, "At most 100 rooms, pages and contents, largest first."),
        Endpoint::get("/live", "liveSocket", "The live activity over a socket, at once and then on change")
            .description("A browser offers the admin token as the subprotocol `bearer.{token}`, percent-encoded.")
            .security(Security::ConfiguredAdmin)
            .websocket(),
    ]
}

fn events() -> Vec<Endpoint> {
    let post = |path, id, summary, event: RefOr<Schema>| {
        Endpoint::post(path, id, summary)
            .description("An array is accepted whole or rejected whole. Events are idempotent: an event that is sent again counts once.")
            .query::<PostParams>()
            .schema::<Sender>()
            .body(one_or_many(event))
            .security(Security::ConfiguredVisitor)
            .response::<Queued>(202, "The events are queued: the next flush commits them.")
            .response::<Committed>(200, "With `durable=true`: the events are committed.")
            .errors(&[404])
    };
    vec![
        post("/page-view", "pageView", "Queues page views", reference(&PageView::name()))
            .schema::<PageView>(),
        post("/watch-session", "watchSession", "Queues states of watch sessions", reference(&Watch::name()))
            .schema::<Watch>(),
        Endpoint::post("/presence", "heartbeat", "Not supported any more").errors(&[410]),
    ]
}

/// The schema of a body: one event with its sender, or an array of them.
fn one_or_many(event: RefOr<Schema>) -> RefOr<Schema> {
    let one: RefOr<Schema> = AllOfBuilder::new().item(reference(&Sender::name())).item(event).into();
    let many = ArrayBuilder::new().items(one.clone()).max_items(Some(EVENTS_LIMIT));
    OneOfBuilder::new().item(one).item(many).into()
}

fn history() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/unified-stats", "stats", "Statistics of a period")
            .description(
                "A breakdown by a property requires the admin token, unless PUBLIC_PROPS names the property.",
            )
            .security(Security::ConfiguredAdmin)
            .query::<StatsParams>()
            .schema::<Time>()
            .schema::<Zone>()
            .schema::<StatsResponse>()
            .response_with_etag("The statistics.", &[JSON], reference(&StatsResponse::name())),
        Endpoint::get("/visitors/{visitor}/data", "visitorData", "Everything that is stored about a visitor")
            .description("In pages of about 1 MiB: `next` is the `cursor` of the next page. A page may be empty and have a `next`.")
            .path_param::<VisitorId>("visitor")
            .query::<DataParams>()
            .security(Security::VisitorOrAdmin)
            .response_with_cache_control::<Data>(
                200,
                "Includes archived months. Empty for an unknown visitor.",
            ),
        Endpoint::delete(
            "/visitors/{visitor}/data",
            "eraseVisitor",
            "Erases everything that is stored about a visitor",
        )
        .path_param::<VisitorId>("visitor")
        .security(Security::VisitorOrAdmin)
        .response::<ErasureBody>(200, "What was erased. Zeros for an unknown visitor."),
    ]
}

fn operation() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/health", "health", "The health of the hub, from memory only")
            .response_with_cache_control::<Health>(
                200,
                "The hub is healthy, or has lost other nodes of its cluster, which is no reason to send visitors elsewhere.",
            )
            .response_or_error::<Health>(503, "The hub is degraded, or full."),
        Endpoint::get("/metrics", "metrics", "All metrics, for Prometheus")
            .security(Security::ConfiguredAdmin)
            .description("404 where the hub has a private address for them (`METRICS_LISTEN`).")
            .text_response(200, "Prometheus' text format.", &["text/plain"])
            .errors(&[404]),
        Endpoint::get("/cluster", "cluster", "The nodes of the cluster")
            .security(Security::Admin)
            .response_with_cache_control::<ClusterBody>(200, "As this node sees them, at most a second ago."),
        Endpoint::get("/replica", "replica", "The sums of the records of all months")
            .security(Security::Admin)
            .response_with_cache_control::<ReplicaBody>(200, "Two nodes with the same records have the same sums."),
        Endpoint::get("/snapshot", "snapshot", "A copy of the database, for a node that joins")
            .description("One at a time. `Repr-Digest` (RFC 9530) has the SHA-256 of the copy.")
            .security(Security::Admin)
            .file_response("The database, without what belongs to this node alone.", SQLITE),
        Endpoint::get("/archives/{month}", "archive", "The archive of a month, for a node that joins")
            .path_param::<Month>("month")
            .security(Security::Admin)
            .file_response("JSON Lines, compressed.", GZIP)
            .errors(&[404]),
        Endpoint::post("/flush", "flush", "Writes all pending events to the database now")
            .security(Security::Admin)
            .response::<FlushReport>(200, "The events are committed."),
        Endpoint::post("/init-db", "migrate", "Applies pending migrations")
            .security(Security::Admin)
            .response::<Migrated>(200, "The schema is up to date."),
        Endpoint::post("/maintain", "maintain", "Runs all maintenance that is due")
            .security(Security::Admin)
            .response::<MaintenanceReport>(200, "The result of each step."),
        Endpoint::get("/debug", "debug", "The state in memory, up to a limit")
            .security(Security::Admin)
            .response_with_cache_control::<Memory>(200, "Includes the visitors in the rooms."),
    ]
}

fn files() -> Vec<Endpoint> {
    const PAGE: [&str; 1] = ["text/html"];
    const SCRIPT: [&str; 1] = ["text/javascript"];
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let not_built = |endpoint: Endpoint| {
        endpoint.text_response(501, "The hub was built without its pages.", &["text/plain"])
    };
    let document = |path, id, summary| {
        Endpoint::get(path, id, summary).response_with_etag("The document.", &[JSON], ObjectBuilder::new())
    };
    vec![
        not_built(Endpoint::get("/", "dashboard", "The dashboard page"))
            .security(Security::ConfiguredAdmin)
            .response_with_etag("The page.", &PAGE, text())
            .text_response(401, "A form for the admin token.", &PAGE),
        not_built(Endpoint::get("/room/{room}", "roomPage", "A page that joins the room"))
            .path_param::<RoomId>("room")
            .redirect(308, "The name has capital letters or spaces: the room that it means.")
            .response_with_etag("The page.", &PAGE, text())
            .errors(&[404]),
        Endpoint::get("/assets/{file}", "asset", "A script, style or image of the pages")
            .path_param_of("file", text())
            .response_with_etag("The file.", &["text/javascript", "text/css", "image/svg+xml"], text())
            .errors(&[404]),
        Endpoint::get("/client/{file}", "client", "The browser client, as a script or as an ES module")
            .path_param_of("file", one_of(["breathing-room.js", "breathing-room.mjs"]))
            .response_with_etag("The client.", &SCRIPT, text())
            .errors(&[404]),
        document("/openapi.json", "openapi", "This document"),
        document("/asyncapi.json", "asyncapi", "The messages on the sockets, as AsyncAPI 3.0"),
    ]
}
