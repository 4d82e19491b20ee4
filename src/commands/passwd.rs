//! `portcullis passwd`: the users of a method UsernamePassword.
//!
//! Comments, order, mode and owner of the file stay as they are; the password is never shown, stored or logged. A running
//! broker notices the new file by itself.

use super::CommandError;
use crate::authentication::{PasswordAlgorithm, Passwords, hash_password};
use crate::config::diagnostic::Escaped;
use async_signal::{Signal, Signals};
use rustix::fs::{FlockOperation, flock};
use rustix::termios::{LocalModes, OptionalActions, isatty, tcgetattr, tcsetattr};
use smol::future::FutureExt as _;
use smol::stream::StreamExt as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use toml_edit::{DocumentMut, InlineTable, Item, Table, TableLike, Value, value};
use zeroize::Zeroizing;

/// Longest password, bytes: what CONNECT can carry.
const PASSWORD_BYTES_MAX: usize = 65_535;

/// Options of `passwd`.
#[derive(Debug, PartialEq, Eq)]
pub struct PasswdOptions {
    /// `passwords.toml`.
    pub file: PathBuf,
    /// The user.
    pub user: String,
    /// Take the user out instead of setting a password.
    pub delete: bool,
    /// Attributes to set; the others stay.
    pub attributes: Vec<(String, String)>,
    /// How the password is hashed.
    pub algorithm: PasswordAlgorithm,
}

/// Sets a user's password, or takes the user out. Others who do the same meanwhile wait.
///
/// # Errors
/// [`CommandError::ConfigurationRefused`] for a file or an entry that is not well-formed, [`CommandError::CannotStart`] when
/// the file cannot be read or written or there is no password.
pub fn run(options: &PasswdOptions, out: &mut impl Write) -> Result<(), CommandError> {
    let failed = |error: io::Error| CommandError::file(&options.file, &error);
    let refused = |what: String| {
        CommandError::ConfigurationRefused(format!("{}: {what}", Escaped(&options.file.to_string_lossy())))
    };
    // Before a person is asked for anything. Where the file is a link, what it leads to is changed.
    let path = match fs::canonicalize(&options.file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !options.delete => options.file.clone(),
        found => found.map_err(failed)?,
    };
    let read = || -> Result<String, CommandError> {
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !options.delete => String::new(),
            text => text.map_err(failed)?,
        };
        // The broker's own reading, so that a mistake elsewhere in the file is not carried along.
        Passwords::parse(&text).map_err(|fault| refused(fault.to_string()))?;
        Ok(text)
    };
    read()?;
    let hash = if options.delete { None } else { Some(new_hash(options)?) };
    let _lock = lock(&path).map_err(failed)?;
    let text = read()?;
    let (edited, done) = edit(&text, options, hash).map_err(refused)?;
    Passwords::parse(&edited).map_err(|fault| refused(fault.to_string()))?;
    replace(&path, &edited).map_err(failed)?;
    Ok(writeln!(out, "user '{}' {done}", options.user.escape_debug())?)
}

/// The file with the user's entry changed, and what happened to it.
fn edit(text: &str, options: &PasswdOptions, hash: Option<String>) -> Result<(String, &'static str), String> {
    let mut document: DocumentMut = text.parse().map_err(|error| format!("{error}"))?;
    let Some(hash) = hash else {
        if document.remove(&options.user).is_none() {
            return Err(format!("there is no user '{}'", options.user.escape_debug()));
        }
        let (head, rest) = (head(text), document.to_string());
        let lost = if rest.starts_with(head) { "" } else { head };
        return Ok((format!("{lost}{rest}"), "taken out"));
    };
    let known = document.contains_key(&options.user);
    let entry = document.entry(&options.user).or_insert_with(|| Item::Table(Table::new()));
    let Some(entry) = entry.as_table_like_mut() else { return Err("the user is not a table".to_owned()) };
    set(entry, "password", hash);
    if !options.attributes.is_empty() {
        // Inline, because that stands in every form that a table can have.
        let attributes = entry.entry("attributes").or_insert_with(|| value(InlineTable::new()));
        let Some(attributes) = attributes.as_table_like_mut() else {
            return Err("the attributes are not a table".to_owned());
        };
        for (name, text) in &options.attributes {
            set(attributes, name, text.clone());
        }
    }
    Ok((document.to_string(), if known { "changed" } else { "added" }))
}

/// Sets a value and keeps the comment behind it.
fn set(table: &mut dyn TableLike, name: &str, text: String) {
    let mut new = Value::from(text);
    match table.get_mut(name).and_then(Item::as_value_mut) {
        Some(old) => {
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        None => {
            table.insert(name, Item::Value(new));
        }
    }
}

/// The comments at the beginning of a file. They are of the file, though the parser gives them to the first user.
fn head(text: &str) -> &str {
    let length = text.split_inclusive('\n').take_while(|line| line.trim().is_empty() || line.starts_with('#'));
    text.get(..length.map(str::len).sum()).unwrap_or_default()
}

fn new_hash(options: &PasswdOptions) -> Result<String, CommandError> {
    let password = ask().map_err(|error| CommandError::CannotStart(format!("no password: {error}")))?;
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| CommandError::CannotStart(format!("no entropy: {error}")))?;
    hash_password(password.as_bytes(), options.algorithm, &salt)
        .ok_or_else(|| CommandError::CannotStart("no memory to hash a password".to_owned()))
}

/// The password: asked twice, unseen, from a person; else the first line of the standard input.
fn ask() -> io::Result<Zeroizing<String>> {
    let input = io::stdin();
    if !isatty(&input) {
        return line(&mut input.lock());
    }
    let mut signals = Signals::new([Signal::Int, Signal::Term, Signal::Hup])?;
    let modes = tcgetattr(&input)?;
    let mut unseen = modes.clone();
    unseen.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&input, OptionalActions::Flush, &unseen)?;
    // Whoever gives up wants to see again what is typed.
    let interrupted = async {
        signals.next().await;
        Err(io::Error::other("interrupted"))
    };
    let typed = smol::unblock(|| prompt("Password: ").and_then(|first| Ok((first, prompt("Once more: ")?))));
    let asked = async_io::block_on(interrupted.or(typed));
    tcsetattr(&input, OptionalActions::Flush, &modes)?;
    let (first, second) = asked?;
    if first == second { Ok(first) } else { Err(io::Error::other("the two are not the same")) }
}

fn prompt(text: &str) -> io::Result<Zeroizing<String>> {
    let mut errors = io::stderr();
    errors.write_all(text.as_bytes())?;
    let answer = line(&mut io::stdin().lock());
    errors.write_all(b"\n")?;
    answer
}

fn line(input: &mut impl BufRead) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(256));
    input.read_line(&mut text)?;
    let password = text.trim_end_matches(['\r', '\n']);
    match password.len() {
        0 => Err(io::Error::other("it is empty")),
        1..=PASSWORD_BYTES_MAX => Ok(Zeroizing::new(password.to_owned())),
        _ => Err(io::Error::other("it is too long")),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Keeps others of this command out until it is dropped: the folder is locked, because the file is replaced.
fn lock(path: &Path) -> io::Result<File> {
    fs::create_dir_all(folder_of(path))?;
    let folder = File::open(folder_of(path))?;
    flock(&folder, FlockOperation::LockExclusive)?;
    Ok(folder)
}

/// Replaces a file, so that the broker sees the old one or the new one. Mode and owner stay; a new file is for its owner
/// only.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("toml.new");
    // Left behind by a crash, or laid as a trap.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = keep_owner(path, &file)
        .and_then(|()| file.write_all(text.as_bytes()))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&new);
        return written;
    }
    File::open(folder_of(path))?.sync_all()
}

fn keep_owner(path: &Path, file: &File) -> io::Result<()> {
    let old = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        old => old?,
    };
    let own = file.metadata()?;
    if (old.uid(), old.gid()) != (own.uid(), own.gid()) {
        fchown(file, Some(old.uid()), Some(old.gid()))?;
    }
    file.set_permissions(old.permissions())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// In the form of the vendor's example.
    const FILE: &str = "\
# Users of the gateway,
# by floor.
[client1]
password = \"old\"   # changed in spring
[client1.attributes]
floor = \"floor1\"  # ground
site = \"site1\"

[client2] # a robot
password = \"old2\"
[client2.attributes]
floor = \"floor2\"
# the end
";

    fn edited(text: &str, user: &str, attributes: &[(&str, &str)], hash: Option<&str>) -> String {
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (file, user, algorithm) = (PathBuf::new(), user.to_owned(), PasswordAlgorithm::Argon2id);
        let options = PasswdOptions { file, user, delete: hash.is_none(), attributes, algorithm };
        edit(text, &options, hash.map(str::to_owned)).unwrap().0
    }

    #[test]
    fn a_change_touches_nothing_else() {
        let changed = edited(FILE, "client1", &[("floor", "floor9")], Some("new"));
        assert_eq!(changed, FILE.replace("\"old\"", "\"new\"").replace("\"floor1\"", "\"floor9\""));
        assert_eq!(edited(FILE, "client2", &[], Some("old2")), FILE);
    }

    #[test]
    fn a_user_that_is_taken_out_leaves_the_comments_of_the_file() {
        let without_first = edited(FILE, "client1", &[], None);
        assert!(without_first.starts_with("# Users of the gateway,\n# by floor.\n"), "{without_first}");
        assert!(without_first.ends_with(&FILE[FILE.find("[client2]").unwrap()..]), "{without_first}");
        assert!(!without_first.contains("client1") && !without_first.contains("site1"), "{without_first}");
        let without_second = edited(FILE, "client2", &[], None);
        assert!(without_second.starts_with(&FILE[..FILE.find("\n[client2]").unwrap()]), "{without_second}");
        assert!(without_second.ends_with("# the end\n"), "{without_second}");
    }

    #[test]
    fn every_form_of_a_table_takes_attributes() {
        for text in [
            "[a]\npassword = \"old\"\n",
            "a = { password = \"old\" }\n",
            "a.password = \"old\"\n",
            "\"a\" = { password = \"old\", attributes = {} }\n",
            "[a]\npassword = \"old\"\n[a.attributes]\n",
            "",
        ] {
            let changed = edited(text, "a", &[("x", "1\"\n"), ("y z", "2")], Some("new"));
            let read: DocumentMut = changed.parse().unwrap();
            let user = read["a"].as_table_like().unwrap();
            assert_eq!(user.get("password").unwrap().as_str(), Some("new"), "{changed}");
            assert_eq!(read["a"]["attributes"]["x"].as_str(), Some("1\"\n"), "{changed}");
            assert_eq!(read["a"]["attributes"]["y z"].as_str(), Some("2"), "{changed}");
        }
        let twice = edited(&edited("", "a", &[], Some("1")), "b c", &[("d", "e")], Some("2"));
        assert_eq!(twice, "[a]\npassword = \"1\"\n\n[\"b c\"]\npassword = \"2\"\nattributes = { d = \"e\" }\n");
    }
}
