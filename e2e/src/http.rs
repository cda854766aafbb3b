//! A small blocking HTTP client: every status is an answer, not an error.

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// Headers with names in lower case, in the order received.
    pub headers: Vec<(String, String)>,
    /// The body as text.
    pub body: String,
}

impl Reply {
    /// The first value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// The `code` of a problem (a refusal), empty for other answers.
    #[must_use]
    pub fn code(&self) -> String {
        self.json().get("code").and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

/// Sends one request on a connection of its own and waits up to 10 s for the whole answer.
///
/// # Errors
/// When there is no HTTP answer: refused, reset or timed out.
pub fn send(method: &str, url: &str, headers: &[(&str, &str)], body: Option<&Value>) -> anyhow::Result<Reply> {
    send_within(Duration::from_secs(10), method, url, headers, body)
}

/// As [`send`], for those who wait longer, or hang up sooner.
///
/// # Errors
/// As [`send`].
pub fn send_within(
    deadline: Duration,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> anyhow::Result<Reply> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .max_redirects(0)
        .proxy(None)
        .timeout_global(Some(deadline))
        .build()
        .into();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = match body {
        Some(json) => {
            let request = request.header("content-type", "application/json").body(json.to_string())?;
            agent.run(request)
        }
        None => agent.run(request.body(())?),
    };
    let mut answer = answer.with_context(|| format!("{method} {url}"))?;
    let body = answer.body_mut().with_config().limit(64 << 20).lossy_utf8(true).read_to_string();
    Ok(Reply {
        status: answer.status().as_u16(),
        headers: answer
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect(),
        body: body.with_context(|| format!("the answer to {method} {url} broke off"))?,
    })
}

/// `GET`.
///
/// # Errors
/// As [`send`].
pub fn get(url: &str) -> anyhow::Result<Reply> {
    send("GET", url, &[], None)
}
