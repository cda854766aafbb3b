//! Reading JSON field by field, so that everything wrong with it is said at once.

use doorbuster_domain::schedule::FieldError;
use serde_json::{Map, Value};

/// Longest text for people, characters.
const LONGEST_TEXT: usize = 200;

/// What a value is told that is no text.
pub(crate) fn must_be_text() -> String {
    "must be a text".to_owned()
}

/// An integer within bounds, or what it must be.
pub(crate) fn integer(value: &Value, least: u64, most: u64) -> Result<u64, String> {
    value
        .as_u64()
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
