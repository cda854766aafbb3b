//! A handler that does nothing: what is left of a request's cost when issuing costs nothing.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::serve::ListenerExt;
use clap::Args;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};

/// Where to listen and what to say.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Port on 127.0.0.1
    #[arg(long)]
    port: u16,
    /// JSON file with the status, the headers and the body of every answer
    #[arg(long, value_name = "FILE")]
    reply: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// Serves until it is killed, on as many threads as the backend.
#[tokio::main]
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let text = std::fs::read(&options.reply).with_context(|| format!("cannot read {}", options.reply.display()))?;
    let reply: Reply = serde_json::from_slice(&text).context("the reply is not as it should be")?;
    let status = StatusCode::from_u16(reply.status).context("status")?;
    let mut headers = HeaderMap::new();
    for (name, value) in &reply.headers {
        headers.insert(axum::http::HeaderName::try_from(name)?, value.parse().context("header")?);
    }
    let answer = Arc::new((status, headers, reply.body));
    let router = Router::new().fallback(move || {
        let (status, headers, body) = (answer.0, answer.1.clone(), answer.2.clone());
        async move { (status, headers, body) }
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
    let nodelay = |stream: &mut TcpStream| {
        let _ = stream.set_nodelay(true);
    };
    Ok(axum::serve(listener.tap_io(nodelay), router).await?)
}
