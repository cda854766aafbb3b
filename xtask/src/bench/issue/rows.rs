//! The same rows alone: `commit_coupons` called without anybody who asked for a coupon.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use doorbuster_domain::code::CouponCode;
use doorbuster_e2e::Stack;
use doorbuster_e2e::process::forget_own_settings;

use super::crowd::output;
use super::table::Pace;

/// Places to be committed: `bench_commit` takes those of some numbers and makes each a copy, but for holder and code, of
/// the coupon 1 of the campaign.
const PREPARE: &str = "
CREATE UNLOGGED TABLE bench_places (number bigint PRIMARY KEY, user_id text NOT NULL, code text NOT NULL);
CREATE SEQUENCE bench_slice;
CREATE FUNCTION bench_commit(p_campaign text, p_first bigint, p_count bigint) RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FILTER (WHERE committed.outcome = 'issued')
      FROM (SELECT coupons.*, rounds.epoch FROM coupons JOIN rounds USING (campaign, round)
             WHERE campaign = p_campaign AND number = 1) first,
           LATERAL (SELECT array_agg(code) AS codes, array_agg(user_id) AS users, array_agg(number) AS numbers,
                           ARRAY[count(*)::int] AS dimension
                      FROM bench_places WHERE number >= p_first AND number < p_first + p_count) places,
           commit_coupons(first.campaign, first.round, places.codes, places.users, places.numbers,
                          array_fill(first.epoch, dimension), array_fill(first.issued_at, dimension),
                          array_fill(first.redeemable_from, dimension), array_fill(first.redeemable_until, dimension),
                          array_fill(first.terms, dimension), array_fill(first.version, dimension)) committed
$$;
";

/// PostgreSQL's programs and a database with places prepared.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    bin: PathBuf,
    folder: PathBuf,
    places: u64,
}

impl Rows {
    /// Prepares places 1 to `places` in a stack's database.
    pub(super) fn prepare(stack: &Stack, bin: &Path, folder: &Path, places: u64) -> anyhow::Result<Self> {
        let path = folder.join("places.tsv");
        let mut text = String::new();
        for number in 1..=places {
            // An odd factor: no two numbers give one code.
            let code = CouponCode::from_random(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let _infallible = writeln!(text, "{number}\tfill{number:012}\t{code}");
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        stack.sql(PREPARE)?;
        stack.sql(&format!("\\copy bench_places from '{}'", path.display()))?;
        stack.sql("ANALYZE bench_places")?;
        Ok(Self { bin: bin.to_owned(), folder: folder.to_owned(), places })
    }

    /// Commits a campaign's places from `first` up to the one before `end`, a thousand at a time.
    pub(super) fn fill(&self, stack: &Stack, campaign: &str, first: u64, end: u64) -> anyhow::Result<()> {
        ensure!(end <= self.places + 1, "only {} places are prepared", self.places);
        let rows = stack.sql(&format!(
            "SELECT sum(bench_commit('{campaign}', page, least(1000, {end} - page)))
               FROM generate_series({first}::bigint, {end} - 1, 1000) AS page"
        ))?;
        let filled = rows.first().and_then(|row| row.first()?.parse::<u64>().ok()).unwrap_or_default();
        ensure!(filled == end - first, "{filled} of {} coupons went in", end - first);
        Ok(())
    }

    /// One connection commits batch after batch, as a round's commits do; the pace is that of coupons, the times are
    /// those of a batch.
    pub(super) fn measure(&self, stack: &Stack, campaign: &str, batch: u64, seconds: u32) -> anyhow::Result<Pace> {
        let script = self.folder.join("rows.sql");
        // Place 1 is the coupon that all are copied from.
        let text = format!("SELECT bench_commit('{campaign}', (nextval('bench_slice') - 1) * {batch} + 2, {batch});\n");
        fs::write(&script, text).with_context(|| format!("cannot write {}", script.display()))?;
        let log = self.folder.join("rows");
        for old in logs(&self.folder)? {
            fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
        let next = format!(
            "SELECT setval('bench_slice', (SELECT max(number) / {batch} + 1 FROM coupons WHERE campaign = '{campaign}'))"
        );
        stack.sql(&next)?;
        let count = format!("SELECT count(*) FROM coupons WHERE campaign = '{campaign}'");
        let before = number(stack, &count)?;
        let program = self.bin.join("pgbench");
        let mut pgbench = Command::new(&program);
        forget_own_settings(&mut pgbench);
        pgbench.args(["-n", "-c", "1", "-M", "prepared", "-l", "-T", &seconds.to_string()]);
        pgbench.arg("-f").arg(&script).arg("--log-prefix").arg(&log).arg(stack.database_url());
        output(&mut pgbench, &program)?;
        let mut taken_us = Vec::new();
        for path in logs(&self.folder)? {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            taken_us.extend(text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<u64>().ok()));
        }
        let committed = number(stack, &count)? - before;
        ensure!(committed == taken_us.len() as u64 * batch, "{committed} coupons in {} batches", taken_us.len());
        let busy_us: u64 = taken_us.iter().sum();
        taken_us.sort_unstable();
        let at = |percent: usize| taken_us.get((taken_us.len() * percent / 100).min(taken_us.len().saturating_sub(1)));
        Ok(Pace {
            per_second: committed as f64 * 1e6 / busy_us.max(1) as f64,
            p50_us: at(50).copied().unwrap_or_default(),
            p99_us: at(99).copied().unwrap_or_default(),
        })
    }
}

/// pgbench adds its pid to their names.
fn logs(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let is_log = |path: &PathBuf| {
        let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix("rows.")?.parse::<u32>().ok());
        number.is_some()
    };
    Ok(entries.flatten().map(|entry| entry.path()).filter(is_log).collect())
}

/// The one number that a query gives.
pub(super) fn number(stack: &Stack, sql: &str) -> anyhow::Result<u64> {
    let rows = stack.sql(sql)?;
    rows.first().and_then(|row| row.first()?.parse().ok()).with_context(|| format!("no number: {sql}"))
}
