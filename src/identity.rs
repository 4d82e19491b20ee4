//! Who a client is: what authentication proves and authorization judges.
//!
//! Everything is inline and of fixed capacity, so that an identity can be copied into a session without heap use. A value
//! that does not fit is an error at the place where it is made; nothing is cut.

use crate::limits::{ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX, USERNAME_BYTES_MAX};
use crate::time::UnixTime;
use core::fmt;
use sha2::{Digest as _, Sha256};

/// The name that rules call `username`: the common name of the client's certificate, or what another method vouches for.
pub type Username = heapless::String<USERNAME_BYTES_MAX>;

/// A name, value or table that does not fit its fixed capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentityFull;

/// Attribute names and values of one client, at most [`ATTRIBUTES_MAX`] pairs in [`ATTRIBUTE_BYTES_MAX`] bytes.
///
/// Stored as `name length u16 | name | value length u16 | value` one after the other, in order of insertion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    bytes: heapless::Vec<u8, ATTRIBUTE_BYTES_MAX>,
    count: u8,
}

impl Attributes {
    /// No attributes.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: heapless::Vec::new(), count: 0 }
    }

    /// Adds a pair. A name that is there already is refused, as is one that does not fit; nothing changes then.
    ///
    /// # Errors
    /// [`IdentityFull`] when the pair does not fit or the name is taken.
    pub fn insert(&mut self, name: &str, value: &str) -> Result<(), IdentityFull> {
        let needed = 4 + name.len() + value.len();
        if usize::from(self.count) >= ATTRIBUTES_MAX
            || self.bytes.len() + needed > ATTRIBUTE_BYTES_MAX
            || self.value_of(name).is_some()
        {
            return Err(IdentityFull);
        }
        for text in [name, value] {
            let length = u16::try_from(text.len()).map_err(|_| IdentityFull)?;
            self.bytes.extend_from_slice(&length.to_be_bytes()).map_err(|_| IdentityFull)?;
            self.bytes.extend_from_slice(text.as_bytes()).map_err(|_| IdentityFull)?;
        }
        self.count += 1;
        Ok(())
    }

    /// The value of attribute `name`, compared case-sensitively.
    #[must_use]
    pub fn value_of(&self, name: &str) -> Option<&str> {
        self.iter().find(|(candidate, _)| *candidate == name).map(|(_, value)| value)
    }

    /// The pairs in order of insertion.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = self.bytes.as_slice();
        core::iter::from_fn(move || {
            let name = take_text(&mut rest)?;
            let value = take_text(&mut rest)?;
            Some((name, value))
        })
    }

    /// The pairs as they are stored: for the log.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The pairs that [`Attributes::as_bytes`] gave.
    ///
    /// # Errors
    /// [`IdentityFull`] for bytes that it cannot have given.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdentityFull> {
        let (mut attributes, mut rest) = (Self::new(), bytes);
        while !rest.is_empty() {
            let name = take_text(&mut rest).ok_or(IdentityFull)?;
            let value = take_text(&mut rest).ok_or(IdentityFull)?;
            attributes.insert(name, value)?;
        }
        Ok(attributes)
    }

    /// Number of pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Takes one `length u16 | text` off the front of `rest`.
fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let (length, tail) = rest.split_first_chunk::<2>()?;
    let (text, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    *rest = tail;
    core::str::from_utf8(text).ok()
}

/// How a client proved who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthenticationMethod {
    /// The port has no `authenticationRef`: nothing was proved.
    #[default]
    None,
    /// A certificate chain that leads to a configured authority.
    X509,
    /// A token of a Kubernetes service account.
    ServiceAccountToken,
    /// A custom authentication server vouches for it.
    Custom,
    /// User name and password.
    UsernamePassword,
    /// A part of the broker itself, on a connection that nobody else can have.
    Inside,
}

impl AuthenticationMethod {
    /// All of them; the place of each is its number in the log and never changes.
    const ALL: [Self; 6] =
        [Self::None, Self::X509, Self::ServiceAccountToken, Self::Custom, Self::UsernamePassword, Self::Inside];

    /// Its number in the log.
    #[must_use]
    pub fn number(self) -> u8 {
        Self::ALL.iter().zip(0..).find(|(method, _)| **method == self).map_or(0, |(_, number)| number)
    }

    /// The method with this number; `None` for numbers that no method has.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its name as `authenticationMethods[].method` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::X509 => "X509",
            Self::ServiceAccountToken => "ServiceAccountToken",
            Self::Custom => "Custom",
            Self::UsernamePassword => "UsernamePassword",
            Self::Inside => "Inside",
        }
    }
}

impl fmt::Display for AuthenticationMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "not authenticated",
            Self::X509 => "authenticated by X.509",
            Self::ServiceAccountToken => "authenticated by a service-account token",
            Self::Custom => "authenticated by the custom server",
            Self::UsernamePassword => "authenticated by password",
            Self::Inside => "a part of the broker",
        })
    }
}

/// Whom a session belongs to: a digest of the method and of the name that it proved. It survives a renewed credential, a
/// changed attribute and a restart. All clients of ports without authentication are one principal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Principal([u8; 16]);

impl Principal {
    /// The principal that `method` knows by `name`.
    #[must_use]
    pub fn new(method: AuthenticationMethod, name: &str) -> Self {
        let label: &[u8] = match method {
            AuthenticationMethod::None => return Self::default(),
            AuthenticationMethod::X509 => b"X509\0",
            AuthenticationMethod::ServiceAccountToken => b"ServiceAccountToken\0",
            AuthenticationMethod::Custom => b"Custom\0",
            AuthenticationMethod::UsernamePassword => b"UsernamePassword\0",
            AuthenticationMethod::Inside => b"Inside\0",
        };
        let digest = Sha256::new().chain_update(label).chain_update(name).finalize();
        let mut half = [0; 16];
        half.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self(half)
    }

    /// The digest: for the log.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// The principal with this digest.
    #[must_use]
    pub const fn from_bytes(digest: [u8; 16]) -> Self {
        Self(digest)
    }
}

/// What authentication found out about one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// How it was proved.
    pub method: AuthenticationMethod,
    /// Whom its session belongs to.
    pub principal: Principal,
    /// The user name that rules may rely on; `None` where the method vouches for none.
    pub username: Option<Username>,
    /// Attributes granted by the matching `authorizationAttributes` entry, the service account or the server.
    pub attributes: Attributes,
    /// When the credential ends, and with it the connection; `None` for never.
    pub expires: Option<UnixTime>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_by_their_exact_name() {
        let mut attributes = Attributes::new();
        attributes.insert("group", "thermostat_group").unwrap();
        attributes.insert("manufacturer", "fabrikam").unwrap();
        assert_eq!(attributes.value_of("manufacturer"), Some("fabrikam"));
        assert_eq!(attributes.value_of("Group"), None);
        assert_eq!(attributes.len(), 2);
        assert_eq!(Attributes::from_bytes(attributes.as_bytes()), Ok(attributes.clone()));
        assert_eq!(Attributes::from_bytes(&attributes.as_bytes()[1..]), Err(IdentityFull));
    }

    #[test]
    fn a_pair_that_does_not_fit_changes_nothing() {
        let mut attributes = Attributes::new();
        attributes.insert("a", "1").unwrap();
        let before = attributes.clone();
        assert_eq!(attributes.insert("a", "2"), Err(IdentityFull), "a name is given once");
        assert_eq!(attributes.insert("b", &"x".repeat(ATTRIBUTE_BYTES_MAX)), Err(IdentityFull));
        assert_eq!(attributes, before);
        for index in 1..ATTRIBUTES_MAX {
            attributes.insert(&format!("n{index}"), "").unwrap();
        }
        assert_eq!(attributes.insert("one-more", ""), Err(IdentityFull));
    }
}
