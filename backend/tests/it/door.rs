//! A proxy before a store that breaks connections or holds replies back.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of what passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Open,
    /// Requests pass, replies wait until it is open.
    OneWay,
    /// Connections are refused, and broken.
    Closed,
}

/// A URL that leads through the door, which is open at first.
pub(crate) async fn door(redis_url: &str) -> (String, watch::Sender<Door>) {
    let (address, door) = door_to(redis_url.trim_start_matches("redis://").trim_end_matches('/')).await;
    (format!("redis://{address}"), door)
}

/// The same before any address.
pub(crate) async fn door_to(address: &str) -> (SocketAddr, watch::Sender<Door>) {
    let target = Arc::new(address.to_owned());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (door, state) = watch::channel(Door::Open);
    tokio::spawn(async move {
        while let Ok((inner, _)) = listener.accept().await {
            let (target, state, mut closed) = (Arc::clone(&target), state.clone(), state.clone());
            tokio::spawn(async move {
                if *state.borrow() != Door::Closed {
                    let outer = TcpStream::connect(target.as_str()).await.unwrap();
                    tokio::select! {
                        () = pass(inner, outer, state) => {}
                        _ = closed.wait_for(|door| *door == Door::Closed) => {}
                    }
                }
            });
        }
    });
    (address, door)
}

async fn pass(inner: TcpStream, outer: TcpStream, mut state: watch::Receiver<Door>) {
    let ((mut requests, mut to_client), (mut replies, mut to_redis)) = (inner.into_split(), outer.into_split());
    let back = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = replies.read(&mut buffer).await {
            let open = state.wait_for(|door| *door != Door::OneWay).await.is_ok();
            if !open || to_client.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        _ = copy(&mut requests, &mut to_redis) => {}
        () = back => {}
    }
}
