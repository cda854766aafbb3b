//! One per request: Envoy's callbacks to the exchange, and its answers back.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, MapType};

use super::headers::{Fields, RequestHead};
use super::host::EnvoyHost;
use crate::exchange::{self, Exchange};
use crate::worker::Worker;

#[derive(Debug)]
pub(super) struct Stream {
    worker: Rc<RefCell<Worker>>,
    host: Rc<EnvoyHost>,
    exchange: Exchange,
}

impl Stream {
    pub(super) fn new(worker: Rc<RefCell<Worker>>, host: Rc<EnvoyHost>) -> Self {
        Self { worker, host, exchange: Exchange::default() }
    }

    fn act(&self, action: exchange::Action) -> Action {
        match action {
            exchange::Action::Continue => Action::Continue,
            exchange::Action::Pause => Action::Pause,
            exchange::Action::Reply(reply) => {
                let headers = reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                self.send_http_response(reply.status, headers, Some(&reply.body));
                Action::Pause
            }
        }
    }
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        let (worker, head) = (&mut *self.worker.borrow_mut(), &mut RequestHead::default());
        let action = self.exchange.request_headers(worker, head, &*self.host, end_of_stream);
        self.act(action)
    }

    fn on_http_request_body(&mut self, bytes: usize, end_of_stream: bool) -> Action {
        let (worker, head) = (&mut *self.worker.borrow_mut(), &mut RequestHead::default());
        let action = self.exchange.request_body(worker, head, &*self.host, bytes, end_of_stream);
        self.act(action)
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        let (worker, head) = (&mut *self.worker.borrow_mut(), &mut RequestHead::default());
        let trailers = &mut Fields::of(MapType::HttpRequestTrailers);
        let action = self.exchange.request_trailers(worker, head, trailers, &*self.host);
        self.act(action)
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let (worker, head) = (&mut *self.worker.borrow_mut(), &mut Fields::of(MapType::HttpResponseHeaders));
        self.exchange.response_headers(worker, head, &*self.host);
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        self.exchange.response_trailers(&mut Fields::of(MapType::HttpResponseTrailers));
        Action::Continue
    }
}

/// Envoy forgets a stream when it is over, however it ended. To learn that from `on_log` as well would cost each refusal
/// another call into the VM.
impl Drop for Stream {
    fn drop(&mut self) {
        self.exchange.ended(&mut self.worker.borrow_mut(), &*self.host);
    }
}
