//! Speaking to the operations listener.

use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::Agent;
use ureq::http::Request;

use crate::answer::Failure;

/// No answer is longer, bytes.
const LONGEST_ANSWER: u64 = 64 << 20;

/// In a path or a query everything but RFC 3986's unreserved characters is escaped.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text as a part of a path or a query.
pub(crate) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// One backend's operations listener.
pub(crate) struct Api {
    url: String,
    authorization: String,
    agent: Agent,
}

/// A good answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Null if there is none.
    pub(crate) body: Value,
}

impl Api {
    pub(crate) fn new(url: &str, token: &str, timeout: Duration) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(timeout))
            .user_agent(concat!("doorbuster/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Self { url: url.trim_end_matches('/').to_owned(), authorization: format!("Bearer {token}"), agent }
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send("GET", path, None, &[]).map(|reply| reply.body)
    }

    pub(crate) fn post(&self, path: &str, body: Option<&Value>, headers: &[(&str, &str)]) -> Result<Value, Failure> {
        self.send("POST", path, body, headers).map(|reply| reply.body)
    }

    /// Every answer that is no success is a failure.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Reply, Failure> {
        let url = format!("{}{path}", self.url);
        let mut request = Request::builder().method(method).uri(&url).header("authorization", &self.authorization);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(body.map(Value::to_string).unwrap_or_default());
        // The error of the builder could show a header, and one of them holds the token.
        let request =
            request.map_err(|_| Failure::Usage(format!("{} is no URL, or the token no header's text", self.url)))?;
        let unreachable = |error: ureq::Error| Failure::Unavailable(format!("no answer from {}: {error}", self.url));
        let mut answer = self.agent.run(request).map_err(unreachable)?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(LONGEST_ANSWER).read_to_string().map_err(unreachable)?;
        let body: Option<Value> = if text.is_empty() { Some(Value::Null) } else { serde_json::from_str(&text).ok() };
        match body {
            Some(body) if (200..300).contains(&status) => Ok(Reply { status, body }),
            Some(problem) if problem.get("code").is_some() => Err(Failure::Refused { status, problem }),
            _ => Err(Failure::Unavailable(format!("{} answers {status} and is no operations listener", self.url))),
        }
    }
}
