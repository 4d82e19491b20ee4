//! Which files a configuration is made of.
//!
//! Sources are folders, read recursively, or single files; the program's own configurations come as pairs of path and
//! text. Either way a path decides what its file is:
//!
//! | path | is |
//! | --- | --- |
//! | `…/trust/<name>/<key>` | one PEM file of the ConfigMap `<name>` |
//! | `…/keys/<name>/<key>.json` | one JWK Set of the ConfigMap `<name>` |
//! | `…/secrets/<name>/tls.crt`, `tls.key` | the Secret `<name>` |
//! | `…/secrets/<name>/passwords.toml`, `token` | for the running broker: left alone |
//! | `…/issuers/<name>/tls.crt`, `tls.key` | the same |
//! | `…/revocation/<file>` | the same |
//! | `<name>.authorization.json` and the like | a bare body, see [`BareKind`] |
//! | `*.test.yaml`, `*.test.yml`, `*.test.json` | policy tests: for `portcullis test`, left alone here |
//! | other `*.yaml`, `*.yml`, `*.json` | manifests |
//!
//! Names that begin with a dot are skipped. Only regular files are opened, a folder is entered once however many links
//! lead to it, and sizes, counts and depth are bounded.

use super::{FILE_BYTES_MAX, Syntax};
use crate::config::diagnostic::{Place, Report};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most files of one configuration.
const FILES_MAX: usize = 10_000;
/// Deepest nesting of folders below a source.
const FOLDER_DEPTH_MAX: usize = 16;

/// A file with its contents.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// The path as messages show it.
    pub path: String,
    /// Its contents.
    pub contents: Vec<u8>,
}

/// What a bare body is, from the file name `<name>.<kind>.<json|yaml|yml>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareKind {
    /// `authorization`, `rules`: a list of rules, `authorizationPolicies`, or a whole spec.
    Authorization,
    /// `authentication`, `x509`, `x509Settings`: the body of `x509Settings`, or a whole spec.
    Authentication,
    /// `listener`: a spec.
    Listener,
    /// `broker`: a spec.
    Broker,
}

/// A manifest or bare body.
pub struct Manifest {
    /// The file.
    pub file: File,
    /// What it is written in.
    pub syntax: Syntax,
    /// Kind and name, where the file name gives them.
    pub bare: Option<(BareKind, String)>,
}

/// One file that is an entry of a ConfigMap or Secret.
pub struct EntryFile {
    /// The file.
    pub file: File,
    /// The folder it was found in; two folders of one name are two resources.
    pub folder: String,
    /// Name of the resource.
    pub name: String,
    /// The key inside it.
    pub key: String,
}

/// Everything that was found.
#[derive(Default)]
pub struct Found {
    /// Manifests and bare bodies.
    pub manifests: Vec<Manifest>,
    /// Files of `trust/<name>/` and `keys/<name>/`.
    pub config_maps: Vec<EntryFile>,
    /// Files of `secrets/<name>/`.
    pub secrets: Vec<EntryFile>,
}

/// What the path of a file makes it.
enum Role {
    Manifest(Syntax, Option<(BareKind, String)>),
    ConfigMap,
    Secret,
    /// Of no use here, and rightly there: the running broker or another command reads it.
    LeftAlone,
    Ignored,
}

fn role_of(components: &[&str]) -> Role {
    let Some((file, folders)) = components.split_last() else { return Role::Ignored };
    if let Some(at) =
        folders.iter().position(|folder| matches!(*folder, "trust" | "keys" | "secrets" | "issuers" | "revocation"))
    {
        return match (folders.len() - at, folders.get(at), *file) {
            (2, Some(&"trust"), _) => Role::ConfigMap,
            (2, Some(&"keys"), name) if name.ends_with(".json") => Role::ConfigMap,
            (2, Some(&"secrets"), "tls.crt" | "tls.key") => Role::Secret,
            (2, Some(&"secrets"), "passwords.toml" | "token") => Role::LeftAlone,
            (2, Some(&"issuers"), "tls.crt" | "tls.key") => Role::LeftAlone,
            (1, Some(&"revocation"), _) => Role::LeftAlone,
            _ => Role::Ignored,
        };
    }
    let (stem, syntax) = match file.rsplit_once('.') {
        Some((stem, "yaml" | "yml")) => (stem, Syntax::Yaml),
        Some((stem, "json")) => (stem, Syntax::Json),
        Some(_) | None => return Role::Ignored,
    };
    if stem.ends_with(".test") {
        return Role::LeftAlone;
    }
    let bare = stem.rsplit_once('.').and_then(|(name, kind)| {
        let kind = match kind {
            "authorization" | "rules" => BareKind::Authorization,
            "authentication" | "x509" | "x509Settings" => BareKind::Authentication,
            "listener" => BareKind::Listener,
            "broker" => BareKind::Broker,
            _ => return None,
        };
        Some((kind, name.to_owned()))
    });
    Role::Manifest(syntax, bare)
}

impl Found {
    /// Sorts one file in. `components` is its path below the source.
    fn add(&mut self, components: &[&str], file: File, report: &mut Report) {
        let entry = |file: File| EntryFile {
            folder: file.path.rsplit_once('/').map_or_else(String::new, |(folder, _)| folder.to_owned()),
            name: components.iter().rev().nth(1).copied().unwrap_or_default().to_owned(),
            key: components.last().copied().unwrap_or_default().to_owned(),
            file,
        };
        match role_of(components) {
            Role::Manifest(syntax, bare) => self.manifests.push(Manifest { file, syntax, bare }),
            Role::ConfigMap => self.config_maps.push(entry(file)),
            Role::Secret => self.secrets.push(entry(file)),
            Role::LeftAlone => {}
            Role::Ignored => note_ignored(&file.path, report),
        }
    }
}

fn note_ignored(path: &str, report: &mut Report) {
    let message = "ignored: neither a manifest nor a file of trust/<name>/, keys/<name>/ or secrets/<name>/";
    report.note(&Place::start_of(path), message);
}

/// Sorts files that are part of the program, or made by it.
pub fn gather_embedded(files: &[(&str, &str)], report: &mut Report) -> Found {
    let mut found = Found::default();
    for (path, text) in files {
        let components: Vec<&str> = path.split('/').collect();
        found.add(&components, File { path: (*path).to_owned(), contents: text.as_bytes().to_vec() }, report);
    }
    found
}

/// Reads folders and files.
pub fn gather(sources: &[PathBuf], report: &mut Report) -> Found {
    let mut found = Found::default();
    let mut walk = Walk { folders_seen: BTreeSet::new(), files: 0 };
    for source in sources {
        walk.source(source, &mut found, report);
    }
    found
}

struct Walk {
    folders_seen: BTreeSet<PathBuf>,
    files: usize,
}

impl Walk {
    fn source(&mut self, source: &Path, found: &mut Found, report: &mut Report) {
        let shown = source.to_string_lossy().into_owned();
        let metadata = match fs::metadata(source) {
            Ok(metadata) => metadata,
            Err(error) => return report.error(&Place::start_of(&shown), format!("cannot be read: {error}")),
        };
        if metadata.is_dir() {
            return self.folder(source, found, report);
        }
        if !metadata.is_file() {
            return report.error(&Place::start_of(&shown), "neither a folder nor a regular file");
        }
        let components: Vec<String> =
            source.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        let components: Vec<&str> = components.iter().map(String::as_str).collect();
        // Only what stands nearest to the file counts: a folder further up may be called anything.
        let tail = components.get(components.len().saturating_sub(3)..).unwrap_or_default();
        if matches!(role_of(tail), Role::Ignored | Role::LeftAlone) {
            return report.error(&Place::start_of(&shown), "not a *.yaml, *.yml or *.json file of a configuration");
        }
        self.file(source, tail, found, report);
    }

    /// Reads a folder and what is below it, with a list of folders to do instead of recursion.
    fn folder(&mut self, root: &Path, found: &mut Found, report: &mut Report) {
        let own_name = root.file_name().map(|name| name.to_string_lossy().into_owned());
        let mut to_do = vec![(root.to_path_buf(), own_name.into_iter().collect::<Vec<String>>(), 0_usize)];
        while let Some((folder, components, depth)) = to_do.pop() {
            let shown = folder.to_string_lossy().into_owned();
            let entries = match self.entries_of(&folder) {
                Ok(Some(entries)) => entries,
                Ok(None) => continue,
                Err(error) => {
                    report.error(&Place::start_of(&shown), format!("cannot be read: {error}"));
                    continue;
                }
            };
            for (name, path) in entries {
                let shown = path.to_string_lossy().into_owned();
                let mut components = components.clone();
                components.push(name);
                match fs::metadata(&path) {
                    Ok(metadata) if metadata.is_dir() && depth < FOLDER_DEPTH_MAX => {
                        to_do.push((path, components, depth + 1))
                    }
                    Ok(metadata) if metadata.is_dir() => {
                        report.error(
                            &Place::start_of(&shown),
                            format!("folders are nested deeper than {FOLDER_DEPTH_MAX}"),
                        );
                    }
                    Ok(metadata) if metadata.is_file() => {
                        let parts: Vec<&str> = components.iter().map(String::as_str).collect();
                        self.file(&path, &parts, found, report);
                    }
                    Ok(_) => report.note(&Place::start_of(&shown), "ignored: not a regular file"),
                    Err(error) => report.error(&Place::start_of(&shown), format!("cannot be read: {error}")),
                }
            }
        }
    }

    /// The entries of a folder in order of name; `None` when it has been read before.
    fn entries_of(&mut self, folder: &Path) -> std::io::Result<Option<Vec<(String, PathBuf)>>> {
        if !self.folders_seen.insert(fs::canonicalize(folder)?) {
            return Ok(None);
        }
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                entries.push((name, entry.path()));
            }
        }
        entries.sort();
        Ok(Some(entries))
    }

    fn file(&mut self, path: &Path, components: &[&str], found: &mut Found, report: &mut Report) {
        let shown = path.to_string_lossy().into_owned();
        match role_of(components) {
            Role::Ignored => return note_ignored(&shown, report),
            Role::LeftAlone => return,
            Role::Manifest(..) | Role::ConfigMap | Role::Secret => {}
        }
        self.files += 1;
        if self.files > FILES_MAX {
            if self.files == FILES_MAX + 1 {
                report.error(&Place::start_of(&shown), format!("more than {FILES_MAX} files"));
            }
            return;
        }
        match read_bounded(path) {
            Ok(Some(contents)) => found.add(components, File { path: shown, contents }, report),
            Ok(None) => report.error(&Place::start_of(&shown), format!("larger than {FILE_BYTES_MAX} bytes")),
            Err(error) => report.error(&Place::start_of(&shown), format!("cannot be read: {error}")),
        }
    }
}

/// The contents of a file; `None` when it is larger than [`FILE_BYTES_MAX`].
pub fn read_bounded(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let mut contents = Vec::new();
    let read = fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut contents)?;
    let fits = u64::try_from(read).is_ok_and(|read| read <= FILE_BYTES_MAX);
    Ok(fits.then_some(contents))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_decides_what_a_file_is() {
        let files = [
            ("a.yaml", ""),
            ("sub/b.json", ""),
            ("abac.authorization.json", ""),
            ("site.test.yaml", ""),
            ("site.trust/x/a.yaml", ""),
            ("trust/ca/one.pem", ""),
            ("x/trust/ca/two.yaml", ""),
            ("keys/cluster/jwks.json", ""),
            ("keys/cluster/key.pem", ""),
            ("secrets/server/tls.crt", ""),
            ("secrets/users/passwords.toml", ""),
            ("secrets/api/token", ""),
            ("revocation/deny.yaml", ""),
            ("secrets/server/ca.crt", ""),
            ("secrets/server/deep/tls.key", ""),
            ("README.md", ""),
        ];
        let mut report = Report::new();
        let found = gather_embedded(&files, &mut report);
        let manifests: Vec<_> = found.manifests.iter().map(|m| (m.file.path.as_str(), m.bare.clone())).collect();
        assert_eq!(
            manifests,
            [
                ("a.yaml", None),
                ("sub/b.json", None),
                ("abac.authorization.json", Some((BareKind::Authorization, "abac".to_owned()))),
                ("site.trust/x/a.yaml", None),
            ]
        );
        let entries: Vec<_> = found.config_maps.iter().map(|p| (p.name.as_str(), p.key.as_str())).collect();
        assert_eq!(entries, [("ca", "one.pem"), ("ca", "two.yaml"), ("cluster", "jwks.json")]);
        assert_eq!(found.secrets.len(), 1);
        assert_eq!(report.finish().0.len(), 4, "what is ignored is noted");
    }
}
