//! Whether the broker is ready: one question to its control socket, one bounded answer, in bounded time.
//!
//! The answer is that of `/readyz`: 200, or 503 and the checks. Its JSON is our own writer's, without blanks, and of it only the
//! names of what failed are read: no text in it can look like one, because a quotation mark in a text is escaped.

use async_io::{Async, Timer};
use smol::future;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 32 * 1024;
const QUESTION: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// What a broker says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Every check is passed.
    Ready,
    /// These checks are not, by name and what was seen.
    NotReady(Vec<(String, String)>),
    /// It does not answer, or not like a broker.
    Silent(String),
}

/// Asks the broker whose control socket this is.
pub async fn ask(socket: &Path) -> Answer {
    let late = async {
        Timer::after(PATIENCE).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    match future::or(exchange(socket), late).await {
        Ok(bytes) => read(&bytes).unwrap_or_else(|| Answer::Silent("what answers is not a broker".to_owned())),
        Err(error) => Answer::Silent(format!("it does not answer: {error}")),
    }
}

async fn exchange(socket: &Path) -> io::Result<Vec<u8>> {
    let mut stream = Async::<UnixStream>::connect(socket).await?;
    stream.write_all(QUESTION).await?;
    let (mut answer, mut piece) = (Vec::new(), [0; 2_048]);
    // The broker may hold the connection for a while after its last byte: its length says when the answer is whole.
    while answer.len() < ANSWER_BYTES_MAX && whole(&answer).is_none() {
        let length = stream.read(&mut piece).await?;
        if length == 0 {
            break;
        }
        answer.extend_from_slice(piece.get(..length).unwrap_or_default());
    }
    Ok(answer)
}

/// Status and body of an answer that has come whole.
fn whole(answer: &[u8]) -> Option<(&str, &str)> {
    let text = core::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())?;
    body.get(..length).map(|body| (status, body))
}

fn read(answer: &[u8]) -> Option<Answer> {
    match whole(answer)? {
        ("200", _) => Some(Answer::Ready),
        ("503", body) => Some(match failed(body) {
            // One that stops has no checks any more.
            failed if failed.is_empty() => Answer::Silent("it is not ready, and does not say why".to_owned()),
            failed => Answer::NotReady(failed),
        }),
        _ => None,
    }
}

/// Names and details of the checks that are not passed. The one of the machine is not among them: it is of what PID 1 itself has
/// told the broker, and takes no part in whether that is ready.
fn failed(body: &str) -> Vec<(String, String)> {
    let checks = body.split("{\"name\":\"").skip(1);
    let failed = checks.filter_map(|check| {
        let (name, rest) = check.split_once("\",\"ok\":false,\"detail\":\"")?;
        let detail = rest.split_once("\"}").map_or(rest, |(detail, _)| detail);
        (!name.contains('"') && name != "machine").then(|| (name.to_owned(), detail.to_owned()))
    });
    failed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Json;
    use std::os::unix::net::UnixListener;

    fn document(checks: &[(&str, bool, &str)]) -> String {
        let mut json = Json::new(4_096);
        json.begin_object();
        json.field("state", "Degraded");
        json.field("ready", false);
        json.name("checks");
        json.begin_array();
        for (name, is_ok, detail) in checks {
            json.begin_object();
            json.field("name", *name);
            json.field("ok", *is_ok);
            json.field("detail", *detail);
            json.end_object();
        }
        json.end_array();
        json.end_object();
        String::from_utf8(json.finish().unwrap()).unwrap()
    }

    fn answer(status: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            .into_bytes()
    }

    #[test]
    fn the_names_of_failed_checks_are_read_and_nothing_that_looks_like_one() {
        let body = document(&[
            ("probe", true, "fine"),
            ("clock", false, "not set"),
            ("machine", false, "no cable"),
            ("store", true, r#"{"name":"x","ok":false,"detail":"y"}"#),
            ("listeners", false, "no certificate: a"),
        ]);
        let pair = |name: &str, detail: &str| (name.to_owned(), detail.to_owned());
        let expected = vec![pair("clock", "not set"), pair("listeners", "no certificate: a")];
        assert_eq!(read(&answer("503 Service Unavailable", &body)), Some(Answer::NotReady(expected)));
        assert_eq!(read(&answer("200 OK", &body)), Some(Answer::Ready));
    }

    #[test]
    fn a_broker_that_stops_is_not_ready() {
        assert!(matches!(read(&answer("503 Service Unavailable", "the broker stops")), Some(Answer::Silent(_))));
    }

    #[test]
    fn what_is_no_whole_answer_of_a_broker_is_none() {
        let good = answer("200 OK", "{}");
        for length in 0..good.len() {
            assert_eq!(read(&good[..length]), None, "{length}");
        }
        assert_eq!(read(&answer("404 Not Found", "")), None);
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), None);
        assert_eq!(read(&[0xFF; 100]), None);
    }

    #[test]
    fn a_socket_that_nobody_serves_is_silence_and_one_that_answers_is_heard() {
        let path = std::env::temp_dir().join(format!("portcullis-readiness-{}", std::process::id()));
        assert!(matches!(smol::block_on(ask(&path)), Answer::Silent(_)));
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = vec![0; QUESTION.len()];
            io::Read::read_exact(&mut stream, &mut question).unwrap();
            io::Write::write_all(&mut stream, &answer("200 OK", "{}")).unwrap();
            question
        });
        assert_eq!(smol::block_on(ask(&path)), Answer::Ready);
        assert_eq!(server.join().unwrap(), QUESTION);
        std::fs::remove_file(path).unwrap();
    }
}
