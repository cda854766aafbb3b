//! `doorbuster log`: what operators changed.

use clap::Args;
use serde_json::Value;

use crate::answer::{Answer, Failure};
use crate::api::{Api, escaped};
use crate::table::{list, shown, table};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Only what was done to this, such as campaign/spring
    #[arg(long)]
    subject: Option<String>,
    /// At most so many entries, the newest
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    /// Go on where an earlier answer ended: its next_cursor
    #[arg(long)]
    cursor: Option<String>,
}

impl Arguments {
    pub(crate) fn run(self, api: &Api) -> Result<Answer, Failure> {
        let mut path = format!("/admin/v1/audit-log?limit={}", self.limit);
        for (name, value) in [("subject", self.subject), ("cursor", self.cursor)] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", escaped(&value)));
            }
        }
        let body = api.get(&path)?;
        let row = |entry: &Value| {
            let at = |pointer: &str| shown(entry, pointer);
            [at("/at"), at("/operator"), at("/action"), at("/subject"), changed(entry)]
        };
        let rows: Vec<_> = list(&body, "entries").iter().map(row).collect();
        let mut text = table(["at", "operator", "action", "subject", "changed"], &rows);
        if let Some(cursor) = body.get("next_cursor").and_then(Value::as_str) {
            text.push_str(&format!("more: --cursor {cursor}\n"));
        }
        Ok(Answer::new(text, body))
    }
}

/// The members that are another than before, where there was something before and after.
fn changed(entry: &Value) -> String {
    let member = |name: &str| entry.get(name).and_then(Value::as_object);
    let (Some(before), Some(after)) = (member("before"), member("after")) else { return "-".to_owned() };
    let names = after.iter().filter(|(name, value)| *name != "version" && before.get(*name) != Some(value));
    let names: Vec<_> = names.map(|(name, _)| name.as_str()).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}
