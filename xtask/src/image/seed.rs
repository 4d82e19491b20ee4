//! What the first start of a card puts onto its data partition: the baked configuration, its version, and what the blob refers to by name.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Options, cpio, read};
use crate::process::{self, Failure, Outcome};
use crate::targets::Target;

/// What PID 1 takes of the archive: `src/bundle/archive.rs` and `src/appliance/tree.rs`, and a little less.
const SEED_BYTES_MAX: usize = 4 << 20;
const SEED_FILES_MAX: usize = 3_500;
const SEED_DEPTH_MAX: usize = 3;
/// Beside a blob: what it refers to by name.
const BESIDE_THE_BLOB: [&str; 3] = ["secrets", "issuers", "revocation"];

/// The configuration of a card.
pub struct Seed {
    /// Names and contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// What `portcullis inspect` tells of the blob.
    pub told: String,
}

/// What the card's first start puts beside the broker's state: names and contents.
pub fn make(options: &Options, target: &Target, baker: &Path, image: &Path) -> Outcome<Seed> {
    let blob = image.with_extension("blob");
    // The broker that will read it bakes it.
    let mut command = target.command(baker);
    command.arg("bake").arg(&options.configuration).arg("--board").arg(&options.board).arg("--out").arg(&blob);
    process::run(&mut command)?;
    let told = process::capture(target.command(baker).arg("inspect").arg(&blob))?;
    let number = options.configuration_number.to_string().into_bytes();
    let mut files = vec![("portcullis.blob".to_owned(), read(&blob)?), ("version".to_owned(), number)];
    std::fs::remove_file(&blob).map_err(|error| Failure::file("remove", &blob, &error))?;
    files.extend(beside(&options.configuration)?);
    files.sort();
    check(&files)?;
    Ok(Seed { files, told })
}

/// What is in the folders that a blob refers to. A folder that is not there is empty; what is there and cannot be read is a failure: a
/// card without it would start without its keys.
fn beside(configuration: &Path) -> Outcome<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for top in BESIDE_THE_BLOB {
        let mut folders = vec![(configuration.join(top), top.to_owned())];
        while let Some((folder, name)) = folders.pop() {
            let fault = |error: &std::io::Error| Failure::file("read", &folder, error);
            let entries = match std::fs::read_dir(&folder) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && name == top => continue,
                entries => entries.map_err(|error| fault(&error))?,
            };
            for entry in entries {
                let path = entry.map_err(|error| fault(&error))?.path();
                let kind = std::fs::metadata(&path).map_err(|error| Failure::file("read", &path, &error))?;
                let name = format!("{name}/{}", path.file_name().unwrap_or_default().to_string_lossy());
                if kind.is_dir() { folders.push((path, name)) } else { files.push((name, read(&path)?)) }
            }
        }
    }
    Ok(files)
}

/// PID 1 takes no more than this from a card that anybody may have written to.
fn check(files: &[(String, Vec<u8>)]) -> Outcome {
    let bytes: usize = files.iter().map(|(name, contents)| name.len() + contents.len() + 512).sum();
    let too_much = if bytes > SEED_BYTES_MAX {
        format!("{} MiB", SEED_BYTES_MAX >> 20)
    } else if files.len() > SEED_FILES_MAX {
        format!("{SEED_FILES_MAX} files")
    } else if let Some((name, _)) = files.iter().find(|(name, _)| name.matches('/').count() > SEED_DEPTH_MAX) {
        format!("{SEED_DEPTH_MAX} folders, one in the other ({name})")
    } else {
        return Ok(());
    };
    Err(Failure::new(format!(
        "the blob, secrets/, issuers/ and revocation/ together are more than {too_much}: too much for a card"
    )))
}

/// Files with the folders that they are in, as one archive.
pub fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = cpio::Archive::default();
    let mut folders = BTreeSet::new();
    for (name, contents) in files {
        for (at, _) in name.match_indices('/') {
            if let Some(folder) = name.get(..at)
                && folders.insert(folder)
            {
                archive.folder(folder, 0o700);
            }
        }
        archive.file(name, 0o600, contents);
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn a_configuration_that_pid_1_would_not_take_is_not_put_onto_a_card() {
        let file = |name: &str, bytes: usize| (name.to_owned(), vec![0; bytes]);
        assert!(check(&[file("portcullis.blob", 1_000), file("secrets/a/tls.key", 1_000)]).is_ok());
        assert!(check(&[file("portcullis.blob", SEED_BYTES_MAX)]).unwrap_err().to_string().contains("4 MiB"));
        assert!(check(&vec![file("x", 1); SEED_FILES_MAX + 1]).unwrap_err().to_string().contains("files"));
        assert!(check(&[file("secrets/a/b/c/d", 1)]).unwrap_err().to_string().contains("folders"));
        let reader = read(&workspace::root().join("src/bundle/archive.rs")).unwrap();
        let reader = String::from_utf8(reader).unwrap();
        assert!(reader.contains("BYTES_MAX: u64 = 4 * 1024 * 1024;") && reader.contains("ENTRIES_MAX: usize = 4_096;"));
    }

    #[test]
    fn a_folder_that_is_not_there_is_empty_and_one_that_cannot_be_read_is_a_failure() {
        let folder = std::env::temp_dir().join(format!("portcullis-seed-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("secrets/a")).unwrap();
        std::fs::write(folder.join("secrets/a/tls.key"), "key").unwrap();
        assert_eq!(beside(&folder).unwrap(), [("secrets/a/tls.key".to_owned(), b"key".to_vec())]);
        std::os::unix::fs::symlink("absent", folder.join("secrets/a/tls.crt")).unwrap();
        assert!(beside(&folder).unwrap_err().to_string().contains("tls.crt"), "a link to nothing");
        std::fs::remove_file(folder.join("secrets/a/tls.crt")).unwrap();
        // Whoever runs the tests may be root, who may read everything; a file is no folder for root either.
        std::fs::write(folder.join("issuers"), "").unwrap();
        assert!(beside(&folder).unwrap_err().to_string().contains("issuers"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
