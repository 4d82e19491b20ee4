//! Credentials in, an identity or a refusal out.
//!
//! The methods of a BrokerAuthentication are tried in order. The first whose credentials are there decides: a certificate
//! that is refused is not a reason to ask the next method. Where no method finds its credentials, the client is refused.
//!
//! **Invariant:** nothing is remembered between two clients but that a signature is good, and every doubt is a refusal.

mod authenticator;
mod chain;
pub mod custom;
mod deny_list;
mod json;
mod key_set;
mod method;
mod passwords;
mod question;
mod revocation;
mod revocation_list;
mod service_account;
mod signature_memo;
#[cfg(test)]
mod tests;
mod token;
pub mod token_review;
mod verdict;
mod x509;

pub use authenticator::{Authenticator, AuthenticatorFault, ClientCertificates, Granting};
pub use chain::{BundleFault, ChainFault, ChainVerifier, Dates, VerifiedPath};
pub use deny_list::{DENIALS_MAX, DENY_LIST_BYTES_MAX, Denial, DenyList};
pub use key_set::{KEY_SET_BYTES_MAX, KEYS_MAX, KeySet, KeySetFault};
pub use passwords::{
    Credential, HashFault, PASSWORD_MEMORY_BYTES_MAX, PASSWORDS_BYTES_MAX, PasswordAlgorithm, PasswordRefusal,
    Passwords, PasswordsFault, PasswordsFaultKind, USERS_MAX, hash_password,
};
pub use question::{Answer, Inquiry, Proof, Question};
pub use revocation::{
    LIST_BYTES_MAX, LIST_ENTRIES_MAX, LISTS_MAX, Link, ListTrouble, Objection, Revocation, RevocationFault,
    RevocationInForce, RevocationLists, Withdrawn, WithdrawnBy,
};
pub use revocation_list::{ListFault, RevocationList, SERIAL_BYTES_MAX, Serial};
pub use service_account::{AccountAttributes, AccountFault, ServiceAccount};
pub use signature_memo::{SignatureAlgorithms, SignatureMemo, Signatures};
pub use token::{TokenFault, TokenIssuer, TokenVerifier, VerifiedToken, VerifierFault};
pub use verdict::{Evidence, Refusal, Verdict};
