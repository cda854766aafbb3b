//! The campaigns that a worker counts by name.

use std::collections::HashSet;

use doorbuster_domain::id::CampaignId;

use crate::host::{Series, SharedData};
use crate::state;

/// A copy of the process's list, which only grows: what is in it stays true.
#[derive(Debug, Clone, Default)]
pub(super) struct NamedSeries(HashSet<String>);

impl NamedSeries {
    /// Where decisions about a campaign are counted. Shared data is asked only while there is a
    /// free place.
    pub(super) fn of<'a>(&mut self, id: &'a CampaignId, most: usize, data: &dyn SharedData) -> Series<'a> {
        if !self.0.contains(id.as_str()) && self.0.len() < most {
            self.0 = state::name_series(data, id.as_str(), most).into_iter().collect();
        }
        if self.0.contains(id.as_str()) { Series::Campaign(id) } else { Series::Other }
    }
}
