//! Shared data: the only module that knows its keys, its byte layouts and how a value is changed.
//!
//! The number of keys follows from the configuration alone. Values survive a configuration push and the death of a
//! VM, so nothing here is ever reset by a start.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use chrono::{Datelike, NaiveDate};
use doorbuster_domain::id::{CampaignId, RoundId};
use doorbuster_domain::wire::Totals;

pub use self::series::name_series;
use crate::credits::{ASKS, Ask, CreditAccount, HOLDS, MOST_USERS, RING, TimeSlot, UserMark, UsersInFlight};
use crate::duplicates::{self, HashKey, SHARD_BYTES};
use crate::host::SharedData;

/// A compare-and-swap that loses this often gives up; with a handful of workers it never does.
const MOST_RETRIES: u32 = 1_000;

/// What is drawn once for a whole Envoy process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Names this gateway to the backend.
    pub gateway: String,
    /// Keys all hashes.
    pub hash_key: HashKey,
}

/// Names of the values that configurations with one namespace share. Other plugins and other configurations may use the
/// same host data, so every key begins with `doorbuster/` and the namespace.
#[derive(Debug, Clone)]
pub struct Namespace(Rc<Names>);

#[derive(Debug)]
struct Names {
    prefix: String,
    process: String,
    configured: String,
    lease: String,
    reporter: String,
    slots: String,
    generation: String,
    snapshot: String,
    confirmed: String,
}

impl Namespace {
    /// The namespace of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let prefix = format!("doorbuster/{name}/");
        let key = |key: &str| format!("{prefix}{key}");
        Self(Rc::new(Names {
            process: key("process"),
            configured: key("configured"),
            lease: key("lease"),
            reporter: key("reporter"),
            slots: key("slots"),
            generation: key("generation"),
            snapshot: key("snapshot"),
            confirmed: key("confirmed"),
            prefix,
        }))
    }

    /// The account that all campaigns have together which the edge does not know, and of which no origin has said that
    /// they exist. A client can invent their ids.
    #[must_use]
    pub fn unconfirmed(&self) -> AccountKey {
        self.account("unconfirmed")
    }

    /// The one of campaigns that the edge does not know, but an origin does.
    #[must_use]
    pub fn confirmed(&self) -> AccountKey {
        self.account("confirmed")
    }

    fn account(&self, place: &str) -> AccountKey {
        let prefix = &self.0.prefix;
        AccountKey(Rc::new(Keys {
            account: format!("{prefix}account/{place}"),
            totals: format!("{prefix}totals/{place}"),
        }))
    }
}

/// The process's identity; `random` becomes part of it if none was drawn yet.
pub fn process(shared: &dyn SharedData, names: &Namespace, random: [u64; 4]) -> Process {
    let drawn: Vec<u8> = random.iter().flat_map(|part| part.to_le_bytes()).collect();
    let key = &names.0.process;
    // A worker that comes second reads what the first one drew.
    let _ = shared.create(key, &drawn);
    let (bytes, _) = shared.get(key).unwrap_or((drawn, 0));
    let mut reader = Reader(&bytes);
    let mut next = || reader.u64().unwrap_or_default();
    let (high, low, key, other_key) = (next(), next(), next(), next());
    Process { gateway: format!("{high:016x}{low:016x}"), hash_key: HashKey(key, other_key) }
}

/// The turn of a configuration with this fingerprint: larger than that of every other one that was loaded before. Workers
/// with equal configurations have one turn.
pub fn turn(shared: &dyn SharedData, names: &Namespace, fingerprint: u64) -> u64 {
    update(shared, &names.0.configured, &mut 0, |value| match value.and_then(read_turn) {
        Some((known, turn)) if known == fingerprint => (None, turn),
        before => {
            let turn = before.map_or(1, |(_, turn)| turn + 1);
            (Some(Writer::default().u64(fingerprint).u64(turn).0), turn)
        }
    })
    .unwrap_or_default()
}

/// The turn of the configuration that was loaded last.
pub fn newest_turn(shared: &dyn SharedData, names: &Namespace) -> u64 {
    shared.get(&names.0.configured).and_then(|(bytes, _)| read_turn(&bytes)).map_or(0, |(_, turn)| turn)
}

fn read_turn(bytes: &[u8]) -> Option<(u64, u64)> {
    let mut reader = Reader(bytes);
    Some((reader.u64()?, reader.u64()?))
}

/// Changes a value as a whole. `change` sees the value, or nothing, and returns the new one with a result, or only a
/// result to leave it as it is; it runs again when another worker was quicker. None: it never got its turn.
fn update<T>(
    shared: &dyn SharedData,
    key: &str,
    retries: &mut u64,
    mut change: impl FnMut(Option<&[u8]>) -> (Option<Vec<u8>>, T),
) -> Option<T> {
    for _ in 0..MOST_RETRIES {
        let seen = shared.get(key);
        let (new, result) = change(seen.as_ref().map(|(value, _)| value.as_slice()));
        let Some(new) = new else { return Some(result) };
        let written = match seen {
            Some((_, number)) => shared.replace(key, &new, number),
            None => shared.create(key, &new),
        };
        if written.is_ok() {
            return Some(result);
        }
        *retries += 1;
    }
    None
}

/// What a lease is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// To sync for all workers of the process, and to report its gauges.
    Sync,
    /// To report the gauges, where nothing is synced.
    Report,
}

impl Duty {
    fn key(self, names: &Namespace) -> &str {
        match self {
            Self::Sync => &names.0.lease,
            Self::Report => &names.0.reporter,
        }
    }
}

/// A worker that may take a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Names the worker.
    pub holder: u64,
    /// The turn of its configuration. It takes the lease of one with a smaller turn at once.
    pub turn: u64,
    /// Whether its configuration is the newest one. Another one takes a lease only when no worker has renewed it for
    /// [`OLD_CONFIGURATION_WAITS_MS`].
    pub newest: bool,
}

/// An older configuration, which may be draining, takes a lease that ended this long ago, milliseconds.
pub const OLD_CONFIGURATION_WAITS_MS: i64 = 2_000;

/// A lease that runs longer than any worker may take one is from before the clock was set back, milliseconds.
const LONGEST_LEASE_MS: i64 = 60_000;

/// Takes or renews a lease until `until_ms`. Each time it is taken it has a larger number, which is returned; none: another
/// worker has it.
pub fn take_lease(
    shared: &dyn SharedData,
    names: &Namespace,
    duty: Duty,
    candidate: Candidate,
    now_ms: i64,
    until_ms: i64,
) -> Option<u64> {
    update(shared, duty.key(names), &mut 0, |value| {
        let lease = value.and_then(read_lease);
        let number = lease.as_ref().map_or(1, |lease| lease.number + 1);
        let may = match &lease {
            None => true,
            Some(lease) if lease.ends_ms > now_ms + LONGEST_LEASE_MS => true,
            Some(lease) if candidate.newest => {
                lease.holder == candidate.holder || lease.turn < candidate.turn || lease.ends_ms < now_ms
            }
            Some(lease) => lease.ends_ms + OLD_CONFIGURATION_WAITS_MS < now_ms,
        };
        let Candidate { holder, turn, .. } = candidate;
        let taken = may.then(|| Lease { holder, ends_ms: until_ms, number, turn }.write());
        (taken, may.then_some(number))
    })
    .flatten()
}

/// Gives up a lease, if this worker has it.
pub fn give_up_lease(shared: &dyn SharedData, names: &Namespace, duty: Duty, holder: u64, now_ms: i64) {
    let _ = update(shared, duty.key(names), &mut 0, |value| match value.and_then(read_lease) {
        Some(lease) if lease.holder == holder && lease.ends_ms >= now_ms => {
            (Some(Lease { ends_ms: now_ms - 1, ..lease }.write()), ())
        }
        _ => (None, ()),
    });
}

/// A lease as it is stored.
#[derive(Debug)]
struct Lease {
    holder: u64,
    ends_ms: i64,
    number: u64,
    turn: u64,
}

impl Lease {
    fn write(&self) -> Vec<u8> {
        Writer::default().u64(self.holder).i64(self.ends_ms).u64(self.number).u64(self.turn).0
    }
}

fn read_lease(bytes: &[u8]) -> Option<Lease> {
    let mut reader = Reader(bytes);
    Some(Lease { holder: reader.u64()?, ends_ms: reader.i64()?, number: reader.u64()?, turn: reader.u64()? })
}

/// A campaign's place among the accounts, and among the totals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountKey(Rc<Keys>);

#[derive(Debug, PartialEq, Eq)]
struct Keys {
    account: String,
    totals: String,
}

/// Gives each of `wanted` an account of its own out of `capacity`, for as long as it is wanted: a campaign that was there
/// keeps its place. Free places are given away first, so that another configuration's campaigns keep theirs while there is
/// room. Those beyond the capacity get none.
pub fn assign_accounts(shared: &dyn SharedData, names: &Namespace, wanted: &[&CampaignId], capacity: usize) {
    let ids: HashSet<&str> = wanted.iter().map(|id| id.as_str()).collect();
    let _ = update(shared, &names.0.slots, &mut 0, |value| {
        let mut slots = value.map(read_slots).unwrap_or_default();
        let before = slots.clone();
        let placed: HashSet<String> = slots.iter().filter(|id| ids.contains(id.as_str())).cloned().collect();
        slots.resize(capacity.max(slots.len()), String::new());
        let mut homeless = wanted.iter().map(|id| id.as_str()).filter(|id| !placed.contains(*id));
        for free_first in [true, false] {
            let open = |slot: &&mut String| if free_first { slot.is_empty() } else { !ids.contains(slot.as_str()) };
            for slot in slots.iter_mut().filter(open) {
                match homeless.next() {
                    Some(id) => id.clone_into(slot),
                    None => break,
                }
            }
        }
        ((slots != before).then(|| serde_json::to_vec(&slots).unwrap_or_default()), ())
    });
}

/// Where each campaign's account is.
pub fn account_keys(shared: &dyn SharedData, names: &Namespace) -> HashMap<String, AccountKey> {
    let slots = shared.get(&names.0.slots).map(|(bytes, _)| read_slots(&bytes)).unwrap_or_default();
    slots
        .into_iter()
        .enumerate()
        .filter(|(_, id)| !id.is_empty())
        .map(|(at, id)| (id, names.account(&at.to_string())))
        .collect()
}

fn read_slots(bytes: &[u8]) -> Vec<String> {
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// Changes an account. `change` sees it, or an empty one of `tag`. None: the worker never got its turn.
pub fn update_account<T>(
    shared: &dyn SharedData,
    key: &AccountKey,
    tag: u64,
    retries: &mut u64,
    mut change: impl FnMut(&mut CreditAccount) -> T,
) -> Option<T> {
    update(shared, &key.0.account, retries, |value| {
        let before = value.and_then(read_account);
        let mut account = before.clone().unwrap_or_else(|| CreditAccount::new(tag));
        let result = change(&mut account);
        let changed = before.as_ref() != Some(&account);
        (changed.then(|| write_account(&account)), result)
    })
}

/// An account as it stands, if it is the one of `tag`.
pub fn account(shared: &dyn SharedData, key: &AccountKey, tag: u64) -> Option<CreditAccount> {
    shared.get(&key.0.account).and_then(|(bytes, _)| read_account(&bytes)).filter(|account| account.tag == tag)
}

/// Campaigns remembered as existing: more than a gateway without a sync is asked for at the same time.
const MOST_CONFIRMED: usize = 16;

/// Whether an origin has said that the campaign of this tag exists.
pub fn is_confirmed(shared: &dyn SharedData, names: &Namespace, tag: u64) -> bool {
    let (bytes, _) = shared.get(&names.0.confirmed).unwrap_or_default();
    read_tags(&bytes).contains(&tag)
}

/// An origin has said that the campaign of this tag exists. The one that was confirmed first is forgotten for it.
pub fn confirm(shared: &dyn SharedData, names: &Namespace, tag: u64) {
    let _ = update(shared, &names.0.confirmed, &mut 0, |value| {
        let mut tags = read_tags(value.unwrap_or_default());
        if tags.contains(&tag) {
            return (None, ());
        }
        tags.push(tag);
        let kept = tags.iter().skip(tags.len().saturating_sub(MOST_CONFIRMED));
        (Some(kept.fold(Writer::default(), |out, tag| out.u64(*tag)).0), ())
    });
}

fn read_tags(bytes: &[u8]) -> Vec<u64> {
    let mut reader = Reader(bytes);
    std::iter::from_fn(|| reader.u64()).collect()
}

/// Rounds of a campaign whose totals are kept.
const TOTALS_KEPT: usize = 2;

/// Adds to what the process has decided about a campaign's round.
pub fn add_totals(
    shared: &dyn SharedData,
    key: &AccountKey,
    campaign: &CampaignId,
    round: RoundId,
    counts: &[(&'static str, u64)],
) {
    let _ = update(shared, &key.0.totals, &mut 0, |value| {
        let mut rounds = value.map(read_totals).unwrap_or_default();
        // The place may have been another campaign's.
        rounds.retain(|totals| totals.campaign == *campaign);
        if !rounds.iter().any(|totals| totals.round == round) {
            rounds.push(Totals { campaign: campaign.clone(), round, decisions: BTreeMap::new() });
            rounds.sort_by_key(|totals| totals.round);
            rounds.drain(..rounds.len().saturating_sub(TOTALS_KEPT));
        }
        if let Some(totals) = rounds.iter_mut().find(|totals| totals.round == round) {
            for (decision, count) in counts {
                *totals.decisions.entry((*decision).to_owned()).or_default() += count;
            }
        }
        (Some(serde_json::to_vec(&rounds).unwrap_or_default()), ())
    });
}

/// What the process has decided about a campaign since it started, by round.
pub fn totals(shared: &dyn SharedData, key: &AccountKey, campaign: &CampaignId) -> Vec<Totals> {
    let mut rounds = shared.get(&key.0.totals).map(|(bytes, _)| read_totals(&bytes)).unwrap_or_default();
    rounds.retain(|totals| totals.campaign == *campaign);
    rounds
}

fn read_totals(bytes: &[u8]) -> Vec<Totals> {
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// How often the snapshot has been replaced.
pub fn generation(shared: &dyn SharedData, names: &Namespace) -> u64 {
    shared.get(&names.0.generation).and_then(|(bytes, _)| Reader(&bytes).u64()).unwrap_or(0)
}

/// The newest snapshot.
pub fn snapshot(shared: &dyn SharedData, names: &Namespace) -> Option<Vec<u8>> {
    shared.get(&names.0.snapshot).map(|(bytes, _)| bytes)
}

/// Replaces the snapshot.
pub fn publish_snapshot(shared: &dyn SharedData, names: &Namespace, snapshot: &[u8]) {
    let stored = update(shared, &names.0.snapshot, &mut 0, |_| (Some(snapshot.to_vec()), ()));
    if stored.is_some() {
        let _ = update(shared, &names.0.generation, &mut 0, |value| {
            let current = value.and_then(|bytes| Reader(bytes).u64()).unwrap_or(0);
            (Some(Writer::default().u64(current.wrapping_add(1)).0), ())
        });
    }
}

/// The table of users who have their coupon.
#[derive(Debug, Clone)]
pub struct Duplicates {
    shards: Vec<String>,
}

impl Duplicates {
    /// A table of at most `bytes`.
    #[must_use]
    pub fn new(names: &Namespace, bytes: usize) -> Self {
        let prefix = &names.0.prefix;
        Self { shards: (0..bytes / SHARD_BYTES).map(|shard| format!("{prefix}users/{shard}")).collect() }
    }

    /// Whether the table holds `hash`.
    pub fn contains(&self, shared: &dyn SharedData, hash: u64) -> bool {
        self.key(hash).and_then(|key| shared.get(key)).is_some_and(|(shard, _)| duplicates::contains(&shard, hash))
    }

    /// Puts `hash` into the table.
    pub fn insert(&self, shared: &dyn SharedData, hash: u64, retries: &mut u64) {
        let Some(key) = self.key(hash) else { return };
        let _ = update(shared, key, retries, |value| {
            let mut shard = value.unwrap_or_default().to_vec();
            if duplicates::contains(&shard, hash) {
                return (None, ());
            }
            duplicates::insert(&mut shard, hash);
            (Some(shard), ())
        });
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// How many hashes `count` shards from `first` on hold.
    pub fn filled(&self, shared: &dyn SharedData, first: usize, count: usize) -> usize {
        let surveyed = self.shards.iter().skip(first).take(count);
        surveyed.filter_map(|key| shared.get(key)).map(|(shard, _)| duplicates::filled(&shard)).sum()
    }

    fn key(&self, hash: u64) -> Option<&str> {
        self.shards.get(duplicates::shard_of(hash, self.shards.len())?).map(String::as_str)
    }
}

/// First byte of an account. Another layout takes another number, and an account of an old one is begun anew.
const ACCOUNT_LAYOUT: u8 = 3;
const NO_LIMIT: u64 = u64::MAX;
const NO_ROUND: i32 = i32::MIN;

fn write_account(account: &CreditAccount) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(400))
        .u8(ACCOUNT_LAYOUT)
        .u64(account.tag)
        .u64(account.version)
        .i32(account.round.map_or(NO_ROUND, |round| round.0.num_days_from_ce()))
        .u64(account.quota.unwrap_or(NO_LIMIT))
        .u64(account.issued)
        .u64(account.reserved_by_others)
        .u32(account.gateways)
        .u8(u8::from(account.sold_out))
        .u32(account.pending)
        .i64(account.boundary_ms)
        .u32(account.boundary_used)
        .i64(account.probed_ms)
        .i64(account.pending_until_ms)
        .i64(account.blind_second)
        .u32(account.blind_used);
    for slot in account.admitted.iter().chain(&account.held) {
        out = out.i64(slot.number).u32(slot.count);
    }
    for ask in &account.asks {
        out = out.u64(ask.number).u32(ask.held).u32(ask.pending);
    }
    // The rest: as many as there are.
    for (user, until_ms) in account.users.0.iter().take(MOST_USERS) {
        out = out.u32(user.0).i64(*until_ms);
    }
    out.0
}

fn read_account(bytes: &[u8]) -> Option<CreditAccount> {
    let mut reader = Reader(bytes);
    if reader.u8()? != ACCOUNT_LAYOUT {
        return None;
    }
    let mut account = CreditAccount {
        tag: reader.u64()?,
        version: reader.u64()?,
        round: match reader.i32()? {
            NO_ROUND => None,
            days => Some(RoundId(NaiveDate::from_num_days_from_ce_opt(days)?)),
        },
        quota: Some(reader.u64()?).filter(|quota| *quota != NO_LIMIT),
        issued: reader.u64()?,
        reserved_by_others: reader.u64()?,
        gateways: reader.u32()?,
        sold_out: reader.u8()? == 1,
        pending: reader.u32()?,
        boundary_ms: reader.i64()?,
        boundary_used: reader.u32()?,
        probed_ms: reader.i64()?,
        pending_until_ms: reader.i64()?,
        blind_second: reader.i64()?,
        blind_used: reader.u32()?,
        users: UsersInFlight::default(),
        asks: [Ask::default(); ASKS],
        admitted: [TimeSlot::default(); RING],
        held: [TimeSlot::default(); HOLDS],
    };
    for slot in account.admitted.iter_mut().chain(&mut account.held) {
        *slot = TimeSlot { number: reader.i64()?, count: reader.u32()? };
    }
    for ask in &mut account.asks {
        *ask = Ask { number: reader.u64()?, held: reader.u32()?, pending: reader.u32()? };
    }
    while !reader.0.is_empty() {
        account.users.0.push((UserMark(reader.u32()?), reader.i64()?));
    }
    Some(account)
}

/// Reads little-endian fields off the front of a value.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }
    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
    fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }
}

/// Appends little-endian fields to a value.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn put(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn u8(self, value: u8) -> Self {
        self.put(&[value])
    }
    fn u32(self, value: u32) -> Self {
        self.put(&value.to_le_bytes())
    }
    fn i32(self, value: i32) -> Self {
        self.put(&value.to_le_bytes())
    }
    fn u64(self, value: u64) -> Self {
        self.put(&value.to_le_bytes())
    }
    fn i64(self, value: i64) -> Self {
        self.put(&value.to_le_bytes())
    }
}

mod series;

#[cfg(test)]
mod tests;
