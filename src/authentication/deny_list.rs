//! The operator's deny list: certificates, keys and user names that are out at once, whatever their authority says.
//!
//! In: YAML, a list of entries, each with one of `subject`, `serial` (and perhaps `issuer`), `spki` or `username`, and perhaps a
//! `reason` for the log and a `comment` for people. Out: look-ups. An entry for an authority is one for all below it,
//! because every certificate of a path is looked up.

use super::revocation::Link;
use super::revocation_list::Serial;
use crate::config::diagnostic::{Diagnostics, Place, Report, quoted};
use crate::config::source::walk::{Fields, distinguished_name, full_text, sequence};
use crate::config::source::{Node, Syntax, Value, parse};
use crate::distinguished_name::{Attribute, DistinguishedName};
use base64ct::{Base64, Encoding as _};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Longest file, in bytes.
pub const DENY_LIST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most entries.
pub const DENIALS_MAX: usize = 20_000;

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Line of the file, from 1.
    pub line: u32,
    /// Why, in the operator's words.
    pub reason: Option<Box<str>>,
}

/// A deny list.
#[derive(Debug, Default)]
pub struct DenyList {
    /// By relative names, in both orders.
    subjects: BTreeMap<Vec<Vec<Attribute>>, Denial>,
    /// The issuers of a serial number that is denied; any where there is none.
    serials: BTreeMap<Serial, Vec<(Option<DistinguishedName>, Denial)>>,
    /// By the SHA-256 digest of the SubjectPublicKeyInfo.
    keys: BTreeMap<[u8; 32], Denial>,
    usernames: BTreeMap<Box<str>, Denial>,
    count: usize,
}

impl DenyList {
    /// Reads the text of a file. `file` is its name for messages.
    ///
    /// # Errors
    /// All mistakes, each with its place. An empty file is one: it may have been cut off. Nobody is denied by `[]`.
    pub fn read(file: &str, text: &[u8]) -> Result<Self, Diagnostics> {
        let mut report = Report::new();
        let mut list = Self::default();
        if text.len() > DENY_LIST_BYTES_MAX {
            report.error(&Place::start_of(file), format!("longer than {DENY_LIST_BYTES_MAX} bytes"));
            return Err(report.finish());
        }
        let documents = parse(file, text, Syntax::Yaml, &mut report);
        match documents.as_slice() {
            [document] if document.value != Value::Null => list.read_entries(document, &mut report),
            _ if report.has_errors() => {}
            [] | [_] => report.error(&Place::start_of(file), "the deny list is empty; write [] to deny nobody"),
            [_, second, ..] => report.error(&second.place, "the deny list is one document"),
        }
        if report.has_errors() { Err(report.finish()) } else { Ok(list) }
    }

    fn read_entries(&mut self, document: &Node, report: &mut Report) {
        let Some(entries) = sequence(document, "the deny list", report) else { return };
        if let Some(beyond) = entries.get(DENIALS_MAX) {
            return report.error(&beyond.place, format!("more than {DENIALS_MAX} entries"));
        }
        self.count = entries.len();
        for entry in entries {
            self.read_entry(entry, report);
        }
    }

    fn read_entry(&mut self, node: &Node, report: &mut Report) {
        let Some(mut fields) = Fields::of(node, "an entry of the deny list", report) else { return };
        let targets = ["subject", "serial", "spki", "username"].map(|name| fields.optional(name));
        let issuer_node = fields.optional("issuer");
        let issuer = issuer_node.and_then(|node| distinguished_name(node, "issuer", report));
        let reason = fields.optional("reason").and_then(|node| full_text(node, "reason", report)).map(Box::from);
        fields.ignore(&["comment"]);
        fields.finish(report);
        if let (Some(issuer), None) = (issuer_node, targets[1]) {
            report.error(&issuer.place, "an issuer belongs to a serial");
        }
        let denial = Denial { line: node.place.line, reason };
        match targets {
            [Some(node), None, None, None] => self.deny_subject(node, denial, report),
            [None, Some(node), None, None] => {
                // An issuer that cannot be read has been reported.
                if let Some(serial) = serial(node, report) {
                    self.serials.entry(serial).or_default().push((issuer, denial));
                }
            }
            [None, None, Some(node), None] => {
                if let Some(digest) = digest(node, report) {
                    self.keys.entry(digest).or_insert(denial);
                }
            }
            [None, None, None, Some(node)] => {
                if let Some(name) = full_text(node, "username", report) {
                    self.usernames.entry(name.into()).or_insert(denial);
                }
            }
            _ => report.error(&node.place, "an entry has exactly one of subject, serial, spki and username"),
        }
    }

    fn deny_subject(&mut self, node: &Node, denial: Denial, report: &mut Report) {
        let Some(name) = distinguished_name(node, "subject", report) else { return };
        let reversed = name.relative_names.iter().rev().cloned().collect();
        self.subjects.entry(reversed).or_insert_with(|| denial.clone());
        self.subjects.entry(name.relative_names).or_insert(denial);
    }

    /// Number of entries.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The entry for a certificate.
    #[must_use]
    pub fn find(&self, link: &Link) -> Option<&Denial> {
        let of_serial = || {
            let entries = self.serials.get(link.serial.as_ref()?)?.iter();
            let mut meant = entries.filter(|(of, _)| of.as_ref().is_none_or(|of| of.is_same_as(&link.issuer)));
            meant.next().map(|(_, denial)| denial)
        };
        let of_key = || {
            if self.keys.is_empty() {
                return None;
            }
            self.keys.get(&<[u8; 32]>::from(Sha256::digest(&link.key_info)))
        };
        self.subjects.get(&link.subject.relative_names).or_else(of_serial).or_else(of_key)
    }

    /// The entry for a user name.
    #[must_use]
    pub fn find_username(&self, username: &str) -> Option<&Denial> {
        self.usernames.get(username)
    }
}

/// A serial number in hexadecimal, with or without colons.
fn serial(node: &Node, report: &mut Report) -> Option<Serial> {
    let given = full_text(node, "serial", report)?;
    let serial = hexadecimal(given).and_then(|bytes| Serial::new(&bytes));
    if serial.is_none() {
        let what = format!("serial must be up to 20 bytes in hexadecimal, and this is {}", quoted(given));
        report.error(&node.place, what);
    }
    serial
}

/// A SHA-256 digest in hexadecimal, with or without colons, or in base64.
fn digest(node: &Node, report: &mut Report) -> Option<[u8; 32]> {
    let given = full_text(node, "spki", report)?;
    let bytes = hexadecimal(given).or_else(|| Base64::decode_vec(given).ok());
    let digest = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    if digest.is_none() {
        let what = format!(
            "spki must be the SHA-256 of a SubjectPublicKeyInfo in hexadecimal or base64, and this is {}",
            quoted(given)
        );
        report.error(&node.place, what);
    }
    digest
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text.chars().filter(|c| *c != ':').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    // An odd number of digits lacks a leading zero.
    let head = digits.len() % 2;
    let bytes = digits
        .get(..head)?
        .iter()
        .copied()
        .chain(digits.get(head..)?.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)));
    bytes.map(|byte| u8::try_from(byte).ok()).collect()
}
