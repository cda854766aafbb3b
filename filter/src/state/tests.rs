use super::*;
use crate::host::model::Model;

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
    account.pending_asked = 2;
    account.held_when_asked = 3;
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
    let first = process(&shared, [1, 2, 3, 4]);
    assert_eq!(process(&shared, [5, 6, 7, 8]), first);
    assert_eq!(first.gateway.len(), 32);
}

#[test]
fn one_worker_at_a_time_holds_the_lease() {
    let shared = Model::default();
    assert!(take_lease(&shared, 1, 0, 1_000));
    assert!(take_lease(&shared, 1, 500, 1_500));
    assert!(!take_lease(&shared, 2, 1_000, 2_000));
    assert!(take_lease(&shared, 2, 1_501, 2_501), "the first one is gone");
    assert!(!take_lease(&shared, 1, 1_502, 2_502));
    assert!(take_lease(&shared, 1, -100_000, -99_000), "the clock was set back");
}

#[test]
fn campaigns_keep_their_accounts_and_slots_are_used_again() {
    let shared = Model::default();
    let (a, b, c) = (id("a"), id("b"), id("c"));
    assign_accounts(&shared, &[&a, &b], 2);
    let first = account_keys(&shared);
    assign_accounts(&shared, &[&c, &b], 2);
    let second = account_keys(&shared);
    assert_eq!(second.get("b"), first.get("b"));
    assert_eq!(second.get("c"), first.get("a"), "the slot nobody wants any more");
    assign_accounts(&shared, &[&b, &c, &a], 2);
    assert_eq!(account_keys(&shared), second, "beyond the capacity there is none");
}

#[test]
fn changes_of_two_workers_are_both_there() {
    let shared = Model::default();
    let key = AccountKey::unconfirmed();
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
    let table = Duplicates::new(4 * SHARD_BYTES);
    for hash in 1..10_000_u64 {
        let spread = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        table.insert(&shared, spread, &mut 0);
        assert!(table.contains(&shared, spread));
    }
    assert_eq!(table.filled(&shared, 0, table.shards()), 4 * SHARD_BYTES / 8, "full");
    assert_eq!(shared.keys(), 4);
    assert!(!Duplicates::new(0).contains(&shared, 1));
}
