//! What is measured: a stack, and one gateway with a listener to its backend and one to a handler that does nothing.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use doorbuster_e2e::operator::open_all_day;
use doorbuster_e2e::ports::free_port;
use doorbuster_e2e::process::Launch;
use doorbuster_e2e::server::{Running, Server};
use doorbuster_e2e::{Programs, Reply, Stack, http};
use serde_json::{Value, json};

use crate::bench::gateway::{Gateway, connection_manager, shipped, wait_until_known};
use crate::checkout::Checkout;

/// The campaign whose coupons are counted.
pub(super) const CAMPAIGN: &str = "issue";

/// All that runs.
pub(super) struct Ground {
    pub(super) stack: Stack,
    /// The gateway before the backend, and before the handler that does nothing.
    pub(super) gateway_url: String,
    pub(super) idle_url: String,
    /// By what each is called in the table.
    processes: Vec<(&'static str, u32)>,
    _running: Vec<Running>,
}

impl Ground {
    pub(super) fn start(
        checkout: &Checkout,
        programs: &Programs,
        rig: &Path,
        folder: &Path,
        quota: u64,
    ) -> anyhow::Result<Self> {
        let mut stack = Stack::builder().programs(programs.clone()).own_postgres().gateways(0).start()?;
        stack.announce(CAMPAIGN, &open_all_day(quota))?;
        let (port, admin_port, idle_port, beside) = (free_port()?, free_port()?, free_port()?, free_port()?);
        let win = win(&stack, CAMPAIGN, "the-first-winner")?;
        let idle = Idle { program: rig.to_owned(), port: idle_port, reply: folder.join("win.json") };
        fs::write(&idle.reply, reply_like(&win).to_string()).context("cannot write a reply")?;

        let rendering = shipped(checkout.root(), &stack, &programs.filter_wasm, (port, admin_port), json!({}))?;
        let mut config = rendering.render()?;
        add_idle(&mut config, beside, idle_port)?;
        let gateway = Gateway {
            name: "gateway-issue".to_owned(),
            program: programs.envoy.clone(),
            workers: 2,
            admin_port,
            config,
            folder: folder.to_owned(),
            edge_token: stack.edge_token().to_owned(),
        };
        let idle = Running::start(Box::new(idle), &checkout.logs())?;
        let gateway = Running::start(Box::new(gateway), &checkout.logs())?;
        let processes = vec![
            ("gateway", gateway.pid()),
            ("handler", idle.pid()),
            ("backend", stack.pid("backend-1")?),
            ("Redis", stack.pid("redis")?),
            ("PostgreSQL", stack.pid("postgres")?),
        ];
        let url = |port| format!("http://127.0.0.1:{port}");
        let ground =
            Self { stack, gateway_url: url(port), idle_url: url(beside), processes, _running: vec![idle, gateway] };
        wait_until_known(&ground.gateway_url, CAMPAIGN)?;
        wait_until_known(&ground.idle_url, CAMPAIGN)?;
        Ok(ground)
    }

    /// Processor time so far of each server and its children, microseconds.
    pub(super) fn cpu_us(&self) -> anyhow::Result<Vec<(&'static str, u64)>> {
        let mut of_pid: HashMap<u32, u64> = HashMap::new();
        for entry in fs::read_dir("/proc").context("no /proc")?.flatten() {
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // The name before it may hold anything.
            let fields: Vec<&str> = stat.rsplit_once(") ").map_or_else(Vec::new, |(_, rest)| rest.split(' ').collect());
            let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
            let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            // User and system; its own, and that of children which have ended.
            let ticks: Option<u64> = (11..=14).map(field).sum();
            if let (Some(pid), Some(parent), Some(ticks)) = (pid, field(1), ticks) {
                // Linux counts for user space in hundredths of a second, whatever the kernel's tick is.
                let us = ticks * 10_000;
                *of_pid.entry(pid).or_default() += us;
                *of_pid.entry(u32::try_from(parent).unwrap_or_default()).or_default() += us;
            }
        }
        Ok(self.processes.iter().map(|(name, pid)| (*name, of_pid.get(pid).copied().unwrap_or_default())).collect())
    }
}

/// Has a coupon issued, straight at the backend.
pub(super) fn win(stack: &Stack, campaign: &str, user: &str) -> anyhow::Result<Reply> {
    let url = format!("{}/v1/coupon/issue?campaign={campaign}", stack.backend(0));
    let win = http::send("POST", &url, &[("x-user-id", user)], None)?;
    ensure!(win.status == 201, "the backend says {} {}", win.status, win.body);
    Ok(win)
}

/// What the handler that does nothing is to say: a win, with all that the gateway hears of it.
fn reply_like(win: &Reply) -> Value {
    let made_by_the_server = ["content-length", "date", "connection", "transfer-encoding"];
    let headers: Vec<_> = win.headers.iter().filter(|(name, _)| !made_by_the_server.contains(&name.as_str())).collect();
    json!({ "status": win.status, "headers": headers, "body": win.body })
}

/// A copy of the shipped listener and of its cluster, which lead to the handler that does nothing.
fn add_idle(config: &mut Value, port: u16, idle_port: u16) -> anyhow::Result<()> {
    let mut listener = config.pointer("/static_resources/listeners/0").cloned().context("no listener")?;
    *listener.pointer_mut("/address/socket_address/port_value").context("no port")? = json!(port);
    *listener.get_mut("name").context("no name")? = json!("idle");
    let routes = connection_manager(&mut listener)?.pointer_mut("/route_config/virtual_hosts/0/routes");
    for route in routes.and_then(Value::as_array_mut).context("no routes")? {
        if let Some(cluster) = route.pointer_mut("/route/cluster") {
            *cluster = json!("idle");
        }
    }
    let clusters = config.pointer_mut("/static_resources/clusters").and_then(Value::as_array_mut);
    let clusters = clusters.context("no clusters")?;
    let origin = clusters.iter().find(|cluster| cluster.get("name") == Some(&json!("origin")));
    let mut idle = origin.cloned().context("no cluster origin")?;
    *idle.get_mut("name").context("no name")? = json!("idle");
    *idle.pointer_mut("/load_assignment/cluster_name").context("no cluster_name")? = json!("idle");
    let port =
        idle.pointer_mut("/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/port_value");
    *port.context("no endpoint")? = json!(idle_port);
    clusters.push(idle);
    let listeners = config.pointer_mut("/static_resources/listeners").and_then(Value::as_array_mut);
    listeners.context("no listeners")?.push(listener);
    Ok(())
}

/// The handler that does nothing.
struct Idle {
    program: PathBuf,
    port: u16,
    reply: PathBuf,
}

impl Server for Idle {
    fn name(&self) -> &str {
        "idle"
    }

    fn launch(&self) -> anyhow::Result<Launch> {
        let (port, reply) = (self.port.to_string(), self.reply.display().to_string());
        Ok(Launch::new(&self.program).args(["idle", "--port", &port, "--reply", &reply]))
    }

    fn probe(&self) -> anyhow::Result<()> {
        http::get(&format!("http://127.0.0.1:{}/", self.port)).map(drop)
    }
}
