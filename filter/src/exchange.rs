//! One request, from its first header to its last byte: what is asked of the host, in which order, and what follows.
//!
//! Headers are read lazily, since each question to a host may be a trip out of a sandbox. Nearly all of a crowd is
//! refused after one question: for the path that the request before it had, too.

use std::rc::Rc;

use doorbuster_domain::id::UserId;
use doorbuster_domain::notice::{Notice, RESULT_HEADER};
use doorbuster_domain::refusal::Refusal;
use doorbuster_domain::request::{USER_HEADER, user};
use doorbuster_domain::ticket::{ROUND_HEADER, TICKET_HEADER};

use crate::credits::Ending;
use crate::gate::{Decision, Pass};
use crate::host::{Headers, Host, Request};
use crate::reply::Reply;
use crate::request::OWN_HEADER_PREFIX;
use crate::worker::{NamedCampaign, Target, Worker};

/// What the host does next with the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Goes on with it.
    Continue,
    /// Forwards nothing yet.
    Pause,
    /// Answers it with this reply, and forwards nothing.
    Reply(Rc<Reply>),
}

/// One request and its response.
#[derive(Debug, Clone, Default)]
pub struct Exchange {
    stage: Stage,
}

/// How far a request has come.
#[derive(Debug, Clone, Default)]
enum Stage {
    /// It is not under admission control, or has not begun, or is settled.
    #[default]
    Passing,
    /// Its body has not ended. Headers can be read only while they arrive, so what they said is kept.
    AwaitingBody { campaign: NamedCampaign, user: Result<UserId, Refusal> },
    /// With the origin, not yet settled.
    Admitted(Rc<Pass>),
    /// Answered here. The host shows this reply's headers to the filter as well.
    Answered,
}

impl Exchange {
    /// The request's headers have arrived; `end_of_stream` if it has no body.
    pub fn request_headers(
        &mut self,
        worker: &mut Worker,
        request: &mut impl Request,
        host: &dyn Host,
        end_of_stream: bool,
    ) -> Action {
        if worker.expects_all_headers {
            request.expect_all();
        }
        let campaign = match worker.target(request) {
            Target::Guarded(campaign) => campaign,
            Target::Count(campaign) => match worker.gate.count(&campaign, host) {
                Some(reply) => return self.reply(reply),
                None => return pass_by(request),
            },
            Target::Other => return pass_by(request),
        };
        if !end_of_stream && declared_bytes(request).is_some_and(|bytes| bytes > worker.max_body_bytes() as u64) {
            return self.reply(worker.gate.refuse_body());
        }
        if end_of_stream || !worker.waits_for_bodies() {
            let mut read = None;
            let decision = worker.gate.decide(&campaign, || read.insert(user_of(request)).clone(), host);
            worker.expects_all_headers = read.is_some();
            if matches!(decision, Decision::Admit(_)) {
                remove_own(request);
            }
            return self.enforce(decision, worker, request, host);
        }
        worker.expects_all_headers = true;
        let user = user_of(request);
        remove_own(request);
        self.stage = Stage::AwaitingBody { campaign, user };
        Action::Pause
    }

    /// `bytes` of the request's body have arrived since the headers; `end_of_stream` if these are all.
    pub fn request_body(
        &mut self,
        worker: &mut Worker,
        request: &mut impl Request,
        host: &dyn Host,
        bytes: usize,
        end_of_stream: bool,
    ) -> Action {
        match self.stage {
            Stage::AwaitingBody { .. } if bytes > worker.max_body_bytes() => self.reply(worker.gate.refuse_body()),
            Stage::AwaitingBody { .. } if end_of_stream => self.decide_kept(worker, request, host),
            Stage::AwaitingBody { .. } | Stage::Answered => Action::Pause,
            Stage::Passing | Stage::Admitted(_) => Action::Continue,
        }
    }

    /// The request ended with trailers.
    pub fn request_trailers(
        &mut self,
        worker: &mut Worker,
        request: &mut impl Request,
        trailers: &mut impl Headers,
        host: &dyn Host,
    ) -> Action {
        remove_own(trailers);
        self.decide_kept(worker, request, host)
    }

    /// The response ended with trailers.
    pub fn response_trailers(&self, trailers: &mut impl Headers) {
        remove_own(trailers);
    }

    /// The response's headers have arrived: the origin's, or those of the reply given here.
    pub fn response_headers(&mut self, worker: &mut Worker, response: &mut impl Headers, host: &dyn Host) {
        if matches!(self.stage, Stage::Answered) {
            return;
        }
        let notice = {
            let mut results = response.all().filter(|(name, _)| *name == RESULT_HEADER);
            match (results.next(), results.next()) {
                (Some((_, result)), None) => Notice::parse(result),
                // An origin that repeats itself cannot be understood.
                _ => None,
            }
        };
        // An answer without a valid notice is the host's own (a reset, a timeout), or says nothing.
        self.settle(notice.map_or(Ending::Silent, Ending::Told), worker, host);
        remove_own(response);
    }

    /// The host forgets the request, however it ended. The client has ended an admitted one for which there was no answer,
    /// not even one of the host.
    pub fn ended(&mut self, worker: &mut Worker, host: &dyn Host) {
        self.settle(Ending::Abandoned, worker, host);
    }

    /// Decides a request by what its headers said, if it still waits.
    fn decide_kept(&mut self, worker: &mut Worker, request: &mut impl Request, host: &dyn Host) -> Action {
        match std::mem::take(&mut self.stage) {
            Stage::AwaitingBody { campaign, user } => {
                let decision = worker.gate.decide(&campaign, || user, host);
                self.enforce(decision, worker, request, host)
            }
            other => {
                self.stage = other;
                Action::Continue
            }
        }
    }

    fn enforce(&mut self, decision: Decision, worker: &Worker, request: &mut impl Request, host: &dyn Host) -> Action {
        let pass = match decision {
            Decision::Refuse(reply) => return self.reply(reply),
            Decision::Admit(pass) => pass,
        };
        let round = pass.round.map(|round| round.to_string()).unwrap_or_default();
        if !round.is_empty() {
            request.set(ROUND_HEADER, &round);
        }
        if let Some(ticket) = worker.gate.ticket(&pass, host) {
            request.set(TICKET_HEADER, &ticket);
        }
        request.annotate("doorbuster.decision", "admitted");
        request.annotate("doorbuster.round", &round);
        self.stage = Stage::Admitted(Rc::new(pass));
        Action::Continue
    }

    fn reply(&mut self, reply: Rc<Reply>) -> Action {
        self.stage = Stage::Answered;
        Action::Reply(reply)
    }

    /// Settles an admitted request: exactly once.
    fn settle(&mut self, ending: Ending, worker: &mut Worker, host: &dyn Host) {
        match std::mem::take(&mut self.stage) {
            Stage::Admitted(pass) => worker.gate.settle(&pass, ending, host, host.monotonic_ms()),
            other => self.stage = other,
        }
    }
}

/// For the model checker.
#[cfg(test)]
impl Exchange {
    /// The admission that is not settled yet.
    pub(crate) fn pass(&self) -> Option<&Pass> {
        match &self.stage {
            Stage::Admitted(pass) => Some(pass),
            _ => None,
        }
    }
}

/// Forwards a request that is not under admission control, without the headers that are ours.
fn pass_by(request: &mut impl Request) -> Action {
    remove_own(request);
    Action::Continue
}

/// The length that a request's body will have, bytes, as far as its headers say.
fn declared_bytes(request: &mut impl Request) -> Option<u64> {
    request.first("content-length").and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok())
}

fn user_of(request: &mut impl Request) -> Result<UserId, Refusal> {
    user(request.all().filter(|(name, _)| *name == USER_HEADER).map(|(_, value)| value))
}

/// Removes the headers that are ours: neither a client nor an origin may speak for the edge.
fn remove_own(headers: &mut impl Headers) {
    let own = |(name, _): (&str, &[u8])| name.starts_with(OWN_HEADER_PREFIX).then(|| name.to_owned());
    let found: Vec<String> = headers.all().filter_map(own).collect();
    for name in found {
        headers.remove(&name);
    }
}

#[cfg(test)]
mod tests;
