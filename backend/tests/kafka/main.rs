//! Events out: to Kafka. The brokers are librdkafka's mock cluster, which speaks Kafka's protocol over TCP.

// `cfg(test)` also tells clippy that helpers may unwrap.
#[cfg(test)]
mod brokers;
#[cfg(test)]
#[cfg(feature = "kafka-tls")]
#[path = "../it/certificates.rs"]
mod certificates;
#[cfg(test)]
mod delivery;
#[cfg(test)]
#[cfg(feature = "kafka-tls")]
mod encrypted;
#[cfg(test)]
#[cfg(feature = "kafka-tls")]
mod entrance;
#[cfg(test)]
#[path = "../it/schemas.rs"]
mod schemas;
#[cfg(test)]
#[expect(dead_code, reason = "most of it serves the other tests")]
#[path = "../it/world.rs"]
mod world;
