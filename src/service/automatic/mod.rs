//! `tls.mode: Automatic`: the certificate that a gateway issues to itself and renews in time.
//!
//! In: the settings, two folders, the wall clock. Out: chain and key to serve, each time they are others than before. The
//! authority is `<issuers>/<issuer>/tls.crt` and `tls.key`; a gateway without that folder makes an authority of its own
//! there, once. Certificate and key are kept in `<secrets>/<secretName>/`, which is ours to overwrite.
//!
//! **Invariants:**
//! - what is kept is served further as long as it fits: names, kind of key, authority, lifetime, dates;
//! - nothing is issued by an authority that cannot be used, or while the clock cannot be right: its dates would be wrong;
//! - a certificate never outlives its authority, and one that would not gain time is not renewed.
//!
//! What is deliberately absent: renewal of the authority, because clients have to be told of a new one.

mod authority;
mod files;
#[cfg(test)]
mod tests;

pub use authority::{Authority, AuthorityFault};

use crate::config::blob::{AutomaticCertificate, KeyAlgorithm, KeyRotation};
use crate::config::secret::{self, CheckedPair, SecretFault};
use crate::pki::{Host, Key, KeyKind, PkiFault, SERVER_AUTHENTICATION, Template};
use crate::time::{RELEASED, UnixTime};
use core::fmt;
use rustls_pki_types::CertificateDer;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// Certificates begin a little in the past, for clients whose clock is behind. Seconds.
const BACKDATE_SECONDS: u64 = 3_600;
/// Looks that are left out after a failure: about a minute.
const LOOKS_LEFT_OUT: u32 = 60;

/// Why there is no certificate.
#[derive(Debug)]
pub enum IssueFault {
    /// A file or folder cannot be read or written.
    File(PathBuf, io::Error),
    /// The pair of the authority is not one.
    AuthorityPair(PathBuf, SecretFault),
    /// The authority cannot issue.
    Authority(PathBuf, AuthorityFault),
    /// A certificate cannot be made.
    Pki(PkiFault),
    /// What was issued is not what clients accept, e.g. for names that the authority may not vouch for.
    Unacceptable,
}

impl fmt::Display for IssueFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::AuthorityPair(path, fault) => write!(f, "{}: {fault}", path.display()),
            Self::Authority(path, fault) => write!(f, "{}: {fault}", path.display()),
            Self::Pki(fault) => write!(f, "{fault}"),
            Self::Unacceptable => f.write_str("the authority may not issue a certificate for these names"),
        }
    }
}

impl core::error::Error for IssueFault {}

impl From<PkiFault> for IssueFault {
    fn from(fault: PkiFault) -> Self {
        Self::Pki(fault)
    }
}

/// One certificate of mode Automatic.
#[derive(Debug)]
pub struct Automatic {
    settings: AutomaticCertificate,
    issuers: PathBuf,
    secrets: PathBuf,
    /// What was given out last.
    served: Option<Served>,
    looks_left_out: u32,
}

#[derive(Debug)]
struct Served {
    leaf: CertificateDer<'static>,
    dates: Dates,
    authority_ends: UnixTime,
}

#[derive(Clone, Copy, Debug)]
struct Dates {
    not_before: UnixTime,
    not_after: UnixTime,
}

impl Automatic {
    /// The certificate of `settings`, with authorities in `issuers`, kept in `secrets`. Touches nothing yet.
    #[must_use]
    pub fn new(settings: AutomaticCertificate, issuers: &Path, secrets: &Path) -> Self {
        let (issuers, secrets) = (issuers.to_owned(), secrets.to_owned());
        Self { settings, issuers, secrets, served: None, looks_left_out: 0 }
    }

    /// The files that decide: a change of one is a reason to ask.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let folders = [self.authority_folder(), self.secrets.join(&self.settings.secret_name)];
        folders.iter().flat_map(|folder| files::NAMES.map(|name| folder.join(name))).collect()
    }

    /// Whether it is time to ask, though no file has changed: to be called about once a second.
    pub fn is_due(&mut self, now: UnixTime) -> bool {
        if self.looks_left_out > 0 {
            self.looks_left_out -= 1;
            return false;
        }
        match &self.served {
            None => now >= RELEASED,
            Some(served) => !self.dates_fit(served.dates, served.authority_ends, now),
        }
    }

    /// Chain and key to serve from `now` on, issued if what is kept does not fit; `None` where they are those that were
    /// given out last, or as long as nothing can be issued because the clock is not set.
    ///
    /// # Errors
    /// [`IssueFault`]. What was given out before stays good for what it is; it is soon tried again.
    pub fn next(&mut self, now: UnixTime) -> Result<Option<CheckedPair>, IssueFault> {
        self.looks_left_out = LOOKS_LEFT_OUT;
        let found = self.find_or_issue(now)?;
        self.looks_left_out = 0;
        let Some((pair, authority_ends)) = found else { return Ok(None) };
        let Some(leaf) = pair.certificates.first().cloned() else { return Ok(None) };
        let is_new = self.served.as_ref().is_none_or(|served| served.leaf != leaf);
        self.served = Some(Served { leaf, dates: dates_of(&pair), authority_ends });
        Ok(is_new.then_some(pair))
    }

    fn find_or_issue(&self, now: UnixTime) -> Result<Option<(CheckedPair, UnixTime)>, IssueFault> {
        let clock_is_set = now >= RELEASED;
        let Some(authority) = self.authority(now)? else { return Ok(None) };
        let name = &self.settings.secret_name;
        let hosts = self.hosts();
        let folder = self.secrets.join(name);
        let kept = files::read_pair(&folder)?.and_then(|(chain, key)| secret::check_pair(&chain, &key).ok());
        if let Some(pair) = kept.filter(|pair| self.fits(pair, &authority, &hosts))
            && (!clock_is_set || self.dates_fit(dates_of(&pair), authority.not_after(), now))
        {
            return Ok(Some((pair, authority.not_after())));
        }
        if !clock_is_set {
            return Ok(None);
        }
        let pair = self.issue(&authority, hosts, now)?;
        log::info!("server certificate '{name}': issued by '{}', valid until {}", self.settings.issuer, pair.not_after);
        if pair.not_after < now.plus_seconds(self.settings.duration_seconds) {
            log::warn!("server certificate '{name}': the authority ends at {}, and so does it", authority.not_after());
        }
        Ok(Some((pair, authority.not_after())))
    }

    fn authority_folder(&self) -> PathBuf {
        self.issuers.join(&self.settings.issuer)
    }

    /// The authority; `None` where there is none and none can be made because the clock is not set.
    fn authority(&self, now: UnixTime) -> Result<Option<Authority>, IssueFault> {
        let folder = self.authority_folder();
        let issuer = &self.settings.issuer;
        // A folder, whatever is in it, is somebody's intention.
        let is_absent = std::fs::symlink_metadata(&folder).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if is_absent {
            if now < RELEASED {
                return Ok(None);
            }
            let (chain, key) = authority::self_signed(issuer, now)?;
            files::store_pair(&self.issuers, issuer, &chain, &key)?;
            let path = folder.join(files::NAMES[0]);
            log::warn!("made the authority '{issuer}' of this gateway: its clients must trust {}", path.display());
        }
        let Some((chain, key)) = files::read_pair(&folder)? else {
            return Err(IssueFault::Authority(folder, AuthorityFault::Missing));
        };
        let pair =
            secret::check_pair(&chain, &key).map_err(|fault| IssueFault::AuthorityPair(folder.clone(), fault))?;
        Authority::new(&pair, &key).map(Some).map_err(|fault| IssueFault::Authority(folder, fault))
    }

    /// Whether a pair is what the settings want, but for its dates.
    fn fits(&self, pair: &CheckedPair, authority: &Authority, hosts: &[Host]) -> bool {
        let longest = self.settings.duration_seconds.saturating_add(BACKDATE_SECONDS);
        kind_of(pair) == self.key_kind()
            && pair.not_after.0.saturating_sub(pair.not_before.0) <= longest
            && authority.has_issued(&pair.certificates, hosts)
    }

    /// Whether a certificate is good now, and either not due for renewal or without anything to gain from it.
    fn dates_fit(&self, dates: Dates, authority_ends: UnixTime, now: UnixTime) -> bool {
        if now < RELEASED {
            return true;
        }
        let is_due = now.plus_seconds(self.settings.renew_before_seconds) >= dates.not_after;
        let gains = self.end(authority_ends, now) > dates.not_after;
        dates.not_before <= now && !(is_due && gains)
    }

    /// When a certificate issued at `now` ends.
    fn end(&self, authority_ends: UnixTime, now: UnixTime) -> UnixTime {
        now.plus_seconds(self.settings.duration_seconds).min(authority_ends)
    }

    fn issue(&self, authority: &Authority, hosts: Vec<Host>, now: UnixTime) -> Result<CheckedPair, IssueFault> {
        if let Err(fault) = authority.check_dates(now) {
            return Err(IssueFault::Authority(self.authority_folder(), fault));
        }
        let begin = UnixTime(now.0.saturating_sub(BACKDATE_SECONDS)).max(authority.not_before());
        let name = &self.settings.secret_name;
        let mut template = Template::leaf(authority::common_name(name), begin, self.end(authority.not_after(), now));
        template.purposes = vec![SERVER_AUTHENTICATION];
        template.hosts.clone_from(&hosts);
        let (chain, key) = authority.issue(&template, self.key()?)?;
        let unacceptable = |_| IssueFault::Unacceptable;
        let pair = secret::check_pair(chain.as_bytes(), key.as_bytes()).map_err(unacceptable)?;
        if !self.fits(&pair, authority, &hosts) {
            return Err(IssueFault::Unacceptable);
        }
        files::store_pair(&self.secrets, name, &chain, &key)?;
        Ok(pair)
    }

    /// The key that is kept, where the rotation policy says so and it is of the right kind; else a new one.
    fn key(&self) -> Result<Key, IssueFault> {
        if self.settings.rotation == KeyRotation::Never
            && let Some(text) = files::read_key(&self.secrets.join(&self.settings.secret_name))?
            && let Ok(key) = Key::from_pem(&text)
            && key.kind() == self.key_kind()
        {
            return Ok(key);
        }
        Ok(Key::random(self.key_kind())?)
    }

    const fn key_kind(&self) -> KeyKind {
        match self.settings.algorithm {
            KeyAlgorithm::Ec256 => KeyKind::P256,
            KeyAlgorithm::Ec384 => KeyKind::P384,
            KeyAlgorithm::Ed25519 => KeyKind::Ed25519,
        }
    }

    /// Whom the certificate is for: `san`, or where that is empty this machine, under the names that it has by itself.
    fn hosts(&self) -> Vec<Host> {
        let names = self.settings.dns_names.iter().cloned().map(Host::Name);
        let addresses = self.settings.ip_addresses.iter().filter_map(|text| text.parse().ok()).map(Host::Address);
        let hosts: Vec<Host> = names.chain(addresses).collect();
        if hosts.is_empty() { this_machine(files::host_name().as_deref()) } else { hosts }
    }
}

/// The names of a machine: its own, in the local network's domain too (RFC 6762), and those of loopback.
fn this_machine(host_name: Option<&str>) -> Vec<Host> {
    let mut hosts = Vec::new();
    if let Some(name) = host_name.filter(|name| *name != "localhost") {
        hosts.push(Host::Name(name.to_owned()));
        if !name.contains('.') {
            hosts.push(Host::Name(format!("{name}.local")));
        }
    }
    hosts.push(Host::Name("localhost".to_owned()));
    hosts.push(Host::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    hosts.push(Host::Address(IpAddr::V6(Ipv6Addr::LOCALHOST)));
    hosts
}

const fn dates_of(pair: &CheckedPair) -> Dates {
    Dates { not_before: pair.not_before, not_after: pair.not_after }
}

const fn kind_of(pair: &CheckedPair) -> KeyKind {
    match pair.kind {
        secret::KeyKind::EcdsaP256 => KeyKind::P256,
        secret::KeyKind::EcdsaP384 => KeyKind::P384,
        secret::KeyKind::Ed25519 => KeyKind::Ed25519,
    }
}
