//! A response, and its bytes.

/// Status codes that are used. RFC 9110 §15, RFC 6585, RFC 4918 §11.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Status {
    /// 200.
    Ok = 200,
    /// 202.
    Accepted = 202,
    /// 400.
    BadRequest = 400,
    /// 401.
    Unauthorized = 401,
    /// 403.
    Forbidden = 403,
    /// 404.
    NotFound = 404,
    /// 405.
    MethodNotAllowed = 405,
    /// 408.
    RequestTimeout = 408,
    /// 409.
    Conflict = 409,
    /// 411.
    LengthRequired = 411,
    /// 413.
    ContentTooLarge = 413,
    /// 414.
    UriTooLong = 414,
    /// 417.
    ExpectationFailed = 417,
    /// 421.
    MisdirectedRequest = 421,
    /// 431.
    HeaderFieldsTooLarge = 431,
    /// 500.
    InternalServerError = 500,
    /// 501.
    NotImplemented = 501,
    /// 503.
    ServiceUnavailable = 503,
    /// 505.
    VersionNotSupported = 505,
    /// 507.
    InsufficientStorage = 507,
}

impl Status {
    /// What stands behind the code.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Accepted => "Accepted",
            Self::BadRequest => "Bad Request",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::RequestTimeout => "Request Timeout",
            Self::Conflict => "Conflict",
            Self::LengthRequired => "Length Required",
            Self::ContentTooLarge => "Content Too Large",
            Self::UriTooLong => "URI Too Long",
            Self::ExpectationFailed => "Expectation Failed",
            Self::MisdirectedRequest => "Misdirected Request",
            Self::HeaderFieldsTooLarge => "Request Header Fields Too Large",
            Self::InternalServerError => "Internal Server Error",
            Self::NotImplemented => "Not Implemented",
            Self::ServiceUnavailable => "Service Unavailable",
            Self::VersionNotSupported => "HTTP Version Not Supported",
            Self::InsufficientStorage => "Insufficient Storage",
        }
    }
}

/// What may be loaded by a page that loads nothing.
const NOTHING_LOADED: &str = "default-src 'none'; frame-ancestors 'none'";

/// A whole response. Every one ends its connection, is not kept by anybody, and is what it says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: Status,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Body.
    pub body: Vec<u8>,
    /// `Content-Security-Policy`; `None`: nothing may be loaded.
    pub policy: Option<String>,
    /// `Allow` of a 405.
    pub allow: Option<&'static str>,
}

impl Response {
    /// 200 with a body.
    #[must_use]
    pub const fn new(content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status: Status::Ok, content_type, body, policy: None, allow: None }
    }

    /// A JSON document.
    #[must_use]
    pub const fn json(body: Vec<u8>) -> Self {
        Self::new("application/json", body)
    }

    /// A line of text.
    #[must_use]
    pub fn text(status: Status, line: &str) -> Self {
        Self { status, ..Self::new("text/plain; charset=utf-8", format!("{line}\n").into_bytes()) }
    }

    /// What a status says by itself, for `allow` of the methods.
    #[must_use]
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::from(Status::MethodNotAllowed) }
    }

    /// The bytes before the body. `HEAD` gets the same. RFC 9110 §9.3.2.
    #[must_use]
    pub fn head(&self) -> Vec<u8> {
        let mut head = String::with_capacity(512);
        let status = (self.status as u16).to_string();
        let length = self.body.len().to_string();
        for piece in [
            "HTTP/1.1 ",
            &status,
            " ",
            self.status.reason(),
            "\r\nContent-Type: ",
            self.content_type,
            "\r\nContent-Length: ",
            &length,
            "\r\nConnection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\
             \r\nReferrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\nContent-Security-Policy: ",
            self.policy.as_deref().unwrap_or(NOTHING_LOADED),
            "\r\n",
        ] {
            head.push_str(piece);
        }
        if let Some(allow) = self.allow {
            head.extend(["Allow: ", allow, "\r\n"]);
        }
        if self.status == Status::Unauthorized {
            head.push_str(
                "WWW-Authenticate: Bearer\r\nWWW-Authenticate: Basic realm=\"portcullis\", charset=\"UTF-8\"\r\n",
            );
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

impl From<Status> for Response {
    fn from(status: Status) -> Self {
        Self::text(status, status.reason())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_says_what_it_is_and_that_it_is_the_last() {
        let response = Response::new("text/html", b"<p>".to_vec());
        let head = String::from_utf8_lossy(&response.head()).into_owned();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 3\r\n"), "{head}");
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        for field in ["Connection: close", "Cache-Control: no-store", "default-src 'none'"] {
            assert!(head.contains(field), "{field}: {head}");
        }
        let refused = String::from_utf8_lossy(&Response::method_not_allowed("GET, HEAD").head()).into_owned();
        assert!(refused.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{refused}");
        assert!(refused.contains("\r\nAllow: GET, HEAD\r\n"), "{refused}");
        let unknown = String::from_utf8_lossy(&Response::from(Status::Unauthorized).head()).into_owned();
        assert!(unknown.contains("\r\nWWW-Authenticate: Bearer\r\n"), "{unknown}");
    }
}
