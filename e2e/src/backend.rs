//! One backend.

use std::path::PathBuf;

use anyhow::ensure;

use crate::http;
use crate::process::Launch;
use crate::server::Server;

/// A `doorbuster-backend` with its two listeners on 127.0.0.1.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Such as `backend-1`.
    pub name: String,
    /// `doorbuster-backend`
    pub program: PathBuf,
    /// Port of the listener for `/v1`.
    pub public_port: u16,
    /// Port of the operations listener.
    pub ops_port: u16,
    /// Its configuration as in its TOML file: key and value.
    pub settings: Vec<(String, String)>,
}

impl Backend {
    /// URL of the listener for `/v1`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.public_port)
    }

    /// URL of the operations listener.
    #[must_use]
    pub fn ops_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ops_port)
    }

    /// How many requests its issue handler has seen since its start.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn issue_requests(&self) -> anyhow::Result<u64> {
        // A count of requests is a whole number far below 2^53.
        Ok(self.metric("doorbuster_issue_requests_total")? as u64)
    }

    /// One of its metrics by its whole name, such as `doorbuster_commit_seconds_sum`, summed over all labels.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let metrics = http::get(&format!("{}/metrics", self.ops_url()))?;
        ensure!(metrics.status == 200, "/metrics says {}", metrics.status);
        Ok(sum_of(&metrics.body, name))
    }
}

/// The sum of one metric over all its labels, in Prometheus's text format.
fn sum_of(exposition: &str, name: &str) -> f64 {
    exposition
        .lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

impl Server for Backend {
    fn name(&self) -> &str {
        &self.name
    }

    fn launch(&self) -> anyhow::Result<Launch> {
        let mut launch = Launch::new(&self.program)
            .env("DOORBUSTER_PUBLIC_ADDR", format!("127.0.0.1:{}", self.public_port))
            .env("DOORBUSTER_OPS_ADDR", format!("127.0.0.1:{}", self.ops_port));
        for (key, value) in &self.settings {
            launch = launch.env(format!("DOORBUSTER_{}", key.to_uppercase()), value);
        }
        Ok(launch)
    }

    fn probe(&self) -> anyhow::Result<()> {
        let reply = http::get(&format!("{}/readyz", self.ops_url()))?;
        ensure!(reply.status == 200, "/readyz says {} {}", reply.status, reply.body);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::sum_of;

    #[test]
    fn a_counter_is_summed_over_its_labels_only() {
        let text = "# TYPE a_total counter\na_total{outcome=\"x y\"} 3\na_total{outcome=\"z\"} 4\na_total_more 5\n";
        for (text, name, sum) in [(text, "a_total", 7.0), ("b 2.5\n", "b", 2.5), ("", "b", 0.0)] {
            assert!((sum_of(text, name) - sum).abs() < 1e-9, "{name}");
        }
    }
}
