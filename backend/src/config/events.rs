//! The keys about events.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::Uri;
use axum::http::uri::{Authority, Scheme};

use super::{ConfigError, Keys, Secret};
use crate::events::SigningKey;

/// The key of what is passed on to librdkafka.
const PROPERTIES: &str = "kafka_properties";

/// Where events go, and how hard it is tried.
#[derive(Debug, Clone)]
pub struct EventsConfig {
    /// A webhook, if there is one.
    pub webhook: Option<WebhookConfig>,
    /// A topic of Kafka, if there is one.
    pub kafka: Option<KafkaConfig>,
    /// Deadline of one delivery.
    pub timeout: Duration,
    /// Failed deliveries after which an event is a dead letter.
    pub attempts: u32,
    /// Wait after the first failed delivery; it doubles with each.
    pub backoff: Duration,
}

/// A webhook.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    /// Where it is called. A secret, since many such addresses are.
    pub url: Secret,
    /// Certificates in PEM, one of which must have signed the receiver's; otherwise the system's are trusted.
    pub ca: Option<Vec<u8>>,
    /// The keys that sign: one, or two while they rotate.
    pub keys: Vec<SigningKey>,
    /// Calls under way at once.
    pub in_flight: usize,
}

/// A topic of Kafka.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// Host and port of some brokers, with commas between them.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// What librdkafka is to be told about TLS and SASL, by its own names.
    pub properties: BTreeMap<String, Secret>,
}

impl Keys {
    pub(super) fn events(&mut self) -> Result<EventsConfig, ConfigError> {
        Ok(EventsConfig {
            webhook: self.webhook()?,
            kafka: self.kafka()?,
            timeout: Duration::from_millis(self.number("event_timeout_ms", 10_000, 100..=60_000)?),
            attempts: self.number("event_attempts", 20, 1..=1_000)?,
            backoff: self.milliseconds("event_backoff_ms", 500)?,
        })
    }

    fn webhook(&mut self) -> Result<Option<WebhookConfig>, ConfigError> {
        let mut keys = Vec::new();
        for field in ["webhook_secret", "webhook_secret_old"] {
            if let Some(text) = self.given(field)? {
                keys.push(SigningKey::parse(&text).ok_or_else(|| {
                    ConfigError::new(
                        field,
                        "must be whsec_ and the base64 of 24 to 64 bytes; \
                         `echo whsec_$(openssl rand -base64 32)` makes one",
                    )
                })?);
            }
        }
        let in_flight = self.number("webhook_in_flight", 16, 1..=256)?;
        let ca = self.certificates("webhook_ca_file")?;
        let Some(url) = self.given("webhook_url")? else { return Ok(None) };
        if !is_http(&url) {
            return Err(ConfigError::new(
                "webhook_url",
                "is no URL such as https://shop.example/events, without a user",
            ));
        }
        if keys.is_empty() {
            return Err(ConfigError::new("webhook_secret", "is missing; calls to webhook_url are signed with it"));
        }
        if ca.is_some() && !url.to_ascii_lowercase().starts_with("https:") {
            return Err(ConfigError::new("webhook_ca_file", "has no use: webhook_url does not begin with https://"));
        }
        Ok(Some(WebhookConfig { url: Secret(url), ca, keys, in_flight }))
    }

    fn kafka(&mut self) -> Result<Option<KafkaConfig>, ConfigError> {
        let topic = self.given("kafka_topic")?.unwrap_or_else(|| "doorbuster.events".to_owned());
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if !(1..=249).contains(&topic.len()) || !topic.bytes().all(legal) || topic == "." || topic == ".." {
            return Err(ConfigError::new("kafka_topic", format!("{topic:?} is not 1 to 249 of A-Z a-z 0-9 . _ -")));
        }
        let properties = self.kafka_properties()?;
        let Some(brokers) = self.given("kafka_brokers")? else { return Ok(None) };
        if !brokers.split(',').all(is_broker) {
            let message = format!("{brokers:?} is not a list such as kafka-1:9092,kafka-2:9092");
            return Err(ConfigError::new("kafka_brokers", message));
        }
        if !cfg!(feature = "kafka") {
            let message =
                "this program was built without Kafka; build it with `--features kafka`, or leave the key out";
            return Err(ConfigError::new("kafka_brokers", message));
        }
        Ok(Some(KafkaConfig { brokers, topic, properties }))
    }

    /// `kafka_properties`: a table in the file; in the environment `name=value`, one in a line.
    fn kafka_properties(&mut self) -> Result<BTreeMap<String, Secret>, ConfigError> {
        let in_file = self.file.remove(PROPERTIES);
        let properties = match (self.environment.remove(PROPERTIES), in_file) {
            (Some(text), _) => properties_in_text(&text)?,
            (None, Some(value)) => properties_in_table(value)?,
            (None, None) => BTreeMap::new(),
        };
        match properties.keys().find(|name| !is_about_security(name)) {
            Some(name) => {
                let message = "is not passed on; only security.protocol, ssl.* and sasl.* are";
                Err(ConfigError::new(&format!("{PROPERTIES}.{name}"), message))
            }
            None => Ok(properties),
        }
    }

    /// The key's value, unless it is left out or empty.
    fn given(&mut self, field: &str) -> Result<Option<String>, ConfigError> {
        Ok(self.take(field)?.filter(|text| !text.is_empty()))
    }
}

/// All else decides whether events are lost or change their order, and is decided already.
fn is_about_security(name: &str) -> bool {
    name == "security.protocol" || name.starts_with("ssl.") || name.starts_with("sasl.")
}

fn properties_in_text(text: &str) -> Result<BTreeMap<String, Secret>, ConfigError> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line
                .split_once('=')
                .ok_or_else(|| ConfigError::new(PROPERTIES, "must be lines such as security.protocol=sasl_ssl"))?;
            Ok((name.trim_end().to_owned(), Secret::new(value.trim_start())))
        })
        .collect()
}

fn properties_in_table(value: toml::Value) -> Result<BTreeMap<String, Secret>, ConfigError> {
    let toml::Value::Table(table) = value else {
        return Err(ConfigError::new(PROPERTIES, "must be a table such as {\"security.protocol\" = \"sasl_ssl\"}"));
    };
    table
        .into_iter()
        .map(|(name, value)| match value {
            toml::Value::String(text) => Ok((name, Secret(text))),
            toml::Value::Integer(number) => Ok((name, Secret(number.to_string()))),
            toml::Value::Boolean(yes) => Ok((name, Secret(yes.to_string()))),
            toml::Value::Table(_) => {
                let message = "is a table; put the whole name in quotes, such as \"security.protocol\"";
                Err(ConfigError::new(&format!("{PROPERTIES}.{name}"), message))
            }
            other => {
                let message = format!("is of the type {}; give text, an integer or a boolean", other.type_str());
                Err(ConfigError::new(&format!("{PROPERTIES}.{name}"), message))
            }
        })
        .collect()
}

fn is_http(text: &str) -> bool {
    let uri = text.parse::<Uri>().map(Uri::into_parts);
    let scheme = |scheme: Scheme| scheme == Scheme::HTTP || scheme == Scheme::HTTPS;
    // A name and password would be left out of the call.
    let host = |authority: Authority| !authority.host().is_empty() && !authority.as_str().contains('@');
    uri.is_ok_and(|uri| uri.scheme.is_some_and(scheme) && uri.authority.is_some_and(host))
}

fn is_broker(text: &str) -> bool {
    let port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    text.rsplit_once(':')
        .is_some_and(|(host, at)| !host.is_empty() && port(at) && host.bytes().all(|c| c.is_ascii_graphic()))
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn parse(more: &str) -> Result<Config, String> {
        let needed = "database_url = 'postgres://h/d'\nredis_url = 'redis://h'\n\
                      admin_token = '0123456789abcdef'\nedge_token = 'fedcba9876543210'\n";
        Config::parse(&format!("{needed}{more}"), []).map_err(|error| error.to_string())
    }

    #[test]
    fn without_an_address_there_is_no_sink() {
        let events = parse("webhook_url = ''\nkafka_brokers = ''").unwrap().events;
        assert!(events.webhook.is_none() && events.kafka.is_none());
        let both = format!("webhook_url = 'https://h/x'\nwebhook_secret = '{SECRET}'\nwebhook_secret_old = '{SECRET}'");
        assert_eq!(parse(&both).unwrap().events.webhook.unwrap().keys.len(), 2);
        assert!(!format!("{:?}", parse(&both)).contains("h/x"));
    }

    #[test]
    fn what_librdkafka_is_told_comes_from_the_file_or_the_environment() {
        let needed = [
            ("DATABASE_URL", "postgres://h/d"),
            ("REDIS_URL", "redis://h"),
            ("ADMIN_TOKEN", "0123456789abcdef"),
            ("EDGE_TOKEN", "fedcba9876543210"),
        ];
        let read = |text: &str, properties: Option<&str>| {
            let more = properties.map(|text| ("KAFKA_PROPERTIES", text));
            let environment = needed.into_iter().chain(more);
            let environment = environment.map(|(name, value)| (format!("DOORBUSTER_{name}"), value.to_owned()));
            let mut keys = super::super::Keys::read(text, environment).unwrap();
            let told = keys.kafka_properties().map_err(|error| error.to_string())?;
            assert!(!format!("{told:?}").contains("hunter2"));
            Ok(told.into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect::<Vec<_>>())
        };
        let expected = |pairs: &[(&str, &str)]| -> Result<Vec<(String, String)>, String> {
            Ok(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
        };
        let file = "[kafka_properties]\n'security.protocol' = 'sasl_ssl'\n'sasl.password' = 'hunter2'\n\
                    'ssl.endpoint.identification.algorithm' = 'https'";
        let in_file = expected(&[
            ("sasl.password", "hunter2"),
            ("security.protocol", "sasl_ssl"),
            ("ssl.endpoint.identification.algorithm", "https"),
        ]);
        assert_eq!(read(file, None), in_file);
        let in_environment = expected(&[("sasl.password", "hunter2=,"), ("security.protocol", "ssl")]);
        assert_eq!(read(file, Some("security.protocol=ssl\n\n sasl.password = hunter2=,\n")), in_environment);
        let wrong = read("", Some("hunter2")).unwrap_err();
        assert!(wrong.contains("must be lines such as") && !wrong.contains("hunter2"), "{wrong}");
    }

    #[test]
    fn what_does_not_hold_is_named_without_its_secret() {
        for (more, expected) in [
            ("webhook_url = 'ftp://hunter2@h'", "webhook_url: is no URL"),
            ("webhook_url = 'https://hunter2@h'", "webhook_url: is no URL"),
            ("webhook_url = 'https://h/hunter2'", "webhook_secret: is missing"),
            ("webhook_secret = 'whsec_hunter2'", "webhook_secret: must be whsec_"),
            ("webhook_in_flight = 0", "webhook_in_flight: \"0\" is not"),
            ("event_timeout_ms = 99", "event_timeout_ms: \"99\" is not"),
            ("event_attempts = 0", "event_attempts: \"0\" is not"),
            ("kafka_brokers = 'kafka'", "kafka_brokers: \"kafka\" is not"),
            ("kafka_topic = 'a b'", "kafka_topic: \"a b\" is not"),
            ("kafka_properties = 'hunter2'", "kafka_properties: must be a table"),
            ("kafka_properties = {'acks' = 'hunter2'}", "kafka_properties.acks: is not passed on"),
            (
                "kafka_properties = {'sasl.password' = ['hunter2']}",
                "kafka_properties.sasl.password: is of the type array",
            ),
            ("[kafka_properties]\nsasl.password = 'hunter2'", "kafka_properties.sasl: is a table; put the whole name"),
            ("webhook_ca_file = '/dev/null'", "webhook_ca_file: /dev/null holds no certificate"),
            #[cfg(not(feature = "kafka"))]
            ("kafka_brokers = 'kafka:9092'", "kafka_brokers: this program was built without Kafka"),
        ] {
            let error = parse(more).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{more}: {error}");
        }
    }
}
