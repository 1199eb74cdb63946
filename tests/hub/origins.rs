//! Origins: which sites may open sockets, post events and read responses (CORS).

use std::num::NonZeroU32;

use breathing_room::config::{AllowedOrigins, Limits};

use crate::support::request::Response;
use crate::support::{Hub, Request};
use crate::tokens::page_view;

const APP: &str = "https://app.example.org";
const EVIL: &str = "https://evil.example.org";

async fn hub_for(origins: &str) -> Hub {
    let origins = AllowedOrigins::parse(origins).unwrap();
    Hub::with(|config| config.http.allowed_origins = origins).await
}

async fn from(origin: &str, request: Request) -> Response {
    request.header("origin", origin).send().await
}

/// The CORS headers with which a page of this origin can read the response.
fn expect_readable(response: &Response, origin: &str) {
    assert_eq!(response.header("access-control-allow-origin"), origin, "{response:?}");
    assert_eq!(response.header("access-control-allow-credentials"), "true");
    assert!(response.header("vary").contains("Origin"), "{response:?}");
}

/// The CORS headers with which any page can read the response, without credentials.
fn expect_readable_by_all(response: &Response) {
    assert_eq!(response.header("access-control-allow-origin"), "*", "{response:?}");
    assert_eq!(response.header("access-control-allow-credentials"), "");
}

fn expect_unreadable(response: &Response) {
    assert_eq!(response.header("access-control-allow-origin"), "", "{response:?}");
    assert!(response.header("vary").contains("Origin"), "{response:?}");
}

#[tokio::test]
async fn socket_from_a_foreign_origin_is_rejected() {
    let hub = Hub::start().await;
    let own = format!("http://{}", hub.address);
    for path in ["/rooms/lobby/socket", "/live"] {
        let upgrade = || hub.get(path).upgrade();
        assert_eq!(upgrade().send().await.status, 101, "a request without Origin is not from a page");
        for origin in [own.as_str(), "http://localhost:5173", "https://[::1]"] {
            assert_eq!(from(origin, upgrade()).await.status, 101, "{origin}");
        }
        for origin in [EVIL, APP, "null", "http://localhost.evil.example.org"] {
            from(origin, upgrade()).await.expect_error(403, "forbidden-origin");
        }
    }
    let hub = hub_for(APP).await;
    let upgrade = || hub.get("/rooms/lobby/socket").upgrade();
    assert_eq!(from(APP, upgrade()).await.status, 101);
    for origin in [EVIL, "http://app.example.org", "http://localhost", &format!("http://{}", hub.address)] {
        from(origin, upgrade()).await.expect_error(403, "forbidden-origin");
    }
    let hub = hub_for("*").await;
    for origin in [EVIL, "null"] {
        assert_eq!(from(origin, hub.get("/live").upgrade()).await.status, 101, "{origin}");
    }
}

#[tokio::test]
async fn plain_get_of_a_socket_from_a_page_of_the_hubs_own_host_says_whether_its_origin_is_allowed() {
    let hub = hub_for(APP).await;
    // A browser sends no `Origin` with a GET at the page's own host.
    let from_page = |hub: &Hub, page: &str| {
        let referer = format!("{page}/room/lobby?a=b");
        hub.get("/rooms/lobby/socket").header("referer", &referer).send()
    };
    let own = format!("http://{}", hub.address);
    from_page(&hub, &own).await.expect_error(403, "forbidden-origin");
    from_page(&hub, APP).await.expect_error(426, "upgrade-required");
    hub.get("/rooms/lobby").header("referer", &own).send().await.expect(200);
    let hub = Hub::start().await;
    let own = format!("http://{}", hub.address);
    from_page(&hub, &own).await.expect_error(426, "upgrade-required");
}

#[tokio::test]
async fn beacon_from_a_foreign_origin_is_rejected() {
    let hub = hub_for(&format!("self,{APP}")).await;
    let view = page_view("ann", "lobby").to_string();
    let beacon = || hub.post("/page-view").header("content-type", "text/plain").body(view.clone());
    for origin in [EVIL, "null", "http://localhost"] {
        let rejected = from(origin, beacon()).await;
        rejected.expect_error(403, "forbidden-origin");
        expect_readable_by_all(&rejected);
    }
    assert_eq!(hub.get("/health").send().await.expect(200)["pendingPageViews"], 0);
    let accepted = from(APP, beacon()).await;
    accepted.expect(202);
    expect_readable(&accepted, APP);
    // Errors have CORS headers too.
    let rejected = from(APP, hub.post("/page-view").body("{")).await;
    rejected.expect_error(400, "bad-json");
    expect_readable(&rejected, APP);
    let any = hub_for("*").await;
    expect_readable(&from(EVIL, any.post("/page-view").body(view.clone())).await, EVIL);
    beacon().send().await.expect(202);
}

#[tokio::test]
async fn preflight_lists_allowed_methods_and_headers() {
    let hub = hub_for(APP).await;
    let ask = |path| {
        Request::new(&hub.address, "OPTIONS", path)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type")
    };
    for path in ["/page-view", "/watch-session", "/flush"] {
        let response = from(APP, ask(path)).await;
        assert_eq!((response.status, response.text.as_str()), (204, ""));
        expect_readable(&response, APP);
        assert!(response.header("access-control-allow-methods").contains("POST"));
        let allowed = "authorization, content-type, content-encoding, visitor";
        assert_eq!(response.header("access-control-allow-headers"), allowed);
        assert_eq!(response.header("access-control-max-age"), "7200");
        let rejected = from(EVIL, ask(path)).await;
        rejected.expect_error(403, "forbidden-origin");
        expect_readable_by_all(&rejected);
    }
    ask("/page-view").send().await.expect_error(405, "method-not-allowed");
}

#[tokio::test]
async fn errors_are_readable_by_allowed_origins() {
    let origins = AllowedOrigins::parse(APP).unwrap();
    let hub = Hub::with(|config| {
        config.http.allowed_origins = origins;
        config.transport.limits = Some(Limits { posts: NonZeroU32::MIN, ..Limits::DEFAULT });
    })
    .await;
    let unknown = from(APP, hub.get("/nowhere")).await;
    unknown.expect_error(404, "not-found");
    expect_readable(&unknown, APP);
    let too_fast = loop {
        let response = from(APP, hub.post("/presence")).await;
        if response.status == 429 {
            break response;
        }
    };
    expect_readable(&too_fast, APP);
    assert_eq!(too_fast.header("access-control-expose-headers"), "Retry-After");
}

#[tokio::test]
async fn public_reads_are_readable_by_allowed_origins_only() {
    let hub = hub_for(APP).await;
    for path in ["/rooms/lobby", "/live-activity", "/unified-stats?range=24h", "/health"] {
        let response = from(APP, hub.get(path)).await;
        response.expect(200);
        expect_readable(&response, APP);
        // A cache must not serve one site's response to another site.
        for other in [from(EVIL, hub.get(path)).await, hub.get(path).send().await] {
            other.expect(200);
            expect_unreadable(&other);
        }
    }
    // The client library is readable by all origins.
    let library = from(EVIL, hub.get("/client/breathing-room.js")).await;
    if library.status == 200 {
        assert_eq!(library.header("access-control-allow-origin"), "*");
        assert_eq!(library.header("access-control-allow-credentials"), "");
    }
}
