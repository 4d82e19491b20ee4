//! A broker of the smallest board with every table full at once: connections with and without TLS, sessions, subscriptions,
//! retained messages, the message pool, deliveries, replies, aliases, Wills, handshakes, receive and transmit buffers.
//!
//! Each table is filled until the broker says that it is full.

use super::client::{
    Client, Stream, certificates, key, packet, publish_packet, subscribe_packet, tcp, text, tls_again, tls_config,
};
use super::wire::Connect;
use super::{Folder, Process, Site, free_ports, plain_listener};
use portcullis::pki;
use rustls::ClientConfig;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Bytes of the payloads that slow readers are sent.
const LARGE_BYTES: usize = 64 * 1024;
/// Connections of the board `zero2w`.
const CONNECTIONS: usize = 256;
/// TLS handshakes of the board at one time.
const HANDSHAKES: usize = 8;
/// Bytes of the largest packet that the board takes.
const PACKET_BYTES: usize = 262_144;
/// Sessions that wait for their clients.
const OFFLINE: usize = 220;
/// Subscribers that do not read, without TLS and with it.
const SLOW: usize = 40;
/// Clients that have sent all but the last byte of a large packet: more than the receive buffers take.
const HALTED: usize = 9;
/// Topic Aliases that a client may use.
const ALIASES: u8 = 16;
/// Most messages until a table must be full.
const MESSAGES_MAX: usize = 20_000;

/// Until the log has written what fills a batch, and until the broker's lines have come.
const PAUSE: Duration = Duration::from_millis(5);
const CONNECTIONS_FULL: &str = "the connection table is full";
const SESSIONS: &str = "the session table is full";
const RETAINED: &str = "the table of retained messages is full";
const POOL: &str = "the message pool is full";
const SUBSCRIPTIONS: &str = "there is no room for more subscriptions";
const DELIVERIES: &str = "the delivery table is full";
/// What each full table says.
pub const SAID: [&str; 10] = [
    CONNECTIONS_FULL,
    SESSIONS,
    RETAINED,
    POOL,
    DELIVERIES,
    SUBSCRIPTIONS,
    "the reply table is full",
    "as many TLS handshakes as there may be",
    "the receive buffers are full",
    "the transmit buffers are full",
];

/// A broker, and those who fill it.
pub struct Full {
    pub port: u16,
    pub site: Site,
    /// Publishes what fills the tables.
    filler: Client,
    tls: Arc<ClientConfig>,
    connected: Vec<Client>,
    /// Connections that have not said CONNECT.
    silent: Vec<TcpStream>,
    retained: usize,
}

fn name(kind: &str, number: usize) -> String {
    format!("{kind}-{number}")
}

/// A session that ends with its connection and has a Will, or one that outlives it.
fn connect(stream: impl Stream + 'static, identifier: &str, expiry: u32) -> (Client, u8) {
    let will = (expiry == 0).then_some(("will", &[7; 900][..], 1, 0));
    let mut client = Client::new(stream);
    client.send(&Connect { identifier, clean_start: expiry == 0, expiry, will }.encode());
    let connack = client.receive().expect("a CONNACK");
    assert_eq!(connack.first, 0x20, "{connack:?}");
    (client, connack.body[1])
}

/// What the system buffers for one who does not read would be the kernel's memory and not the broker's: little of it.
fn narrow(stream: &impl AsFd) {
    rustix::net::sockopt::set_socket_recv_buffer_size(stream, 4_096).expect("a socket option");
}

fn retained_packet(number: usize, qos: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = publish_packet(&format!("retained/{number:05}"), qos, 7, payload);
    bytes[0] |= 1;
    bytes
}

impl Full {
    /// A broker with empty tables.
    pub fn start(test: &str) -> Self {
        let (folder, port) = (Folder::new(test), free_ports(2));
        let demo = folder.join("demo");
        pki::demo::create(&demo).expect("certificates");
        for (from, to) in [
            ("fabrikam_root_ca.crt", "trust/client-ca/root.pem"),
            ("mqtts-endpoint.crt", "secrets/server/tls.crt"),
            ("mqtts-endpoint.key", "secrets/server/tls.key"),
        ] {
            folder.write(&format!("site/{to}"), std::fs::read(demo.join(from)).expect("a file"));
        }
        folder.write("site/certs.x509.json", r#"{"trustedClientCaCert": "client-ca"}"#);
        let secured = format!(
            "    - port: {}\n      authenticationRef: certs\n      tls: {{mode: Manual, manual: {{secretRef: server}}}}\n",
            port + 1
        );
        folder.write("site/listener.yaml", plain_listener(port) + &secured);
        let head = "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {name: default}\nspec:";
        // Half-open handshakes stay for as long as they are needed.
        folder.write("site/gateway.yaml", format!("{head} {{board: zero2w, connectDeadlineSeconds: 120}}\n"));
        let identity = (certificates(&demo.join("heater.crt")), key(&demo.join("heater.key")));
        let tls = tls_config(&demo.join("contoso_root_ca.crt"), Some(identity));
        let site = Site::start_in(folder);
        let filler = connect(tcp(port), "filler", 0).0;
        Self { port, site, filler, tls, connected: Vec::new(), silent: Vec::new(), retained: 0 }
    }

    /// Bytes that the broker says it takes at most.
    pub fn budget_bytes(&mut self) -> u64 {
        let line = self.site.process.wait_for("memory: at most");
        let kibibytes = line.split_whitespace().rev().find_map(|word| word.parse::<u64>().ok());
        kibibytes.expect("a number of KiB") * 1_024
    }

    /// Bytes that it has in memory, by this name of /proc/PID/status.
    pub fn resident_bytes(&self, which: &str) -> u64 {
        let path = format!("/proc/{}/status", self.site.process.id());
        let status = std::fs::read_to_string(path).expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix(which)).expect("a line of this name");
        line.trim_matches([':', ' ', '\t', 'k', 'B']).parse::<u64>().expect("a number") * 1_024
    }

    /// Fills every table. `SAID` has been said then.
    pub fn fill(&mut self) {
        self.fill_retained();
        self.leave_sessions_behind();
        self.connect_slow_readers();
        self.connect_others();
        self.fill_subscriptions();
        self.flood_slow_readers();
        self.fill_deliveries();
        self.fill_replies();
        self.halt_in_packets();
        self.fill_sessions();
        self.fill_connections();
        for said in SAID {
            self.site.process.wait_for(said);
        }
    }

    /// Whether the broker has said so. What it refuses for the moment, until the log has written a batch, is no full table.
    fn is_said(&self, part: &str) -> bool {
        self.site.process.count(part) > 0
    }

    /// A client whose session outlives its connection.
    fn lasting(&self, identifier: &str) -> Client {
        loop {
            match connect(tcp(self.port), identifier, 3_600) {
                (client, 0) => return client,
                (_, reason) => assert!(reason == 0x97 && !self.is_said(SESSIONS), "{identifier}: {reason:#x}"),
            }
            thread::sleep(PAUSE);
        }
    }

    fn fill_retained(&mut self) {
        while self.retained < 4_000 {
            self.filler.send(&retained_packet(self.retained, 0, &[1; 300]));
            self.retained += 1;
        }
        loop {
            self.filler.send(&retained_packet(self.retained, 1, &[1; 300]));
            let puback = self.filler.receive().expect("a PUBACK");
            match puback.body.get(2) {
                Some(0x97) if self.is_said(RETAINED) => return,
                Some(0x97) => thread::sleep(PAUSE),
                _ => self.retained += 1,
            }
            assert!(self.retained < MESSAGES_MAX);
        }
    }

    /// Takes away what is retained: gives blocks of the pool back.
    fn clear_retained(&mut self, count: usize) {
        for _ in 0..count.min(self.retained) {
            self.retained -= 1;
            self.filler.send(&retained_packet(self.retained, 1, b""));
            assert_eq!(self.filler.receive().expect("a PUBACK").first, 0x40);
        }
    }

    fn leave_sessions_behind(&mut self) {
        for number in 0..OFFLINE {
            let mut client = self.lasting(&name("offline", number));
            let own: Vec<String> = (0..32)
                .map(|filter| format!("{0:020}{1:04}/{1:04}{0:020}", number, filter))
                .chain(core::iter::once("fan".to_owned()))
                .collect();
            let own: Vec<&str> = own.iter().map(String::as_str).collect();
            while client.subscribe(&own).contains(&0x97) {
                assert!(!self.is_said(SUBSCRIPTIONS), "{number} sessions are left behind");
                thread::sleep(PAUSE);
            }
            client.send(&packet(0xE0, &[]));
        }
    }

    fn secured(&self, narrowed: bool) -> impl Stream + use<> {
        let stream = tls_again(self.port + 1, &self.tls).expect("TLS");
        if narrowed {
            narrow(&stream.sock);
        }
        stream
    }

    fn connect_slow_readers(&mut self) {
        for number in 0..SLOW {
            let stream = tcp(self.port);
            narrow(&stream);
            for (mut client, qos) in [
                (connect(stream, &name("slow", number), 0).0, 0),
                (connect(self.secured(true), &name("slow-tls", number), 0).0, 1),
            ] {
                client.send(&subscribe_packet(9, &["slow"], qos));
                assert_eq!(client.receive().expect("a SUBACK").body[3], qos);
                self.connected.push(client);
            }
        }
    }

    /// Clients that do nothing but have aliases, with TLS and without.
    fn connect_others(&mut self) {
        while self.connected.len() < CONNECTIONS - HALTED - HANDSHAKES - 8 {
            let number = self.connected.len();
            let mut client = match number % 2 {
                0 => connect(tcp(self.port), &name("other", number), 0).0,
                _ => connect(self.secured(false), &name("other", number), 0).0,
            };
            for alias in 1..=ALIASES {
                let mut body = text(&format!("alias/{number}/{alias}"));
                body.extend_from_slice(&[3, 0x23, 0, alias]);
                client.send(&packet(0x30, &body));
            }
            client.ping();
            self.connected.push(client);
        }
    }

    fn fill_subscriptions(&mut self) {
        // First what needs new nodes, then what has them.
        for (kind, others) in [("new", 0..4), ("old", 4..12)] {
            let others = others.map(|number| SLOW * 2 + number);
            let mut refused = false;
            for place in others {
                let client = &mut self.connected[place];
                for filter in 0..250 {
                    let filter = match kind {
                        "new" => format!("{place:030}{filter:04}/{filter:04}{place:030}"),
                        _ => format!("{0:020}{1:04}/{1:04}{0:020}", filter % OFFLINE, filter % 32),
                    };
                    refused |= client.subscribe(&[&filter]) == [0x97];
                    if refused {
                        break;
                    }
                }
            }
            assert!(refused, "subscriptions with {kind} filters have an end");
        }
    }

    /// 64 KiB messages of QoS 1 to all slow readers until the pool is full.
    fn flood_slow_readers(&mut self) {
        let payload = vec![5; LARGE_BYTES];
        for _ in 0..MESSAGES_MAX {
            if self.filler.publish("slow", &payload) == 0x97 && self.is_said(POOL) {
                return;
            }
        }
        panic!("the pool has an end");
    }

    /// Small messages to sessions without clients, in the place of retained ones, until there are no deliveries.
    fn fill_deliveries(&mut self) {
        for _ in 0..MESSAGES_MAX {
            self.clear_retained(1);
            if self.filler.publish("fan", &[3; 8]) == 0x97 {
                if self.is_said(DELIVERIES) {
                    // Something is left for others.
                    return self.clear_retained(8);
                }
                thread::sleep(PAUSE);
            }
        }
        panic!("deliveries have an end");
    }

    /// Slow readers ask what they will not hear the answers of.
    fn fill_replies(&mut self) {
        let mut unsubscribe = vec![0, 9, 0];
        unsubscribe.extend_from_slice(&text("nothing"));
        let packets = packet(0xA2, &unsubscribe).repeat(150);
        for client in &mut self.connected[..SLOW * 2] {
            client.send(&packets);
        }
    }

    fn halt_in_packets(&mut self) {
        for number in 0..HALTED {
            let (mut client, reason) = connect(tcp(self.port), &name("halted", number), 0);
            assert_eq!(reason, 0);
            let payload = vec![9; PACKET_BYTES - 64];
            let packet = publish_packet("halted", 0, 0, &payload);
            client.send(&packet[..packet.len() - 1]);
            self.connected.push(client);
        }
    }

    fn fill_sessions(&mut self) {
        for number in 0..MESSAGES_MAX {
            let (mut client, reason) = connect(tcp(self.port), &name("extra", number), 3_600);
            if reason == 0x97 {
                if self.is_said(SESSIONS) {
                    return;
                }
                thread::sleep(PAUSE);
                continue;
            }
            assert_eq!(reason, 0);
            client.send(&packet(0xE0, &[]));
            assert_eq!(client.receive(), None);
        }
    }

    /// Half a ClientHello from more than may shake hands, then connections that say nothing.
    fn fill_connections(&mut self) {
        for _ in 0..=HANDSHAKES {
            let mut stream = tcp(self.port + 1);
            stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3]).expect("a socket takes some bytes");
            self.silent.push(stream);
        }
        while !self.is_said(CONNECTIONS_FULL) {
            assert!(self.silent.len() < CONNECTIONS);
            self.silent.push(tcp(self.port));
            thread::sleep(PAUSE);
        }
    }

    /// Asks for one more subscription, for which there is no room, and publishes a message to sessions that take no more.
    pub fn press(&mut self) {
        assert_eq!(self.filler.subscribe(&["pressed/by/the/filler"]), [0x97]);
        self.filler.send(&publish_packet("fan", 0, 0, &[3; 3_000]));
    }

    /// How many subscribers there are that do not read.
    pub fn slow_readers(&self) -> usize {
        SLOW * 2
    }

    /// All who fill it leave, and what they left behind is taken away.
    pub fn release(&mut self) {
        self.silent.clear();
        self.connected.clear();
        for number in 0..self.retained {
            self.filler.send(&retained_packet(number, 0, b""));
        }
        for number in 0..OFFLINE {
            // Ends the session that was left behind with its connection.
            assert_eq!(connect(tcp(self.port), &name("offline", number), 0).1, 0);
        }
    }

    /// A connected client; its messages are small.
    pub fn client(&self, identifier: &str) -> Client {
        connect(tcp(self.port), identifier, 0).0
    }

    /// A client of the port with TLS.
    pub fn tls_client(&self, identifier: &str) -> Client {
        connect(self.secured(false), identifier, 0).0
    }

    pub fn process(&self) -> &Process {
        &self.site.process
    }
}
