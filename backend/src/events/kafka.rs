//! A sink that is a topic of Kafka.

use std::time::Duration;

use anyhow::anyhow;
use arc_swap::ArcSwap;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::event::{CLOUDEVENTS_JSON, Event};
use super::sink::Undelivered;
use crate::config::KafkaConfig;

/// Writes each event to a topic, under its subject as key: events of one coupon share a partition, and keep their order.
pub(super) struct Kafka {
    config: ClientConfig,
    topic: String,
    producer: ArcSwap<FutureProducer>,
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Kafka {
    /// Brokers are not asked for before the first event.
    pub(super) fn new(told: &KafkaConfig, deadline: Duration) -> anyhow::Result<Self> {
        let mut config = ClientConfig::new();
        for (name, value) in &told.properties {
            config.set(name, value.expose());
        }
        config
            .set("bootstrap.servers", &told.brokers)
            .set("client.id", "doorbuster")
            // Every in-sync replica has the event before it counts as delivered, and repeats within the producer are
            // recognised by the broker.
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            // Brokers that are back are found soon.
            .set("reconnect.backoff.max.ms", "2000")
            // The partitions of Java's producers.
            .set("partitioner", "murmur2_random")
            .set("message.timeout.ms", deadline.as_millis().to_string())
            // What was sent is waited for no longer than what was not.
            .set("request.timeout.ms", deadline.as_millis().to_string())
            .set("socket.timeout.ms", deadline.as_millis().to_string());
        let producer = config.create().map_err(|error| match error {
            // The whole error has the value in it, which may be a password.
            KafkaError::ClientConfig(_, _, name, _) => {
                anyhow!(
                    "kafka_properties.{name}: this build of librdkafka knows no such property, or no such value of it"
                )
            }
            other => anyhow!("kafka_properties: {other}"),
        })?;
        Ok(Self { config, topic: told.topic.clone(), producer: ArcSwap::from_pointee(producer) })
    }

    pub(super) async fn deliver(&self, event: &Event) -> Result<(), Undelivered> {
        let body = event.body();
        let headers =
            OwnedHeaders::new().insert(Header { key: "content-type", value: Some(CLOUDEVENTS_JSON.as_bytes()) });
        let record = FutureRecord::to(&self.topic).key(&event.subject).payload(&body).headers(headers);
        let producer = self.producer.load_full();
        match producer.send(record, Duration::ZERO).await {
            Ok(_) => Ok(()),
            Err((error, _)) => {
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
                    self.renew(&error);
                }
                Err(Undelivered::unanswered(error))
            }
        }
    }

    /// A producer that lost its place among the brokers never finds it again.
    fn renew(&self, error: &KafkaError) {
        match self.config.create() {
            Ok(producer) => {
                tracing::warn!(%error, "made a new Kafka producer");
                self.producer.store(std::sync::Arc::new(producer));
            }
            Err(again) => tracing::error!(%error, %again, "cannot make a new Kafka producer"),
        }
    }
}
