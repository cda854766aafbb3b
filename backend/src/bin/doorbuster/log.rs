//! `doorbuster log`: what operators changed.

use clap::Args;
use serde_json::Value;

use crate::answer::{Answer, Failure};
use crate::api::{Api, escaped};
use crate::page::{Page, more};
use crate::table::{list, shown, table};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Only what was done to this, such as campaign/spring
    #[arg(long)]
    subject: Option<String>,
    #[command(flatten)]
    page: Page,
}

impl Arguments {
    pub(crate) fn run(self, api: &Api) -> Result<Answer, Failure> {
        let subject = self.subject.map(|subject| format!("&subject={}", escaped(&subject))).unwrap_or_default();
        let body = api.get(&format!("/admin/v1/audit-log?{}{subject}", self.page.query()))?;
        let row = |entry: &Value| {
            let at = |pointer: &str| shown(entry, pointer);
            [at("/at"), at("/operator"), at("/action"), at("/subject"), changed(entry)]
        };
        let rows: Vec<_> = list(&body, "entries").iter().map(row).collect();
        let text = table(["at", "operator", "action", "subject", "changed"], &rows);
        Ok(Answer::new(text + &more(&body), body))
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
