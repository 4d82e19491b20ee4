//! Credentials in, an identity or a refusal out.
//!
//! The methods of a BrokerAuthentication are tried in order. The first whose credentials are there decides: a certificate
//! that is refused is not a reason to ask the next method. Where no method finds its credentials, the client is refused.
//!
//! **Invariant:** nothing is remembered between two clients, and every doubt is a refusal.

mod authenticator;
mod chain;
mod question;
#[cfg(test)]
mod tests;
mod x509;

pub use authenticator::{Authenticator, AuthenticatorFault, ClientCertificates, Evidence, Refusal, Verdict};
pub use chain::{BundleFault, ChainFault, ChainVerifier, Dates, SignatureAlgorithms, VerifiedPath};
pub use question::{Answer, Inquiry, Proof, Question};
