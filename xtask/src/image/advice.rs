//! What the maker of an image is warned of: a gateway without a keyboard and a shell is not the place to find it out.
//!
//! Comes in: what `portcullis inspect` tells of the blob, and what goes onto the card beside it. Nothing is refused here: a configuration
//! may be made before its keys are.

use std::net::IpAddr;

/// What is missing, one sentence each. `is_updatable`: the image has a key for updates.
pub fn warnings(told: &str, files: &[(String, Vec<u8>)], is_updatable: bool) -> Vec<String> {
    let mut warnings: Vec<String> = wanted(told)
        .into_iter()
        .filter(|wanted| !files.iter().any(|(name, _)| name == wanted))
        .map(|wanted| {
            format!("{wanted} is not in the configuration's folder, and the broker of this card will look for it")
        })
        .collect();
    if is_updatable {
        warnings.extend(closed(told).map(|why| format!("this gateway cannot be updated over the network: {why}")));
    }
    warnings
}

/// The files of keys, users and tokens that the broker looks for in its folder of secrets, as names on the card. Certificates of mode
/// Automatic are not among them, and what the blob has itself.
fn wanted(told: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in told.lines() {
        let secret = line.strip_prefix("secret ").and_then(|rest| rest.split_once(": read from "));
        let path = |before: &str| Some(line.trim_start().split_once(before)?.1);
        if let Some((name, _)) = secret {
            files.extend(["tls.crt", "tls.key"].map(|file| format!("secrets/{name}/{file}")));
        } else if let Some(path) = path("UsernamePassword, users in ").or_else(|| path("for who brings the token of "))
        {
            // The folder may have another name elsewhere; on a card it has this one.
            let mut parts = path.rsplit('/');
            if let (Some(file), Some(name)) = (parts.next(), parts.next()) {
                files.push(format!("secrets/{name}/{file}"));
            }
        }
    }
    files.sort();
    files.dedup();
    files
}

/// Why no update comes in over the network; `None`: one does.
fn closed(told: &str) -> Option<&'static str> {
    let mut lines = told.lines().skip_while(|line| *line != "diagnostics");
    let addresses = lines.nth(1).and_then(|line| line.split_once(", addresses ")).map(|(_, addresses)| addresses);
    let Some(addresses) = addresses else { return Some("its diagnostics have no port") };
    // A name that is no number may be anybody's.
    let is_reached = |address: &str| address.parse::<IpAddr>().map_or(true, |address| !address.is_loopback());
    if !addresses.split(", ").any(is_reached) {
        return Some("`bind.diagnostics` of its Gateway has no address that others reach");
    }
    let mut door = lines.take_while(|line| line.starts_with(' '));
    let is_allowed = door.any(|line| line.trim() == "updates of the image are taken there");
    (!is_allowed).then_some("its Gateway does not say `diagnosticsTls.updates: Allowed`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    const TOLD: &str = "board rpi3, memory budget 1 bytes\ndiagnostics\n  port 9600, addresses 0.0.0.0\n  \
        beyond this machine with TLS, certificate door\n    for who brings the token of secrets/reader/token\n    \
        updates of the image are taken there\nauthentication a\n  1. UsernamePassword, users in secrets/users/passwords.toml\n\
        secret door: read from secrets/door/tls.crt and tls.key at start\n\
        secret inside: embedded, 1 certificates, EC key, valid until x\n";

    fn files(names: &[&str]) -> Vec<(String, Vec<u8>)> {
        names.iter().map(|name| ((*name).to_owned(), Vec::new())).collect()
    }

    #[test]
    fn what_the_broker_will_look_for_and_not_find_is_named() {
        let all =
            ["secrets/door/tls.crt", "secrets/door/tls.key", "secrets/reader/token", "secrets/users/passwords.toml"];
        assert_eq!(warnings(TOLD, &files(&all), true), [""; 0]);
        for (index, missing) in all.iter().enumerate() {
            let mut rest = all.to_vec();
            rest.remove(index);
            let found = warnings(TOLD, &files(&rest), true);
            assert!(matches!(found.as_slice(), [warning] if warning.starts_with(missing)), "{found:?}");
        }
    }

    #[test]
    fn a_gateway_with_a_key_that_nobody_reaches_with_an_update_is_told_of() {
        let reason = |told: &str| closed(told).unwrap_or_default();
        assert_eq!(reason(TOLD), "");
        assert!(reason(&TOLD.replace("    updates of the image are taken there\n", "")).contains("updates: Allowed"));
        assert!(reason(&TOLD.replace("0.0.0.0", "127.0.0.1, ::1")).contains("bind.diagnostics"));
        assert_eq!(reason(&TOLD.replace("0.0.0.0", "127.0.0.1, 192.168.1.4")), "");
        assert!(reason("diagnostics: no port\n").contains("no port"));
        assert!(!warnings("diagnostics: no port\n", &[], false).iter().any(|warning| warning.contains("updated")));
    }

    #[test]
    fn inspect_still_says_it_in_these_words() {
        let source = std::fs::read_to_string(workspace::root().join("src/commands/inspect.rs")).unwrap();
        for words in [
            "secret {name}: read from {folder}/{name}/tls.crt and tls.key",
            "UsernamePassword, users in {folder}/{name}/passwords.toml",
            "for who brings the token of {folder}/{}/token",
            "\"diagnostics\")",
            "  port {port}{otherwise}, addresses {}",
            "    updates of the image are taken there",
        ] {
            assert!(source.contains(words), "{words}");
        }
    }
}
