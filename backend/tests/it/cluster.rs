//! Redis Cluster: slots that move, nodes that die, replicas that take over.

use std::time::Duration;

use doorbuster_backend::store::redis::Redis;
use doorbuster_domain::id::RoundId;
use serde_json::{Value, json};

use crate::crowd::{Crowd, counted, open_campaign};
use crate::nodes::{Nodes, PRIMARIES};
use crate::world::{World, eventually, id, in_world};

/// The store behind the backends, for a test that plays a backend.
fn redis(world: &World, nodes: &Nodes) -> Redis {
    Redis::new(&nodes.url(), None, &world.name, Duration::from_secs(5)).unwrap()
}

/// A campaign's name for each of the nodes.
async fn names(nodes: &Nodes) -> Vec<String> {
    let mut names = vec![None; PRIMARIES];
    for n in 0.. {
        let name = format!("campaign-{n}");
        names[nodes.home(&name).await].get_or_insert(name);
        if names.iter().all(Option::is_some) {
            break;
        }
    }
    names.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn campaigns_are_spread_over_the_nodes() {
    let mut nodes = Nodes::cluster().await;
    in_world(async |world| {
        open_campaign(world, nodes.url(), 500).await;
        let names = names(&nodes).await;
        for name in &names {
            world.put(0, name, &world.open(5).await).await;
            eventually("a coupon", async || {
                let told = world.issue(1, name, "ann").await;
                ["issued", "already_issued"].contains(&told.told()).then_some(())
            })
            .await;
        }
        let (store, today) = (redis(world, &nodes), world.today().await);
        let ids: Vec<_> = names.iter().map(|name| id(name)).collect();
        let asked: Vec<_> = ids.iter().map(|id| (id, today)).collect();
        eventually("settling on every node", async || {
            let counts = store.counts(&asked).await.unwrap();
            counts.iter().all(|counts| counts.is_some_and(|counts| counts.warm && counts.committed == 1)).then_some(())
        })
        .await;
        for (at, name) in names.iter().enumerate() {
            let keys: Vec<String> = nodes.ask(at, &["KEYS", &format!("{}:{{{name}}}:*", world.name)]).await.unwrap();
            assert!(!keys.is_empty(), "{name} has nothing at node {at}");
        }
        let (code, table, error) = crate::audit::run_audit(world, &nodes.url(), &[&names[1]]).await;
        assert!(code == 0 && table.contains("Everything fits."), "{table}{error}");

        // One node that evicts is enough.
        let ready = async || {
            let reply = world.http.get(format!("{}/readyz", world.backends[0].ops)).send().await.unwrap();
            (reply.status().as_u16(), reply.json::<Value>().await.unwrap()["redis"].as_str().unwrap().to_owned())
        };
        assert_eq!(ready().await, (200, "ok".to_owned()));
        nodes.tell(2, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
        let (status, told) = ready().await;
        let expected = format!("maxmemory-policy is allkeys-lru at 127.0.0.1:{}", nodes.ports[2]);
        assert!(status == 503 && told.starts_with(&expected), "{told}");
        nodes.tell(2, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;

        // What one node forgets, that node's campaigns are rebuilt from.
        nodes.tell(1, &["FLUSHALL"]).await;
        assert_eq!(world.issue(0, &names[1], "ann").await.told(), "already_issued");
        assert_eq!(world.issue(0, &names[1], "bob").await.coupon()["number"], 2);

        // What one node holds does not keep the others' campaigns from anybody.
        nodes.kill(2);
        assert_eq!(world.issue(0, &names[2], "bob").await.told(), "unavailable");
        assert_eq!(world.issue(0, &names[0], "bob").await.told(), "issued");
        assert_eq!(ready().await.0, 200);
        let known = store.counts(&asked).await.unwrap();
        assert_eq!(known.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(crate::sync::sync(world, 0, "gateway-1", 100).await.campaigns.len(), 1 + PRIMARIES);
        for name in &names {
            assert_eq!(world.get(0, &format!("/v1/coupon/count?campaign={name}"), "").await.status, 200, "{name}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_sync_although_a_node_is_away() {
    let mut nodes = Nodes::cluster().await;
    in_world(async |world| {
        open_campaign(world, nodes.url(), 5).await;
        // The node that counts gateways holds a campaign too.
        let (lost, names) = (nodes.home("edge").await, names(&nodes).await);
        let kept = &names[(lost + 1) % PRIMARIES];
        for name in [&names[lost], kept] {
            world.put(0, name, &world.open(5).await).await;
        }
        for gateway in ["gateway-1", "gateway-2"] {
            crate::sync::sync(world, 0, gateway, 100).await;
        }
        nodes.kill(lost);
        let totals = |name: &str, today: &str| json!({"campaign": name, "round": today, "decisions": {"admitted": 3}});
        let today = world.today().await.to_string();
        let body = json!({
            "gateway": "gateway-1",
            "max_campaigns": 100,
            "totals": [totals(&names[lost], &today), totals(kept, &today)],
        });
        let told = crate::sync::sync_raw(world, 0, body.to_string()).await;
        assert_eq!((told.status.as_u16(), &told.body["gateways"]), (200, &json!(2)), "{told:?}");
        let added = redis(world, &nodes).edge_totals(&id(kept), world.today().await).await.unwrap();
        assert_eq!(added.get("admitted"), Some(&3), "{added:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaigns_slot_moves_in_the_rush() {
    let nodes = Nodes::cluster().await;
    in_world(async |world| {
        open_campaign(world, nodes.url(), 600).await;
        let crowd = Crowd::default();
        crowd.ask(world, 0..100).await;
        let (slot, home) = (nodes.slot("spring").await, nodes.home("spring").await);
        let other = (home + 1) % PRIMARIES;
        let moves = async {
            for (from, to) in [(home, other), (other, home), (home, other)] {
                nodes.open_slot(slot, from, to).await;
                // The keys are split for a while.
                while nodes.move_keys(slot, from, to, 1).await > 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                nodes.close_slot(slot, from, to).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::join!(crowd.ask(world, 100..800), moves);
        crowd.ask(world, 0..800).await;
        crowd.assert_issued(world, 600).await;
        let count = async |at| {
            let words = ["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()];
            nodes.ask::<usize>(at, &words).await.unwrap()
        };
        assert!(count(home).await == 0 && count(other).await > 0, "the slot did not move");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_have_moved_before_their_slot_are_asked_for() {
    let nodes = Nodes::cluster().await;
    in_world(async |world| {
        let (store, spring) = (redis(world, &nodes), id("spring"));
        let (slot, home) = (nodes.slot("spring").await, nodes.home("spring").await);
        let other = (home + 1) % PRIMARIES;
        assert_eq!(store.raise_version(&spring, 7).await.unwrap(), 7);
        nodes.open_slot(slot, home, other).await;
        assert_eq!(nodes.move_keys(slot, home, other, 100).await, 1);
        // A command, a script that the other node does not know yet, and a transaction.
        assert_eq!(store.version(&spring).await.unwrap(), 7);
        assert_eq!(store.raise_version(&spring, 8).await.unwrap(), 8);
        store.drop_campaign(&spring, &[]).await.unwrap();
        assert_eq!(nodes.move_keys(slot, home, other, 100).await, 0, "something was written where it has moved from");

        // With some of a round's keys here and some there, nothing is decided.
        let today: RoundId = world.today().await;
        let error = store.count(&spring, today).await.unwrap_err();
        assert!(error.to_string().contains("TryAgain"), "{error}");
        nodes.close_slot(slot, home, other).await;
        assert_eq!(store.version(&spring).await.unwrap(), 8);
        assert!(!store.count(&spring, today).await.unwrap().warm);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_killed_in_the_rush_and_comes_back() {
    let mut nodes = Nodes::cluster().await;
    in_world(async |world| {
        open_campaign(world, nodes.url(), 500).await;
        let crowd = Crowd::default();
        crowd.ask(world, 0..100).await;
        let home = nodes.home("spring").await;
        let outage = async {
            nodes.kill(home);
            tokio::time::sleep(Duration::from_millis(500)).await;
            nodes.restart(home);
        };
        tokio::join!(crowd.ask(world, 100..700), outage);
        crowd.ask(world, 0..700).await;
        crowd.assert_issued(world, 500).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lags_takes_over_in_the_rush() {
    let mut nodes = Nodes::cluster().await;
    let home = nodes.home("spring").await;
    let replica = nodes.add_replica(home).await;
    in_world(async |world| {
        open_campaign(world, nodes.url(), 500).await;
        let crowd = Crowd::default();
        crowd.ask(world, 0..150).await;
        let reached: u64 = nodes.ask(home, &["WAIT", "1", "30000"]).await.unwrap();
        assert_eq!(reached, 1);
        nodes.cut_replicas_off(home).await;
        nodes.until_cut_off(replica).await;
        crowd.ask(world, 150..300).await;
        let fail_over = async {
            nodes.kill(home);
            // The other nodes notice, and elect the replica.
            nodes.until_says(replica, &["INFO", "replication"], "role:master").await;
        };
        tokio::join!(crowd.ask(world, 150..700), fail_over);
        crowd.ask(world, 0..700).await;
        crowd.assert_issued(world, 500).await;
        assert!(counted(world, "doorbuster_conflicts").await > 0.0, "PostgreSQL contradicted nothing");
    })
    .await;
}
