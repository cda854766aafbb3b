//! Secrets of a local stack.

use std::fs::File;
use std::io::Read;

use anyhow::Context;

/// 128 random bits in hexadecimal, from the kernel.
///
/// # Errors
/// When `/dev/urandom` cannot be read.
pub fn random_token() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
