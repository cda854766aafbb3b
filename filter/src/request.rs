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

/// Whether a route guards this path, however it is spelled, for this method. `method` is asked for only where it matters.
#[must_use]
pub fn is_guarded(routes: &[Route], path: &[u8], method: impl FnOnce() -> Vec<u8>) -> bool {
    let path = normalized(path);
    let mut matching = routes.iter().filter(|route| route.path.as_bytes() == path.as_ref());
    let Some(first) = matching.next() else { return false };
    let mut methods = std::iter::once(first).chain(matching).map(|route| route.method.as_ref());
    if methods.clone().any(|method| method.is_none()) {
        return true;
    }
    let asked = method();
    methods.any(|method| method.is_some_and(|method| method.as_bytes() == asked))
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
        let routes = [Route { method: Some("POST".into()), path: "/v1/coupon/issue".into() }];
        is_guarded(&routes, split_path(path.as_bytes()).0, || method.into())
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
    fn a_method_is_asked_for_only_where_it_matters() {
        let route = |method: Option<&str>, path: &str| Route { method: method.map(Into::into), path: path.into() };
        let routes = [route(Some("POST"), "/a"), route(Some("PUT"), "/a"), route(None, "/b"), route(Some("PUT"), "/b")];
        assert!(is_guarded(&routes, b"/a", || b"PUT".to_vec()));
        assert!(!is_guarded(&routes, b"/a", || b"GET".to_vec()));
        let unasked = || -> Vec<u8> { unreachable!("the path decides") };
        assert!(is_guarded(&routes, b"/b", unasked));
        assert!(!is_guarded(&routes, b"/c", unasked));
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
            let routes = [Route { method: Some("POST".into()), path: "/a".into() }];
            let _ = is_guarded(&routes, path, || method);
        }
    }
}
