//! Whole requests, on a host that records what it is asked.

use std::cell::RefCell;

use chrono::DateTime;
use doorbuster_domain::id::CampaignId;
use doorbuster_domain::schedule::{Schedule, ScheduleSpec};
use doorbuster_domain::wire::{SyncCampaign, SyncResponse};
use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::host::model::{At, Model, ModelHeaders};
use crate::host::{Changed, Clock, Random, SharedData, Versioned};
use crate::sync::{OriginClock, Snapshot};

/// 2026-05-01T14:00:00Z, in the middle of a round.
const NOW: i64 = 1_777_644_000_000;
const DAY: i64 = 24 * 3_600_000;
const ISSUE: &str = "/v1/coupon/issue?campaign=spring";

/// A worker that has synced one campaign, and the shared data of its process.
struct Edge {
    shared: Model,
    worker: Worker,
    syncs: u64,
}

#[derive(Clone, Copy)]
struct Told {
    paused: bool,
    quota: u64,
    issued: u64,
}

const OPEN: Told = Told { paused: false, quota: 2, issued: 0 };

fn schedule() -> Schedule {
    let spec = ScheduleSpec {
        timezone: "UTC".into(),
        first_day: "2026-05-01".into(),
        last_day: "2026-05-02".into(),
        opens: "13:00".into(),
        closes: "15:00".into(),
        weekdays: None,
    };
    Schedule::compile(&spec).unwrap()
}

impl Edge {
    /// As the shipped envoy.yaml has it: every method of the issue route is guarded.
    fn start(settings: &str) -> Self {
        Self::guarding(r#"{"path": "/v1/coupon/issue"}"#, settings)
    }

    fn guarding(route: &str, settings: &str) -> Self {
        let json = format!(r#"{{"sync": {{"cluster": "control"}}, "guard": [{route}]{settings}}}"#);
        let config = Config::parse(json.as_bytes(), |_| Some("a secret of some length".to_owned())).unwrap();
        let shared = Model::default();
        let worker = Worker::new(Rc::new(config), &At { shared: &shared, now_ms: NOW });
        Self { shared, worker, syncs: 0 }
    }

    fn synced(told: Told) -> Self {
        let mut edge = Self::start("");
        edge.sync(told, NOW);
        edge
    }

    fn sync(&mut self, told: Told, now_ms: i64) {
        let timetable = schedule().timetable(now_ms);
        let round = timetable.rounds.first().map(|round| round.id);
        let campaign = SyncCampaign {
            id: CampaignId::parse("spring").unwrap(),
            version: 1,
            paused: told.paused,
            round,
            timetable,
            quota: Some(told.quota),
            issued: told.issued,
            reserved: told.issued,
        };
        let response =
            SyncResponse { now_ms, uncertainty_ms: 0, gateways: 1, complete: true, campaigns: vec![campaign] };
        let clock = OriginClock { offset_ms: 0, uncertainty_ms: 1 };
        self.syncs += 1;
        let snapshot = Snapshot { number: self.syncs, received_ms: now_ms, wall_ahead_ms: 0, clock, response };
        self.worker.gate.accept(snapshot, &self.shared);
        self.worker.gate.tick(&self.shared, crate::host::HostTime { host_ms: now_ms, wall_ahead_ms: 0 });
    }

    /// Sends the headers of a request.
    fn headers(&mut self, headers: &mut ModelHeaders, end_of_stream: bool) -> (Exchange, Action) {
        self.headers_at(headers, end_of_stream, NOW)
    }

    fn headers_at(&mut self, headers: &mut ModelHeaders, end_of_stream: bool, now_ms: i64) -> (Exchange, Action) {
        let mut exchange = Exchange::default();
        let host = At { shared: &self.shared, now_ms };
        let action = exchange.request_headers(&mut self.worker, headers, &host, end_of_stream);
        (exchange, action)
    }

    /// Sends a request without a body.
    fn send(&mut self, path: &str, user: Option<&str>) -> (Exchange, Action) {
        self.headers(&mut request(path, user), true)
    }

    /// What a request without a body comes to: `admitted`, or the code of its refusal.
    fn outcome(&mut self, path: &str, user: Option<&str>, now_ms: i64) -> String {
        match self.headers_at(&mut request(path, user), true, now_ms).1 {
            Action::Continue => "admitted".to_owned(),
            action => code(&action),
        }
    }

    fn answer(&mut self, exchange: &mut Exchange, result: &str) -> ModelHeaders {
        let mut headers = ModelHeaders::new([(":status", "201"), (RESULT_HEADER, result)]);
        exchange.response_headers(&mut self.worker, &mut headers, &At { shared: &self.shared, now_ms: NOW });
        headers
    }

    fn end(&mut self, exchange: &mut Exchange) {
        exchange.ended(&mut self.worker, &At { shared: &self.shared, now_ms: NOW });
    }

    fn in_flight(&self) -> u64 {
        self.worker.gate.credits_in_flight(&self.shared, crate::host::HostTime { host_ms: NOW, wall_ahead_ms: 0 })
    }
}

fn request(path: &str, user: Option<&str>) -> ModelHeaders {
    let user = user.map(|user| (USER_HEADER, user));
    ModelHeaders::new([(":method", "POST"), (":path", path)].into_iter().chain(user))
}

fn code(action: &Action) -> String {
    let Action::Reply(reply) = action else { panic!("{action:?} is no reply") };
    let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    body["code"].as_str().unwrap().to_owned()
}

fn issued(number: u64) -> String {
    format!(r#"outcome=issued, campaign="spring", round="2026-05-01", issued={number}, quota=2, version=1"#)
}

/// Each case satisfies the condition of its refusal and of every later one in the contract's order, so that a check
/// which is moved answers with another code.
#[test]
fn checks_are_made_in_the_contracts_order() {
    const PAUSED: Told = Told { paused: true, quota: 1, issued: 1 };
    const SOLD_OUT: Told = Told { paused: false, quota: 1, issued: 1 };
    const CLAIMED: Told = Told { paused: false, quota: 1, issued: 0 };
    let after_last_round = NOW + 5 * DAY;
    let between_rounds = NOW + DAY / 2;
    for (expected, path, told, now_ms, user) in [
        ("invalid_campaign", "/v1/coupon/issue?campaign=A", PAUSED, after_last_round, None),
        ("unknown_campaign", "/v1/coupon/issue?campaign=other", PAUSED, after_last_round, None),
        ("ended", ISSUE, PAUSED, after_last_round, None),
        ("paused", ISSUE, PAUSED, between_rounds, None),
        ("outside_hours", ISSUE, SOLD_OUT, between_rounds, None),
        ("sold_out", ISSUE, SOLD_OUT, NOW, None),
        ("missing_user", ISSUE, CLAIMED, NOW, None),
        ("invalid_user", ISSUE, CLAIMED, NOW, Some("a b")),
        ("busy", ISSUE, CLAIMED, NOW, Some("u2")),
    ] {
        let mut edge = Edge::start("");
        if now_ms == NOW && told.issued < told.quota {
            edge.sync(told, NOW);
            assert_eq!(edge.outcome(ISSUE, Some("u1"), NOW), "admitted");
        }
        edge.sync(told, now_ms);
        // The second request takes the way of a remembered path.
        for turn in 1..=2 {
            assert_eq!(edge.outcome(path, user, now_ms), expected, "turn {turn}");
        }
    }
}

#[test]
fn winner_is_refused_before_credits_are_asked_for() {
    let mut edge = Edge::synced(OPEN);
    let (mut first, _) = edge.send(ISSUE, Some("u1"));
    edge.answer(&mut first, &issued(1));
    let (_second, action) = edge.send(ISSUE, Some("u2"));
    assert_eq!(action, Action::Continue);
    assert_eq!(edge.outcome(ISSUE, Some("u3"), NOW), "busy", "the last coupon is being claimed");
    assert_eq!(edge.outcome(ISSUE, Some("u1"), NOW), "already_issued");
}

/// A host that can be asked for nothing but headers.
struct HeadersOnly;

impl SharedData for HeadersOnly {
    fn get(&self, key: &str) -> Option<Versioned> {
        panic!("{key} is read")
    }
    fn replace(&self, key: &str, _: &[u8], _: u32) -> Result<(), Changed> {
        panic!("{key} is written")
    }
    fn create(&self, key: &str, _: &[u8]) -> Result<(), Changed> {
        panic!("{key} is created")
    }
}

impl Clock for HeadersOnly {
    fn now_ms(&self) -> i64 {
        NOW
    }

    fn monotonic_ms(&self) -> i64 {
        panic!("the monotonic clock is read")
    }
}

impl Random for HeadersOnly {
    fn random(&self) -> u64 {
        panic!("a random number is drawn")
    }
}

#[test]
fn sold_out_refusal_of_a_remembered_path_reads_the_path_alone() {
    let mut edge = Edge::synced(Told { paused: false, quota: 1, issued: 1 });
    assert_eq!(edge.outcome(ISSUE, None, NOW), "sold_out");
    let mut headers = request(ISSUE, Some("u1"));
    let action = Exchange::default().request_headers(&mut edge.worker, &mut headers, &HeadersOnly, true);
    assert_eq!(code(&action), "sold_out");
    assert_eq!(headers.read, [":path"]);
}

#[test]
fn admitted_request_carries_round_and_ticket_and_no_forged_header() {
    let mut edge = Edge::start(r#", "ticket": {}"#);
    edge.sync(OPEN, NOW);
    let mut headers = request(ISSUE, Some("u1"));
    headers.headers.push((TICKET_HEADER.to_owned(), b"forged".to_vec()));
    headers.headers.push(("x-doorbuster-other".to_owned(), b"forged".to_vec()));
    assert_eq!(edge.headers(&mut headers, true).1, Action::Continue);
    assert_eq!(headers.value(ROUND_HEADER), Some(b"2026-05-01".as_slice()));
    assert!(headers.value(TICKET_HEADER).is_some_and(|ticket| ticket.starts_with(b"v1.")));
    assert_eq!(headers.value("x-doorbuster-other"), None);
    let annotated = [("doorbuster.decision", "admitted"), ("doorbuster.round", "2026-05-01")];
    assert_eq!(headers.annotations, annotated.map(|(field, value)| (field, value.to_owned())));
}

#[test]
fn other_routes_pass_without_our_headers_and_without_a_credit() {
    let mut edge = Edge::synced(OPEN);
    let mut headers = request("/v1/coupons", Some("u1"));
    headers.headers.push((TICKET_HEADER.to_owned(), b"forged".to_vec()));
    let (mut exchange, action) = edge.headers(&mut headers, true);
    assert_eq!((action, headers.value(TICKET_HEADER)), (Action::Continue, None));
    let answered = edge.answer(&mut exchange, &issued(1));
    assert_eq!(answered.value(RESULT_HEADER), None, "an origin's notice does not reach the client");
    assert_eq!(edge.outcome(ISSUE, Some("u1"), NOW), "admitted", "the notice was about no admitted request");
}

#[test]
fn small_body_is_awaited_and_holds_no_credit() {
    let mut edge = Edge::synced(OPEN);
    let mut headers = request(ISSUE, Some("u1"));
    headers.headers.push(("content-length".to_owned(), b"3".to_vec()));
    let (mut exchange, action) = edge.headers(&mut headers, false);
    assert_eq!((action, edge.in_flight()), (Action::Pause, 0));
    let Edge { shared, worker, .. } = &mut edge;
    let host = At { shared, now_ms: NOW };
    // Headers can be read no more.
    let mut gone = ModelHeaders::default();
    assert_eq!(exchange.request_body(worker, &mut gone, &host, 1, false), Action::Pause);
    assert_eq!(exchange.request_body(worker, &mut gone, &host, 3, true), Action::Continue);
    assert_eq!(gone.read, [""; 0]);
    assert_eq!(gone.value(ROUND_HEADER), Some(b"2026-05-01".as_slice()));
    assert_eq!(edge.in_flight(), 1);
}

#[test]
fn ignored_bodies_are_not_waited_for() {
    let mut edge = Edge::start(r#", "bodies": "ignore""#);
    edge.sync(OPEN, NOW);
    let mut headers = request(ISSUE, Some("u1"));
    headers.headers.push(("content-length".to_owned(), b"3".to_vec()));
    let (mut exchange, action) = edge.headers(&mut headers, false);
    assert_eq!((action, edge.in_flight()), (Action::Continue, 1));
    let Edge { shared, worker, .. } = &mut edge;
    let host = At { shared, now_ms: NOW };
    let body = exchange.request_body(worker, &mut ModelHeaders::default(), &host, 3, true);
    assert_eq!(body, Action::Continue, "the body goes to the origin");
    assert_eq!(code(&edge.headers(&mut request(ISSUE, None), false).1), "missing_user");
    let mut declared = request(ISSUE, Some("u2"));
    declared.headers.push(("content-length".to_owned(), b"4097".to_vec()));
    assert_eq!(code(&edge.headers(&mut declared, false).1), "body_too_large");
}

#[test]
fn trailers_end_a_body() {
    let mut edge = Edge::synced(OPEN);
    let (mut exchange, action) = edge.headers(&mut request(ISSUE, Some("u1")), false);
    assert_eq!(action, Action::Pause);
    let Edge { shared, worker, .. } = &mut edge;
    let host = At { shared, now_ms: NOW };
    let mut trailers = ModelHeaders::new([(TICKET_HEADER, "forged"), ("checksum", "1")]);
    let action = exchange.request_trailers(worker, &mut ModelHeaders::default(), &mut trailers, &host);
    assert_eq!((action, edge.in_flight()), (Action::Continue, 1));
    assert_eq!((trailers.value(TICKET_HEADER), trailers.value("checksum")), (None, Some(b"1".as_slice())));
    let mut trailers = ModelHeaders::new([(RESULT_HEADER, "outcome=issued")]);
    exchange.response_trailers(&mut trailers);
    assert_eq!(trailers.headers, []);
}

#[test]
fn body_beyond_the_limit_is_refused_by_its_declaration_or_its_length() {
    let mut edge = Edge::synced(OPEN);
    let mut declared = request(ISSUE, Some("u1"));
    declared.headers.push(("content-length".to_owned(), b"4097".to_vec()));
    assert_eq!(code(&edge.headers(&mut declared, false).1), "body_too_large");
    let (mut exchange, _) = edge.headers(&mut request(ISSUE, Some("u1")), false);
    let Edge { shared, worker, .. } = &mut edge;
    let host = At { shared, now_ms: NOW };
    let action = exchange.request_body(worker, &mut ModelHeaders::default(), &host, 4097, false);
    assert_eq!(code(&action), "body_too_large");
    // What still arrives of it is not forwarded.
    let rest = exchange.request_body(worker, &mut ModelHeaders::default(), &host, 5000, true);
    assert_eq!((rest, edge.in_flight()), (Action::Pause, 0));
}

#[test]
fn own_reply_settles_nothing_and_keeps_its_headers() {
    let mut edge = Edge::synced(OPEN);
    let (mut exchange, action) = edge.send(ISSUE, None);
    assert_eq!(code(&action), "missing_user");
    edge.answer(&mut exchange, &issued(2));
    edge.end(&mut exchange);
    assert_eq!(edge.outcome(ISSUE, Some("u1"), NOW), "admitted", "the reply's headers are no notice");
}

#[test]
fn admitted_request_is_settled_once() {
    let mut edge = Edge::synced(OPEN);
    let (mut exchange, _) = edge.send(ISSUE, Some("u1"));
    let (mut other, _) = edge.send(ISSUE, Some("u2"));
    assert_eq!(edge.in_flight(), 2);
    edge.answer(&mut exchange, &issued(1));
    assert_eq!(edge.in_flight(), 1);
    edge.answer(&mut exchange, &issued(1));
    edge.end(&mut exchange);
    assert_eq!(edge.in_flight(), 1);
    edge.end(&mut other);
    assert_eq!(edge.in_flight(), 1, "a request without an answer keeps its credit for a while");
}

#[test]
fn repeated_result_header_is_no_answer() {
    let mut edge = Edge::synced(OPEN);
    let (mut exchange, _) = edge.send(ISSUE, Some("u1"));
    let notice = issued(1);
    let mut headers = ModelHeaders::new([(RESULT_HEADER, notice.as_str()), (RESULT_HEADER, notice.as_str())]);
    exchange.response_headers(&mut edge.worker, &mut headers, &At { shared: &edge.shared, now_ms: NOW });
    assert_eq!((headers.headers.len(), edge.in_flight()), (0, 1));
}

#[test]
fn method_is_read_only_where_a_route_depends_on_it() {
    let mut edge = Edge::synced(Told { paused: true, ..OPEN });
    let mut headers = request(ISSUE, None);
    assert_eq!(code(&edge.headers(&mut headers, true).1), "paused");
    assert_eq!(headers.read, [":path"]);
    let mut edge = Edge::guarding(r#"{"method": "POST", "path": "/v1/coupon/issue"}"#, "");
    edge.sync(Told { paused: true, ..OPEN }, NOW);
    for _ in 0..2 {
        let mut headers = request(ISSUE, None);
        assert_eq!(code(&edge.headers(&mut headers, true).1), "paused");
        assert_eq!(headers.read, [":path", ":method"], "such a path is not remembered");
    }
    let mut headers = ModelHeaders::new([(":method", "GET"), (":path", ISSUE)]);
    assert_eq!(edge.headers(&mut headers, true).1, Action::Continue, "GET is not guarded");
}

#[test]
fn count_is_answered_here() {
    let mut edge = Edge::synced(OPEN);
    let mut headers = ModelHeaders::new([(":method", "GET"), (":path", "/v1/coupon/count?campaign=spring")]);
    let Action::Reply(reply) = edge.headers(&mut headers, true).1 else { panic!("not answered") };
    let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((reply.status, &body["state"]), (200, &"open".into()));
    assert!(DateTime::parse_from_rfc3339(body["as_of"].as_str().unwrap()).is_ok());
}

thread_local! {
    /// Shared by the cases of the property below, which only read from it.
    static EDGE: RefCell<Edge> = RefCell::new(Edge::synced(OPEN));
}

proptest! {
    #[test]
    fn no_headers_make_it_panic(
        headers in prop::collection::vec(("(:path|:method|x-user-id|content-length|x-doorbuster-[a-z]{0,3}|[a-z-]{1,9})",
            prop::collection::vec(any::<u8>(), 0..40)), 0..8),
        end_of_stream: bool,
        body_bytes in 0_usize..6_000,
    ) {
        EDGE.with_borrow_mut(|edge| {
            let mut headers = ModelHeaders { headers, ..ModelHeaders::default() };
            let (mut exchange, _) = edge.headers(&mut headers, end_of_stream);
            let Edge { shared, worker, .. } = edge;
            let host = At { shared, now_ms: NOW };
            exchange.request_body(worker, &mut headers, &host, body_bytes, true);
            exchange.response_headers(worker, &mut headers, &host);
            prop_assert!(headers.headers.iter().all(|(name, _)| !name.starts_with(OWN_HEADER_PREFIX)));
            exchange.ended(worker, &host);
            Ok(())
        })?;
    }
}
