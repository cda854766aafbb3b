//! What a second start must find as the first one left it: secrets, data, and ports where they are still free.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use doorbuster_e2e::ports::{free_port, is_free};
use doorbuster_e2e::postgres::can_reach;
use doorbuster_e2e::token::random_token;
use serde::{Deserialize, Serialize};

use crate::checkout::{Checkout, remove_folder, replace_private};

/// Private to this checkout: the file has mode 0600.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Local {
    pub(super) admin_token: String,
    pub(super) edge_token: String,
    pub(super) postgres_password: String,
    pub(super) redis_port: u16,
    pub(super) postgres_port: u16,
}

impl Local {
    pub(super) fn load_or_create(checkout: &Checkout) -> anyhow::Result<Self> {
        let path = file(checkout);
        let mut local = match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .with_context(|| format!("{} is damaged: `cargo xtask up --fresh` starts anew", path.display()))?,
            Err(_) => Self {
                admin_token: random_token()?,
                edge_token: random_token()?,
                postgres_password: random_token()?,
                redis_port: free_port()?,
                postgres_port: free_port()?,
            },
        };
        for port in [&mut local.redis_port, &mut local.postgres_port] {
            if !is_free(*port) {
                *port = free_port()?;
            }
        }
        replace_private(&path, &serde_json::to_string_pretty(&local)?)?;
        Ok(local)
    }
}

/// Removes the data and secrets of earlier starts; tools that were installed stay.
pub(super) fn forget(checkout: &Checkout) -> anyhow::Result<()> {
    remove_folder(&redis_data(checkout))?;
    remove_folder(&postgres_home(checkout))?;
    let path = file(checkout);
    if path.exists() {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

pub(super) fn redis_data(checkout: &Checkout) -> PathBuf {
    checkout.private().join("redis")
}

/// PostgreSQL's own account cannot enter a checkout below a home of mode 0700.
pub(super) fn postgres_home(checkout: &Checkout) -> PathBuf {
    let private = checkout.private();
    if can_reach(&private) {
        return private.join("postgres");
    }
    PathBuf::from(format!("/var/lib/doorbuster-{:016x}", fnv1a(checkout.root())))
}

fn file(checkout: &Checkout) -> PathBuf {
    checkout.private().join("local.json")
}

/// FNV-1a: the name must stay the same from one build to the next, which the standard library's hasher does not promise.
fn fnv1a(path: &Path) -> u64 {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
