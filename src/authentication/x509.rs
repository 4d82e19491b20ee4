//! The X509 method: from a chain to a user name and attributes.

use super::chain::{ChainFault, ChainVerifier, VerifiedPath};
use super::verdict::Refusal;
use crate::config::blob::SubjectAttributes;
use crate::distinguished_name::DistinguishedName;
use crate::identity::{Attributes, AuthenticationMethod, Identity, IdentityFull, Principal, Username};
use crate::time::UnixTime;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;

/// The method X509 of one BrokerAuthentication.
#[derive(Debug)]
pub struct X509 {
    verifier: Arc<ChainVerifier>,
    entries: Vec<(DistinguishedName, Attributes)>,
}

impl X509 {
    /// The method with `entries` of `authorizationAttributes`.
    ///
    /// # Errors
    /// The label of an entry whose attributes do not fit a client's identity.
    pub fn new(verifier: ChainVerifier, entries: &[SubjectAttributes]) -> Result<Self, (&str, IdentityFull)> {
        let mut prepared = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut attributes = Attributes::new();
            for (name, value) in &entry.attributes {
                attributes.insert(name, value).map_err(|full| (entry.label.as_str(), full))?;
            }
            prepared.push((entry.subject.clone(), attributes));
        }
        Ok(Self { verifier: Arc::new(verifier), entries: prepared })
    }

    /// The judge of the chain.
    pub const fn verifier(&self) -> &Arc<ChainVerifier> {
        &self.verifier
    }

    /// Judges the chain and derives the identity. Subjects come from the path that was verified, the anchor included, never
    /// from what the client sent besides: somebody else's certificate in its list must not lend it attributes.
    ///
    /// # Errors
    /// The chain is refused, or its leaf has no unambiguous name.
    pub fn authenticate(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Identity, Refusal> {
        let path = self.verifier.verify(chain, now).map_err(Refusal::Chain)?;
        let username = username(&path)?;
        let (Some(subject), Some(anchor)) = (path.subjects.first(), path.subjects.last()) else {
            return Err(Refusal::Chain(ChainFault::Empty));
        };
        // A renewed certificate may have another subject around the same common name. Two authorities may give two clients
        // the same one.
        let name = match &username {
            Some(username) => format!("CN={username} below {anchor}"),
            None => format!("subject={subject} below {anchor}"),
        };
        let principal = Principal::new(AuthenticationMethod::X509, &name);
        Ok(Identity {
            method: AuthenticationMethod::X509,
            principal,
            username,
            attributes: self.attributes(&path),
            expires: Some(path.expires),
        })
    }

    /// The attributes of the first certificate, from the leaf upwards, whose subject has an entry. Nothing is merged: an
    /// entry for the leaf takes away what the intermediate would have granted.
    fn attributes(&self, path: &VerifiedPath) -> Attributes {
        let entry = self.granting_entry(path).and_then(|(_, entry)| self.entries.get(entry));
        entry.map(|(_, attributes)| attributes.clone()).unwrap_or_default()
    }

    /// Which certificate of the path, the leaf's being 0, has the entry that grants attributes, and which entry that is.
    pub fn granting_entry(&self, path: &VerifiedPath) -> Option<(usize, usize)> {
        let entry_for = |subject| self.entries.iter().position(|(entry, _)| entry.is_same_as(subject));
        let entries = path.subjects.iter().map(entry_for).enumerate();
        entries.filter_map(|(certificate, entry)| Some((certificate, entry?))).next()
    }
}

/// The common name of the leaf; none where its subject has none.
fn username(path: &VerifiedPath) -> Result<Option<Username>, Refusal> {
    let mut names = path.subjects.first().into_iter().flat_map(DistinguishedName::common_names);
    let Some(name) = names.next() else { return Ok(None) };
    if names.next().is_some() {
        return Err(Refusal::SeveralCommonNames);
    }
    name.try_into().map(Some).map_err(|_| Refusal::CommonNameTooLong)
}
