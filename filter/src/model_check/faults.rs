//! The rules notice what they are there for: each of these worlds is broken, and found out.

use super::events::Event::*;
use super::search::{Rule, explore};
use super::world::World;
use super::{Broken, CREDITS, Grain, SYNC, Scenario, config, open, rush};

/// A broken world is found out.
fn finds(rule: Rule, scenario: Scenario, depth: usize) {
    let name = format!("{:?}", scenario.broken);
    let found = explore(vec![World::start(scenario).synced()], depth).expect_err(&name);
    println!("{name}: {found}");
    assert_eq!(found.violation.rule, rule, "{name}: {found}");
}

#[test]
fn a_credit_given_back_twice_is_noticed() {
    finds(Rule::Credits, Scenario { broken: Some(Broken::SettlesTwice), ..rush() }, 4);
}

#[test]
fn a_generous_rule_is_noticed() {
    let generous = CREDITS.replace("{\"hold_ms\"", "{\"overcommit\": 1.5, \"hold_ms\"");
    finds(Rule::Credits, Scenario { config: config(&[SYNC, &generous]), ..rush() }, 3);
}

#[test]
fn a_lost_update_is_noticed() {
    let scenario = Scenario { grain: Grain::Calls, broken: Some(Broken::WritesBlindly), ..rush() };
    let may = |event: &_| matches!(event, Request { worker: 0, user: 0, .. } | Request { user: 1, .. } | GoOn { .. });
    finds(Rule::Credits, Scenario { may, ..scenario }.beginning(open(1)), 8);
}

#[test]
fn a_user_with_two_requests_in_flight_is_noticed() {
    let scenario = Scenario { grain: Grain::Calls, broken: Some(Broken::WritesBlindly), ..rush() };
    let may = |event: &_| matches!(event, Request { user: 0, .. } | GoOn { .. });
    finds(Rule::OnePerUser, Scenario { may, ..scenario }, 8);
}

#[test]
fn a_refusal_that_the_origin_would_not_give_is_noticed() {
    let scenario = Scenario { broken: Some(Broken::TakesPendingForIssued), workers: 1, ..rush() };
    let may = |event: &_| matches!(event, Request { .. } | Decide { .. } | Settle { .. } | Wait { ms: 600 });
    finds(Rule::ForGood, Scenario { may, ..scenario }, 8);
}

#[test]
fn a_winner_taken_for_another_user_is_noticed() {
    let may = |event: &_| matches!(event, Request { worker: 0, .. } | Decide { .. } | Settle { .. });
    finds(Rule::ForGood, Scenario { broken: Some(Broken::MixesUpUsers), may, ..rush() }, 5);
}

#[test]
fn a_latch_that_is_never_lifted_is_noticed() {
    let scenario = Scenario { broken: Some(Broken::TicksWithoutLooking), ..rush() }.beginning(open(0));
    finds(Rule::Latch, Scenario { editions: vec![open(1)], most_versions: 2, ..scenario }, 6);
}

#[test]
fn a_credit_that_never_heals_is_noticed() {
    let slow = CREDITS.replace("3000", "60000");
    finds(Rule::Heals, Scenario { config: config(&[SYNC, &slow]), ..rush() }, 2);
}

#[test]
fn a_stranded_coupon_is_noticed() {
    finds(Rule::Stranded, Scenario { broken: Some(Broken::PlacesNeverComeBack), ..rush() }, 4);
}
