//! The report for people.

use std::fmt::{self, Display, Formatter};

use doorbuster_domain::id::{CampaignId, RoundId};

use super::Report;

/// So many defects are listed; JSON has them all.
const LISTED: usize = 100;

/// A report, and what it is about.
pub(super) struct Table<'a> {
    pub(super) campaign: &'a CampaignId,
    pub(super) round: RoundId,
    pub(super) report: &'a Report,
}

impl Display for Table<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { campaign, round, report } = self;
        let sums = &report.sums;
        let row = |f: &mut Formatter<'_>, what: &str, value: Option<u64>, who: &str| {
            let value = value.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
            writeln!(f, "  {what:<44} {value:>12}  {who}")
        };
        let quota = report.quota.map_or_else(|| "no quota".to_owned(), |quota| format!("quota {quota}"));
        writeln!(f, "{campaign}, round {round}, {quota}\n")?;
        row(f, "requests", Some(sums.requests), "gateways, as far as they have told")?;
        for (code, count) in &sums.refused_by_gateways {
            row(f, &format!("- refused there: {code}"), Some(*count), "gateways")?;
        }
        row(f, "= admitted", Some(sums.admitted), "gateways")?;
        row(f, "  of these: issued", Some(sums.issued), "PostgreSQL")?;
        row(f, "  + failed for good", Some(sums.failed), "PostgreSQL")?;
        row(f, "  + pending", sums.pending, "Redis")?;
        row(f, "  + refused by the backend, or unanswered", sums.refused_or_lost, "what remains")?;
        writeln!(f)?;
        row(f, "users with a coupon", Some(sums.issued), "PostgreSQL")?;
        row(f, "  settled in Redis", sums.committed_in_redis, "Redis")?;
        row(f, "  committed, not yet settled", Some(sums.unsettled), "both")?;
        row(f, "highest number given", Some(sums.highest_number), "both")?;
        row(f, "  numbers given back", Some(sums.free), "Redis")?;
        row(f, "coupons that clients were told of", Some(sums.seen), "clients")?;
        for unknown in &report.unknown {
            writeln!(f, "\nunknown: {unknown}.")?;
        }
        writeln!(f)?;
        if report.defects.is_empty() {
            return write!(f, "Everything fits.");
        }
        for defect in report.defects.iter().take(LISTED) {
            writeln!(f, "BROKEN: {defect}")?;
        }
        let more = report.defects.len().saturating_sub(LISTED);
        if more > 0 {
            writeln!(f, "and {more} more; --json lists all")?;
        }
        write!(f, "{} defects.", report.defects.len())
    }
}
