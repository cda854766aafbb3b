//! Redis fails over to a replica that lags behind.

use doorbuster_e2e::Proxy;

use crate::crowd::{Crowd, counted, open_campaign};
use crate::nodes::Nodes;
use crate::world::{eventually, in_world};

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lags_is_promoted_in_the_rush() {
    let mut nodes = Nodes::new();
    let primary = nodes.start(&[]);
    // Backends keep one address, whoever answers there.
    let address = Proxy::to(nodes.ports[primary]).unwrap();
    let link = Proxy::to(nodes.ports[primary]).unwrap();
    let replica = nodes.start(&[["--replicaof", &format!("127.0.0.1 {}", link.port())]]);
    nodes.until_in_sync(replica).await;
    in_world(async |world| {
        open_campaign(world, format!("redis://127.0.0.1:{}", address.port()), 500).await;
        let crowd = Crowd::default();
        crowd.ask(world, 0..150).await;
        let key = format!("{}:{{spring}}:{}", world.name, world.today().await);
        eventually("the replica's share", async || {
            let next: Option<u64> = nodes.ask(replica, &["HGET", &key, "next"]).await.unwrap();
            (next == Some(150)).then_some(())
        })
        .await;

        drop(link);
        nodes.until_cut_off(replica).await;
        crowd.ask(world, 150..300).await;
        let fail_over = async {
            nodes.kill(primary);
            let next: u64 = nodes.ask(replica, &["HGET", &key, "next"]).await.unwrap();
            assert_eq!(next, 150, "the replica has not seen what was issued since");
            nodes.tell(replica, &["REPLICAOF", "NO", "ONE"]).await;
            address.lead_to(nodes.ports[replica]);
        };
        // Among them all who were served since: they are told of the coupon they have.
        tokio::join!(crowd.ask(world, 150..700), fail_over);
        crowd.ask(world, 0..700).await;
        crowd.assert_issued(world, 500).await;
        assert!(counted(world, "doorbuster_conflicts").await > 0.0, "PostgreSQL contradicted nothing");
    })
    .await;
}
