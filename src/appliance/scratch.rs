//! A folder of a test, which ends with it.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// Removed when it is dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A folder of this process with this name, empty.
    pub fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("portcullis-appliance-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
