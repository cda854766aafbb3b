//! `stack.json`: what audits and other programs need to know about a running stack.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::checkout::replace_private;

/// URLs have no trailing slash; `ops[i]` belongs to `backends[i]`, `envoy_admins[i]` to `gateways[i]`.
#[derive(Debug, Serialize)]
pub(super) struct StackFile {
    pub(super) gateways: Vec<String>,
    pub(super) envoy_admins: Vec<String>,
    pub(super) backends: Vec<String>,
    pub(super) ops: Vec<String>,
    pub(super) redis_url: String,
    pub(super) database_url: String,
    pub(super) admin_token: String,
    pub(super) edge_token: String,
    /// `gateway-N`, `backend-N` (from 1), `redis` and `postgres` to the pid of the server itself.
    pub(super) pids: BTreeMap<String, u32>,
}

impl StackFile {
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        replace_private(path, &serde_json::to_string_pretty(self)?)
    }
}
