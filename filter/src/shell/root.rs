//! One per VM: configuration, the tick, and the answers to calls.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{ContextType, LogLevel};

use super::host::{EnvoyHost, log};
use super::metrics::EnvoyMetrics;
use super::stream::Stream;
use crate::TICK_MS;
use crate::config::Config;
use crate::host::CallEnded;
use crate::worker::Worker;

#[derive(Debug, Default)]
pub(super) struct Root {
    worker: Option<Rc<RefCell<Worker>>>,
    host: Rc<EnvoyHost>,
    metrics: EnvoyMetrics,
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_bytes: usize, _trailers: usize) {
        let Some(worker) = &self.worker else { return };
        let ended = if headers == 0 {
            CallEnded::NoAnswer
        } else {
            match self.get_http_call_response_header_bytes(":status").unwrap_or_default().as_slice() {
                b"200" => CallEnded::Ok(self.get_http_call_response_body(0, body_bytes).unwrap_or_default()),
                status => CallEnded::Status(String::from_utf8_lossy(status).into_owned()),
            }
        };
        worker.borrow_mut().call_ended(token, ended, &*self.host, &*self.host);
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _bytes: usize) -> bool {
        let json = self.get_plugin_configuration().unwrap_or_default();
        match Config::parse(&json, |name| std::env::var(name).ok()) {
            Ok(config) => {
                let worker = Worker::new(Rc::new(config), &*self.host);
                self.worker = Some(Rc::new(RefCell::new(worker)));
                self.set_tick_period(Duration::from_millis(TICK_MS.unsigned_abs()));
                true
            }
            Err(error) => {
                log(LogLevel::Error, &format!("doorbuster: the plugin configuration is refused: {error}"));
                false
            }
        }
    }

    fn on_tick(&mut self) {
        if let Some(worker) = &self.worker {
            worker.borrow_mut().tick(&*self.host, &*self.host, &*self.host, &mut self.metrics);
        }
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        let worker = Rc::clone(self.worker.as_ref()?);
        Some(Box::new(Stream::new(worker, Rc::clone(&self.host))))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
