//! Spans for a collector, from the program itself.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::world::{ADMIN_TOKEN, EDGE_TOKEN, Reply, World, eventually, in_world};

type Received = Arc<Mutex<Vec<ExportTraceServiceRequest>>>;

/// A collector that takes everything.
#[expect(clippy::disallowed_methods, reason = "another's interface, which our document says nothing of")]
async fn collector() -> (String, Received) {
    let received = Received::default();
    let take = async |State(received): State<Received>, body: Bytes| {
        received.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&received));
    tokio::spawn(axum::serve(listener, router).into_future());
    (url, received)
}

struct Program {
    child: Child,
    public: String,
}

/// The program in a world's stores, which already know its campaigns.
async fn program(world: &World, otlp_endpoint: &str) -> Program {
    let address = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (public, ops) = (address(), address());
    let child = Command::new(env!("CARGO_BIN_EXE_doorbuster-backend"))
        .env_clear()
        .env("DOORBUSTER_DATABASE_URL", &world.database_url)
        .env("DOORBUSTER_REDIS_URL", &world.redis_url)
        .env("DOORBUSTER_REDIS_PREFIX", &world.name)
        .env("DOORBUSTER_ADMIN_TOKEN", ADMIN_TOKEN)
        .env("DOORBUSTER_EDGE_TOKEN", EDGE_TOKEN)
        .env("DOORBUSTER_PUBLIC_ADDR", &public)
        .env("DOORBUSTER_OPS_ADDR", &ops)
        .env("DOORBUSTER_OTLP_ENDPOINT", otlp_endpoint)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    eventually("readiness", async || {
        let reply = world.http.get(format!("http://{ops}/readyz")).send().await.ok()?;
        reply.status().is_success().then_some(())
    })
    .await;
    Program { child, public }
}

impl Program {
    async fn issue(&self, world: &World, user: &str) -> Reply {
        let url = format!("http://{}/v1/coupon/issue?campaign=spring", self.public);
        let request =
            world.http.post(url).header("x-user-id", user).header("x-request-id", format!("request-of-{user}"));
        Reply::of(request.send().await.unwrap()).await
    }

    async fn stop(self) -> std::process::Output {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status().await.unwrap().success());
        tokio::time::timeout(Duration::from_secs(60), self.child.wait_with_output()).await.unwrap().unwrap()
    }
}

fn spans(received: &Received) -> Vec<Span> {
    let requests = received.lock().unwrap();
    let resources = requests.iter().flat_map(|request| &request.resource_spans);
    resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    format!("{:?}", found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_delivers_the_spans_that_wait() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(json!(10)).await).await;
        let (url, received) = collector().await;
        let program = program(world, &url).await;
        assert_eq!(program.issue(world, "alice").await.told(), "issued");
        let output = program.stop().await;
        assert_eq!(output.status.code(), Some(0));
        let spans = spans(&received);
        let span = spans.iter().find(|span| attribute(span, "request_id").contains("request-of-alice"));
        let span = span.unwrap_or_else(|| panic!("{spans:?}"));
        assert_eq!(span.name, "request");
        assert!(attribute(span, "route").contains("/v1/coupon/issue"), "{span:?}");
        assert!(attribute(span, "http.response.status_code").contains("201"), "{span:?}");
        assert!(spans.iter().any(|span| span.name == "commit"), "{spans:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_or_silent_fails_no_request() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(json!(1_000)).await).await;
        // Takes connections and never answers; the other one takes none.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        for (name, address) in [("silent", silent.local_addr().unwrap()), ("gone", gone)] {
            let program = program(world, &format!("http://{address}")).await;
            for number in 0..50 {
                let reply = program.issue(world, &format!("{name}-{number}")).await;
                assert_eq!(reply.status, 201, "{reply:?}");
            }
            let output = program.stop().await;
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        }
    })
    .await;
}
