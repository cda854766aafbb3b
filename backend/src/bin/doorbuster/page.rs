//! Lists that come in pages.

use clap::Args;
use serde_json::Value;

use crate::api::escaped;

/// Which part of a list.
#[derive(Args)]
pub(crate) struct Page {
    /// At most so many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    /// Go on where an earlier answer ended: its next_cursor
    #[arg(long)]
    cursor: Option<String>,
}

impl Page {
    /// A query that asks for it.
    pub(crate) fn query(&self) -> String {
        let cursor = self.cursor.as_deref().map(|cursor| format!("&cursor={}", escaped(cursor))).unwrap_or_default();
        format!("limit={}{cursor}", self.limit)
    }
}

/// How to go on after this answer; nothing after the last page.
pub(crate) fn more(body: &Value) -> String {
    let cursor = body.get("next_cursor").and_then(Value::as_str);
    cursor.map(|cursor| format!("more: --cursor {cursor}\n")).unwrap_or_default()
}
