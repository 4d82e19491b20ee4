//! The sentences of explanations. What a client or a file says is escaped.

use super::{Gap, Unfilled, Wish};
use crate::config::blob::Action;
use crate::config::token::Token;
use core::fmt;

impl fmt::Display for Unfilled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoValue(token) => {
                write!(f, "{}: ", Braces(*token))?;
                match token {
                    Token::Username => f.write_str("the client has no user name"),
                    Token::ClientIdentifier => f.write_str("the client id is empty"),
                    Token::Attribute(name) => write!(f, "the client has no attribute '{}'", name.escape_debug()),
                }
            }
            Self::Leaks(token, value) => write!(
                f,
                "{}: the value '{}' is not one level of a topic, so that the pattern matches nothing",
                Braces(*token),
                value.escape_debug()
            ),
        }
    }
}

struct Braces<'a>(Token<'a>);

impl fmt::Display for Braces<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Token::Username => f.write_str("{principal.username}"),
            Token::ClientIdentifier => f.write_str("{principal.clientId}"),
            Token::Attribute(name) => write!(f, "{{principal.attributes.{}}}", name.escape_debug()),
        }
    }
}

/// That `what` of the client, which is `own`, is not what a rule wants.
pub(super) fn lack(what: &str, own: Option<&str>, wanted: &str, filled: Result<String, Unfilled<'_>>) -> String {
    let wanted = match &filled {
        Ok(filled) => format!("'{}'", filled.escape_debug()),
        Err(why) => return format!("the rule wants {what} '{}', and {why}", wanted.escape_debug()),
    };
    match own {
        None => format!("the client has no {}, and the rule wants {wanted}", what.strip_prefix("the ").unwrap_or(what)),
        Some(own) => {
            let case = filled.is_ok_and(|filled| filled.eq_ignore_ascii_case(own));
            let case = if case { " (comparisons are case-sensitive)" } else { "" };
            format!("{what} is '{}', and the rule wants {wanted}{case}", own.escape_debug())
        }
    }
}

/// Why a pattern of a rule that applies does not grant the wish.
pub(super) fn gap(gap: &Gap<'_>, wish: Wish<'_>) -> String {
    let (Wish::Publish(resource) | Wish::Subscribe(resource)) = wish else {
        return match gap {
            Gap::Identifier { filled } => {
                format!("the rule allows to connect as '{}', which is not the client id", filled.escape_debug())
            }
            Gap::Unfilled { pattern, why } => {
                format!("the rule allows to connect as '{}', and {why}", pattern.escape_debug())
            }
            Gap::Wider { filled }
            | Gap::System { filled }
            | Gap::Level { filled, .. }
            | Gap::Ends { filled, .. }
            | Gap::Continues { filled } => format!("the rule allows '{}'", filled.escape_debug()),
        };
    };
    let resource = resource.escape_debug();
    let allows = |filled: &str| format!("the rule allows '{}', and '{resource}'", filled.escape_debug());
    match gap {
        Gap::Unfilled { pattern, why } => format!("the rule allows '{}', and {why}", pattern.escape_debug()),
        Gap::Wider { filled } => format!("{} asks for more", allows(filled)),
        Gap::System { filled } => format!("{} begins with '$', which no leading wildcard means", allows(filled)),
        Gap::Level { filled, number, has, asks } => format!(
            "{} differs in level {number}: '{}' instead of '{}'",
            allows(filled),
            asks.escape_debug(),
            has.escape_debug()
        ),
        Gap::Ends { filled, levels } => format!("{} has more than its {levels} levels", allows(filled)),
        Gap::Continues { filled } => format!("{} has fewer levels", allows(filled)),
        Gap::Identifier { filled } => allows(filled),
    }
}

/// That a rule allows the other action only.
pub(super) fn other_action(wish: Wish<'_>, other: Action) -> String {
    format!("the rule allows {other:?} of this, and not {:?}", wish.action())
}
