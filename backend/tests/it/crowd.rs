//! Users who do not give up, and what they were promised.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use crate::world::World;

/// Requests at once.
const AT_ONCE: usize = 40;

/// Between two requests of one user who holds nothing.
const PATIENCE: Duration = Duration::from_millis(100);

/// A user who has heard nothing final after so many requests will not.
const TRIES: usize = 1_000;

/// Users `user-0` and so on.
#[derive(Default)]
pub(crate) struct Crowd {
    /// Users and the codes that 201 told them.
    won: Mutex<BTreeSet<(String, String)>>,
}

impl Crowd {
    /// These users ask until they are told for good; every other request goes to another backend.
    pub(crate) async fn ask(&self, world: &World, users: Range<usize>) {
        stream::iter(users).for_each_concurrent(AT_ONCE, async |user| self.ask_as(world, user).await).await;
    }

    async fn ask_as(&self, world: &World, number: usize) {
        let user = format!("user-{number}");
        for attempt in 0..TRIES {
            let reply = world.issue((number + attempt) % world.backends.len(), "spring", &user).await;
            match reply.told() {
                "issued" => {
                    let code = reply.coupon()["code"].as_str().unwrap().to_owned();
                    self.won.lock().unwrap().insert((user, code));
                    return;
                }
                "already_issued" | "sold_out" => return,
                "pending" | "busy" | "unavailable" => tokio::time::sleep(PATIENCE).await,
                _ => panic!("{reply:?}"),
            }
        }
        panic!("{user} was told nothing final");
    }

    /// Fails unless the quota is issued to as many users under the numbers 1 to `quota`, and each 201 has its row.
    pub(crate) async fn assert_issued(&self, world: &World, quota: usize) {
        world.assert_issued("spring", quota).await;
        let rows: BTreeSet<_> = world.audit("spring").await.into_iter().map(|(_, user, code)| (user, code)).collect();
        let won = self.won.lock().unwrap();
        let broken: Vec<_> = won.difference(&rows).collect();
        assert!(broken.is_empty(), "told with 201 and not there: {broken:?}");
        assert!(!won.is_empty(), "nobody was told 201");
    }
}

/// Two backends with short deadlines over this Redis, and a campaign that both know.
pub(crate) async fn open_campaign(world: &mut World, redis_url: String, quota: usize) {
    world.hurried = true;
    let shared = std::mem::replace(&mut world.redis_url, redis_url);
    world.start().await;
    world.start().await;
    world.redis_url = shared;
    world.put(0, "spring", &world.open(quota).await).await;
    crate::world::eventually("the second backend's notice", async || {
        (world.get(1, "/v1/coupon/count?campaign=spring", "").await.status == 200).then_some(())
    })
    .await;
}

/// A counter of all backends.
pub(crate) async fn counted(world: &World, name: &str) -> f64 {
    let mut sum = 0.0;
    for backend in &world.backends {
        let metrics = world.http.get(format!("{}/metrics", backend.ops)).send().await.unwrap().text().await.unwrap();
        let values = metrics.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
        sum += values.map(|(_, value)| value.parse::<f64>().unwrap()).sum::<f64>();
    }
    sum
}
