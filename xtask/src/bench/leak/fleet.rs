//! The gateways of a scenario, with two workers each, in front of one backend.

use std::path::Path;

use anyhow::Context;
use doorbuster_e2e::ports::free_port;
use doorbuster_e2e::server::Running;
use doorbuster_e2e::{EnvoyAdmin, Programs, Stack};
use serde_json::{Value, json};

use crate::bench::gateway::{Gateway, connection_manager, http_filters, shipped};
use crate::checkout::Checkout;

/// How the origin behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The backend.
    Ours,
    /// The backend, each request held for 200 ms in front of it.
    Slow,
    /// 500 at once; then the backend.
    Failing,
    /// The backend without the filter.
    Unprotected,
}

impl Origin {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "our backend",
            Self::Slow => "takes 200 ms longer",
            Self::Failing => "fails at once",
            Self::Unprotected => "no filter",
        }
    }

    /// Envoy's fault filter, behind ours: to ours it is the origin that is slow or fails.
    fn fault(self) -> Option<Value> {
        let always = json!({ "numerator": 100, "denominator": "HUNDRED" });
        let fault = match self {
            Self::Slow => json!({ "delay": { "fixed_delay": "0.2s", "percentage": always } }),
            Self::Failing => json!({ "abort": { "http_status": 500, "percentage": always } }),
            Self::Ours | Self::Unprotected => return None,
        };
        let mut config = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
            "headers": [{ "name": ":path", "string_match": { "prefix": "/v1/coupon/issue" } }],
        });
        if let (Some(config), Some(fault)) = (config.as_object_mut(), fault.as_object()) {
            config.extend(fault.clone());
        }
        Some(json!({ "name": "envoy.filters.http.fault", "typed_config": config }))
    }
}

/// A running fleet.
pub(super) struct Fleet {
    pub(super) origin: Origin,
    pub(super) stack: Stack,
    pub(super) urls: Vec<String>,
    pub(super) admins: Vec<EnvoyAdmin>,
    /// Kept for as long as the fleet is wanted; stopped before the stack only because nobody asks it any more.
    _gateways: Vec<Running>,
}

impl Fleet {
    pub(super) fn start(
        checkout: &Checkout,
        programs: &Programs,
        folder: &Path,
        origin: Origin,
        gateways: u32,
    ) -> anyhow::Result<Self> {
        let stack = Stack::builder().programs(programs.clone()).own_postgres().gateways(0).start()?;
        let (mut urls, mut admins, mut running) = (Vec::new(), Vec::new(), Vec::new());
        for number in 1..=gateways {
            let (port, admin_port) = (free_port()?, free_port()?);
            let rendering = shipped(checkout.root(), &stack, &programs.filter_wasm, (port, admin_port), json!({}))?;
            let mut config = rendering.render()?;
            put_between(&mut config, origin)?;
            let gateway = Gateway {
                name: format!("gateway-leak-{number}"),
                program: programs.envoy.clone(),
                workers: 2,
                admin_port,
                config,
                folder: folder.to_owned(),
                edge_token: stack.edge_token().to_owned(),
            };
            urls.push(format!("http://127.0.0.1:{port}"));
            admins.push(gateway.admin());
            running.push(Running::start(Box::new(gateway), &checkout.logs())?);
        }
        Ok(Self { origin, stack, urls, admins, _gateways: running })
    }

    /// Issue requests that our filter sent on: those the backend has counted, and those that failed in its place.
    pub(super) fn origin_requests(&self) -> anyhow::Result<u64> {
        let failed: anyhow::Result<u64> =
            self.admins.iter().map(|admin| admin.stat("http.gateway.fault.aborts_injected")).sum();
        Ok(self.stack.issue_requests()? + failed?)
    }
}

fn put_between(config: &mut Value, origin: Origin) -> anyhow::Result<()> {
    let listener = config.pointer_mut("/static_resources/listeners/0").context("no listener")?;
    let filters = http_filters(connection_manager(listener)?)?;
    if origin == Origin::Unprotected {
        filters.retain(|filter| filter.get("name").is_none_or(|name| name != "doorbuster"));
        for route in routes(connection_manager(listener)?) {
            if let Some(switches) = route.get_mut("typed_per_filter_config").and_then(Value::as_object_mut) {
                switches.remove("doorbuster");
            }
        }
        return Ok(());
    }
    if let Some(fault) = origin.fault() {
        // The router is the last one.
        filters.insert(filters.len().saturating_sub(1), fault);
    }
    Ok(())
}

fn routes(manager: &mut Value) -> impl Iterator<Item = &mut Value> {
    let routes = manager.pointer_mut("/route_config/virtual_hosts/0/routes").and_then(Value::as_array_mut);
    routes.into_iter().flatten()
}
