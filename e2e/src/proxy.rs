//! A TCP proxy on 127.0.0.1 that does what networks do: it cuts connections, loses what a server has answered, and leads
//! to another server under the same address.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Context;

use crate::ports::free_port;

/// A way to one port of 127.0.0.1. Dropping it closes it and all its connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    line: Arc<Line>,
}

#[derive(Debug)]
struct Line {
    target: AtomicU16,
    closed: AtomicBool,
    losing_replies: AtomicBool,
    next: AtomicU64,
    /// Both ends of every connection.
    open: Mutex<HashMap<u64, [TcpStream; 2]>>,
}

impl Proxy {
    /// Listens on a free port and leads to `target`, whether somebody listens there yet or not.
    ///
    /// # Errors
    /// When no port can be listened on.
    pub fn to(target: u16) -> anyhow::Result<Self> {
        let port = free_port()?;
        let listener = TcpListener::bind(("127.0.0.1", port)).context("a proxy cannot listen")?;
        let line = Arc::new(Line {
            target: AtomicU16::new(target),
            closed: AtomicBool::new(false),
            losing_replies: AtomicBool::new(false),
            next: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let served = Arc::clone(&line);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if served.closed.load(Ordering::Relaxed) {
                    return;
                }
                let line = Arc::clone(&served);
                thread::spawn(move || line.serve(client));
            }
        });
        Ok(Self { port, line })
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts every connection there is; new ones can be made.
    pub fn cut(&self) {
        for ends in self.line.open().values() {
            ends.iter().for_each(close);
        }
    }

    /// From now on leads to another port; the connections there are, are cut.
    pub fn lead_to(&self, target: u16) {
        self.line.target.store(target, Ordering::SeqCst);
        self.cut();
    }

    /// From now on requests arrive and answers do not, also on new connections, until [`Proxy::stop_losing_replies`].
    pub fn lose_replies(&self) {
        self.line.losing_replies.store(true, Ordering::SeqCst);
    }

    /// Lets answers through again. Connections that lost some are of no use any more: all are cut.
    pub fn stop_losing_replies(&self) {
        self.cut();
        self.line.losing_replies.store(false, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.line.closed.store(true, Ordering::Relaxed);
        self.cut();
        // The listening thread looks at the flag when somebody comes.
        let _wakes_it = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Line {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, [TcpStream; 2]>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries one connection until either end closes. An error is what both ends see: a closed connection.
    fn serve(self: Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.target.load(Ordering::SeqCst))))
        else {
            return;
        };
        let _slower_at_worst = (client.set_nodelay(true), server.set_nodelay(true));
        let (Ok(client_end), Ok(server_end)) = (client.try_clone(), server.try_clone()) else { return };
        let (Ok(replies_from), Ok(replies_to)) = (server.try_clone(), client.try_clone()) else { return };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.open().insert(id, [client_end, server_end]);
        let line = Arc::clone(&self);
        let replies =
            thread::spawn(move || carry(&replies_from, &replies_to, || line.losing_replies.load(Ordering::SeqCst)));
        carry(&client, &server, || false);
        let _panicked = replies.join();
        self.open().remove(&id);
    }
}

fn carry(mut from: &TcpStream, mut to: &TcpStream, losing: impl Fn() -> bool) {
    let mut buffer = [0_u8; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if losing() {
            continue;
        }
        if to.write_all(buffer.get(..length).unwrap_or_default()).is_err() {
            break;
        }
    }
    close(from);
    close(to);
}

fn close(stream: &TcpStream) {
    let _closed_already = stream.shutdown(Shutdown::Both);
}
