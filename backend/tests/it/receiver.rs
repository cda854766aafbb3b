//! A receiver of webhook calls: a real server that answers as the test says, and remembers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What the receiver does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// Answers with a status.
    Status(u16),
    /// Answers 200 and a body without an end.
    Endless,
    /// Points elsewhere.
    Redirect,
    /// Says nothing.
    Hang,
}

type Decide = Box<dyn FnMut(&Value) -> Reaction + Send>;

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) event: Value,
    pub(crate) taken: bool,
}

impl Call {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

struct Inner {
    decide: Mutex<Decide>,
    calls: Mutex<Vec<Call>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    inner: Arc<Inner>,
}

/// Counts a call as open, also when its caller goes away.
struct Open(Arc<Inner>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Receiver {
    pub(crate) async fn start(decide: impl FnMut(&Value) -> Reaction + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        Self::serve(listener, url, decide)
    }

    /// The same over TLS.
    pub(crate) async fn start_encrypted(
        server: TlsAcceptor,
        decide: impl FnMut(&Value) -> Reaction + Send + 'static,
    ) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/hook", tcp.local_addr().unwrap().port());
        Self::serve(Encrypted { tcp, server }, url, decide)
    }

    fn serve(
        listener: impl Listener<Addr: std::fmt::Debug>,
        url: String,
        decide: impl FnMut(&Value) -> Reaction + Send + 'static,
    ) -> Self {
        let inner = Arc::new(Inner {
            decide: Mutex::new(Box::new(decide)),
            calls: Mutex::default(),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
        });
        let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, inner }
    }

    pub(crate) fn react(&self, decide: impl FnMut(&Value) -> Reaction + Send + 'static) {
        *self.inner.decide.lock().unwrap() = Box::new(decide);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.inner.calls.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.inner.calls.lock().unwrap().len()
    }

    /// Ids of events that were answered with success, in order, each where it came first.
    pub(crate) fn taken(&self) -> Vec<String> {
        let mut ids: Vec<String> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for call in self.inner.calls.lock().unwrap().iter().filter(|call| call.taken) {
            let id = call.event["id"].as_str().unwrap().to_owned();
            if seen.insert(id.clone()) {
                ids.push(id);
            }
        }
        ids
    }

    /// The most calls that were open at once.
    pub(crate) fn most_open(&self) -> usize {
        self.inner.most_open.load(Ordering::SeqCst)
    }
}

/// Accepts those who are content with the server's certificate.
struct Encrypted {
    tcp: TcpListener,
    server: TlsAcceptor,
}

impl Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, peer) = Listener::accept(&mut self.tcp).await;
            if let Ok(stream) = self.server.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let open = inner.open.fetch_add(1, Ordering::SeqCst) + 1;
    inner.most_open.fetch_max(open, Ordering::SeqCst);
    let _open = Open(Arc::clone(&inner));
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let event: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let reaction = (inner.decide.lock().unwrap())(&event);
    let taken = matches!(reaction, Reaction::Status(200..=299) | Reaction::Endless);
    let call = Call { path: parts.uri.path().to_owned(), headers: parts.headers, body, event, taken };
    inner.calls.lock().unwrap().push(call);
    match reaction {
        Reaction::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Reaction::Endless => {
            let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[0; 1024])));
            Body::from_stream(chunks).into_response()
        }
        Reaction::Redirect => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/elsewhere")]).into_response(),
        Reaction::Hang => std::future::pending().await,
    }
}
