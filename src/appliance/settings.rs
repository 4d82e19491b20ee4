//! `gateway.cfg` on the first partition of the card, which a person can edit on any computer; `spec.network` of the configuration
//! in force; and what the boot loader passed.
//!
//! The file has lines of `name=value`; blanks around them, empty lines and lines that begin with `#` mean nothing. A line that says
//! nothing useful is said on the console and left out: a gateway that does not start for a typing mistake would have to be visited.
//!
//! **Invariant:** a line of the card wins over the configuration. Whoever has the card in hand can reach a gateway again that a
//! configuration has sent to the wrong address.

use super::boot_state::Slot;
use super::mounts;
use crate::config::blob::Network;
use crate::config::network::{DHCP, NO_WIRELESS, SERVERS_MAX, Server, Subnet, host_label, is_wireless};
use std::net::Ipv4Addr;

/// Most bytes of the file that are read.
pub const FILE_BYTES_MAX: u64 = 16 * 1024;
/// Longest part of a line that is shown, characters.
const SHOWN_MAX: usize = 80;

/// Where the machine's address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// From a DHCP server.
    Dhcp,
    /// From here.
    Fixed(Subnet),
}

/// What a site says of its gateway. What is not said is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `hostname`
    pub hostname: Option<String>,
    /// `interface`; `None`: the first Ethernet interface that there is.
    pub interface: Option<String>,
    /// `address`; `None`: DHCP.
    pub address: Option<Address>,
    /// `gateway`
    pub gateway: Option<Ipv4Addr>,
    /// `dns`, with commas between.
    pub dns: Vec<Ipv4Addr>,
    /// `ntp`, names or addresses with commas between, each with `:port` behind it if the port is not NTP's.
    pub ntp: Vec<Server>,
}

impl Settings {
    /// Reads the file's text; and what of it was left out, a line each.
    pub fn parse(text: &str) -> (Self, Vec<String>) {
        let (mut settings, mut left_out) = (Self::default(), Vec::new());
        for (number, line) in (1_u32..).zip(text.lines()) {
            let line = line.trim_matches(['\u{feff}', ' ', '\t', '\r']);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let understood = line.split_once('=').and_then(|(name, value)| settings.set(name.trim(), value.trim()));
            if understood.is_none() {
                let shown = line.chars().take(SHOWN_MAX).collect::<String>();
                let why = if is_about_wireless(line) { NO_WIRELESS } else { "not understood" };
                left_out.push(format!("line {number}: left out: {}: {why}", shown.escape_debug()));
            }
        }
        (settings, left_out)
    }

    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "hostname" => self.hostname = Some(host_label(value)?.to_owned()),
            "interface" if is_wireless(value) => return None,
            "interface" => self.interface = Some(host_label(value)?.to_owned()),
            "address" if value == DHCP => self.address = Some(Address::Dhcp),
            "address" => self.address = Some(Address::Fixed(Subnet::parse(value)?)),
            "gateway" => self.gateway = Some(value.parse().ok()?),
            "dns" => self.dns = list(value, |part| part.parse().ok())?,
            "ntp" => self.ntp = list(value, Server::parse)?,
            _ => return None,
        }
        Some(())
    }

    /// Those of a configuration, which were checked when it was baked and when it was read.
    fn of(network: &Network) -> Self {
        Self {
            hostname: network.hostname.clone(),
            interface: network.interface.clone(),
            address: Some(network.address.as_deref().and_then(Subnet::parse).map_or(Address::Dhcp, Address::Fixed)),
            gateway: network.gateway.as_ref().and_then(|text| text.parse().ok()),
            dns: network.dns.iter().filter_map(|text| text.parse().ok()).collect(),
            ntp: network.ntp.iter().filter_map(|text| Server::parse(text)).collect(),
        }
    }

    /// Fills what the card does not say from the configuration; the names of what the card says otherwise.
    ///
    /// The configuration's `gateway` belongs to its address: a card with another address is taken to have said that there is none.
    pub fn complete(&mut self, network: &Network) -> Vec<&'static str> {
        let mut theirs = Self::of(network);
        let mut otherwise = Vec::new();
        if self.address.is_some() && self.address != theirs.address {
            otherwise.push("address");
            theirs.gateway = None;
        }
        self.address = self.address.or(theirs.address);
        prefer("hostname", &mut self.hostname, theirs.hostname, &mut otherwise);
        prefer("interface", &mut self.interface, theirs.interface, &mut otherwise);
        prefer("gateway", &mut self.gateway, theirs.gateway, &mut otherwise);
        for (name, differs) in [("dns", fill(&mut self.dns, theirs.dns)), ("ntp", fill(&mut self.ntp, theirs.ntp))] {
            if differs {
                otherwise.push(name);
            }
        }
        otherwise
    }
}

fn prefer<T: PartialEq>(
    name: &'static str,
    ours: &mut Option<T>,
    theirs: Option<T>,
    otherwise: &mut Vec<&'static str>,
) {
    if ours.is_none() {
        *ours = theirs;
    } else if theirs.is_some() && *ours != theirs {
        otherwise.push(name);
    }
}

/// Whether both say something, and not the same.
fn fill<T: PartialEq>(ours: &mut Vec<T>, theirs: Vec<T>) -> bool {
    if ours.is_empty() {
        *ours = theirs;
        return false;
    }
    !theirs.is_empty() && *ours != theirs
}

/// Whether a line is of somebody who looks for Wi-Fi here.
fn is_about_wireless(line: &str) -> bool {
    let (name, value) = line.split_once('=').map_or((line, ""), |(name, value)| (name.trim(), value.trim()));
    matches!(name, "wifi" | "ssid" | "psk") || (name == "interface" && is_wireless(value))
}

fn list<T>(value: &str, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    value.split(',').take(SERVERS_MAX).map(|part| read(part.trim())).collect()
}

/// What the boot loader passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Whether the hardware watchdog is used; `portcullis.nowatchdog` says no, for machines whose watchdog bites at once (qemu's
    /// Raspberry Pi).
    pub watchdog: bool,
    /// `portcullis.slot`: the system slot that this is; `None`: the card has no slots.
    pub slot: Option<Slot>,
    /// `portcullis.trial`: whether the slot is on trial, and the boot loader starts the other one next time.
    pub is_trial: bool,
}

impl Parameters {
    /// Reads the kernel's command line.
    pub fn of_this_kernel() -> Self {
        Self::parse(&mounts::text("/proc/cmdline").unwrap_or_default())
    }

    fn parse(line: &str) -> Self {
        let has = |wanted: &str| line.split_ascii_whitespace().any(|word| word == wanted);
        let slot = line.split_ascii_whitespace().find_map(|word| word.strip_prefix("portcullis.slot="));
        Self {
            watchdog: !has("portcullis.nowatchdog"),
            slot: slot.and_then(Slot::parse),
            is_trial: has("portcullis.trial"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_from_any_editor_is_read() {
        let text = "\u{feff}# a comment\r\nhostname = line-4\r\naddress=10.0.2.15/24\r\ngateway=10.0.2.2\n\ndns=10.0.2.3, 9.9.9.9\n\
                    ntp=time.example,10.0.2.2:1123\ninterface=eth1\n";
        let settings = Settings::parse(text);
        let expected = Settings {
            hostname: Some("line-4".to_owned()),
            interface: Some("eth1".to_owned()),
            address: Subnet::parse("10.0.2.15/24").map(Address::Fixed),
            gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
            dns: vec![Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(9, 9, 9, 9)],
            ntp: vec![Server::new("time.example"), Server { host: "10.0.2.2".to_owned(), port: 1_123 }],
        };
        assert_eq!(settings, (expected, Vec::new()));
        assert_eq!(Settings::parse("address=dhcp").0.address, Some(Address::Dhcp));
    }

    #[test]
    fn what_cannot_be_right_is_left_out_and_the_rest_holds() {
        for line in [
            "address=10.0.0.1",
            "address=10.0.0.1/33",
            "dns=1.2.3",
            "hostname=a b",
            "hostname=",
            "ntp=..",
            "ntp=a:b",
            "x=1",
            "=",
        ] {
            let (settings, left_out) = Settings::parse(&format!("{line}\ngateway=10.0.0.254\n"));
            let expected = Settings { gateway: Some(Ipv4Addr::new(10, 0, 0, 254)), ..Settings::default() };
            assert_eq!(settings, expected, "{line}");
            assert_eq!(left_out, [format!("line 1: left out: {line}: not understood")]);
        }
    }

    fn network() -> Network {
        Network {
            hostname: Some("line-4".to_owned()),
            interface: None,
            address: Some("10.0.2.15/24".to_owned()),
            gateway: Some("10.0.2.2".to_owned()),
            dns: vec!["10.0.2.3".to_owned()],
            ntp: vec!["10.0.2.2:1123".to_owned()],
        }
    }

    #[test]
    fn a_card_that_says_nothing_leaves_the_configuration_in_force() {
        let mut settings = Settings::default();
        assert_eq!(settings.complete(&network()), [""; 0]);
        assert_eq!(settings, Settings::of(&network()));
        assert_eq!(settings.address, Subnet::parse("10.0.2.15/24").map(Address::Fixed));
        assert_eq!(settings.ntp, [Server { host: "10.0.2.2".to_owned(), port: 1_123 }]);
    }

    #[test]
    fn a_line_of_the_card_wins_and_an_address_takes_the_gateway_along() {
        let (mut settings, _) = Settings::parse("address=dhcp\nntp=time.example\nhostname=line-4\n");
        assert_eq!(settings.complete(&network()), ["address", "ntp"], "the same host name is no difference");
        assert_eq!((settings.address, settings.gateway), (Some(Address::Dhcp), None));
        assert_eq!((settings.dns.len(), settings.ntp), (1, vec![Server::new("time.example")]));
        let (mut settings, _) = Settings::parse("gateway=10.0.2.99\n");
        assert_eq!(settings.complete(&network()), ["gateway"]);
        assert_eq!(settings.address, Subnet::parse("10.0.2.15/24").map(Address::Fixed));
    }

    #[test]
    fn who_wants_a_wireless_network_is_told_why_there_is_none() {
        for line in ["interface=wlan0", "ssid=factory", "wifi=on", "psk = secret"] {
            let (settings, left_out) = Settings::parse(line);
            assert_eq!(settings, Settings::default());
            assert!(left_out[0].ends_with(NO_WIRELESS), "{line}: {left_out:?}");
        }
    }

    #[test]
    fn the_boot_loader_s_words_are_read_whole() {
        let parameters = Parameters::parse("console=ttyS0 portcullis.slot=b portcullis.trial portcullis.nowatchdog\n");
        assert_eq!(parameters, Parameters { watchdog: false, slot: Some(Slot::B), is_trial: true });
        let parameters = Parameters::parse("portcullis.slot=c portcullis.trials xportcullis.nowatchdog");
        assert_eq!(parameters, Parameters { watchdog: true, slot: None, is_trial: false });
    }
}
