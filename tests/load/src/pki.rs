//! Certificates for one run: an authority, a server for `localhost`, clients. P-256 throughout, as on gateways.

use crate::Failure;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// Makes `ca.crt`, `server.crt`, `server.key`, `client-N.crt` and `client-N.key` in `folder`.
pub fn create(folder: &Path, clients: usize) -> Result<Value, Failure> {
    std::fs::create_dir_all(folder)?;
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name.push(DnType::CommonName, "Load Root CA");
    std::fs::write(folder.join("ca.crt"), authority.self_signed(&authority_key)?.pem())?;
    let issuer = Issuer::new(authority, authority_key);
    let leaf = |name: &str, subject: &str, usage| -> Result<(), Failure> {
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(vec!["localhost".to_owned()])?;
        leaf.distinguished_name.push(DnType::CommonName, subject);
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![usage];
        leaf.use_authority_key_identifier_extension = true;
        std::fs::write(folder.join(format!("{name}.crt")), leaf.signed_by(&key, &issuer)?.pem())?;
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
        Ok(())
    };
    leaf("server", "localhost", ExtendedKeyUsagePurpose::ServerAuth)?;
    for number in 0..clients {
        leaf(&format!("client-{number}"), &format!("client {number}"), ExtendedKeyUsagePurpose::ClientAuth)?;
    }
    Ok(json!({ "clients": clients }))
}

fn roots(folder: &Path) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.crt"))?)?;
    Ok(roots)
}

fn identity(folder: &Path, name: &str) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Failure> {
    let chain = vec![CertificateDer::from_pem_file(folder.join(format!("{name}.crt")))?];
    Ok((chain, PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key")))?))
}

/// How each client of `folder` does TLS 1.3. Without `resume` every handshake is a full one.
pub fn clients(folder: &Path, resume: bool) -> Result<Vec<Arc<ClientConfig>>, Failure> {
    let roots = Arc::new(roots(folder)?);
    let mut clients = Vec::new();
    while folder.join(format!("client-{}.crt", clients.len())).exists() {
        let (chain, key) = identity(folder, &format!("client-{}", clients.len()))?;
        let mut config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(chain, key)?;
        if !resume {
            config.resumption = rustls::client::Resumption::disabled();
        }
        clients.push(Arc::new(config));
    }
    if clients.is_empty() {
        return Err(format!("{} holds no client-0.crt; `load pki` makes it", folder.display()).into());
    }
    Ok(clients)
}

/// How the forwarder does TLS, with certificates of clients asked for.
pub fn server(folder: &Path) -> Result<Arc<ServerConfig>, Failure> {
    let (chain, key) = identity(folder, "server")?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots(folder)?)).build()?;
    Ok(Arc::new(ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key)?))
}
