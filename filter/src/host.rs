//! What the core needs of a host: a proxy that hands requests to it. Each shell implements these traits once.

#[cfg(test)]
pub mod model;

use std::borrow::Cow;

use doorbuster_domain::id::CampaignId;

/// A value and the number of its last change, to be given back in a compare-and-swap.
pub type Versioned = (Vec<u8>, u32);

/// The value was changed by another worker since it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Changed;

/// Data that all workers share: values by key, each changed by compare-and-swap.
pub trait SharedData {
    /// The value of `key`; none if it was never set.
    fn get(&self, key: &str) -> Option<Versioned>;

    /// Sets `key` if it is unchanged since it was read as `seen`.
    ///
    /// # Errors
    /// [`Changed`] if it was changed; nothing was written.
    fn replace(&self, key: &str, value: &[u8], seen: u32) -> Result<(), Changed>;

    /// Sets `key` if it was never set.
    ///
    /// # Errors
    /// [`Changed`] if it was; nothing was written.
    fn create(&self, key: &str, value: &[u8]) -> Result<(), Changed>;
}

/// This machine's clocks.
pub trait Clock {
    /// The wall clock, Unix milliseconds. It may be set at any time.
    fn now_ms(&self) -> i64;

    /// The monotonic clock, milliseconds since some instant that is the same for all workers of
    /// a process. It is never set, and may stand still while the machine is suspended.
    fn monotonic_ms(&self) -> i64;
}

/// This machine's clocks at one moment. All intervals are measured with the monotonic one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostTime {
    /// The monotonic clock, milliseconds.
    pub host_ms: i64,
    /// What to add to it for the wall clock, milliseconds. It changes when the wall clock is set
    /// and when the machine was suspended.
    pub wall_ahead_ms: i64,
}

impl HostTime {
    /// Now.
    #[must_use]
    pub fn read(clock: &dyn Clock) -> Self {
        Self::at_wall(clock, clock.now_ms())
    }

    /// Now, where the wall clock has just been read.
    #[must_use]
    pub fn at_wall(clock: &dyn Clock, wall_ms: i64) -> Self {
        let host_ms = clock.monotonic_ms();
        Self { host_ms, wall_ahead_ms: wall_ms.saturating_sub(host_ms) }
    }

    /// The wall clock, Unix milliseconds.
    #[must_use]
    pub fn wall_ms(&self) -> i64 {
        self.host_ms.saturating_add(self.wall_ahead_ms)
    }
}

/// Random numbers.
pub trait Random {
    /// The next one.
    fn random(&self) -> u64;
}

/// What a decision may ask of the host.
pub trait Host: SharedData + Clock + Random {}

impl<T: SharedData + Clock + Random> Host for T {}

/// The headers of a request or of a response. Names are in lower case.
pub trait Headers {
    /// The first value of a header.
    fn first(&mut self, name: &'static str) -> Option<Cow<'_, [u8]>>;

    /// All headers, in the order in which they arrived.
    fn all(&mut self) -> impl Iterator<Item = (&str, &[u8])>;

    /// Replaces a header, or adds it.
    fn set(&mut self, name: &str, value: &str);

    /// Removes a header.
    fn remove(&mut self, name: &str);
}

/// A request on its way to the origin. Its headers can be read until they have been forwarded or paused, and changed
/// until they have been forwarded.
pub trait Request: Headers {
    /// All headers will most likely be read: a host that hands out all of them for the price of one may do so.
    fn expect_all(&mut self) {}

    /// Adds a field to what the access log may show of this request.
    fn annotate(&mut self, field: &'static str, value: &str);
}

/// A value that goes up and down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gauge {
    /// Credits in use, over all campaigns that are open or have just closed.
    CreditsInFlight,
    /// Users in the table of duplicates.
    DuplicatesFilled,
    /// Age of the newest snapshot, milliseconds.
    SyncAgeMs,
    /// 1 before the first sync, else 0.
    Warming,
}

impl Gauge {
    /// Its name in the host's statistics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CreditsInFlight => "doorbuster.credits_in_flight",
            Self::DuplicatesFilled => "doorbuster.duplicates_filled",
            Self::SyncAgeMs => "doorbuster.sync_age_ms",
            Self::Warming => "doorbuster.warming",
        }
    }
}

/// Where decisions are counted. Statistics are never deleted, so the number of series is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Series<'a> {
    /// Under this campaign's name.
    Campaign(&'a CampaignId),
    /// Together with all other campaigns that have no series of their own.
    Other,
    /// With the requests that name no known campaign.
    NoCampaign,
}

impl Series<'_> {
    /// Its name in the host's statistics. Only the first kind can be a campaign's id.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Campaign(id) => id.as_str(),
            Self::Other => "_other",
            Self::NoCampaign => "-",
        }
    }
}

/// The host's statistics.
pub trait Metrics {
    /// Adds to the decisions in a series.
    fn count_decisions(&mut self, decision: &'static str, series: Series<'_>, count: u64);

    /// Adds to the compare-and-swaps that another worker won.
    fn count_lost_swaps(&mut self, count: u64);

    /// Sets a gauge. The last writer wins, so only one worker of a process may call it.
    fn set_gauge(&mut self, gauge: Gauge, value: u64);
}

/// A `POST` to a server that the host knows by a name of its own.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The host's name for the server, such as Envoy's name of a cluster.
    pub server: &'a str,
    /// `:authority`.
    pub authority: &'a str,
    /// `:path`.
    pub path: &'a str,
    /// Bearer token.
    pub token: &'a str,
    /// The body, JSON.
    pub body: &'a [u8],
    /// Without an answer the call fails after this, milliseconds.
    pub timeout_ms: i64,
}

/// The host did not send a call: it does not know the server, or none of its hosts is healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotSent;

/// Names a call until its answer has arrived.
pub type CallId = u32;

/// Calls to servers. The answer arrives later, as a [`CallEnded`].
pub trait Callout {
    /// Sends a call.
    ///
    /// # Errors
    /// [`NotSent`] if no answer will arrive.
    fn post(&self, call: &Call<'_>) -> Result<CallId, NotSent>;
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallEnded {
    /// The server answered with status 200 and this body.
    Ok(Vec<u8>),
    /// It answered with another status.
    Status(String),
    /// It was reset, or did not answer in time.
    NoAnswer,
}

/// The host's log.
pub trait Log {
    /// Something worth knowing.
    fn info(&self, message: &str);

    /// Something an operator should look at.
    fn warn(&self, message: &str);
}
