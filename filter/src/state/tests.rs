use super::*;
use crate::host::model::Model;

fn names() -> Namespace {
    Namespace::new("test")
}

fn id(text: &str) -> CampaignId {
    CampaignId::parse(text).unwrap()
}

#[test]
fn an_account_is_read_as_it_was_written() {
    let mut account = CreditAccount::new(7);
    account.version = 3;
    account.round = Some("2026-05-01".parse().unwrap());
    account.quota = Some(100);
    account.issued = 57;
    account.reserved_by_others = 60;
    account.sold_out = true;
    account.pending = 1;
    account.asks[3] = Ask { number: 2, held: 3, pending: 4 };
    account.boundary_ms = -4;
    account.boundary_used = 5;
    account.probed_ms = 6;
    account.pending_until_ms = 7;
    account.blind_second = 8;
    account.blind_used = 9;
    account.users.0.push((UserMark(10), 11));
    account.admitted[15] = TimeSlot { number: i64::MAX, count: 9 };
    account.held[7] = TimeSlot { number: 1, count: 2 };
    let bytes = write_account(&account);
    assert_eq!(read_account(&bytes), Some(account));
    assert_eq!(read_account(&bytes[..bytes.len() - 1]), None);
    assert_eq!(read_account(&[]), None);
    assert_eq!(read_account(&write_account(&CreditAccount::new(1))), Some(CreditAccount::new(1)));
}

#[test]
fn the_process_is_drawn_once() {
    let shared = Model::default();
    let first = process(&shared, &names(), [1, 2, 3, 4]);
    assert_eq!(process(&shared, &names(), [5, 6, 7, 8]), first);
    assert_eq!(first.gateway.len(), 32);
    assert_ne!(process(&shared, &Namespace::new("other"), [5, 6, 7, 8]), first);
}

/// Whether a worker of the newest configuration, or of an older one, takes the lease for a second.
fn takes(shared: &Model, holder: u64, newest: bool, now_ms: i64) -> bool {
    let candidate = Candidate { holder, turn: 1, newest };
    take_lease(shared, &names(), Duty::Sync, candidate, now_ms, now_ms + 1_000).is_some()
}

#[test]
fn one_worker_at_a_time_holds_the_lease() {
    let shared = Model::default();
    assert!(takes(&shared, 1, true, 0));
    assert!(takes(&shared, 1, true, 500));
    assert!(!takes(&shared, 2, true, 1_000));
    assert!(takes(&shared, 2, true, 1_501), "the first one is gone");
    assert!(!takes(&shared, 1, true, 1_502));
    assert!(takes(&shared, 1, true, -100_000), "the clock was set back");
    give_up_lease(&shared, &names(), Duty::Sync, 2, -100_000);
    assert!(!takes(&shared, 2, true, -100_000), "another worker's lease cannot be given up");
    give_up_lease(&shared, &names(), Duty::Sync, 1, -100_000);
    assert!(takes(&shared, 2, true, -100_000));
}

#[test]
fn a_newer_configuration_takes_the_lease_at_once_and_an_older_one_only_later() {
    let shared = Model::default();
    assert_eq!(turn(&shared, &names(), 77), 1);
    assert_eq!(turn(&shared, &names(), 77), 1, "the same configuration in another worker");
    assert!(takes(&shared, 1, true, 0));
    assert_eq!(turn(&shared, &names(), 78), 2);
    assert_eq!(newest_turn(&shared, &names()), 2);
    assert!(!takes(&shared, 1, false, 500), "an older configuration renews nothing");
    let newer = Candidate { holder: 2, turn: 2, newest: true };
    let taken = take_lease(&shared, &names(), Duty::Sync, newer, 500, 1_500);
    assert!(taken.is_some(), "a newer one takes the lease at once");
    assert!(takes(&shared, 2, true, 1_001));
    assert!(!takes(&shared, 1, false, 4_000));
    assert!(takes(&shared, 1, false, 4_002), "no worker of the newer one is there");
    assert!(!takes(&shared, 2, true, 4_003));
}

#[test]
fn numbers_of_a_lease_grow() {
    let shared = Model::default();
    let take = |holder, now_ms| {
        let candidate = Candidate { holder, turn: 1, newest: true };
        take_lease(&shared, &names(), Duty::Sync, candidate, now_ms, now_ms + 1_000)
    };
    let numbers = [take(1, 0), take(1, 10), take(2, 20), take(2, 2_000)];
    assert_eq!(numbers, [Some(1), Some(2), None, Some(3)]);
}

#[test]
fn campaigns_keep_their_accounts_and_slots_are_used_again() {
    let shared = Model::default();
    let (a, b, c) = (id("a"), id("b"), id("c"));
    assign_accounts(&shared, &names(), &[&a, &b], 2);
    let first = account_keys(&shared, &names());
    assign_accounts(&shared, &names(), &[&c, &b], 2);
    let second = account_keys(&shared, &names());
    assert_eq!(second.get("b"), first.get("b"));
    assert_eq!(second.get("c"), first.get("a"), "the slot nobody wants any more");
    assign_accounts(&shared, &names(), &[&b, &c, &a], 2);
    assert_eq!(account_keys(&shared, &names()), second, "beyond the capacity there is none");
}

#[test]
fn changes_of_two_workers_are_both_there() {
    let shared = Model::default();
    let key = names().unconfirmed();
    let mut retries = 0;
    // The second worker writes between the first one's read and write, once.
    let mut interfered = false;
    let _ = update_account(&shared, &key, 7, &mut retries, |account| {
        account.issued += 1;
        if !interfered {
            interfered = true;
            let _ = update_account(&shared, &key, 7, &mut 0, |account| account.issued += 10);
        }
    });
    assert_eq!(account(&shared, &key, 7).unwrap().issued, 11);
    assert_eq!(retries, 1);
}

#[test]
fn the_number_of_keys_is_a_constant() {
    let shared = Model::default();
    let table = Duplicates::new(&names(), 4 * SHARD_BYTES);
    for hash in 1..10_000_u64 {
        let spread = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        table.insert(&shared, spread, &mut 0);
        assert!(table.contains(&shared, spread));
    }
    assert_eq!(table.filled(&shared, 0, table.shards()), 4 * SHARD_BYTES / 8, "full");
    assert_eq!(shared.keys(), 4);
    assert!(!Duplicates::new(&names(), 0).contains(&shared, 1));
}
