//! The time, from a server: SNTP as RFC 4330 has it, on the packet of RFC 5905.
//!
//! The clock is stepped, only where it is wrong by more than half a second, and never to before this release. Whether what it shows
//! is believed is the broker's to say: it looks for steps, and has a record of times that it knew.
//!
//! An answer must repeat a number that was drawn for the question, so that only who sees our packets can forge one. Nothing
//! protects from those: a network that is not trusted needs a time server that is near.

use super::machine::{Area, Machine};
use super::network::Network;
use super::settings::Settings;
use crate::config::network::Server;
use crate::https::Resolver;
use crate::time::{RELEASED, UnixTime};
use async_io::{Async, Timer};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use smol::future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Who is asked where neither the settings nor the network name anybody.
const ANYBODY: &str = "pool.ntp.org";
/// Seconds from 1900 to 1970.
const ERA: u64 = 2_208_988_800;
const PACKET_BYTES: usize = 48;
const ANSWER: Duration = Duration::from_secs(3);
/// Between two questions while the time is not known, and then.
const RETRY: Duration = Duration::from_secs(4);
const RETRY_MAX: Duration = Duration::from_secs(64);
const REST: Duration = Duration::from_secs(1_024);
const LOOK: Duration = Duration::from_millis(200);
/// By how much the clock may be wrong, nanoseconds.
const TOLERANCE: u128 = 500_000_000;

/// Keeps the clock right, for ever.
pub async fn keep(settings: &Settings, network: &Network, machine: &Machine) {
    let mut retry = RETRY;
    let mut was_set = false;
    loop {
        while !network.is_up.get() {
            Timer::after(LOOK).await;
        }
        let named: Vec<Server> = network.ntp.borrow().iter().map(Server::new).collect();
        let servers = if settings.ntp.is_empty() { named } else { settings.ntp.clone() };
        let servers = if servers.is_empty() { vec![Server::new(ANYBODY)] } else { servers };
        let mut answer = None;
        for server in &servers {
            answer = ask(server).await;
            if answer.is_some() {
                break;
            }
        }
        match answer {
            Some(time) => {
                match set(time, &servers) {
                    Ok(()) => {
                        was_set = true;
                        machine.set_clock(format!("set by {}", shown(&servers)));
                        machine.clear(Area::Clock);
                    }
                    Err(error) => {
                        log::error!("the clock cannot be set: {error}");
                        machine.notice(Area::Clock, format!("the clock cannot be set: {error}"));
                    }
                }
                retry = RETRY;
                Timer::after(REST).await;
            }
            None => {
                if retry == RETRY_MAX / 2 {
                    let end = if was_set { "runs on by itself" } else { "is not set" };
                    let fault = format!("no time server answers ({}); the clock {end}", shown(&servers));
                    log::warn!("{fault}");
                    machine.notice(Area::Clock, fault);
                }
                Timer::after(retry).await;
                retry = (retry * 2).min(RETRY_MAX);
            }
        }
    }
}

fn shown(servers: &[Server]) -> String {
    servers.iter().map(|server| server.host.as_str()).collect::<Vec<_>>().join(", ")
}

/// A time since 1970, nanoseconds, and when on the monotonic clock it was.
struct Time {
    nanoseconds: u128,
    at: Instant,
}

async fn ask(server: &Server) -> Option<Time> {
    let addresses = match server.host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => Resolver::default().resolve(&server.host).await.ok()?,
    };
    let address = SocketAddr::new(*addresses.first()?, server.port);
    let local: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = Async::<UdpSocket>::bind((local, 0)).ok()?;
    socket.get_ref().connect(address).ok()?;
    let mut mark = [0; 8];
    getrandom::fill(&mut mark).ok()?;
    let sent = Instant::now();
    socket.send(&question(mark)).await.ok()?;
    let answer = async {
        let mut bytes = [0; PACKET_BYTES];
        loop {
            let length = socket.recv(&mut bytes).await.ok()?;
            if let Some(nanoseconds) = read(bytes.get(..length)?, mark) {
                let way = sent.elapsed() / 2;
                return Some(Time { nanoseconds: nanoseconds + way.as_nanos(), at: Instant::now() });
            }
        }
    };
    let timeout = async {
        Timer::after(ANSWER).await;
        None
    };
    future::or(answer, timeout).await
}

/// Version 4, mode client; in the place of our time a number that the answer repeats.
fn question(mark: [u8; 8]) -> [u8; PACKET_BYTES] {
    let mut packet = [0; PACKET_BYTES];
    packet[0] = 0b00_100_011;
    packet[40..].copy_from_slice(&mark);
    packet
}

/// The time at which a server sent its answer, nanoseconds since 1970; `None` where it is no answer, or the server does not know
/// the time itself.
fn read(packet: &[u8], mark: [u8; 8]) -> Option<u128> {
    const SERVER: u8 = 4;
    let [first, stratum, ..] = *packet else { return None };
    let is_answer = packet.get(24..32)? == mark && first & 7 == SERVER;
    let knows = first >> 6 != 3 && (1..=15).contains(&stratum);
    let word = |at: usize| packet.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    let (seconds, fraction) = (u64::from(word(40)?), u128::from(word(44)?));
    // Seconds begin anew in 2036, RFC 4330 §3.
    let seconds = if seconds < 1 << 31 { seconds + (1 << 32) } else { seconds };
    let unix = seconds.checked_sub(ERA).filter(|_| is_answer && knows)?;
    (UnixTime(unix) >= RELEASED).then_some(u128::from(unix) * 1_000_000_000 + ((fraction * 1_000_000_000) >> 32))
}

/// Sets the clock where it is wrong.
///
/// # Errors
/// Of the kernel.
fn set(time: Time, servers: &[Server]) -> io::Result<()> {
    let nanoseconds = time.nanoseconds + time.at.elapsed().as_nanos();
    let clock = clock_gettime(ClockId::Realtime);
    let clock = u128::try_from(clock.tv_sec).unwrap_or(0) * 1_000_000_000 + u128::try_from(clock.tv_nsec).unwrap_or(0);
    if clock.abs_diff(nanoseconds) <= TOLERANCE {
        return Ok(());
    }
    let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidData);
    let tv_sec = (nanoseconds / 1_000_000_000).try_into().map_err(out_of_range)?;
    let tv_nsec = (nanoseconds % 1_000_000_000).try_into().map_err(out_of_range)?;
    clock_settime(ClockId::Realtime, Timespec { tv_sec, tv_nsec })?;
    log::info!("the clock was set by {}", shown(servers));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

    fn answer(seconds: u64) -> [u8; PACKET_BYTES] {
        let mut packet = [0; PACKET_BYTES];
        packet[0] = 0b00_100_100;
        packet[1] = 2;
        packet[24..32].copy_from_slice(&MARK);
        packet[40..44].copy_from_slice(&u32::try_from(seconds & 0xFFFF_FFFF).unwrap().to_be_bytes());
        packet[44] = 0x80;
        packet
    }

    #[test]
    fn the_time_of_an_answer_is_that_of_its_departure() {
        let packet = answer(RELEASED.0 + 5 + ERA);
        assert_eq!(read(&packet, MARK), Some(u128::from(RELEASED.0 + 5) * 1_000_000_000 + 500_000_000));
        assert_eq!(read(&answer(2_300_000_000 + ERA), MARK), Some(2_300_000_000_500_000_000), "after 2036");
    }

    #[test]
    fn who_does_not_know_or_did_not_hear_us_sets_no_clock() {
        let good = answer(RELEASED.0 + ERA);
        assert!(read(&good, MARK).is_some());
        assert_eq!(read(&good, [0; 8]), None, "not to our question");
        assert_eq!(read(&good[..47], MARK), None);
        for (at, value) in [(0, 0b11_100_100), (0, 0b00_100_011), (1, 0), (1, 16)] {
            let mut packet = good;
            packet[at] = value;
            assert_eq!(read(&packet, MARK), None);
        }
        assert_eq!(read(&answer(RELEASED.0 + ERA - 1), MARK), None, "before this release");
    }
}
