//! What an origin tells the edge: the `x-doorbuster-result` response header, an RFC 8941 dictionary.

use std::fmt;

use sfv::{BareItem, Dictionary, ListEntry, Parser};

use crate::id::{CampaignId, RoundId};

/// Name of the response header.
pub const RESULT_HEADER: &str = "x-doorbuster-result";

/// What became of an admitted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A coupon was committed.
    Issued,
    /// This user has this round's coupon, committed earlier.
    AlreadyIssued,
    /// The round's quota is committed.
    SoldOut,
    /// A place is held, its commit is outstanding.
    Pending,
    /// Nothing was taken.
    Refused,
}

impl Outcome {
    const ALL: [Self; 5] = [Self::Issued, Self::AlreadyIssued, Self::SoldOut, Self::Pending, Self::Refused];

    /// The token in the header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::AlreadyIssued => "already_issued",
            Self::SoldOut => "sold_out",
            Self::Pending => "pending",
            Self::Refused => "refused",
        }
    }
}

/// One result, as an origin reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What became of the request.
    pub outcome: Outcome,
    /// The campaign it was for.
    pub campaign: CampaignId,
    /// The round the origin's clock chose; none where it refused before it knew one.
    pub round: Option<RoundId>,
    /// Coupons committed in the round, including the one being answered.
    pub issued: u64,
    /// The round's quota; none means no limit, or that the origin does not say.
    pub quota: Option<u64>,
    /// The campaign's version; 0 means that the origin does not say.
    pub version: u64,
    /// Of `refused`: whether the edge keeps the request's credit for a while, since something may be wrong. False: nothing
    /// was taken, and the next request may be sent at once.
    pub hold: bool,
}

impl Notice {
    /// Reads the header's value. None if it is no dictionary, lacks a field it must have, or has one of a wrong type:
    /// an origin that cannot be understood has said nothing.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let dictionary: Dictionary = Parser::new(value).parse().ok()?;
        let item = |key: &str| match dictionary.get(key) {
            Some(ListEntry::Item(item)) => Some(&item.bare_item),
            _ => None,
        };
        let text = |key: &str| match item(key)? {
            BareItem::Token(token) => Some(token.as_str()),
            BareItem::String(string) => Some(string.as_str()),
            _ => None,
        };
        // A number that is there but is none, or is negative, spoils the notice; one left out is none.
        let number = |key: &str| match item(key) {
            None => Some(None),
            Some(BareItem::Integer(integer)) => u64::try_from(i64::from(*integer)).ok().map(Some),
            Some(_) => None,
        };
        let hold = match item("hold") {
            None => true,
            Some(BareItem::Boolean(hold)) => *hold,
            Some(_) => return None,
        };
        let outcome = text("outcome")?;
        Some(Self {
            outcome: Outcome::ALL.into_iter().find(|known| known.as_str() == outcome)?,
            campaign: CampaignId::parse(text("campaign")?).ok()?,
            round: match text("round") {
                Some(round) => Some(round.parse().ok()?),
                None => None,
            },
            issued: number("issued")?.unwrap_or(0),
            quota: number("quota")?,
            version: number("version")?.unwrap_or(0),
            hold,
        })
    }
}

/// The header's value. The ids' alphabets need no escaping.
impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "outcome={}, campaign=\"{}\"", self.outcome.as_str(), self.campaign)?;
        if let Some(round) = self.round {
            write!(f, ", round=\"{round}\"")?;
        }
        write!(f, ", issued={}", self.issued)?;
        if let Some(quota) = self.quota {
            write!(f, ", quota={quota}")?;
        }
        if self.version > 0 {
            write!(f, ", version={}", self.version)?;
        }
        if !self.hold {
            f.write_str(", hold=?0")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spring(outcome: Outcome) -> Notice {
        Notice {
            outcome,
            campaign: CampaignId::parse("spring").unwrap(),
            round: Some("2026-05-01".parse().unwrap()),
            issued: 57,
            quota: Some(100),
            version: 3,
            hold: true,
        }
    }

    #[test]
    fn the_contract_s_example_is_read_and_written() {
        let text = r#"outcome=issued, campaign="spring", round="2026-05-01", issued=57, quota=100, version=3"#;
        assert_eq!(Notice::parse(text.as_bytes()), Some(spring(Outcome::Issued)));
        assert_eq!(spring(Outcome::Issued).to_string(), text);
    }

    #[test]
    fn every_outcome_round_trips() {
        for outcome in Outcome::ALL {
            let notice = spring(outcome);
            assert_eq!(Notice::parse(notice.to_string().as_bytes()), Some(notice));
        }
    }

    #[test]
    fn refusal_that_took_nothing_releases_its_credit() {
        let text = r#"outcome=refused, campaign="spring", round="2026-05-01", issued=0, hold=?0"#;
        let notice = Notice::parse(text.as_bytes()).unwrap();
        assert!(!notice.hold);
        assert_eq!(notice.to_string(), text);
        assert!(Notice::parse(b"outcome=refused, campaign=spring, hold").unwrap().hold);
        assert_eq!(Notice::parse(b"outcome=refused, campaign=spring, hold=0"), None);
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let notice = Notice::parse(b"outcome=refused, campaign=spring").unwrap();
        assert_eq!((notice.round, notice.issued, notice.quota, notice.version), (None, 0, None, 0));
        assert!(notice.hold);
    }

    #[test]
    fn what_cannot_be_understood_says_nothing() {
        for bad in [
            "",
            "outcome=won, campaign=\"spring\"",
            "outcome=issued",
            "outcome=issued, campaign=\"Spring\"",
            "outcome=issued, campaign=\"spring\", round=\"may\"",
            "outcome=issued, campaign=\"spring\", issued=-1",
            "outcome=issued, campaign=\"spring\", quota=ten",
            "outcome=(issued), campaign=\"spring\"",
            "outcome=issued; campaign=\"spring\"",
            "\u{e9}",
        ] {
            assert_eq!(Notice::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Notice::parse(&bytes);
        }
    }
}
