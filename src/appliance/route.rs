//! Links, addresses and routes: rtnetlink(7), one request and one acknowledgement at a time.
//!
//! Written out by hand: six requests of one shape do not carry a netlink library.

use crate::config::network::Subnet;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
/// `NLM_F_REQUEST | NLM_F_ACK`
const ACKNOWLEDGED: u16 = 0x5;
/// `NLM_F_REPLACE | NLM_F_CREATE`: the kernel refuses the first of them for links.
const OR_REPLACE: u16 = 0x500;
const INET: u8 = 2;
const HEADER_BYTES: usize = 16;
/// `NLMSG_ERROR`, which is also what an acknowledgement is.
const ERROR: u16 = 2;
/// Scopes of addresses and routes.
const UNIVERSE: u8 = 0;
const LINK: u8 = 253;
/// How long the kernel may take, which answers before the call returns.
const PATIENCE: Duration = Duration::from_secs(2);

/// Switches an interface on.
pub fn up(index: u32) -> io::Result<()> {
    const IFF_UP: u32 = 1;
    let mut body = vec![0, 0, 0, 0];
    for word in [index, IFF_UP, IFF_UP] {
        body.extend(word.to_ne_bytes());
    }
    request(NEW_LINK, 0, &body)
}

/// Gives an interface an address; one that it has already stays.
pub fn add_address(index: u32, subnet: Subnet) -> io::Result<()> {
    request(NEW_ADDRESS, OR_REPLACE, &address(index, subnet))
}

/// Takes an address away.
pub fn remove_address(index: u32, subnet: Subnet) -> io::Result<()> {
    request(DELETE_ADDRESS, 0, &address(index, subnet))
}

/// Where everything goes that is not of this network.
pub fn set_gateway(index: u32, gateway: Ipv4Addr) -> io::Result<()> {
    request(NEW_ROUTE, OR_REPLACE, &route(index, None, Some(gateway)))
}

/// Where a broadcast goes from a machine that has no address yet.
pub fn set_broadcast(index: u32) -> io::Result<()> {
    request(NEW_ROUTE, OR_REPLACE, &route(index, Some(Ipv4Addr::BROADCAST), None))
}

fn address(index: u32, subnet: Subnet) -> Vec<u8> {
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    const BROADCAST: u16 = 4;
    let mut body = vec![INET, subnet.prefix, 0, UNIVERSE];
    body.extend(index.to_ne_bytes());
    let broadcast = Ipv4Addr::from(u32::from(subnet.address) | subnet.host_bits());
    for (kind, value) in [(ADDRESS, subnet.address), (LOCAL, subnet.address), (BROADCAST, broadcast)] {
        attribute(&mut body, kind, &value.octets());
    }
    body
}

fn route(index: u32, host: Option<Ipv4Addr>, gateway: Option<Ipv4Addr>) -> Vec<u8> {
    const DESTINATION: u16 = 1;
    const INTERFACE: u16 = 4;
    const GATEWAY: u16 = 5;
    const MAIN_TABLE: u8 = 254;
    const PROTOCOL_BOOT: u8 = 3;
    const UNICAST: u8 = 1;
    let scope = if gateway.is_some() { UNIVERSE } else { LINK };
    let prefix = if host.is_some() { 32 } else { 0 };
    let mut body = vec![INET, prefix, 0, 0, MAIN_TABLE, PROTOCOL_BOOT, scope, UNICAST, 0, 0, 0, 0];
    if let Some(host) = host {
        attribute(&mut body, DESTINATION, &host.octets());
    }
    if let Some(gateway) = gateway {
        attribute(&mut body, GATEWAY, &gateway.octets());
    }
    attribute(&mut body, INTERFACE, &index.to_ne_bytes());
    body
}

/// Appends an attribute of four bytes, which need no padding.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8; 4]) {
    body.extend(8_u16.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let bytes = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut message = bytes.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((ACKNOWLEDGED | flags).to_ne_bytes());
    // Sequence number and port: there is one request in a socket's life.
    message.extend([1_u32.to_ne_bytes(), [0; 4]].concat());
    message.extend(body);
    message
}

fn request(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    sendto(&socket, &message(kind, flags, body), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0; 1_024];
    let (_, received) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    outcome(answer.get(..received).unwrap_or_default())
}

fn outcome(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let code =
        answer.get(HEADER_BYTES..HEADER_BYTES + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(code)) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_its_own_length() {
        let body = route(3, Some(Ipv4Addr::BROADCAST), None);
        let message = message(NEW_ROUTE, OR_REPLACE, &body);
        assert_eq!(message.len(), 16 + 12 + 8 + 8);
        assert_eq!(message.get(..4).unwrap(), u32::try_from(message.len()).unwrap().to_ne_bytes());
    }

    #[test]
    fn the_broadcast_address_follows_from_the_prefix() {
        let subnet = |text| address(1, Subnet::parse(text).unwrap());
        assert!(subnet("10.0.2.15/24").ends_with(&[10, 0, 2, 255]));
        assert!(subnet("10.0.2.15/32").ends_with(&[10, 0, 2, 15]));
        assert!(subnet("10.0.2.15/0").ends_with(&[255, 255, 255, 255]));
    }

    #[test]
    fn the_kernel_s_refusal_is_an_error() {
        let answer = |code: i32| [&[36, 0, 0, 0][..], &ERROR.to_ne_bytes(), &[0; 10], &code.to_ne_bytes()].concat();
        assert!(outcome(&answer(0)).is_ok());
        assert_eq!(outcome(&answer(-17)).unwrap_err().raw_os_error(), Some(17));
        assert!(outcome(&[0; 7]).is_err());
    }
}
