//! `issue.lua` alone: redis-benchmark sends what the backend was seen to send, for other users.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use doorbuster_e2e::process::forget_own_settings;

use super::crowd::output;
use super::table::Pace;

/// Connections, one request at a time on each.
pub(super) const CONNECTIONS: u32 = 50;

/// redis-benchmark puts twelve digits of chance in its place: as long as a code.
const CHANCE: &str = "__rand_int__";

/// Redis's own programs.
#[derive(Debug, Clone)]
pub(super) struct RedisTools {
    pub(super) cli: PathBuf,
    pub(super) benchmark: PathBuf,
    pub(super) url: String,
}

/// A call of the script, as the backend made it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    words: Vec<String>,
}

impl RedisTools {
    /// What Redis answers to a command.
    pub(super) fn ask(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut cli = Command::new(&self.cli);
        forget_own_settings(&mut cli);
        let answer = output(cli.args(["-u", &self.url, "--raw"]).args(words), &self.cli)?;
        ensure!(!answer.starts_with("ERR"), "Redis says {} to {}", answer.trim(), words.join(" "));
        Ok(answer.trim_end().to_owned())
    }

    /// Bytes of memory of all keys of a campaign.
    pub(super) fn memory(&self, campaign: &str) -> anyhow::Result<u64> {
        let keys = self.ask(&["--scan", "--pattern", &format!("*{{{campaign}}}*")])?;
        let sizes = keys.lines().map(|key| {
            let size = self.ask(&["memory", "usage", key, "samples", "0"])?;
            // A key may expire between the two questions.
            anyhow::Ok(size.parse::<u64>().unwrap_or_default())
        });
        sizes.sum()
    }

    /// The script's call that Redis receives while `issue` has a coupon issued; that names the user and the code.
    pub(super) fn watch(&self, issue: impl FnOnce() -> anyhow::Result<(String, String)>) -> anyhow::Result<Call> {
        let address = self.url.trim_start_matches("redis://");
        let mut monitor = TcpStream::connect(address).context("cannot connect to Redis")?;
        monitor.set_read_timeout(Some(Duration::from_secs(10)))?;
        monitor.write_all(b"MONITOR\r\n")?;
        let mut lines = BufReader::new(monitor).lines();
        lines.next().context("Redis does not take MONITOR")??;
        let (user, code) = issue()?;
        for line in lines {
            let line = line.context("Redis was not asked to issue")?;
            let words = words(&line);
            if words.first().is_some_and(|command| command.eq_ignore_ascii_case("evalsha")) && words.contains(&code) {
                let words = words.into_iter().map(|word| match word {
                    // As long as the id of everybody else who asks.
                    word if word == user => format!("lua-{CHANCE}"),
                    word if word == code => CHANCE.to_owned(),
                    word => word,
                });
                return Ok(Call { words: words.collect() });
            }
        }
        anyhow::bail!("Redis has closed the connection")
    }

    /// Has the script run for other users, on copies of the campaign's keys that nobody sweeps.
    pub(super) fn measure(&self, call: &Call, campaign: &str, requests: u64) -> anyhow::Result<Pace> {
        let (tag, copy) = (format!("{{{campaign}}}"), format!("{{{campaign}-alone}}"));
        let keys = self.ask(&["--scan", "--pattern", &format!("*{tag}*")])?;
        for key in keys.lines() {
            self.ask(&["copy", key, &key.replace(&tag, &copy), "replace"])?;
        }
        let mut benchmark = Command::new(&self.benchmark);
        forget_own_settings(&mut benchmark);
        benchmark
            .args(["-u", &self.url, "--csv", "-r", "2147483647"])
            .args(["-c", &CONNECTIONS.to_string(), "-n", &requests.to_string()])
            .args(call.words.iter().map(|word| word.replace(&tag, &copy)));
        let text = output(&mut benchmark, &self.benchmark);
        let left = self.ask(&["--scan", "--pattern", &format!("*{copy}*")])?;
        for key in left.lines() {
            self.ask(&["unlink", key])?;
        }
        pace(&text?).context("redis-benchmark prints something else")
    }
}

/// `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"`
fn pace(csv: &str) -> Option<Pace> {
    let last = csv.lines().rfind(|line| !line.is_empty())?;
    let mut fields = last.rsplit(',').map(|field| field.trim_matches('"').parse::<f64>().ok());
    let (_max, p99, _p95, p50) = (fields.next()??, fields.next()??, fields.next()??, fields.next()??);
    let (_min, _average, per_second) = (fields.next()??, fields.next()??, fields.next()??);
    Some(Pace { per_second, p50_us: (p50 * 1e3) as u64, p99_us: (p99 * 1e3) as u64 })
}

/// The quoted words of a line of MONITOR. What we look for needs no escapes.
fn words(line: &str) -> Vec<String> {
    let quoted = line.split_once(" \"").map_or("", |(_, rest)| rest).trim_end_matches('"');
    quoted.split("\" \"").map(ToOwned::to_owned).collect()
}

/// Whether both programs of Redis are there is seen to by `setup`.
pub(super) fn tools(paths: (&Path, &Path), url: &str) -> RedisTools {
    RedisTools { cli: paths.0.to_owned(), benchmark: paths.1.to_owned(), url: url.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_monitor_is_taken_apart() {
        let line = r#"+1700000000.123456 [0 127.0.0.1:5000] "EVALSHA" "ab" "1" "p:{c}:version" "" "7""#;
        assert_eq!(words(line), ["EVALSHA", "ab", "1", "p:{c}:version", "", "7"]);
        assert_eq!(words("+OK"), [""]);
    }

    #[test]
    fn the_csv_is_read_from_its_end() {
        let csv = "\"test\",\"rps\"\n\"evalsha a,b\",\"50000.00\",\"0.9\",\"0.1\",\"0.815\",\"1.5\",\"2.5\",\"9.9\"\n";
        let pace = pace(csv).unwrap();
        assert!((pace.per_second - 50_000.0).abs() < 1e-6);
        assert_eq!((pace.p50_us, pace.p99_us), (815, 2500));
        assert!(super::pace("nothing").is_none());
    }
}
