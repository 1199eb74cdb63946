//! Pages and assets: security headers, compression, caching, and framing.
//!
//! A hub that was built without the web pages responds with 501; the tests are then skipped.

use breathing_room::config::{Access, FrameAncestors};

#[cfg(debug_assertions)]
use crate::support::program::Volume;
use crate::support::request::Response;
use crate::support::{Hub, Request, skip};

/// Returns the page, or none if the hub was built without pages: the rest of the test is then skipped.
async fn page(request: Request) -> Option<Response> {
    let response = request.send().await;
    if response.status == 501 {
        assert!(
            response.text.contains("make run") && response.text.contains("npm run build"),
            "{}",
            response.text
        );
        skip("the web pages are not built (make web)");
        return None;
    }
    assert_eq!((response.status, response.header("content-type")), (200, "text/html; charset=utf-8"));
    Some(response)
}

/// The paths of the assets that a page loads.
fn files(page: &Response) -> Vec<String> {
    let quoted = page.text.split('"').filter(|text| text.starts_with("/assets/"));
    let files: Vec<String> = quoted.map(str::to_owned).collect();
    for kind in ["js", "css"] {
        let is = |file: &String| file.rsplit_once('.').is_some_and(|(_, end)| end == kind);
        assert!(files.iter().any(is), "no {kind}: {}", page.text);
    }
    files
}

#[tokio::test]
async fn pages_and_assets_have_strict_security_headers() {
    let hub = Hub::start().await;
    for (path, frames) in [("/", "frame-ancestors 'none'"), ("/room/garden", "frame-ancestors 'self'")] {
        let Some(page) = page(hub.get(path)).await else { continue };
        let policy = page.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains(frames), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert_eq!(page.header("referrer-policy"), "same-origin");
        assert_eq!(page.header("cache-control"), "no-cache");
        for file in files(&page) {
            let file = hub.get(&file).send().await;
            assert_eq!((file.status, file.header("x-content-type-options")), (200, "nosniff"));
            assert_eq!(file.header("cache-control"), "public, max-age=31536000, immutable");
        }
    }
    hub.get("/assets/secret.js").send().await.expect_error(404, "not-found");
    hub.get("/assets/..%2Findex.html").send().await.expect_error(404, "not-found");
    hub.get("/client/index.js").send().await.expect_error(404, "not-found");
    hub.get("/room/-garden").send().await.expect_error(400, "bad-room");
}

#[tokio::test]
async fn assets_are_compressed_per_accept_encoding_and_cached_by_etag() {
    let hub = Hub::start().await;
    let Some(plain) = page(hub.get("/")).await else { return };
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "accept-encoding"));
    let mut tags = vec![plain.header("etag").to_owned()];
    for (accepted, coding) in [("gzip, deflate, br, zstd", "br"), ("gzip", "gzip"), ("br;q=0, gzip", "gzip")]
    {
        let head = || Request::new(&hub.address, "HEAD", "/").header("accept-encoding", accepted);
        let response = head().send().await;
        assert_eq!((response.status, response.header("content-encoding")), (200, coding), "{accepted}");
        let length: usize = response.header("content-length").parse().unwrap();
        assert!(length < plain.text.len(), "{accepted}: {length}");
        let again = head().header("if-none-match", response.header("etag")).send().await;
        assert_eq!((again.status, again.header("etag")), (304, response.header("etag")));
        assert_eq!(again.header("cache-control"), "no-cache");
        tags.push(response.header("etag").to_owned());
    }
    tags.dedup();
    assert_eq!(tags.len(), 3, "each encoding has its own etag: {tags:?}");
    let changed = hub.get("/").header("if-none-match", "\"another\"").send().await;
    assert_eq!(changed.status, 200);
}

#[tokio::test]
async fn client_library_is_readable_by_all_origins() {
    let hub = Hub::start().await;
    if page(hub.get("/")).await.is_none() {
        hub.get("/client/breathing-room.js").send().await.expect_error(404, "not-found");
        return;
    }
    for file in ["/client/breathing-room.js", "/client/breathing-room.mjs"] {
        let script = hub.get(file).header("origin", "https://example.org").send().await;
        assert_eq!((script.status, script.header("content-type")), (200, "text/javascript; charset=utf-8"));
        assert_eq!(script.header("access-control-allow-origin"), "*");
        assert_eq!(script.header("cache-control"), "public, max-age=3600");
        let again = hub.get(file).header("if-none-match", script.header("etag")).send().await;
        assert_eq!((again.status, again.header("access-control-allow-origin")), (304, "*"));
    }
}

#[tokio::test]
async fn admin_dashboard_shows_a_token_form_without_the_token() {
    let hub = Hub::with(|config| config.http.dashboard = Access::Admin).await;
    let dashboard = page(hub.get("/").admin()).await;
    let tag = dashboard.as_ref().map_or("*", |page| page.header("etag")).to_owned();
    for token in ["", "Bearer wrong"] {
        let request = hub.get("/").header("authorization", token).header("if-none-match", &tag);
        let asking = request.send().await;
        assert_eq!((asking.status, asking.header("www-authenticate")), (401, "Bearer"));
        if dashboard.is_some() {
            assert!(asking.text.contains("<form") && asking.text.contains("type=\"password\""));
            assert!(asking.header("content-security-policy").contains("frame-ancestors 'none'"));
        }
    }
    // The dashboard's data needs the admin token too; a room's page is public.
    hub.get("/live-activity").send().await.expect_error(401, "unauthorized");
    page(hub.get("/room/garden")).await;
}

#[tokio::test]
async fn configured_frame_ancestors_apply_to_the_room_page_only() {
    let hub = Hub::with(|config| {
        config.http.frame_ancestors = FrameAncestors::parse("'self' https://example.org").unwrap();
    })
    .await;
    let Some(room) = page(hub.get("/room/lobby")).await else { return };
    let policy = room.header("content-security-policy");
    assert!(policy.ends_with("frame-ancestors 'self' https://example.org"), "{policy}");
    let dashboard = page(hub.get("/")).await.unwrap();
    assert!(dashboard.header("content-security-policy").ends_with("frame-ancestors 'none'"));
}

/// Only a debug build reads the pages from a folder; other builds embed it.
#[cfg(debug_assertions)]
#[tokio::test]
async fn hub_that_was_built_without_its_pages_says_so_at_the_start() {
    let Some(volume) = Volume::mount("1m") else { return };
    if page(Hub::start().await.get("/")).await.is_none() {
        return;
    }
    let says_so = async || {
        let output = volume.run_hub(&[("DATABASE_URL", "none"), ("RUST_LOG", "warn")]).await;
        assert_eq!(output.code, Some(1), "{output:?}");
        output.stderr.contains("the hub was built without its pages")
    };
    assert!(!says_so().await);
    volume.run(concat!("mount -t tmpfs none '", env!("CARGO_MANIFEST_DIR"), "/web/app/dist'"));
    assert!(says_so().await);
}
