//! Bounds: what a crowd, or clients that go away, may cost.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::door::{Door, door};
use crate::world::{ADMIN_TOKEN, Reply, World, eventually, id, in_world};

/// Sends an issue request; the connection is the only one who waits for its reply.
async fn send(world: &World, at: usize, user: &str) -> TcpStream {
    let address = world.backends[at].public.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("POST /v1/coupon/issue?campaign=spring HTTP/1.1\r\nhost: x\r\nx-user-id: {user}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Waits for the round's row, which is there once the round is warm, and holds it.
async fn hold_round(world: &World) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut row = world.pool.begin().await.unwrap();
    eventually("the warmed round", async || {
        let held = sqlx::query("SELECT 1 FROM rounds FOR UPDATE").execute(&mut *row).await.unwrap();
        (held.rows_affected() == 1).then_some(())
    })
    .await;
    row
}

async fn pending(world: &World) -> u64 {
    world.redis().count(&id("spring"), world.today().await).await.unwrap().pending
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_takes_no_commit_with_it() {
    in_world(async |world| {
        // The sweeper is too patient to be the one who commits.
        let (url, door) = door(&world.redis_url).await;
        let direct = std::mem::replace(&mut world.redis_url, url);
        let at = world.start().await;
        world.redis_url = direct;
        world.put(at, "spring", &world.open(10).await).await;
        assert_eq!(world.issue(at, "spring", "first").await.told(), "issued");

        // It goes while Redis has reserved its place and the backend has not heard so yet.
        door.send_replace(Door::OneWay);
        let client = send(world, at, "ann").await;
        eventually("the place", async || (pending(world).await == 1).then_some(())).await;
        drop(client);
        // Whoever heeds it has had time to notice; whoever does not loses nothing by it.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        door.send_replace(Door::Open);
        eventually("ann's coupon", async || (world.audit("spring").await.len() == 2).then_some(())).await;

        // And while PostgreSQL commits.
        let row = hold_round(world).await;
        let client = send(world, at, "bob").await;
        eventually("the place", async || (pending(world).await == 1).then_some(())).await;
        drop(client);
        row.rollback().await.unwrap();
        eventually("bob's coupon", async || (world.audit("spring").await.len() == 3).then_some(())).await;
        eventually("settled", async || (pending(world).await == 0).then_some(())).await;
        world.assert_issued("spring", 3).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_go_away_keep_their_places_until_their_commits_end() {
    in_world(async |world| {
        let at = world.start_with("max_in_flight = 2").await;
        world.put(at, "spring", &world.open(10).await).await;
        // The round's row is there before Redis knows the round: nothing but commits shall wait for it.
        assert_eq!(world.issue(at, "spring", "first").await.told(), "issued");
        eventually("settled", async || (pending(world).await == 0).then_some(())).await;
        let row = hold_round(world).await;
        for count in 1..=2 {
            let client = send(world, at, &format!("user-{count}")).await;
            eventually("the place", async || (pending(world).await == count).then_some(())).await;
            drop(client);
        }
        for n in 0..50 {
            let refused = world.issue(at, "spring", &format!("late-{n}")).await;
            assert_eq!((refused.status.as_u16(), refused.told()), (503, "unavailable"));
            assert!(["1", "2", "3"].contains(&refused.header("retry-after")), "{refused:?}");
        }
        assert_eq!(pending(world).await, 2, "over the bound nothing is reserved");
        row.rollback().await.unwrap();
        eventually("free places", async || (world.issue(at, "spring", "ann").await.told() == "issued").then_some(()))
            .await;
        world.assert_issued("spring", 4).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operations_listener_is_bounded_too() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(10).await).await;
        let mut row = world.pool.begin().await.unwrap();
        sqlx::query("SELECT 1 FROM campaigns FOR UPDATE").execute(&mut *row).await.unwrap();
        let ops = &world.backends[at].ops;
        let ask = || world.http.post(format!("{ops}/admin/v1/campaigns/spring/pause")).bearer_auth(ADMIN_TOKEN).send();
        let pause = || async { Reply::of(ask().await.unwrap()).await };
        // These wait for the campaign's lock, or for a connection to wait with.
        let waiting = futures_util::future::join_all((0..256).map(|_| pause()));
        let (replies, ()) = tokio::join!(waiting, async {
            eventually("a full house", async || {
                let metrics = world.http.get(format!("{ops}/metrics")).send().await.unwrap();
                let full = metrics.headers().contains_key("retry-after");
                if !full {
                    // It had a place, which may be the one for which somebody else was turned away.
                    tokio::spawn(ask());
                }
                full.then_some(())
            })
            .await;
            let refused = pause().await;
            assert_eq!(refused.told(), "unavailable");
            assert!(["1", "2", "3"].contains(&refused.header("retry-after")), "{refused:?}");
            assert_eq!(world.http.get(format!("{ops}/livez")).send().await.unwrap().status(), 200);
            row.rollback().await.unwrap();
        });
        assert!(replies.iter().all(|reply| [200, 503].contains(&reply.status.as_u16())));
        eventually("readiness", async || {
            let ready = world.http.get(format!("{ops}/readyz")).send().await.unwrap();
            ready.status().is_success().then_some(())
        })
        .await;
    })
    .await;
}
