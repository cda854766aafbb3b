use super::*;
use crate::host::model::Model;

fn id(text: &str) -> CampaignId {
    CampaignId::parse(text).unwrap()
}

#[test]
fn a_ledger_is_read_as_it_was_written() {
    let mut ledger = Ledger::new(7);
    ledger.version = 3;
    ledger.round = Some("2026-05-01".parse().unwrap());
    ledger.quota = Some(100);
    ledger.issued = 57;
    ledger.reserved_by_others = 60;
    ledger.sold_out = true;
    ledger.pending = 1;
    ledger.pending_asked = 2;
    ledger.held_when_asked = 3;
    ledger.boundary_ms = -4;
    ledger.boundary_used = 5;
    ledger.probed_ms = 6;
    ledger.admitted[15] = TimeSlot { number: i64::MAX, count: 9 };
    ledger.held[7] = TimeSlot { number: 1, count: 2 };
    let bytes = write_ledger(&ledger);
    assert_eq!(read_ledger(&bytes), Some(ledger));
    assert_eq!(read_ledger(&bytes[..bytes.len() - 1]), None);
    assert_eq!(read_ledger(&[]), None);
    assert_eq!(read_ledger(&write_ledger(&Ledger::new(1))), Some(Ledger::new(1)));
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
fn campaigns_keep_their_ledgers_and_slots_are_used_again() {
    let shared = Model::default();
    let (a, b, c) = (id("a"), id("b"), id("c"));
    assign_ledgers(&shared, &[&a, &b], 2);
    let first = ledger_keys(&shared);
    assign_ledgers(&shared, &[&c, &b], 2);
    let second = ledger_keys(&shared);
    assert_eq!(second.get("b"), first.get("b"));
    assert_eq!(second.get("c"), first.get("a"), "the slot nobody wants any more");
    assign_ledgers(&shared, &[&b, &c, &a], 2);
    assert_eq!(ledger_keys(&shared), second, "beyond the capacity there is none");
}

#[test]
fn changes_of_two_workers_are_both_there() {
    let shared = Model::default();
    let key = LedgerKey::unknown();
    let mut retries = 0;
    // The second worker writes between the first one's read and write, once.
    let mut interfered = false;
    let _ = update_ledger(&shared, &key, 7, &mut retries, |ledger| {
        ledger.issued += 1;
        if !interfered {
            interfered = true;
            let _ = update_ledger(&shared, &key, 7, &mut 0, |ledger| ledger.issued += 10);
        }
    });
    assert_eq!(ledger(&shared, &key, 7).unwrap().issued, 11);
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
