//! One HTTP/1.1 connection to one path. It understands what the contract promises (`content-length` on every reply) and
//! no more, so that it costs little beside what it measures.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A reply with a longer head is none of ours.
const LONGEST_HEAD: usize = 16 << 10;

/// A connection that asks again and again.
pub(crate) struct Wire {
    stream: TcpStream,
    before_user: Vec<u8>,
    request: Vec<u8>,
    received: Vec<u8>,
}

impl Wire {
    /// Connects. `target` is the request's path and query.
    pub(crate) async fn connect(address: SocketAddr, target: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let before_user = format!("POST {target} HTTP/1.1\r\nhost: {address}\r\nx-user-id: ").into_bytes();
        Ok(Self { stream, before_user, request: Vec::new(), received: Vec::new() })
    }

    /// Asks as this user; the reply's status, once it is here to its last byte.
    pub(crate) async fn ask(&mut self, user: &str) -> anyhow::Result<u16> {
        self.request.clear();
        self.request.extend_from_slice(&self.before_user);
        self.request.extend_from_slice(user.as_bytes());
        self.request.extend_from_slice(b"\r\n\r\n");
        self.stream.write_all(&self.request).await?;
        self.received.clear();
        loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                bail!("the connection was closed instead of an answer");
            }
            if let Some(Reply { status, length }) = parse(&self.received)? {
                if self.received.len() >= length {
                    return Ok(status);
                }
                self.received.reserve(length - self.received.len());
            }
        }
    }
}

struct Reply {
    status: u16,
    /// Of the head and the body.
    length: usize,
}

/// None while the head has not arrived.
fn parse(received: &[u8]) -> anyhow::Result<Option<Reply>> {
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
        if received.len() > LONGEST_HEAD {
            bail!("a reply's head has no end");
        }
        return Ok(None);
    };
    let head = std::str::from_utf8(received.get(..end).unwrap_or_default()).context("a head that is not text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match (status, length) {
        (Some(status), Some(length)) => Ok(Some(Reply { status, length: end + 4 + length })),
        _ => bail!("a reply without status or content-length: {head}"),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_reply_is_read_by_its_length() {
        let text = b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello";
        for cut in 0..text.len() {
            let reply = parse(&text[..cut]).unwrap();
            assert_eq!(reply.is_some(), cut >= text.len() - 5, "{cut}");
        }
        let reply = parse(text).unwrap().unwrap();
        assert_eq!((reply.status, reply.length), (201, text.len()));
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
