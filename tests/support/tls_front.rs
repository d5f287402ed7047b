//! A TLS endpoint with a CA of its own in front of a plain server.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// The endpoint; it ends when it is dropped.
pub(crate) struct TlsFront {
    pub(crate) port: u16,
    /// The CA that signed its certificate, in PEM.
    pub(crate) ca_pem: String,
    task: JoinHandle<()>,
}

impl TlsFront {
    /// Has a certificate for `names` (host names and addresses), and copies what comes to a port of this machine.
    pub(crate) async fn start(names: &[&str], target_port: u16) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, key()).expect("a CA can be made");
        let key = key();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let certificate = CertificateParams::new(names)
            .expect("the names fit into a certificate")
            .signed_by(&key, &ca)
            .expect("the CA can sign");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .expect("the key is that of the certificate");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port can be bound");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    let _ = forward(&acceptor, stream, target_port).await;
                });
            }
        });
        Self { port, ca_pem: ca.pem(), task }
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key can be made")
}

async fn forward(acceptor: &TlsAcceptor, stream: TcpStream, target_port: u16) -> std::io::Result<()> {
    let mut outer = acceptor.accept(stream).await?;
    let mut inner = TcpStream::connect(("127.0.0.1", target_port)).await?;
    tokio::io::copy_bidirectional(&mut outer, &mut inner).await?;
    Ok(())
}
