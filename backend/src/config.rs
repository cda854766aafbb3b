//! The configuration: a TOML file, overruled key by key by the environment, parsed once into a type that holds.

mod events;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::http::uri::Authority;
use doorbuster_domain::id::CampaignId;
use serde::Deserialize;

pub use events::{EventsConfig, KafkaConfig, WebhookConfig};

use crate::operators::{Operators, SHORTEST_TOKEN, Token};
use crate::store::postgres::Postgres;
use crate::store::redis::Redis;

/// Before each key's name, in capitals, in the environment.
const ENV_PREFIX: &str = "DOORBUSTER_";

/// Tokens and database addresses: never shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Whether a PostgreSQL that may lose what it has committed is good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is not: the backend is not ready.
    Require,
    /// It is, as for development.
    Ignore,
}

/// What becomes of an issue request without a ticket that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketMode {
    /// Nobody looks.
    Ignore,
    /// It is served, and counted.
    Prefer,
    /// It is refused.
    Require,
}

/// A configuration that holds. `config.default.toml` says what each key is for.
#[derive(Debug, Clone)]
pub struct Config {
    /// Listener for `/v1`.
    pub public_addr: SocketAddr,
    /// Listener for operators, gateways and machines.
    pub ops_addr: SocketAddr,
    /// PostgreSQL.
    pub database_url: Secret,
    /// Certificates in PEM that PostgreSQL's must be signed by.
    pub database_ca: Option<Vec<u8>>,
    /// Whether a PostgreSQL that may lose what it has committed is good enough.
    pub durability: Durability,
    /// Redis.
    pub redis_url: Secret,
    /// Certificates in PEM that Redis's must be signed by.
    pub redis_ca: Option<Vec<u8>>,
    /// First part of every Redis key.
    pub redis_prefix: String,
    /// Operators and their bearer tokens: the owner of `admin_token`, and those of `operator_tokens`.
    pub operators: Operators,
    /// Bearer token of gateways.
    pub edge_token: Secret,
    /// The campaign meant where a request names none.
    pub default_campaign: Option<CampaignId>,
    /// What becomes of an issue request without a ticket that holds.
    pub ticket: TicketMode,
    /// The secrets by which tickets may be signed: none, one, or two while they rotate.
    pub ticket_secrets: Vec<Secret>,
    /// Whether users redeem by themselves, or the shop's server does for them.
    pub client_redeem: bool,
    /// How long an issue request waits for its commit, or for a round to be hydrated.
    pub commit_timeout: Duration,
    /// Deadline of one call to Redis.
    pub redis_timeout: Duration,
    /// Deadline of one PostgreSQL statement, and of waiting for a connection.
    pub postgres_timeout: Duration,
    /// Age at which a pending reservation is taken for abandoned.
    pub sweep_after: Duration,
    /// Requests served at once on the public listener.
    pub max_in_flight: usize,
    /// PostgreSQL connections.
    pub database_pool: u32,
    /// Where events go.
    pub events: EventsConfig,
    /// Log filter, in the syntax of tracing's `EnvFilter`.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// The collector that spans are sent to, over HTTP.
    pub otlp_endpoint: Option<String>,
}

/// One key that does not hold: what is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("configuration: {field}: {message}")]
pub struct ConfigError {
    field: String,
    message: String,
}

impl ConfigError {
    fn new(field: &str, message: impl Into<String>) -> Self {
        // One line, whatever a parser has to say.
        Self { field: field.to_owned(), message: message.into().split_whitespace().collect::<Vec<_>>().join(" ") }
    }
}

impl Config {
    /// Reads the file, if there is one, then `environment`.
    ///
    /// # Errors
    /// The first key that does not hold.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let text = match file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| ConfigError::new("--config", format!("{} cannot be read: {error}", path.display())))?,
            None => String::new(),
        };
        Self::parse(&text, environment)
    }

    /// As [`Config::load`], with the file's text.
    ///
    /// # Errors
    /// The first key that does not hold.
    pub fn parse(text: &str, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut keys = Keys::read(text, environment)?;
        let config = Self {
            public_addr: keys.address("public_addr", "127.0.0.1:8000")?,
            ops_addr: keys.address("ops_addr", "127.0.0.1:8001")?,
            database_url: keys.url("database_url", "postgres://127.0.0.1:5432/doorbuster", Postgres::is_url)?,
            database_ca: keys.certificates("database_ca_file")?,
            durability: keys.durability("database_durability")?,
            redis_url: keys.url(
                "redis_url",
                "redis://127.0.0.1:6379 or redis+cluster://10.0.0.1:6379,10.0.0.2:6379",
                Redis::is_url,
            )?,
            redis_ca: keys.certificates("redis_ca_file")?,
            redis_prefix: keys.prefix("redis_prefix", "doorbuster")?,
            operators: keys.operators()?,
            edge_token: keys.token("edge_token")?,
            default_campaign: keys.campaign("default_campaign")?,
            ticket: keys.ticket_mode("ticket")?,
            ticket_secrets: keys.ticket_secrets()?,
            client_redeem: keys.switch("client_redeem")?,
            commit_timeout: keys.milliseconds("commit_timeout_ms", 1_500)?,
            redis_timeout: keys.milliseconds("redis_timeout_ms", 500)?,
            postgres_timeout: keys.milliseconds("postgres_timeout_ms", 1_000)?,
            sweep_after: keys.milliseconds("sweep_after_ms", 3_000)?,
            max_in_flight: keys.number("max_in_flight", 1_024, 1..=1_000_000)?,
            database_pool: keys.number("database_pool", 8, 2..=1_000)?,
            events: keys.events()?,
            log: keys.log_filter("log", "info")?,
            log_format: keys.log_format("log_format")?,
            otlp_endpoint: keys.collector("otlp_endpoint")?,
        };
        keys.finish()?;
        config.check_deadlines()?;
        config.check_separation()?;
        if config.ticket != TicketMode::Ignore && config.ticket_secrets.is_empty() {
            return Err(ConfigError::new("ticket_secret", "is missing; tickets cannot be checked without it"));
        }
        Ok(config)
    }

    /// What is for operators, for gateways and for clients must not be one and the same.
    fn check_separation(&self) -> Result<(), ConfigError> {
        if let Some(owner) = self.operators.identify(self.edge_token.expose().as_bytes()) {
            let message = format!("is the token of the operator {:?}, too; give gateways one of their own", owner.name);
            return Err(ConfigError::new("edge_token", message));
        }
        if self.redis_ca.is_some() && !Redis::is_tls(self.redis_url.expose()) {
            return Err(ConfigError::new(
                "redis_ca_file",
                "has no use: redis_url begins neither with rediss:// nor with rediss+cluster://",
            ));
        }
        if self.ops_addr == self.public_addr && self.ops_addr.port() != 0 {
            let address = self.ops_addr;
            return Err(ConfigError::new("ops_addr", format!("{address} is public_addr too; use another port")));
        }
        Ok(())
    }

    /// A reservation must not be taken for abandoned while its own request may still be at work on it.
    fn check_deadlines(&self) -> Result<(), ConfigError> {
        let request_ms = (self.redis_timeout + self.commit_timeout).as_millis();
        let statement_ms = self.postgres_timeout.as_millis();
        if self.postgres_timeout > self.commit_timeout {
            return Err(ConfigError::new(
                "postgres_timeout_ms",
                format!(
                    "{statement_ms} is above commit_timeout_ms, {}; make it at most that",
                    self.commit_timeout.as_millis()
                ),
            ));
        }
        if self.sweep_after.as_millis() < request_ms + statement_ms {
            return Err(ConfigError::new(
                "sweep_after_ms",
                format!(
                    "{} is below redis_timeout_ms + commit_timeout_ms + postgres_timeout_ms; make it at least {}",
                    self.sweep_after.as_millis(),
                    request_ms + statement_ms
                ),
            ));
        }
        Ok(())
    }
}

/// The keys not yet asked for.
struct Keys {
    file: BTreeMap<String, toml::Value>,
    environment: BTreeMap<String, String>,
}

impl Keys {
    fn read(text: &str, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let file: BTreeMap<String, toml::Value> = toml::from_str(text).map_err(|error| {
            // The parser's own rendering quotes the line, and lines hold secrets.
            let line = error.span().map_or(1, |span| text.get(..span.start).unwrap_or_default().lines().count().max(1));
            ConfigError::new("--config", format!("line {line} is not TOML: {}", error.message()))
        })?;
        let environment = environment
            .into_iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(ENV_PREFIX)?.to_lowercase(), value)))
            .collect();
        Ok(Self { file, environment })
    }

    /// The key's value as text; the environment wins.
    fn take(&mut self, field: &str) -> Result<Option<String>, ConfigError> {
        let in_file = self.file.remove(field);
        if let Some(value) = self.environment.remove(field) {
            return Ok(Some(value));
        }
        match in_file {
            None => Ok(None),
            Some(toml::Value::String(text)) => Ok(Some(text)),
            Some(toml::Value::Integer(number)) => Ok(Some(number.to_string())),
            Some(other) => Err(ConfigError::new(
                field,
                format!("a {} is neither text nor an integer; give one of these", other.type_str()),
            )),
        }
    }

    fn required(&mut self, field: &str, example: &str) -> Result<String, ConfigError> {
        self.take(field)?.ok_or_else(|| {
            let name = field.to_uppercase();
            ConfigError::new(
                field,
                format!("is missing; set it in the file or as {ENV_PREFIX}{name}, such as {example}"),
            )
        })
    }

    fn address(&mut self, field: &str, default: &str) -> Result<SocketAddr, ConfigError> {
        let text = self.take(field)?.unwrap_or_else(|| default.to_owned());
        text.parse()
            .map_err(|_| ConfigError::new(field, format!("{text:?} is not an address and port such as {default}")))
    }

    /// The value is not shown: it may hold a password.
    fn url(&mut self, field: &str, example: &str, is_url: fn(&str) -> bool) -> Result<Secret, ConfigError> {
        let text = self.required(field, example)?;
        if is_url(&text) {
            Ok(Secret(text))
        } else {
            Err(ConfigError::new(field, format!("is no URL such as {example}")))
        }
    }

    /// A file of certificates in PEM. Whether they make sense shows when a connection is prepared.
    fn certificates(&mut self, field: &str) -> Result<Option<Vec<u8>>, ConfigError> {
        let Some(path) = self.take(field)?.filter(|path| !path.is_empty()) else { return Ok(None) };
        let pem = std::fs::read_to_string(&path)
            .map_err(|error| ConfigError::new(field, format!("{path} cannot be read: {error}")))?;
        if pem.contains("-----BEGIN CERTIFICATE-----") {
            Ok(Some(pem.into_bytes()))
        } else {
            Err(ConfigError::new(field, format!("{path} holds no certificate in PEM")))
        }
    }

    fn token(&mut self, field: &str) -> Result<Secret, ConfigError> {
        let text = self.required(field, "the output of `openssl rand -hex 16`")?;
        Self::strong(field, text)
    }

    /// `operator_tokens`: tables in the file; in the environment `name:role:sha256`, with commas between them.
    fn operators(&mut self) -> Result<Operators, ConfigError> {
        const FIELD: &str = "operator_tokens";
        let admin_token = self.token("admin_token")?;
        let in_file = self.file.remove(FIELD);
        let tokens = match (self.environment.remove(FIELD), in_file) {
            (Some(text), _) => tokens_in_text(&text),
            (None, Some(value)) => tokens_in_tables(value),
            (None, None) => Ok(Vec::new()),
        };
        Operators::new(&admin_token, tokens?).map_err(|message| ConfigError::new(FIELD, message))
    }

    fn durability(&mut self, field: &str) -> Result<Durability, ConfigError> {
        match self.take(field)?.as_deref() {
            None | Some("require") => Ok(Durability::Require),
            Some("ignore") => Ok(Durability::Ignore),
            Some(other) => Err(ConfigError::new(field, format!("{other:?} is neither \"require\" nor \"ignore\""))),
        }
    }

    fn ticket_mode(&mut self, field: &str) -> Result<TicketMode, ConfigError> {
        match self.take(field)?.as_deref() {
            None | Some("ignore") => Ok(TicketMode::Ignore),
            Some("prefer") => Ok(TicketMode::Prefer),
            Some("require") => Ok(TicketMode::Require),
            Some(other) => {
                Err(ConfigError::new(field, format!("{other:?} is none of \"ignore\", \"prefer\" and \"require\"")))
            }
        }
    }

    /// Off unless it is on.
    fn switch(&mut self, field: &str) -> Result<bool, ConfigError> {
        match self.take(field)?.as_deref() {
            Some("on") => Ok(true),
            None | Some("off") => Ok(false),
            Some(other) => Err(ConfigError::new(field, format!("{other:?} is neither \"on\" nor \"off\""))),
        }
    }

    fn ticket_secrets(&mut self) -> Result<Vec<Secret>, ConfigError> {
        let mut secrets = Vec::new();
        for field in ["ticket_secret", "ticket_secret_old"] {
            if let Some(text) = self.take(field)?.filter(|text| !text.is_empty()) {
                secrets.push(Self::strong(field, text)?);
            }
        }
        Ok(secrets)
    }

    fn strong(field: &str, text: String) -> Result<Secret, ConfigError> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.len() < SHORTEST_TOKEN || !visible {
            return Err(ConfigError::new(
                field,
                "must be at least 16 visible ASCII characters; `openssl rand -hex 16` makes some",
            ));
        }
        Ok(Secret(text))
    }

    fn prefix(&mut self, field: &str, default: &str) -> Result<String, ConfigError> {
        let text = self.take(field)?.unwrap_or_else(|| default.to_owned());
        // Braces would move the hash tag that keeps a round's keys together.
        let valid = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b':' | b'.'));
        if !valid {
            return Err(ConfigError::new(field, format!("{text:?} is not 1 to 64 characters of A-Z a-z 0-9 - _ : .")));
        }
        Ok(text)
    }

    fn campaign(&mut self, field: &str) -> Result<Option<CampaignId>, ConfigError> {
        let Some(text) = self.take(field)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        CampaignId::parse(&text).map(Some).map_err(|rule| ConfigError::new(field, format!("{text:?} {rule}")))
    }

    fn milliseconds(&mut self, field: &str, default: u64) -> Result<Duration, ConfigError> {
        self.number(field, default, 1..=60_000).map(Duration::from_millis)
    }

    fn number<T>(&mut self, field: &str, default: T, range: std::ops::RangeInclusive<T>) -> Result<T, ConfigError>
    where
        T: std::str::FromStr + PartialOrd + fmt::Display,
    {
        let Some(text) = self.take(field)? else { return Ok(default) };
        text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
            ConfigError::new(field, format!("{text:?} is not an integer from {} to {}", range.start(), range.end()))
        })
    }

    fn log_filter(&mut self, field: &str, default: &str) -> Result<String, ConfigError> {
        let text = self.take(field)?.unwrap_or_else(|| default.to_owned());
        match tracing_subscriber::EnvFilter::try_new(&text) {
            Ok(_) => Ok(text),
            Err(error) => {
                Err(ConfigError::new(field, format!("{text:?} is not a log filter such as \"info\": {error}")))
            }
        }
    }

    fn log_format(&mut self, field: &str) -> Result<LogFormat, ConfigError> {
        match self.take(field)?.as_deref() {
            None | Some("json") => Ok(LogFormat::Json),
            Some("text") => Ok(LogFormat::Text),
            Some(other) => Err(ConfigError::new(field, format!("{other:?} is neither \"json\" nor \"text\""))),
        }
    }

    fn collector(&mut self, field: &str) -> Result<Option<String>, ConfigError> {
        let Some(text) = self.take(field)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        let authority = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        // A password in it would be sent in the clear, and shown below.
        let valid = authority.is_some_and(|text| text.parse::<Authority>().is_ok() && !text.contains('@'));
        if valid {
            Ok(Some(text))
        } else {
            Err(ConfigError::new(
                field,
                "is not a collector's address such as http://127.0.0.1:4318; for one that wants TLS or a token, run a \
                 collector of your own beside the backend",
            ))
        }
    }

    /// Whatever nobody asked for is a typing error. The environment is shared with others and may hold more.
    fn finish(self) -> Result<(), ConfigError> {
        match self.file.keys().next() {
            None => Ok(()),
            Some(unknown) => Err(ConfigError::new(unknown, "is not a key; config.default.toml lists them all")),
        }
    }
}

/// One `[[operator_tokens]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenTable {
    name: String,
    role: String,
    sha256: String,
}

fn tokens_in_tables(value: toml::Value) -> Result<Vec<Token>, ConfigError> {
    let tables: Vec<TokenTable> = value.try_into().map_err(|_| {
        ConfigError::new(
            "operator_tokens",
            "must be tables [[operator_tokens]] of the three texts name, role and sha256",
        )
    })?;
    parse_tokens(tables.iter().map(|table| [table.name.as_str(), &table.role, &table.sha256]))
}

fn tokens_in_text(text: &str) -> Result<Vec<Token>, ConfigError> {
    let fields = text.split(',').map(str::trim).filter(|token| !token.is_empty()).map(|token| {
        let mut fields = token.splitn(3, ':');
        [(); 3].map(|()| fields.next().unwrap_or_default())
    });
    parse_tokens(fields)
}

fn parse_tokens<'a>(fields: impl Iterator<Item = [&'a str; 3]>) -> Result<Vec<Token>, ConfigError> {
    let parse = |(place, [name, role, sha256]): (usize, [&str; 3])| {
        Token::parse(name, role, sha256)
            .map_err(|error| ConfigError::new(&format!("operator_tokens[{place}].{}", error.field), error.message))
    };
    fields.enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "database_url = 'postgres://h/d'\nredis_url = 'redis://h'\nadmin_token = '0123456789abcdef'\nedge_token = 'fedcba9876543210'\n";

    fn parse(more: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::parse(&format!("{LEAST}{more}"), environment).map_err(|error| error.to_string())
    }

    #[test]
    fn the_default_file_is_the_default() {
        let file = include_str!("../config.default.toml");
        let defaults = Config::parse(file, []).unwrap();
        assert_eq!(
            format!("{defaults:?}").replace("Some(CampaignId(\"welcome\"))", "None"),
            format!("{:?}", parse("", &[]).unwrap())
        );
    }

    #[test]
    fn the_environment_overrules_the_file() {
        let config =
            parse("max_in_flight = 7", &[("DOORBUSTER_MAX_IN_FLIGHT", "9"), ("DOORBUSTER_TEST_X", "1")]).unwrap();
        assert_eq!(config.max_in_flight, 9);
    }

    #[test]
    fn operators_come_from_tables_or_from_one_variable() {
        // Of `0123456789abcdef`, which is admin's.
        const ADMINS: &str = "9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f";
        let other = "ab".repeat(32);
        let table = |name: &str, sha256: &str| {
            format!("[[operator_tokens]]\nname = '{name}'\nrole = 'viewer'\nsha256 = '{sha256}'\n")
        };
        let in_file = parse(&(table("ann", &other) + &table("bob", &"cd".repeat(32))), &[]).unwrap();
        let text = format!("ann:viewer:{other}, bob:viewer:{},", "CD".repeat(32));
        let in_environment = parse(&table("eve", &other), &[("DOORBUSTER_OPERATOR_TOKENS", &text)]).unwrap();
        assert_eq!(format!("{:?}", in_file.operators), format!("{:?}", in_environment.operators));
        let error = parse(&table("ann", ADMINS), &[]).unwrap_err();
        assert!(error.contains("operator_tokens: \"ann\" has the token of \"admin\""), "{error}");
    }

    #[test]
    fn errors_are_one_line_that_names_the_field_and_no_secret() {
        for (more, expected) in [
            ("max_in_flight = 0", "max_in_flight: \"0\" is not an integer from 1 to 1000000"),
            ("max_in_flight = 1.5", "max_in_flight: a float is neither text nor an integer"),
            ("public_addr = 'here'", "public_addr: \"here\" is not an address"),
            ("redis_prefix = '{x}'", "redis_prefix: \"{x}\" is not"),
            ("default_campaign = 'No'", "default_campaign: \"No\" must be"),
            ("sweep_after_ms = 2999", "sweep_after_ms: 2999 is below"),
            ("postgres_timeout_ms = 1501", "postgres_timeout_ms: 1501 is above"),
            ("log = 'info,,=x'", "log: \"info,,=x\" is not"),
            ("log_format = 'xml'", "log_format: \"xml\" is neither"),
            ("sweep_after = 1", "sweep_after: is not a key"),
            ("ops_addr = '127.0.0.1:8000'", "ops_addr: 127.0.0.1:8000 is public_addr too"),
            ("client_redeem = 'yes'", "client_redeem: \"yes\" is neither"),
            ("ticket = 'maybe'", "ticket: \"maybe\" is none of"),
            ("ticket = 'require'", "ticket_secret: is missing"),
            ("database_ca_file = '/nowhere'", "database_ca_file: /nowhere cannot be read: No such file"),
            ("redis_ca_file = '/dev/null'", "redis_ca_file: /dev/null holds no certificate"),
            ("ticket_secret = 'hunter2'", "ticket_secret: must be at least 16"),
            ("operator_tokens = 'ann'", "operator_tokens: must be tables"),
            ("[[operator_tokens]]\nname = 'ann'\nrole = 'viewer'", "operator_tokens: must be tables"),
            ("[[operator_tokens]]\nname = 'A'\nrole = ''\nsha256 = ''", "operator_tokens[0].name: \"A\" is not"),
            ("= = =", "--config: line 5 is not TOML"),
        ] {
            let error = parse(more, &[]).unwrap_err();
            assert!(error.contains(expected) && !error.contains('\n'), "{more}: {error}");
        }
        let twins = [("DOORBUSTER_ADMIN_TOKEN", "hunter2-hunter2-"), ("DOORBUSTER_EDGE_TOKEN", "hunter2-hunter2-")];
        let twins = parse("", &twins).unwrap_err();
        assert!(
            twins.contains("edge_token: is the token of the operator \"admin\"") && !twins.contains("hunter2"),
            "{twins}"
        );
        let secret = [("DOORBUSTER_OPERATOR_TOKENS", "ann:viewer:hunter2-hunter2-hunter2")];
        let secret = parse("", &secret).unwrap_err();
        assert!(secret.contains("operator_tokens[0].sha256: is not") && !secret.contains("hunter2"), "{secret}");
        let short = parse("", &[("DOORBUSTER_ADMIN_TOKEN", "hunter2")]).unwrap_err();
        assert!(short.contains("admin_token") && !short.contains("hunter2"), "{short}");
        for (name, value) in [
            ("database_url", "mysql://u:hunter2@h"),
            ("database_url", "postgres://u:hunter2@h:port/d"),
            ("redis_url", "rediss://u:hunter2@h:port"),
            ("redis_url", "redis://u:hunter2@h:port"),
            ("redis_url", "redis+cluster://u:hunter2@h:1,h:port"),
            ("redis_url", "redis+cluster://u:hunter2@h:1/7"),
        ] {
            let error = parse("", &[(&format!("DOORBUSTER_{}", name.to_uppercase()), value)]).unwrap_err();
            assert!(error.contains(name) && !error.contains("hunter2"), "{error}");
        }
        assert!(!format!("{:?}", parse("", &[]).unwrap()).contains("0123456789abcdef"));
    }

    #[test]
    fn users_redeem_by_themselves_only_where_they_are_allowed_to() {
        assert!(!parse("", &[]).unwrap().client_redeem);
        assert!(parse("client_redeem = 'on'", &[]).unwrap().client_redeem);
    }
}
