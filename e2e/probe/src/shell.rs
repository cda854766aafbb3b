//! The Envoy module: plays the table, or adds to a counter, and answers with what came of it.

use std::hash::BuildHasher;
use std::sync::OnceLock;

use proxy_wasm::hostcalls::{get_shared_data, set_shared_data};
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use crate::{CASES, Calls, play};

proxy_wasm::main! {{
    proxy_wasm::set_http_context(|_, _| Box::new(Probe));
}}

struct Envoy;

impl Calls for Envoy {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        // An empty value arrives as none, with its number.
        let (value, number) = get_shared_data(key).ok()?;
        number.map(|number| (value.unwrap_or_default(), number))
    }

    fn set(&self, key: &str, value: &[u8], cas: u32) -> bool {
        set_shared_data(key, Some(value), Some(cas)).is_ok()
    }
}

struct Probe;

impl Context for Probe {}

impl HttpContext for Probe {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let path = self.get_http_request_header(":path").unwrap_or_default();
        let words: Vec<&str> = path.split('/').collect();
        let body = match words.as_slice() {
            ["", "play", prefix] => play(CASES, prefix, &Envoy),
            ["", "add", key, times] => add(key, times.parse().unwrap_or_default()).to_string(),
            _ => "ready".to_owned(),
        };
        self.send_http_response(200, vec![("x-vm", &vm().to_string())], Some(body.as_bytes()));
        Action::Pause
    }
}

/// Adds 1 to a counter as often as that, by compare-and-swap; what it was at the end.
fn add(key: &str, times: u32) -> u64 {
    let mut count = 0;
    for _ in 0..times {
        loop {
            let seen = Envoy.get(key);
            let before = seen.as_ref().and_then(|(value, _)| std::str::from_utf8(value).ok()?.parse::<u64>().ok());
            count = before.unwrap_or_default() + 1;
            if Envoy.set(key, count.to_string().as_bytes(), seen.map_or(u32::MAX, |(_, number)| number)) {
                break;
            }
        }
    }
    count
}

/// Names this worker's VM.
fn vm() -> u64 {
    static NAME: OnceLock<u64> = OnceLock::new();
    *NAME.get_or_init(|| std::hash::RandomState::new().hash_one(0))
}
