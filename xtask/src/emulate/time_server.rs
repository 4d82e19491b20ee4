//! A time server for emulated gateways without a clock: the host's time, to whoever asks (RFC 4330 §6).

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::process::{Failure, Outcome};

/// Seconds from 1900 to 1970.
const ERA: u64 = 2_208_988_800;

/// A server on loopback, as long as this program runs.
#[derive(Debug)]
pub struct TimeServer {
    /// Where it is asked.
    pub port: u16,
    is_silent: Arc<AtomicBool>,
}

impl TimeServer {
    /// Begins to serve.
    pub fn start() -> Outcome<Self> {
        let fault = |error: &std::io::Error| Failure::new(format!("no time server: {error}"));
        let socket = UdpSocket::bind(("127.0.0.1", 0)).map_err(|error| fault(&error))?;
        let port = socket.local_addr().map_err(|error| fault(&error))?.port();
        let is_silent = Arc::new(AtomicBool::new(false));
        let silent = Arc::clone(&is_silent);
        std::thread::spawn(move || {
            let mut question = [0; 48];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                if length == question.len() && !silent.load(Ordering::Relaxed) {
                    // Who has gone does not get it.
                    let _ = socket.send_to(&answer(&question, SystemTime::now()), from);
                }
            }
        });
        Ok(Self { port, is_silent })
    }

    /// Answers no more, or again.
    pub fn set_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::Relaxed);
    }
}

/// Version 4, mode server, stratum 2; their number back, and our time.
fn answer(question: &[u8; 48], now: SystemTime) -> Vec<u8> {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = u32::try_from((since.as_secs() + ERA) & 0xFFFF_FFFF).unwrap_or(0);
    let fraction = u32::try_from((u64::from(since.subsec_nanos()) << 32) / 1_000_000_000).unwrap_or(0);
    let time = [seconds.to_be_bytes(), fraction.to_be_bytes()].concat();
    let mut answer = vec![0b00_100_100, 2, 6, 0xEC];
    answer.resize(16, 0);
    answer.extend_from_slice(&time);
    answer.extend_from_slice(question.get(40..).unwrap_or_default());
    answer.extend_from_slice(&time);
    answer.extend_from_slice(&time);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_answer_repeats_the_number_of_its_question() {
        let mut question = [0; 48];
        question[40..].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        let answer = answer(&question, UNIX_EPOCH + Duration::from_millis(1_500));
        assert_eq!(answer.len(), 48);
        assert_eq!(answer[24..32], question[40..]);
        assert_eq!(answer[40..], [0x83, 0xAA, 0x7E, 0x81, 0x80, 0, 0, 0]);
    }
}
