//! A sink that is called over HTTP.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_TYPE, USER_AGENT};
use axum::http::uri::Scheme;
use axum::http::{Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::event::{CLOUDEVENTS_JSON, Event};
use super::signature::{SigningKey, signatures};
use super::sink::Undelivered;
use crate::config::WebhookConfig;

/// So much of an answer is read, so that its connection can be used again. What it says does not matter.
const READ_BYTES: usize = 4_096;

/// Calls an address for each event. Redirects are not followed: they would lead to somebody whom the operator did not
/// name.
pub(super) struct Webhook {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    url: Uri,
    keys: Vec<SigningKey>,
    deadline: Duration,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

impl Webhook {
    pub(super) fn new(config: WebhookConfig, deadline: Duration) -> anyhow::Result<Self> {
        let url: Uri = config.url.expose().parse().context("webhook_url: is no URL")?;
        let roots = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => trusted(config.ca.as_deref())?,
            _ => RootCertStore::empty(),
        };
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(config.in_flight).build(connector);
        Ok(Self { client, url, keys: config.keys, deadline })
    }

    /// Delivers an event; `now_s`: Unix seconds.
    pub(super) async fn deliver(&self, event: &Event, now_s: i64) -> Result<(), Undelivered> {
        match tokio::time::timeout(self.deadline, self.call(event, now_s)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Undelivered::new(format!("did not answer within {} ms", self.deadline.as_millis()))),
        }
    }

    async fn call(&self, event: &Event, now_s: i64) -> Result<(), Undelivered> {
        let body = event.body();
        let request = Request::post(&self.url)
            .header(CONTENT_TYPE, CLOUDEVENTS_JSON)
            .header(USER_AGENT, concat!("doorbuster/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &event.id)
            .header("webhook-timestamp", now_s)
            .header("webhook-signature", signatures(&self.keys, &event.id, now_s, &body))
            .body(Body::from(body))
            .map_err(Undelivered::unanswered)?;
        let response = self.client.request(request).await.map_err(Undelivered::unanswered)?;
        let status = response.status();
        // A connection whose answer is read to its end is kept; a longer answer costs the connection.
        let _ = to_bytes(Body::new(response.into_body()), READ_BYTES).await;
        if status.is_success() { Ok(()) } else { Err(Undelivered::new(format!("answered {}", status.as_u16()))) }
    }
}

/// Who may have signed the receiver's certificate: these authorities (PEM), otherwise the system's.
fn trusted(ca: Option<&[u8]>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(pem) = ca else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            bail!(
                "webhook_url: no certificate authority is known here; install ca-certificates, or set webhook_ca_file"
            );
        }
        return Ok(roots);
    };
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.context("webhook_ca_file: holds no certificate in PEM")?;
        roots.add(certificate).context("webhook_ca_file: holds a certificate that is none")?;
    }
    Ok(roots)
}
