//! Headers, asked of Envoy as few times as will do.
//!
//! An answer to the VM costs the host some 9,000 instructions however short it is: it calls the VM for memory, under a
//! list of allowed functions that it makes anew each time. All headers therefore cost hardly more than one of them.

use std::borrow::Cow;

use proxy_wasm::hostcalls;
use proxy_wasm::types::{Bytes, MapType};

use crate::host::{Headers, Request};

/// The headers of a request.
#[derive(Debug, Default)]
pub(super) struct RequestHead(Option<Vec<(String, Bytes)>>);

impl Headers for RequestHead {
    fn first(&mut self, name: &'static str) -> Option<Cow<'_, [u8]>> {
        match &self.0 {
            Some(all) => all.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice().into()),
            None => hostcalls::get_map_value_bytes(MapType::HttpRequestHeaders, name).ok().flatten().map(Cow::Owned),
        }
    }

    fn all(&mut self) -> impl Iterator<Item = (&str, &[u8])> {
        pairs(self.0.get_or_insert_with(|| read(MapType::HttpRequestHeaders)))
    }

    fn set(&mut self, name: &str, value: &str) {
        write(MapType::HttpRequestHeaders, name, Some(value));
    }

    fn remove(&mut self, name: &str) {
        write(MapType::HttpRequestHeaders, name, None);
    }
}

impl Request for RequestHead {
    fn expect_all(&mut self) {
        let _ = self.all();
    }

    fn annotate(&mut self, field: &'static str, value: &str) {
        // A field that cannot be set is missing from the log; the request goes on.
        let _ = hostcalls::set_property(vec![field], Some(value.as_bytes()));
    }
}

/// The headers of a response, or trailers: all of them are asked for at once.
#[derive(Debug)]
pub(super) struct Fields {
    map: MapType,
    all: Option<Vec<(String, Bytes)>>,
}

impl Fields {
    pub(super) fn of(map: MapType) -> Self {
        Self { map, all: None }
    }
}

impl Headers for Fields {
    fn first(&mut self, name: &'static str) -> Option<Cow<'_, [u8]>> {
        self.all().find(|(known, _)| *known == name).map(|(_, value)| value.into())
    }

    fn all(&mut self) -> impl Iterator<Item = (&str, &[u8])> {
        let map = self.map;
        pairs(self.all.get_or_insert_with(|| read(map)))
    }

    fn set(&mut self, name: &str, value: &str) {
        write(self.map, name, Some(value));
    }

    fn remove(&mut self, name: &str) {
        write(self.map, name, None);
    }
}

fn read(map: MapType) -> Vec<(String, Bytes)> {
    hostcalls::get_map_bytes(map).unwrap_or_default()
}

fn write(map: MapType, name: &str, value: Option<&str>) {
    // Envoy refuses a header only once the headers have been forwarded.
    let _ = hostcalls::set_map_value(map, name, value);
}

fn pairs(headers: &[(String, Bytes)]) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
}
