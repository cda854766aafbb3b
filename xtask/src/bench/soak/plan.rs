//! The campaigns of a soak, and the crowd that follows them.

use anyhow::Context;
use doorbuster_e2e::Stack;
use doorbuster_e2e::operator::scheduled;
use serde_json::json;

use super::Options;

/// Coupons of each campaign: together more winners than the table of duplicates holds.
const QUOTA: u64 = 100;
/// Seconds from the announcement to the first opening.
pub(super) const AHEAD_S: u32 = 15;

/// Campaigns that open one after the other on one day, in a zone in which it is not midnight soon. Returns when the
/// first one opens, Unix seconds.
pub(super) fn announce(stack: &Stack, options: &Options) -> anyhow::Result<u64> {
    let now = stack.sql("SELECT extract(epoch FROM now())::bigint")?;
    let now: u64 = now.first().and_then(|row| row.first()).and_then(|text| text.parse().ok()).context("no time")?;
    let opens_s = now + u64::from(AHEAD_S);
    // POSIX counts the other way round: this is UTC+12.
    let (zone, zone_s) = if (6..18).contains(&(now / 3600 % 24)) { ("UTC", 0) } else { ("Etc/GMT-12", 12 * 3600) };
    let local = |unix_s: u64| {
        let second = (unix_s + zone_s) % 86_400;
        format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
    };
    let days = stack.sql(&format!("SELECT (to_timestamp({opens_s}) AT TIME ZONE '{zone}')::date"));
    // PostgreSQL reads "Etc/GMT-12" as the zone of that name, as the backend does.
    let day = days?.first().and_then(|row| row.first()).cloned().context("no date")?;
    for number in 0..u64::from(options.campaigns) {
        let opens = opens_s + number * u64::from(options.window);
        let schedule = json!({
            "timezone": zone, "first_day": day, "last_day": day,
            "opens": local(opens), "closes": local(opens + u64::from(options.window)),
        });
        stack.operator().put_campaign(&format!("soak-{number}"), &scheduled(QUOTA, &schedule))?;
    }
    Ok(opens_s)
}

/// Nine of ten ask for the campaign that is open; the others for those before and after it. Users come in turn.
pub(super) fn script(options: &Options, opens_s: u64) -> String {
    format!(
        r#"refused, other = 0, 0
local thread_of_it
function setup(thread) thread_of_it = thread end
local user, at = 0, 0
function request()
  user = (user + 1) % {users}
  local current = math.floor((os.time() - {opens_s}) / {window})
  local turn = user % 20
  if turn == 0 then current = current - 1 elseif turn == 1 then current = current + 1 end
  if current < 0 then current = 0 elseif current >= {campaigns} then current = {campaigns} - 1 end
  return "POST /v1/coupon/issue?campaign=soak-" .. current .. " HTTP/1.1\r\nHost: gateway\r\nx-user-id: u" .. user .. "\r\n\r\n"
end
function response(status)
  if status == 403 or status == 409 or status == 410 or status == 503 then refused = refused + 1
  elseif status ~= 201 and status ~= 202 then other = other + 1 end
end
function done(summary)
  local errors = summary.errors
  io.write(string.format("doorbuster %d %d %d\n", thread_of_it:get("refused"), thread_of_it:get("other"),
    errors.connect + errors.read + errors.write + errors.timeout))
end
"#,
        users = options.users,
        window = options.window,
        campaigns = options.campaigns,
    )
}
