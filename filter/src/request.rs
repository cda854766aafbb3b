//! A request as the filter reads it: from bytes, without believing any of them.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::config::Route;

/// Prefix of the headers that are ours in both directions.
pub const OWN_HEADER_PREFIX: &str = "x-doorbuster-";

/// Path of the count, which needs no origin.
pub const COUNT_PATH: &[u8] = b"/v1/coupon/count";

/// `:path` cut into path and query; a fragment, which has no business there, is dropped.
#[must_use]
pub fn split_path(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().position(|c| *c == b'#').unwrap_or(path.len());
    let whole = path.get(..end).unwrap_or_default();
    match whole.iter().position(|c| *c == b'?') {
        Some(at) => (whole.get(..at).unwrap_or_default(), whole.get(at + 1..).unwrap_or_default()),
        None => (whole, &[]),
    }
}

/// Whether a route guards this method and path, however the path is spelled.
#[must_use]
pub fn is_guarded(routes: &[Route], method: &[u8], path: &[u8]) -> bool {
    let path = normalized(path);
    routes.iter().any(|route| route.path.as_bytes() == path.as_ref() && route.method.as_bytes() == method)
}

/// The path as an origin may understand it: percent-decoded once, slashes merged, dot segments resolved. Gateways
/// that already normalise pay one scan.
fn normalized(path: &[u8]) -> Cow<'_, [u8]> {
    let unusual = path.contains(&b'%')
        || path.windows(2).any(|pair| matches!(pair, b"//" | b"/."))
        || path.first() != Some(&b'/');
    if !unusual {
        return Cow::Borrowed(path);
    }
    let decoded: Cow<'_, [u8]> = percent_decode(path).into();
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in decoded.split(|c| *c == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let mut resolved = Vec::with_capacity(decoded.len());
    for segment in segments {
        resolved.push(b'/');
        resolved.extend_from_slice(segment);
    }
    if decoded.ends_with(b"/") {
        resolved.push(b'/');
    }
    Cow::Owned(resolved)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guarded(method: &str, path: &str) -> bool {
        let routes = [Route { method: "POST".into(), path: "/v1/coupon/issue".into() }];
        is_guarded(&routes, method.as_bytes(), split_path(path.as_bytes()).0)
    }

    #[test]
    fn every_spelling_of_a_guarded_path_is_guarded() {
        for path in [
            "/v1/coupon/issue",
            "/v1/coupon/issue?campaign=a",
            "/v1/coupon/issue#x",
            "//v1/coupon/issue",
            "/v1//coupon///issue",
            "/v1/./coupon/issue",
            "/v1/x/../coupon/issue",
            "/../v1/coupon/issue",
            "/v1/coupon/%69ssue",
            "/v1%2fcoupon%2Fissue",
            "/%2e%2e/v1/coupon/issue",
        ] {
            assert!(guarded("POST", path), "{path}");
        }
    }

    #[test]
    fn other_paths_and_methods_are_not() {
        for path in [
            "/",
            "",
            "*",
            "/v1/coupon/count",
            "/v1/coupon/issue/",
            "/v1/coupon/issue/x",
            "/v1/coupon/%2569ssue",
            "/V1/coupon/issue",
        ] {
            assert!(!guarded("POST", path), "{path}");
        }
        assert!(!guarded("GET", "/v1/coupon/issue"));
    }

    #[test]
    fn a_path_is_cut_at_the_first_question_mark() {
        assert_eq!(split_path(b"/a?b?c#d"), (b"/a".as_slice(), b"b?c".as_slice()));
        assert_eq!(split_path(b"/a#b?c"), (b"/a".as_slice(), b"".as_slice()));
        assert_eq!(split_path(b"?"), (b"".as_slice(), b"".as_slice()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(path: Vec<u8>, method: Vec<u8>) {
            let (path, _) = split_path(&path);
            let routes = [Route { method: "POST".into(), path: "/a".into() }];
            let _ = is_guarded(&routes, &method, path);
        }
    }
}
