//! One per request.

use std::cell::RefCell;
use std::rc::Rc;

use doorbuster_domain::id::{CampaignId, UserId};
use doorbuster_domain::notice::{Notice, RESULT_HEADER};
use doorbuster_domain::refusal::Refusal;
use doorbuster_domain::request::{USER_HEADER, campaign, user};
use doorbuster_domain::ticket::{ROUND_HEADER, TICKET_HEADER};
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, Bytes};

use super::head::{Head, values};
use super::host::{EnvoyShared, now_ms};
use super::root::Worker;
use crate::credits::Ending;
use crate::gate::{Decision, Pass};
use crate::reply::Reply;
use crate::request::{COUNT_PATH, OWN_HEADER_PREFIX, is_guarded, split_path};

/// What a guarded request asks for. Headers can be read only while they arrive, so it is kept until the body has.
#[derive(Debug)]
struct Asked {
    campaign: Result<CampaignId, Refusal>,
    user: Result<UserId, Refusal>,
}

/// A longer path is no crowd's, and is not kept.
const LONGEST_UNDERSTOOD_BYTES: usize = 512;

#[derive(Debug)]
pub(super) struct Stream {
    worker: Rc<RefCell<Worker>>,
    /// Waiting for the end of its body.
    waiting: Option<Asked>,
    /// With the origin, not yet settled.
    pass: Option<Pass>,
    /// Answered by this filter: its own reply passes through the response callbacks as well.
    answered: bool,
}

impl Stream {
    pub(super) fn new(worker: Rc<RefCell<Worker>>) -> Self {
        Self { worker, waiting: None, pass: None, answered: false }
    }

    fn answer(&mut self, reply: &Reply) -> Action {
        self.answered = true;
        let headers = reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.send_http_response(reply.status, headers, Some(&reply.body));
        Action::Pause
    }

    fn decide(&mut self, asked: &Asked) -> Action {
        let decision = {
            let mut worker = self.worker.borrow_mut();
            let random = worker.random.next();
            let gate = &mut worker.gate;
            let refused = gate
                .refuse_at_once(&asked.campaign)
                .or_else(|| gate.refuse_again(&asked.campaign, &asked.user, &EnvoyShared));
            match refused {
                Some(reply) => Decision::Refuse(reply),
                None => gate.decide(&asked.campaign, &asked.user, &EnvoyShared, now_ms(), random),
            }
        };
        match decision {
            Decision::Refuse(reply) => self.answer(&reply),
            Decision::Admit(pass) => {
                let round = pass.round.map(|round| round.to_string());
                self.set_http_request_header(ROUND_HEADER, round.as_deref());
                let ticket = {
                    let mut worker = self.worker.borrow_mut();
                    let nonce = worker.random.next();
                    worker.gate.ticket(&pass, now_ms(), nonce)
                };
                if let Some(ticket) = ticket {
                    self.set_http_request_header(TICKET_HEADER, Some(&ticket));
                }
                self.set_property(vec!["doorbuster.decision"], Some(b"admitted"));
                self.set_property(vec!["doorbuster.round"], Some(round.unwrap_or_default().as_bytes()));
                self.pass = Some(pass);
                Action::Continue
            }
        }
    }

    /// The refusal of a path that was understood a moment ago, if the worker has one at hand: nearly everybody in a crowd is
    /// answered here, having cost one question to Envoy.
    fn refuse_the_same(&self, sent: &[u8], head: &mut Head) -> Option<Rc<Reply>> {
        let worker = &mut *self.worker.borrow_mut();
        let (_, campaign) = worker.understood.as_ref().filter(|(understood, _)| understood == sent)?;
        let refused = worker.gate.refuse_at_once(campaign);
        worker.asks_for_all = refused.is_none();
        refused.or_else(|| {
            let user = user(values(head.all(), USER_HEADER));
            worker.gate.refuse_again(campaign, &user, &EnvoyShared)
        })
    }

    /// Removes what a client has no business sending.
    fn remove_own_request_headers(&self, headers: &[(String, Bytes)]) {
        for name in own_headers(headers) {
            self.set_http_request_header(name, None);
        }
    }

    fn settle(&mut self, ending: Ending) {
        if let Some(pass) = self.pass.take() {
            self.worker.borrow_mut().gate.settle(&pass, ending, &EnvoyShared, now_ms());
        }
    }
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        let mut head = Head::new(self.worker.borrow().asks_for_all);
        let sent = head.value(":path");
        if end_of_stream && let Some(reply) = self.refuse_the_same(&sent, &mut head) {
            return self.answer(&reply);
        }
        let (path, query) = split_path(&sent);
        let config = Rc::clone(&self.worker.borrow().config);
        let mut method_matters = false;
        let mut method = || {
            method_matters = true;
            head.value(":method")
        };
        if !is_guarded(&config.guard, path, &mut method) {
            if path == COUNT_PATH && method() == b"GET" {
                let campaign = campaign(query, config.default_campaign.as_ref());
                let counted = self.worker.borrow_mut().gate.count(&campaign, &EnvoyShared);
                if let Some(reply) = counted {
                    return self.answer(&reply);
                }
            }
            self.remove_own_request_headers(head.all());
            return Action::Continue;
        }
        let campaign = campaign(query, config.default_campaign.as_ref());
        if !method_matters && sent.len() <= LONGEST_UNDERSTOOD_BYTES {
            self.worker.borrow_mut().understood = Some((sent, campaign.clone()));
        }
        if end_of_stream {
            let refused = self.worker.borrow_mut().gate.refuse_at_once(&campaign);
            if let Some(reply) = refused {
                return self.answer(&reply);
            }
        }
        let headers = head.all();
        self.remove_own_request_headers(headers);
        let asked = Asked { campaign, user: user(values(headers, USER_HEADER)) };
        if end_of_stream {
            return self.decide(&asked);
        }
        let declared_bytes = values(headers, "content-length")
            .next()
            .and_then(|value| std::str::from_utf8(value).ok())
            .and_then(|value| value.parse::<u64>().ok());
        if declared_bytes.is_some_and(|bytes| bytes > config.max_body_bytes as u64) {
            let reply = self.worker.borrow_mut().gate.refuse_body();
            return self.answer(&reply);
        }
        self.waiting = Some(asked);
        Action::Pause
    }

    fn on_http_request_body(&mut self, bytes: usize, end_of_stream: bool) -> Action {
        let Some(asked) = self.waiting.take() else {
            return if self.answered { Action::Pause } else { Action::Continue };
        };
        if bytes > self.worker.borrow().config.max_body_bytes {
            let reply = self.worker.borrow_mut().gate.refuse_body();
            return self.answer(&reply);
        }
        if end_of_stream {
            return self.decide(&asked);
        }
        self.waiting = Some(asked);
        Action::Pause
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        match self.waiting.take() {
            Some(asked) => self.decide(&asked),
            None => Action::Continue,
        }
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        if self.answered {
            return Action::Continue;
        }
        let headers = self.get_http_response_headers_bytes();
        // An origin that repeats itself cannot be understood.
        let mut results = values(&headers, RESULT_HEADER);
        if let (Some(result), None) = (results.next(), results.next())
            && let Some(notice) = Notice::parse(result)
        {
            self.settle(Ending::Told(notice));
        }
        for name in own_headers(&headers) {
            self.set_http_response_header(name, None);
        }
        Action::Continue
    }
}

/// Envoy forgets a stream when it is over, however it ended. To be told so by `on_log` as well would cost each refusal
/// another call into the VM.
impl Drop for Stream {
    fn drop(&mut self) {
        // A reset, a timeout, or an origin that said nothing.
        self.settle(Ending::Silent);
    }
}

fn own_headers(headers: &[(String, Bytes)]) -> impl Iterator<Item = &str> {
    headers.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with(OWN_HEADER_PREFIX))
}
