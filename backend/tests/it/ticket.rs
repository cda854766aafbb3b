//! Tickets: who may pass without one, and which hold.

use doorbuster_domain::ticket::{Admitted, ROUND_HEADER, TICKET_HEADER, mint};
use reqwest::StatusCode;

use crate::world::{Reply, World, id, in_world, user};

const SECRET: &str = "the-present-secret";
const OLD_SECRET: &str = "the-former-secret-";
const SECRETS: &str = "ticket_secret = \"the-present-secret\"\nticket_secret_old = \"the-former-secret-\"";

struct Ticket<'a> {
    secret: &'a str,
    round: &'a str,
    user: &'a str,
    age_ms: i64,
}

const GOOD: Ticket<'_> = Ticket { secret: SECRET, round: "", user: "ann", age_ms: 0 };

impl Ticket<'_> {
    async fn mint(&self, world: &World) -> String {
        let (campaign, user) = (id("spring"), user(self.user));
        let admitted = Admitted { campaign: &campaign, round: self.round, user: &user };
        mint(self.secret.as_bytes(), &admitted, world.now().await.timestamp_millis() - self.age_ms, 7)
    }
}

/// `ann` asks with this ticket and this round.
async fn ask(world: &World, at: usize, ticket: Option<&str>, round: Option<&str>) -> Reply {
    let url = format!("{}/v1/coupon/issue?campaign=spring", world.backends[at].public);
    let mut request = world.http.post(url).header("x-user-id", "ann");
    for (name, value) in [(TICKET_HEADER, ticket), (ROUND_HEADER, round)] {
        if let Some(value) = value {
            request = request.header(name, value);
        }
    }
    Reply::of(request.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn required_tickets_must_hold() {
    in_world(async |world| {
        let at = world.start_with(&format!("ticket = \"require\"\n{SECRETS}")).await;
        world.put(at, "spring", &world.open(5).await).await;
        let forged = GOOD.mint(world).await.replace("v1.", "v1.1");
        let unticketed = [
            (None, None),
            (Some("v1".to_owned()), None),
            (Some(forged), None),
            (Some(Ticket { secret: "another-secret-altogether", ..GOOD }.mint(world).await), None),
            (Some(Ticket { user: "bob", ..GOOD }.mint(world).await), None),
            (Some(Ticket { age_ms: 40_000, ..GOOD }.mint(world).await), None),
            (Some(Ticket { age_ms: -40_000, ..GOOD }.mint(world).await), None),
            (Some(GOOD.mint(world).await), Some("2026-05-01")),
        ];
        for (ticket, round) in unticketed {
            let reply = ask(world, at, ticket.as_deref(), round).await;
            assert_eq!((reply.status, reply.told()), (StatusCode::UNAUTHORIZED, "unticketed"), "{ticket:?} {reply:?}");
        }
        world.assert_issued("spring", 0).await;
        // An edge that does not know the round, one that is a round behind, and one that has the old secret still.
        for ticket in
            [GOOD, Ticket { round: "2020-01-01", ..GOOD }, Ticket { secret: OLD_SECRET, age_ms: 20_000, ..GOOD }]
        {
            let round = Some(ticket.round).filter(|round| !round.is_empty());
            let reply = ask(world, at, Some(&ticket.mint(world).await), round).await;
            assert!(matches!(reply.told(), "issued" | "already_issued"), "{reply:?}");
        }
        world.assert_issued("spring", 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn preferred_tickets_are_counted_and_ignored_ones_are_not_looked_at() {
    in_world(async |world| {
        let prefer = world.start_with(&format!("ticket = \"prefer\"\n{SECRETS}")).await;
        let ignore = world.start().await;
        world.put(prefer, "spring", &world.open(5).await).await;
        assert_eq!(ask(world, prefer, None, None).await.status, StatusCode::CREATED);
        let metrics = async |at: usize| {
            let url = format!("{}/metrics", world.backends[at].ops);
            world.http.get(url).send().await.unwrap().text().await.unwrap()
        };
        assert!(metrics(prefer).await.contains("doorbuster_unticketed_total 1"));
        crate::world::eventually("the campaign", async || {
            (ask(world, ignore, Some("v1"), None).await.told() == "already_issued").then_some(())
        })
        .await;
        assert!(metrics(ignore).await.contains("doorbuster_unticketed_total 0"));
    })
    .await;
}
