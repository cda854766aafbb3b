//! Tickets: proof that a request came through a gateway.

use axum::http::HeaderMap;
use doorbuster_domain::id::{CampaignId, UserId};
use doorbuster_domain::refusal::{Problem, Refusal};
use doorbuster_domain::ticket::{self, Admitted, ROUND_HEADER, TICKET_HEADER, Unticketed};

use super::App;
use super::error::Error;
use crate::config::TicketMode;

/// Looks at a request's ticket, as the configuration has it.
pub(super) async fn check(app: &App, headers: &HeaderMap, campaign: &CampaignId, user: &UserId) -> Result<(), Error> {
    if app.config.ticket == TicketMode::Ignore {
        return Ok(());
    }
    let now_ms = app.issuance.now().await?.now_ms;
    let Err(fault) = holds(app, headers, campaign, user, now_ms) else { return Ok(()) };
    app.metrics.unticketed.inc();
    tracing::debug!(%fault, %campaign, "a request without a ticket that holds");
    match app.config.ticket {
        TicketMode::Require => {
            app.metrics.count_refusal(Refusal::Unticketed);
            Err(Problem::about(Refusal::Unticketed, campaign).into())
        }
        TicketMode::Prefer | TicketMode::Ignore => Ok(()),
    }
}

fn holds(app: &App, headers: &HeaderMap, campaign: &CampaignId, user: &UserId, now_ms: i64) -> Result<(), Unticketed> {
    // The round is what the edge says it is: a ticket proves the admission, the clock here decides the round.
    let round = headers.get(ROUND_HEADER).map_or(Ok(""), |round| round.to_str().map_err(|_| Unticketed::Malformed))?;
    let ticket = headers.get(TICKET_HEADER).and_then(|ticket| ticket.to_str().ok()).ok_or(Unticketed::Malformed)?;
    let secrets = app.config.ticket_secrets.iter().map(|secret| secret.expose().as_bytes());
    ticket::check(ticket, secrets, &Admitted { campaign, round, user }, now_ms)
}
