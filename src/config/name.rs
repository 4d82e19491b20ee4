//! Names of resources.

use super::diagnostic::{Place, Report, quoted};

/// Whether a name is one the vendor allows for Broker, BrokerListener, BrokerAuthentication and BrokerAuthorization:
/// 3 to 63 characters, `^[a-z0-9][a-z0-9-]*[a-z0-9]$`.
#[must_use]
pub fn is_resource_name(name: &str) -> bool {
    (3..=63).contains(&name.len()) && is_object_name(name) && !name.contains('.')
}

/// Whether a name is one of a ConfigMap or Secret: a DNS subdomain name, at most 253 characters.
///
/// **Invariant:** such a name is a safe component of a path; it has no slash and does not begin with a dot.
#[must_use]
pub fn is_object_name(name: &str) -> bool {
    let alphanumeric = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = name.as_bytes();
    bytes.len() <= 253
        && alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes.iter().all(|byte| alphanumeric(Some(byte)) || matches!(byte, b'-' | b'.'))
}

/// Reports a name that is not valid for its kind.
pub fn check(kind: &str, name: &str, place: &Place, report: &mut Report) {
    if matches!(kind, "ConfigMap" | "Secret") {
        if !is_object_name(name) {
            let rule = "1 to 253 small letters, digits, hyphens and dots that begin and end with a letter or digit";
            report.error(place, format!("{} is no name of a {kind}: a name is {rule}", quoted(name)));
        }
    } else if !is_resource_name(name) {
        let rule = "3 to 63 small letters, digits and hyphens that begin and end with a letter or digit";
        report.error(place, format!("{} is no name of a {kind}: a name is {rule}", quoted(name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_pattern_of_the_vendor() {
        for name in ["abc", "a-b", "0-0", "mqtts-endpoint"] {
            assert!(is_resource_name(name), "{name}");
        }
        let long = "a".repeat(64);
        for name in ["ab", "-ab", "ab-", "Abc", "a_b", "a.b", "", "a/b", "\u{e4}bc", long.as_str()] {
            assert!(!is_resource_name(name), "{name}");
        }
    }

    #[test]
    fn no_object_name_leads_out_of_its_folder() {
        for name in ["..", ".", "../x", "a/b", "", "/", "a\\b", "a\0b"] {
            assert!(!is_object_name(name), "{name}");
        }
        assert!(is_object_name("ca.example.com"));
    }
}
