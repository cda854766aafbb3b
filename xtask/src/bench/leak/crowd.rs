//! A crowd of users, drawn by chance, at every gateway at the same time.

use std::path::Path;
use std::thread;

use anyhow::{Context, anyhow};

use crate::bench::wrk::{ENOUGH, Run, write_script};

/// Who asks for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crowd<'a> {
    pub(super) wrk: &'a Path,
    pub(super) folder: &'a Path,
    pub(super) campaign: &'a str,
    pub(super) users: u64,
    pub(super) connections: u32,
    /// How many answers to wait for, in all; then it goes.
    pub(super) requests: u64,
    /// It goes after this time in any case.
    pub(super) seconds: u32,
}

/// What it heard.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Heard {
    pub(super) answers: u64,
    /// Neither a coupon nor a refusal of the contract, or no answer.
    pub(super) wrong: u64,
    pub(super) microseconds: u64,
}

impl Crowd<'_> {
    /// Lets it loose on gateways and waits until it is gone.
    pub(super) fn release(&self, urls: &[String]) -> anyhow::Result<Heard> {
        let each = u32::try_from(urls.len()).unwrap_or(1).max(1);
        let requests = self.requests.div_ceil(each.into());
        let parts: Vec<_> = thread::scope(|scope| {
            let start = |(number, url): (usize, &String)| {
                let script = self.script(number, requests);
                let url = url.clone();
                scope.spawn(move || {
                    let script = script?;
                    let (program, connections, seconds) = (self.wrk, self.connections / each, self.seconds);
                    Run { program, url: &url, script: &script, connections, seconds }.numbers()
                })
            };
            let started: Vec<_> = urls.iter().enumerate().map(start).collect();
            started.into_iter().map(|part| part.join().map_err(|_| anyhow!("a thread has panicked"))).collect()
        });
        let mut heard = Heard::default();
        for part in parts {
            let [answers, known, failed, microseconds] =
                <[u64; 4]>::try_from(part??).ok().context("wrk's script tells something else")?;
            heard.answers += answers;
            heard.wrong += answers.saturating_sub(known) + failed;
            heard.microseconds = heard.microseconds.max(microseconds);
        }
        Ok(heard)
    }

    fn script(&self, number: usize, requests: u64) -> anyhow::Result<std::path::PathBuf> {
        let lua = format!(
            r#"answers, known = 0, 0
local thread_of_it
function setup(thread) thread_of_it = thread end
function init() math.randomseed({number} + 1) end
local head = "POST /v1/coupon/issue?campaign={} HTTP/1.1\r\nHost: gateway\r\nx-user-id: u"
function request() return head .. math.random({}) .. "\r\n\r\n" end
function response(status)
  answers = answers + 1
  if status == 201 or status == 202 or status == 409 or status == 500 or status == 503 then known = known + 1 end
  if answers == {requests} then
    io.write("{ENOUGH}\n")
    io.flush()
    wrk.thread:stop()
  end
end
function done(summary)
  local errors = summary.errors
  io.write(string.format("doorbuster %d %d %d %d\n", thread_of_it:get("answers"), thread_of_it:get("known"),
    errors.connect + errors.read + errors.write + errors.timeout, summary.duration))
end
"#,
            self.campaign, self.users
        );
        write_script(self.folder, &format!("crowd-{number}"), &lua)
    }
}
