//! DHCP messages as bytes in, bytes out: RFC 2131, options of RFC 2132.
//!
//! Requests ask for broadcast answers (§4.1), because a machine without an address gets no other through an ordinary socket. A
//! server's answer is a stranger's text: whatever does not read is as if it had not come.

use crate::config::network::{SERVERS_MAX, Subnet};
use std::net::Ipv4Addr;

/// Port of the client, and of the server.
pub const CLIENT_PORT: u16 = 68;
/// Port of the server.
pub const SERVER_PORT: u16 = 67;
/// Most bytes of an answer, option 57.
pub const MESSAGE_BYTES_MAX: usize = 1_472;

const HEADER_BYTES: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// What servers of old expect at least, RFC 1542 §2.1.
const MESSAGE_BYTES_MIN: usize = 300;
/// Shortest and longest lease that is believed, seconds: below, a server would be asked all the time.
const LEASE_SECONDS: core::ops::RangeInclusive<u32> = 60..=31_536_000;

/// The address of an Ethernet interface.
pub type Hardware = [u8; 6];

/// What is said to servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Who has an address for us?
    Discover,
    /// This offer of this server is taken.
    Take {
        /// What was offered.
        address: Ipv4Addr,
        /// Who offered.
        server: Ipv4Addr,
    },
    /// The lease of this address shall go on.
    Renew {
        /// The address in use.
        address: Ipv4Addr,
    },
}

/// The bytes of a request. `transaction` is drawn anew for each exchange.
pub fn request(ask: Ask, transaction: u32, hardware: Hardware, host_name: &str) -> Vec<u8> {
    let (kind, client) = match ask {
        Ask::Discover => (1, Ipv4Addr::UNSPECIFIED),
        Ask::Take { .. } => (3, Ipv4Addr::UNSPECIFIED),
        Ask::Renew { address } => (3, address),
    };
    let mut bytes = vec![1, 1, 6, 0];
    bytes.extend(transaction.to_be_bytes());
    bytes.extend([0, 0, 0x80, 0]);
    bytes.extend(client.octets());
    bytes.resize(28, 0);
    bytes.extend(hardware);
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend(COOKIE);
    let mut option = |code: u8, value: &[u8]| {
        bytes.push(code);
        bytes.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
        bytes.extend(value.iter().take(usize::from(u8::MAX)));
    };
    option(53, &[kind]);
    option(61, &[&[1][..], &hardware].concat());
    option(57, &u16::try_from(MESSAGE_BYTES_MAX).unwrap_or(u16::MAX).to_be_bytes());
    option(12, host_name.as_bytes());
    // Mask, routers, name servers, broadcast address, time servers, lease, its two times.
    option(55, &[1, 3, 6, 28, 42, 51, 58, 59]);
    if let Ask::Take { address, server } = ask {
        option(50, &address.octets());
        option(54, &server.octets());
    }
    bytes.push(255);
    bytes.resize(bytes.len().max(MESSAGE_BYTES_MIN), 0);
    bytes
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// An offer.
    Offer(Lease),
    /// The lease is ours.
    Acknowledged(Lease),
    /// It is not.
    Refused,
}

/// An address, for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address and its network.
    pub subnet: Subnet,
    /// Who gave it.
    pub server: Ipv4Addr,
    /// The first of the routers.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Time servers.
    pub ntp: Vec<Ipv4Addr>,
    /// From when on it is to be renewed, seconds.
    pub renew_seconds: u32,
    /// From when on any server may renew it, seconds.
    pub rebind_seconds: u32,
    /// When it ends, seconds.
    pub lease_seconds: u32,
}

/// Reads an answer to the exchange `transaction` of this interface; `None`: it is none.
pub fn reply(bytes: &[u8], transaction: u32, hardware: Hardware) -> Option<Reply> {
    let is_ours = bytes.first() == Some(&2)
        && bytes.get(4..8)? == transaction.to_be_bytes()
        && bytes.get(28..34)? == hardware
        && bytes.get(HEADER_BYTES..HEADER_BYTES + 4)? == COOKIE;
    let options = bytes.get(HEADER_BYTES + 4..).filter(|_| is_ours)?;
    let kind = *option(options, 53)?.first()?;
    if kind == 6 {
        return Some(Reply::Refused);
    }
    let address = addresses(bytes.get(16..20)?).next()?;
    let mask = addresses(option(options, 1)?).next()?;
    let subnet = Subnet::of_mask(address, mask).filter(|_| is_usable(address))?;
    let all =
        |code| option(options, code).map(|value| addresses(value).take(SERVERS_MAX).collect()).unwrap_or_default();
    let seconds = |code| option(options, code)?.try_into().ok().map(u32::from_be_bytes);
    let lease_seconds = seconds(51)?.clamp(*LEASE_SECONDS.start(), *LEASE_SECONDS.end());
    let rebind_seconds = seconds(59).unwrap_or(u32::MAX).min(lease_seconds / 8 * 7);
    let lease = Lease {
        subnet,
        server: addresses(option(options, 54)?).next()?,
        gateway: option(options, 3).and_then(|value| addresses(value).next()),
        dns: all(6),
        ntp: all(42),
        renew_seconds: seconds(58).unwrap_or(lease_seconds / 2).clamp(30, rebind_seconds),
        rebind_seconds,
        lease_seconds,
    };
    match kind {
        2 => Some(Reply::Offer(lease)),
        5 => Some(Reply::Acknowledged(lease)),
        _ => None,
    }
}

fn is_usable(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast())
}

fn addresses(value: &[u8]) -> impl Iterator<Item = Ipv4Addr> {
    value.as_chunks::<4>().0.iter().map(|octets| Ipv4Addr::from(*octets))
}

/// The value of the first option with this code.
fn option(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        match options {
            [0, rest @ ..] => options = rest,
            [255, ..] | [] | [_] => return None,
            [code, length, rest @ ..] => {
                let (value, behind) = rest.split_at_checked(usize::from(*length))?;
                if *code == wanted {
                    return Some(value);
                }
                options = behind;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARDWARE: Hardware = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    fn answer(kind: u8, options: &[u8]) -> Vec<u8> {
        let mut bytes = request(Ask::Discover, 7, HARDWARE, "x");
        bytes[0] = 2;
        bytes[16..20].copy_from_slice(&[10, 0, 2, 15]);
        bytes.truncate(HEADER_BYTES + 4);
        bytes.extend([53, 1, kind, 54, 4, 10, 0, 2, 2, 0, 0]);
        bytes.extend(options);
        bytes.push(255);
        bytes
    }

    const NETWORK: [u8; 24] = [1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 2, 2, 6, 4, 10, 0, 2, 3, 51, 4, 0, 1, 81, 128];

    #[test]
    fn an_offer_is_read_with_the_times_that_the_standard_gives_it() {
        let Some(Reply::Offer(lease)) = reply(&answer(2, &NETWORK), 7, HARDWARE) else { panic!() };
        assert_eq!(lease.subnet, Subnet::parse("10.0.2.15/24").unwrap());
        assert_eq!((lease.gateway, lease.server), (Some(Ipv4Addr::new(10, 0, 2, 2)), Ipv4Addr::new(10, 0, 2, 2)));
        assert_eq!(lease.dns, [Ipv4Addr::new(10, 0, 2, 3)]);
        assert_eq!((lease.renew_seconds, lease.rebind_seconds, lease.lease_seconds), (43_200, 75_600, 86_400));
    }

    #[test]
    fn an_answer_to_somebody_else_is_none() {
        assert_eq!(reply(&answer(2, &NETWORK), 8, HARDWARE), None);
        assert_eq!(reply(&answer(2, &NETWORK), 7, [0; 6]), None);
        assert_eq!(reply(&request(Ask::Discover, 7, HARDWARE, "x"), 7, HARDWARE), None);
        assert_eq!(reply(&answer(6, &[]), 7, HARDWARE), Some(Reply::Refused));
    }

    #[test]
    fn an_answer_cut_anywhere_never_panics() {
        let whole = answer(5, &NETWORK);
        for length in 0..whole.len() {
            let _ = reply(&whole[..length], 7, HARDWARE);
        }
        for at in 0..whole.len() {
            for value in [0, 1, 2, 127, 254, 255] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                let _ = reply(&damaged, 7, HARDWARE);
            }
        }
    }

    #[test]
    fn a_lease_of_no_time_does_not_make_us_ask_without_end() {
        let mut options = NETWORK;
        options[20..].copy_from_slice(&[0, 0, 0, 0]);
        let Some(Reply::Acknowledged(lease)) = reply(&answer(5, &options), 7, HARDWARE) else { panic!() };
        assert_eq!((lease.renew_seconds, lease.lease_seconds), (30, 60));
    }

    #[test]
    fn a_taken_offer_names_address_and_server() {
        let ask = Ask::Take { address: Ipv4Addr::new(10, 0, 2, 15), server: Ipv4Addr::new(10, 0, 2, 2) };
        let bytes = request(ask, 7, HARDWARE, "gateway");
        let options = &bytes[HEADER_BYTES + 4..];
        assert_eq!(option(options, 50).unwrap(), [10, 0, 2, 15]);
        assert_eq!(option(options, 54).unwrap(), [10, 0, 2, 2]);
        assert_eq!(option(options, 12).unwrap(), b"gateway");
        assert_eq!(option(options, 99), None);
    }
}
