//! Key names. The part in braces is the tag by which a cluster places a key.

use doorbuster_domain::code::CouponCode;
use doorbuster_domain::id::{CampaignId, RoundId};

use super::Redis;

/// The tag of what is about all gateways.
pub(super) const EDGE: &str = "edge";

/// The tag of what is about the installation.
pub(super) const INSTALLATION: &str = "installation";

/// The keys of one round, and its campaign's version.
pub(super) struct RoundKeys {
    pub(super) version: String,
    pub(super) round: String,
    pub(super) users: String,
    pub(super) pending: String,
    pub(super) free: String,
}

impl Redis {
    pub(super) fn version_key(&self, campaign: &CampaignId) -> String {
        format!("{}:{{{campaign}}}:version", self.prefix)
    }

    pub(super) fn round_keys(&self, campaign: &CampaignId, round: RoundId) -> RoundKeys {
        let hash = format!("{}:{{{campaign}}}:{round}", self.prefix);
        RoundKeys {
            version: self.version_key(campaign),
            users: format!("{hash}:users"),
            pending: format!("{hash}:pending"),
            free: format!("{hash}:free"),
            round: hash,
        }
    }

    pub(super) fn lease_key(&self, campaign: &CampaignId, round: RoundId) -> String {
        format!("{}:{{{campaign}}}:{round}:lease", self.prefix)
    }

    /// Where a 202 sent its client: to which round its code belongs.
    pub(super) fn pointer_key(&self, code: CouponCode) -> String {
        format!("{}:{{{code}}}:round", self.prefix)
    }

    pub(super) fn told_key(&self, campaign: &CampaignId, round: RoundId, gateway: &str) -> String {
        format!("{}:{{{campaign}}}:{round}:told:{gateway}", self.prefix)
    }

    pub(super) fn sums_key(&self, campaign: &CampaignId, round: RoundId) -> String {
        format!("{}:{{{campaign}}}:{round}:edge", self.prefix)
    }

    pub(super) fn busy_key(&self) -> String {
        format!("{}:{{{EDGE}}}:busy", self.prefix)
    }

    pub(super) fn owner_key(&self) -> String {
        format!("{}:{{{INSTALLATION}}}:owner", self.prefix)
    }

    pub(super) fn gateways_key(&self) -> String {
        format!("{}:{{{EDGE}}}:gateways", self.prefix)
    }
}
