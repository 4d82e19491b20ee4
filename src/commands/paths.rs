//! Where a running broker finds what is not in its blob.

use crate::config::blob::Gateway;
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

/// The folders of the `Gateway` resource; relative ones start at the folder of the blob.
#[derive(Clone, Debug)]
pub struct Paths {
    /// `<name>/tls.crt`, `tls.key`, `passwords.toml`, `token`.
    pub secrets: PathBuf,
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
            issuers: blob_folder.join(&gateway.issuers_folder),
            revocation: blob_folder.join(&gateway.revocation_folder),
            state: Some(blob_folder.join(&gateway.state_folder)),
            control: Control::InState(Self::control_in(&blob_folder.join(&gateway.state_folder))),
        }
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
