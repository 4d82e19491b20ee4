//! Service accounts: their names as tokens write them, and the attributes that a local map grants them.
//!
//! In: the `sub` claim of a token that was verified, or what an operator wrote. Out: names that are well-formed, and
//! attributes that fit. Deliberately absent: whether the account exists. Only a cluster knows that.

use crate::identity::{Attributes, IdentityFull};
use core::fmt;
use std::collections::BTreeMap;

/// How the `sub` claim of a service-account token begins.
const SUBJECT_PREFIX: &str = "system:serviceaccount:";
/// Longest namespace, in bytes: a label of RFC 1123, as Kubernetes demands.
const NAMESPACE_BYTES_MAX: usize = 63;
/// Longest name of a service account, in bytes: a subdomain of RFC 1123, as Kubernetes demands.
const NAME_BYTES_MAX: usize = 253;

/// The name of a service account. Both parts follow the rules of Kubernetes for object names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceAccount {
    namespace: String,
    name: String,
}

impl ServiceAccount {
    /// The account in namespace `namespace` with the name `name`; `None` where one of them cannot be a name.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Option<Self> {
        let namespace_fits = namespace.len() <= NAMESPACE_BYTES_MAX && is_label(namespace);
        let name_fits = name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label);
        (namespace_fits && name_fits).then(|| Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// Reads `system:serviceaccount:<namespace>:<name>`, the `sub` claim of a token and the user name of a TokenReview.
    #[must_use]
    pub fn from_subject(subject: &str) -> Option<Self> {
        let (namespace, name) = subject.strip_prefix(SUBJECT_PREFIX)?.split_once(':')?;
        Self::new(namespace, name)
    }

    /// Reads `<namespace>/<name>`, as it stands in a configuration.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        let (namespace, name) = path.split_once('/')?;
        Self::new(namespace, name)
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name within the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `system:serviceaccount:<namespace>:<name>`, at most 339 bytes.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("{SUBJECT_PREFIX}{}:{}", self.namespace, self.name)
    }
}

impl fmt::Display for ServiceAccount {
    /// `<namespace>/<name>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whether `text` has the letters of an RFC 1123 label: lower case, digits, and dashes but at its ends.
fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Why a map of attributes cannot be used. Each names the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountFault {
    /// The entry is not of the form `<namespace>/<name>`.
    Name(String),
    /// The account has an entry already.
    Duplicate(String),
    /// The attributes of the account do not fit a client's identity, or one is given twice.
    Attributes(String),
}

impl fmt::Display for AccountFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(entry) => {
                write!(f, "'{}' is not a service account: write NAMESPACE/NAME", entry.escape_debug())
            }
            Self::Duplicate(entry) => write!(f, "service account '{}' has two entries", entry.escape_debug()),
            Self::Attributes(entry) => {
                write!(f, "the attributes of service account '{}' do not fit", entry.escape_debug())
            }
        }
    }
}

impl core::error::Error for AccountFault {}

/// The attributes of service accounts, from a local map: what annotations of the accounts are in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountAttributes {
    entries: BTreeMap<ServiceAccount, Attributes>,
}

impl AccountAttributes {
    /// The map with `entries` of `<namespace>/<name>` and pairs of attribute name and value.
    ///
    /// # Errors
    /// The first entry that is malformed, repeated or too large. Nothing is cut.
    pub fn new(entries: &[(String, Vec<(String, String)>)]) -> Result<Self, AccountFault> {
        let mut map = BTreeMap::new();
        for (path, pairs) in entries {
            let account = ServiceAccount::from_path(path).ok_or_else(|| AccountFault::Name(path.clone()))?;
            let mut attributes = Attributes::new();
            for (name, value) in pairs {
                let added = attributes.insert(name, value);
                added.map_err(|IdentityFull| AccountFault::Attributes(path.clone()))?;
            }
            if map.insert(account, attributes).is_some() {
                return Err(AccountFault::Duplicate(path.clone()));
            }
        }
        Ok(Self { entries: map })
    }

    /// The attributes of `account`; `None` where the map has no entry for it.
    #[must_use]
    pub fn attributes_of(&self, account: &ServiceAccount) -> Option<&Attributes> {
        self.entries.get(account)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::limits::ATTRIBUTES_MAX;

    #[test]
    fn a_subject_is_read_and_written_alike() {
        for subject in ["system:serviceaccount:azure-iot-operations:mqtt.client-1", "system:serviceaccount:0:a"] {
            assert_eq!(ServiceAccount::from_subject(subject).unwrap().subject(), subject);
        }
        assert_eq!(ServiceAccount::from_subject("system:serviceaccount:ns:a").unwrap().to_string(), "ns/a");
    }

    #[test]
    fn what_kubernetes_would_not_name_an_account_is_no_account() {
        let long = "a".repeat(64);
        for (namespace, name) in [
            ("", "a"),
            ("ns", ""),
            ("Ns", "a"),
            ("ns", "A"),
            ("n.s", "a"),
            ("-ns", "a"),
            ("ns-", "a"),
            ("ns", "a..b"),
            ("ns", ".a"),
            ("ns", "a:b"),
            ("ns", "a/b"),
            ("ns", "a b"),
            ("ns", "\u{e4}"),
            ("ns", "a\n"),
            (&*long, "a"),
            ("ns", &*"a".repeat(254)),
        ] {
            assert_eq!(ServiceAccount::new(namespace, name), None, "{namespace} {name}");
        }
        assert!(ServiceAccount::new(&long[1..], &"a".repeat(253)).is_some());
        for subject in ["", "ns:a", "system:serviceaccount:ns", "system:node:ns:a", "System:serviceaccount:ns:a"] {
            assert_eq!(ServiceAccount::from_subject(subject), None, "{subject}");
        }
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn attributes_are_those_of_the_account_and_namespace() {
        let entries = [("ns/a".to_owned(), vec![pair("floor", "1")]), ("other/a".to_owned(), vec![pair("floor", "2")])];
        let map = AccountAttributes::new(&entries).unwrap();
        let floor = |path| {
            map.attributes_of(&ServiceAccount::from_path(path).unwrap()).and_then(|found| found.value_of("floor"))
        };
        assert_eq!((floor("ns/a"), floor("other/a"), floor("ns/b")), (Some("1"), Some("2"), None));
    }

    #[test]
    fn an_entry_that_cannot_be_kept_is_named() {
        let refused = |entries: &[(String, Vec<(String, String)>)]| AccountAttributes::new(entries).unwrap_err();
        let entry = || "ns/a".to_owned();
        assert_eq!(refused(&[("ns".to_owned(), vec![])]), AccountFault::Name("ns".to_owned()));
        assert_eq!(refused(&[(entry(), vec![]), (entry(), vec![])]), AccountFault::Duplicate(entry()));
        let many = (0..=ATTRIBUTES_MAX).map(|index| pair(&index.to_string(), "")).collect();
        assert_eq!(refused(&[(entry(), many)]), AccountFault::Attributes(entry()));
        let twice = vec![pair("a", "1"), pair("a", "2")];
        assert_eq!(refused(&[(entry(), twice)]).to_string(), "the attributes of service account 'ns/a' do not fit");
    }
}
