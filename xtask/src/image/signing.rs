//! Whose updates a gateway takes, and making one.
//!
//! Keys are files of OpenSSL's: `openssl genpkey -algorithm ed25519`. The private one is read by `portcullis bundle` and by nobody else.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Options;
use crate::process::{self, Failure, Outcome};
use crate::targets::Target;

/// What stands before the 32 bytes of an Ed25519 public key in DER: RFC 8410 §4.
const PREFIX: [u8; 12] = [0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The public key of an image, if it has one.
pub fn public_key(options: &Options) -> Outcome<Option<[u8; 32]>> {
    let mut command = Command::new("openssl");
    command.args(["pkey", "-pubout", "-outform", "DER"]);
    let path = match (&options.update_key, &options.sign) {
        // With both, the update is signed by the key of before, and brings the one of afterwards.
        (Some(public), _) => {
            command.arg("-pubin");
            public
        }
        (None, Some(private)) => private,
        (None, None) => return Ok(None),
    };
    let der = process::bytes(command.arg("-in").arg(path))?;
    let key = der.strip_prefix(&PREFIX).and_then(|key| key.try_into().ok());
    key.map(Some).ok_or_else(|| Failure::new(format!("{} is no Ed25519 key", path.display())))
}

/// What tells PID 1 which image it is from: names below `etc`, and contents.
pub fn identity(options: &Options, key: Option<&[u8; 32]>) -> Vec<(String, Vec<u8>)> {
    let Options { board, number, .. } = options;
    let text = format!("board={board}\nversion={number}\nrelease={}\n", env!("CARGO_PKG_VERSION"));
    let mut files = vec![("portcullis-image".to_owned(), text.into_bytes())];
    files.extend(key.map(|key| ("portcullis-update.key".to_owned(), key.to_vec())));
    files
}

/// An update to this slot, where there is a key to sign it with.
pub fn update(options: &Options, target: &Target, baker: &Path, slot: &Path) -> Outcome<Option<PathBuf>> {
    let Some(key) = &options.sign else { return Ok(None) };
    let out = slot.with_extension("update");
    let mut command = target.command(baker);
    command.arg("bundle").arg("--key").arg(key).args(["--board", &options.board]);
    command.args(["--version", &options.number.to_string(), "--release", env!("CARGO_PKG_VERSION")]);
    process::run(command.arg("--slot").arg(slot).arg("--out").arg(&out))?;
    println!("{}: an update to version {}", out.display(), options.number);
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_that_changes_the_key_is_signed_by_the_old_one_and_brings_the_new_one() {
        let folder = std::env::temp_dir().join(format!("portcullis-signing-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let openssl = |arguments: &[&str], file: &Path| {
            process::bytes(Command::new("openssl").args(arguments).arg(file)).unwrap();
        };
        let (old, new, public) = (folder.join("old.pem"), folder.join("new.pem"), folder.join("new.pub"));
        for key in [&old, &new] {
            openssl(&["genpkey", "-algorithm", "ed25519", "-out"], key);
        }
        openssl(&["pkey", "-pubout", "-in", &new.display().to_string(), "-out"], &public);
        let key = |update_key: Option<&PathBuf>, sign: Option<&PathBuf>| {
            let (update_key, sign) = (update_key.cloned(), sign.cloned());
            public_key(&Options { update_key, sign, ..Options::default() }).unwrap()
        };
        let (of_old, of_new) = (key(None, Some(&old)), key(None, Some(&new)));
        assert!(of_old.is_some() && of_old != of_new);
        assert_eq!(key(Some(&public), Some(&old)), of_new);
        assert_eq!(key(Some(&public), None), of_new);
        assert_eq!(key(None, None), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
