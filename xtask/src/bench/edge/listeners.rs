//! One Envoy with a listener for each way of answering. All are copies of the shipped one, so that options of the
//! connection manager, replies and the access log are the same; only filters and routes differ.

use std::path::PathBuf;

use anyhow::Context;
use doorbuster_e2e::Reply;
use doorbuster_e2e::envoy_config::{Rendering, set_filter_wasm};
use doorbuster_e2e::ports::free_port;
use serde_json::{Value, json};

use crate::bench::gateway::{connection_manager, http_filters};

/// The configuration, and which port leads where.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) config: Value,
    pub(super) ours: u16,
    pub(super) direct: u16,
    pub(super) ratelimit: u16,
    pub(super) lua: u16,
    /// To the backend, without the filter.
    pub(super) origin: u16,
    /// Other builds of the filter, by name.
    pub(super) beside: Vec<(String, u16)>,
}

impl Listeners {
    /// `sold_out` is the answer that peers give too.
    pub(super) fn new(ours: &Rendering, sold_out: &Reply, beside: &[PathBuf]) -> anyhow::Result<Self> {
        let mut config = ours.render()?;
        let shipped = config.pointer("/static_resources/listeners/0").cloned().context("no listener")?;
        let mut added = Vec::new();
        let mut add = |name: &str, change: &dyn Fn(&mut Value) -> anyhow::Result<()>| {
            let port = free_port()?;
            let mut listener = shipped.clone();
            if let Some(address) = listener.pointer_mut("/address/socket_address/port_value") {
                *address = json!(port);
            }
            if let Some(own_name) = listener.get_mut("name") {
                *own_name = json!(name);
            }
            change(&mut listener).with_context(|| format!("the listener {name}"))?;
            added.push(listener);
            anyhow::Ok(port)
        };
        let direct = add("direct_response", &|listener| {
            replace_filter(listener, &[])?;
            // The mark would have the access log evaluate an expression, which no refusal of ours pays for.
            http_filters(connection_manager(listener)?)?.retain(|filter| !is_named(filter, MARK));
            answer_issue_route(listener, sold_out)
        })?;
        let ratelimit = add("local_ratelimit", &|listener| replace_filter(listener, &[ratelimit_filter(sold_out)]))?;
        let lua = add("lua", &|listener| replace_filter(listener, &[lua_filter(sold_out)]))?;
        let origin = add("origin", &|listener| replace_filter(listener, &[]))?;
        let beside = beside.iter().map(|module| {
            let name = module.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let port = add(&name, &|listener| {
                set_filter_wasm(listener, module);
                let filters = http_filters(connection_manager(listener)?)?;
                let vm_id =
                    filters.iter_mut().find_map(|filter| filter.pointer_mut("/typed_config/config/vm_config/vm_id"));
                *vm_id.context("no vm_id")? = json!(name);
                Ok(())
            })?;
            anyhow::Ok((name, port))
        });
        let beside = beside.collect::<anyhow::Result<_>>()?;
        let listeners = config.pointer_mut("/static_resources/listeners").and_then(Value::as_array_mut);
        listeners.context("no listeners")?.extend(added);
        Ok(Self { config, ours: ours.port, direct, ratelimit, lua, origin, beside })
    }
}

const MARK: &str = "envoy.filters.http.set_metadata";

fn is_named(filter: &Value, name: &str) -> bool {
    filter.get("name").is_some_and(|found| found == name)
}

/// Puts other filters in the place of ours.
fn replace_filter(listener: &mut Value, others: &[Value]) -> anyhow::Result<()> {
    let manager = connection_manager(listener)?;
    let filters = http_filters(manager)?;
    let at = filters.iter().position(|filter| is_named(filter, "doorbuster")).context("no filter of ours")?;
    filters.splice(at..=at, others.iter().cloned());
    let routes = manager.pointer_mut("/route_config/virtual_hosts/0/routes").and_then(Value::as_array_mut);
    for route in routes.into_iter().flatten() {
        if let Some(switches) = route.get_mut("typed_per_filter_config").and_then(Value::as_object_mut) {
            switches.remove("doorbuster");
        }
    }
    Ok(())
}

fn answer_issue_route(listener: &mut Value, sold_out: &Reply) -> anyhow::Result<()> {
    let routes = connection_manager(listener)?.pointer_mut("/route_config/virtual_hosts/0/routes");
    let routes = routes.and_then(Value::as_array_mut).context("no routes")?;
    let issue = routes.iter_mut().find(|route| is_named(route, "issue")).and_then(Value::as_object_mut);
    let issue = issue.context("no route named issue")?;
    issue.remove("route");
    issue.insert(
        "direct_response".to_owned(),
        json!({ "status": sold_out.status, "body": { "inline_string": sold_out.body } }),
    );
    issue.insert("response_headers_to_add".to_owned(), added_headers(sold_out));
    Ok(())
}

fn headers_of(sold_out: &Reply) -> impl Iterator<Item = (&'static str, &str)> {
    ["content-type", "cache-control", "retry-after"].into_iter().filter_map(|name| Some((name, sold_out.header(name)?)))
}

fn added_headers(sold_out: &Reply) -> Value {
    headers_of(sold_out)
        .map(|(name, value)| {
            json!({ "header": { "key": name, "value": value }, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" })
        })
        .collect()
}

/// Its body is its own and cannot be chosen; the status is ours, or the connection manager would replace the reply.
fn ratelimit_filter(sold_out: &Reply) -> Value {
    let always = json!({ "default_value": { "numerator": 100, "denominator": "HUNDRED" } });
    json!({
        "name": "refuse",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "refuse",
            "status": { "code": "Conflict" },
            "token_bucket": { "max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s" },
            "filter_enabled": always,
            "filter_enforced": always,
            "response_headers_to_add": added_headers(sold_out),
        },
    })
}

/// The sold-out check as somebody would write it without us: two headers, the clock, and the same answer.
fn lua_filter(sold_out: &Reply) -> Value {
    let headers: Vec<String> =
        headers_of(sold_out).map(|(name, value)| format!("[\"{name}\"] = \"{value}\", ")).collect();
    let code = format!(
        r#"local body = [==[{}]==]
local closes_ms = 4102444800000
function envoy_on_request(handle)
  local headers = handle:headers()
  local path = headers:get(":path")
  if headers:get(":method") == "POST" and string.sub(path, 1, 16) == "/v1/coupon/issue"
      and handle:timestamp() < closes_ms then
    handle:respond({{[":status"] = "{}", {}}}, body)
  end
end"#,
        sold_out.body,
        sold_out.status,
        headers.concat(),
    );
    json!({
        "name": "lua",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": { "inline_string": code },
        },
    })
}
