//! One worker: what it shares among the requests it serves, and what it does between them.

use std::rc::Rc;

use doorbuster_domain::id::CampaignId;
use doorbuster_domain::refusal::Refusal;
use doorbuster_domain::request::campaign;

use crate::config::{Bodies, Config};
use crate::gate::Gate;
use crate::host::{CallEnded, CallId, Callout, Host, HostTime, Log, Metrics, Request};
use crate::poller::{Outside, Poller};
use crate::request::{COUNT_PATH, is_guarded, split_path};
use crate::state::{self, Namespace};

/// A longer path is no crowd's, and is not kept.
const LONGEST_PATH_KEPT_BYTES: usize = 512;

/// The campaign that a request names, or why it names none.
pub(crate) type NamedCampaign = Rc<Result<CampaignId, Refusal>>;

/// One worker.
#[derive(Debug, Clone)]
pub struct Worker {
    config: Rc<Config>,
    /// Decides.
    pub gate: Gate,
    poller: Poller,
    /// The last guarded path as it was sent, and the campaign it names: a crowd asks for one thing.
    last_path: Option<(Vec<u8>, NamedCampaign)>,
    /// Whether the last request needed more than its path, as the next one then will, too.
    pub(crate) expects_all_headers: bool,
}

/// What a request asks for, by its path and method.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A coupon of this campaign.
    Guarded(NamedCampaign),
    /// Where this campaign stands.
    Count(Result<CampaignId, Refusal>),
    /// Nothing that is decided here.
    Other,
}

impl Worker {
    /// A worker of a process that may have run for long: nothing that is shared is reset.
    #[must_use]
    pub fn new(config: Rc<Config>, host: &dyn Host) -> Self {
        let drawn = [host.random(), host.random(), host.random(), host.random()];
        let names = Namespace::new(&config.namespace);
        let process = state::process(host, &names, drawn);
        let poller = Poller::new(&config, names.clone(), host);
        let gate = Gate::new(Rc::clone(&config), names, process, host, HostTime::read(host));
        Self { config, gate, poller, last_path: None, expects_all_headers: false }
    }

    /// What is done every [`crate::TICK_MS`] milliseconds.
    pub fn tick(&mut self, host: &dyn Host, callout: &dyn Callout, log: &dyn Log, metrics: &mut dyn Metrics) {
        let now = HostTime::read(host);
        self.gate.tick(host, now);
        self.gate.flush(host, metrics);
        self.poller.tick(&mut self.gate, host, now, &mut Outside { callout, log, metrics });
    }

    /// A call that [`Worker::tick`] made has ended.
    pub fn call_ended(&mut self, call: CallId, ended: CallEnded, host: &dyn Host, log: &dyn Log) {
        self.poller.call_ended(call, ended, &mut self.gate, host, log);
    }

    /// Whether a request with a body is decided when that has ended.
    pub(crate) fn waits_for_bodies(&self) -> bool {
        self.config.bodies == Bodies::Wait
    }

    /// Longest body of a guarded request, bytes.
    pub(crate) fn max_body_bytes(&self) -> usize {
        self.config.max_body_bytes
    }

    /// What a request asks for. Its method is read only where a route or the count depends on it.
    pub(crate) fn target(&mut self, request: &mut impl Request) -> Target {
        let Some(sent) = request.first(":path") else { return Target::Other };
        if let Some((last, campaign)) = &self.last_path
            && *last == *sent
        {
            return Target::Guarded(Rc::clone(campaign));
        }
        let sent = sent.into_owned();
        let (path, query) = split_path(&sent);
        let mut method_matters = false;
        let mut method = || {
            method_matters = true;
            request.first(":method").unwrap_or_default().into_owned()
        };
        let default = self.config.default_campaign.as_ref();
        if !is_guarded(&self.config.guard, path, &mut method) {
            let counts = path == COUNT_PATH && method() == b"GET";
            return if counts { Target::Count(campaign(query, default)) } else { Target::Other };
        }
        let campaign = Rc::new(campaign(query, default));
        if !method_matters && sent.len() <= LONGEST_PATH_KEPT_BYTES {
            self.last_path = Some((sent, Rc::clone(&campaign)));
        }
        Target::Guarded(campaign)
    }
}
