//! The plugin configuration: parsed once into a value that holds, or refused with the field's name.

use std::hash::Hasher;

use doorbuster_domain::id::CampaignId;
use doorbuster_domain::schedule::{Schedule, ScheduleSpec};
use doorbuster_domain::ticket::SHORTEST_SECRET;
use serde::Deserialize;
use siphasher::sip::SipHasher13;

use crate::duplicates::SHARD_BYTES;

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The routes under admission control.
    pub guard: Vec<Route>,
    /// The campaign meant where a request names none.
    pub default_campaign: Option<CampaignId>,
    /// Campaigns written in the configuration.
    pub campaigns: Vec<StaticCampaign>,
    /// Where campaigns are synced from.
    pub sync: Option<Sync>,
    /// How many requests may be with the origin at once.
    pub credits: CreditRule,
    /// What happens around an opening and a closing.
    pub boundary: BoundaryRule,
    /// Memory for the table of users who have their coupon, bytes; 0 switches it off.
    pub duplicates_bytes: usize,
    /// Longest body of a guarded request, bytes.
    pub max_body_bytes: usize,
    /// When a request with a body is decided.
    pub bodies: Bodies,
    /// Whether `GET /v1/coupon/count` is answered from the snapshot.
    pub answer_count: bool,
    /// What the host's statistics name.
    pub metrics: MetricsRule,
    /// Signs tickets; none: there are none.
    pub ticket_secret: Option<String>,
    /// Names the shared data of this configuration: configurations with the same name share accounts and snapshots.
    pub namespace: String,
    /// Equal for equal configurations.
    pub fingerprint: u64,
}

/// When a request with a body is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bodies {
    /// When a small body has ended: the connection stays usable, and a trickled body holds no credit. The host must be
    /// able to stop the headers and go on reading the body.
    #[default]
    Wait,
    /// When its headers have arrived, for hosts that cannot stop the headers alone. A refused request that still sends
    /// its body may lose its connection.
    Ignore,
}

/// A decoded, normalised path and a method.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// As `POST`; none stands for every method, and spares each request a question to Envoy.
    pub method: Option<String>,
    /// As `/v1/coupon/issue`.
    pub path: String,
}

/// A campaign that needs no backend of ours.
#[derive(Debug, Clone)]
pub struct StaticCampaign {
    /// Its id.
    pub id: CampaignId,
    /// Its schedule.
    pub schedule: Schedule,
    /// Coupons per round; none means no limit.
    pub quota: Option<u64>,
    /// Its version; an origin's notice may replace it and the quota.
    pub version: u64,
}

/// Where and how often campaigns are synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync {
    /// Envoy's name for the cluster of the backend's operations listener.
    pub cluster: String,
    /// `:authority` of the sync request.
    pub authority: String,
    /// Bearer token.
    pub token: String,
    /// Pause between two syncs, milliseconds.
    pub poll_ms: i64,
    /// Age from which a snapshot is stale, milliseconds.
    pub stale_ms: i64,
    /// At most so many campaigns are synced.
    pub max_campaigns: u32,
}

/// How many requests may be with the origin at once.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CreditRule {
    /// Credits per remaining coupon.
    pub overcommit: f64,
    /// How long a failed request keeps its credit, milliseconds.
    pub hold_ms: i64,
    /// Age at which a credit that nobody settled is dropped, milliseconds.
    pub ttl_ms: i64,
    /// The longest life of a guarded request with the origin, milliseconds: the route's timeout.
    pub request_timeout_ms: i64,
    /// Requests at the origin at once of campaigns whose terms the edge does not know: as many of those that the origin
    /// has confirmed, and as many of all others together.
    pub warming: u32,
    /// Such requests admitted in one second, likewise.
    pub warming_per_s: u32,
}

impl CreditRule {
    /// How long a request that its client ended keeps its credit, milliseconds: the origin may still be at work on it.
    #[must_use]
    pub fn brief_hold_ms(&self) -> i64 {
        self.hold_ms / 8
    }
}

/// What happens around an opening and a closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BoundaryRule {
    /// How far this machine's clock may be off where there is no sync, milliseconds.
    pub skew_ms: i64,
    /// Requests admitted per boundary while the clock cannot tell.
    pub grey_cap: u32,
}

/// What the host's statistics name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsRule {
    /// Campaigns with series of their own, the first ones that are asked for while the process
    /// lives. All others are counted together.
    pub max_campaigns: usize,
}

impl Default for MetricsRule {
    fn default() -> Self {
        Self { max_campaigns: 200 }
    }
}

impl Default for CreditRule {
    fn default() -> Self {
        Self {
            overcommit: 1.0,
            hold_ms: 500,
            ttl_ms: 10_000,
            request_timeout_ms: 5_000,
            warming: 16,
            warming_per_s: 100,
        }
    }
}

impl Default for BoundaryRule {
    fn default() -> Self {
        Self { skew_ms: 250, grey_cap: 16 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default = "default_guard")]
    guard: Vec<Route>,
    default_campaign: Option<CampaignId>,
    #[serde(default)]
    campaigns: Vec<WrittenCampaign>,
    sync: Option<WrittenSync>,
    #[serde(default)]
    credits: CreditRule,
    #[serde(default)]
    boundary: BoundaryRule,
    #[serde(default = "default_duplicates_bytes")]
    duplicates_bytes: usize,
    #[serde(default = "default_max_body_bytes")]
    max_body_bytes: usize,
    #[serde(default)]
    bodies: Bodies,
    #[serde(default = "default_answer_count")]
    answer_count: bool,
    #[serde(default)]
    metrics: MetricsRule,
    ticket: Option<WrittenTicket>,
    namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTicket {
    #[serde(default = "default_secret_env")]
    secret_env: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCampaign {
    id: CampaignId,
    schedule: ScheduleSpec,
    // Who wants no limit says null: one that was forgotten would open the gate.
    #[serde(deserialize_with = "Option::deserialize")]
    quota: Option<u64>,
    #[serde(default)]
    version: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSync {
    cluster: String,
    #[serde(default = "default_authority")]
    authority: String,
    #[serde(default = "default_token_env")]
    token_env: String,
    #[serde(default = "default_poll_ms")]
    poll_ms: i64,
    #[serde(default = "default_stale_ms")]
    stale_ms: i64,
    #[serde(default = "default_max_campaigns")]
    max_campaigns: u32,
}

fn default_guard() -> Vec<Route> {
    vec![Route { method: Some("POST".to_owned()), path: "/v1/coupon/issue".to_owned() }]
}
fn default_duplicates_bytes() -> usize {
    4 << 20
}
fn default_max_body_bytes() -> usize {
    4 << 10
}
fn default_answer_count() -> bool {
    true
}
fn default_secret_env() -> String {
    "DOORBUSTER_TICKET_SECRET".to_owned()
}
fn default_authority() -> String {
    "doorbuster-control".to_owned()
}
fn default_token_env() -> String {
    "DOORBUSTER_EDGE_TOKEN".to_owned()
}
fn default_poll_ms() -> i64 {
    250
}
fn default_stale_ms() -> i64 {
    5_000
}
fn default_max_campaigns() -> u32 {
    1_000
}

impl Config {
    /// Parses the plugin configuration. `environment` looks up a variable given to the VM.
    ///
    /// # Errors
    /// One line that names the field, what it holds and what it should.
    pub fn parse(json: &[u8], environment: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let written: Written = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            // At the top level serde's own message names the field.
            if path == "." || path == "?" { error.inner().to_string() } else { format!("{path}: {}", error.inner()) }
        })?;
        deserializer.end().map_err(|error| error.to_string())?;
        let mut config = written.check(environment)?;
        config.fingerprint = hash(json);
        Ok(config)
    }
}

impl Written {
    fn check(self, environment: impl Fn(&str) -> Option<String>) -> Result<Config, String> {
        if self.guard.is_empty() {
            return Err("guard: names no route; leave it out to guard POST /v1/coupon/issue".to_owned());
        }
        for (at, route) in self.guard.iter().enumerate() {
            if !route.path.starts_with('/') {
                return Err(format!("guard[{at}].path: {:?} does not begin with /", route.path));
            }
            if let Some(method) = &route.method
                && (method.is_empty() || !method.bytes().all(|c| c.is_ascii_uppercase()))
            {
                return Err(format!("guard[{at}].method: {method:?} is no method such as POST"));
            }
        }
        if self.sync.is_none() && self.campaigns.is_empty() {
            return Err("campaigns: there is none and no sync either; write one of the two".to_owned());
        }
        let rule = self.credits;
        if !(rule.overcommit.is_finite() && (0.01..=1000.0).contains(&rule.overcommit)) {
            return Err(format!("credits.overcommit: {} is not between 0.01 and 1000", rule.overcommit));
        }
        in_range("credits.hold_ms", rule.hold_ms, 1, 60_000)?;
        in_range("credits.request_timeout_ms", rule.request_timeout_ms, 1, 600_000)?;
        in_range("credits.ttl_ms", rule.ttl_ms, 1, 3_600_000)?;
        if rule.ttl_ms <= rule.request_timeout_ms {
            return Err(format!(
                "credits.ttl_ms: {} must exceed credits.request_timeout_ms {}, or credits of living requests are dropped",
                rule.ttl_ms, rule.request_timeout_ms
            ));
        }
        in_range("credits.warming", i64::from(rule.warming), 1, 1_000_000)?;
        in_range("credits.warming_per_s", i64::from(rule.warming_per_s), 1, 1_000_000)?;
        in_range("boundary.skew_ms", self.boundary.skew_ms, 1, 60_000)?;
        in_range("boundary.grey_cap", i64::from(self.boundary.grey_cap), 1, 1_000_000)?;
        if self.duplicates_bytes > 0 {
            let least = i64::try_from(SHARD_BYTES).unwrap_or(i64::MAX);
            in_range("duplicates_bytes", i64::try_from(self.duplicates_bytes).unwrap_or(i64::MAX), least, 1 << 30)?;
        }
        in_range("max_body_bytes", i64::try_from(self.max_body_bytes).unwrap_or(i64::MAX), 0, 1 << 20)?;

        let named = i64::try_from(self.metrics.max_campaigns).unwrap_or(i64::MAX);
        in_range("metrics.max_campaigns", named, 0, 10_000)?;

        let mut campaigns: Vec<StaticCampaign> = Vec::new();
        for (at, campaign) in self.campaigns.into_iter().enumerate() {
            let place = format!("campaigns[{at}]");
            if campaigns.iter().any(|known| known.id == campaign.id) {
                return Err(format!("{place}.id: {:?} is there twice", campaign.id.as_str()));
            }
            let schedule = Schedule::compile(&campaign.schedule).map_err(|errors| {
                let errors: Vec<_> = errors
                    .into_iter()
                    .map(|error| error.within("schedule").within(&place))
                    .map(|error| format!("{}: {}", error.field, error.message))
                    .collect();
                errors.join("; ")
            })?;
            campaigns.push(StaticCampaign {
                id: campaign.id,
                schedule,
                quota: campaign.quota,
                version: campaign.version,
            });
        }
        let sync = self.sync.map(|sync| sync.check(&environment)).transpose()?;
        let namespace = match self.namespace {
            Some(name) => valid_namespace(name)?,
            None => derived_namespace(sync.as_ref(), &campaigns),
        };
        Ok(Config {
            guard: self.guard,
            default_campaign: self.default_campaign,
            campaigns,
            ticket_secret: self.ticket.map(|ticket| ticket.secret(&environment)).transpose()?,
            sync,
            namespace,
            fingerprint: 0,
            credits: rule,
            boundary: self.boundary,
            duplicates_bytes: self.duplicates_bytes,
            max_body_bytes: self.max_body_bytes,
            bodies: self.bodies,
            answer_count: self.answer_count,
            metrics: self.metrics,
        })
    }
}

impl WrittenTicket {
    fn secret(self, environment: impl Fn(&str) -> Option<String>) -> Result<String, String> {
        let secret = from_environment("ticket.secret_env", &self.secret_env, environment)?;
        if secret.len() < SHORTEST_SECRET {
            return Err(format!(
                "ticket.secret_env: the secret in {:?} is shorter than {SHORTEST_SECRET} bytes",
                self.secret_env
            ));
        }
        Ok(secret)
    }
}

fn from_environment(field: &str, name: &str, environment: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    environment(name).filter(|value| !value.is_empty()).ok_or_else(|| {
        format!("{field}: the environment variable {name:?} is not set; export it and list it in host_env_keys")
    })
}

impl WrittenSync {
    fn check(self, environment: impl Fn(&str) -> Option<String>) -> Result<Sync, String> {
        if self.cluster.is_empty() {
            return Err("sync.cluster: is empty; name the cluster of the backend's operations listener".to_owned());
        }
        in_range("sync.poll_ms", self.poll_ms, 20, 60_000)?;
        in_range("sync.stale_ms", self.stale_ms, self.poll_ms + 1, 3_600_000)?;
        in_range("sync.max_campaigns", i64::from(self.max_campaigns), 1, 10_000)?;
        let token = from_environment("sync.token_env", &self.token_env, environment)?;
        Ok(Sync {
            cluster: self.cluster,
            authority: self.authority,
            token,
            poll_ms: self.poll_ms,
            stale_ms: self.stale_ms,
            max_campaigns: self.max_campaigns,
        })
    }
}

/// Longest name of a namespace, characters.
const LONGEST_NAMESPACE: usize = 64;

fn valid_namespace(name: String) -> Result<String, String> {
    let valid = (1..=LONGEST_NAMESPACE).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
    if valid {
        Ok(name)
    } else {
        Err(format!("namespace: {name:?} is not 1 to {LONGEST_NAMESPACE} characters of a-z 0-9 -"))
    }
}

/// Configurations that sync with one backend share what they know; without a sync, those with the same campaigns do.
fn derived_namespace(sync: Option<&Sync>, campaigns: &[StaticCampaign]) -> String {
    let mut shared = Vec::new();
    match sync {
        Some(sync) => shared.extend([sync.cluster.as_str(), sync.authority.as_str()]),
        None => shared.extend(campaigns.iter().map(|campaign| campaign.id.as_str())),
    }
    if sync.is_none() {
        shared.sort_unstable();
    }
    // No cluster's name and no id contains a line feed.
    format!("{}-{:016x}", if sync.is_some() { "sync" } else { "written" }, hash(shared.join("\n").as_bytes()))
}

/// The same in every worker and release.
fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish()
}

fn in_range(field: &str, value: i64, least: i64, most: i64) -> Result<(), String> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(format!("{field}: {value} is not between {least} and {most}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Config, String> {
        Config::parse(json.as_bytes(), |name| (name == "DOORBUSTER_EDGE_TOKEN").then(|| "secret".to_owned()))
    }

    #[test]
    fn the_least_configuration_has_the_documented_defaults() {
        let config = parse(r#"{"sync": {"cluster": "control"}}"#).unwrap();
        assert_eq!(config.guard, default_guard());
        assert_eq!(config.credits, CreditRule::default());
        assert_eq!(config.boundary, BoundaryRule::default());
        let sync = config.sync.unwrap();
        assert_eq!((sync.poll_ms, sync.stale_ms, sync.max_campaigns), (250, 5_000, 1_000));
        assert_eq!(sync.token, "secret");
    }

    #[test]
    fn namespace_follows_from_what_is_shared() {
        let namespace = |json: &str| parse(json).unwrap().namespace;
        let sync = |rest: &str| namespace(&format!(r#"{{"sync": {{"cluster": "control"}}{rest}}}"#));
        assert_eq!(sync(""), sync(r#", "default_campaign": "a""#));
        assert_ne!(sync(""), namespace(r#"{"sync": {"cluster": "other"}}"#));
        assert_ne!(sync(""), namespace(r#"{"sync": {"cluster": "control", "authority": "other"}}"#));
        assert_eq!(sync(r#", "namespace": "shop-7""#), "shop-7");
        let campaign = |id: &str| {
            let schedule = r#"{"timezone":"UTC","first_day":"2026-01-01","last_day":"2026-01-01","opens":"10:00","closes":"11:00"}"#;
            format!(r#"{{"id":"{id}","quota":1,"schedule":{schedule}}}"#)
        };
        let written = |ids: &[&str]| {
            let campaigns: Vec<String> = ids.iter().map(|id| campaign(id)).collect();
            namespace(&format!(r#"{{"campaigns": [{}]}}"#, campaigns.join(",")))
        };
        assert_eq!(written(&["a", "b"]), written(&["b", "a"]));
        assert_ne!(written(&["a", "b"]), written(&["a"]));
    }

    #[test]
    fn every_error_names_its_field() {
        let schedule =
            r#"{"timezone":"UTC","first_day":"2026-01-01","last_day":"2026-01-01","opens":"10:00","closes":"11:00"}"#;
        let campaign = format!(r#"{{"id":"a","quota":1,"schedule":{schedule}}}"#);
        let unlimited = campaign.replace(r#""quota":1,"#, "");
        for (json, field) in [
            ("".to_owned(), "EOF"),
            ("[]".to_owned(), "expected struct"),
            ("{}".to_owned(), "campaigns: "),
            (r#"{"sink": {}}"#.to_owned(), "sink"),
            (r#"{"sync": {"cluster": "c"}} x"#.to_owned(), "trailing"),
            (r#"{"sync": {"cluster": 1}}"#.to_owned(), "sync.cluster: "),
            (r#"{"sync": {"cluster": ""}}"#.to_owned(), "sync.cluster: "),
            (r#"{"sync": {"cluster": "c", "pol_ms": 3}}"#.to_owned(), "sync.pol_ms: unknown field `pol_ms`"),
            (r#"{"sync": {"cluster": "c", "poll_ms": 3}}"#.to_owned(), "sync.poll_ms: "),
            (r#"{"sync": {"cluster": "c", "stale_ms": 100}}"#.to_owned(), "sync.stale_ms: "),
            (r#"{"sync": {"cluster": "c", "token_env": "NONE"}}"#.to_owned(), "sync.token_env: "),
            (r#"{"sync": {"cluster": "c"}, "ticket": {}}"#.to_owned(), "ticket.secret_env: "),
            (
                r#"{"sync": {"cluster": "c"}, "ticket": {"secret_env": "DOORBUSTER_EDGE_TOKEN"}}"#.to_owned(),
                "shorter than 16",
            ),
            (r#"{"sync": {"cluster": "c"}, "guard": []}"#.to_owned(), "guard: "),
            (r#"{"sync": {"cluster": "c"}, "guard": [{"method": "POST", "path": "x"}]}"#.to_owned(), "guard[0].path: "),
            (
                r#"{"sync": {"cluster": "c"}, "guard": [{"method": "post", "path": "/"}]}"#.to_owned(),
                "guard[0].method: ",
            ),
            (r#"{"sync": {"cluster": "c"}, "default_campaign": "A"}"#.to_owned(), "default_campaign: "),
            (r#"{"sync": {"cluster": "c"}, "bodies": "drop"}"#.to_owned(), "bodies: unknown variant `drop`"),
            (r#"{"sync": {"cluster": "c"}, "namespace": "a/b"}"#.to_owned(), "namespace: \"a/b\""),
            (r#"{"sync": {"cluster": "c"}, "credits": {"hold_ms": 0}}"#.to_owned(), "credits.hold_ms: "),
            (r#"{"sync": {"cluster": "c"}, "credits": {"overcommit": 0}}"#.to_owned(), "credits.overcommit: "),
            (r#"{"sync": {"cluster": "c"}, "credits": {"ttl_ms": 5000}}"#.to_owned(), "credits.ttl_ms: "),
            (r#"{"sync": {"cluster": "c"}, "boundary": {"grey_cap": -1}}"#.to_owned(), "boundary.grey_cap: "),
            (r#"{"sync": {"cluster": "c"}, "duplicates_bytes": 2000000000}"#.to_owned(), "duplicates_bytes: "),
            (
                r#"{"sync": {"cluster": "c"}, "metrics": {"max_campaigns": 10001}}"#.to_owned(),
                "metrics.max_campaigns: ",
            ),
            (r#"{"sync": {"cluster": "c"}, "metrics": {"max_campaigns": -1}}"#.to_owned(), "metrics.max_campaigns: "),
            (r#"{"sync": {"cluster": "c"}, "duplicates_bytes": 100}"#.to_owned(), "duplicates_bytes: "),
            (format!(r#"{{"campaigns": [{unlimited}]}}"#), "campaigns[0]: missing field `quota`"),
            (format!(r#"{{"campaigns": [{campaign},{campaign}]}}"#), "campaigns[1].id: "),
            (
                format!(r#"{{"campaigns": [{}]}}"#, campaign.replace("UTC", "Mars")),
                "campaigns[0].schedule.timezone: \"Mars\"",
            ),
        ] {
            let error = parse(&json).unwrap_err();
            assert!(error.contains(field), "{json}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
