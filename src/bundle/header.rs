//! Reading a header and checking its signature.

use core::fmt;
use ed25519_dalek::{Signature, VerifyingKey};

/// Longest header, bytes.
pub const HEADER_BYTES_MAX: usize = 1_024;
/// Longest text of `release`, bytes.
pub const RELEASE_BYTES_MAX: usize = 64;
/// Longest name of a board, bytes.
const BOARD_BYTES_MAX: usize = 32;
/// The first line. It also keeps a signature of anything else from being taken for one of an update.
pub(super) const FIRST_LINE: &str = "portcullis-update 1";
/// What stands before the digits of a signature.
pub(super) const SIGNATURE: &str = "signature=";
const SIGNATURE_BYTES: usize = 64;
const DIGEST_BYTES: usize = 32;

/// What an update replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A boot slot: kernel, initramfs with the programs, device trees.
    System,
    /// The configuration's blob.
    Configuration,
}

impl Kind {
    /// As it stands in a header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Configuration => "configuration",
        }
    }
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What it replaces.
    pub kind: Kind,
    /// The board that it is for: letters, digits, `-` and `_`, at most 32 bytes.
    pub board: String,
    /// Grows with each update of a kind.
    pub version: u64,
    /// For people: printable ASCII, at most [`RELEASE_BYTES_MAX`].
    pub release: String,
    /// Bytes of the payload.
    pub bytes: u64,
    /// SHA-256 of the payload.
    pub digest: [u8; DIGEST_BYTES],
}

/// Why something is no update, or not one for here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not begin like one.
    NotABundle,
    /// It has no end within [`HEADER_BYTES_MAX`].
    NoEnd,
    /// This field is absent, misplaced, or no value of its kind.
    Field(&'static str),
    /// Not signed by the holder of the key, or changed since.
    Signature,
    /// The key is no public key of Ed25519.
    Key,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotABundle => write!(f, "it is no update: its first line is not \"{FIRST_LINE}\""),
            Self::NoEnd => write!(f, "its header has no end within {HEADER_BYTES_MAX} bytes"),
            Self::Field(name) => write!(f, "its header has no good line `{name}=` where that belongs"),
            Self::Signature => f.write_str("its signature is not of the key that this gateway trusts"),
            Self::Key => f.write_str("the gateway's key for updates is no Ed25519 public key"),
        }
    }
}

impl core::error::Error for Fault {}

/// A header that has been read, and is not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    manifest: Manifest,
    signed: Vec<u8>,
    signature: [u8; SIGNATURE_BYTES],
    length: usize,
}

impl Header {
    /// Reads the header at the beginning of `bytes`, of which the first [`HEADER_BYTES_MAX`] are enough.
    ///
    /// # Errors
    /// What is wrong first.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let bytes = bytes.get(..HEADER_BYTES_MAX).unwrap_or(bytes);
        let begin = bytes.strip_prefix(FIRST_LINE.as_bytes()).and_then(|rest| rest.strip_prefix(b"\n"));
        if begin.is_none() {
            return Err(Fault::NotABundle);
        }
        let end = bytes.windows(2).position(|pair| pair == b"\n\n").ok_or(Fault::NoEnd)?;
        let header = bytes.get(..=end).unwrap_or_default();
        // The payload is no text; what comes before it is.
        let text = core::str::from_utf8(header).map_err(|_| Fault::Field("release"))?;
        let mut lines = text.lines().skip(1);
        let mut field = |name: &'static str| -> Result<&str, Fault> {
            let value = lines.next().and_then(|line| line.strip_prefix(name)).and_then(|rest| rest.strip_prefix('='));
            value.ok_or(Fault::Field(name))
        };
        let manifest = Manifest {
            kind: match field("kind")? {
                "system" => Kind::System,
                "configuration" => Kind::Configuration,
                _ => return Err(Fault::Field("kind")),
            },
            board: field("board").ok().filter(|name| is_board(name)).ok_or(Fault::Field("board"))?.to_owned(),
            version: number(field("version")?).ok_or(Fault::Field("version"))?,
            release: field("release").ok().filter(|text| is_release(text)).ok_or(Fault::Field("release"))?.to_owned(),
            bytes: number(field("bytes")?).ok_or(Fault::Field("bytes"))?,
            digest: digits(field("sha256")?).ok_or(Fault::Field("sha256"))?,
        };
        let signature = digits(field("signature")?).ok_or(Fault::Field("signature"))?;
        if lines.next().is_some() {
            return Err(Fault::Field("signature"));
        }
        let signed = end.saturating_sub(SIGNATURE.len() + 2 * SIGNATURE_BYTES);
        let signed = header.get(..signed).unwrap_or_default().to_vec();
        Ok(Self { manifest, signed, signature, length: end + 2 })
    }

    /// What it says.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Bytes before the payload.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.length
    }

    /// Whether the holder of this key (32 bytes, RFC 8032 §5.1.5) has signed it. Keys and signatures of small order, which are
    /// good for many messages, are none.
    ///
    /// # Errors
    /// [`Fault::Signature`], or [`Fault::Key`].
    pub fn verify(&self, key: &[u8; 32]) -> Result<(), Fault> {
        let key = VerifyingKey::from_bytes(key).map_err(|_| Fault::Key)?;
        key.verify_strict(&self.signed, &Signature::from_bytes(&self.signature)).map_err(|_| Fault::Signature)
    }
}

/// Whether this can be the name of a board.
pub(super) fn is_board(name: &str) -> bool {
    (1..=BOARD_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Whether this can be shown to people as it is.
pub(super) fn is_release(text: &str) -> bool {
    text.len() <= RELEASE_BYTES_MAX && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// A number as this program writes it, and in no other way.
fn number(text: &str) -> Option<u64> {
    let number = text.parse::<u64>().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Bytes from lower-case hexadecimal digits.
fn digits<const N: usize>(text: &str) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(bytes)
}
