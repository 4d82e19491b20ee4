//! Who asks: the values that tokens in rules stand for. azure-model §3.3.

use super::ApplicableRules;
use crate::config::token::{Piece, Token, pieces};
use crate::identity::Identity;

/// A client before a policy.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// The rules of the policy that apply to it.
    pub rules: &'a ApplicableRules,
    /// What authentication found out.
    pub identity: &'a Identity,
    /// Its client identifier, which it has chosen itself.
    pub identifier: &'a str,
}

/// What a token stands for; `None` where the client has no such value, or an empty one: such a text matches nothing.
pub fn value<'a>(token: Token<'_>, identity: &'a Identity, client_identifier: &'a str) -> Option<&'a str> {
    let value = match token {
        Token::Username => identity.username.as_deref()?,
        Token::ClientIdentifier => client_identifier,
        Token::Attribute(name) => identity.attributes.value_of(name)?,
    };
    (!value.is_empty()).then_some(value)
}

/// What a token that fills a level of a topic pattern stands for.
///
/// The value is opaque: one with a wildcard, a separator or NUL would be more than one level or more than one topic, and one
/// that begins with `$` in the first level would lead to the broker's own topics. Such a pattern matches nothing.
pub fn level<'a>(token: Token<'_>, is_first: bool, identity: &'a Identity, identifier: &'a str) -> Option<&'a str> {
    let value = value(token, identity, identifier)?;
    let leaks = value.contains(['+', '#', '/', '\0']) || (is_first && value.starts_with('$'));
    (!leaks).then_some(value)
}

/// Whether `text` is `pattern` with its tokens replaced. Nothing in a value has a meaning.
pub fn is_spelled(pattern: &str, text: &str, identity: &Identity, client_identifier: &str) -> bool {
    rest_of(pattern, text, identity, client_identifier).is_some_and(str::is_empty)
}

/// Whether `text` begins with `pattern` with its tokens replaced.
pub fn begins_with(pattern: &str, text: &str, identity: &Identity, client_identifier: &str) -> bool {
    rest_of(pattern, text, identity, client_identifier).is_some()
}

/// What is left of `text` behind the replaced `pattern`.
fn rest_of<'a>(pattern: &str, text: &'a str, identity: &Identity, client_identifier: &str) -> Option<&'a str> {
    pieces(pattern).try_fold(text, |rest, piece| match piece {
        Piece::Literal(literal) => rest.strip_prefix(literal),
        Piece::Token(token) => rest.strip_prefix(value(token, identity, client_identifier)?),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_opaque() {
        let mut identity = Identity::default();
        for (name, value) in [("star", "*"), ("plus", "+"), ("path", "a/b"), ("system", "$SYS"), ("none", "")] {
            identity.attributes.insert(name, value).unwrap();
        }
        let of = |name, first| level(Token::Attribute(name), first, &identity, "c");
        assert_eq!(of("star", true), Some("*"));
        assert_eq!(
            (of("plus", true), of("path", true), of("none", true), of("missing", true)),
            (None, None, None, None)
        );
        assert_eq!((of("system", true), of("system", false)), (None, Some("$SYS")));
        let spelled = |pattern, text| is_spelled(pattern, text, &identity, "c");
        assert!(spelled("x-{principal.clientId}", "x-c") && !spelled("x-{principal.clientId}", "x-"));
        assert!(spelled("{principal.attributes.star}", "*") && !spelled("{principal.attributes.star}", "anything"));
        assert!(!spelled("{principal.username}", ""), "there is no user name");
        assert!(!spelled("{principal.attributes.none}", ""));
        let begins = |pattern, text| begins_with(pattern, text, &identity, "c");
        assert!(begins("{principal.attributes.star}", "*7") && !begins("{principal.attributes.star}", "7"));
        assert!(!begins("{principal.attributes.none}", "7"), "an empty beginning would be everybody's");
    }
}
