//! The proof of admission: what an edge puts on a request it forwards, and an origin can check.
//!
//! `v1.<issued_ms>.<nonce>.<mac>`, where mac is the base64url (without padding) of HMAC-SHA256 over
//! `"v1\n" campaign "\n" round "\n" user "\n" issued_ms "\n" nonce`. Nonces only make tickets differ; they are not
//! remembered.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::id::{CampaignId, UserId};

/// Name of the request header that carries the ticket.
pub const TICKET_HEADER: &str = "x-doorbuster-ticket";

/// Name of the request header that carries the round; left out, the ticket is for an empty one.
pub const ROUND_HEADER: &str = "x-doorbuster-round";

/// A ticket this much older, or newer, than the clock of whoever checks it does not hold, milliseconds.
pub const LIFETIME_MS: u64 = 30_000;

/// Shortest secret, bytes.
pub const SHORTEST_SECRET: usize = 16;

/// No ticket is longer; what is longer is not looked at.
const LONGEST_TICKET: usize = 256;

/// What a ticket is for.
#[derive(Debug, Clone, Copy)]
pub struct Admitted<'a> {
    /// The campaign.
    pub campaign: &'a CampaignId,
    /// The round, empty where the edge does not know it. An origin's clock decides the round, so it is text here.
    pub round: &'a str,
    /// The user.
    pub user: &'a UserId,
}

/// Why a ticket does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unticketed {
    /// It is none.
    #[error("malformed")]
    Malformed,
    /// No secret that is valid made it, for this campaign, round and user.
    #[error("forged")]
    Forged,
    /// It is too old, or from the future.
    #[error("expired")]
    Expired,
}

/// Makes a ticket at `issued_ms` (Unix milliseconds).
#[must_use]
pub fn mint(secret: &[u8], admitted: &Admitted<'_>, issued_ms: i64, nonce: u64) -> String {
    let issued_ms = issued_ms.to_string();
    let nonce = URL_SAFE_NO_PAD.encode(nonce.to_be_bytes());
    let tag = mac(secret, admitted, &issued_ms, &nonce).finalize().into_bytes();
    format!("v1.{issued_ms}.{nonce}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// Checks a ticket at `now_ms` (Unix milliseconds) against the secrets that are valid: several, while they rotate.
///
/// # Errors
/// [`Unticketed`].
pub fn check<'s>(
    ticket: &str,
    secrets: impl IntoIterator<Item = &'s [u8]>,
    admitted: &Admitted<'_>,
    now_ms: i64,
) -> Result<(), Unticketed> {
    let mut parts =
        Some(ticket).filter(|ticket| ticket.len() <= LONGEST_TICKET).ok_or(Unticketed::Malformed)?.split('.');
    let (Some("v1"), Some(issued_ms), Some(nonce), Some(tag), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Unticketed::Malformed);
    };
    let at_ms: i64 = issued_ms.parse().map_err(|_| Unticketed::Malformed)?;
    let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| Unticketed::Malformed)?;
    // The comparison takes as long whatever differs.
    let genuine = secrets.into_iter().any(|secret| mac(secret, admitted, issued_ms, nonce).verify_slice(&tag).is_ok());
    if !genuine {
        return Err(Unticketed::Forged);
    }
    if at_ms.abs_diff(now_ms) > LIFETIME_MS { Err(Unticketed::Expired) } else { Ok(()) }
}

fn mac(secret: &[u8], admitted: &Admitted<'_>, issued_ms: &str, nonce: &str) -> Hmac<Sha256> {
    // HMAC takes keys of any length, so this never falls back.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap_or_else(|_| Hmac::new(&Default::default()));
    for part in ["v1", admitted.campaign.as_str(), admitted.round, admitted.user.as_str(), issued_ms] {
        mac.update(part.as_bytes());
        mac.update(b"\n");
    }
    mac.update(nonce.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &[u8] = b"the first secret";
    const OTHER: &[u8] = b"the other secret";
    const NOW: i64 = 1_777_600_000_000;

    fn with<T>(round: &str, user: &str, run: impl FnOnce(&Admitted<'_>) -> T) -> T {
        let (campaign, user) = (CampaignId::parse("spring").unwrap(), UserId::parse(user).unwrap());
        run(&Admitted { campaign: &campaign, round, user: &user })
    }

    #[test]
    fn a_ticket_is_what_the_contract_says() {
        let ticket = with("2026-05-01", "u1", |admitted| mint(SECRET, admitted, NOW, 7));
        // Python: base64.urlsafe_b64encode(hmac.new(SECRET, b"v1\nspring\n2026-05-01\nu1\n1777600000000\nAAAAAAAAAAc", "sha256").digest())
        assert_eq!(ticket, "v1.1777600000000.AAAAAAAAAAc.A7gNbc86Jp4sPQlldQ2caThO4VxLhng-zg-LnnyaSXo");
    }

    #[test]
    fn it_holds_for_what_it_was_made_for_and_for_half_a_minute() {
        let ticket = with("2026-05-01", "u1", |admitted| mint(SECRET, admitted, NOW, 7));
        let check_as = |round: &str, user: &str, secrets: &[&'static [u8]], now_ms| {
            with(round, user, |admitted| check(&ticket, secrets.iter().copied(), admitted, now_ms))
        };
        assert_eq!(check_as("2026-05-01", "u1", &[SECRET], NOW + 30_000), Ok(()));
        assert_eq!(check_as("2026-05-01", "u1", &[OTHER, SECRET], NOW - 30_000), Ok(()), "two secrets, a slow clock");
        assert_eq!(check_as("2026-05-01", "u1", &[SECRET], NOW + 30_001), Err(Unticketed::Expired));
        assert_eq!(check_as("2026-05-01", "u1", &[SECRET], i64::MIN), Err(Unticketed::Expired));
        assert_eq!(check_as("2026-05-01", "u2", &[SECRET], NOW), Err(Unticketed::Forged));
        assert_eq!(check_as("", "u1", &[SECRET], NOW), Err(Unticketed::Forged));
        assert_eq!(check_as("2026-05-01", "u1", &[OTHER], NOW), Err(Unticketed::Forged));
        assert_eq!(check_as("2026-05-01", "u1", &[], NOW), Err(Unticketed::Forged));
    }

    #[test]
    fn what_is_no_ticket_is_malformed() {
        for text in ["", "v1", "v2.1.a.b", "v1.x.a.b", "v1.1.a.b.c", "v1.1.a.*", &"v1.1.a.".repeat(100)] {
            let checked = with("", "u1", |admitted| check(text, [SECRET], admitted, NOW));
            assert!(matches!(checked, Err(Unticketed::Malformed | Unticketed::Forged)), "{text}: {checked:?}");
        }
    }

    proptest! {
        #[test]
        fn any_change_of_a_ticket_is_noticed(at in 0_usize..70, to in proptest::char::range('!', '~')) {
            let ticket = with("2026-05-01", "u1", |admitted| mint(SECRET, admitted, NOW, 7));
            let mut changed: Vec<char> = ticket.chars().collect();
            let at = at % changed.len();
            prop_assume!(changed[at] != to);
            changed[at] = to;
            let changed: String = changed.into_iter().collect();
            prop_assert!(with("2026-05-01", "u1", |admitted| check(&changed, [SECRET], admitted, NOW)).is_err());
        }
    }
}
