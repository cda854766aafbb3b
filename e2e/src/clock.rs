//! Servers whose wall clock is wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::process::Launch;
use crate::server::Server;

/// A server that believes it is later (or, below zero, earlier) than it is.
pub(crate) struct WrongClock {
    server: Box<dyn Server>,
    library: PathBuf,
    offset_s: i64,
    /// May hold another offset, which the server follows at once.
    settable: PathBuf,
}

impl WrongClock {
    /// Builds what is preloaded into the server, in `folder`, with the C compiler that Rust links with.
    pub(crate) fn new(server: Box<dyn Server>, offset_s: i64, folder: &Path) -> anyhow::Result<Self> {
        let source = folder.join("shifted.c");
        let library = folder.join("shifted.so");
        fs::write(&source, include_str!("clock/shifted.c"))
            .with_context(|| format!("cannot write {}", source.display()))?;
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .status()
            .context("cannot run cc (package gcc)")?;
        ensure!(built.success(), "cc cannot build {}", source.display());
        let settable = settable(folder, server.name());
        Ok(Self { server, library, offset_s, settable })
    }
}

/// The file by which a server's clock is set while it runs.
fn settable(folder: &Path, server: &str) -> PathBuf {
    folder.join(format!("{server}.clock"))
}

/// Sets the clock of a running server: ahead by so many seconds, or behind if below zero.
pub(crate) fn set(folder: &Path, server: &str, offset_s: i64) -> anyhow::Result<()> {
    // By rename: the server reads the file at any time.
    let place = settable(folder, server);
    let written = place.with_extension("new");
    fs::write(&written, offset_s.to_string()).with_context(|| format!("cannot write {}", written.display()))?;
    fs::rename(&written, &place).with_context(|| format!("cannot write {}", place.display()))
}

impl Server for WrongClock {
    fn name(&self) -> &str {
        self.server.name()
    }

    fn launch(&self) -> anyhow::Result<Launch> {
        let launch = self.server.launch()?;
        Ok(launch
            .env("LD_PRELOAD", self.library.display().to_string())
            .env("CLOCK_OFFSET_FILE", self.settable.display().to_string())
            .env("CLOCK_OFFSET_S", self.offset_s.to_string()))
    }

    fn probe(&self) -> anyhow::Result<()> {
        self.server.probe()
    }
}
