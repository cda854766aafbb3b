//! `doorbuster coupon`.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::answer::{Answer, Failure};
use crate::api::{Api, escaped};
use crate::campaign::discount;
use crate::table::{card, shown};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show a coupon and whose it is
    Show {
        /// Its code
        code: String,
    },
    /// Redeem a user's coupon for an order, as the shop's server does
    Redeem {
        /// Its code
        code: String,
        /// Whose it is
        #[arg(long)]
        user: String,
        /// The shop's name for the order
        #[arg(long)]
        order: String,
        /// What the order costs, in the currency's minor unit
        #[arg(long)]
        amount: u64,
    },
    /// Take a coupon back
    Void {
        /// Its code
        code: String,
        /// Why
        #[arg(long)]
        reason: String,
        /// A redeemed one, too; what the vendor was credited is taken back
        #[arg(long)]
        reverse: bool,
    },
}

impl Command {
    pub(crate) fn run(self, api: &Api) -> Result<Answer, Failure> {
        let path = |code: &str| format!("/admin/v1/coupons/{}", escaped(code));
        match self {
            Self::Show { code } => api.get(&path(&code)).map(show),
            Self::Redeem { code, user, order, amount } => {
                let body = json!({"user": user, "order_id": order, "order_amount": amount});
                let body = api.post(&format!("{}/redeem", path(&code)), Some(&body), &[])?;
                let lines = ["code", "order_id", "order_amount", "discount_amount", "redeemed_at"];
                Ok(Answer::new(members(&body, &lines), body))
            }
            Self::Void { code, reason, reverse } => {
                let body = json!({"reason": reason, "reverse": reverse});
                let body = api.post(&format!("{}/void", path(&code)), Some(&body), &[])?;
                Ok(Answer::new(members(&body, &["code", "reason", "reversed", "voided_at"]), body))
            }
        }
    }
}

fn show(body: Value) -> Answer {
    let coupon = body.get("coupon").unwrap_or(&Value::Null);
    let at = |pointer: &str| shown(coupon, pointer);
    let text = card(&[
        ("code", at("/code")),
        ("user", at("/user")),
        ("vendor", at("/vendor")),
        ("campaign", at("/campaign")),
        ("round", at("/round")),
        ("number", at("/number")),
        ("issued", at("/issued_at")),
        ("redeemable", format!("{} to {}", at("/redeemable_from"), at("/redeemable_until"))),
        ("discount", discount(coupon)),
        ("least order", format!("{} {}", at("/min_order_amount"), at("/currency"))),
        ("redeemed", at("/redemption/redeemed_at")),
        ("voided", at("/void/voided_at")),
    ]);
    Answer::new(text, body)
}

/// An object's members, a line each.
pub(crate) fn members(body: &Value, names: &[&'static str]) -> String {
    card(&names.iter().map(|name| (*name, shown(body, &format!("/{name}")))).collect::<Vec<_>>())
}
