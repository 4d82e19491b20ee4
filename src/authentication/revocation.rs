//! What has been withdrawn: the revocation lists of authorities, and the deny list of the operator.
//!
//! In: lists in DER, a deny list. Out: a verdict on each certificate of a path that was verified. A reload makes new ones and
//! puts them into the place that handshakes, CONNECT and the judgement of live clients look at ([`RevocationInForce`]).
//!
//! **Invariants:** a verdict costs look-ups, whatever the length of the lists. An authority without a list revokes nothing;
//! one whose lists cannot be believed lets nobody in.

use super::deny_list::{Denial, DenyList};
use super::revocation_list::{ListFault, RevocationList, Serial};
use crate::config::blob::StaleRevocationLists;
use crate::distinguished_name::{Attribute, DistinguishedName};
use crate::time::UnixTime;
use core::fmt;
use rustls_pki_types::SignatureVerificationAlgorithm;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use webpki::RevocationReason;

/// Most lists of all authorities together.
pub const LISTS_MAX: usize = 128;
/// Most entries of all lists together. Each takes 22 bytes.
pub const LIST_ENTRIES_MAX: usize = 250_000;
/// Most bytes of DER of all lists together. They are kept, because the key that proves them may come with a client.
pub const LIST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long before its end a list is worth a warning, seconds; or the last quarter of its time, if that is shorter.
const STALE_WARNING_SECONDS: u64 = 24 * 3_600;

/// Why the lists cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevocationFault {
    /// One cannot be read.
    List(ListFault),
    /// More than [`LISTS_MAX`].
    Lists,
    /// More than [`LIST_BYTES_MAX`].
    Bytes,
}

impl fmt::Display for RevocationFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(ListFault::Entries) => {
                write!(f, "more than {LIST_ENTRIES_MAX} revoked certificates in all lists together")
            }
            Self::List(fault) => write!(f, "{fault}"),
            Self::Lists => write!(f, "more than {LISTS_MAX} revocation lists"),
            Self::Bytes => write!(f, "more than {LIST_BYTES_MAX} bytes in all lists together"),
        }
    }
}

impl core::error::Error for RevocationFault {}

/// Who has withdrawn a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WithdrawnBy {
    /// Its authority, for this reason.
    Authority(Option<RevocationReason>),
    /// The operator.
    Operator(Denial),
}

/// A certificate that has been withdrawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawn {
    /// Its subject.
    pub subject: DistinguishedName,
    /// Its serial number; `None` where it is longer than any that can be on a list.
    pub serial: Option<Serial>,
    /// Who did it.
    pub by: WithdrawnBy,
}

impl fmt::Display for Withdrawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.by {
            WithdrawnBy::Authority(None) => f.write_str("revoked")?,
            WithdrawnBy::Authority(Some(reason)) => write!(f, "revoked ({})", reason_name(*reason))?,
            WithdrawnBy::Operator(denial) => write!(f, "denied by line {} of the deny list", denial.line)?,
        }
        f.write_str(": ")?;
        if let Some(serial) = &self.serial {
            write!(f, "serial {serial}, ")?;
        }
        write!(f, "{}", self.subject)?;
        match &self.by {
            WithdrawnBy::Operator(Denial { reason: Some(reason), .. }) => write!(f, "; {}", reason.escape_debug()),
            WithdrawnBy::Operator(_) | WithdrawnBy::Authority(_) => Ok(()),
        }
    }
}

/// The name that RFC 5280 §5.3.1 gives a reason.
const fn reason_name(reason: RevocationReason) -> &'static str {
    match reason {
        RevocationReason::Unspecified => "unspecified",
        RevocationReason::KeyCompromise => "keyCompromise",
        RevocationReason::CaCompromise => "cACompromise",
        RevocationReason::AffiliationChanged => "affiliationChanged",
        RevocationReason::Superseded => "superseded",
        RevocationReason::CessationOfOperation => "cessationOfOperation",
        RevocationReason::CertificateHold => "certificateHold",
        RevocationReason::RemoveFromCrl => "removeFromCRL",
        RevocationReason::PrivilegeWithdrawn => "privilegeWithdrawn",
        RevocationReason::AaCompromise => "aACompromise",
    }
}

/// Why an authority's lists cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListTrouble {
    /// None is signed with the authority's key.
    Signature,
    /// The authority's key usage does not include cRLSign.
    KeyUsage,
    /// The next list has been due since then.
    Stale(UnixTime),
}

impl fmt::Display for ListTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signature => f.write_str("not signed by it"),
            Self::KeyUsage => f.write_str("its key usage lacks cRLSign"),
            Self::Stale(since) => write!(f, "stale since {since}"),
        }
    }
}

/// Why a path is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// A certificate of it has been withdrawn.
    Withdrawn(Box<Withdrawn>),
    /// The revocation lists of this authority cannot be believed.
    Lists(Box<DistinguishedName>, ListTrouble),
}

/// One certificate of a path.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its subject.
    pub subject: DistinguishedName,
    /// Who says to have issued it; verified for all but the anchor.
    pub issuer: DistinguishedName,
    /// Its serial number.
    pub serial: Option<Serial>,
    /// Its SubjectPublicKeyInfo in DER.
    pub key_info: Box<[u8]>,
    /// Whether its key usage, if it has one, includes cRLSign.
    pub signs_lists: bool,
}

/// The revocation lists of all authorities.
#[derive(Debug, Default)]
pub struct RevocationLists {
    /// By the relative names of their issuer.
    lists: BTreeMap<Vec<Vec<Attribute>>, Vec<RevocationList>>,
    accepts_stale: bool,
    count: usize,
    entries: usize,
    bytes: usize,
}

impl RevocationLists {
    /// No lists. `stale`: what becomes of the clients of an authority whose list is past its nextUpdate.
    #[must_use]
    pub fn new(stale: StaleRevocationLists) -> Self {
        Self { accepts_stale: stale == StaleRevocationLists::Accept, ..Self::default() }
    }

    /// Adds a list in DER, and returns it.
    ///
    /// # Errors
    /// It cannot be read, or there is no room for it.
    pub fn add(&mut self, der: &[u8]) -> Result<&RevocationList, RevocationFault> {
        if self.count == LISTS_MAX {
            return Err(RevocationFault::Lists);
        }
        let bytes = self.bytes.saturating_add(der.len());
        if bytes > LIST_BYTES_MAX {
            return Err(RevocationFault::Bytes);
        }
        let list = RevocationList::read(der, LIST_ENTRIES_MAX - self.entries).map_err(RevocationFault::List)?;
        (self.count, self.bytes, self.entries) = (self.count + 1, bytes, self.entries + list.count());
        let lists = self.lists.entry(list.issuer.relative_names.clone()).or_default();
        let at = lists.len();
        lists.push(list);
        Ok(&lists[at])
    }

    /// Asks the lists of `issuer` for the certificate `link`, which it has issued. Of several lists that are signed with its
    /// key, those of the same scope replace each other.
    fn ask(
        &self,
        link: &Link,
        issuer: &Link,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
        now: UnixTime,
    ) -> Result<(), Objection> {
        let Some(lists) = self.lists.get(&issuer.subject.relative_names) else { return Ok(()) };
        let trouble = |trouble| Err(Objection::Lists(Box::new(issuer.subject.clone()), trouble));
        if !issuer.signs_lists {
            return trouble(ListTrouble::KeyUsage);
        }
        // Another authority of the same name has lists of its own.
        let signed = || lists.iter().filter(|list| list.is_signed_by(&issuer.key_info, algorithms));
        let in_force = signed()
            .filter(|list| !signed().any(|other| other.scope == list.scope && other.this_update > list.this_update));
        let (mut believed, mut stale_since) = (false, None);
        for list in in_force {
            believed = true;
            if let Some(reason) = link.serial.and_then(|serial| list.find(&serial)) {
                return Err(withdrawn(link, WithdrawnBy::Authority(reason)));
            }
            if now >= list.next_update {
                stale_since = Some(list.next_update);
            }
        }
        match stale_since {
            _ if !believed => trouble(ListTrouble::Signature),
            Some(since) if !self.accepts_stale => trouble(ListTrouble::Stale(since)),
            Some(_) | None => Ok(()),
        }
    }

    /// What an operator should know before the clients do: lists that are stale or soon will be.
    #[must_use]
    pub fn warnings(&self, now: UnixTime) -> Vec<String> {
        let mut warnings = Vec::new();
        for list in self.lists.values().flatten() {
            let (issuer, end) = (&list.issuer, list.next_update);
            let quarter = end.0.saturating_sub(list.this_update.0) / 4;
            if now >= end {
                let what = if self.accepts_stale { "accepted all the same" } else { "refused" };
                warnings.push(format!("the revocation list of {issuer} is stale since {end}: its clients are {what}"));
            } else if end <= now.plus_seconds(quarter.min(STALE_WARNING_SECONDS)) {
                warnings.push(format!("the revocation list of {issuer} is stale from {end} on"));
            }
        }
        warnings
    }
}

/// What has been withdrawn.
#[derive(Clone, Debug, Default)]
pub struct Revocation {
    /// By authorities.
    pub lists: Arc<RevocationLists>,
    /// By the operator.
    pub deny_list: Arc<DenyList>,
}

impl Revocation {
    /// Judges a path: the leaf first, the anchor last.
    ///
    /// # Errors
    /// The first certificate that has been withdrawn; else the first authority whose lists cannot be believed.
    pub fn judge(
        &self,
        path: &[Link],
        algorithms: &[&dyn SignatureVerificationAlgorithm],
        now: UnixTime,
    ) -> Result<(), Objection> {
        let mut trouble = Ok(());
        for (index, link) in path.iter().enumerate() {
            if let Some(denial) = self.deny_list.find(link) {
                return Err(withdrawn(link, WithdrawnBy::Operator(denial.clone())));
            }
            let Some(issuer) = path.get(index + 1) else { continue };
            match self.lists.ask(link, issuer, algorithms, now) {
                Ok(()) => {}
                Err(objection @ Objection::Withdrawn(_)) => return Err(objection),
                // A list that is stale for now must not hide what is withdrawn for good.
                Err(objection @ Objection::Lists(..)) => trouble = trouble.and(Err(objection)),
            }
        }
        trouble
    }
}

fn withdrawn(link: &Link, by: WithdrawnBy) -> Objection {
    Objection::Withdrawn(Box::new(Withdrawn { subject: link.subject.clone(), serial: link.serial, by }))
}

/// The place where what is in force stands, for all who judge by it.
#[derive(Debug, Default)]
pub struct RevocationInForce(RwLock<Revocation>);

impl RevocationInForce {
    /// What is in force now.
    #[must_use]
    pub fn current(&self) -> Revocation {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other lists in force.
    pub fn replace_lists(&self, lists: Arc<RevocationLists>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).lists = lists;
    }

    /// Puts another deny list in force.
    pub fn replace_deny_list(&self, deny_list: Arc<DenyList>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).deny_list = deny_list;
    }
}
