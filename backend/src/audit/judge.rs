//! Judges what was read of a round.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Defect, Evidence, Report, Sums};
use crate::store::postgres::{Ledger, Row};
use crate::store::redis::Places;

/// By the contract a reservation is committed or given back within this time once everything is up, milliseconds.
const SETTLED_WITHIN_MS: i64 = 10_000;

/// What fits, what does not, and what nobody can know.
#[must_use]
pub fn judge(evidence: &Evidence) -> Report {
    let ledger = Index::of(&evidence.ledger);
    let mut findings = Findings::default();
    rows(&evidence.ledger, &mut findings);
    let held = match &evidence.places {
        None => {
            findings.unknown.push(
                "Redis does not know the round (it keeps one until a day after closing): which numbers are free or \
                 pending cannot be told"
                    .to_owned(),
            );
            None
        }
        Some(places) => {
            let held = Held::of(places, &ledger, &mut findings);
            if places.warm {
                stores(evidence, places, &held, &ledger, &mut findings);
            } else {
                findings.unknown.push(
                    "Redis has the round marked cold, to be rebuilt before anything is decided: users and numbers are \
                     not compared"
                        .to_owned(),
                );
            }
            Some(held)
        }
    };
    sightings(evidence, &ledger, &mut findings);
    let sums = add_up(evidence, held.as_ref(), &ledger, &mut findings);
    findings.defects.sort_unstable();
    findings.defects.dedup();
    Report { quota: evidence.quota, sums, unknown: findings.unknown, defects: findings.defects }
}

#[derive(Default)]
struct Findings {
    defects: Vec<Defect>,
    unknown: Vec<String>,
}

impl Findings {
    fn add(&mut self, defect: Defect) {
        self.defects.push(defect);
    }
}

/// PostgreSQL's rows, to be looked up.
struct Index<'a> {
    by_user: HashMap<&'a str, &'a Row>,
    by_code: HashMap<&'a str, &'a Row>,
    by_number: BTreeMap<i64, &'a Row>,
}

impl<'a> Index<'a> {
    fn of(ledger: &'a Ledger) -> Self {
        let rows = || ledger.coupons.iter();
        Self {
            by_user: rows().map(|row| (row.user.as_str(), row)).collect(),
            by_code: rows().map(|row| (row.code.as_str(), row)).collect(),
            by_number: rows().map(|row| (row.number, row)).collect(),
        }
    }

    fn code_of(&self, number: u64) -> Option<&'a str> {
        let row = i64::try_from(number).ok().and_then(|number| self.by_number.get(&number))?;
        Some(row.code.as_str())
    }

    fn highest(&self) -> u64 {
        self.by_number.last_key_value().and_then(|(number, _)| u64::try_from(*number).ok()).unwrap_or(0)
    }
}

/// PostgreSQL alone.
fn rows(ledger: &Ledger, findings: &mut Findings) {
    let mut of_user: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut of_number: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    for row in &ledger.coupons {
        of_user.entry(&row.user).or_default().push(&row.code);
        of_number.entry(row.number).or_default().push(&row.code);
        let number = u64::try_from(row.number).unwrap_or(0);
        if number == 0 || ledger.largest_quota.is_some_and(|largest| number > largest) {
            let (user, code) = (row.user.clone(), row.code.clone());
            findings.add(Defect::NumberOutside { user, code, number: row.number });
        }
    }
    for (user, codes) in of_user.into_iter().filter(|(_, codes)| codes.len() > 1) {
        findings.add(Defect::UserTwice { user: user.to_owned(), codes: owned(&codes) });
    }
    for (number, codes) in of_number.into_iter().filter(|(_, codes)| codes.len() > 1) {
        findings.add(Defect::NumberTwice { number, codes: owned(&codes) });
    }
    let issued = count(ledger.coupons.len());
    if let Some(largest_quota) = ledger.largest_quota.filter(|largest| issued > *largest) {
        findings.add(Defect::OverIssued { issued, largest_quota });
    }
    let counted = ledger.counted.unwrap_or(0);
    if counted != issued {
        findings.add(Defect::Miscounted { counted, rows: issued });
    }
}

/// What Redis has as pending.
struct Held<'a> {
    /// Places without a row: user, code, number, since when.
    pending: Vec<(&'a str, &'a str, u64, i64)>,
    /// How many places have their row already.
    unsettled: usize,
}

impl<'a> Held<'a> {
    fn of(places: &'a Places, ledger: &Index<'_>, findings: &mut Findings) -> Self {
        let mut held = Self { pending: Vec::new(), unsettled: 0 };
        for (member, since_ms) in &places.pending {
            let Some((code, number, user)) = member_parts(member) else {
                findings.add(Defect::Unreadable { user: "a pending place".to_owned(), text: member.clone() });
                continue;
            };
            if ledger.by_code.get(code).is_some_and(|row| row.user == user) {
                held.unsettled += 1;
            } else {
                held.pending.push((user, code, number, *since_ms));
            }
        }
        held
    }
}

/// Redis by itself and beside PostgreSQL.
fn stores(evidence: &Evidence, places: &Places, held: &Held<'_>, ledger: &Index<'_>, findings: &mut Findings) {
    users(places, ledger, findings);
    for (user, code, number, since_ms) in &held.pending {
        if evidence.now_ms.saturating_sub(*since_ms) > SETTLED_WITHIN_MS {
            let (user, code) = ((*user).to_owned(), (*code).to_owned());
            findings.add(Defect::Stuck { user, code, number: *number, since_ms: *since_ms });
        }
    }
    numbers(places, held, ledger, findings);
}

fn users(places: &Places, ledger: &Index<'_>, findings: &mut Findings) {
    let pending: HashSet<(&str, &str)> =
        places.pending.iter().filter_map(|(member, _)| place_and_user(member)).collect();
    for (user, entry) in &places.users {
        let row = ledger.by_user.get(user.as_str());
        match entry.split_once(':') {
            None if row.is_none_or(|row| row.code != *entry) => {
                findings.add(Defect::CommittedWithoutRow { user: user.clone(), code: entry.clone() });
            }
            None => {}
            Some(_) if place_parts(entry).is_none() => {
                findings.add(Defect::Unreadable { user: user.clone(), text: entry.clone() });
            }
            Some((code, _)) => {
                if !pending.contains(&(entry.as_str(), user.as_str())) {
                    findings.add(Defect::HalfHeld { user: user.clone(), place: entry.clone() });
                }
                if let Some(row) = row.filter(|row| row.code != code) {
                    let (user, code, held) = (user.clone(), row.code.clone(), Some(entry.clone()));
                    findings.add(Defect::RowNotInRedis { user, code, held });
                }
            }
        }
    }
    for (place, user) in pending {
        if places.users.get(user).is_none_or(|entry| entry != place) {
            findings.add(Defect::HalfHeld { user: user.to_owned(), place: place.to_owned() });
        }
    }
    for (user, row) in &ledger.by_user {
        if !places.users.contains_key(*user) {
            let (user, code) = ((*user).to_owned(), row.code.clone());
            findings.add(Defect::RowNotInRedis { user, code, held: None });
        }
    }
}

/// Each number up to the highest one given belongs to exactly one coupon or place, or is free.
fn numbers(places: &Places, held: &Held<'_>, ledger: &Index<'_>, findings: &mut Findings) {
    let mut holders: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for (_, code, number, _) in &held.pending {
        holders.entry(*number).or_default().push(code);
    }
    for (number, codes) in &mut holders {
        codes.extend(ledger.code_of(*number));
        if codes.len() > 1 {
            findings.add(Defect::HeldTwice { number: *number, codes: owned(codes) });
        }
    }
    let free: BTreeSet<u64> = places.free.iter().copied().collect();
    for number in &free {
        if let Some(code) = ledger.code_of(*number).or_else(|| Some(*holders.get(number)?.first()?)) {
            findings.add(Defect::FreeAndTaken { number: *number, code: code.to_owned() });
        }
    }
    let highest = ledger.highest();
    if places.next < highest {
        findings.add(Defect::Behind { next: places.next, highest });
    }
    let issued = ledger.by_number.keys().filter_map(|number| u64::try_from(*number).ok());
    let accounted: BTreeSet<u64> = issued.chain(holders.into_keys()).chain(free).collect();
    for (from, to) in gaps(&accounted, places.next.max(highest)) {
        findings.add(Defect::NumbersLost { from, to });
    }
}

/// The stretches from 1 to `last` that are not in the set.
fn gaps(set: &BTreeSet<u64>, last: u64) -> Vec<(u64, u64)> {
    let mut gaps = Vec::new();
    let mut next = 1;
    for number in set.iter().copied().take_while(|number| *number <= last).chain([last + 1]) {
        if number > next {
            gaps.push((next, number - 1));
        }
        next = next.max(number + 1);
    }
    gaps
}

fn sightings(evidence: &Evidence, ledger: &Index<'_>, findings: &mut Findings) {
    for seen in &evidence.seen {
        let user = seen.user.clone();
        let row = match &seen.code {
            Some(code) => ledger.by_code.get(code.as_str()),
            None => ledger.by_user.get(user.as_str()),
        };
        match (row, &seen.code) {
            (None, code) => findings.add(Defect::SeenWithoutRow { user, code: code.clone() }),
            (Some(row), Some(code)) if row.user != user => {
                findings.add(Defect::SeenByAnother { user, code: code.clone(), owner: row.user.clone() });
            }
            (Some(_), _) => {}
        }
    }
}

fn add_up(evidence: &Evidence, held: Option<&Held<'_>>, ledger: &Index<'_>, findings: &mut Findings) -> Sums {
    let mut refused = evidence.edge.clone();
    let admitted = refused.remove("admitted").unwrap_or(0);
    let issued = count(evidence.ledger.coupons.len());
    let pending = held.map(|held| count(held.pending.len()));
    let accounted = issued + evidence.failed + pending.unwrap_or(0);
    let refused_or_lost = admitted.checked_sub(accounted);
    if refused_or_lost.is_none() {
        findings.unknown.push(format!(
            "at least {} admissions were never told of: a gateway that is killed takes its last totals along, Redis may \
             have lost what gateways told that are gone since, and a backend asked directly has no gateway",
            accounted - admitted
        ));
    }
    let told = |code: &str| refused.get(code).copied().unwrap_or(0);
    if told("already_issued") > 0 && issued == 0 {
        let what =
            format!("gateways refused {} requests as already_issued, and there is no coupon", told("already_issued"));
        findings.add(Defect::Impossible { what });
    }
    if let Some(quota) = evidence.quota.filter(|quota| told("sold_out") > 0 && issued < *quota) {
        findings.unknown.push(format!(
            "gateways refused {} requests as sold out, and {} coupons are left: right only if the quota was raised since",
            told("sold_out"),
            quota - issued
        ));
    }
    let places = evidence.places.as_ref();
    Sums {
        requests: admitted + refused.values().sum::<u64>(),
        refused_by_gateways: refused,
        admitted,
        issued,
        failed: evidence.failed,
        pending,
        refused_or_lost,
        committed_in_redis: places
            .map(|places| count(places.users.values().filter(|entry| !entry.contains(':')).count())),
        unsettled: held.map_or(0, |held| count(held.unsettled)),
        highest_number: ledger.highest().max(places.map_or(0, |places| places.next)),
        free: places.map_or(0, |places| count(places.free.len())),
        seen: count(evidence.seen.len()),
    }
}

/// Reads `CODE:NUMBER`.
fn place_parts(place: &str) -> Option<(&str, u64)> {
    let (code, number) = place.split_once(':')?;
    Some((code, number.parse().ok()?))
}

/// Splits `CODE:NUMBER:USER` before the user, whose id may hold colons.
fn place_and_user(member: &str) -> Option<(&str, &str)> {
    let (code, rest) = member.split_once(':')?;
    let (number, user) = rest.split_once(':')?;
    Some((member.get(..code.len() + 1 + number.len())?, user))
}

/// Reads `CODE:NUMBER:USER`.
fn member_parts(member: &str) -> Option<(&str, u64, &str)> {
    let (place, user) = place_and_user(member)?;
    let (code, number) = place_parts(place)?;
    Some((code, number, user))
}

fn owned(codes: &[&str]) -> Vec<String> {
    codes.iter().map(|code| (*code).to_owned()).collect()
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
