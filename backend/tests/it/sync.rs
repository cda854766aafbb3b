//! The gateways' sync.

use doorbuster_domain::wire::{SYNC_PATH, SyncResponse};
use serde_json::{Value, json};

use crate::world::{EDGE_TOKEN, Reply, World, campaign, in_world};

pub(crate) async fn sync_raw(world: &World, at: usize, body: String) -> Reply {
    let url = format!("{}{SYNC_PATH}", world.backends[at].ops);
    Reply::of(world.http.post(url).bearer_auth(EDGE_TOKEN).body(body).send().await.unwrap()).await
}

pub(crate) async fn sync(world: &World, at: usize, gateway: &str, max_campaigns: u32) -> SyncResponse {
    let reply = sync_raw(world, at, json!({"gateway": gateway, "max_campaigns": max_campaigns}).to_string()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    serde_json::from_value(reply.body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_tells_the_clock_the_gateways_and_the_campaigns() {
    in_world(async |world| {
        let at = world.start().await;
        let other = world.start().await;
        world.put(at, "a-later", &campaign(world.daily("00:00", "24:00", 2, 4).await, json!(7))).await;
        world.put(at, "b-ended", &campaign(world.daily("00:00", "24:00", -4, -2).await, json!(7))).await;
        world.put(at, "spring", &world.open(5).await).await;
        world.issue(at, "spring", "ann").await;
        crate::recovery::reserve_and_die(world, &world.redis(), "bob").await;

        let told = sync(world, at, "gateway-1", 100).await;
        let now_ms = world.now().await.timestamp_millis();
        assert!((told.now_ms - now_ms).abs() < 2_000 && told.uncertainty_ms < 250, "{told:?}");
        assert!(told.complete);
        let ids: Vec<_> = told.campaigns.iter().map(|campaign| campaign.id.as_str()).collect();
        assert_eq!(ids, ["spring", "a-later", "b-ended"], "nearest round first");
        let spring = &told.campaigns[0];
        assert_eq!((spring.issued, spring.reserved, spring.quota), (1, 2, Some(5)));
        assert_eq!(spring.round, Some(world.today().await));
        assert!(spring.version > 0 && !spring.paused && !spring.timetable.more);
        assert_eq!(told.campaigns[2].round, None);

        assert_eq!(told.gateways, 1);
        // Another gateway that asks another backend is counted too.
        assert_eq!(sync(world, other, "gateway-2", 100).await.gateways, 2);
        let short = sync(world, at, "gateway-1", 1).await;
        assert_eq!((short.gateways, short.complete, short.campaigns.len()), (2, false, 1));
        crate::world::eventually("the silent gateway's end", async || {
            (sync(world, at, "gateway-1", 1).await.gateways == 1).then_some(())
        })
        .await;

        // Issued counts never fall, also when Redis knows nothing and the backend is a new one.
        let new = world.start().await;
        world.forget_redis().await;
        for at in [at, new] {
            let told = sync(world, at, "gateway-1", 1).await;
            assert!(told.campaigns[0].issued >= 1, "{told:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_makes_no_sense_is_refused() {
    in_world(async |world| {
        let at = world.start().await;
        for (body, status) in [
            (String::new(), 400),
            ("{".to_owned(), 400),
            (json!([]).to_string(), 422),
            (json!({"gateway": "g"}).to_string(), 422),
            (json!({"gateway": "", "max_campaigns": 1}).to_string(), 422),
            (json!({"gateway": "G!", "max_campaigns": 1}).to_string(), 422),
            (json!({"gateway": "g".repeat(65), "max_campaigns": 1}).to_string(), 422),
            (json!({"gateway": "g", "max_campaigns": -1}).to_string(), 422),
            (json!({"gateway": "g", "max_campaigns": 1, "newer": Value::Null}).to_string(), 200),
        ] {
            assert_eq!(sync_raw(world, at, body.clone()).await.status, status, "{body}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_are_added_once_however_often_and_wherever_they_are_told() {
    in_world(async |world| {
        let (at, other) = (world.start().await, world.start().await);
        world.put(at, "spring", &world.open(5).await).await;
        let round = world.today().await.to_string();
        let tell = async |at: usize, gateway: &str, campaign: &str, round: &str, decisions: Value| {
            let totals = json!([{"campaign": campaign, "round": round, "decisions": decisions}]);
            let body = json!({"gateway": gateway, "max_campaigns": 1, "totals": totals});
            assert_eq!(sync_raw(world, at, body.to_string()).await.status, 200);
        };
        crate::world::eventually("the campaign", async || {
            (!sync(world, other, "gateway-1", 1).await.campaigns.is_empty()).then_some(())
        })
        .await;
        tell(at, "gateway-1", "spring", &round, json!({"admitted": 2, "sold_out": 10})).await;
        tell(other, "gateway-1", "spring", &round, json!({"admitted": 2, "sold_out": 10})).await;
        tell(other, "gateway-1", "spring", &round, json!({"admitted": 3, "sold_out": 15})).await;
        tell(at, "gateway-2", "spring", &round, json!({"sold_out": 100})).await;
        // What is no round or no decision adds nothing.
        tell(at, "gateway-1", "autumn", &round, json!({"admitted": 7})).await;
        tell(at, "gateway-1", "spring", "2001-01-01", json!({"admitted": 7})).await;
        tell(at, "gateway-1", "spring", &round, json!({"anything": 7})).await;
        let told = world.admin(at, reqwest::Method::GET, &format!("/spring/rounds/{round}"), None).await;
        assert_eq!(told.body["edge"], json!({"admitted": 3, "sold_out": 115}));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flash_drop_is_in_a_sync_that_has_no_place_for_all() {
    in_world(async |world| {
        let at = world.start().await;
        let all_day = world.open(5).await;
        for n in 0..5 {
            world.put(at, &format!("all-day-{n}"), &all_day).await;
        }
        // In its zone it is between 12:00 and 13:00.
        world.put(at, "flash", &campaign(world.daily("12:00", "13:30", 0, 0).await, json!(5))).await;
        let told = sync(world, at, "gateway-1", 2).await;
        assert_eq!((told.campaigns.len(), told.complete), (2, false));
        assert_eq!(told.campaigns[0].id.as_str(), "flash");
    })
    .await;
}
