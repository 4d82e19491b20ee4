//! What is in a package, as files of a folder that `dpkg-deb` packs.
//!
//! **Invariant:** the same files give the same package. Modes are set here, whatever the umask; owner and times are set by dpkg-deb,
//! the times from `SOURCE_DATE_EPOCH`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{self, Failure, Outcome};
use crate::workspace;

/// A file that everybody may read.
pub const PLAIN: u32 = 0o644;
/// A program.
pub const PROGRAM: u32 = 0o755;
/// A folder for root only.
pub const CLOSED: u32 = 0o700;

/// The folder, and what has been put into it.
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// An empty one in place of whatever was at `root`.
    pub fn new(root: PathBuf) -> Outcome<Self> {
        workspace::remove_folder(&root)?;
        workspace::make_folder(&root)?;
        set_mode(&root, PROGRAM)?;
        Ok(Self { root })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A folder below the root, with those above it.
    pub fn folder(&self, path: &str, mode: u32) -> Outcome {
        let mut folder = self.root.clone();
        for part in Path::new(path) {
            folder.push(part);
            if !folder.is_dir() {
                workspace::make_folder(&folder)?;
                set_mode(&folder, PROGRAM)?;
            }
        }
        set_mode(&folder, mode)
    }

    /// A file with a text.
    pub fn write(&self, path: &str, text: &str, mode: u32) -> Outcome {
        let file = self.beside(path)?;
        workspace::write(&file, text)?;
        set_mode(&file, mode)
    }

    /// A file with a text, compressed as Debian wants its documentation: without name and time.
    pub fn write_compressed(&self, path: &str, text: &str) -> Outcome {
        let file = self.beside(path)?;
        workspace::write(&file, text)?;
        process::run(Command::new("gzip").args(["-9nf"]).arg(&file))?;
        set_mode(&self.root.join(format!("{path}.gz")), PLAIN)
    }

    /// A copy of a file.
    pub fn copy(&self, from: &Path, path: &str, mode: u32) -> Outcome {
        let file = self.beside(path)?;
        fs::copy(from, &file).map_err(|error| Failure::file("copy", from, &error))?;
        set_mode(&file, mode)
    }

    /// Paths of all files below the root, in order, without those of the package's own control folder.
    pub fn files(&self) -> Outcome<Vec<String>> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder).map_err(|error| Failure::file("read", &folder, &error))?;
            for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(below) = path.strip_prefix(&self.root)
                    && !below.starts_with("DEBIAN")
                {
                    found.push(below.to_string_lossy().into_owned());
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// KiB that the files take when they are installed, rounded up one by one.
    pub fn kibibytes(&self) -> Outcome<u64> {
        let mut sum = 0;
        for file in self.files()? {
            let path = self.root.join(file);
            let metadata = fs::metadata(&path).map_err(|error| Failure::file("read", &path, &error))?;
            sum += metadata.len().div_ceil(1_024);
        }
        Ok(sum)
    }

    /// The path of a file, whose folder is there.
    fn beside(&self, path: &str) -> Outcome<PathBuf> {
        if let Some((folder, _)) = path.rsplit_once('/')
            && !self.root.join(folder).is_dir()
        {
            self.folder(folder, PROGRAM)?;
        }
        Ok(self.root.join(path))
    }
}

fn set_mode(path: &Path, mode: u32) -> Outcome {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|error| Failure::file("set the mode of", path, &error))
}
