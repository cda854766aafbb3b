//! A user's own coupons, page by page, and the codes by which they are asked for.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::redeem::win;
use crate::world::{World, in_world};

/// Walks through all pages; gives each coupon's code and time, in the order shown.
async fn walk(world: &World, limit: u32) -> Vec<(String, String)> {
    let text = |coupon: &Value, name: &str| coupon[name].as_str().unwrap().to_owned();
    let (mut seen, mut path) = (Vec::new(), format!("/v1/coupons?limit={limit}"));
    loop {
        let page = world.get(0, &path, "ann").await;
        assert_eq!(page.status, 200, "{page:?}");
        let coupons = page.body["coupons"].as_array().unwrap();
        seen.extend(coupons.iter().map(|coupon| (text(coupon, "code"), text(coupon, "issued_at"))));
        let Some(cursor) = page.body["next_cursor"].as_str() else { return seen };
        assert_eq!(coupons.len(), limit as usize, "a page before the last is full");
        path = format!("/v1/coupons?limit={limit}&cursor={cursor}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_neither_skip_nor_repeat_while_coupons_are_issued() {
    in_world(async |world| {
        const BEFORE: usize = 8;
        const CAMPAIGNS: usize = 40;
        world.start().await;
        for n in 0..CAMPAIGNS {
            world.put(0, &format!("campaign-{n}"), &world.open(Value::Null).await).await;
        }
        let world = &*world;
        let issued = Mutex::new(HashSet::new());
        let done = AtomicBool::new(false);
        let issue = async |n: usize| {
            let code = win(world, &format!("campaign-{n}"), "ann").await;
            issued.lock().unwrap().insert(code);
        };
        for n in 0..BEFORE {
            issue(n).await;
        }
        let issuing = async {
            // By fours, so that they are not committed in the order in which they are reserved.
            for n in (BEFORE..CAMPAIGNS).step_by(4) {
                tokio::join!(issue(n), issue(n + 1), issue(n + 2), issue(n + 3));
            }
            done.store(true, Ordering::Relaxed);
        };
        let listing = async {
            let mut walks = 0;
            loop {
                let last = done.load(Ordering::Relaxed);
                let known: HashSet<String> = issued.lock().unwrap().clone();
                let seen = walk(world, 3).await;
                let codes: HashSet<String> = seen.iter().map(|(code, _)| code.clone()).collect();
                assert_eq!(codes.len(), seen.len(), "one is shown twice: {seen:?}");
                assert!(codes.is_superset(&known), "one is missing: {:?}", known.difference(&codes));
                assert!(seen.is_sorted_by(|(_, one), (_, next)| one >= next), "newest first: {seen:?}");
                walks += 1;
                if last {
                    assert_eq!(codes.len(), CAMPAIGNS);
                    return walks;
                }
            }
        };
        let ((), walks) = tokio::join!(issuing, listing);
        assert!(walks > 1, "nothing was listed while coupons were issued");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_read_however_it_is_written_and_a_typing_error_is_noticed() {
    in_world(async |world| {
        const ALPHABET: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        world.start().await;
        world.put(0, "spring", &world.open(Value::Null).await).await;
        let mut codes = HashSet::new();
        for n in 0..12 {
            let user = format!("user-{n}");
            let code = win(world, "spring", &user).await;
            assert!(code.len() == 12 && code.chars().all(|c| ALPHABET.contains(c)), "{code}");
            for (zero, one) in [("O", "I"), ("o", "L"), ("o", "i"), ("0", "l")] {
                let written = code.replace('0', zero).replace('1', one);
                for written in [written.to_lowercase(), written] {
                    let found = world.get(0, &format!("/v1/coupons/{written}"), &user).await;
                    assert_eq!(found.coupon()["code"], *code, "{written}");
                }
            }
            codes.insert(code);
        }
        assert_eq!(codes.len(), 12);
        let code = codes.iter().next().unwrap();
        for at in 0..12 {
            let mut wrong: Vec<char> = code.chars().collect();
            wrong[at] = if wrong[at] == '7' { '8' } else { '7' };
            let wrong: String = wrong.into_iter().collect();
            let refused = world.get(0, &format!("/v1/coupons/{wrong}"), "ann").await;
            assert_eq!((refused.status.as_u16(), refused.told()), (400, "invalid_code"), "{wrong}");
        }
    })
    .await;
}
