//! One TLS configuration for the REST client and the websocket.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::{Error, Result};

/// The variables that `rustls-native-certs` heeds: another value is another set of roots.
const ROOTS_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// What a configuration was made from, and so what it may be used again for.
#[derive(PartialEq, Eq)]
struct Origin {
    roots: [Option<OsString>; 2],
    extra_ca_pem: Option<Vec<u8>>,
}

/// How many configurations are kept; a process seldom speaks to gateways of more CAs than this.
const KEPT: usize = 8;

/// The configurations made last. Parsing the platform's roots takes milliseconds, and sharing a configuration
/// also shares its TLS sessions, so that the next handshake with the same host is a short one.
static MADE: Mutex<VecDeque<(Origin, Arc<ClientConfig>)>> = Mutex::new(VecDeque::new());

/// The configuration that trusts the platform's roots and, if given, those of `extra_ca_pem`.
///
/// `SSL_CERT_FILE` and `SSL_CERT_DIR` take the place of the platform's roots. The roots are read when a
/// configuration is first asked for, and kept: a process that asks again for the same gets the same.
///
/// Fails with [`Error::Configuration`] when `extra_ca_pem` holds no certificate, or one that is not valid, and
/// when there is no root certificate at all.
pub fn client_config(extra_ca_pem: Option<&[u8]>) -> Result<Arc<ClientConfig>> {
    let origin =
        Origin { roots: ROOTS_VARIABLES.map(env::var_os), extra_ca_pem: extra_ca_pem.map(<[u8]>::to_vec) };
    // Held while the roots are read: of many sessions that start together, one does the work.
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, config)) = made.iter().find(|(made_from, _)| *made_from == origin) {
        return Ok(Arc::clone(config));
    }
    let config = Arc::new(configuration(roots(extra_ca_pem)?)?);
    made.truncate(KEPT - 1);
    made.push_front((origin, Arc::clone(&config)));
    Ok(config)
}

/// A configuration that trusts nobody, for a client that never speaks TLS.
pub(crate) fn without_roots() -> Result<ClientConfig> {
    configuration(RootCertStore::empty())
}

fn configuration(roots: RootCertStore) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Configuration(format!("TLS can't be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn roots(extra_ca_pem: Option<&[u8]>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = extra_ca_pem {
        add_extra(&mut roots, pem)?;
    }
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        let reasons: Vec<String> = native.errors.iter().map(ToString::to_string).collect();
        let reasons = if reasons.is_empty() { "none is installed".to_owned() } else { reasons.join("; ") };
        return Err(Error::Configuration(format!(
            "there is no root certificate to check an https:// gateway with ({reasons}); install the \
             ca-certificates of this system, or let SSL_CERT_FILE name a PEM file"
        )));
    }
    Ok(roots)
}

/// Unlike the platform's roots, of which a strange one is skipped, each of these was meant by the user.
fn add_extra(roots: &mut RootCertStore, pem: &[u8]) -> Result<()> {
    for certificate in CertificateDer::pem_slice_iter(pem) {
        certificate
            .map_err(|error| error.to_string())
            .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()))
            .map_err(|reason| {
                Error::Configuration(format!("the extra CA holds a certificate that is not valid: {reason}"))
            })?;
    }
    if roots.is_empty() {
        return Err(Error::Configuration(
            "the extra CA holds no certificate; give it in PEM (-----BEGIN CERTIFICATE-----)".to_owned(),
        ));
    }
    Ok(())
}
