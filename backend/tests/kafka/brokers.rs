//! Three brokers with a topic, and what came to it.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

use crate::world::eventually;

pub(crate) const TOPIC: &str = "shop.events";

const BROKERS: i32 = 3;
const PARTITIONS: i32 = 4;

/// A message as a consumer gets it.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) partition: i32,
    pub(crate) key: String,
    pub(crate) content_type: String,
    pub(crate) event: Value,
}

pub(crate) struct Brokers {
    cluster: MockCluster<'static, DefaultProducerContext>,
    consumer: BaseConsumer,
    received: Vec<Received>,
}

impl Brokers {
    pub(crate) fn start() -> Self {
        let cluster = MockCluster::new(BROKERS).unwrap();
        cluster.create_topic(TOPIC, PARTITIONS, BROKERS).unwrap();
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("group.id", "shop")
            .set("reconnect.backoff.max.ms", "200")
            .create()
            .unwrap();
        let mut partitions = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            partitions.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&partitions).unwrap();
        Self { cluster, consumer, received: Vec::new() }
    }

    /// Host and port of each, with commas between them.
    pub(crate) fn bootstrap_servers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Settings for a backend that reaches brokers by these names.
    pub(crate) fn settings(brokers: &str) -> String {
        format!("kafka_brokers = '{brokers}'\nkafka_topic = '{TOPIC}'\nevent_backoff_ms = 10\nevent_timeout_ms = 2000")
    }

    pub(crate) fn down(&self) {
        (1..=BROKERS).for_each(|broker| self.cluster.broker_down(broker).unwrap());
    }

    pub(crate) fn up(&self) {
        (1..=BROKERS).for_each(|broker| self.cluster.broker_up(broker).unwrap());
    }

    /// Waits until `count` different events have come; every message so far, those of a partition in order.
    pub(crate) async fn received(&mut self, count: usize) -> Vec<Received> {
        eventually("the messages", async || {
            while let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(5)) {
                let header = message.headers().unwrap().get(0);
                assert_eq!(header.key, "content-type");
                self.received.push(Received {
                    partition: message.partition(),
                    key: String::from_utf8(message.key().unwrap().to_vec()).unwrap(),
                    content_type: String::from_utf8(header.value.unwrap().to_vec()).unwrap(),
                    event: serde_json::from_slice(message.payload().unwrap()).unwrap(),
                });
            }
            let mut ids: Vec<_> = self.received.iter().map(|received| received.event["id"].as_str().unwrap()).collect();
            ids.sort_unstable();
            ids.dedup();
            (ids.len() >= count).then(|| self.received.clone())
        })
        .await
    }
}
