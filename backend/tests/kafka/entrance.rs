//! A way to the brokers by TLS, which librdkafka's mock brokers do not speak themselves.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What brokers call their host, and what clients behind this entrance are told: texts of one length.
const INSIDE: &[u8] = b"127.0.0.1";
const OUTSIDE: &[u8] = b"localhost";

/// Makes a way to each of these brokers (`host:port`, with commas between them). The brokers as clients are to name them.
pub(crate) async fn to(brokers: &str, server: &TlsAcceptor) -> String {
    let (mut ways, mut doors) = (HashMap::new(), Vec::new());
    for broker in brokers.split(',') {
        let inside: u16 = broker.rsplit_once(':').unwrap().1.parse().unwrap();
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        ways.insert(inside, door.local_addr().unwrap().port());
        doors.push((inside, door));
    }
    let named: Vec<String> = ways.values().map(|port| format!("localhost:{port}")).collect();
    let ways = Arc::new(ways);
    for (inside, door) in doors {
        let (ways, server) = (Arc::clone(&ways), server.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = door.accept().await {
                let (ways, server) = (Arc::clone(&ways), server.clone());
                tokio::spawn(async move {
                    // Who does not like the certificate goes away.
                    if let Ok(stream) = server.accept(stream).await {
                        let _ended = lead(stream, inside, &ways).await;
                    }
                });
            }
        });
    }
    named.join(",")
}

async fn lead(client: TlsStream<TcpStream>, inside: u16, ways: &HashMap<u16, u16>) -> std::io::Result<()> {
    let (mut asked, mut answer) = tokio::io::split(client);
    let (mut answered, mut ask) = TcpStream::connect(("127.0.0.1", inside)).await?.into_split();
    let asking = async { tokio::io::copy(&mut asked, &mut ask).await.map(drop) };
    let answering = async {
        loop {
            // Every answer of Kafka's begins with its length.
            let length = answered.read_u32().await?;
            let mut body = vec![0; length as usize];
            answered.read_exact(&mut body).await?;
            for (inside, outside) in ways {
                let told = |host: &[u8], port: u16| [host, &u32::from(port).to_be_bytes()].concat();
                replace(&mut body, &told(INSIDE, *inside), &told(OUTSIDE, *outside));
            }
            answer.write_u32(length).await?;
            answer.write_all(&body).await?;
            answer.flush().await?;
        }
    };
    tokio::select! {
        ended = asking => ended,
        ended = answering => ended,
    }
}

/// Replaces each occurrence by something of its length.
fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    for at in 0..(bytes.len() + 1).saturating_sub(from.len()) {
        let place = &mut bytes[at..at + from.len()];
        if place == from {
            place.copy_from_slice(to);
        }
    }
}
