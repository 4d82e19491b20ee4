//! Where things are: the workspace's root, its build folders, and cargo.

use std::fs::{File, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::left_out;
use crate::process::{Failure, Outcome};

/// The folder with the workspace's `Cargo.toml`.
///
/// `cargo xtask` gives it at run time; the value of compile time serves a binary that was started by hand.
pub fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    own.parent().map_or(own.clone(), Path::to_path_buf)
}

/// Cargo's target folder.
pub fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// Where the release binaries are put.
pub fn dist_folder() -> PathBuf {
    target_folder().join("dist")
}

/// Where cross-built artefacts are kept, apart from the host's, which another compiler made.
pub fn cross_build_folder() -> PathBuf {
    target_folder().join("cross-build")
}

/// Where the foreign standard libraries are kept.
pub fn cross_folder() -> PathBuf {
    target_folder().join("cross")
}

/// Cargo, at the root of the workspace, with the dependencies that `Cargo.lock` names and no others.
///
/// `PORTCULLIS_BINARY` and `PORTCULLIS_RUNNER` are taken out, so that what a caller exported cannot decide which broker is tested.
pub fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).arg(subcommand);
    command.env_remove("PORTCULLIS_BINARY").env_remove("PORTCULLIS_RUNNER");
    command.env("PORTCULLIS_LEFT_OUT", left_out::file());
    command
}

/// Makes a folder and those above it.
pub fn make_folder(path: &Path) -> Outcome {
    std::fs::create_dir_all(path).map_err(|error| Failure::file("make the folder", path, &error))
}

/// Writes a file.
pub fn write(path: &Path, text: &str) -> Outcome {
    std::fs::write(path, text).map_err(|error| Failure::file("write", path, &error))
}

/// Begins a file that has private keys in it: empty, and for its owner only, whoever made it before.
pub fn private_file(path: &Path) -> Outcome<File> {
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|file| file.set_permissions(Permissions::from_mode(0o600)).map(|()| file))
        .map_err(|error| Failure::file("write", path, &error))
}

/// Removes a folder with all that is in it; that it is not there is no failure.
pub fn remove_folder(path: &Path) -> Outcome {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::file("remove", path, &error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_keys_in_it_is_its_owner_s_even_if_it_was_there_before() {
        let path = std::env::temp_dir().join(format!("portcullis-private-{}", std::process::id()));
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let file = private_file(&path).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.len()), (0o600, 0));
        std::fs::remove_file(&path).unwrap();
    }
}
