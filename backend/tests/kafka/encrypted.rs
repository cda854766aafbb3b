//! Brokers behind TLS.

use serde_json::Value;

use crate::brokers::Brokers;
use crate::certificates::{Certificates, File};
use crate::entrance;
use crate::world::{eventually, in_world};

#[tokio::test(flavor = "multi_thread")]
async fn brokers_are_reached_over_tls_if_their_certificate_holds() {
    let made = Certificates::make();
    let (ours, unknown) = (File::with(&made.ca), File::with(&made.unknown_ca));
    let mut brokers = Brokers::start();
    let named = entrance::to(&brokers.bootstrap_servers(), &made.server).await;
    let settings = |ca: &File| {
        let by_tls = format!("{{'security.protocol' = 'ssl', 'ssl.ca.location' = '{}'}}", ca.path());
        format!("{}\nkafka_properties = {by_tls}", Brokers::settings(&named))
    };
    in_world(async |world| {
        let at = world.start_with(&settings(&unknown)).await;
        world.put(at, "spring", &world.open(Value::Null).await).await;
        let failed = "doorbuster_events_failed_total{sink=\"kafka\"}";
        eventually("a failed delivery", async || {
            let reply = world.http.get(format!("{}/metrics", world.backends[at].ops)).send().await.ok()?;
            let text = reply.text().await.ok()?;
            text.lines().any(|line| line.starts_with(failed) && !line.ends_with(" 0")).then_some(())
        })
        .await;
    })
    .await;
    in_world(async |world| {
        let at = world.start_with(&settings(&ours)).await;
        world.put(at, "autumn", &world.open(Value::Null).await).await;
        // Nothing of what was to be told to a broker that nobody vouches for.
        let received = brokers.received(1).await;
        assert!(received.iter().all(|message| message.key == "autumn"), "{received:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_property_that_librdkafka_does_not_take_is_named_without_its_value() {
    for (properties, expected) in [
        ("'sasl.pass' = 'hunter2'", "kafka_properties.sasl.pass: this build of librdkafka knows no such property"),
        ("'security.protocol' = 'hunter2'", "kafka_properties.security.protocol: this build"),
        ("'ssl.ca.location' = '/nowhere', 'security.protocol' = 'ssl'", "ssl.ca.location"),
    ] {
        in_world(async |world| {
            let settings = format!("{}\nkafka_properties = {{{properties}}}", Brokers::settings("localhost:1"));
            let error = world.refused(&settings).await;
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        })
        .await;
    }
}
