//! Licences and notices of what is linked into the program: they must go where it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::process::{self, Failure, Outcome};
use crate::targets::Target;
use crate::workspace;

/// What the names of such files begin with.
const BEGINNINGS: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// The text for a target: each library with its licence, then each text once with the libraries that have it.
pub fn text(target: &Target) -> Outcome<String> {
    let mut command = workspace::cargo("metadata");
    command.args(["--format-version", "1", "--locked", "--filter-platform", &target.triple]);
    let told: Value = serde_json::from_str(&process::capture(&mut command)?)
        .map_err(|error| Failure::new(format!("`cargo metadata` wrote what is no JSON: {error}")))?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let linked = linked(&list(&told["resolve"]["nodes"]));
    let mut packages = String::new();
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut listed: Vec<Value> = list(&told["packages"]);
    listed
        .retain(|package| package["id"].as_str().is_some_and(|id| linked.contains(id)) && !package["source"].is_null());
    listed.sort_by_key(|package| format!("{} {}", package["name"], package["version"]));
    for package in &listed {
        let word = |key: &str| package[key].as_str().unwrap_or_default();
        let name = format!("{} {}", word("name"), word("version"));
        let _ = writeln!(packages, "{name}: {}", word("license"));
        let Some(folder) = Path::new(word("manifest_path")).parent() else { continue };
        for file in files(folder)? {
            texts.entry(file).or_default().insert(name.clone());
        }
    }
    let mut text = format!("The GNU C Library, LGPL-2.1-or-later: https://www.gnu.org/software/libc/\n{packages}");
    for (notice, names) in texts {
        let names: Vec<String> = names.into_iter().collect();
        let _ = write!(text, "\n{}\n{}\n\n{}\n", "=".repeat(72), names.join(", "), notice.trim());
    }
    Ok(text)
}

/// The identifiers of all packages that the broker is linked with: through dependencies of the ordinary kind.
fn linked(nodes: &[Value]) -> BTreeSet<String> {
    let is_broker = |id: &str| {
        let (path, version) = id.split_once('#').unwrap_or((id, ""));
        version.contains("portcullis@")
            || (path.starts_with("path+") && !path.contains("/tests/") && !path.ends_with("/xtask"))
    };
    let id = |node: &Value| node["id"].as_str().unwrap_or_default().to_owned();
    let mut found = BTreeSet::new();
    let mut to_do: Vec<String> = nodes.iter().map(id).filter(|id| is_broker(id)).collect();
    while let Some(next) = to_do.pop() {
        if !found.insert(next.clone()) {
            continue;
        }
        let node = nodes.iter().find(|node| node["id"].as_str() == Some(&next));
        let dependencies = node.and_then(|node| node["deps"].as_array()).map(Vec::as_slice).unwrap_or_default();
        for dependency in dependencies {
            let kinds = dependency["dep_kinds"].as_array().map(Vec::as_slice).unwrap_or_default();
            if kinds.iter().any(|kind| kind["kind"].is_null()) {
                to_do.extend(dependency["pkg"].as_str().map(str::to_owned));
            }
        }
    }
    found
}

/// The texts in a package's folder that are licences or notices, in order of their names.
fn files(folder: &Path) -> Outcome<Vec<String>> {
    let entries = fs::read_dir(folder).map_err(|error| Failure::file("read", folder, &error))?;
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.retain(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy().to_uppercase()).unwrap_or_default();
        path.is_file() && BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
    });
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        fs::read(path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .map_err(|error| Failure::file("read", path, &error))
    };
    paths.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_linked_counts() {
        let node = |id: &str, dependencies: &[(&str, Value)]| {
            let deps: Vec<Value> = dependencies
                .iter()
                .map(|(package, kind)| serde_json::json!({"pkg": package, "dep_kinds": [{"kind": kind}]}))
                .collect();
            serde_json::json!({"id": id, "deps": deps})
        };
        let nodes = [
            node("path+file:///x#portcullis@1.0.0", &[("a", Value::Null), ("b", "dev".into()), ("c", "build".into())]),
            node("path+file:///x/xtask#1.0.0", &[("d", Value::Null)]),
            node("a", &[("e", Value::Null)]),
            node("b", &[]),
            node("c", &[]),
            node("d", &[]),
            node("e", &[]),
        ];
        let found: Vec<String> = linked(&nodes).into_iter().collect();
        assert_eq!(found, ["a", "e", "path+file:///x#portcullis@1.0.0"]);
    }
}
