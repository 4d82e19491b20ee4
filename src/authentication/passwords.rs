//! The method UsernamePassword: a file of users with hashed passwords and attributes.
//!
//! In: the text of `passwords.toml`, a table a user with `password` (a PHC string of PBKDF2-SHA512 or Argon2id) and, where
//! wanted, a table `attributes` of strings. Out: for any user name a [`Credential`], which can be taken to another thread and
//! asked whether a password is right: hashing takes as long as the file says, and must not stall the broker.
//!
//! **Invariant:** an unknown user costs what a user costs and gets the same answer. Where users have different parameters,
//! unknown ones look like the majority; files that `portcullis passwd` wrote with one algorithm have no minority.
//!
//! No error, and nothing that prints a value of this file, shows a hash: those can be tried against word lists.

use crate::identity::{Attributes, IdentityFull};
use crate::limits::USERNAME_BYTES_MAX;
use argon2::{Argon2, Block};
use core::fmt;
use password_hash::{Decimal, Ident, Output, ParamsString, PasswordHash, PasswordHasher as _, Salt, SaltString};
use pbkdf2::Pbkdf2;
use std::collections::BTreeMap;
use toml_edit::{Document, Item, TableLike};

/// Longest file, in bytes.
pub const PASSWORDS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most users in one file.
pub const USERS_MAX: usize = 10_000;

/// PHC identifier of PBKDF2 with HMAC-SHA-512.
const PBKDF2_SHA512: Ident<'static> = Ident::new_unwrap("pbkdf2-sha512");
/// PHC identifier of Argon2id.
const ARGON2ID: Ident<'static> = Ident::new_unwrap("argon2id");
/// The version of Argon2 in RFC 9106, 0x13.
const ARGON2_VERSION: Decimal = 0x13;
/// Iterations of PBKDF2: fewer are no protection, more than these take seconds on a gateway.
const ITERATIONS: core::ops::RangeInclusive<u32> = 1_000..=5_000_000;
/// Most memory of Argon2, in KiB. Every login that is being checked takes it.
const MEMORY_KIBIBYTES_MAX: u32 = 64 * 1024;
/// Bytes that the check of one password may take.
pub const PASSWORD_MEMORY_BYTES_MAX: u64 = MEMORY_KIBIBYTES_MAX as u64 * 1024;
/// Most passes of Argon2 over its memory.
const PASSES_MAX: u32 = 16;
/// Most lanes of Argon2. They are computed one after the other here.
const LANES_MAX: u32 = 16;
/// Fewest bytes of a salt, which is Argon2's own bound.
const SALT_BYTES_MIN: usize = 8;
/// Fewest bytes of a hash: 128 bits, RFC 9106 §4.
const HASH_BYTES_MIN: usize = 16;

/// What is wrong with a PHC string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFault {
    /// It is not a PHC string with a salt and a hash.
    Malformed,
    /// It is neither `pbkdf2-sha512` nor `argon2id` with `v=19`.
    Algorithm,
    /// A parameter is missing, not known, or contradicts the hash.
    Parameters,
    /// The iterations of PBKDF2 are out of bounds.
    Iterations,
    /// Memory, passes or lanes of Argon2 are out of bounds.
    Cost,
    /// The salt or the hash is too short.
    Short,
}

impl fmt::Display for HashFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the password is not a PHC string ($algorithm$parameters$salt$hash)"),
            Self::Algorithm => f.write_str("the password's algorithm is neither pbkdf2-sha512 nor argon2id with v=19"),
            Self::Parameters => {
                f.write_str("the password's parameters are not i (and l) of PBKDF2 or m, t and p of Argon2")
            }
            Self::Iterations => {
                write!(f, "the password's iterations are not between {} and {}", ITERATIONS.start(), ITERATIONS.end())
            }
            Self::Cost => write!(
                f,
                "the password's cost is out of bounds: at most m={MEMORY_KIBIBYTES_MAX}, t={PASSES_MAX} and \
                 p={LANES_MAX}, and m at least 8 times p"
            ),
            Self::Short => {
                write!(f, "the password's salt or hash is shorter than {SALT_BYTES_MIN} or {HASH_BYTES_MIN} bytes")
            }
        }
    }
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordsFaultKind {
    /// It is longer than [`PASSWORDS_BYTES_MAX`].
    TooLarge,
    /// It is not TOML: a phrase of the parser, which quotes nothing of the file. A repeated key is of this kind.
    Syntax(String),
    /// It has more than [`USERS_MAX`] users.
    TooManyUsers,
    /// The name of the user is empty or longer than [`USERNAME_BYTES_MAX`] bytes.
    Name,
    /// The user is not a table.
    NotATable,
    /// The user has a field that is neither `password` nor `attributes`.
    UnknownField(String),
    /// The user has no `password`.
    PasswordMissing,
    /// `password` is not a string.
    PasswordNotAString,
    /// `password` cannot be used.
    Hash(HashFault),
    /// `attributes` is not a table.
    AttributesNotATable,
    /// The attribute is not a string.
    AttributeNotAString(String),
    /// The attributes do not fit a client's identity.
    AttributesFull,
}

/// Why a file of passwords cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordsFault {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// The user, where it is about one.
    pub user: Option<String>,
    /// What is wrong.
    pub kind: PasswordsFaultKind,
}

impl fmt::Display for PasswordsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use PasswordsFaultKind as Kind;
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        if let Some(user) = &self.user {
            write!(f, "user '{}': ", user.escape_debug())?;
        }
        match &self.kind {
            Kind::TooLarge => write!(f, "the file is longer than {PASSWORDS_BYTES_MAX} bytes"),
            Kind::Syntax(phrase) => write!(f, "this is not TOML: {}", phrase.escape_debug()),
            Kind::TooManyUsers => write!(f, "more than {USERS_MAX} users"),
            Kind::Name => write!(f, "a name has between 1 and {USERNAME_BYTES_MAX} bytes"),
            Kind::NotATable => f.write_str("not a table"),
            Kind::UnknownField(name) => {
                write!(f, "unknown field '{}'; there are password and attributes", name.escape_debug())
            }
            Kind::PasswordMissing => f.write_str("no password"),
            Kind::PasswordNotAString => f.write_str("the password is not a string"),
            Kind::Hash(fault) => fault.fmt(f),
            Kind::AttributesNotATable => f.write_str("the attributes are not a table"),
            Kind::AttributeNotAString(name) => write!(f, "attribute '{}' is not a string", name.escape_debug()),
            Kind::AttributesFull => f.write_str("the attributes do not fit"),
        }
    }
}

impl core::error::Error for PasswordsFault {}

/// An algorithm for new hashes, with the parameters that the OWASP Password Storage Cheat Sheet recommends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PasswordAlgorithm {
    /// Argon2id with 19 MiB, two passes and one lane: the least memory that a graphics card is slow with, and little enough
    /// for a gateway.
    #[default]
    Argon2id,
    /// PBKDF2 with HMAC-SHA-512 and 210,000 iterations: what the vendor's tools read.
    Pbkdf2Sha512,
}

impl PasswordAlgorithm {
    fn cost(self) -> Cost {
        match self {
            Self::Argon2id => Cost::Argon2id { memory_kibibytes: 19 * 1024, passes: 2, lanes: 1 },
            Self::Pbkdf2Sha512 => Cost::Pbkdf2Sha512 { iterations: 210_000 },
        }
    }

    /// Bytes of a new hash. 64 for PBKDF2 are the vendor's.
    fn hash_bytes(self) -> usize {
        match self {
            Self::Argon2id => 32,
            Self::Pbkdf2Sha512 => 64,
        }
    }
}

/// An algorithm and what it costs, within our bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cost {
    Pbkdf2Sha512 { iterations: u32 },
    Argon2id { memory_kibibytes: u32, passes: u32, lanes: u32 },
}

/// A hash that can be computed again.
#[derive(Clone)]
struct Hash {
    cost: Cost,
    salt: SaltString,
    output: Output,
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cost.fmt(f)
    }
}

impl Hash {
    /// Reads a PHC string.
    fn parse(text: &str) -> Result<Self, HashFault> {
        let parsed = PasswordHash::new(text).map_err(|_| HashFault::Malformed)?;
        let (Some(salt), Some(output)) = (parsed.salt, parsed.hash) else { return Err(HashFault::Malformed) };
        let cost = match (parsed.algorithm, parsed.version) {
            (PBKDF2_SHA512, None) => pbkdf2_cost(&parsed.params, output.len())?,
            (ARGON2ID, Some(ARGON2_VERSION)) => argon2_cost(&parsed.params)?,
            _ => return Err(HashFault::Algorithm),
        };
        let salt = SaltString::from_b64(salt.as_str()).map_err(|_| HashFault::Malformed)?;
        let salt_bytes = salt.decode_b64(&mut [0; Salt::MAX_LENGTH]).map_err(|_| HashFault::Malformed)?.len();
        if salt_bytes < SALT_BYTES_MIN || output.len() < HASH_BYTES_MIN {
            return Err(HashFault::Short);
        }
        Ok(Self { cost, salt, output })
    }

    /// Whether `password` gives this hash. The comparison takes the same time wherever the difference is.
    fn is_of(&self, password: &[u8]) -> Result<bool, HashingFailed> {
        // `Output` compares in constant time.
        Ok(compute(password, self.cost, &self.salt, self.output.len())? == self.output)
    }
}

/// The library refused, or there is no memory.
#[derive(Debug)]
struct HashingFailed;

impl From<password_hash::Error> for HashingFailed {
    fn from(_: password_hash::Error) -> Self {
        Self
    }
}

impl From<argon2::Error> for HashingFailed {
    fn from(_: argon2::Error) -> Self {
        Self
    }
}

fn pbkdf2_cost(parameters: &ParamsString, hash_bytes: usize) -> Result<Cost, HashFault> {
    let iterations = parameters.get_decimal("i").ok_or(HashFault::Parameters)?;
    let length = parameters.get_decimal("l");
    let known = 1 + usize::from(length.is_some());
    let length_agrees = length.is_none_or(|length| usize::try_from(length) == Ok(hash_bytes));
    // As many as were looked at: none is unknown, none stands twice.
    if parameters.iter().count() != known || !length_agrees {
        return Err(HashFault::Parameters);
    }
    if !ITERATIONS.contains(&iterations) {
        return Err(HashFault::Iterations);
    }
    Ok(Cost::Pbkdf2Sha512 { iterations })
}

fn argon2_cost(parameters: &ParamsString) -> Result<Cost, HashFault> {
    let decimal = |name| parameters.get_decimal(name).ok_or(HashFault::Parameters);
    let (memory_kibibytes, passes, lanes) = (decimal("m")?, decimal("t")?, decimal("p")?);
    if parameters.iter().count() != 3 {
        return Err(HashFault::Parameters);
    }
    let fits = (1..=LANES_MAX).contains(&lanes)
        && (8 * lanes..=MEMORY_KIBIBYTES_MAX).contains(&memory_kibibytes)
        && (1..=PASSES_MAX).contains(&passes);
    if !fits {
        return Err(HashFault::Cost);
    }
    Ok(Cost::Argon2id { memory_kibibytes, passes, lanes })
}

/// Hashes. Takes as long and as much memory as `cost` says.
fn compute(password: &[u8], cost: Cost, salt: &SaltString, hash_bytes: usize) -> Result<Output, HashingFailed> {
    match cost {
        Cost::Pbkdf2Sha512 { iterations } => {
            let parameters = pbkdf2::Params { rounds: iterations, output_length: hash_bytes };
            let hash = Pbkdf2.hash_password_customized(password, Some(PBKDF2_SHA512), None, parameters, salt)?;
            hash.hash.ok_or(HashingFailed)
        }
        Cost::Argon2id { memory_kibibytes, passes, lanes } => {
            let parameters = argon2::Params::new(memory_kibibytes, passes, lanes, Some(hash_bytes))?;
            // The library would allocate by itself and end the process where there is no memory.
            let mut memory = Vec::new();
            memory.try_reserve_exact(parameters.block_count()).map_err(|_| HashingFailed)?;
            memory.resize(parameters.block_count(), Block::new());
            let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters);
            let mut salt_buffer = [0; Salt::MAX_LENGTH];
            let salt = salt.decode_b64(&mut salt_buffer)?;
            let mut output = [0; Output::MAX_LENGTH];
            let output = output.get_mut(..hash_bytes).ok_or(HashingFailed)?;
            argon2.hash_password_into_with_memory(password, salt, output, &mut memory)?;
            Ok(Output::new(output)?)
        }
    }
}

/// Hashes a new password with `salt`, which must be fresh entropy, into a PHC string. `None` without the memory for it.
#[must_use]
pub fn hash_password(password: &[u8], algorithm: PasswordAlgorithm, salt: &[u8; 16]) -> Option<String> {
    let salt = SaltString::encode_b64(salt).ok()?;
    let output = compute(password, algorithm.cost(), &salt, algorithm.hash_bytes()).ok()?;
    Some(match algorithm.cost() {
        Cost::Argon2id { memory_kibibytes, passes, lanes } => {
            format!("${ARGON2ID}$v={ARGON2_VERSION}$m={memory_kibibytes},t={passes},p={lanes}${salt}${output}")
        }
        Cost::Pbkdf2Sha512 { iterations } => {
            format!("${PBKDF2_SHA512}$i={iterations},l={}${salt}${output}", output.len())
        }
    })
}

/// Why a password lets nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordRefusal {
    /// The user is not known or the password is wrong. Which of them is not to be told.
    Wrong,
    /// There is no memory to hash it. Not the client's fault: it may come again.
    NoMemory,
}

impl fmt::Display for PasswordRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wrong => "user name or password is wrong",
            Self::NoMemory => "there is no memory to check a password",
        })
    }
}

/// What a password is checked against: that of a user, or of nobody.
#[derive(Clone, Debug)]
pub struct Credential {
    /// `None` where there are no users at all, and therefore nothing that the time could tell.
    hash: Option<Hash>,
    /// `None`: nobody, whatever the password.
    attributes: Option<Attributes>,
}

impl Credential {
    /// Checks `password` and gives the user's attributes. Takes as long as the file asks for, up to seconds, and up to
    /// 64 MiB of memory.
    ///
    /// # Errors
    /// The password is wrong, or it is nobody's.
    pub fn verify(self, password: &[u8]) -> Result<Attributes, PasswordRefusal> {
        let hash = self.hash.ok_or(PasswordRefusal::Wrong)?;
        let is_right = hash.is_of(password).map_err(|HashingFailed| PasswordRefusal::NoMemory)?;
        self.attributes.filter(|_| is_right).ok_or(PasswordRefusal::Wrong)
    }
}

/// The users of one file. The default has none, and lets nobody in.
#[derive(Clone, Debug, Default)]
pub struct Passwords {
    users: BTreeMap<String, (Hash, Attributes)>,
    /// Checked in place of unknown users; `None` without users.
    decoy: Option<Hash>,
}

impl Passwords {
    /// Whether both files have the same users with the same attributes, whatever their passwords.
    #[must_use]
    pub fn grants_like(&self, other: &Self) -> bool {
        let mut pairs = self.users.iter().zip(&other.users);
        self.users.len() == other.users.len() && pairs.all(|(user, other)| user.0 == other.0 && user.1.1 == other.1.1)
    }

    /// Reads a file. Without users it is well-formed, and lets nobody in.
    ///
    /// # Errors
    /// The first mistake, with its place and user, never with a hash.
    pub fn parse(text: &str) -> Result<Self, PasswordsFault> {
        let fault = |offset, kind| fault_at(text, offset, None, kind);
        if text.len() > PASSWORDS_BYTES_MAX {
            return Err(fault(0, PasswordsFaultKind::TooLarge));
        }
        let document = Document::parse(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            fault(offset, PasswordsFaultKind::Syntax(error.message().to_owned()))
        })?;
        if document.as_table().len() > USERS_MAX {
            return Err(fault(0, PasswordsFaultKind::TooManyUsers));
        }
        let mut users = BTreeMap::new();
        for (name, item) in document.iter() {
            let entry = user(name, item).map_err(|(field, kind)| {
                let key = document.as_table().get_key_value(name).and_then(|(key, _)| key.span());
                let offset = field.or(key).map_or(0, |span| span.start);
                fault_at(text, offset, Some(name), kind)
            })?;
            users.insert(name.to_owned(), entry);
        }
        let decoy = decoy(&users);
        Ok(Self { users, decoy })
    }

    /// What to check the password of `username` against. Never says that there is no such user: then nothing is right.
    #[must_use]
    pub fn find(&self, username: &str) -> Credential {
        match self.users.get(username) {
            Some((hash, attributes)) => Credential { hash: Some(hash.clone()), attributes: Some(attributes.clone()) },
            None => Credential { hash: self.decoy.clone(), attributes: None },
        }
    }

    /// What a user is granted who has come in already; `None` where there is no such user any more.
    #[must_use]
    pub fn attributes_of(&self, username: &str) -> Option<&Attributes> {
        self.users.get(username).map(|(_, attributes)| attributes)
    }

    /// Whether there is a user of this name, for the person who edits the file. Not for a login.
    #[must_use]
    pub fn contains(&self, username: &str) -> bool {
        self.users.contains_key(username)
    }

    /// Number of users.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is no user.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }
}

/// Bytes of the file that a mistake is about; without, it is about the user as a whole.
type Span = Option<core::ops::Range<usize>>;

/// Reads one user.
fn user(name: &str, item: &Item) -> Result<(Hash, Attributes), (Span, PasswordsFaultKind)> {
    use PasswordsFaultKind as Kind;
    if name.is_empty() || name.len() > USERNAME_BYTES_MAX {
        return Err((None, Kind::Name));
    }
    let table = item.as_table_like().ok_or((None, Kind::NotATable))?;
    if let Some((field, value)) = table.iter().find(|(field, _)| !matches!(*field, "password" | "attributes")) {
        let place = table.get_key_value(field).and_then(|(key, _)| key.span()).or(value.span());
        return Err((place, Kind::UnknownField(field.to_owned())));
    }
    let password = table.get("password").ok_or((None, Kind::PasswordMissing))?;
    let hash = password.as_str().ok_or((password.span(), Kind::PasswordNotAString))?;
    let hash = Hash::parse(hash).map_err(|fault| (password.span(), Kind::Hash(fault)))?;
    let attributes = match table.get("attributes") {
        None => Attributes::new(),
        Some(item) => attributes(item.as_table_like().ok_or((item.span(), Kind::AttributesNotATable))?)?,
    };
    Ok((hash, attributes))
}

fn attributes(table: &dyn TableLike) -> Result<Attributes, (Span, PasswordsFaultKind)> {
    use PasswordsFaultKind as Kind;
    let mut attributes = Attributes::new();
    for (name, value) in table.iter() {
        let text = value.as_str().ok_or_else(|| (value.span(), Kind::AttributeNotAString(name.to_owned())))?;
        attributes.insert(name, text).map_err(|IdentityFull| (value.span(), Kind::AttributesFull))?;
    }
    Ok(attributes)
}

fn fault_at(text: &str, offset: usize, user: Option<&str>, kind: PasswordsFaultKind) -> PasswordsFault {
    let before = text.get(..offset).unwrap_or_default();
    let line_begin = before.rfind('\n').map_or(0, |at| at + 1);
    PasswordsFault {
        line: before.matches('\n').count() + 1,
        column: before.chars().count() - before.get(..line_begin).unwrap_or_default().chars().count() + 1,
        user: user.map(str::to_owned),
        kind,
    }
}

/// The hash that unknown users are checked against: one with the commonest cost, so that most users look like them. Its own
/// password does not verify either.
fn decoy(users: &BTreeMap<String, (Hash, Attributes)>) -> Option<Hash> {
    let mut counts = BTreeMap::<Cost, usize>::new();
    for (hash, _) in users.values() {
        *counts.entry(hash.cost).or_default() += 1;
    }
    let commonest = counts.into_iter().max_by_key(|(_, count)| *count).map(|(cost, _)| cost);
    users.values().map(|(hash, _)| hash).find(|hash| Some(hash.cost) == commonest).cloned()
}

#[cfg(test)]
mod tests;
