//! Which campaigns the host's statistics name. Statistics belong to the whole process and are
//! never deleted, so this list is one for all configurations, and it only grows.

use super::update;
use crate::host::SharedData;

const SERIES: &str = "doorbuster/series";

/// Adds a campaign to those that have statistics of their own, if they are fewer than `most`.
/// Returns all of them.
pub fn name_series(shared: &dyn SharedData, campaign: &str, most: usize) -> Vec<String> {
    update(shared, SERIES, &mut 0, |value| {
        let stored = value.and_then(|bytes| serde_json::from_slice(bytes).ok());
        let mut named: Vec<String> = stored.unwrap_or_default();
        let known = named.iter().any(|known| known == campaign);
        if known || named.len() >= most {
            return (None, named);
        }
        named.push(campaign.to_owned());
        (Some(serde_json::to_vec(&named).unwrap_or_default()), named)
    })
    .unwrap_or_default()
}
