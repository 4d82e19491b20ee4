//! The gateway's Ethernet: waiting for the interface and the cable, then a fixed address or a lease.
//!
//! The broker does not wait for any of it. IPv6 is the kernel's own: addresses that routers announce.
//!
//! It deliberately serves one interface and no Wi-Fi, and does not ask whether somebody else has an address that it was given.

use super::dhcp::{self, Ask, Hardware, Lease, Reply};
use super::machine::{Area, Machine};
use super::mounts::text;
use super::route;
use super::settings::{Address, Settings};
use crate::config::network::Subnet;
use async_io::{Async, Timer};
use core::cell::{Cell, RefCell};
use smol::future;
use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Between two looks at interfaces and the cable.
const LOOK: Duration = Duration::from_secs(1);
const FIRST_LOOK: Duration = Duration::from_millis(100);
/// First and longest wait for an answer, RFC 2131 §4.1.
const ANSWER: Duration = Duration::from_secs(2);
const ANSWER_MAX: Duration = Duration::from_secs(32);
/// Between two attempts to renew, RFC 2131 §4.4.5.
const RENEWAL: Duration = Duration::from_secs(60);
const RESOLVER_FILE: &str = "/etc/resolv.conf";

/// What the rest of PID 1 knows of the network.
#[derive(Debug, Default)]
pub struct Network {
    /// Whether there is an interface, and a cable in it.
    pub has_link: Cell<bool>,
    /// Whether there is an address.
    pub is_up: Cell<bool>,
    /// Time servers that the network named.
    pub ntp: RefCell<Vec<Ipv4Addr>>,
}

impl Network {
    /// Whether somebody can be reached: there are a link and an address.
    pub fn is_usable(&self) -> bool {
        self.has_link.get() && self.is_up.get()
    }
}

/// Loopback, where the broker's own commands and its status page are.
pub fn loopback_up() {
    let up = index_of("lo").map_or(Err(io::ErrorKind::NotFound.into()), route::up);
    if let Err(error) = up {
        log::error!("lo: {error}");
    }
}

struct Interface {
    name: String,
    index: u32,
    hardware: Hardware,
}

impl Interface {
    fn has_carrier(&self) -> bool {
        text(format!("/sys/class/net/{}/carrier", self.name)).is_some_and(|text| text == "1")
    }

    /// Until the cable is there.
    async fn carrier(&self, network: &Network, machine: &Machine) {
        self.wait_for_carrier(machine).await;
        network.has_link.set(true);
    }

    async fn wait_for_carrier(&self, machine: &Machine) {
        if self.has_carrier() {
            return;
        }
        machine.set_network(format!("no cable at {}", self.name));
        let mut patience = 16_u32;
        while !self.has_carrier() {
            patience = patience.saturating_sub(1);
            if patience == 1 {
                log::warn!("{}: no cable, or nothing at its other end", self.name);
                machine.notice(Area::Network, format!("{}: no cable, or nothing at its other end", self.name));
            }
            Timer::after(if patience > 6 { FIRST_LOOK } else { LOOK }).await;
        }
        log::info!("{}: connected", self.name);
        machine.clear(Area::Network);
    }

    /// Until the cable is gone.
    async fn carrier_lost(&self, network: &Network, machine: &Machine) {
        while self.has_carrier() {
            Timer::after(LOOK).await;
        }
        network.has_link.set(false);
        log::warn!("{}: the network cable is gone", self.name);
        machine.set_network(format!("no cable at {}", self.name));
        machine.notice(Area::Network, format!("{}: the network cable is gone", self.name));
    }
}

/// Keeps the network as it should be, for ever.
pub async fn keep(settings: &Settings, network: &Network, machine: &Machine) {
    let interface = wait_for_interface(settings, machine).await;
    log::info!("{}: {}", interface.name, hardware_text(interface.hardware));
    if let Err(error) = route::up(interface.index) {
        log::error!("{} cannot be switched on: {error}", interface.name);
    }
    match settings.address {
        Some(Address::Fixed(subnet)) => {
            let ours = Link { subnet, gateway: settings.gateway, dns: &settings.dns };
            let fault = ours.apply(&interface, network);
            loop {
                interface.carrier(network, machine).await;
                machine.set_network(ours.shown(&interface, "fixed"));
                if let Some(fault) = &fault {
                    machine.notice(Area::Network, fault.as_str());
                }
                interface.carrier_lost(network, machine).await;
            }
        }
        Some(Address::Dhcp) | None => loop {
            interface.carrier(network, machine).await;
            if let Err(error) = lease(&interface, settings, network, machine).await {
                log::error!("{}: DHCP: {error}", interface.name);
                machine.notice(Area::Network, format!("{}: DHCP: {error}", interface.name));
                Timer::after(ANSWER_MAX).await;
            }
        },
    }
}

async fn wait_for_interface(settings: &Settings, machine: &Machine) -> Interface {
    let begin = Instant::now();
    let mut has_complained = false;
    loop {
        if let Some(found) = find_interface(settings.interface.as_deref()) {
            machine.clear(Area::Network);
            return found;
        }
        let waited = begin.elapsed();
        if waited > Duration::from_secs(20) && !has_complained {
            let fault = match &settings.interface {
                Some(name) => format!("no Ethernet interface '{name}' that this kernel knows"),
                None => "no Ethernet interface that this kernel knows".to_owned(),
            };
            log::error!("{fault}");
            machine.notice(Area::Network, fault);
            has_complained = true;
        }
        Timer::after(if has_complained { LOOK } else { FIRST_LOOK }).await;
    }
}

/// The named interface, or the first Ethernet by name.
fn find_interface(wanted: Option<&str>) -> Option<Interface> {
    const ETHERNET: &str = "1";
    let mut names: Vec<String> = fs::read_dir("/sys/class/net")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names.into_iter().filter(|name| wanted.is_none_or(|wanted| wanted == name)).find_map(|name| {
        let kind = text(format!("/sys/class/net/{name}/type"))?;
        let hardware = hardware_address(&text(format!("/sys/class/net/{name}/address"))?)?;
        Some(Interface { index: index_of(&name)?, name, hardware }).filter(|_| kind == ETHERNET)
    })
}

fn index_of(name: &str) -> Option<u32> {
    text(format!("/sys/class/net/{name}/ifindex"))?.parse().ok()
}

fn hardware_address(text: &str) -> Option<Hardware> {
    let mut parts = text.split(':').map(|part| u8::from_str_radix(part, 16).ok());
    let mut address = [0; 6];
    for octet in &mut address {
        *octet = parts.next()??;
    }
    parts.next().is_none().then_some(address)
}

fn hardware_text(hardware: Hardware) -> String {
    hardware.map(|octet| format!("{octet:02x}")).join(":")
}

/// An address and what belongs to it.
struct Link<'a> {
    subnet: Subnet,
    gateway: Option<Ipv4Addr>,
    dns: &'a [Ipv4Addr],
}

impl Link<'_> {
    /// The first fault, for people; all of them are in the log.
    fn apply(&self, interface: &Interface, network: &Network) -> Option<String> {
        let Subnet { address, prefix } = self.subnet;
        let name = &interface.name;
        let mut fault = None;
        let mut fails = |text: String| {
            log::error!("{text}");
            fault.get_or_insert(text);
        };
        match route::add_address(interface.index, self.subnet) {
            Ok(()) => {
                network.is_up.set(true);
                log::info!("{name}: address {address}/{prefix}");
            }
            Err(error) => fails(format!("{name}: address {address}/{prefix}: {error}")),
        }
        if let Some(gateway) = self.gateway
            && let Err(error) = route::set_gateway(interface.index, gateway)
        {
            fails(format!("{name}: gateway {gateway}: {error}"));
        }
        let text: String = self.dns.iter().map(|server| format!("nameserver {server}\n")).collect();
        // The file is in memory, so that it need not be replaced in one step.
        if let Err(error) = fs::File::create(RESOLVER_FILE).and_then(|mut file| file.write_all(text.as_bytes())) {
            fails(format!("{RESOLVER_FILE}: {error}"));
        }
        fault
    }

    /// Interface and address, for people.
    fn shown(&self, interface: &Interface, origin: &str) -> String {
        format!("{} {}/{} {origin}", interface.name, self.subnet.address, self.subnet.prefix)
    }
}

/// Obtains a lease and renews it until it is lost, or the cable is.
async fn lease(interface: &Interface, settings: &Settings, network: &Network, machine: &Machine) -> io::Result<()> {
    route::set_broadcast(interface.index)?;
    let socket = Async::<UdpSocket>::bind((Ipv4Addr::UNSPECIFIED, dhcp::CLIENT_PORT))?;
    socket.get_ref().set_broadcast(true)?;
    let host_name = settings.hostname.as_deref().unwrap_or("portcullis");
    let exchange = Exchange { socket, interface, host_name, machine };
    let lost = async {
        interface.carrier_lost(network, machine).await;
        None
    };
    let Some(mut lease) = future::or(async { Some(exchange.obtain().await) }, lost).await else { return Ok(()) };
    loop {
        let dns = if settings.dns.is_empty() { &lease.dns } else { &settings.dns };
        let link = Link { subnet: lease.subnet, gateway: settings.gateway.or(lease.gateway), dns };
        match link.apply(interface, network) {
            Some(fault) => machine.notice(Area::Network, fault),
            None => machine.clear(Area::Network),
        }
        machine.set_network(link.shown(interface, "by DHCP"));
        *network.ntp.borrow_mut() = lease.ntp.clone();
        log::info!("{}: from DHCP server {} for {} s", interface.name, lease.server, lease.lease_seconds);
        let lost = async {
            interface.carrier_lost(network, machine).await;
            Renewal::CableLost
        };
        match future::or(exchange.renew(&lease), lost).await {
            Renewal::Renewed(renewed) => {
                if renewed.subnet != lease.subnet {
                    forget(interface, lease.subnet);
                }
                lease = renewed;
            }
            // Whoever comes back to the same network keeps its address meanwhile, and its connections.
            Renewal::CableLost => {
                interface.carrier(network, machine).await;
                let before = lease.subnet;
                lease = exchange.obtain().await;
                if lease.subnet != before {
                    forget(interface, before);
                }
            }
            Renewal::Ended => {
                let fault = format!("{}: the lease of {} has ended", interface.name, lease.subnet.address);
                log::warn!("{fault}");
                machine.notice(Area::Network, fault);
                network.is_up.set(false);
                forget(interface, lease.subnet);
                return Ok(());
            }
        }
    }
}

fn forget(interface: &Interface, subnet: Subnet) {
    if let Err(error) = route::remove_address(interface.index, subnet) {
        log::warn!("{}: {} cannot be taken away: {error}", interface.name, subnet.address);
    }
}

enum Renewal {
    Renewed(Lease),
    CableLost,
    Ended,
}

struct Exchange<'a> {
    socket: Async<UdpSocket>,
    interface: &'a Interface,
    host_name: &'a str,
    machine: &'a Machine,
}

impl Exchange<'_> {
    /// Asks until somebody gives an address.
    async fn obtain(&self) -> Lease {
        let mut wait = ANSWER;
        self.machine.set_network(format!("{}: asking for an address by DHCP", self.interface.name));
        loop {
            let transaction = transaction();
            if let Some(Reply::Offer(offer)) = self.ask(Ask::Discover, transaction, Ipv4Addr::BROADCAST, wait).await {
                let take = Ask::Take { address: offer.subnet.address, server: offer.server };
                if let Some(Reply::Acknowledged(lease)) = self.ask(take, transaction, Ipv4Addr::BROADCAST, ANSWER).await
                {
                    return lease;
                }
            } else {
                if wait == ANSWER_MAX / 2 {
                    log::warn!("{}: no DHCP server answers; asking on", self.interface.name);
                    let fault = format!("{}: no DHCP server answers", self.interface.name);
                    self.machine.notice(Area::Network, fault);
                }
                wait = (wait * 2).min(ANSWER_MAX);
            }
        }
    }

    async fn renew(&self, lease: &Lease) -> Renewal {
        let begin = Instant::now();
        let seconds = |count: u32| Duration::from_secs(count.into());
        Timer::after(seconds(lease.renew_seconds)).await;
        while begin.elapsed() < seconds(lease.lease_seconds) {
            let is_bound = begin.elapsed() < seconds(lease.rebind_seconds);
            let server = if is_bound { lease.server } else { Ipv4Addr::BROADCAST };
            let ask = Ask::Renew { address: lease.subnet.address };
            match self.ask(ask, transaction(), server, ANSWER).await {
                Some(Reply::Acknowledged(lease)) => return Renewal::Renewed(lease),
                Some(Reply::Refused) => return Renewal::Ended,
                Some(Reply::Offer(_)) | None => {}
            }
            let left = seconds(lease.lease_seconds).saturating_sub(begin.elapsed());
            Timer::after(RENEWAL.min(left)).await;
        }
        Renewal::Ended
    }

    /// One question, and the first answer within `wait` that belongs to it and is of the kind that it has.
    async fn ask(&self, ask: Ask, transaction: u32, server: Ipv4Addr, wait: Duration) -> Option<Reply> {
        let Interface { hardware, name, .. } = self.interface;
        let bytes = dhcp::request(ask, transaction, *hardware, self.host_name);
        let server = SocketAddr::new(IpAddr::V4(server), dhcp::SERVER_PORT);
        if let Err(error) = self.socket.send_to(&bytes, server).await {
            log::debug!("{name}: DHCP to {server}: {error}");
        }
        let answer = async {
            let mut bytes = [0; dhcp::MESSAGE_BYTES_MAX];
            loop {
                let (length, _) = self.socket.recv_from(&mut bytes).await.ok()?;
                let reply = dhcp::reply(bytes.get(..length)?, transaction, *hardware);
                match (&reply, ask) {
                    (Some(Reply::Offer(_)), Ask::Discover) => return reply,
                    (Some(Reply::Acknowledged(_) | Reply::Refused), Ask::Take { .. } | Ask::Renew { .. }) => {
                        return reply;
                    }
                    (Some(_) | None, _) => {}
                }
            }
        };
        let timeout = async {
            Timer::after(wait).await;
            None
        };
        let reply = future::or(answer, timeout).await;
        if reply.is_none() {
            // A socket that fails at once must not make this a busy loop.
            Timer::after(FIRST_LOOK).await;
        }
        reply
    }
}

fn transaction() -> u32 {
    let mut bytes = [0; 4];
    // Without entropy, one that somebody could guess: no worse than DHCP is.
    let _ = getrandom::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_has_six_octets() {
        let address = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
        assert_eq!(hardware_address("52:54:00:12:34:56"), Some(address));
        assert_eq!(hardware_text(address), "52:54:00:12:34:56");
        for text in ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "52:54:00:12:34:5g"] {
            assert_eq!(hardware_address(text), None, "{text}");
        }
    }
}
