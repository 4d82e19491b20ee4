//! Names to addresses: the hosts file, then DNS. RFC 1035, RFC 3596.
//!
//! By ourselves, because the released binary is linked statically: the C library's own resolver would load modules of
//! another C library into it, and abort where they do not fit.

use async_io::{Async, Timer};
use core::fmt;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};
use smol::future;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

/// The port of DNS.
const PORT: u16 = 53;
/// Most bytes of a file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;
/// Most servers that are asked.
const SERVERS_MAX: usize = 3;
/// Most bytes of an answer over UDP without extensions, RFC 1035 §4.2.1; servers that know better send no more.
const DATAGRAM_BYTES_MAX: usize = 1_500;

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolveFault {
    /// It is no name.
    Name,
    /// Whoever was asked knows of no address.
    NoAddress,
    /// Nobody answered.
    NoAnswer,
}

impl fmt::Display for ResolveFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "the server's name is no domain name",
            Self::NoAddress => "the server's name has no address",
            Self::NoAnswer => "no name server answers",
        })
    }
}

/// Where names are looked up.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// The hosts file.
    pub hosts: PathBuf,
    /// The file that names the servers.
    pub configuration: PathBuf,
    /// The servers' port.
    pub port: u16,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { hosts: "/etc/hosts".into(), configuration: "/etc/resolv.conf".into(), port: PORT }
    }
}

impl Resolver {
    /// The addresses of `name`, those of IPv4 first.
    ///
    /// # Errors
    /// [`ResolveFault`]
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveFault> {
        let local = self.look_in_hosts(name);
        if !local.is_empty() {
            return Ok(local);
        }
        let configuration = read(&self.configuration).unwrap_or_default();
        let configuration = resolv_conf::Config::parse(&configuration).unwrap_or_default();
        let mut servers: Vec<IpAddr> = configuration.nameservers.iter().map(IpAddr::from).take(SERVERS_MAX).collect();
        if servers.is_empty() {
            // resolv.conf(5)
            servers.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        let patience = Duration::from_secs(u64::from(configuration.timeout.clamp(1, 5)));
        let mut fault = ResolveFault::NoAnswer;
        for _ in 0..configuration.attempts.clamp(1, 3) {
            for server in &servers {
                match self.ask(SocketAddr::new(*server, self.port), name, patience).await {
                    Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
                    Ok(_) => fault = ResolveFault::NoAddress,
                    Err(Fault::Name) => return Err(ResolveFault::Name),
                    Err(Fault::Network) => {}
                }
            }
            if fault == ResolveFault::NoAddress {
                break;
            }
        }
        Err(fault)
    }

    fn look_in_hosts(&self, name: &str) -> Vec<IpAddr> {
        let text = read(&self.hosts).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut found: Vec<IpAddr> = Vec::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
            if words.any(|word| word.eq_ignore_ascii_case(name)) && found.len() < ADDRESSES_MAX {
                found.push(address);
            }
        }
        found
    }

    async fn ask(&self, server: SocketAddr, name: &str, patience: Duration) -> Result<Vec<IpAddr>, Fault> {
        let mut addresses = Vec::new();
        let mut answered = false;
        for kind in [TYPE::A, TYPE::AAAA] {
            let late = async {
                Timer::after(patience).await;
                Err(Fault::Network)
            };
            match future::or(query(server, name, kind), late).await {
                Ok(found) => {
                    answered = true;
                    addresses.extend(found);
                }
                Err(Fault::Name) => return Err(Fault::Name),
                Err(Fault::Network) => {}
            }
        }
        addresses.truncate(ADDRESSES_MAX);
        if answered { Ok(addresses) } else { Err(Fault::Network) }
    }
}

/// One query's failure.
#[derive(Debug)]
enum Fault {
    Name,
    Network,
}

impl From<io::Error> for Fault {
    fn from(_: io::Error) -> Self {
        Self::Network
    }
}

async fn query(server: SocketAddr, name: &str, kind: TYPE) -> Result<Vec<IpAddr>, Fault> {
    let mut random = [0; 2];
    getrandom::fill(&mut random).map_err(|_| Fault::Network)?;
    let identifier = u16::from_ne_bytes(random);
    let question = encode_question(identifier, name, kind)?;
    // A port of the system's choice, and only this server's answers.
    let local: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = Async::<UdpSocket>::bind(local)?;
    socket.get_ref().connect(server)?;
    socket.send(&question).await?;
    let mut answer = [0; DATAGRAM_BYTES_MAX];
    loop {
        let bytes = socket.recv(&mut answer).await?;
        match read_answer(answer.get(..bytes).unwrap_or_default(), identifier, name) {
            Read::Addresses(addresses) => return Ok(addresses),
            Read::Truncated => return query_by_tcp(server, &question, identifier, name).await,
            // Somebody guesses; the right one may still come.
            Read::Foreign => {}
        }
    }
}

/// Apart from the waits: a packet of this library is large, and would stand in every future that holds one.
fn encode_question(identifier: u16, name: &str, kind: TYPE) -> Result<Vec<u8>, Fault> {
    let mut packet = Packet::new_query(identifier);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let asked = Name::new(name).map_err(|_| Fault::Name)?;
    packet.questions.push(Question::new(asked, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().map_err(|_| Fault::Name)
}

async fn query_by_tcp(server: SocketAddr, question: &[u8], identifier: u16, name: &str) -> Result<Vec<IpAddr>, Fault> {
    let mut stream = Async::<TcpStream>::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(|_| Fault::Name)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(question).await?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).await?;
    match read_answer(&answer, identifier, name) {
        Read::Addresses(addresses) => Ok(addresses),
        Read::Truncated | Read::Foreign => Err(Fault::Network),
    }
}

enum Read {
    Addresses(Vec<IpAddr>),
    Truncated,
    /// Not the answer to this question.
    Foreign,
}

fn read_answer(bytes: &[u8], identifier: u16, name: &str) -> Read {
    let Ok(packet) = Packet::parse(bytes) else { return Read::Foreign };
    let asked = packet.questions.first().map(|question| question.qname.to_string());
    let same = asked.is_some_and(|asked| asked.trim_end_matches('.').eq_ignore_ascii_case(name.trim_end_matches('.')));
    if packet.id() != identifier || !packet.has_flags(PacketFlag::RESPONSE) || !same {
        return Read::Foreign;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Read::Truncated;
    }
    let addresses = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(data) => Some(IpAddr::V4(Ipv4Addr::from(data.address))),
        RData::AAAA(data) => Some(IpAddr::V6(Ipv6Addr::from(data.address))),
        _ => None,
    });
    Read::Addresses(addresses.take(ADDRESSES_MAX).collect())
}

fn read(path: &PathBuf) -> io::Result<Vec<u8>> {
    if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    std::fs::read(path)
}
