//! Where a running broker finds what is not in its blob: beside it, where the `Gateway` resource says, or where the service manager
//! has made folders for it.

use crate::config::blob::Gateway;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// Where the state is while no `Gateway` resource can be read to say so.
const STATE_FOLDER: &str = "state";

/// The control socket's name in a state folder.
const CONTROL_SOCKET: &str = "control.sock";

/// Where the control socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Nowhere.
    Absent,
    /// In the state folder. A broker serves without it where the folder cannot have one.
    InState(PathBuf),
    /// Where the command line says.
    AskedFor(PathBuf),
}

/// The folders that a service manager makes for a service and names in its environment, systemd.exec(5). Each may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFolders {
    /// `STATE_DIRECTORY`: what outlives a restart.
    pub state: Option<PathBuf>,
    /// `RUNTIME_DIRECTORY`: what others may find while the service runs.
    pub runtime: Option<PathBuf>,
    /// `CREDENTIALS_DIRECTORY`: files that nobody else may read, as they were at start.
    pub credentials: Option<PathBuf>,
}

impl ServiceFolders {
    /// Those of this process.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::read(|name| std::env::var_os(name))
    }

    /// Those that `variable` gives. Of several folders with colons between, the first; one that does not begin at the root is
    /// none that a service manager made.
    fn read(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let folder = |name: &str| {
            let value = variable(name)?;
            let first = value.as_bytes().split(|byte| *byte == b':').next().unwrap_or_default();
            Some(PathBuf::from(OsString::from_vec(first.to_vec()))).filter(|path| path.is_absolute())
        };
        Self {
            state: folder("STATE_DIRECTORY"),
            runtime: folder("RUNTIME_DIRECTORY"),
            credentials: folder("CREDENTIALS_DIRECTORY"),
        }
    }
}

/// The folders of the `Gateway` resource; relative ones start at the folder of the blob.
#[derive(Clone, Debug)]
pub struct Paths {
    /// `<name>/tls.crt`, `tls.key`, `passwords.toml`, `token`.
    pub secrets: PathBuf,
    /// Credentials of the service manager, which come before `secrets`: `secrets_<name>_<file>`, as `LoadCredential` calls the
    /// files of a folder.
    pub credentials: Option<PathBuf>,
    /// `<name>/tls.crt` and `tls.key` of authorities that issue certificates of mode Automatic.
    pub issuers: PathBuf,
    /// Revocation lists, `*.crl`, `*.pem` or `*.der`, and the deny list `deny.yaml`.
    pub revocation: PathBuf,
    /// What is to survive a restart; `None`: nothing is.
    pub state: Option<PathBuf>,
    /// The socket of `portcullis status` and the other commands that look at a running broker.
    pub control: Control,
}

impl Paths {
    /// The folders beside a blob.
    #[must_use]
    pub fn beside(blob_folder: &Path, gateway: &Gateway) -> Self {
        Self {
            secrets: blob_folder.join(&gateway.secrets_folder),
            credentials: None,
            issuers: blob_folder.join(&gateway.issuers_folder),
            revocation: blob_folder.join(&gateway.revocation_folder),
            state: Some(blob_folder.join(&gateway.state_folder)),
            control: Control::InState(Self::control_in(&blob_folder.join(&gateway.state_folder))),
        }
    }

    /// A file of a Secret: the credential of the service manager if there is one, else that in the secrets folder.
    #[must_use]
    pub fn secret(&self, name: &str, file: &str) -> PathBuf {
        // No name of a Secret has an underscore in it, so that no two files have one credential.
        let credential = self.credentials.as_ref().map(|folder| folder.join(format!("secrets_{name}_{file}")));
        credential.filter(|path| path.is_file()).unwrap_or_else(|| self.secrets.join(name).join(file))
    }

    /// The control socket in a state folder.
    #[must_use]
    pub fn control_in(state: &Path) -> PathBuf {
        state.join(CONTROL_SOCKET)
    }

    /// The state folder beside a blob that cannot be read.
    #[must_use]
    pub fn default_state(blob_folder: &Path) -> PathBuf {
        blob_folder.join(STATE_FOLDER)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_of_the_service_manager_counts_if_it_begins_at_the_root() {
        let folders = ServiceFolders::read(|name| match name {
            "STATE_DIRECTORY" => Some("/var/lib/a:/var/lib/b".into()),
            "RUNTIME_DIRECTORY" => Some("run/a".into()),
            _ => None,
        });
        assert_eq!(folders, ServiceFolders { state: Some("/var/lib/a".into()), runtime: None, credentials: None });
        assert_eq!(ServiceFolders::read(|_| Some(OsString::new())), ServiceFolders::default());
    }

    #[test]
    fn a_credential_comes_before_the_file_of_the_secrets_folder() {
        let folder = std::env::temp_dir().join(format!("portcullis-credentials-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("secrets_server_tls.key"), "").unwrap();
        let paths = Paths {
            secrets: "secrets".into(),
            credentials: Some(folder.clone()),
            issuers: PathBuf::new(),
            revocation: PathBuf::new(),
            state: None,
            control: Control::Absent,
        };
        assert_eq!(paths.secret("server", "tls.key"), folder.join("secrets_server_tls.key"));
        assert_eq!(paths.secret("server", "tls.crt"), Path::new("secrets/server/tls.crt"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
