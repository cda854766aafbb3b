//! A request's headers, asked of Envoy as few times as will do.
//!
//! An answer to the VM costs the host some 9,000 instructions however short it is: it calls the VM for memory, under a
//! list of allowed functions that it makes anew each time. All headers are therefore hardly dearer than one of them.

use proxy_wasm::hostcalls;
use proxy_wasm::types::{Bytes, MapType};

/// The headers of a request that has just arrived.
#[derive(Debug, Default)]
pub(super) struct Head {
    all: Option<Vec<(String, Bytes)>>,
}

impl Head {
    /// With all headers asked for at once, or none yet.
    pub(super) fn new(at_once: bool) -> Self {
        let mut head = Self::default();
        if at_once {
            head.all();
        }
        head
    }

    /// The first value of a header, empty if there is none.
    pub(super) fn value(&self, name: &'static str) -> Bytes {
        match &self.all {
            Some(all) => values(all, name).next().unwrap_or_default().to_vec(),
            None => {
                hostcalls::get_map_value_bytes(MapType::HttpRequestHeaders, name).ok().flatten().unwrap_or_default()
            }
        }
    }

    /// All headers.
    pub(super) fn all(&mut self) -> &[(String, Bytes)] {
        self.all.get_or_insert_with(|| hostcalls::get_map_bytes(MapType::HttpRequestHeaders).unwrap_or_default())
    }
}

/// Every value of a header, in the order in which they came.
pub(super) fn values<'a>(headers: &'a [(String, Bytes)], wanted: &'static str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value.as_slice())
}
