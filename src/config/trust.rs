//! ConfigMaps of certificate authorities.

use super::diagnostic::{Place, Report, quoted};
use super::resources::{ConfigMap, Entry};
use rustls_pki_types::pem::{PemObject, SectionKind};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::BasicConstraints;

/// Most certificates of one bundle.
const CERTIFICATES_MAX: usize = 1_024;

/// Every certificate under every key of a ConfigMap, in DER.
pub fn read_bundle(name: &str, map: &ConfigMap, place: &Place, report: &mut Report) -> Vec<Vec<u8>> {
    let errors_before = report.errors();
    let mut certificates = Vec::new();
    for (key, pem) in &map.entries {
        let found_before = certificates.len();
        read_entry(key, pem, &mut certificates, report);
        if certificates.len() == found_before && report.errors() == errors_before {
            report.error(&pem.place, format!("{} of the ConfigMap {} holds no certificate", quoted(key), quoted(name)));
        }
    }
    if certificates.is_empty() && report.errors() == errors_before {
        report.error(place, format!("the ConfigMap {} holds no certificate", quoted(name)));
    }
    if certificates.len() > CERTIFICATES_MAX {
        report.error(
            place,
            format!(
                "the ConfigMap {} holds {} certificates, more than {CERTIFICATES_MAX}",
                quoted(name),
                certificates.len()
            ),
        );
    }
    certificates
}

fn read_entry(key: &str, pem: &Entry, certificates: &mut Vec<Vec<u8>>, report: &mut Report) {
    for (index, section) in <(SectionKind, Vec<u8>)>::pem_slice_iter(&pem.contents).enumerate() {
        let place = pem.place_of_section(index);
        match section {
            Ok((SectionKind::Certificate, der)) => match Certificate::from_der(&der) {
                Ok(certificate) => {
                    note_unless_authority(&certificate, &place, report);
                    certificates.push(der);
                }
                Err(_) => {
                    report.error(&place, format!("certificate {} of {} cannot be parsed", index + 1, quoted(key)))
                }
            },
            Ok((SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey, _)) => {
                report.error(
                    &place,
                    format!("{} holds a private key: a ConfigMap is public, and holds certificates only", quoted(key)),
                );
            }
            Ok(_) => report.error(&place, format!("section {} of {} is not a certificate", index + 1, quoted(key))),
            Err(_) => return report.error(&place, format!("{} is not well-formed PEM", quoted(key))),
        }
    }
}

fn note_unless_authority(certificate: &Certificate, place: &Place, report: &mut Report) {
    let constraints = certificate.tbs_certificate.get::<BasicConstraints>();
    if !matches!(constraints, Ok(Some((_, BasicConstraints { ca: true, .. })))) {
        let subject = certificate.tbs_certificate.subject.to_string();
        report.note(place, format!("the certificate {} is not marked as an authority", quoted(&subject)));
    }
}
