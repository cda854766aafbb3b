//! Reading JSON field by field, so that everything wrong with it is said at once.

use doorbuster_domain::discount::LARGEST_AMOUNT;
use doorbuster_domain::schedule::FieldError;
use serde_json::{Map, Value};

/// Longest text for people, characters.
const LONGEST_TEXT: usize = 200;

/// What a value is told that is no text.
pub(crate) fn must_be_text() -> String {
    "must be a text".to_owned()
}

/// An integer within bounds, or what it must be. `3.0` is one, as it is to JSON Schema and to who writes every number as a
/// float; the bounds are such that a float holds them exactly.
pub(crate) fn integer(value: &Value, least: u64, most: u64) -> Result<u64, String> {
    let whole = |number: &f64| number.fract() == 0.0 && (0.0..=LARGEST_AMOUNT as f64).contains(number);
    value
        .as_u64()
        .or_else(|| value.as_f64().filter(whole).map(|number| number as u64))
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("must be an integer from {least} to {most}"))
}

/// One JSON object and its place in the whole.
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: &'static str,
}

impl<'a> Fields<'a> {
    /// None, and an error, if `value` is no object. Unknown fields are errors too.
    pub(crate) fn of(
        value: &'a Value,
        path: &'static str,
        known: &[&str],
        errors: &mut Vec<FieldError>,
    ) -> Option<Self> {
        let Some(map) = value.as_object() else {
            errors.push(FieldError::new(path, "must be an object"));
            return None;
        };
        let fields = Self { map, path };
        for name in map.keys().filter(|name| !known.contains(&name.as_str())) {
            errors.push(fields.error(name, format!("is not a field; known are {}", known.join(", "))));
        }
        Some(fields)
    }

    /// A field's value, if it is there.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name)
    }

    /// An error at a field of this object.
    pub(crate) fn error(&self, name: &str, message: impl Into<String>) -> FieldError {
        let error = FieldError::new(name, message);
        if self.path.is_empty() { error } else { error.within(self.path) }
    }

    /// A field's value; an error if it is missing.
    pub(crate) fn required(&self, name: &str, errors: &mut Vec<FieldError>) -> Option<&'a Value> {
        let value = self.map.get(name);
        if value.is_none() {
            errors.push(self.error(name, "is missing"));
        }
        value
    }

    /// A field's value, as `check` reads it; an error if it is missing or does not hold.
    pub(crate) fn read<T>(
        &self,
        name: &str,
        errors: &mut Vec<FieldError>,
        check: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        check(self.required(name, errors)?).map_err(|message| errors.push(self.error(name, message))).ok()
    }

    /// A text for people. PostgreSQL holds no NUL, and nobody wants the other control characters.
    pub(crate) fn text(&self, name: &str, errors: &mut Vec<FieldError>) -> Option<String> {
        self.read(name, errors, |value| {
            value
                .as_str()
                .filter(|text| !text.trim().is_empty() && text.chars().count() <= LONGEST_TEXT)
                .filter(|text| !text.chars().any(char::is_control))
                .map(str::to_owned)
                .ok_or_else(|| format!("must be a text of 1 to {LONGEST_TEXT} characters without control characters"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_may_be_written_as_a_float() {
        let read = |text: &str| integer(&serde_json::from_str(text).unwrap(), 1, LARGEST_AMOUNT).ok();
        for (text, number) in [
            ("3983", Some(3_983)),
            ("3983.0", Some(3_983)),
            ("4e3", Some(4_000)),
            ("9007199254740991.0", Some(LARGEST_AMOUNT)),
            ("9007199254740992.0", None),
            ("9007199254740992", None),
            ("1e300", None),
            ("0.0", None),
            ("-1.0", None),
            ("3.5", None),
            ("\"3\"", None),
            ("null", None),
        ] {
            assert_eq!(read(text), number, "{text}");
        }
    }
}
