//! Where events go.

use crate::config::EventsConfig;

use super::event::Event;
#[cfg(feature = "kafka")]
use super::kafka::Kafka;
use super::webhook::Webhook;

/// Longest description of a failure, characters.
const LONGEST_ERROR: usize = 200;

/// Deliveries to Kafka under way at once: its client sends them in batches.
#[cfg(feature = "kafka")]
const KAFKA_IN_FLIGHT: usize = 512;

/// Why an event was not delivered, or is not known to be: for operators, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Undelivered(String);

impl Undelivered {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into().chars().take(LONGEST_ERROR).collect())
    }

    /// An error with all its causes.
    pub(super) fn unanswered(error: impl Into<anyhow::Error>) -> Self {
        Self::new(format!("{:#}", error.into()))
    }
}

/// One sink, as configured.
#[derive(Debug)]
pub(super) enum Sink {
    /// An HTTP endpoint.
    Webhook { webhook: Box<Webhook>, in_flight: usize },
    /// A topic of Kafka.
    #[cfg(feature = "kafka")]
    Kafka(Kafka),
}

impl Sink {
    /// The sinks that the configuration asks for.
    pub(super) fn all(config: &EventsConfig) -> anyhow::Result<Vec<Self>> {
        let mut sinks = Vec::new();
        if let Some(webhook) = config.webhook.clone() {
            let in_flight = webhook.in_flight;
            let webhook = Webhook::new(webhook, config.timeout)?;
            sinks.push(Self::Webhook { webhook: Box::new(webhook), in_flight });
        }
        #[cfg(feature = "kafka")]
        if let Some(kafka) = &config.kafka {
            sinks.push(Self::Kafka(Kafka::new(kafka, config.timeout)?));
        }
        Ok(sinks)
    }

    /// Its name in the database, in metrics and to operators.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => "kafka",
        }
    }

    /// Deliveries that may be under way at once.
    pub(super) fn in_flight(&self) -> usize {
        match self {
            Self::Webhook { in_flight, .. } => *in_flight,
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => KAFKA_IN_FLIGHT,
        }
    }

    /// Delivers an event; `now_s`: Unix seconds.
    pub(super) async fn deliver(&self, event: &Event, now_s: i64) -> Result<(), Undelivered> {
        match self {
            Self::Webhook { webhook, .. } => webhook.deliver(event, now_s).await,
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.deliver(event).await,
        }
    }
}
