//! `gateway.cfg` on the first partition of the card, which a person can edit on any computer, and what the boot loader passed.
//!
//! Lines of `name=value`; blanks around them, empty lines and lines that begin with `#` mean nothing. A line that says nothing
//! useful is said on the console and left out: a gateway that does not start for a typing mistake would have to be visited.

use super::mounts;
use std::net::Ipv4Addr;

/// Most bytes of the file that are read.
pub const FILE_BYTES_MAX: u64 = 16 * 1024;
/// Most servers of one kind that are kept.
pub const SERVERS_MAX: usize = 3;
/// Longest host name, RFC 1035 §2.3.4.
const NAME_BYTES_MAX: usize = 63;

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
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let prefix: u8 = prefix.parse().ok()?;
        Some(Self { address: address.parse().ok()?, prefix }).filter(|subnet| subnet.prefix <= 32)
    }

    /// From an address and a mask; `None` for a mask with holes.
    pub fn of_mask(address: Ipv4Addr, mask: Ipv4Addr) -> Option<Self> {
        let bits = u32::from(mask);
        let prefix = u8::try_from(bits.leading_ones()).ok()?;
        (bits.count_ones() == u32::from(prefix)).then_some(Self { address, prefix })
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

    fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            Some((host, port)) => Some(Self { host: host_name(host)?, port: port.parse().ok()? }),
            None => Some(Self::new(host_name(text)?)),
        }
    }
}

/// What a site says of its gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `hostname`
    pub hostname: Option<String>,
    /// `interface`; `None`: the first Ethernet interface that there is.
    pub interface: Option<String>,
    /// `address`; `None`: DHCP.
    pub address: Option<Subnet>,
    /// `gateway`
    pub gateway: Option<Ipv4Addr>,
    /// `dns`, with commas between.
    pub dns: Vec<Ipv4Addr>,
    /// `ntp`, names or addresses with commas between, each with `:port` behind it if the port is not NTP's.
    pub ntp: Vec<Server>,
}

impl Settings {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Self {
        let mut settings = Self::default();
        for (number, line) in (1_u32..).zip(text.lines()) {
            let line = line.trim_matches(['\u{feff}', ' ', '\t', '\r']);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let understood = line.split_once('=').and_then(|(name, value)| settings.set(name.trim(), value.trim()));
            if understood.is_none() {
                let shown = line.chars().take(80).collect::<String>();
                log::warn!("gateway.cfg, line {number}: not understood and left out: {}", shown.escape_debug());
            }
        }
        settings
    }

    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "hostname" => self.hostname = Some(host_label(value)?.to_owned()),
            "interface" => self.interface = Some(host_label(value)?.to_owned()),
            "address" if value == "dhcp" => self.address = None,
            "address" => self.address = Some(Subnet::parse(value)?),
            "gateway" => self.gateway = Some(value.parse().ok()?),
            "dns" => self.dns = list(value, |part| part.parse().ok())?,
            "ntp" => self.ntp = list(value, Server::parse)?,
            _ => return None,
        }
        Some(())
    }
}

fn list<T>(value: &str, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    value.split(',').take(SERVERS_MAX).map(|part| read(part.trim())).collect()
}

/// One label of a domain name: letters, digits and hyphens.
fn host_label(text: &str) -> Option<&str> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
    (is_plain && fits && !text.starts_with('-')).then_some(text)
}

fn host_name(text: &str) -> Option<String> {
    text.split('.').all(|label| host_label(label).is_some()).then(|| text.to_owned())
}

/// What the boot loader passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Whether the hardware watchdog is used; `portcullis.nowatchdog` says no, for machines whose watchdog bites at once (qemu's
    /// Raspberry Pi).
    pub watchdog: bool,
}

/// Reads the kernel's command line.
pub fn kernel_parameters() -> Parameters {
    let line = mounts::text("/proc/cmdline").unwrap_or_default();
    Parameters { watchdog: !line.split_ascii_whitespace().any(|word| word == "portcullis.nowatchdog") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_from_any_editor_is_read() {
        let text = "\u{feff}# a comment\r\nhostname = line-4\r\naddress=10.0.2.15/24\r\ngateway=10.0.2.2\n\ndns=10.0.2.3, 9.9.9.9\n\
                    ntp=time.example,10.0.2.2:1123\ninterface=eth1\n";
        let settings = Settings::parse(text);
        assert_eq!(
            settings,
            Settings {
                hostname: Some("line-4".to_owned()),
                interface: Some("eth1".to_owned()),
                address: Subnet::parse("10.0.2.15/24"),
                gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
                dns: vec![Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(9, 9, 9, 9)],
                ntp: vec![Server::new("time.example"), Server { host: "10.0.2.2".to_owned(), port: 1_123 }],
            }
        );
        assert_eq!(Settings::parse("address=dhcp"), Settings::default());
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
            let settings = Settings::parse(&format!("{line}\ngateway=10.0.0.254\n"));
            assert_eq!(
                settings,
                Settings { gateway: Some(Ipv4Addr::new(10, 0, 0, 254)), ..Settings::default() },
                "{line}"
            );
        }
    }

    #[test]
    fn a_mask_with_holes_is_none() {
        let address = Ipv4Addr::new(10, 0, 0, 1);
        assert_eq!(Subnet::of_mask(address, Ipv4Addr::new(255, 255, 254, 0)), Some(Subnet { address, prefix: 23 }));
        assert_eq!(Subnet::of_mask(address, Ipv4Addr::new(255, 0, 255, 0)), None);
    }
}
