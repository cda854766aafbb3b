//! A refusal as it goes out. Rendered once and sent many times.

use std::rc::Rc;

use doorbuster_domain::count::Count;
use doorbuster_domain::refusal::{PROBLEM_JSON, Problem, Refusal};

/// A finished reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u32,
    /// Headers; Envoy adds `content-length`.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// Renders a problem.
    #[must_use]
    pub fn render(problem: &Problem) -> Self {
        let refusal = problem.refusal;
        let mut headers =
            vec![("content-type", PROBLEM_JSON.to_owned()), ("cache-control", refusal.cache_control().to_owned())];
        if let Some(seconds) = problem.retry_after() {
            headers.push(("retry-after", seconds));
        }
        Self { status: u32::from(refusal.status()), headers, body: problem.body() }
    }
}

impl Reply {
    /// Where a campaign stands.
    #[must_use]
    pub fn count(count: &Count) -> Self {
        let headers =
            vec![("content-type", "application/json".to_owned()), ("cache-control", "public, max-age=1".to_owned())];
        Self { status: 200, headers, body: serde_json::to_vec(count).unwrap_or_default() }
    }
}

/// Replies of one campaign, each rendered once per reason and variant. There are as many entries as reasons, three for
/// `busy`, whatever the crowd does.
#[derive(Debug, Clone, Default)]
pub struct Rendered {
    replies: Vec<(Refusal, i64, Rc<Reply>)>,
}

impl Rendered {
    /// The reply for `refusal` in its `variant`, rendered by `problem` unless it was already. Of a refusal that carries
    /// a wait, the variant is the second that the wait is counted from, and only the newest is kept.
    pub fn get(&mut self, refusal: Refusal, variant: i64, problem: impl FnOnce() -> Problem) -> Rc<Reply> {
        let replaces =
            |known: &(Refusal, i64, Rc<Reply>)| known.0 == refusal && (known.1 == variant || refusal != Refusal::Busy);
        match self.replies.iter_mut().find(|known| replaces(known)) {
            Some((_, known, reply)) => {
                if *known != variant {
                    *known = variant;
                    *reply = Rc::new(Reply::render(&problem()));
                }
                Rc::clone(reply)
            }
            None => {
                let reply = Rc::new(Reply::render(&problem()));
                self.replies.push((refusal, variant, Rc::clone(&reply)));
                reply
            }
        }
    }

    /// Forgets everything: the campaign has changed.
    pub fn clear(&mut self) {
        self.replies.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_the_headers_of_the_table() {
        let reply = Reply::render(&Problem::new(Refusal::Paused));
        assert_eq!(reply.status, 403);
        assert_eq!(
            reply.headers,
            [
                ("content-type", "application/problem+json".to_owned()),
                ("cache-control", "no-store".to_owned()),
                ("retry-after", "30".to_owned()),
            ]
        );
    }

    #[test]
    fn each_variant_is_rendered_once_and_memory_stays_bounded() {
        let mut rendered = Rendered::default();
        let mut renderings = 0;
        for second in 0..10 {
            for random in 0..9 {
                rendered.get(Refusal::SoldOut, second, || {
                    renderings += 1;
                    Problem::new(Refusal::SoldOut)
                });
                rendered.get(Refusal::Busy, random % 3, || {
                    renderings += 1;
                    Problem::new(Refusal::Busy)
                });
            }
        }
        assert_eq!(renderings, 10 + 3);
        assert_eq!(rendered.replies.len(), 4);
    }
}
