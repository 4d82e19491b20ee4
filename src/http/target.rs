//! The target of a request: segments of a path and pairs of a query, decoded once. RFC 3986 §3.3, §3.4.
//!
//! A segment is decoded after the path was split, so that `%2F` is a character of a name and never a separator.

use super::Status;

/// Longest target, bytes as they came.
pub const TARGET_BYTES_MAX: usize = 2 * 1024;
/// Most segments of a path; no page has more.
const SEGMENTS_MAX: usize = 8;
/// Most pairs of a query.
const PAIRS_MAX: usize = 16;

/// A decoded target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Segments of the path; none for `/`.
    pub segments: Vec<String>,
    /// Names and values of the query, in order.
    pub query: Vec<(String, String)>,
}

/// Takes a target in origin form apart.
///
/// # Errors
/// 414 for one that is too long; 400 for what is no path, for `.` and `..`, NUL, and escapes that are none or no UTF-8; 404 for
/// empty segments and more of them than any page has.
pub fn parse(text: &str) -> Result<Target, Status> {
    if text.len() > TARGET_BYTES_MAX {
        return Err(Status::UriTooLong);
    }
    let clean = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    let path = text.strip_prefix('/').filter(|_| clean).ok_or(Status::BadRequest)?;
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut target = Target::default();
    for segment in path.split('/').filter(|_| !path.is_empty()) {
        let segment = decode(segment, false).ok_or(Status::BadRequest)?;
        // Whoever sends these means another path than the one that it would get.
        if segment == "." || segment == ".." {
            return Err(Status::BadRequest);
        }
        if segment.is_empty() || target.segments.len() == SEGMENTS_MAX {
            return Err(Status::NotFound);
        }
        target.segments.push(segment);
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (decode(name, true), decode(value, true)) else {
            return Err(Status::BadRequest);
        };
        if target.query.len() == PAIRS_MAX {
            return Err(Status::BadRequest);
        }
        target.query.push((name, value));
    }
    Ok(target)
}

/// Decodes escapes, and `+` as a blank where that is meant. `None` for what is no escape, no UTF-8, or NUL, which MQTT forbids in
/// every text that could be asked for [MQTT-1.5.4-2].
fn decode(text: &str, plus_is_blank: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(match byte {
            b'%' => digit(rest.next())? << 4 | digit(rest.next())?,
            b'+' if plus_is_blank => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn segments(text: &str) -> Result<Vec<String>, Status> {
        parse(text).map(|target| target.segments)
    }

    #[test]
    fn a_separator_that_is_escaped_separates_nothing() {
        assert_eq!(segments("/").unwrap(), [""; 0]);
        assert_eq!(segments("/api/v1/clients/a%2Fb%2f..").unwrap(), ["api", "v1", "clients", "a/b/.."]);
        assert_eq!(segments("/caf%C3%A9+x").unwrap(), ["caf\u{e9}+x"]);
    }

    #[test]
    fn what_leads_elsewhere_or_is_no_text_is_refused() {
        for text in
            ["", "x", "*", "http://a/b", "/a#b", "/a b", "/\u{e9}", "/%", "/%2", "/%zz", "/%00", "/%ff", "/a?b=%00"]
        {
            assert_eq!(segments(text), Err(Status::BadRequest), "{text}");
        }
        for text in ["/..", "/.", "/a/../b", "/%2e%2e/a", "/a/%2E", "/.%2e"] {
            assert_eq!(segments(text), Err(Status::BadRequest), "{text}");
        }
        for text in ["//", "/a//b", "/a/", "/1/2/3/4/5/6/7/8/9"] {
            assert_eq!(segments(text), Err(Status::NotFound), "{text}");
        }
        let longest = format!("/{}", "a".repeat(TARGET_BYTES_MAX - 1));
        assert!(segments(&longest).is_ok());
        assert_eq!(segments(&format!("{longest}a")), Err(Status::UriTooLong));
    }

    #[test]
    fn a_query_is_pairs() {
        let target = parse("/a?b=c+d%26&e&&f=g=h").unwrap();
        let expected = [("b", "c d&"), ("e", ""), ("f", "g=h")];
        assert_eq!(target.query, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(parse(&format!("/a?{}", "b=c&".repeat(17))), Err(Status::BadRequest));
    }
}
