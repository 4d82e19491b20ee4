//! Makes revocation lists, for tests that need good and bad ones.

use super::{Issued, PkiFault, encoding, time};
use crate::time::UnixTime;
use x509_cert::Version;
use x509_cert::crl::{CertificateList, RevokedCert, TbsCertList};
use x509_cert::der::asn1::{OctetString, Uint};
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::{Encode, Tag};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{CrlNumber, CrlReason};
use x509_cert::serial_number::SerialNumber;

/// id-ce-cRLReasons with keyCompromise, RFC 5280 §5.3.1.
fn key_compromise() -> Result<Extension, PkiFault> {
    let value = OctetString::new([u8::from(Tag::Enumerated), 1, CrlReason::KeyCompromise as u8]).map_err(encoding)?;
    Ok(Extension { extn_id: CrlReason::OID, critical: false, extn_value: value })
}

impl Issued {
    /// A list in DER, of these serial numbers, for the compromise of their keys. `edit` changes it before it is signed.
    ///
    /// # Errors
    /// Contents that cannot be encoded.
    pub fn revocation_list<'a>(
        &self,
        serials: impl IntoIterator<Item = &'a [u8]>,
        this_update: UnixTime,
        next_update: UnixTime,
        edit: impl FnOnce(&mut TbsCertList),
    ) -> Result<Vec<u8>, PkiFault> {
        let entry = |serial| {
            Ok(RevokedCert {
                serial_number: SerialNumber::new(serial).map_err(encoding)?,
                revocation_date: time(this_update)?,
                crl_entry_extensions: Some(vec![key_compromise()?]),
            })
        };
        let entries = serials.into_iter().map(entry).collect::<Result<Vec<_>, PkiFault>>()?;
        let number = CrlNumber(Uint::new(&[1]).map_err(encoding)?).to_der().map_err(encoding)?;
        let number = OctetString::new(number).map_err(encoding)?;
        let algorithm = self.certificate.signature_algorithm.clone();
        let mut content = TbsCertList {
            version: Version::V2,
            signature: algorithm.clone(),
            issuer: self.certificate.tbs_certificate.subject.clone(),
            this_update: time(this_update)?,
            next_update: Some(time(next_update)?),
            revoked_certificates: Some(entries).filter(|entries| !entries.is_empty()),
            crl_extensions: Some(vec![Extension { extn_id: CrlNumber::OID, critical: false, extn_value: number }]),
        };
        edit(&mut content);
        let signature = self.signature_of(&content)?;
        CertificateList { tbs_cert_list: content, signature_algorithm: algorithm, signature }.to_der().map_err(encoding)
    }

    /// The serial number of the certificate, as its INTEGER has it.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        self.certificate.tbs_certificate.serial_number.as_bytes()
    }

    /// The SubjectPublicKeyInfo of the certificate in DER.
    ///
    /// # Errors
    /// Cannot happen for what was encoded before.
    pub fn public_key_info(&self) -> Result<Vec<u8>, PkiFault> {
        self.certificate.tbs_certificate.subject_public_key_info.to_der().map_err(encoding)
    }
}
