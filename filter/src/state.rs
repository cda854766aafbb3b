//! Shared data: the only module that knows its keys, its byte layouts and how a value is changed.
//!
//! The number of keys follows from the configuration alone. Values survive a configuration push and the death of a
//! VM, so nothing here is ever reset by a start.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use chrono::{Datelike, NaiveDate};
use doorbuster_domain::id::{CampaignId, RoundId};
use doorbuster_domain::wire::Totals;

use crate::credits::{CreditAccount, HOLDS, MOST_USERS, RING, TimeSlot, UserMark, UsersInFlight};
use crate::duplicates::{self, HashKey, SHARD_BYTES};
use crate::host::SharedData;

/// Several plugins may share a proxy's keys, so ours are prefixed.
const PROCESS: &str = "doorbuster/process";
const LEASE: &str = "doorbuster/lease";
const SLOTS: &str = "doorbuster/slots";
const GENERATION: &str = "doorbuster/generation";
const SNAPSHOT: &str = "doorbuster/snapshot";
const CONFIRMED: &str = "doorbuster/confirmed";

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

/// The process's identity; `random` becomes part of it if nobody has drawn one yet.
pub fn process(shared: &dyn SharedData, random: [u64; 4]) -> Process {
    let drawn: Vec<u8> = random.iter().flat_map(|part| part.to_le_bytes()).collect();
    // Whoever comes second reads what the first one drew.
    let _ = shared.create(PROCESS, &drawn);
    let (bytes, _) = shared.get(PROCESS).unwrap_or((drawn, 0));
    let mut reader = Reader(&bytes);
    let mut next = || reader.u64().unwrap_or_default();
    let (high, low, key, other_key) = (next(), next(), next(), next());
    Process { gateway: format!("{high:016x}{low:016x}"), hash_key: HashKey(key, other_key) }
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

/// Takes or renews the right to sync for the whole process, until `until_ms`.
pub fn take_lease(shared: &dyn SharedData, holder: u64, now_ms: i64, until_ms: i64) -> bool {
    update(shared, LEASE, &mut 0, |value| {
        let current = value.and_then(|bytes| {
            let mut reader = Reader(bytes);
            Some((reader.u64()?, reader.i64()?))
        });
        match current {
            // A lease that runs longer than anybody may take one is from before the clock was set back.
            Some((other, expires_ms)) if other != holder && (now_ms..=now_ms + 60_000).contains(&expires_ms) => {
                (None, false)
            }
            _ => (Some(Writer::default().u64(holder).i64(until_ms).0), true),
        }
    })
    .unwrap_or(false)
}

/// A campaign's place among the accounts, and among the totals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountKey(Rc<Keys>);

#[derive(Debug, PartialEq, Eq)]
struct Keys {
    account: String,
    totals: String,
}

impl AccountKey {
    /// The account that all campaigns have together which the edge does not know, and of which no origin has said that
    /// they exist. A client can invent their ids.
    #[must_use]
    pub fn unconfirmed() -> Self {
        Self::named("unconfirmed")
    }

    /// The one of campaigns that the edge does not know, but an origin does.
    #[must_use]
    pub fn confirmed() -> Self {
        Self::named("confirmed")
    }

    fn named(place: &str) -> Self {
        Self(Rc::new(Keys {
            account: format!("doorbuster/account/{place}"),
            totals: format!("doorbuster/totals/{place}"),
        }))
    }
}

/// Gives each of `wanted` an account of its own out of `capacity`, for as long as it is wanted: a campaign that was there
/// keeps its place. Those beyond the capacity get none.
pub fn assign_accounts(shared: &dyn SharedData, wanted: &[&CampaignId], capacity: usize) {
    let names: HashSet<&str> = wanted.iter().map(|id| id.as_str()).collect();
    let _ = update(shared, SLOTS, &mut 0, |value| {
        let mut slots = value.map(read_slots).unwrap_or_default();
        let before = slots.clone();
        let placed: HashSet<String> = slots.iter().filter(|id| names.contains(id.as_str())).cloned().collect();
        slots.resize(capacity.max(slots.len()), String::new());
        let mut homeless = wanted.iter().map(|id| id.as_str()).filter(|id| !placed.contains(*id));
        for slot in slots.iter_mut().filter(|slot| !placed.contains(slot.as_str())) {
            match homeless.next() {
                Some(id) => id.clone_into(slot),
                None => break,
            }
        }
        ((slots != before).then(|| serde_json::to_vec(&slots).unwrap_or_default()), ())
    });
}

/// Where each campaign's account is.
pub fn account_keys(shared: &dyn SharedData) -> HashMap<String, AccountKey> {
    let slots = shared.get(SLOTS).map(|(bytes, _)| read_slots(&bytes)).unwrap_or_default();
    slots
        .into_iter()
        .enumerate()
        .filter(|(_, id)| !id.is_empty())
        .map(|(at, id)| (id, AccountKey::named(&at.to_string())))
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
pub fn is_confirmed(shared: &dyn SharedData, tag: u64) -> bool {
    let (bytes, _) = shared.get(CONFIRMED).unwrap_or_default();
    read_tags(&bytes).contains(&tag)
}

/// An origin has said that the campaign of this tag exists. The one that was confirmed first is forgotten for it.
pub fn confirm(shared: &dyn SharedData, tag: u64) {
    let _ = update(shared, CONFIRMED, &mut 0, |value| {
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
pub fn generation(shared: &dyn SharedData) -> u64 {
    shared.get(GENERATION).and_then(|(bytes, _)| Reader(&bytes).u64()).unwrap_or(0)
}

/// The newest snapshot.
pub fn snapshot(shared: &dyn SharedData) -> Option<Vec<u8>> {
    shared.get(SNAPSHOT).map(|(bytes, _)| bytes)
}

/// Replaces the snapshot.
pub fn publish_snapshot(shared: &dyn SharedData, snapshot: &[u8]) {
    let stored = update(shared, SNAPSHOT, &mut 0, |_| (Some(snapshot.to_vec()), ()));
    if stored.is_some() {
        let _ = update(shared, GENERATION, &mut 0, |value| {
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
    pub fn new(bytes: usize) -> Self {
        Self { shards: (0..bytes / SHARD_BYTES).map(|shard| format!("doorbuster/users/{shard}")).collect() }
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
const ACCOUNT_LAYOUT: u8 = 2;
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
        .u32(account.pending_asked)
        .u32(account.held_when_asked)
        .i64(account.boundary_ms)
        .u32(account.boundary_used)
        .i64(account.probed_ms)
        .i64(account.pending_until_ms)
        .i64(account.blind_second)
        .u32(account.blind_used);
    for slot in account.admitted.iter().chain(&account.held) {
        out = out.i64(slot.number).u32(slot.count);
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
        pending_asked: reader.u32()?,
        held_when_asked: reader.u32()?,
        boundary_ms: reader.i64()?,
        boundary_used: reader.u32()?,
        probed_ms: reader.i64()?,
        pending_until_ms: reader.i64()?,
        blind_second: reader.i64()?,
        blind_used: reader.u32()?,
        users: UsersInFlight::default(),
        admitted: [TimeSlot::default(); RING],
        held: [TimeSlot::default(); HOLDS],
    };
    for slot in account.admitted.iter_mut().chain(&mut account.held) {
        *slot = TimeSlot { number: reader.i64()?, count: reader.u32()? };
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

#[cfg(test)]
mod tests;
