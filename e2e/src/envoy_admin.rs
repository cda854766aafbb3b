//! Envoy's admin interface.

use anyhow::{Context, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::http;

/// Reads the statistics of one gateway.
#[derive(Debug, Clone)]
pub struct EnvoyAdmin {
    url: String,
}

impl EnvoyAdmin {
    /// The interface at a URL without a trailing slash.
    #[must_use]
    pub fn new(url: String) -> Self {
        Self { url }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The values of all statistics whose whole name matches a regular expression, by name.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub fn stats(&self, pattern: &str) -> anyhow::Result<Vec<(String, u64)>> {
        let pattern = format!("^{pattern}$");
        let query = utf8_percent_encode(&pattern, NON_ALPHANUMERIC);
        let reply = http::get(&format!("{}/stats?filter={query}", self.url))?;
        ensure!(reply.status == 200, "/stats says {}", reply.status);
        Ok(reply
            .body
            .lines()
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(": ")?;
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect())
    }

    /// One counter or gauge; 0 when Envoy does not have it yet.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub fn stat(&self, name: &str) -> anyhow::Result<u64> {
        let found = self.stats(&name.replace('.', "\\."))?;
        Ok(found.first().map_or(0, |(_, value)| *value))
    }

    /// The sum of all statistics that match.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub fn sum(&self, pattern: &str) -> anyhow::Result<u64> {
        Ok(self.stats(pattern)?.iter().map(|(_, value)| value).sum())
    }

    /// Requests that went to the cluster `origin`.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub fn origin_requests(&self) -> anyhow::Result<u64> {
        self.stat("cluster.origin.upstream_rq_total")
    }

    /// Sets runtime keys, such as a logging fraction.
    ///
    /// # Errors
    /// When Envoy does not accept them.
    pub fn set_runtime(&self, key: &str, value: &str) -> anyhow::Result<()> {
        let reply = http::send("POST", &format!("{}/runtime_modify?{key}={value}", self.url), &[], None)?;
        ensure!(reply.status == 200, "runtime_modify says {}", reply.body);
        Ok(())
    }

    /// The running configuration.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub fn config_dump(&self) -> anyhow::Result<String> {
        http::get(&format!("{}/config_dump", self.url)).map(|reply| reply.body).context("no config_dump")
    }
}
