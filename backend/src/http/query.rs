//! Query parameters, read from bytes that nothing vouches for.

use std::str::FromStr;

use doorbuster_domain::schedule::FieldError;
use percent_encoding::percent_decode_str;

/// Items on a page unless the request says otherwise.
const DEFAULT_LIMIT: u32 = 20;

/// Most items on a page.
const LARGEST_LIMIT: u32 = 100;

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

/// A parameter that may be left out; `what` says what it must be.
pub(super) fn optional<T>(
    query: &str,
    errors: &mut Vec<FieldError>,
    (name, what): (&str, &str),
    parse: impl FnOnce(&str) -> Option<T>,
) -> Option<T> {
    match one(query, name).map(|text| text.map(|text| parse(&text))) {
        Ok(None) => None,
        Ok(Some(Some(value))) => Some(value),
        Ok(Some(None)) | Err(_) => {
            errors.push(FieldError::new(name, format!("must be given once, {what}")));
            None
        }
    }
}

/// A number in plain digits.
pub(super) fn natural<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Which page of a list is asked for.
#[derive(Debug)]
pub(super) struct Page<C> {
    /// Most items on it.
    limit: u32,
    /// Where the page before it ended; none for the first page.
    pub(super) after: Option<C>,
}

/// Reads `limit` and `cursor`.
pub(super) fn page<C>(
    query: &str,
    errors: &mut Vec<FieldError>,
    parse_cursor: impl FnOnce(&str) -> Option<C>,
) -> Page<C> {
    let parse_limit = |text: &str| natural(text).filter(|limit| (1..=LARGEST_LIMIT).contains(limit));
    let limit = optional(query, errors, ("limit", "an integer from 1 to 100"), parse_limit).unwrap_or(DEFAULT_LIMIT);
    Page { limit, after: cursor(query, errors, parse_cursor) }
}

/// Reads `cursor`: where an earlier reply ended.
pub(super) fn cursor<C>(query: &str, errors: &mut Vec<FieldError>, parse: impl FnOnce(&str) -> Option<C>) -> Option<C> {
    optional(query, errors, ("cursor", "a next_cursor of an earlier reply"), parse)
}

/// Complains of every parameter that is not among those `known`.
pub(super) fn nothing_but(query: &str, errors: &mut Vec<FieldError>, known: &[&str]) {
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = percent_decode_str(pair.split_once('=').map_or(pair, |(name, _)| name)).decode_utf8_lossy();
        if !known.contains(&&*name) {
            errors.push(FieldError::new(name.as_ref(), format!("has no meaning here; known are {}", known.join(", "))));
        }
    }
}

impl<C> Page<C> {
    /// How many items to ask for: one more than is shown tells whether there is a next page.
    pub(super) fn asked(&self) -> u32 {
        self.limit + 1
    }

    /// The items to show, and the cursor of the last one if there is a next page.
    pub(super) fn cut<T>(&self, mut items: Vec<T>, cursor: impl FnOnce(&T) -> String) -> (Vec<T>, Option<String>) {
        let has_more = items.len() > self.limit as usize;
        items.truncate(self.limit as usize);
        let next_cursor = items.last().filter(|_| has_more).map(cursor);
        (items, next_cursor)
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

    #[test]
    fn what_has_no_meaning_is_named() {
        let complaints = |query: &str| {
            let mut errors = Vec::new();
            nothing_but(query, &mut errors, &["campaign", "cursor"]);
            errors.into_iter().map(|error| error.field).collect::<Vec<_>>()
        };
        assert_eq!(complaints(""), [""; 0]);
        assert_eq!(complaints("c%61mpaign=x&cursor&&campaign=limit"), [""; 0]);
        assert_eq!(complaints("campagin=x&cursor=1&limit=2&=3&%ff"), ["campagin", "limit", "", "\u{fffd}"]);
    }
}
