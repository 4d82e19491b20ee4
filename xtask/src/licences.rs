//! `cargo xtask licences`: may we ship what we depend on, and is anything known to be wrong with it?
//!
//! Licences are read from cargo's own metadata and judged by the list in `deny.toml`, without any tool. Advisories need
//! cargo-deny and its database: where both can be had they are checked, and where not this is said.

use std::ffi::OsString;
use std::process::Command;

use serde_json::Value;

use crate::process::{self, Failure, Outcome};
use crate::{left_out, only_help, workspace};

const HELP: &str = "\
Checks licences of all dependencies against deny.toml, and advisories where
cargo-deny is installed and its database can be reached.

Usage: cargo xtask licences";

/// Runs the command.
pub fn run(arguments: Vec<OsString>) -> Outcome {
    if only_help("licences", HELP, arguments)? { Ok(()) } else { check() }
}

/// All checks.
pub fn check() -> Outcome {
    let policy = workspace::root().join("deny.toml");
    let policy = std::fs::read_to_string(&policy).map_err(|error| Failure::file("read", &policy, &error))?;
    let allowed = allowed_licences(&policy);
    if allowed.is_empty() {
        return Err(Failure::new("deny.toml allows no licence"));
    }
    let metadata = process::capture(workspace::cargo("metadata").args(["--format-version", "1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&metadata)
        .map_err(|error| Failure::new(format!("`cargo metadata` wrote what is no JSON: {error}")))?;
    let packages = metadata.get("packages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut faults = Vec::new();
    for package in packages {
        let text = |key: &str| package.get(key).and_then(Value::as_str).unwrap_or_default();
        let licence = text("license");
        if !is_allowed(licence, &allowed) {
            faults.push(format!(
                "{} {}: the licence `{licence}` is not allowed by deny.toml",
                text("name"),
                text("version")
            ));
        }
    }
    if !faults.is_empty() {
        return Err(Failure::new(faults.join("\n")));
    }
    println!("{} packages, all under allowed licences", packages.len());
    advisories()
}

/// The texts between `allow = [` and `]`.
fn allowed_licences(policy: &str) -> Vec<&str> {
    let list = policy.split_once("\nallow = [").and_then(|(_, rest)| rest.split_once(']')).map_or("", |(list, _)| list);
    list.split('"').skip(1).step_by(2).collect()
}

/// Whether an SPDX expression can be satisfied by allowed licences.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let Ok(expression) = spdx::Expression::parse_mode(expression, spdx::ParseMode::LAX) else { return false };
    expression.evaluate(|requirement| allowed.contains(&requirement.to_string().as_str()))
}

fn advisories() -> Outcome {
    if process::find("cargo-deny").is_none() {
        return left_out::tell("the advisories: cargo-deny is not installed (`cargo install cargo-deny`)");
    }
    let fetched = process::capture(Command::new("cargo-deny").current_dir(workspace::root()).args(["fetch", "db"]));
    if let Err(failure) = fetched {
        return left_out::tell(&format!("the advisories: {failure}"));
    }
    process::run(Command::new("cargo-deny").current_dir(workspace::root()).args([
        "--offline",
        "check",
        "advisories",
        "bans",
        "sources",
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_judged_by_the_list() {
        let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"];
        for good in
            ["MIT", "MIT OR GPL-3.0-only", "MIT/Apache-2.0", "MIT AND Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
        {
            assert!(is_allowed(good, &allowed), "{good}");
        }
        for bad in ["", "GPL-3.0-only", "MIT AND GPL-3.0-only", "nonsense"] {
            assert!(!is_allowed(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn the_list_is_read_from_the_policy() {
        assert_eq!(
            allowed_licences("[licenses]\nallow = [\n  \"MIT\", # x\n  \"ISC\",\n]\nz = [\"no\"]"),
            ["MIT", "ISC"]
        );
    }
}
