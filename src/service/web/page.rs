//! The status page: one file without anything from outside, and the policy under which a browser shows it.

use crate::http::Response;
use base64ct::{Base64, Encoding as _};
use sha2::{Digest as _, Sha256};

/// The page. Everything in it is inline; what it shows it fetches from `/api/v1`.
const PAGE: &str = include_str!("status_page.html");

/// The page with a policy that lets exactly its own script and style run.
pub(super) fn status_page() -> Response {
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; form-action \
         'none'; frame-ancestors 'none'",
        sources("script"),
        sources("style")
    );
    Response { policy: Some(policy), ..Response::new("text/html; charset=utf-8", PAGE.as_bytes().to_vec()) }
}

/// The hashes of all inline elements `name`, as Content Security Policy Level 3 §2.3.1 writes them. What is in an element that
/// stands there without attributes is between its tags, byte for byte.
fn sources(name: &str) -> String {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut hashes = String::new();
    for element in PAGE.split(&open).skip(1) {
        let text = element.split(&close).next().unwrap_or_default();
        hashes.push_str(&format!("'sha256-{}' ", Base64::encode_string(&Sha256::digest(text.as_bytes()))));
    }
    if hashes.is_empty() { "'none'".to_owned() } else { hashes.trim_end().to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_that_its_policy_forbids() {
        // An icon of nothing: without one the browser would ask for it.
        let page = PAGE.to_ascii_lowercase().replace(r#"<link rel="icon" href="data:,">"#, "");
        for forbidden in
            ["<script ", "<style ", " style=", " src=", "<link", "@import", "javascript:", " onclick=", " onload="]
        {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        let response = status_page();
        let policy = response.policy.unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}
