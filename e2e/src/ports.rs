//! Local TCP ports: which are free, and who holds those that are not.

use std::collections::HashSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Mutex;

use anyhow::bail;

/// Below Linux's range for outgoing connections (32768 and up), so that no client's socket takes a port between our look and a server's start.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A port on 127.0.0.1 that is free now and that this process has not handed out before.
///
/// # Errors
/// When the whole range is taken.
pub fn free_port() -> anyhow::Result<u16> {
    static HANDED_OUT: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut guard = HANDED_OUT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let handed_out = guard.get_or_insert_with(HashSet::new);
    let width = RANGE.end - RANGE.start;
    // Processes that run side by side start at different places.
    let start = (std::process::id().wrapping_mul(97) % u32::from(width)) as u16;
    for step in 0..width {
        let port = RANGE.start + (start + step) % width;
        if !handed_out.contains(&port) && is_free(port) {
            handed_out.insert(port);
            return Ok(port);
        }
    }
    bail!("no free port between {} and {}", RANGE.start, RANGE.end)
}

/// Whether a server could listen on this port of 127.0.0.1.
#[must_use]
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Who listens on a port, such as `nginx (pid 4711)`, as far as we may know.
#[must_use]
pub fn holder(port: u16) -> Option<String> {
    let inodes: HashSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let sockets = fs::read_dir(process.path().join("fd")).ok()?;
        let holds = sockets
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|target| inodes.contains(target.to_string_lossy().as_ref()));
        holds.then(|| format!("{} (pid {pid})", command_name(&process.path())))
    })
}

fn command_name(process: &Path) -> String {
    fs::read_to_string(process.join("comm")).map_or_else(|_| "a process".into(), |name| name.trim().to_owned())
}

/// The socket inodes that listen on `port` in a table like `/proc/net/tcp`.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
            let listens = u16::from_str_radix(local_port, 16).ok()? == port && fields.get(3) == Some(&LISTEN);
            listens.then(|| fields.get(9).map(ToString::to_string)).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_port_is_not_free_and_names_its_holder() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port));
        let holder = holder(port).unwrap();
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
    }

    #[test]
    fn no_port_is_handed_out_twice() {
        let ports: HashSet<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 50);
    }

    #[test]
    fn only_listening_sockets_count() {
        let table = "sl local_address rem_address st\n\
            0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 0 0 111 1\n\
            1: 0100007F:1F90 0100007F:9999 01 0:0 0:0 0 0 0 222 1\n\
            2: 0100007F:1F91 00000000:0000 0A 0:0 0:0 0 0 0 333 1\n";
        assert_eq!(listening_inodes(table, 8080), ["111"]);
    }
}
