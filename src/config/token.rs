//! `{principal.…}` in rules: what a token means, and where one may stand. azure-model §3.3.
//!
//! In a topic a token fills a whole level. In principals, and in `clientIds` of Connect, it may stand beside other text.
//! Braces are kept for tokens: whatever looks like one and is none is refused, because read as text it would grant
//! something else.

use core::fmt;

/// A value that the client brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// `{principal.username}`.
    Username,
    /// `{principal.clientId}`.
    ClientIdentifier,
    /// `{principal.attributes.NAME}`.
    Attribute(&'a str),
}

/// A piece of a text with tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text that stands for itself; never empty.
    Literal(&'a str),
    /// What a client brings.
    Token(Token<'a>),
}

/// Why a text with braces is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// A brace that belongs to no token.
    Brace {
        /// Byte offset.
        at: usize,
    },
    /// What stands between braces is no token.
    Unknown {
        /// Byte offset of the opening brace.
        at: usize,
    },
    /// A token that does not fill its level of a topic.
    NotAlone {
        /// Byte offset of the level.
        at: usize,
    },
}

impl TokenFault {
    /// Byte offset of the fault.
    #[must_use]
    pub const fn at(self) -> usize {
        match self {
            Self::Brace { at } | Self::Unknown { at } | Self::NotAlone { at } => at,
        }
    }
}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Brace { .. } => "a brace without its other half; braces are kept for tokens",
            Self::Unknown { .. } => {
                "not a token; there are {principal.username}, {principal.clientId} and {principal.attributes.NAME}"
            }
            Self::NotAlone { .. } => "a token must fill its whole level of a topic",
        })
    }
}

impl<'a> Token<'a> {
    /// Reads a text that is one token with its braces and nothing else.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let name = text.strip_prefix("{principal.")?.strip_suffix('}')?;
        match name {
            "username" => Some(Self::Username),
            "clientId" => Some(Self::ClientIdentifier),
            _ => {
                let attribute = name.strip_prefix("attributes.")?;
                (!attribute.is_empty() && !attribute.contains(['{', '}'])).then_some(Self::Attribute(attribute))
            }
        }
    }
}

/// The pieces of a text whose braces [`check_pieces`] has found good. Of another text, what is no token is a literal.
pub fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if rest.starts_with('{')
            && let Some(end) = rest.find('}')
            && let Some((token, tail)) = rest.split_at_checked(end + 1)
            && let Some(token) = Token::parse(token)
        {
            rest = tail;
            return Some(Piece::Token(token));
        }
        let end = rest.char_indices().skip(1).find(|(_, character)| *character == '{').map_or(rest.len(), |(at, _)| at);
        let (literal, tail) = rest.split_at(end);
        rest = tail;
        Some(Piece::Literal(literal))
    })
}

/// Checks the braces of a principal or of a client identifier pattern.
///
/// # Errors
/// The first fault.
pub fn check_pieces(text: &str) -> Result<(), TokenFault> {
    let mut at = 0;
    for piece in text.split_inclusive('}') {
        match (piece.find('{'), piece.ends_with('}')) {
            (None, false) => {}
            (None, true) => return Err(TokenFault::Brace { at: at + piece.len() - 1 }),
            (Some(open), false) => return Err(TokenFault::Brace { at: at + open }),
            (Some(open), true) => {
                if piece.get(open..).and_then(Token::parse).is_none() {
                    return Err(TokenFault::Unknown { at: at + open });
                }
            }
        }
        at += piece.len();
    }
    Ok(())
}

/// Checks the braces of a topic pattern.
///
/// # Errors
/// The first fault.
pub fn check_levels(topic: &str) -> Result<(), TokenFault> {
    let mut at = 0;
    for level in topic.split('/') {
        if Token::parse(level).is_none() {
            check_pieces(level).map_err(|fault| match fault {
                TokenFault::Brace { at: within } => TokenFault::Brace { at: at + within },
                TokenFault::Unknown { at: within } => TokenFault::Unknown { at: at + within },
                TokenFault::NotAlone { at: within } => TokenFault::NotAlone { at: at + within },
            })?;
            if level.contains('{') {
                return Err(TokenFault::NotAlone { at });
            }
        }
        at += level.len() + 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_of_three() {
        assert_eq!(Token::parse("{principal.username}"), Some(Token::Username));
        assert_eq!(Token::parse("{principal.clientId}"), Some(Token::ClientIdentifier));
        assert_eq!(Token::parse("{principal.attributes.a.b}"), Some(Token::Attribute("a.b")));
        for text in [
            "",
            "{}",
            "{principal}",
            "{principal.}",
            "{principal.Username}",
            "{principal.attributes.}",
            "x",
            "{username}",
        ] {
            assert_eq!(Token::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_text_falls_into_its_pieces() {
        let found: Vec<Piece<'_>> = pieces("a-{principal.username}{principal.attributes.x}*").collect();
        let expected = [
            Piece::Literal("a-"),
            Piece::Token(Token::Username),
            Piece::Token(Token::Attribute("x")),
            Piece::Literal("*"),
        ];
        assert_eq!(found, expected);
        assert_eq!(pieces("").count(), 0);
        assert_eq!(pieces("{x").collect::<Vec<_>>(), [Piece::Literal("{x")]);
        assert_eq!(pieces("ü{").collect::<Vec<_>>(), [Piece::Literal("ü"), Piece::Literal("{")]);
    }

    #[test]
    fn braces_are_kept_for_tokens() {
        for good in ["", "plain", "{principal.clientId}", "a{principal.clientId}b"] {
            assert_eq!(check_pieces(good), Ok(()), "{good}");
        }
        assert_eq!(check_pieces("a{b"), Err(TokenFault::Brace { at: 1 }));
        assert_eq!(check_pieces("ab}"), Err(TokenFault::Brace { at: 2 }));
        assert_eq!(check_pieces("a{principal.user}"), Err(TokenFault::Unknown { at: 1 }));
        assert_eq!(check_pieces("{{principal.username}}"), Err(TokenFault::Unknown { at: 0 }));
        assert_eq!(check_pieces("{principal.username}{"), Err(TokenFault::Brace { at: 20 }));
    }

    #[test]
    fn a_token_fills_its_level() {
        assert_eq!(check_levels("clients/{principal.clientId}/#"), Ok(()));
        assert_eq!(check_levels("a/client-{principal.clientId}/#"), Err(TokenFault::NotAlone { at: 2 }));
        assert_eq!(check_levels("a/{principal.clientId}*"), Err(TokenFault::NotAlone { at: 2 }));
        assert_eq!(check_levels("a/{principal.client}"), Err(TokenFault::Unknown { at: 2 }));
        assert_eq!(check_levels("{a/b}"), Err(TokenFault::Brace { at: 0 }));
    }
}
