//! What is a request, and what is answered at once.

use super::*;
use proptest::prelude::*;

fn read(bytes: &[u8]) -> Result<Option<Request>, Response> {
    RequestReader::default().push(bytes)
}

fn status(bytes: impl AsRef<[u8]>) -> u16 {
    read(bytes.as_ref()).unwrap_err().status as u16
}

fn whole(bytes: impl AsRef<[u8]>) -> Request {
    read(bytes.as_ref()).unwrap().unwrap()
}

#[test]
fn a_request_is_read_however_it_is_cut() {
    let bytes = b"POST /api/v1/log?a=b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nnet=debug";
    let mut reader = RequestReader::default();
    for (at, byte) in bytes.iter().enumerate() {
        if let Some(request) = reader.push(&[*byte]).unwrap() {
            assert_eq!(at, bytes.len() - b"debug".len() - 1);
            assert_eq!((request.method, request.head_only, request.body), (Method::Post, false, b"net=".to_vec()));
            assert_eq!(request.segments, ["api", "v1", "log"]);
            assert_eq!(request.query, [("a".to_owned(), "b".to_owned())]);
            return;
        }
    }
    panic!("never whole");
}

#[test]
fn what_stands_behind_a_request_is_not_looked_at() {
    let request = whole("GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(request.segments, ["a"]);
    assert!(whole("HEAD / HTTP/1.0\r\n\r\n").head_only);
}

#[test]
fn the_length_of_everything_is_bounded() {
    let line = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(TARGET_BYTES_MAX));
    assert_eq!(status(line), 414);
    assert_eq!(status("G".repeat(TARGET_BYTES_MAX + LINE_EXTRA_BYTES + 1)), 414, "without an end of the line");
    assert_eq!(status(format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}", "b".repeat(HEAD_BYTES_MAX))), 431);
    assert_eq!(status(format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "b".repeat(HEAD_BYTES_MAX))), 431);
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert!(read(fields(FIELDS_MAX - 1).as_bytes()).unwrap().is_some());
    assert_eq!(status(fields(FIELDS_MAX)), 431);
    let body = |length: &str| format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    assert!(read(body(&BODY_BYTES_MAX.to_string()).as_bytes()).unwrap().is_none());
    assert_eq!(status(body(&(BODY_BYTES_MAX + 1).to_string())), 413);
    assert_eq!(status(body(&"9".repeat(99))), 413);
}

#[test]
fn a_megabyte_that_comes_at_once_is_not_kept() {
    let mut reader = RequestReader::default();
    assert!(reader.push(&vec![b'\n'; 1 << 20]).is_err());
    assert!(reader.bytes.len() <= HEAD_BYTES_MAX + BODY_BYTES_MAX + 1);
}

#[test]
fn a_field_that_may_stand_once_stands_once() {
    assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400);
    for field in ["Host", "host", "Authorization", "Origin", "Content-Length"] {
        let twice = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}: 0\r\n{field}: 0\r\n\r\n");
        assert_eq!(status(twice), 400, "{field}");
    }
}

#[test]
fn the_end_of_a_body_is_told_in_one_way() {
    for (fields, expected) in [
        ("Transfer-Encoding: chunked\r\n", 501),
        ("Transfer-Encoding: identity\r\n", 501),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", 400),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: +1\r\n", 400),
        ("Content-Length: 1, 1\r\n", 400),
        ("Content-Length:\r\n", 400),
        ("Content-Length : 1\r\n", 400),
        (" Content-Length: 1\r\n", 400),
    ] {
        assert_eq!(status(format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n")), expected, "{fields}");
    }
    assert_eq!(status("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"), 400);
    assert!(whole("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").body.is_empty());
}

fn streaming() -> RequestReader {
    RequestReader::streaming(|segments| segments == ["up"])
}

#[test]
fn a_streamed_body_is_left_to_whoever_answers() {
    let head = "POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n";
    let request = streaming().push(format!("{head}\r\nbegin").as_bytes()).unwrap().unwrap();
    assert_eq!(request.stream, Some(BodyStream { bytes: 99_999_999, awaits_continue: false }));
    assert_eq!(request.body, b"begin");
    let request = streaming().push(format!("{head}Expect: 100-Continue\r\n\r\n").as_bytes()).unwrap().unwrap();
    assert_eq!(request.stream, Some(BodyStream { bytes: 99_999_999, awaits_continue: true }));
    assert!(request.body.is_empty());
    // The largest head, and as much behind it as may come at a time: nothing of it is lost.
    let pad = "p".repeat(HEAD_BYTES_MAX - head.len() - "X: \r\n\r\n".len());
    let (head, behind) = (format!("{head}X: {pad}\r\n\r"), [b"\n".as_slice(), &[7; BODY_BYTES_MAX - 1]].concat());
    assert_eq!(head.len() + 1, HEAD_BYTES_MAX);
    let mut reader = streaming();
    assert!(reader.push(head.as_bytes()).unwrap().is_none());
    assert_eq!(reader.push(&behind).unwrap().unwrap().body, [7; BODY_BYTES_MAX - 1]);
}

#[test]
fn only_the_named_path_is_streamed_and_its_length_is_said_in_one_way() {
    let status = |bytes: &str| streaming().push(bytes.as_bytes()).unwrap_err().status as u16;
    let other = "POST /up/x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n";
    assert_eq!(status(other), 413);
    let get = "GET /up HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(streaming().push(get.as_bytes()).unwrap().unwrap().stream, None);
    for (fields, expected) in [
        ("", 411),
        ("Transfer-Encoding: chunked\r\n", 411),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", 400),
        ("Content-Length: 3\r\nContent-Length: 3\r\n", 400),
        ("Content-Length: 3x\r\n", 400),
        ("Content-Length: -3\r\n", 400),
        ("Content-Length:\r\n", 400),
        ("Content-Length: 3\r\nExpect: 200-ok\r\n", 417),
    ] {
        assert_eq!(status(&format!("POST /up HTTP/1.1\r\nHost: x\r\n{fields}\r\n")), expected, "{fields}");
    }
    let endless = format!("POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", "9".repeat(99));
    assert_eq!(streaming().push(endless.as_bytes()).unwrap().unwrap().stream.unwrap().bytes, u64::MAX);
}

#[test]
fn other_methods_versions_and_protocols_are_refused() {
    for method in ["PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "get", "X"] {
        let response = read(format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap_err();
        assert_eq!((response.status as u16, response.allow), (405, Some("GET, HEAD, POST")), "{method}");
    }
    assert_eq!(status("GET / HTTP/2.0\r\nHost: x\r\n\r\n"), 505);
    assert_eq!(status("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
    assert_eq!(status(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"), 400);
    assert_eq!(status(b"\x10\x0c\0\x04MQTT\x05\x02\0\0\0\0\0"), 400);
    assert_eq!(status("GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n"), 400);
    assert_eq!(status("GET /a/../b HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
}

#[test]
fn credentials_are_not_shown() {
    let request = whole("GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n");
    assert_eq!(request.authorization.as_ref().map(|value| value.as_str()), Some("Bearer secret"));
    assert!(!format!("{request:?}").contains("secret"));
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_are_a_request_or_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..600), piece in 1_usize..50) {
        let mut reader = RequestReader::default();
        for piece in bytes.chunks(piece) {
            if !matches!(reader.push(piece), Ok(None)) {
                break;
            }
        }
    }

    #[test]
    fn how_a_request_is_cut_does_not_matter(path in "/[a-z%./?=&]{0,40}", field in "[A-Za-z-]{1,10}: [ -~]{0,30}", body in "[ -~]{0,20}", piece in 1_usize..50) {
        let length = body.len();
        let bytes = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{field}\r\nContent-Length: {length}\r\n\r\n{body}");
        let at_once = read(bytes.as_bytes()).map(|request| request.map(|request| (request.segments, request.query, request.body)));
        let mut reader = RequestReader::default();
        let mut outcome = Ok(None);
        for piece in bytes.as_bytes().chunks(piece) {
            outcome = reader.push(piece);
            if !matches!(outcome, Ok(None)) {
                break;
            }
        }
        let outcome = outcome.map(|request| request.map(|request| (request.segments, request.query, request.body)));
        prop_assert_eq!(outcome, at_once);
    }
}
