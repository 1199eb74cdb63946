//! Detection of known bots by the `User-Agent` of a request or an upgrade.
//!
//! A bot may do everything and counts nowhere. A client without a `User-Agent` is not a bot, because load tools and
//! clients of other authors often send none.

use std::sync::LazyLock;

use axum::http::HeaderMap;
use axum::http::header::USER_AGENT;

/// The patterns of known bots: one large regular expression, compiled once.
static BOTS: LazyLock<isbot::Bots> = LazyLock::new(|| {
    let mut bots = isbot::Bots::default();
    // The default User-Agent of Android apps, including React Native.
    bots.remove(&["okhttp"]);
    bots
});

/// Returns whether a known bot sent these headers.
pub(crate) fn is_bot(headers: &HeaderMap) -> bool {
    headers.get(USER_AGENT).is_some_and(|agent| BOTS.is_bot(&String::from_utf8_lossy(agent.as_bytes())))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn known_bots_are_detected_and_browsers_are_not() {
        let is_bots = |agent: &str| {
            let agent = HeaderValue::from_bytes(agent.as_bytes()).unwrap();
            is_bot(&HeaderMap::from_iter([(USER_AGENT, agent)]))
        };
        for bot in [
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "GOOGLEBOT",
            "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm) é",
            "curl/8.5.0",
        ] {
            assert!(is_bots(bot), "{bot}");
        }
        for browser in [
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 \
             Safari/537.36",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
             Version/18.5 Mobile/15E148 Safari/604.1",
            "okhttp/4.12.0",
            "our-app é/1.0",
            "",
        ] {
            assert!(!is_bots(browser), "{browser}");
        }
        assert!(!is_bot(&HeaderMap::new()));
    }
}
