//! The servers that this library starts: they keep their data and leave nothing behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use doorbuster_e2e::ports::free_port;
use doorbuster_e2e::postgres::{Postgres, query};
use doorbuster_e2e::process::{Launch, Process};
use doorbuster_e2e::redis::Redis;
use doorbuster_e2e::server::Running;
use doorbuster_e2e::{Programs, Proxy};

use crate::support::{Folder, eventually};

#[test]
fn postgres_keeps_its_rows_over_kill_9() {
    let folder = Folder::new("postgres-kept");
    let programs = Programs::from_env().unwrap();
    let postgres = Postgres {
        bin: programs.postgres_bin.clone(),
        home: folder.path().join("postgres"),
        port: free_port().unwrap(),
        password: "only for this test".replace(' ', "-"),
    };
    postgres_survives(&postgres, folder.path());
}

fn postgres_survives(postgres: &Postgres, logs: &Path) {
    let url = postgres.url("postgres");
    let ask = |sql: &str| query(&postgres.bin, &url, sql).unwrap();
    let mut running = Running::start(Box::new(postgres.clone()), logs).unwrap();
    ask("CREATE TABLE kept AS SELECT 7 AS number");
    // Once while nobody is connected, once while sessions are at work.
    running.kill();
    running.restart().unwrap();
    let mut session = Command::new(postgres.bin.join("psql"))
        .args(["-X", "-d", &url, "-c", "SELECT pg_sleep(60)"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually(Duration::from_secs(5), "a session at work", || {
        ask("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'") == [["1"]]
    });
    running.kill();
    running.restart().unwrap();
    assert_eq!(ask("SELECT number FROM kept"), [["7"]]);
    assert_eq!(ask("SHOW fsync"), [["on"]]);
    session.wait().unwrap();
}

#[test]
fn redis_keeps_its_keys_over_a_kill() {
    let folder = Folder::new("redis-kept");
    let program = Programs::from_env().unwrap().redis_server;
    let redis = Redis { program, data: folder.path().join("redis"), port: free_port().unwrap() };
    let command = |line: &str| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
        stream.write_all(format!("{line}\r\nQUIT\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let mut running = Running::start(Box::new(redis.clone()), folder.path()).unwrap();
    assert!(command("SET kept 7").starts_with("+OK"));
    running.kill();
    running.restart().unwrap();
    assert!(command("GET kept").starts_with("$1\r\n7"));
    assert!(command("CONFIG GET maxmemory-policy").contains("noeviction"));
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let folder = Folder::new("redis-refused");
    let program = Programs::from_env().unwrap().redis_server;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let redis = Redis { program, data: folder.path().join("redis"), port };
    let error =
        Running::start(Box::new(redis), folder.path()).err().map(|error| format!("{error:#}")).unwrap_or_default();
    assert!(error.contains("redis ended") && error.contains("Address already in use"), "{error}");
}

/// Test threads end before their process does; their servers must not end with them.
#[test]
fn a_server_outlives_the_thread_that_started_it() {
    let folder = Folder::new("outlives");
    let log = folder.path().join("sleep.log");
    let launch = Launch::new("sleep").args(["60"]);
    let mut process = std::thread::spawn(move || Process::spawn(&launch, &log)).join().unwrap().unwrap();
    // A signal sent at the thread's end would have arrived by the time a second process has come and gone.
    Command::new("true").status().unwrap();
    assert!(process.try_wait().unwrap().is_none());
    let command = format!("/proc/{}/comm", process.pid());
    eventually(Duration::from_secs(5), "the pid to be the server's own", || {
        fs::read_to_string(&command).unwrap().trim() == "sleep"
    });
    process.kill();
    assert!(process.try_wait().unwrap().is_some());
}

/// The test plays both parts: started again by itself, it is the parent that gets killed.
#[test]
fn a_server_dies_with_the_process_that_started_it() {
    const PARENT: &str = "DOORBUSTER_TEST_PARENT_FOLDER";
    if let Some(folder) = std::env::var_os(PARENT) {
        let folder = PathBuf::from(folder);
        let process = Process::spawn(&Launch::new("sleep").args(["60"]), &folder.join("sleep.log")).unwrap();
        fs::write(folder.join("pid.new"), process.pid().to_string()).unwrap();
        fs::rename(folder.join("pid.new"), folder.join("pid")).unwrap();
        std::thread::sleep(Duration::from_secs(60));
    }
    let folder = Folder::new("orphan");
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "servers::a_server_dies_with_the_process_that_started_it"])
        .env(PARENT, folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid_file = folder.path().join("pid");
    eventually(Duration::from_secs(10), "the parent to start a server", || pid_file.exists());
    let server = PathBuf::from("/proc").join(fs::read_to_string(&pid_file).unwrap());
    eventually(Duration::from_secs(5), "the server to be itself", || {
        fs::read_to_string(server.join("comm")).is_ok_and(|name| name.trim() == "sleep")
    });
    parent.kill().unwrap();
    parent.wait().unwrap();
    eventually(Duration::from_secs(5), "the server to die", || {
        // Nobody may be there to reap it: a zombie is dead.
        fs::read_to_string(server.join("status")).map_or(true, |status| status.contains("State:\tZ"))
    });
}

/// Answers each line with the same line, on as many connections as come.
fn echo_server() -> u16 {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
                    let _closed = (&stream).write_all(line.as_bytes());
                    line.clear();
                }
            });
        }
    });
    port
}

#[test]
fn a_proxy_cuts_connections_and_loses_replies() {
    use std::io::{Read, Write};
    let proxy = Proxy::to(echo_server()).unwrap();
    let ask = |stream: &mut std::net::TcpStream| {
        stream.write_all(b"hello\n")?;
        let mut answer = [0_u8; 6];
        stream.read_exact(&mut answer)
    };
    let connect = || std::net::TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();

    let mut first = connect();
    ask(&mut first).unwrap();
    proxy.cut();
    assert!(ask(&mut first).is_err(), "the connection was cut");
    let mut second = connect();
    ask(&mut second).unwrap();

    proxy.lose_replies();
    second.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let lost = ask(&mut second).unwrap_err();
    assert_eq!(lost.kind(), std::io::ErrorKind::WouldBlock, "the reply is lost, the connection is not");
    proxy.stop_losing_replies();
    assert!(ask(&mut second).is_err(), "what lost a reply is cut");
    ask(&mut connect()).unwrap();
}

#[test]
fn a_crash_and_a_freeze_reach_the_processes_that_a_server_has_started() {
    let folder = Folder::new("family");
    let launch = Launch::new("sh").args(["-c", "sleep 60 & wait"]);
    let mut process = Process::spawn(&launch, &folder.path().join("sh.log")).unwrap();
    let parent = process.pid().to_string();
    // The fields behind the command: state, then parent.
    let fields = |pid: &str| -> Option<(String, String)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    };
    let mut child = String::new();
    eventually(Duration::from_secs(5), "the shell to start its child", || {
        let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let found = pids.into_iter().find(|pid| fields(pid).is_some_and(|(_, of)| of == parent));
        child = found.unwrap_or_default();
        !child.is_empty()
    });
    let state = |pid: &str| fields(pid).map(|(state, _)| state);
    process.freeze();
    eventually(Duration::from_secs(5), "both to be held", || {
        state(&parent).as_deref() == Some("T") && state(&child).as_deref() == Some("T")
    });
    process.unfreeze();
    eventually(Duration::from_secs(5), "both to go on", || {
        state(&parent).as_deref() == Some("S") && state(&child).as_deref() == Some("S")
    });
    process.crash();
    eventually(Duration::from_secs(5), "the child to be gone", || state(&child).is_none_or(|state| state == "Z"));
}
