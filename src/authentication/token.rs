//! Service-account tokens, verified without a cluster: signature, issuer, audience, dates and subject of a JWT.
//!
//! In: the token as the client sent it, and the time. Out: which service account it is for and until when, or what is wrong
//! with it. Nothing of a token is believed before its signature; the issuer that it names only selects the keys to try.
//!
//! **Invariant:** a key verifies one algorithm, which follows from the key. What the header names is compared with it and
//! decides nothing, so that neither `none` nor HS256 with a public key as secret is ever tried.
//!
//! Deliberately absent: revocation. A TokenReview of the cluster knows that a token's account or pod is gone; its signature
//! does not.

use super::key_set::{KeySet, TokenKey};
use super::service_account::ServiceAccount;
use crate::limits::TOKEN_BYTES_MAX;
use crate::time::UnixTime;
use core::fmt;
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;

/// How far the clocks of issuer and gateway may differ where a token says when it begins, in seconds. Its end is exact:
/// nobody should be able to use a token longer than was meant.
const LEEWAY_SECONDS: u64 = 60;
/// Most keys tried on one token, so that a login costs a bounded time.
const KEYS_TRIED_MAX: usize = 8;

/// Somebody whose tokens are believed.
#[derive(Clone, Debug)]
pub struct TokenIssuer {
    /// What the `iss` claim of its tokens says, to the letter: `--service-account-issuer` of the cluster.
    pub issuer: String,
    /// Its keys.
    pub keys: KeySet,
}

/// Why a verifier cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifierFault {
    /// There is no issuer.
    NoIssuers,
    /// An issuer has no name, or two have the same.
    Issuer(String),
    /// There is no audience, or one that is empty.
    Audiences,
}

impl fmt::Display for VerifierFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoIssuers => f.write_str("no issuer of tokens is given"),
            Self::Issuer(issuer) => write!(f, "issuer '{}' is empty or given twice", issuer.escape_debug()),
            Self::Audiences => f.write_str("no audience is given, or an empty one"),
        }
    }
}

impl core::error::Error for VerifierFault {}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// Longer than [`TOKEN_BYTES_MAX`].
    TooLarge,
    /// Not three parts, the header not in base64url or JSON, or an algorithm that no registry knows or that signs nothing.
    Header,
    /// The algorithm is none of RS256, ES256, ES384 and EdDSA.
    Algorithm,
    /// The header demands that an extension be understood (`crit`, RFC 7515 §4.1.11).
    Critical,
    /// The claims are not in base64url or JSON, one that is needed is of the wrong type, or one stands twice.
    Claims,
    /// There is no issuer, or it is nobody whose tokens are believed.
    Issuer,
    /// The issuer has no key with the identifier that the token names.
    UnknownKey,
    /// The issuer has keys, but none for the token's algorithm.
    KeyAlgorithm,
    /// More than eight keys could be the right one.
    TooManyKeys,
    /// No key of the issuer made the signature.
    Signature,
    /// It is for somebody else.
    Audience,
    /// It says nothing about its end.
    NoExpiry,
    /// It has ended.
    Expired,
    /// It has yet to begin.
    NotYetValid,
    /// It says that it was issued in the future.
    IssuedLater,
    /// It is not for a service account.
    Subject,
}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the token is too long",
            Self::Header => "not a token, or its header is malformed or names an unknown algorithm",
            Self::Algorithm => "the token's algorithm is none of RS256, ES256, ES384 and EdDSA",
            Self::Critical => "the token's header demands an extension",
            Self::Claims => "the token's claims are malformed",
            Self::Issuer => "the token's issuer is not known",
            Self::UnknownKey => "the token's issuer has no key with the identifier that it names",
            Self::KeyAlgorithm => "the token's issuer has no key for its algorithm",
            Self::TooManyKeys => "the token does not say which of its issuer's many keys signed it",
            Self::Signature => "the token's signature is wrong",
            Self::Audience => "the token is for another audience",
            Self::NoExpiry => "the token has no expiry",
            Self::Expired => "the token is expired",
            Self::NotYetValid => "the token is not yet valid",
            Self::IssuedLater => "the token was issued in the future",
            Self::Subject => "the token is not for a service account",
        })
    }
}

impl core::error::Error for TokenFault {}

/// What a token proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedToken {
    /// Whose it is.
    pub account: ServiceAccount,
    /// From when on it proves nothing.
    pub expires: UnixTime,
}

/// The claims that are looked at (RFC 7519 §4.1). Dates are whole seconds, which is how Kubernetes writes them; anything
/// else is malformed.
#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    sub: Option<String>,
    aud: Option<Audience>,
    exp: Option<u64>,
    nbf: Option<u64>,
    iat: Option<u64>,
}

/// `aud`: one or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn names(&self, audience: &str) -> bool {
        match self {
            Self::One(name) => name == audience,
            Self::Several(names) => names.iter().any(|name| name == audience),
        }
    }
}

/// Judges tokens of a few issuers.
#[derive(Clone, Debug)]
pub struct TokenVerifier {
    issuers: Vec<TokenIssuer>,
    audiences: Vec<String>,
}

impl TokenVerifier {
    /// A verifier that takes tokens of `issuers` which are for at least one of `audiences`.
    ///
    /// # Errors
    /// Nobody would be let in, or it would not be clear by which keys.
    pub fn new(issuers: Vec<TokenIssuer>, audiences: Vec<String>) -> Result<Self, VerifierFault> {
        if issuers.is_empty() {
            return Err(VerifierFault::NoIssuers);
        }
        let is_double = |name: &str| issuers.iter().filter(|other| other.issuer == name).count() > 1;
        if let Some(wrong) = issuers.iter().find(|one| one.issuer.is_empty() || is_double(&one.issuer)) {
            return Err(VerifierFault::Issuer(wrong.issuer.clone()));
        }
        if audiences.is_empty() || audiences.iter().any(String::is_empty) {
            return Err(VerifierFault::Audiences);
        }
        Ok(Self { issuers, audiences })
    }

    /// Judges `token` at the time `now`. Takes time: up to eight signatures are verified.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn verify(&self, token: &[u8], now: UnixTime) -> Result<VerifiedToken, TokenFault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::TooLarge);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenFault::Header)?;
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256 | Algorithm::ES384 | Algorithm::EdDSA) {
            return Err(TokenFault::Algorithm);
        }
        if header.crit.is_some() {
            return Err(TokenFault::Critical);
        }
        let issuer = self.issuer(unverified_claims(token)?.iss.as_deref())?;
        let keys = candidates(&issuer.keys, header.kid.as_deref(), header.alg)?;
        let claims = verified_claims(token, &keys)?;
        // The same bytes again, but what follows stands on the signature alone.
        if claims.iss.as_ref() != Some(&issuer.issuer) {
            return Err(TokenFault::Issuer);
        }
        self.judge(&claims, now)
    }

    fn issuer(&self, name: Option<&str>) -> Result<&TokenIssuer, TokenFault> {
        let name = name.ok_or(TokenFault::Issuer)?;
        self.issuers.iter().find(|issuer| issuer.issuer == name).ok_or(TokenFault::Issuer)
    }

    /// Judges what a verified token says.
    fn judge(&self, claims: &Claims, now: UnixTime) -> Result<VerifiedToken, TokenFault> {
        let audience = claims.aud.as_ref().ok_or(TokenFault::Audience)?;
        if !self.audiences.iter().any(|accepted| audience.names(accepted)) {
            return Err(TokenFault::Audience);
        }
        let expires = UnixTime(claims.exp.ok_or(TokenFault::NoExpiry)?);
        if expires <= now {
            return Err(TokenFault::Expired);
        }
        let latest_begin = now.plus_seconds(LEEWAY_SECONDS);
        if claims.nbf.is_some_and(|begin| UnixTime(begin) > latest_begin) {
            return Err(TokenFault::NotYetValid);
        }
        if claims.iat.is_some_and(|issued| UnixTime(issued) > latest_begin) {
            return Err(TokenFault::IssuedLater);
        }
        let account = claims.sub.as_deref().and_then(ServiceAccount::from_subject).ok_or(TokenFault::Subject)?;
        Ok(VerifiedToken { account, expires })
    }
}

fn unverified_claims(token: &[u8]) -> Result<Claims, TokenFault> {
    jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| TokenFault::Claims)
}

/// The keys that can have signed a token: those with its key identifier, or all where it names none, as far as they are
/// for its algorithm. At least one, at most [`KEYS_TRIED_MAX`].
fn candidates<'a>(
    keys: &'a KeySet,
    identifier: Option<&str>,
    algorithm: Algorithm,
) -> Result<Vec<&'a TokenKey>, TokenFault> {
    let mut candidates: Vec<_> =
        keys.iter().filter(|key| identifier.is_none() || key.identifier.as_deref() == identifier).collect();
    if candidates.is_empty() {
        return Err(TokenFault::UnknownKey);
    }
    candidates.retain(|key| key.algorithm == algorithm);
    match candidates.len() {
        0 => Err(TokenFault::KeyAlgorithm),
        1..=KEYS_TRIED_MAX => Ok(candidates),
        _ => Err(TokenFault::TooManyKeys),
    }
}

/// The claims of a token that one of `keys` signed.
fn verified_claims(token: &[u8], keys: &[&TokenKey]) -> Result<Claims, TokenFault> {
    for key in keys {
        // Only the signature: the library would judge dates by a clock of its own, and take a claim of the wrong type for
        // one that is not there.
        let mut validation = Validation::new(key.algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        if let Ok(verified) = jsonwebtoken::decode(token, &key.key, &validation) {
            return Ok(verified.claims);
        }
    }
    Err(TokenFault::Signature)
}

#[cfg(test)]
mod tests;
