//! One Redis with an append-only file.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::process::Launch;
use crate::server::Server;

/// A Redis of our own, set as production wants it: it keeps its data and evicts nothing.
#[derive(Debug, Clone)]
pub struct Redis {
    /// `redis-server`
    pub program: PathBuf,
    /// The folder of its append-only file.
    pub data: PathBuf,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl Redis {
    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Server for Redis {
    fn name(&self) -> &str {
        "redis"
    }

    fn launch(&self) -> anyhow::Result<Launch> {
        fs::create_dir_all(&self.data).with_context(|| format!("cannot create {}", self.data.display()))?;
        let port = self.port.to_string();
        let data = self.data.display().to_string();
        Ok(Launch::new(&self.program).args(
            [
                ["--bind", "127.0.0.1"],
                ["--port", &port],
                ["--dir", &data],
                ["--appendonly", "yes"],
                ["--appendfsync", "everysec"],
                ["--save", ""],
                ["--maxmemory-policy", "noeviction"],
                ["--daemonize", "no"],
            ]
            .as_flattened()
            .iter()
            .copied(),
        ))
    }

    fn probe(&self) -> anyhow::Result<()> {
        let timeout = Duration::from_secs(1);
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], self.port)), timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0_u8; 64];
        let length = stream.read(&mut answer)?;
        let answer = String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned();
        ensure!(answer.starts_with("+PONG"), "Redis says {}", answer.trim());
        Ok(())
    }
}
