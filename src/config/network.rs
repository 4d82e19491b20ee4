//! `network` of the Gateway resource: host name, address and servers of a gateway whose PID 1 is ours.
//!
//! The blob has the texts as they were checked here; PID 1 reads them with the same functions, which also read `gateway.cfg` on the
//! card. Addresses are of IPv4: those of IPv6 are announced by routers, and nothing of them is set.

use super::blob::Network;
use super::diagnostic::{Report, quoted};
use super::source::walk::{Fields, full_text, texts};
use super::source::{Node, Value};
use std::net::Ipv4Addr;

/// Most servers of one kind that are kept.
pub const SERVERS_MAX: usize = 3;
/// Longest label of a name, RFC 1035 §2.3.4.
const LABEL_BYTES_MAX: usize = 63;
/// What `address` says where there is a DHCP server.
pub const DHCP: &str = "dhcp";

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The machine's address.
    pub address: Ipv4Addr,
    /// 0 to 32.
    pub prefix: u8,
}

impl Subnet {
    /// Reads `10.0.0.2/24`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let prefix: u8 = prefix.parse().ok()?;
        Some(Self { address: address.parse().ok()?, prefix }).filter(|subnet| subnet.prefix <= 32)
    }

    /// From an address and a mask; `None` for a mask with holes.
    #[must_use]
    pub fn of_mask(address: Ipv4Addr, mask: Ipv4Addr) -> Option<Self> {
        let bits = u32::from(mask);
        let prefix = u8::try_from(bits.leading_ones()).ok()?;
        (bits.count_ones() == u32::from(prefix)).then_some(Self { address, prefix })
    }

    /// Whether another address is of the same network.
    #[must_use]
    pub fn holds(self, other: Ipv4Addr) -> bool {
        (u32::from(self.address) ^ u32::from(other)) & !self.host_bits() == 0
    }

    /// The bits in which machines of the network differ.
    #[must_use]
    pub fn host_bits(self) -> u32 {
        u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0)
    }

    /// Whether a machine can have the address: not that of the network itself, nor of all in it.
    fn is_of_a_machine(self) -> bool {
        let (address, bits) = (u32::from(self.address), self.host_bits());
        let is_special = self.address.is_unspecified() || self.address.is_loopback() || self.address.is_multicast();
        let is_edge = bits > 1 && (address & bits == 0 || address & bits == bits);
        self.prefix > 0 && !is_special && !is_edge && !self.address.is_broadcast()
    }
}

/// A time server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// A name, or an address of IPv4.
    pub host: String,
    /// A UDP port.
    pub port: u16,
}

impl Server {
    /// RFC 5905 §7.
    const PORT: u16 = 123;

    /// A server at the usual port.
    pub fn new(host: impl ToString) -> Self {
        Self { host: host.to_string(), port: Self::PORT }
    }

    /// Reads a name or an address, with `:port` behind it if the port is not NTP's.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            Some((host, port)) => {
                let port = port.parse().ok().filter(|port| *port != 0)?;
                Some(Self { host: host_name(host)?, port })
            }
            None => Some(Self::new(host_name(text)?)),
        }
    }
}

/// One label of a domain name: letters, digits and hyphens.
#[must_use]
pub fn host_label(text: &str) -> Option<&str> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let fits = (1..=LABEL_BYTES_MAX).contains(&text.len());
    (is_plain && fits && !text.starts_with('-') && !text.ends_with('-')).then_some(text)
}

/// Why there is no wireless network, in words.
pub const NO_WIRELESS: &str =
    "the SD-card image has no Wi-Fi; Raspberry Pi OS has, and the broker as its package runs there";

/// Whether Linux would call a wireless interface so.
pub fn is_wireless(interface: &str) -> bool {
    interface.starts_with("wl")
}

fn host_name(text: &str) -> Option<String> {
    text.split('.').all(|label| host_label(label).is_some()).then(|| text.to_owned())
}

/// Reads a `network`.
pub fn read(node: &Node, report: &mut Report) -> Option<Network> {
    let mut fields = Fields::of(node, "network", report)?;
    let mut network = Network::default();
    for (name, place) in [("hostname", &mut network.hostname), ("interface", &mut network.interface)] {
        if let Some(node) = fields.optional(name)
            && let Some(text) = full_text(node, name, report)
        {
            match host_label(text) {
                Some(label) if name == "interface" && is_wireless(label) => {
                    report.error(&node.place, format!("interface {}: {NO_WIRELESS}", quoted(text)));
                }
                Some(label) => *place = Some(label.to_owned()),
                None => {
                    let fault = format!("{name} {} is not one label: letters, digits and hyphens", quoted(text));
                    report.error(&node.place, fault);
                }
            }
        }
    }
    let subnet = fields.optional("address").and_then(|node| address(node, report));
    network.address = subnet.map(|Subnet { address, prefix }| format!("{address}/{prefix}"));
    if let Some(node) = fields.optional("gateway") {
        network.gateway = gateway(node, subnet, report).map(|gateway| gateway.to_string());
    }
    if let Some(node) = fields.optional("dns") {
        let read = |text: &str| text.parse::<Ipv4Addr>().is_ok();
        network.dns = servers(node, "dns", "no IPv4 address", read, report);
    }
    if let Some(node) = fields.optional("ntp") {
        let read = |text: &str| Server::parse(text).is_some();
        network.ntp =
            servers(node, "ntp", "neither a name nor an IPv4 address, with :port where it is not 123", read, report);
    }
    fields.finish(report);
    Some(network)
}

/// `None` for DHCP, and for a mistake.
fn address(node: &Node, report: &mut Report) -> Option<Subnet> {
    let text = full_text(node, "address", report).filter(|text| *text != DHCP)?;
    let subnet = Subnet::parse(text);
    let fault = match subnet {
        Some(subnet) if subnet.is_of_a_machine() => return Some(subnet),
        Some(_) => "is not the address of one machine in its network",
        None if text.parse::<Ipv4Addr>().is_ok() => "has no prefix: write it as 192.168.1.20/24",
        None => "is neither dhcp nor an IPv4 address with its prefix, like 192.168.1.20/24",
    };
    report.error(&node.place, format!("the address {} {fault}", quoted(text)));
    None
}

fn gateway(node: &Node, subnet: Option<Subnet>, report: &mut Report) -> Option<Ipv4Addr> {
    let text = full_text(node, "gateway", report)?;
    let Ok(gateway) = text.parse::<Ipv4Addr>() else {
        report.error(&node.place, format!("{} is no IPv4 address", quoted(text)));
        return None;
    };
    let fault = match subnet {
        Some(subnet) if !subnet.holds(gateway) => {
            let Subnet { address, prefix } = subnet;
            format!("the gateway {gateway} is not in the network of {address}/{prefix}")
        }
        Some(subnet) if subnet.address == gateway => format!("the gateway {gateway} is the machine's own address"),
        Some(_) | None => return Some(gateway),
    };
    report.error(&node.place, fault);
    None
}

fn servers(node: &Node, what: &str, fault: &str, read: impl Fn(&str) -> bool, report: &mut Report) -> Vec<String> {
    let mut servers: Vec<String> = Vec::new();
    for (text, node) in texts(node, what, report).unwrap_or_default() {
        if !read(text) {
            report.error(&node.place, format!("{} is {fault}", quoted(text)));
        } else if servers.len() == SERVERS_MAX {
            report.error(&node.place, format!("{what} has more than {SERVERS_MAX} servers"));
            break;
        } else {
            servers.push(text.to_owned());
        }
    }
    if node.value == Value::Sequence(Vec::new()) {
        report.error(&node.place, format!("{what} is empty: leave it out for what DHCP says"));
    }
    servers
}

impl Network {
    /// Whether PID 1 understands all of it.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let Self { hostname, interface, address, gateway, dns, ntp } = self;
        [hostname, interface].into_iter().flatten().all(|text| host_label(text).is_some())
            && address.as_deref().is_none_or(|text| Subnet::parse(text).is_some_and(Subnet::is_of_a_machine))
            && gateway.iter().chain(dns).all(|text| text.parse::<Ipv4Addr>().is_ok())
            && ntp.iter().all(|text| Server::parse(text).is_some())
            && dns.len().max(ntp.len()) <= SERVERS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_with_holes_is_none() {
        let address = Ipv4Addr::new(10, 0, 0, 1);
        assert_eq!(Subnet::of_mask(address, Ipv4Addr::new(255, 255, 254, 0)), Some(Subnet { address, prefix: 23 }));
        assert_eq!(Subnet::of_mask(address, Ipv4Addr::new(255, 0, 255, 0)), None);
    }

    #[test]
    fn a_network_holds_its_own_addresses() {
        let subnet = Subnet::parse("10.0.2.15/23").unwrap();
        assert!(subnet.holds(Ipv4Addr::new(10, 0, 3, 254)));
        assert!(!subnet.holds(Ipv4Addr::new(10, 0, 4, 1)));
        assert!(!Subnet::parse("10.0.2.15/32").unwrap().holds(Ipv4Addr::new(10, 0, 2, 14)));
        assert!(Subnet::parse("10.0.2.15/0").unwrap().holds(Ipv4Addr::new(9, 9, 9, 9)));
    }

    #[test]
    fn no_machine_has_the_address_of_a_network_or_of_all_in_it() {
        for text in ["10.0.2.15/24", "10.0.2.14/31", "10.0.2.15/31", "10.0.2.15/32"] {
            assert!(Subnet::parse(text).unwrap().is_of_a_machine(), "{text}");
        }
        for text in ["10.0.2.0/24", "10.0.2.255/24", "0.0.0.0/8", "127.0.0.1/8", "224.0.0.1/24", "10.0.2.15/0"] {
            assert!(!Subnet::parse(text).unwrap().is_of_a_machine(), "{text}");
        }
    }

    #[test]
    fn what_only_another_program_could_have_written_is_not_valid() {
        let good = Network { address: Some("10.0.2.15/24".to_owned()), ..Network::default() };
        assert!(good.is_valid() && Network::default().is_valid());
        let text = || Some("a b".to_owned());
        for bad in [
            Network { hostname: text(), ..good.clone() },
            Network { interface: text(), ..good.clone() },
            Network { address: text(), ..good.clone() },
            Network { gateway: text(), ..good.clone() },
            Network { dns: vec!["::1".to_owned()], ..good.clone() },
            Network { ntp: vec!["a:0".to_owned()], ..good.clone() },
            Network { dns: vec!["9.9.9.9".to_owned(); 4], ..good.clone() },
        ] {
            assert!(!bad.is_valid(), "{bad:?}");
        }
    }
}
