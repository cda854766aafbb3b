//! A host for tests: shared data as Envoy keeps it (one map behind one lock, a number per change, no delete), a clock
//! that stands still, and headers that are read and written.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

use super::{Changed, Clock, Gauge, Headers, HostTime, Metrics, Random, Request, Series, SharedData, Versioned};

/// Envoy's shared data with the semantics seen on Envoy 1.40: a compare-and-swap on a missing key creates it.
#[derive(Debug, Clone, Default)]
pub struct Model {
    values: RefCell<HashMap<String, Versioned>>,
    last_cas: RefCell<u32>,
}

impl Model {
    /// The raw call: `cas` 0 always writes.
    pub fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), Changed> {
        let mut values = self.values.borrow_mut();
        if let Some((_, current)) = values.get(key)
            && cas != 0
            && cas != *current
        {
            return Err(Changed);
        }
        let mut last = self.last_cas.borrow_mut();
        *last += 1;
        values.insert(key.to_owned(), (value.to_vec(), *last));
        Ok(())
    }

    /// How many keys there are; they are never deleted.
    pub fn keys(&self) -> usize {
        self.values.borrow().len()
    }
}

impl SharedData for Model {
    fn get(&self, key: &str) -> Option<Versioned> {
        self.values.borrow().get(key).cloned()
    }

    fn replace(&self, key: &str, value: &[u8], seen: u32) -> Result<(), Changed> {
        self.set(key, value, seen)
    }

    fn create(&self, key: &str, value: &[u8]) -> Result<(), Changed> {
        self.set(key, value, u32::MAX)
    }
}

impl doorbuster_probe::Calls for Model {
    fn get(&self, key: &str) -> Option<Versioned> {
        SharedData::get(self, key)
    }

    fn set(&self, key: &str, value: &[u8], cas: u32) -> bool {
        Model::set(self, key, value, cas).is_ok()
    }
}

/// A host at one instant. Its random numbers are all 0.
pub struct At<'a> {
    /// What its workers share.
    pub shared: &'a dyn SharedData,
    /// Its clocks, which agree, Unix milliseconds.
    pub now_ms: i64,
}

/// A host whose clocks do not agree.
pub struct Apart<'a> {
    /// What its workers share.
    pub shared: &'a dyn SharedData,
    /// Its clocks.
    pub time: HostTime,
}

impl SharedData for Apart<'_> {
    fn get(&self, key: &str) -> Option<Versioned> {
        self.shared.get(key)
    }

    fn replace(&self, key: &str, value: &[u8], seen: u32) -> Result<(), Changed> {
        self.shared.replace(key, value, seen)
    }

    fn create(&self, key: &str, value: &[u8]) -> Result<(), Changed> {
        self.shared.create(key, value)
    }
}

impl Clock for Apart<'_> {
    fn now_ms(&self) -> i64 {
        self.time.wall_ms()
    }

    fn monotonic_ms(&self) -> i64 {
        self.time.host_ms
    }
}

impl Random for Apart<'_> {
    fn random(&self) -> u64 {
        0
    }
}

impl SharedData for At<'_> {
    fn get(&self, key: &str) -> Option<Versioned> {
        self.shared.get(key)
    }

    fn replace(&self, key: &str, value: &[u8], seen: u32) -> Result<(), Changed> {
        self.shared.replace(key, value, seen)
    }

    fn create(&self, key: &str, value: &[u8]) -> Result<(), Changed> {
        self.shared.create(key, value)
    }
}

impl Clock for At<'_> {
    fn now_ms(&self) -> i64 {
        self.now_ms
    }

    fn monotonic_ms(&self) -> i64 {
        self.now_ms
    }
}

impl Random for At<'_> {
    fn random(&self) -> u64 {
        0
    }
}

/// The headers of a request or a response, with what was done to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelHeaders {
    /// As they are now.
    pub headers: Vec<(String, Vec<u8>)>,
    /// What was read: names of single headers, and `*` for all of them.
    pub read: Vec<&'static str>,
    /// What was annotated.
    pub annotations: Vec<(&'static str, String)>,
}

impl ModelHeaders {
    /// Headers that have just arrived.
    pub fn new<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect();
        Self { headers, ..Self::default() }
    }

    /// The first value of a header.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }
}

impl Headers for ModelHeaders {
    fn first(&mut self, name: &'static str) -> Option<Cow<'_, [u8]>> {
        self.read.push(name);
        self.value(name).map(Cow::Borrowed)
    }

    fn all(&mut self) -> impl Iterator<Item = (&str, &[u8])> {
        self.read.push("*");
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.as_bytes().to_vec()));
    }

    fn remove(&mut self, name: &str) {
        self.headers.retain(|(known, _)| known != name);
    }
}

impl Request for ModelHeaders {
    fn annotate(&mut self, field: &'static str, value: &str) {
        self.annotations.push((field, value.to_owned()));
    }
}

/// Statistics as they were reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ModelMetrics {
    /// Decisions by the series' name, in the order of the reports.
    pub decisions: Vec<(String, &'static str, u64)>,
    /// Gauges, likewise.
    pub gauges: Vec<(Gauge, u64)>,
}

impl Metrics for ModelMetrics {
    fn count_decisions(&mut self, decision: &'static str, series: Series<'_>, count: u64) {
        self.decisions.push((series.name().to_owned(), decision, count));
    }

    fn count_lost_swaps(&mut self, _count: u64) {}

    fn set_gauge(&mut self, gauge: Gauge, value: u64) {
        self.gauges.push((gauge, value));
    }
}

/// A real Envoy answers it, too: `e2e/tests/it/shared_data.rs`.
#[test]
fn the_model_answers_the_table_that_envoy_answers() {
    let transcript = doorbuster_probe::play(doorbuster_probe::CASES, "", &Model::default());
    assert_eq!(transcript, doorbuster_probe::CASES);
}

#[test]
fn a_value_is_created_once_and_replaced_only_unchanged() {
    let model = Model::default();
    assert_eq!(model.get("k"), None);
    assert_eq!(model.create("k", b"1"), Ok(()));
    assert_eq!(model.create("k", b"2"), Err(Changed));
    let (value, seen) = model.get("k").unwrap();
    assert_eq!(value, b"1");
    assert_eq!(model.replace("k", b"2", seen), Ok(()));
    assert_eq!(model.replace("k", b"3", seen), Err(Changed));
    assert_eq!(model.get("k").unwrap().0, b"2");
}
