//! Tables for people.

use serde_json::Value;

/// Rows in columns as wide as what they hold, under headings in capitals.
pub(crate) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = headings.map(|heading| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let heading = line(&headings.map(str::to_uppercase));
    heading + &rows.iter().map(line).collect::<String>()
}

/// One thing: its names and values, a line each.
pub(crate) fn card(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    lines.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// A member of a JSON object as people read it; a pointer as in RFC 6901 says which. Nothing is `-`. What could move the
/// cursor is left out: texts come from others.
pub(crate) fn shown(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.chars().filter(|c| !c.is_control()).collect(),
        Some(other) => other.to_string(),
    }
}

/// The elements of a list among an object's members.
pub(crate) fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_they_hold() {
        let rows = [["spring".to_owned(), "1".to_owned()], ["ä".to_owned(), "22".to_owned()]];
        assert_eq!(table(["id", "quota"], &rows), "ID      QUOTA\nspring  1\nä       22\n");
        assert_eq!(card(&[("id", "a".to_owned()), ("quota", "b".to_owned())]), "id     a\nquota  b\n");
        assert_eq!(shown(&serde_json::json!({"a": "\u{1b}[2Jx"}), "/a"), "[2Jx");
    }
}
