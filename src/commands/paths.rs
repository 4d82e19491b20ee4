//! Where a running broker finds what is not in its blob.

use crate::config::blob::Gateway;
use std::path::{Path, PathBuf};

/// The folders of the `Gateway` resource; relative ones start at the folder of the blob.
#[derive(Clone, Debug)]
pub struct Paths {
    /// `<name>/tls.crt`, `tls.key`, `passwords.toml`, `token`.
    pub secrets: PathBuf,
    /// Revocation lists.
    pub revocation: PathBuf,
    /// What is to survive a restart; `None`: nothing is.
    pub state: Option<PathBuf>,
}

impl Paths {
    /// The folders beside a blob.
    #[must_use]
    pub fn beside(blob_folder: &Path, gateway: &Gateway) -> Self {
        Self {
            secrets: blob_folder.join(&gateway.secrets_folder),
            revocation: blob_folder.join(&gateway.revocation_folder),
            state: Some(blob_folder.join(&gateway.state_folder)),
        }
    }
}
