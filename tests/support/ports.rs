//! Ports for servers that are started a moment later: by tests, by the benchmarks, by trials of packages and images.
//!
//! Nobody holds a port between its choice here and its use there. So they lie below those that the system hands out by itself,
//! to connections and to who asks for port 0, and each process begins at another place.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// The first one.
const FIRST: u16 = 15_000;
/// Where the system's own begin if it does not say so, or says what leaves no room.
const END: u16 = 32_768;

/// The first of `count` neighbouring ports that nobody has on loopback, and that this process has not been given before.
pub fn free(count: u16) -> Option<u16> {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let own: Option<u16> = range.split_whitespace().next().and_then(|low| low.parse().ok());
    let ports = own.filter(|low| *low > FIRST + 1_000).unwrap_or(END) - FIRST;
    // Processes that follow each other are far apart.
    let begin = std::process::id().wrapping_mul(40_503) % u32::from(ports);
    for _ in 0..ports / count {
        let given = begin + u32::from(GIVEN.fetch_add(count, Ordering::Relaxed));
        let Ok(place) = u16::try_from(given % u32::from(ports)) else { continue };
        let first = FIRST + place;
        if place + count <= ports && (first..first + count).all(is_free) {
            return Some(first);
        }
    }
    None
}

/// A host may be without IPv6.
fn is_free(port: u16) -> bool {
    [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()].into_iter().all(|address| {
        let is_without = |error: std::io::Error| address.is_ipv6() && error.kind() != ErrorKind::AddrInUse;
        TcpListener::bind(address).map_or_else(is_without, |_| true)
    })
}
