//! A schedule near the present, as instants: what the edge is told and what it compares.

use chrono::{DateTime, FixedOffset};
use serde::{Deserialize, Serialize};

use crate::id::RoundId;
use crate::schedule::{Phase, Round};

/// The rounds around a moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Timetable {
    /// The round before the first of `rounds`; none if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Round>,
    /// The current or next round and the one after it, in order.
    pub rounds: Vec<Round>,
    /// Whether more rounds follow than are told.
    pub more: bool,
}

impl Timetable {
    /// Where `now_ms` (Unix milliseconds) stands. None: past everything told, with more to follow.
    #[must_use]
    pub fn phase(&self, now_ms: i64) -> Option<Phase> {
        let mut previous = self.previous;
        for round in &self.rounds {
            if now_ms < round.opens_ms() {
                return Some(match previous {
                    None => Phase::NotStarted { next: *round },
                    Some(_) => Phase::OutsideHours { next: *round },
                });
            }
            if now_ms < round.closes_ms() {
                return Some(Phase::Open { round: *round });
            }
            previous = Some(*round);
        }
        match previous {
            Some(last) if !self.more => Some(Phase::Ended { last }),
            _ => None,
        }
    }

    /// When the first round told after `round` opens.
    #[must_use]
    pub fn opens_after(&self, round: RoundId) -> Option<DateTime<FixedOffset>> {
        self.rounds.iter().find(|later| later.id > round).map(|later| later.opens)
    }
}
