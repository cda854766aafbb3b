//! What the clients were told, and whether they may have been told that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use doorbuster_e2e::http::Reply;
use serde_json::Value;

/// What can be heard while coupons are left.
const WHILE_LEFT: [&str; 5] = ["issued", "pending", "already_issued", "busy", "unavailable"];
/// Complaints beyond this say nothing new.
const COMPLAINTS: usize = 50;

/// What a client does with an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// There is nothing more to ask.
    Final,
    /// It is to ask again.
    AskAgain,
    /// It is to look there.
    Pending { location: String },
}

/// Everything that was heard.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Whether the last coupon may be gone.
    may_sell_out: AtomicBool,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    answers: BTreeMap<String, u64>,
    /// Users and the code and number that they were told, by 201 or at the location of a pending coupon.
    coupons: BTreeMap<String, (String, u64)>,
    /// Users who were told that they have a coupon.
    served: BTreeSet<String>,
    complaints: Vec<String>,
}

impl Heard {
    fn count(&mut self, what: &str) {
        *self.answers.entry(what.to_owned()).or_default() += 1;
    }

    fn complain(&mut self, complaint: String) {
        if self.complaints.len() < COMPLAINTS {
            self.complaints.push(complaint);
        }
    }

    /// A user holds one coupon, whoever tells of it and how often.
    fn coupon(&mut self, user: &str, coupon: &Value) {
        let (Some(code), Some(number)) = (text(coupon, "code"), coupon.get("number").and_then(Value::as_u64)) else {
            return self.complain(format!("{user} was told of a coupon without code or number: {coupon}"));
        };
        let told = (code.to_owned(), number);
        let first = self.coupons.entry(user.to_owned()).or_insert_with(|| told.clone()).clone();
        if first != told {
            self.complain(format!(
                "{user} was told of coupon {} number {}, then of {code} number {number}",
                first.0, first.1
            ));
        }
    }
}

fn text<'a>(body: &'a Value, field: &str) -> Option<&'a str> {
    body.get(field).and_then(Value::as_str)
}

impl Record {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the last coupon may be gone, and everybody may hear so.
    pub(super) fn may_sell_out(&self) {
        self.may_sell_out.store(true, Ordering::Relaxed);
    }

    pub(super) fn hung_up(&self) {
        self.heard().count("hung up before an answer");
    }

    pub(super) fn no_answer(&self) {
        self.heard().count("no answer");
    }

    /// An answer to an issue request.
    pub(super) fn answered(&self, user: &str, reply: &Reply) -> Answer {
        let mut heard = self.heard();
        let body = reply.json();
        let outcome = match reply.status {
            201 => "issued".to_owned(),
            202 => "pending".to_owned(),
            status => text(&body, "code").map_or_else(|| format!("status {status}"), ToOwned::to_owned),
        };
        heard.count(&outcome);
        let allowed = WHILE_LEFT.contains(&outcome.as_str())
            || (outcome == "sold_out" && self.may_sell_out.load(Ordering::Relaxed));
        if !allowed {
            heard.complain(format!("{user} heard {outcome} ({}): {}", reply.status, reply.body));
        }
        match outcome.as_str() {
            "issued" => {
                heard.coupon(user, body.get("coupon").unwrap_or(&Value::Null));
                Answer::Final
            }
            "already_issued" => {
                heard.served.insert(user.to_owned());
                if let Some(coupon) = body.get("coupon") {
                    heard.coupon(user, coupon);
                }
                Answer::Final
            }
            "pending" => match reply.header("location") {
                Some(location) => Answer::Pending { location: location.to_owned() },
                None => {
                    heard.complain(format!("{user} heard 202 without a location: {}", reply.body));
                    Answer::AskAgain
                }
            },
            "sold_out" => Answer::Final,
            _ => Answer::AskAgain,
        }
    }

    /// The answer at the location of a pending coupon; whether it was the last word.
    pub(super) fn looked(&self, user: &str, reply: &Reply) -> bool {
        let mut heard = self.heard();
        heard.count(&format!("location: {}", reply.status));
        match reply.status {
            200 => {
                heard.coupon(user, reply.json().get("coupon").unwrap_or(&Value::Null));
                true
            }
            404 => true,
            202 | 429 | 503 => false,
            status => {
                heard.complain(format!("{user} looked for a pending coupon and heard {status}: {}", reply.body));
                true
            }
        }
    }

    /// How often each answer was heard.
    pub(super) fn answers(&self) -> BTreeMap<String, u64> {
        self.heard().answers.clone()
    }

    /// What nobody should have heard.
    pub(super) fn complaints(&self) -> Vec<String> {
        self.heard().complaints.clone()
    }

    /// For an audit: `USER CODE`, or `USER` alone, in each line.
    pub(super) fn sightings(&self) -> String {
        let heard = self.heard();
        let coupons = heard.coupons.iter().map(|(user, (code, _))| format!("{user} {code}\n"));
        coupons.chain(heard.served.iter().map(|user| format!("{user}\n"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reply(status: u16, body: &Value) -> Reply {
        Reply { status, headers: vec![("location".into(), "/v1/coupons/X".into())], body: body.to_string() }
    }

    fn issued(code: &str, number: u64) -> Reply {
        reply(201, &json!({"coupon": {"code": code, "number": number}}))
    }

    fn refused(status: u16, code: &str) -> Reply {
        reply(status, &json!({"code": code, "status": status}))
    }

    #[test]
    fn what_the_contract_allows_is_no_complaint() {
        let record = Record::default();
        assert_eq!(record.answered("ann", &issued("A", 1)), Answer::Final);
        assert_eq!(record.answered("ann", &issued("A", 1)), Answer::Final);
        assert_eq!(record.answered("ann", &refused(409, "already_issued")), Answer::Final);
        assert_eq!(record.answered("ben", &refused(503, "busy")), Answer::AskAgain);
        let pending = reply(202, &json!({"status": "pending", "code": "X"}));
        assert_eq!(record.answered("ben", &pending), Answer::Pending { location: "/v1/coupons/X".into() });
        assert!(!record.looked("ben", &pending));
        assert!(record.looked("ben", &reply(200, &json!({"coupon": {"code": "X", "number": 2}}))));
        record.may_sell_out();
        assert_eq!(record.answered("cat", &refused(409, "sold_out")), Answer::Final);
        assert_eq!(record.complaints(), Vec::<String>::new());
        assert_eq!(record.sightings(), "ann A\nben X\nann\n");
        assert_eq!(record.answers()["issued"], 2);
    }

    #[test]
    fn what_nobody_should_hear_is_one() {
        for (told, words) in [
            (refused(409, "sold_out"), "heard sold_out"),
            (refused(404, "unknown_campaign"), "heard unknown_campaign"),
            (reply(500, &Value::Null), "heard status 500"),
            (issued("B", 2), "was told of coupon A number 1, then of B number 2"),
            (issued("A", 2), "then of A number 2"),
            (reply(201, &json!({})), "without code or number"),
        ] {
            let record = Record::default();
            record.answered("ann", &issued("A", 1));
            record.answered("ann", &told);
            let complaints = record.complaints();
            assert!(matches!(complaints.as_slice(), [one] if one.contains(words)), "{words}: {complaints:?}");
        }
    }
}
