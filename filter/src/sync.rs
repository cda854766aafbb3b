//! What the backend tells the edge: asked for by one worker, kept in shared data for all of them.

use doorbuster_domain::wire::{SyncCampaign, SyncRequest, SyncResponse, Totals};
use serde::{Deserialize, Serialize};

use crate::host::HostTime;

/// The newest answer, and how the backend's clock stands to this machine's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The number of the sync that it answers; later ones have larger numbers.
    pub number: u64,
    /// When it arrived, by this machine's monotonic clock, milliseconds.
    pub received_ms: i64,
    /// How far the wall clock was ahead of the monotonic one then, milliseconds.
    pub wall_ahead_ms: i64,
    /// How the clocks stand.
    pub clock: OriginClock,
    /// The answer.
    pub response: SyncResponse,
}

impl Snapshot {
    /// Keeps what `other` has of campaigns that this answer knows in an older version: backends take up to a second to
    /// learn of a change, and the next answer may come from one that has not learned of it yet. Counts are of this answer.
    /// Returns whether there was such a campaign.
    pub fn keep_newer(&mut self, other: &Self) -> bool {
        let mut kept = false;
        for told in &mut self.response.campaigns {
            let newer = |known: &&SyncCampaign| known.id == told.id && known.version > told.version;
            if let Some(known) = other.response.campaigns.iter().find(newer) {
                let (round, issued, reserved) = (told.round, told.issued, told.reserved);
                *told = SyncCampaign { round, issued, reserved, ..known.clone() };
                kept = true;
            }
        }
        kept
    }
}

/// How fast two clocks are assumed to drift apart at most, millionths. Quartz clocks are good for some 50 to 100, each.
const DRIFT_PPM: i64 = 200;

/// How far two readings of clocks that agree may differ: each is rounded, and one comes after the
/// other, milliseconds.
const READING_MS: i64 = 2;

/// The origin's clock, seen from this machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginClock {
    /// What to add to this machine's monotonic clock, milliseconds.
    pub offset_ms: i64,
    /// How far the sum may be off, milliseconds.
    pub uncertainty_ms: i64,
}

impl OriginClock {
    /// The origin's time when this machine's clock shows `host_ms`.
    #[must_use]
    pub fn at(&self, host_ms: i64) -> i64 {
        host_ms.saturating_add(self.offset_ms)
    }

    /// The same as it is known `age_ms` later, when the wall clock has moved by `moved_ms` against
    /// the monotonic one. Clocks drift; and a machine that was suspended, in which the monotonic
    /// clock stands still, cannot be told from one whose wall clock was set.
    #[must_use]
    pub fn after(self, age_ms: i64, moved_ms: i64) -> Self {
        let drift_ms = age_ms.max(0).saturating_mul(DRIFT_PPM) / 1_000_000;
        let moved_ms = if moved_ms.saturating_abs() > READING_MS { moved_ms.saturating_abs() } else { 0 };
        let uncertainty_ms = self.uncertainty_ms.saturating_add(drift_ms).saturating_add(moved_ms);
        Self { uncertainty_ms, ..self }
    }
}

/// The body of a sync request.
#[must_use]
pub fn request_body(gateway: &str, max_campaigns: u32, totals: Vec<Totals>) -> Vec<u8> {
    let request = SyncRequest { gateway: gateway.to_owned(), max_campaigns, totals };
    serde_json::to_vec(&request).unwrap_or_default()
}

/// Reads an answer that was asked for at `sent_ms` and arrived at `received`, both by this machine's clock.
///
/// # Errors
/// What is wrong with the body.
pub fn read_answer(body: &[u8], number: u64, sent_ms: i64, received: HostTime) -> Result<Snapshot, String> {
    let response: SyncResponse =
        serde_json::from_slice(body).map_err(|error| format!("the sync's answer cannot be read: {error}"))?;
    let received_ms = received.host_ms;
    // The backend read its clock somewhere within the round trip; the middle is at most half of it off.
    let round_trip_ms = received_ms.saturating_sub(sent_ms).max(0);
    let clock = OriginClock {
        offset_ms: response.now_ms.saturating_add(round_trip_ms / 2).saturating_sub(received_ms),
        uncertainty_ms: i64::from(response.uncertainty_ms) + round_trip_ms / 2 + 1,
    };
    Ok(Snapshot { number, received_ms, wall_ahead_ms: received.wall_ahead_ms, clock, response })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host_ms: i64) -> HostTime {
        HostTime { host_ms, wall_ahead_ms: 0 }
    }

    #[test]
    fn clock_becomes_less_certain_with_age_and_when_the_wall_clock_moves() {
        let clock = OriginClock { offset_ms: 5, uncertainty_ms: 9 };
        assert_eq!(clock.after(4_999, 2), clock);
        assert_eq!(clock.after(3_600_000, 0).uncertainty_ms, 9 + 720);
        for moved_ms in [-7_200_000, 7_200_000] {
            assert_eq!(clock.after(0, moved_ms).uncertainty_ms, 9 + 7_200_000);
        }
        assert_eq!(clock.after(i64::MAX, i64::MIN).offset_ms, 5);
    }

    #[test]
    fn half_the_round_trip_is_uncertain() {
        let body = br#"{"now_ms":50000,"uncertainty_ms":3,"gateways":1,"complete":true,"campaigns":[]}"#;
        let snapshot = read_answer(body, 1, 1_000, at(1_010)).unwrap();
        assert_eq!(snapshot.clock, OriginClock { offset_ms: 48_995, uncertainty_ms: 9 });
        assert_eq!(snapshot.clock.at(1_010), 50_005);
        let stepped_back = read_answer(body, 1, 2_000, at(1_010)).unwrap();
        assert_eq!(stepped_back.clock.uncertainty_ms, 4);
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_an_error() {
        assert!(read_answer(b"no", 1, 0, at(0)).is_err());
        assert!(read_answer(br#"{"now_ms":1}"#, 1, 0, at(0)).is_err());
    }
}
