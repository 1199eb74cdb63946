//! Entity tags: whether the client has already what it asks for (RFC 9110, section 13.1.2).
//!
//! The comparison is the weak one: a proxy that compresses makes tags weak.

use axum::http::HeaderMap;
use axum::http::header::IF_NONE_MATCH;

/// The tag of a content with this hash: 128 bits of it.
pub(super) fn tag_of(hash: &[u8]) -> String {
    format!("\"{:032x}\"", hash.iter().take(16).fold(0_u128, |all, byte| all << 8 | u128::from(*byte)))
}

/// Whether an `If-None-Match` of the request holds this tag.
pub(super) fn is_known(request: &HeaderMap, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let lists = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|known| known.trim() == "*" || opaque(known) == opaque(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_in_a_list_whether_weak_or_strong() {
        let request = |tags: &str| HeaderMap::from_iter([(IF_NONE_MATCH, tags.parse().unwrap())]);
        for tag in ["\"a\"", "W/\"a\""] {
            for tags in ["\"a\"", "W/\"a\"", "\"b\", \"a\"", "\"b\",W/\"a\"", "*"] {
                assert!(is_known(&request(tags), tag), "{tags}");
            }
            for tags in ["", "\"b\"", "a", "\"ab\""] {
                assert!(!is_known(&request(tags), tag), "{tags}");
            }
            assert!(!is_known(&HeaderMap::new(), tag));
        }
    }
}
