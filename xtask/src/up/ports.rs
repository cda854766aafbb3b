//! The fixed ports of a local stack.

use anyhow::{bail, ensure};
use doorbuster_e2e::ports::{holder, is_free};

use super::Options;

/// From one backend's ports to the next one's.
const BACKEND_STEP: u16 = 10;

/// All ports that were chosen, counted from 0.
#[derive(Debug, Clone)]
pub(super) struct Ports {
    pub(super) gateways: u16,
    pub(super) backends: u16,
    first_gateway: u16,
    first_admin: u16,
    first_health: u16,
    first_backend: u16,
}

impl Ports {
    pub(super) fn of(options: &Options) -> anyhow::Result<Self> {
        let ports = Self {
            gateways: options.gateways,
            backends: options.backends,
            first_gateway: options.gateway_port,
            first_admin: options.admin_port,
            first_health: options.health_port,
            first_backend: options.backend_port,
        };
        let last_of = |first: u16, count: u16, step: u16| u32::from(first) + u32::from(count - 1) * u32::from(step);
        for (flag, last) in [
            ("--gateway-port", last_of(ports.first_gateway, ports.gateways, 1)),
            ("--admin-port", last_of(ports.first_admin, ports.gateways, 1)),
            ("--health-port", last_of(ports.first_health, ports.gateways, 1)),
            ("--backend-port", last_of(ports.first_backend, ports.backends, BACKEND_STEP) + 1),
        ] {
            ensure!(last <= u32::from(u16::MAX), "{flag}: port {last} would be needed, and 65535 is the last one");
        }
        Ok(ports)
    }

    pub(super) fn gateway(&self, index: u16) -> u16 {
        self.first_gateway + index
    }

    pub(super) fn admin(&self, index: u16) -> u16 {
        self.first_admin + index
    }

    pub(super) fn health(&self, index: u16) -> u16 {
        self.first_health + index
    }

    pub(super) fn backend(&self, index: u16) -> u16 {
        self.first_backend + index * BACKEND_STEP
    }

    pub(super) fn ops(&self, index: u16) -> u16 {
        self.backend(index) + 1
    }

    pub(super) fn gateway_url(&self, index: u16) -> String {
        url(self.gateway(index))
    }

    pub(super) fn ops_url(&self, index: u16) -> String {
        url(self.ops(index))
    }

    pub(super) fn gateway_urls(&self) -> Vec<String> {
        (0..self.gateways).map(|index| self.gateway_url(index)).collect()
    }

    pub(super) fn admin_urls(&self) -> Vec<String> {
        (0..self.gateways).map(|index| url(self.admin(index))).collect()
    }

    pub(super) fn backend_urls(&self) -> Vec<String> {
        (0..self.backends).map(|index| url(self.backend(index))).collect()
    }

    pub(super) fn ops_urls(&self) -> Vec<String> {
        (0..self.backends).map(|index| self.ops_url(index)).collect()
    }

    /// Looks before anything is started, so that a start succeeds whole or not at all.
    pub(super) fn ensure_free(&self) -> anyhow::Result<()> {
        let mut seen = Vec::new();
        for (use_, flag, port) in self.all() {
            if let Some((other, _)) = seen.iter().find(|(_, taken)| *taken == port) {
                bail!("port {port} is meant for {other} and for {use_}: choose another with {flag}");
            }
            if !is_free(port) {
                let who = holder(port).unwrap_or_else(|| "a process of another user".to_owned());
                bail!("port {port}, needed for {use_}, is held by {who}: stop it, or choose another port with {flag}");
            }
            seen.push((use_, port));
        }
        Ok(())
    }

    pub(super) fn tell(&self) {
        for (what, urls) in [
            ("gateways", self.gateway_urls()),
            ("Envoy admin", self.admin_urls()),
            ("backends (past the gateway)", self.backend_urls()),
            ("operations", self.ops_urls()),
        ] {
            println!("  {what:<28}{}", urls.join(" "));
        }
    }

    fn all(&self) -> impl Iterator<Item = (String, &'static str, u16)> {
        let of_gateway = |index| {
            let number = index + 1;
            [
                (format!("gateway-{number}"), "--gateway-port", self.gateway(index)),
                (format!("gateway-{number}'s admin interface"), "--admin-port", self.admin(index)),
                (format!("gateway-{number}'s health listener"), "--health-port", self.health(index)),
            ]
        };
        let of_backend = |index| {
            let number = index + 1;
            [
                (format!("backend-{number}"), "--backend-port", self.backend(index)),
                (format!("backend-{number}'s operations listener"), "--backend-port", self.ops(index)),
            ]
        };
        (0..self.gateways).flat_map(of_gateway).chain((0..self.backends).flat_map(of_backend))
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(gateway: u16, admin: u16, backend: u16) -> Ports {
        Ports {
            gateways: 2,
            backends: 2,
            first_gateway: gateway,
            first_admin: admin,
            first_health: 9801,
            first_backend: backend,
        }
    }

    #[test]
    fn the_ports_are_those_of_the_contract() {
        let ports = ports(8080, 9901, 8000);
        assert_eq!(ports.gateway_urls(), ["http://127.0.0.1:8080", "http://127.0.0.1:8081"]);
        assert_eq!(ports.admin_urls(), ["http://127.0.0.1:9901", "http://127.0.0.1:9902"]);
        assert_eq!(ports.backend_urls(), ["http://127.0.0.1:8000", "http://127.0.0.1:8010"]);
        assert_eq!(ports.ops_urls(), ["http://127.0.0.1:8001", "http://127.0.0.1:8011"]);
    }

    #[test]
    fn a_port_in_use_is_named_with_its_holder_and_the_flag() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = ports(port, 1, 1).ensure_free().unwrap_err().to_string();
        let held_by_us = format!("(pid {})", std::process::id());
        for part in [format!("port {port}"), "gateway-1".to_owned(), held_by_us, "--gateway-port".to_owned()] {
            assert!(error.contains(&part), "{error}");
        }
    }

    #[test]
    fn one_port_for_two_uses_is_refused() {
        let free = doorbuster_e2e::ports::free_port().unwrap();
        let error = ports(free, free, 1).ensure_free().unwrap_err().to_string();
        assert!(error.contains(&format!("port {free} is meant for gateway-1 and for gateway-1's admin")), "{error}");
    }
}
