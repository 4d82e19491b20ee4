//! One certificate revocation list (RFC 5280 §5): read once, asked by serial number.
//!
//! In: DER. webpki reads it and refuses what it cannot honour: delta and indirect lists, lists for some reasons only, unknown
//! critical extensions. Out: whether a serial number is on it, and whether a key has signed it. webpki's own check would
//! hash the whole list for every handshake; here the answer is remembered for each key, and entries take 22 bytes.
//!
//! **Invariant:** entries are sorted by serial number, and a list is never changed.

use crate::distinguished_name::DistinguishedName;
use crate::time::UnixTime;
use core::fmt;
use rustls_pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use std::sync::{Mutex, PoisonError};
use webpki::{BorrowedCertRevocationList, CertRevocationList, RawPublicKeyEntity, RevocationReason};
use x509_cert::der::asn1::{AnyRef, BitStringRef};
use x509_cert::der::{self, Decode, Reader, SliceReader, Tag, Tagged};
use x509_cert::name::Name;
use x509_cert::time::Time;

/// Longest serial number, in bytes. RFC 5280 §4.1.2.2.
pub const SERIAL_BYTES_MAX: usize = 20;
/// Keys for which it is remembered whether they have signed a list. More authorities of one name are asked each time.
const KEYS_REMEMBERED_MAX: usize = 4;

/// A serial number without leading zeros; of 0, nothing is left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Serial {
    length: u8,
    bytes: [u8; SERIAL_BYTES_MAX],
}

impl Serial {
    /// The number that big-endian `bytes` are. `None` when it is longer than [`SERIAL_BYTES_MAX`].
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let number = bytes.get(zeros..)?;
        let mut copy = [0; SERIAL_BYTES_MAX];
        copy.get_mut(..number.len())?.copy_from_slice(number);
        Some(Self { length: u8::try_from(number.len()).ok()?, bytes: copy })
    }
}

impl fmt::Display for Serial {
    /// Hexadecimal, as OpenSSL's `-serial` prints it but for the case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        if number.is_empty() {
            return f.write_str("00");
        }
        number.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Why a list cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListFault {
    /// It is not a list in DER, or has something in it that RFC 5280 forbids.
    Malformed,
    /// It is of version 1, which has no extensions.
    Version,
    /// It does not say when the next one is due.
    NextUpdateMissing,
    /// It is a delta to another list.
    Delta,
    /// It has entries of several authorities.
    Indirect,
    /// It is for some reasons of revocation, or for attribute certificates, or relative to another name.
    Scope,
    /// It has a critical extension that is not known.
    CriticalExtension,
    /// A serial number is longer than [`SERIAL_BYTES_MAX`] bytes.
    Serial,
    /// It has more entries than there is room for.
    Entries,
}

impl fmt::Display for ListFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not a well-formed revocation list",
            Self::Version => "the list is of version 1; the authority must number its lists (crlnumber in openssl.cnf)",
            Self::NextUpdateMissing => "the list has no nextUpdate",
            Self::Delta => "delta lists are not supported; a complete list is needed",
            Self::Indirect => "indirect lists are not supported; each authority needs its own",
            Self::Scope => "the list's issuingDistributionPoint is not supported",
            Self::CriticalExtension => "the list has an unknown critical extension",
            Self::Serial => "a serial number of the list is longer than 20 bytes",
            Self::Entries => "too many entries",
        })
    }
}

impl core::error::Error for ListFault {}

impl From<webpki::Error> for ListFault {
    fn from(error: webpki::Error) -> Self {
        match error {
            webpki::Error::UnsupportedCrlVersion => Self::Version,
            webpki::Error::UnsupportedDeltaCrl => Self::Delta,
            webpki::Error::UnsupportedIndirectCrl => Self::Indirect,
            webpki::Error::UnsupportedCrlIssuingDistributionPoint
            | webpki::Error::UnsupportedRevocationReasonsPartitioning => Self::Scope,
            webpki::Error::UnsupportedCriticalExtension => Self::CriticalExtension,
            _ => Self::Malformed,
        }
    }
}

/// A revoked certificate.
#[derive(Clone, Copy, Debug)]
struct Entry {
    serial: Serial,
    reason: Option<RevocationReason>,
}

/// A list.
#[derive(Debug)]
pub struct RevocationList {
    /// The authority whose certificates it is about.
    pub issuer: DistinguishedName,
    /// When it was made.
    pub this_update: UnixTime,
    /// When the next one is due.
    pub next_update: UnixTime,
    /// The issuingDistributionPoint in DER: an authority may divide its certificates among several lists.
    pub scope: Option<Box<[u8]>>,
    entries: Box<[Entry]>,
    /// What is signed, in DER.
    signed: Box<[u8]>,
    /// The content of the signature's AlgorithmIdentifier.
    algorithm: Box<[u8]>,
    signature: Box<[u8]>,
    /// Keys that were asked for, as SubjectPublicKeyInfo, and whether they have signed this.
    keys: Mutex<Vec<(Box<[u8]>, bool)>>,
}

impl RevocationList {
    /// Reads a list in DER with at most `entries_max` entries.
    ///
    /// # Errors
    /// What keeps it from being used.
    pub fn read(bytes: &[u8], entries_max: usize) -> Result<Self, ListFault> {
        let head = Head::read(bytes)?;
        let list = BorrowedCertRevocationList::from_der(bytes)?;
        let mut entries = Vec::new();
        for revoked in &list {
            let revoked = revoked?;
            if entries.len() == entries_max {
                return Err(ListFault::Entries);
            }
            let serial = Serial::new(revoked.serial_number).ok_or(ListFault::Serial)?;
            entries.push(Entry { serial, reason: revoked.reason_code });
        }
        entries.sort_unstable_by_key(|entry| entry.serial);
        let scope = CertRevocationList::from(list).issuing_distribution_point().map(Box::from);
        Ok(Self {
            issuer: DistinguishedName::from_name(&head.issuer).map_err(|_| ListFault::Malformed)?,
            this_update: head.this_update,
            next_update: head.next_update,
            scope,
            entries: entries.into_boxed_slice(),
            signed: head.signed.into(),
            algorithm: head.algorithm.into(),
            signature: head.signature.into(),
            keys: Mutex::default(),
        })
    }

    /// Number of revoked certificates.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Whether `serial` is revoked, and if so, why.
    #[must_use]
    pub fn find(&self, serial: &Serial) -> Option<Option<RevocationReason>> {
        let index = self.entries.binary_search_by_key(serial, |entry| entry.serial).ok()?;
        self.entries.get(index).map(|entry| entry.reason)
    }

    /// Whether the key of `key_info`, a SubjectPublicKeyInfo in DER, has signed it. The whole list is hashed for the first
    /// question about a key.
    #[must_use]
    pub fn is_signed_by(&self, key_info: &[u8], algorithms: &[&dyn SignatureVerificationAlgorithm]) -> bool {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, signed)) = keys.iter().find(|(key, _)| **key == *key_info) {
            return *signed;
        }
        let signed = self.verify(key_info, algorithms);
        if keys.len() < KEYS_REMEMBERED_MAX {
            keys.push((key_info.into(), signed));
        }
        signed
    }

    fn verify(&self, key_info: &[u8], algorithms: &[&dyn SignatureVerificationAlgorithm]) -> bool {
        let key_info = SubjectPublicKeyInfoDer::from(key_info);
        let Ok(key) = RawPublicKeyEntity::try_from(&key_info) else { return false };
        algorithms
            .iter()
            .filter(|algorithm| *algorithm.signature_alg_id() == *self.algorithm)
            .any(|algorithm| key.verify_signature(*algorithm, &self.signed, &self.signature).is_ok())
    }
}

/// What stands around the entries, and webpki keeps to itself.
struct Head<'a> {
    signed: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
    issuer: Name,
    this_update: UnixTime,
    next_update: UnixTime,
}

impl<'a> Head<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ListFault> {
        let malformed = |_: der::Error| ListFault::Malformed;
        let list = sequence(bytes).map_err(malformed)?;
        let mut reader = SliceReader::new(list).map_err(malformed)?;
        let signed = reader.tlv_bytes().map_err(malformed)?;
        let algorithm = AnyRef::decode(&mut reader).map_err(malformed)?;
        let signature = BitStringRef::decode(&mut reader).map_err(malformed)?;

        let mut reader = SliceReader::new(sequence(signed).map_err(malformed)?).map_err(malformed)?;
        if AnyRef::decode(&mut reader).map_err(malformed)?.tag() != Tag::Integer {
            return Err(ListFault::Version);
        }
        AnyRef::decode(&mut reader).map_err(malformed)?;
        let issuer = Name::decode(&mut reader).map_err(malformed)?;
        let this_update = Time::decode(&mut reader).map_err(malformed)?;
        let next_update = Time::decode(&mut reader).map_err(|_| ListFault::NextUpdateMissing)?;
        Ok(Self {
            signed,
            algorithm: algorithm.value(),
            signature: signature.as_bytes().ok_or(ListFault::Malformed)?,
            issuer,
            this_update: UnixTime(this_update.to_unix_duration().as_secs()),
            next_update: UnixTime(next_update.to_unix_duration().as_secs()),
        })
    }
}

/// The content of the SEQUENCE that `bytes` are.
fn sequence(bytes: &[u8]) -> der::Result<&[u8]> {
    let any = AnyRef::from_der(bytes)?;
    any.tag().assert_eq(Tag::Sequence)?;
    Ok(any.value())
}
