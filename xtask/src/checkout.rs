//! Where things lie in this checkout.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The checkout that this command was built from.
#[derive(Debug, Clone)]
pub(crate) struct Checkout {
    root: PathBuf,
}

impl Checkout {
    pub(crate) fn here() -> Self {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self { root: package.parent().unwrap_or(package).to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Everything that belongs to this machine and not to the repository.
    pub(crate) fn private(&self) -> PathBuf {
        self.root.join(".doorbuster")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.private().join("logs")
    }

    pub(crate) fn stack_file(&self) -> PathBuf {
        self.private().join("stack.json")
    }

    /// Cargo's folder for what it builds.
    pub(crate) fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), |folder| self.root.join(folder))
    }

    /// The finished filter module.
    pub(crate) fn filter_wasm(&self) -> PathBuf {
        self.root.join("target/doorbuster.wasm")
    }

    pub(crate) fn create_private(&self) -> anyhow::Result<()> {
        let logs = self.logs();
        fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))
    }

    /// Keeps a second stack from this checkout's data for as long as the file is held, also if this process is killed.
    pub(crate) fn lock(&self) -> anyhow::Result<File> {
        let path = self.private().join("lock");
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                bail!("a stack of this checkout is running already: stop it with Ctrl-C first, or use another checkout")
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

/// Writes a file for our eyes only, so that a reader sees the old text or the new one, never a part.
pub(crate) fn replace_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    let written = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&beside, path));
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Removes a folder and all it holds, if it is there.
pub(crate) fn remove_folder(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
