//! Authorities, and a server's certificate, made for a test.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// An authority that signed the certificate of `localhost`, and one that nobody has heard of.
pub(crate) struct Certificates {
    /// In PEM.
    pub(crate) ca: String,
    pub(crate) unknown_ca: String,
    /// For a server that calls itself `localhost`.
    pub(crate) server: TlsAcceptor,
}

impl Certificates {
    pub(crate) fn make() -> Self {
        let authority = || {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            // OpenSSL takes a certificate for self-signed if it has its issuer's name, which otherwise is the same default.
            params.distinguished_name.push(DnType::CommonName, "an authority");
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let (ours, unknown) = (authority(), authority());
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &ours).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        Self { ca: ours.pem(), unknown_ca: unknown.pem(), server: TlsAcceptor::from(Arc::new(config)) }
    }
}

/// A file that is gone with the test.
pub(crate) struct File(std::path::PathBuf);

impl File {
    pub(crate) fn with(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("doorbuster-{:016x}.pem", rand::random::<u64>()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> std::path::Display<'_> {
        self.0.display()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
