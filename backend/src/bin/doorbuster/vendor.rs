//! `doorbuster vendor`.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::answer::{Answer, Failure};
use crate::api::{Api, escaped};
use crate::coupon::members;
use crate::page::{Page, more};
use crate::table::{list, shown, table};

const PATH: &str = "/admin/v1/vendors";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show vendors, by name, and what is owed to them
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Show a vendor, what is owed to it, and why, the newest first
    Show {
        /// Its name
        id: String,
        #[command(flatten)]
        page: Page,
    },
    /// Pay out what is owed to a vendor
    Payout {
        /// Its name
        id: String,
        /// Names the payout: sent again under the same key, it is not paid twice
        #[arg(long)]
        key: String,
        /// How much, in the currency's minor unit [default: all that is owed]
        #[arg(long)]
        amount: Option<u64>,
    },
}

impl Command {
    pub(crate) fn run(self, api: &Api) -> Result<Answer, Failure> {
        match self {
            Self::List { page } => api.get(&format!("{PATH}?{}", page.query())).map(all),
            Self::Show { id, page } => api.get(&format!("{PATH}/{}?{}", escaped(&id), page.query())).map(one),
            Self::Payout { id, key, amount } => {
                let body = amount.map_or_else(|| json!({}), |amount| json!({"amount": amount}));
                let path = format!("{PATH}/{}/payouts", escaped(&id));
                let body = api.post(&path, Some(&body), &[("idempotency-key", &key)])?;
                let lines = ["id", "vendor", "currency", "amount", "balance", "paid_at"];
                Ok(Answer::new(members(&body, &lines), body))
            }
        }
    }
}

fn all(body: Value) -> Answer {
    let row = |vendor: &Value| ["/id", "/currency", "/balance"].map(|pointer| shown(vendor, pointer));
    let rows: Vec<_> = list(&body, "vendors").iter().map(row).collect();
    Answer::new(table(["id", "currency", "balance"], &rows) + &more(&body), body)
}

fn one(body: Value) -> Answer {
    let row = |entry: &Value| ["/at", "/kind", "/amount", "/code", "/order_id"].map(|pointer| shown(entry, pointer));
    let rows: Vec<_> = list(&body, "entries").iter().map(row).collect();
    let head = members(&body, &["id", "currency", "balance"]);
    let rows = table(["at", "kind", "amount", "code", "order"], &rows);
    Answer::new(format!("{head}\n{rows}{}", more(&body)), body)
}
