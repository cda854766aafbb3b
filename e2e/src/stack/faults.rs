//! What happens to servers and networks, for those who bring it about on purpose.

use std::process::ExitStatus;

use anyhow::Context;

use super::Stack;
use crate::clock;
use crate::proxy::Proxy;
use crate::server::Running;

impl Stack {
    /// Sets the wall clock of a server that was started with a wrong one: ahead by so many seconds.
    ///
    /// # Errors
    /// When it cannot be set.
    pub fn set_clock(&self, name: &str, ahead_s: i64) -> anyhow::Result<()> {
        clock::set(self.home(), name, ahead_s)
    }

    /// Kills a server and every process it has started, as a crash of the machine would.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn crash(&mut self, name: &str) -> anyhow::Result<()> {
        self.server(name)?.crash();
        Ok(())
    }

    /// Starts a server again after its end, without waiting until it serves.
    ///
    /// # Errors
    /// When there is none of that name, or it cannot be started.
    pub fn start_again(&mut self, name: &str) -> anyhow::Result<()> {
        self.server(name)?.start_again()
    }

    /// Waits until every server serves.
    ///
    /// # Errors
    /// When one does not; the message ends with its last words.
    pub fn wait_ready(&mut self) -> anyhow::Result<()> {
        self.servers.iter_mut().try_for_each(Running::wait_ready)
    }

    /// The servers that have ended, and how.
    pub fn ended(&mut self) -> Vec<(String, ExitStatus)> {
        let ended = |server: &mut Running| Some((server.name().to_owned(), server.ended()?));
        self.servers.iter_mut().filter_map(ended).collect()
    }

    /// The names of the ways between servers that can be cut; none unless the builder was asked for them.
    pub fn proxies(&self) -> impl Iterator<Item = &str> {
        self.proxies.iter().map(|(name, _)| name.as_str())
    }

    /// One of these ways, such as `backend-1 to redis`.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn proxy(&self, name: &str) -> anyhow::Result<&Proxy> {
        let found = self.proxies.iter().find(|(known, _)| known == name);
        found.map(|(_, proxy)| proxy).with_context(|| format!("this stack has no way {name}"))
    }
}
