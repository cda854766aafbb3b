//! Log lines on the standard error, and spans for a collector that speaks OTLP over HTTP.

use std::io::stderr;
use std::time::Duration;

use anyhow::Context;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{Config, LogFormat};

/// One delivery to the collector, and the last one at a stop, may take so long.
const DELIVERY: Duration = Duration::from_secs(2);

/// Between two deliveries.
const EVERY: Duration = Duration::from_secs(1);

/// Spans that wait for a delivery; more are dropped, so that a collector that is away costs nobody time or memory.
const LARGEST_QUEUE: usize = 4_096;

/// Spans on their way to a collector, if there is one.
#[derive(Debug)]
pub struct Spans(Option<SdkTracerProvider>);

impl Spans {
    /// Delivers what waits. Blocks for a moment; for the end of the program.
    pub fn flush(self) {
        if let Some(Err(error)) = self.0.map(|provider| provider.shutdown_with_timeout(DELIVERY)) {
            tracing::warn!(%error, "the last spans did not reach the collector");
        }
    }
}

/// Starts both, for the whole process.
///
/// # Errors
/// If spans cannot be sent at all. A collector that is away is no error.
pub fn start(config: &Config) -> anyhow::Result<Spans> {
    let provider = config.otlp_endpoint.as_deref().map(provider).transpose().context("otlp_endpoint")?;
    let spans = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("doorbuster-backend"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target("doorbuster_backend", Level::INFO))
    });
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr);
    let lines = match config.log_format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.boxed(),
    };
    let lines = lines.with_filter(EnvFilter::new(&config.log));
    tracing_subscriber::registry().with(lines).with(spans).init();
    Ok(Spans(provider))
}

/// A thread of its own delivers, so neither requests nor their runtime wait for the collector.
fn provider(endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(DELIVERY)
        .build()?;
    let batches = BatchConfigBuilder::default().with_max_queue_size(LARGEST_QUEUE).with_scheduled_delay(EVERY).build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    let resource = Resource::builder().with_service_name("doorbuster-backend").build();
    Ok(SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource).build())
}
