//! Keys and signatures of the openssl program, good and weak.

use super::*;
use rustls::pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder for the files of one test, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("portcullis-signatures-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let done = Command::new("openssl").current_dir(folder).args(arguments.split(' ')).output().unwrap();
    assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// An `RSAPublicKey` whose modulus has exactly `bits` bits.
fn rsa_key(bits: usize, exponent: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let mut content = if bytes[0] >= 0x80 { vec![0] } else { Vec::new() };
        content.extend_from_slice(bytes);
        [vec![2], length(content.len()), content].concat()
    };
    fn length(of: usize) -> Vec<u8> {
        match of {
            0..128 => vec![of as u8],
            128..256 => vec![0x81, of as u8],
            _ => vec![0x82, (of >> 8) as u8, of as u8],
        }
    }
    let mut modulus = vec![0xff; bits.div_ceil(8)];
    modulus[0] >>= modulus.len() * 8 - bits;
    let body = [integer(&modulus), integer(exponent)].concat();
    [vec![0x30], length(body.len()), body].concat()
}

#[test]
fn rsa_keys_are_believed_from_2048_to_4096_bits() {
    let exponent = [1, 0, 1];
    for (bits, acceptable) in
        [(1_024, false), (2_047, false), (2_048, true), (3_072, true), (4_096, true), (4_097, false)]
    {
        assert_eq!(rsa_key_is_acceptable(&rsa_key(bits, &exponent)), acceptable, "{bits}");
    }
}

#[test]
fn small_even_and_enormous_exponents_are_not_believed() {
    for exponent in [&[3][..], &[0xff, 0xff], &[1, 0, 2], &[1; 9]] {
        assert!(!rsa_key_is_acceptable(&rsa_key(2_048, exponent)), "{exponent:?}");
    }
    assert!(rsa_key_is_acceptable(&rsa_key(2_048, &[1, 0, 1])));
}

#[test]
fn what_is_not_an_rsa_key_is_not_believed() {
    let good = rsa_key(2_048, &[1, 0, 1]);
    for cut in 0..good.len() {
        assert!(!rsa_key_is_acceptable(&good[..cut]));
    }
    let mut longer = good;
    longer.push(0);
    assert!(!rsa_key_is_acceptable(&longer));
}

#[test]
fn rsa_1024_signatures_are_refused_where_the_published_crate_accepts_them() {
    let folder = Folder::new("rsa");
    let (message, path) = (b"a handshake", &folder.0);
    std::fs::write(path.join("message"), message).unwrap();
    for (bits, acceptable) in [(1_024, false), (2_048, true)] {
        openssl(path, &format!("genrsa -traditional -out key {bits}"));
        openssl(path, "rsa -in key -RSAPublicKey_out -outform DER -out public");
        let public = std::fs::read(path.join("public")).unwrap();
        for (hash, pkcs1, pss) in [
            ("sha256", alg_id::RSA_PKCS1_SHA256, alg_id::RSA_PSS_SHA256),
            ("sha384", alg_id::RSA_PKCS1_SHA384, alg_id::RSA_PSS_SHA384),
            ("sha512", alg_id::RSA_PKCS1_SHA512, alg_id::RSA_PSS_SHA512),
        ] {
            for (name, option) in [(pkcs1, ""), (pss, " -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest")] {
                if bits == 1_024 && hash == "sha512" && !option.is_empty() {
                    continue; // does not fit
                }
                openssl(path, &format!("dgst -{hash} -sign key{option} -out signature message"));
                let signature = std::fs::read(path.join("signature")).unwrap();
                let of = |algorithms: WebPkiSupportedAlgorithms| {
                    *algorithms.all.iter().find(|algorithm| algorithm.signature_alg_id() == name).unwrap()
                };
                let published = of(rustls_rustcrypto::provider().signature_verification_algorithms);
                assert!(published.verify_signature(&public, message, &signature).is_ok(), "{bits} {hash}");
                let ours = of(algorithms());
                assert_eq!(ours.verify_signature(&public, message, &signature).is_ok(), acceptable, "{bits} {hash}");
                assert!(ours.verify_signature(&public, b"another", &signature).is_err());
            }
        }
    }
}

#[test]
fn every_algorithm_of_the_published_crate_is_there_and_nothing_of_sha_1() {
    let (ours, base) = (algorithms(), rustls_rustcrypto::provider().signature_verification_algorithms);
    assert_eq!(ours.all.len(), base.all.len());
    for ((scheme, list), (expected, base_list)) in ours.mapping.iter().zip(base.mapping) {
        assert_eq!(scheme, expected);
        assert_eq!(list.len(), base_list.len());
        for (one, other) in list.iter().zip(*base_list) {
            assert_eq!(one.signature_alg_id(), other.signature_alg_id());
            assert_eq!(one.public_key_alg_id(), other.public_key_alg_id());
        }
        assert!(!matches!(*scheme, SignatureScheme::RSA_PKCS1_SHA1 | SignatureScheme::ECDSA_SHA1_Legacy));
    }
    for algorithm in ours.all.iter().chain(ours.mapping.iter().flat_map(|(_, list)| list.iter())) {
        let rsa = algorithm.public_key_alg_id() == alg_id::RSA_ENCRYPTION;
        assert_eq!(format!("{algorithm:?}").starts_with("BoundedRsa"), rsa, "{algorithm:?}");
    }
}

#[test]
fn server_keys_are_p256_p384_and_ed25519_and_no_others() {
    let folder = Folder::new("keys");
    for (arguments, acceptable) in [
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-256", true),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-384", true),
        ("-algorithm ED25519", true),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-521", false),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1", false),
        ("-algorithm ED448", false),
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:2048", false),
    ] {
        openssl(&folder.0, &format!("genpkey {arguments} -out key"));
        let loaded = ServerKeys.load_private_key(PrivateKeyDer::from_pem_file(folder.0.join("key")).unwrap());
        assert_eq!(loaded.is_ok(), acceptable, "{arguments}");
        if let Ok(key) = loaded {
            let schemes = [
                SignatureScheme::ECDSA_NISTP256_SHA256,
                SignatureScheme::ECDSA_NISTP384_SHA384,
                SignatureScheme::ED25519,
            ];
            assert!(!key.choose_scheme(&schemes).unwrap().sign(b"text").unwrap().is_empty());
        }
    }
    assert!(ServerKeys.load_private_key(PrivateKeyDer::Pkcs8(vec![0x30, 0].into())).is_err());
}
