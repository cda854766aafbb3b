//! `doorbuster vendor`.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::answer::{Answer, Failure};
use crate::api::{Api, escaped};
use crate::coupon::members;
use crate::table::{list, shown, table};

const PATH: &str = "/admin/v1/vendors";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show the first hundred vendors and what is owed to them
    List,
    /// Show a vendor, what is owed to it, and why
    Show {
        /// Its name
        id: String,
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
            Self::List => api.get(&format!("{PATH}?limit=100")).map(all),
            Self::Show { id } => api.get(&format!("{PATH}/{}?limit=100", escaped(&id))).map(one),
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
    Answer::new(table(["id", "currency", "balance"], &rows), body)
}

fn one(body: Value) -> Answer {
    let row = |entry: &Value| ["/at", "/kind", "/amount", "/code", "/order_id"].map(|pointer| shown(entry, pointer));
    let rows: Vec<_> = list(&body, "entries").iter().map(row).collect();
    let head = members(&body, &["id", "currency", "balance"]);
    Answer::new(format!("{head}\n{}", table(["at", "kind", "amount", "code", "order"], &rows)), body)
}
