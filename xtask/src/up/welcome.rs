//! The demonstration campaign.

use anyhow::{Context, bail};
use doorbuster_e2e::http;
use doorbuster_e2e::operator::{Operator, scheduled};
use doorbuster_e2e::postgres::{Postgres, query};
use serde_json::json;

use crate::console::step;

/// Its id; it is also the default campaign.
pub(super) const CAMPAIGN: &str = "welcome";
const QUOTA: u64 = 100;

/// Creates it on the first start; later ones leave it as its operator has made it.
pub(super) fn create(operator: &Operator, postgres: &Postgres, database: &str) -> anyhow::Result<()> {
    let found = operator.campaign(CAMPAIGN)?;
    match found.status {
        200 => Ok(()),
        404 => {
            step(&format!("creating the campaign {CAMPAIGN}: open all day, {QUOTA} a day"));
            let rows = query(&postgres.bin, &postgres.url(database), "SELECT (now() AT TIME ZONE 'UTC')::date")?;
            let today = rows.first().and_then(|row| row.first()).context("PostgreSQL does not know the date")?;
            let schedule = json!({
                "timezone": "UTC", "first_day": today, "last_day": "2099-12-31", "opens": "00:00", "closes": "24:00",
            });
            operator.put_campaign(CAMPAIGN, &scheduled(QUOTA, &schedule)).map(drop)
        }
        status => bail!("the operator API answers {status} when asked for the campaign {CAMPAIGN}: {}", found.body),
    }
}

/// Whether a gateway has heard of it from a backend.
pub(super) fn is_known_at(gateway: &str) -> bool {
    http::get(&format!("{gateway}/v1/coupon/count?campaign={CAMPAIGN}")).is_ok_and(|reply| reply.status == 200)
}
