//! The database of a stack.

use std::path::PathBuf;

use anyhow::Context;

use crate::postgres;
use crate::programs::Programs;

/// The database of a stack, and the server it lies in.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) bin: PathBuf,
    pub(super) name: String,
    pub(super) url: String,
    /// Of the shared server, when the database is to be dropped there.
    pub(super) shared_url: Option<String>,
}

impl Database {
    pub(super) fn of(programs: &Programs, stack: &str) -> Self {
        Self { bin: programs.postgres_bin.clone(), name: stack.replace('-', "_"), url: String::new(), shared_url: None }
    }

    pub(super) fn create_in(&mut self, server_url: &str) -> anyhow::Result<()> {
        postgres::query(&self.bin, server_url, &format!("CREATE DATABASE {}", self.name))?;
        let (server, _) = server_url.rsplit_once('/').context("a database URL ends with the database's name")?;
        self.url = format!("{server}/{}", self.name);
        Ok(())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(server_url) = &self.shared_url {
            let _left_for_the_end_of_the_run =
                postgres::query(&self.bin, server_url, &format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}
