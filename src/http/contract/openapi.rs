//! What HTTP answers: every endpoint, in the order of `http::routes`, as OpenAPI 3.1.
//!
//! Types are those that the handlers read and send. `tests/hub/contract.rs` compares this table with the routes.

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
use super::endpoint::{ADMIN, Endpoint, JSON, Schemas, VISITOR, Who, merge};
use crate::history::lifecycle::MaintenanceReport;
use crate::history::stats::{StatsResponse, Zone};
use crate::history::store::Migrated;
use crate::http::events::{Committed, EVENTS_LIMIT, Posting, Queued, Sender};
use crate::http::operate::{FlushReport, Health, Memory};
use crate::http::personal_data::{Data, Erasure};
use crate::http::rooms::RoomBody;
use crate::http::stats::Asking;
use crate::http::websocket::JoinParams;
use crate::presence::live_activity::LiveActivity;
use crate::protocol::schema::{one_of, reference};
use crate::protocol::{PageView, RoomId, Time, VisitorId, Watch};

/// What holds at every address.
const EVERYWHERE: &str = "An unknown address gets 404 and an unknown method 405, both with the JSON body of \
    all refusals. `HEAD` answers as `GET` does, without a body. A browser's preflight gets 204. A request whose \
    head is not HTTP, or over 16 KiB, is refused before it has an address: 400, 414 or 431 without a body. \
    The words are defined in docs/protocol.md.";

/// The document.
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
            let Endpoint { path, method, operation, schemas: known } = endpoint.tag(tag);
            paths = paths.path(path, PathItem::new(method, operation));
            merge(&mut schemas, known);
        }
    }
    let bearer = |text: &str| {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some(text.to_owned());
        SecurityScheme::Http(scheme)
    };
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme(
            ADMIN,
            bearer("The token that the hub was started with (`ADMIN_TOKEN`), or has logged."),
        )
        .security_scheme(VISITOR, bearer("A visitor's JWT: `sub` is the visitor, `exp` is required."));
    let info = InfoBuilder::new()
        .title("breathing-room")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(format!("{DESCRIPTION}\n\n{EVERYWHERE}")))
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
        Endpoint::get("/rooms/{room}", "room", "The room as it is now")
            .says("An empty room answers with zeros.")
            .named::<RoomId>("room")
            .answers_for_a_while::<RoomBody>(200, "Who is here, and in what moods."),
        Endpoint::get("/rooms/{room}/socket", "roomSocket", "Joins the room while the socket is open")
            .says(
                "A browser offers its token as the subprotocol `bearer.{token}`, beside `breathing-room.v1`, and the \
                 visitor's id, where it should stand in no address, as `visitor.{id}`. Without an upgrade this is \
                 checked in the same way, and answered with 426 where a socket would be opened.",
            )
            .named::<RoomId>("room")
            .asks::<JoinParams>()
            .knows::<VisitorId>()
            .only_for(Who::PerhapsVisitor)
            .opens_socket(),
        Endpoint::get("/live-activity", "liveActivity", "What is going on, over all rooms")
            .only_for(Who::PerhapsAdmin)
            .answers_for_a_while::<LiveActivity>(200, "At most 100 rooms, pages and contents, the largest first."),
        Endpoint::get("/live", "liveSocket", "The live activity on a socket, at once and then on change")
            .says("A browser offers the admin's token as the subprotocol `bearer.{token}`, percent-encoded.")
            .only_for(Who::PerhapsAdmin)
            .opens_socket(),
    ]
}

fn events() -> Vec<Endpoint> {
    let post = |path, id, summary, event: RefOr<Schema>| {
        Endpoint::post(path, id, summary)
            .says("An array is taken whole or refused whole. An event may be sent again: its id makes it count once.")
            .asks::<Posting>()
            .knows::<Sender>()
            .takes(one_or_many(event))
            .only_for(Who::PerhapsVisitor)
            .answers::<Queued>(202, "Taken: the next flush commits them.")
            .answers::<Committed>(200, "With `durable=true`: they are in the database.")
    };
    vec![
        post("/page-view", "pageView", "Pages were seen", reference(&PageView::name())).knows::<PageView>(),
        post("/watch-session", "watchSession", "The state of watch sessions", reference(&Watch::name()))
            .knows::<Watch>(),
        Endpoint::post("/presence", "heartbeat", "Heartbeats are over").refuses(&[410]),
    ]
}

/// One event with who and where, or an array of them.
fn one_or_many(event: RefOr<Schema>) -> RefOr<Schema> {
    let one: RefOr<Schema> = AllOfBuilder::new().item(reference(&Sender::name())).item(event).into();
    let many = ArrayBuilder::new().items(one.clone()).max_items(Some(EVENTS_LIMIT));
    OneOfBuilder::new().item(one).item(many).into()
}

fn history() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/unified-stats", "stats", "What the history says about a stretch of time")
            .says("A breakdown by a property is for the admin, unless the hub's PUBLIC_PROPS names it.")
            .only_for(Who::PerhapsAdmin)
            .asks::<Asking>()
            .knows::<Time>()
            .knows::<Zone>()
            .knows::<StatsResponse>()
            .answers_tagged("The figures.", &[JSON], reference(&StatsResponse::name())),
        Endpoint::get("/visitors/{visitor}/data", "visitorData", "Everything that is kept of a visitor")
            .named::<VisitorId>("visitor")
            .only_for(Who::VisitorOrAdmin)
            .answers_for_a_while::<Data>(200, "Archived months included; empty for somebody unknown."),
        Endpoint::delete("/visitors/{visitor}/data", "eraseVisitor", "Erases everything of a visitor")
            .named::<VisitorId>("visitor")
            .only_for(Who::VisitorOrAdmin)
            .answers::<Erasure>(200, "What was erased; zeros for somebody unknown."),
    ]
}

fn operation() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/health", "health", "How the hub does, from memory only")
            .answers_for_a_while::<Health>(200, "All is well.")
            .answers_or_refuses::<Health>(503, "The database has trouble, or the hub is full."),
        Endpoint::get("/metrics", "metrics", "All counters, for Prometheus")
            .only_for(Who::PerhapsAdmin)
            .answers_text(200, "The text format.", &["text/plain"]),
        Endpoint::post("/flush", "flush", "Everything that is pending goes to the database now")
            .only_for(Who::Admin)
            .answers::<FlushReport>(200, "It is there."),
        Endpoint::post("/init-db", "migrate", "Applies the migrations that have not been applied")
            .only_for(Who::Admin)
            .answers::<Migrated>(200, "The schema is up to date."),
        Endpoint::post("/maintain", "maintain", "Does all maintenance that is due")
            .only_for(Who::Admin)
            .answers::<MaintenanceReport>(200, "How each step went."),
        Endpoint::get("/debug", "debug", "The full memory state, bounded")
            .only_for(Who::Admin)
            .answers_for_a_while::<Memory>(200, "Down to the people in the rooms."),
    ]
}

fn files() -> Vec<Endpoint> {
    const PAGE: [&str; 1] = ["text/html"];
    const SCRIPT: [&str; 1] = ["text/javascript"];
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let not_built = |endpoint: Endpoint| {
        endpoint.answers_text(501, "The hub was built without its pages.", &["text/plain"])
    };
    let document = |path, id, summary| {
        Endpoint::get(path, id, summary).answers_tagged("The document.", &[JSON], ObjectBuilder::new())
    };
    vec![
        not_built(Endpoint::get("/", "dashboard", "The dashboard page"))
            .only_for(Who::PerhapsAdmin)
            .answers_tagged("The page.", &PAGE, text())
            .answers_text(401, "A page that asks for the admin's token.", &PAGE),
        not_built(Endpoint::get("/room/{room}", "roomPage", "A page that joins the room"))
            .named::<RoomId>("room")
            .answers_tagged("The page.", &PAGE, text()),
        Endpoint::get("/assets/{file}", "asset", "What the pages are made of")
            .in_path("file", text())
            .answers_tagged("The file.", &["text/javascript", "text/css", "image/svg+xml"], text())
            .refuses(&[404]),
        Endpoint::get("/client/{file}", "client", "The browser client, as a script and as a module")
            .in_path("file", one_of(["breathing-room.js", "breathing-room.mjs"]))
            .answers_tagged("The client.", &SCRIPT, text())
            .refuses(&[404]),
        document("/openapi.json", "openapi", "This document"),
        document("/asyncapi.json", "asyncapi", "What is said on the sockets, as AsyncAPI 3.0"),
    ]
}
