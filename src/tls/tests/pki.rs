//! Certificates for tests, made with the openssl program in a folder of their own.
//!
//! A folder goes away with its owner. Owners in statics are never dropped: unit tests read theirs into memory, tests of
//! the whole program have theirs under the build directory, where the next run replaces it.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder with an authority `ca` and whatever is issued under it; gone when dropped.
pub struct Pki {
    folder: PathBuf,
    /// What was in the folder when it was given up.
    files: HashMap<String, Vec<u8>>,
}

impl Pki {
    /// A new authority with a P-256 key.
    pub fn new() -> Self {
        Self::with_authority("P-256")
    }

    /// A new authority with a key of this kind.
    pub fn with_authority(kind: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = match option_env!("CARGO_TARGET_TMPDIR") {
            Some(base) => PathBuf::from(base).join(format!("tls-{number}")),
            None => std::env::temp_dir().join(format!("portcullis-tls-{}-{number}", std::process::id())),
        };
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let pki = Self { folder, files: HashMap::new() };
        pki.key("ca", kind);
        pki.openssl(&format!("req -x509 -new -key ca.key -out ca.crt -days 30 -subj /CN=Authority-{number}"));
        pki
    }

    /// Runs `openssl` in the folder; `arguments` are separated by single spaces.
    pub fn openssl(&self, arguments: &str) {
        let done = Command::new("openssl").current_dir(&self.folder).args(arguments.split(' ')).output().unwrap();
        assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Makes `name.key`. Kinds: `P-256`, `P-384`, `P-521`, `ED25519`, or a number of RSA bits.
    pub fn key(&self, name: &str, kind: &str) {
        let options = match kind {
            "ED25519" => "-algorithm ED25519".to_owned(),
            curve if curve.starts_with("P-") => format!("-algorithm EC -pkeyopt ec_paramgen_curve:{curve}"),
            bits => format!("-algorithm RSA -pkeyopt rsa_keygen_bits:{bits}"),
        };
        self.openssl(&format!("genpkey {options} -out {name}.key"));
    }

    /// Makes `name.key` and `name.crt`, issued by `ca`, good for servers named localhost and for clients, for `days` days.
    pub fn issue(&self, name: &str, kind: &str, days: i32) {
        self.key(name, kind);
        let extensions = "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n";
        std::fs::write(self.folder.join("extensions"), extensions).unwrap();
        self.openssl(&format!("req -new -key {name}.key -out {name}.csr -subj /CN={name}"));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days {days} -extfile extensions -out {name}.crt"
        ));
    }

    /// A file of the folder.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Reads everything into memory and gives the folder up.
    pub fn into_memory(mut self) -> Self {
        for entry in std::fs::read_dir(&self.folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            self.files.insert(name, std::fs::read(entry.path()).unwrap());
        }
        std::fs::remove_dir_all(&self.folder).unwrap();
        self
    }

    fn read(&self, file: &str) -> Vec<u8> {
        self.files.get(file).cloned().unwrap_or_else(|| std::fs::read(self.path(file)).unwrap())
    }

    /// The certificate `name.crt` as a chain of one.
    pub fn chain(&self, name: &str) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_slice(&self.read(&format!("{name}.crt"))).unwrap()]
    }

    /// The key `name.key`.
    pub fn private_key(&self, name: &str) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(&self.read(&format!("{name}.key"))).unwrap()
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Seconds since 1970: certificates made above are good from now on.
pub fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// A judge over webpki: one anchor, nothing of our own rules.
#[derive(Debug)]
pub struct WebPkiJudge {
    pub anchor: CertificateDer<'static>,
    pub hints: Vec<rustls::DistinguishedName>,
}

impl WebPkiJudge {
    pub fn new(anchor: CertificateDer<'static>) -> Self {
        // webpki keeps names without their outer SEQUENCE, TLS wants it.
        let subject = webpki::anchor_from_trusted_cert(&anchor).unwrap().subject.as_ref().to_vec();
        Self { anchor, hints: vec![rustls::DistinguishedName::in_sequence(&subject)] }
    }

    /// Judges `chain` at `seconds`.
    pub fn judge(&self, chain: &[CertificateDer<'_>], seconds: u64) -> Result<(), rustls::Error> {
        use rustls::CertificateError;
        let algorithms = super::provider().signature_verification_algorithms;
        let time = rustls::pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let anchor = webpki::anchor_from_trusted_cert(&self.anchor).unwrap();
        let end = webpki::EndEntityCert::try_from(&chain[0]).map_err(|_| CertificateError::BadEncoding)?;
        let usage = webpki::KeyUsage::client_auth();
        match end.verify_for_usage(algorithms.all, &[anchor], &chain[1..], time, usage, None, None) {
            Ok(_) => Ok(()),
            Err(webpki::Error::UnknownIssuer) => Err(CertificateError::UnknownIssuer.into()),
            Err(webpki::Error::CertExpired { .. }) => Err(CertificateError::Expired.into()),
            Err(other) => Err(rustls::Error::General(other.to_string())),
        }
    }
}
