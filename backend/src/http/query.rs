//! Query parameters, read from bytes that nothing vouches for.

use percent_encoding::percent_decode_str;

/// The decoded value of a parameter: none if it is left out.
///
/// # Errors
/// If it is given twice or is not UTF-8.
pub(super) fn one(query: &str, name: &str) -> Result<Option<String>, &'static str> {
    let mut values = query.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        percent_decode_str(key).eq(name.bytes()).then_some(value)
    });
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match percent_decode_str(value).decode_utf8() {
            Ok(text) => Ok(Some(text.into_owned())),
            Err(_) => Err("is not UTF-8"),
        },
        (Some(_), Some(_)) => Err("is given twice"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_given_once_or_not_at_all() {
        assert_eq!(one("", "limit"), Ok(None));
        assert_eq!(one("a=1&l%69mit=%31", "limit"), Ok(Some("1".to_owned())));
        assert_eq!(one("limit", "limit"), Ok(Some(String::new())));
        assert_eq!(one("limit=1&limit=1", "limit"), Err("is given twice"));
        assert_eq!(one("limit=%ff", "limit"), Err("is not UTF-8"));
    }
}
