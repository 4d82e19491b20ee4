//! Key sets of token issuers: the JSON Web Key Set (RFC 7517) that a cluster publishes at `/openid/v1/jwks`.
//!
//! In: the document as text. Out: public keys, each with the one algorithm that it verifies. Keys of other types or for
//! other purposes are left out, as RFC 7517 §5 says; a key that is ours to use and broken is an error, because its tokens
//! would be refused later without anybody knowing why.
//!
//! **Invariant:** the algorithm follows from the key (`kty`, `crv`), never from a token. There are no symmetric keys.

use crate::crypto::signatures::rsa_key_is_acceptable;
use base64ct::{Base64UrlUnpadded, Encoding as _};
use core::fmt;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::IgnoredAny;
use x509_cert::der::Encode as _;
use x509_cert::der::asn1::{SequenceOf, UintRef};

/// Most keys in one set, those that are left out included.
pub const KEYS_MAX: usize = 64;
/// Longest document, in bytes: room for 64 keys with certificate chains.
pub const KEY_SET_BYTES_MAX: usize = 512 * 1024;

/// Why a key set cannot be used. Indices count the entries of `keys` from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySetFault {
    /// It is longer than [`KEY_SET_BYTES_MAX`].
    TooLarge,
    /// It is not JSON, or not of the form of a key set.
    Malformed {
        /// Line, from 1.
        line: usize,
        /// Column, from 1, in bytes.
        column: usize,
    },
    /// It has more than [`KEYS_MAX`] keys.
    TooManyKeys,
    /// A key is symmetric: who can verify with it can also sign.
    Symmetric {
        /// Which key.
        index: usize,
    },
    /// A key has its private part beside it.
    Private {
        /// Which key.
        index: usize,
    },
    /// A key lacks a part, is not in base64url, or is not a point of its curve.
    Key {
        /// Which key.
        index: usize,
    },
    /// An RSA key is not within the bounds of [`rsa_key_is_acceptable`].
    RsaBounds {
        /// Which key.
        index: usize,
    },
    /// No key is left that verifies RS256, ES256, ES384 or EdDSA.
    Empty,
}

impl fmt::Display for KeySetFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => write!(f, "the key set is longer than {KEY_SET_BYTES_MAX} bytes"),
            Self::Malformed { line, column } => {
                write!(f, "line {line}, column {column}: this is not a JSON Web Key Set")
            }
            Self::TooManyKeys => write!(f, "the key set has more than {KEYS_MAX} keys"),
            Self::Symmetric { index } => {
                write!(f, "key {} is symmetric: whoever reads it could make tokens", index + 1)
            }
            Self::Private { index } => write!(f, "key {} has its private part beside it", index + 1),
            Self::Key { index } => write!(f, "key {} is incomplete or malformed", index + 1),
            Self::RsaBounds { index } => {
                write!(f, "key {} is an RSA key outside of 2048 to 4096 bits, or with a weak exponent", index + 1)
            }
            Self::Empty => f.write_str("the key set has no key for RS256, ES256, ES384 or EdDSA"),
        }
    }
}

impl core::error::Error for KeySetFault {}

/// The document. Members that are not here are ignored; a member that is here twice is an error.
#[derive(Deserialize)]
struct Document {
    keys: Vec<Entry>,
}

/// One key of the document.
#[derive(Deserialize)]
struct Entry {
    kty: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<IgnoredAny>,
}

/// A public key of an issuer.
#[derive(Clone, Debug)]
pub(super) struct TokenKey {
    /// `kid`, where it has one.
    pub identifier: Option<String>,
    /// The only algorithm that it verifies.
    pub algorithm: Algorithm,
    /// The key itself, of the type that `algorithm` needs.
    pub key: DecodingKey,
}

/// The public keys of an issuer: at least one, at most [`KEYS_MAX`].
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: Vec<TokenKey>,
}

impl KeySet {
    /// Reads a JSON Web Key Set.
    ///
    /// # Errors
    /// A document that is too large or malformed, a key that must not be there, a key that is broken, or no key at all.
    pub fn parse(text: &str) -> Result<Self, KeySetFault> {
        if text.len() > KEY_SET_BYTES_MAX {
            return Err(KeySetFault::TooLarge);
        }
        let document: Document = serde_json::from_str(text)
            .map_err(|error| KeySetFault::Malformed { line: error.line(), column: error.column() })?;
        if document.keys.len() > KEYS_MAX {
            return Err(KeySetFault::TooManyKeys);
        }
        let mut keys = Vec::new();
        for (index, entry) in document.keys.iter().enumerate() {
            keys.extend(token_key(entry, index)?);
        }
        if keys.is_empty() {
            return Err(KeySetFault::Empty);
        }
        Ok(Self { keys })
    }

    /// Reads several JSON Web Key Sets as one.
    ///
    /// # Errors
    /// As [`Self::parse`], of each; and when they have more than [`KEYS_MAX`] keys together, or there is no set.
    pub fn parse_all<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, KeySetFault> {
        let mut keys = Vec::new();
        for text in texts {
            keys.extend(Self::parse(text)?.keys);
            if keys.len() > KEYS_MAX {
                return Err(KeySetFault::TooManyKeys);
            }
        }
        if keys.is_empty() { Err(KeySetFault::Empty) } else { Ok(Self { keys }) }
    }

    /// The keys, in the order of the document.
    pub(super) fn iter(&self) -> impl Iterator<Item = &TokenKey> {
        self.keys.iter()
    }
}

/// The key of `entry`; `None` where it is not one for us.
fn token_key(entry: &Entry, index: usize) -> Result<Option<TokenKey>, KeySetFault> {
    if entry.kty == "oct" {
        return Err(KeySetFault::Symmetric { index });
    }
    if entry.d.is_some() {
        return Err(KeySetFault::Private { index });
    }
    let (algorithm, name) = match (entry.kty.as_str(), entry.crv.as_deref()) {
        ("RSA", _) => (Algorithm::RS256, "RS256"),
        ("EC", Some("P-256")) => (Algorithm::ES256, "ES256"),
        ("EC", Some("P-384")) => (Algorithm::ES384, "ES384"),
        ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, "EdDSA"),
        _ => return Ok(None),
    };
    let for_signatures = entry.purpose.as_deref().is_none_or(|purpose| purpose == "sig");
    let for_verifying = entry.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|name| name == "verify"));
    let for_algorithm = entry.alg.as_deref().is_none_or(|given| given == name);
    if !(for_signatures && for_verifying && for_algorithm) {
        return Ok(None);
    }
    let key = if algorithm == Algorithm::RS256 {
        let der = rsa_der(entry).ok_or(KeySetFault::Key { index })?;
        if !rsa_key_is_acceptable(&der) {
            return Err(KeySetFault::RsaBounds { index });
        }
        DecodingKey::from_rsa_der(&der)
    } else {
        curve_key(entry, algorithm).ok_or(KeySetFault::Key { index })?
    };
    Ok(Some(TokenKey { identifier: entry.kid.clone(), algorithm, key }))
}

/// An RSA key as `RSAPublicKey` (RFC 8017 §A.1.1), which is what our bounds are checked on.
fn rsa_der(entry: &Entry) -> Option<Vec<u8>> {
    let (modulus, exponent) = (bytes(entry.n.as_ref())?, bytes(entry.e.as_ref())?);
    let mut numbers = SequenceOf::<UintRef<'_>, 2>::new();
    numbers.add(UintRef::new(&modulus).ok()?).ok()?;
    numbers.add(UintRef::new(&exponent).ok()?).ok()?;
    numbers.to_der().ok()
}

/// A key on a curve. The JWT library takes bytes on trust and looks at them when a token comes, in the case of Ed25519
/// without looking at their number; therefore they are checked here.
fn curve_key(entry: &Entry, algorithm: Algorithm) -> Option<DecodingKey> {
    let x = bytes(entry.x.as_ref())?;
    if algorithm == Algorithm::EdDSA {
        let key = ed25519_dalek::VerifyingKey::try_from(x.as_slice()).ok()?;
        return (!key.is_weak()).then(|| DecodingKey::from_ed_der(key.as_bytes()));
    }
    let y = bytes(entry.y.as_ref())?;
    // An uncompressed point, SEC 1 §2.3.3. Both halves have full length, RFC 7518 §6.2.1.2: the sum alone would not tell.
    let point = [&[0x04], x.as_slice(), y.as_slice()].concat();
    let is_key = x.len() == y.len()
        && if algorithm == Algorithm::ES256 {
            p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).is_ok()
        } else {
            p384::ecdsa::VerifyingKey::from_sec1_bytes(&point).is_ok()
        };
    is_key.then(|| DecodingKey::from_ec_der(&point))
}

/// What a member in base64url (RFC 7515 §2) holds.
fn bytes(member: Option<&String>) -> Option<Vec<u8>> {
    Base64UrlUnpadded::decode_vec(member?).ok()
}
