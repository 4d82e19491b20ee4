//! `/metrics` of a broker that serves: the figures are those of what clients did, their number is bounded, and promtool and the
//! dashboard agree with them.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::client::{Client, packet, publish_packet, tcp, text};
use support::{Folder, PATIENCE, Site, free_ports};

struct Gateway {
    /// Ends with this value.
    _site: Site,
    mqtt: u16,
    http: u16,
}

/// A broker on which everybody may do everything.
fn open(name: &str) -> Gateway {
    let (folder, mqtt) = (Folder::new(name), free_ports(2));
    folder.write("site/listener.yaml", support::plain_listener(mqtt));
    serve(folder, mqtt)
}

/// A broker on which `operator` may use `open/` and nothing else.
fn guarded(name: &str) -> Gateway {
    let (folder, mqtt) = (Folder::new(name), free_ports(2));
    let users = folder.write("site/secrets/users/passwords.toml", "");
    let arguments = ["passwd", users.to_str().unwrap(), "operator", "--algorithm", "pbkdf2-sha512"];
    let mut child = support::portcullis(&arguments).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"a password\n").unwrap();
    assert!(child.wait().unwrap().success());
    folder.write(
        "site/rules.authorization.json",
        r#"[{"principals": {"usernames": ["operator"]}, "brokerResources": [{"method": "Connect"},
             {"method": "Publish", "topics": ["open/#"]}, {"method": "Subscribe", "topics": ["open/#"]}]}]"#,
    );
    folder.write(
        "site/users.authentication.json",
        r#"{"authenticationMethods": [{"method": "UsernamePassword", "usernamePasswordSettings": {"secretRef": "users"}}]}"#,
    );
    let policies = "      authenticationRef: users\n      authorizationRef: rules\n";
    folder.write("site/listener.yaml", support::plain_listener(mqtt) + policies);
    serve(folder, mqtt)
}

fn serve(folder: Folder, mqtt: u16) -> Gateway {
    folder.write(
        "site/broker.yaml",
        format!(
            "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {{name: default}}\nspec: \
             {{diagnostics: {{metrics: {{prometheusPort: {}}}}}}}\n",
            mqtt + 1
        ),
    );
    Gateway { _site: Site::start_in(folder), mqtt, http: mqtt + 1 }
}

/// A CONNECT with a category, and a password.
fn connect(identifier: &str, category: &str, password: &str) -> Vec<u8> {
    let mut property = vec![0x26];
    property.extend(text("metriccategory"));
    property.extend(text(category));
    let mut body = text("MQTT");
    body.extend([5, 0xC2, 0, 0]);
    // A remaining length is encoded as this one is.
    body.extend(&packet(0, &property)[1..]);
    for field in [identifier, "operator", password] {
        body.extend(text(field));
    }
    packet(0x10, &body)
}

impl Gateway {
    fn client(&self, identifier: &str, category: &str, password: &str) -> (Client, u8) {
        let mut client = Client::new(tcp(self.mqtt));
        client.send(&connect(identifier, category, password));
        let connack = client.receive().expect("a CONNACK");
        (client, connack.body[1])
    }

    fn text(&self) -> String {
        let mut stream = tcp(self.http);
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{head}");
        body.to_owned()
    }

    fn figures(&self) -> BTreeMap<String, f64> {
        let text = self.text();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples
            .map(|line| line.rsplit_once(' ').expect("a value"))
            .map(|(series, value)| (series.to_owned(), value.parse().expect("a number")))
            .collect()
    }

    /// The figures, once this one is so.
    fn figures_once(&self, series: &str, expected: f64) -> BTreeMap<String, f64> {
        let end = Instant::now() + PATIENCE;
        loop {
            let figures = self.figures();
            if figures.get(series) == Some(&expected) {
                return figures;
            }
            assert!(Instant::now() < end, "{series} is {:?}, not {expected}", figures.get(series));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn the_figures_are_those_of_what_clients_did() {
    let gateway = guarded("metrics-figures");
    let (mut publisher, accepted) = gateway.client("publisher", "line \"1\"", "a password");
    let (mut subscriber, _) = gateway.client("subscriber", "screens", "a password");
    let (_, refused) = gateway.client("stranger", "screens", "a guess");
    assert_eq!((accepted, refused), (0, 0x86));
    assert_eq!(subscriber.subscribe(&["open/#"]), [1]);
    for _ in 0..20 {
        assert_eq!(publisher.publish("open/a", b"0123456789"), 0);
    }
    for _ in 0..3 {
        assert_eq!(publisher.publish("shut", b"abc"), 0x87);
        publisher.send(&publish_packet("shut", 0, 0, b"abc"));
    }
    publisher.ping();
    for _ in 0..20 {
        assert_eq!(subscriber.message(), ("open/a".to_owned(), b"0123456789".to_vec()));
    }
    subscriber.ping();
    let figures = gateway.figures();
    let line = |name: &str| format!("{name}{{category=\"line \\\"1\\\"\"}}");
    let screens = |name: &str| format!("{name}{{category=\"screens\"}}");
    for (series, expected) in [
        (line("aio_broker_publishes_received"), 26.0),
        (line("aio_broker_payload_bytes_received"), 218.0),
        (line("aio_broker_publishes_sent"), 0.0),
        (screens("aio_broker_publishes_sent"), 20.0),
        (screens("aio_broker_payload_bytes_sent"), 200.0),
        (line("aio_broker_authentication_successes"), 1.0),
        (screens("aio_broker_authentication_successes"), 1.0),
        (screens("aio_broker_authentication_failures"), 1.0),
        ("aio_broker_qos0_messages_dropped{category=\"line \\\"1\\\"\",direction=\"incoming\"}".to_owned(), 3.0),
        ("portcullis_messages_dropped_total{reason=\"qos0-denied\"}".to_owned(), 3.0),
        ("portcullis_authorization_denied_total{action=\"publish\"}".to_owned(), 6.0),
        ("portcullis_connects_refused_total{reason=\"Bad User Name or Password\"}".to_owned(), 1.0),
        ("portcullis_question_duration_seconds_count".to_owned(), 3.0),
        ("portcullis_store_state{state=\"sound\"}".to_owned(), 1.0),
        ("portcullis_check_passed{check=\"store\"}".to_owned(), 1.0),
    ] {
        let found = figures.iter().find(|(name, _)| name.eq_ignore_ascii_case(&series)).map(|(_, value)| *value);
        assert_eq!(found, Some(expected), "{series}");
    }
    // The probe publishes too, and comes and goes.
    assert!(figures["portcullis_publish_acknowledge_duration_seconds_count"] >= 23.0);
    assert!(figures["portcullis_turn_duration_seconds_count"] > 0.0);
    assert!(figures["process_resident_memory_bytes"] > 1_000_000.0);
    // Tables are allocated whole, and used as they fill.
    assert!(figures["portcullis_heap_bytes"] > 1_000_000.0 && figures["portcullis_allocations_total"] > 100.0);
    assert!(figures["portcullis_deallocations_total"] < figures["portcullis_allocations_total"]);
    assert!(figures["aio_broker_connected_sessions"] >= 2.0);
    drop(subscriber);
    let gone = "portcullis_disconnects_total{cause=\"network-closed\"}";
    let figures = gateway.figures_once(gone, 1.0);
    assert_eq!(figures["portcullis_table_refused_total{table=\"sessions\"}"], 0.0);
}

#[test]
fn what_is_held_for_clients_is_counted_in_messages_and_bytes() {
    let gateway = open("metrics-held");
    let before = gateway.figures();
    let mut lasting = Client::new(tcp(gateway.mqtt));
    // MQTT 5 with Clean Start, a Will at QoS 1, and a session of an hour. The Will: no properties, its topic, its payload.
    let will = [&[0][..], &text("last"), &text("words")].concat();
    let body = [&text("MQTT")[..], &[5, 0x0E, 0, 0, 5, 0x11, 0, 0, 0x0E, 0x10], &text("lasting"), &will].concat();
    lasting.send(&packet(0x10, &body));
    assert_eq!(lasting.receive().unwrap().body[1], 0);
    assert_eq!(lasting.subscribe(&["a/#", "b/#"]), [1, 1]);
    let (mut publisher, _) = gateway.client("p", "c", "a password");
    let retain = |publisher: &mut Client, topic: &str, payload: &[u8]| {
        publisher.send(&packet(0x31, &[&text(topic)[..], &[0], payload].concat()));
        publisher.ping();
    };
    let gained = |name: &str| gateway.figures()[name] - before[name];
    // Those of `$SYS` are retained too, and their texts change.
    retain(&mut publisher, "t/1", &[0; 10_000]);
    retain(&mut publisher, "t/2", &[0; 20_000]);
    retain(&mut publisher, "t/1", &[0; 40_000]);
    assert!((60_000.0..62_000.0).contains(&gained("aio_broker_store_retained_bytes")));
    retain(&mut publisher, "t/1", b"");
    assert!((20_000.0..22_000.0).contains(&gained("aio_broker_store_retained_bytes")));
    for (name, expected) in [
        ("aio_broker_store_retained_messages", 1.0),
        ("aio_broker_store_total_sessions", 1.0),
        ("aio_broker_store_total_subscriptions", 2.0),
        ("aio_broker_store_will_messages", 1.0),
        ("aio_broker_store_will_bytes", 9.0),
    ] {
        assert_eq!(gained(name), expected, "{name}");
    }
}

#[test]
fn clients_cannot_make_more_series_than_there_are() {
    let gateway = open("metrics-series");
    let before = gateway.figures().len();
    for number in 0..100 {
        let (mut client, accepted) = gateway.client("c", &format!("category {number}\n"), "a password");
        assert_eq!(accepted, 0);
        assert_eq!(client.publish("open/a", b"x"), 0);
    }
    let figures = gateway.figures();
    let of =
        |category: &str| figures.get(&format!("aio_broker_publishes_received{{category=\"{category}\"}}")).copied();
    assert_eq!((of("category 0\\n"), of("category 15\\n"), of("category 16\\n")), (Some(1.0), Some(1.0), None));
    assert_eq!(of("other"), Some(84.0));
    let categories = figures.keys().filter(|name| name.starts_with("aio_broker_publishes_received{")).count();
    assert_eq!(categories, 18);
    // Nine series for each of the seventeen new ones, and a cause of refusals more at most.
    assert!(figures.len() <= before + 17 * 9 + 1, "{before} {}", figures.len());
}

#[test]
fn promtool_remarks_on_nothing_but_names_of_the_vendor() {
    let gateway = open("metrics-promtool");
    let (mut client, _) = gateway.client("c", "a", "a password");
    client.publish("open/a", b"x");
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/interop/prometheus/usr/bin/promtool");
    let program = if unpacked.is_file() { unpacked } else { "promtool".into() };
    let mut promtool = Command::new(program)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: run `cargo xtask install`");
    promtool.stdin.take().unwrap().write_all(gateway.text().as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    for line in said.lines() {
        let is_name_of_vendor = line.starts_with("aio_broker_")
            && (line.ends_with("counter metrics should have \"_total\" suffix") || line.ends_with("abbreviated units"));
        assert!(is_name_of_vendor, "{said}");
    }
    // 3 are remarks, 1 is a text that is no exposition.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
}

#[test]
fn the_dashboard_shows_what_there_is() {
    let gateway = open("metrics-dashboard");
    let known: BTreeSet<String> = {
        let name = |series: &String| series.split('{').next().unwrap_or_default().to_owned();
        gateway.figures().keys().map(name).collect()
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/grafana/portcullis.json");
    let dashboard: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let expressions = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let mut named = BTreeSet::new();
    for expression in expressions.map(|target| target["expr"].as_str().unwrap()) {
        let words = expression.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
        named.extend(
            words.filter(|word| ["aio_broker_", "portcullis_", "process_"].iter().any(|it| word.starts_with(it))),
        );
    }
    assert!(named.len() > 30, "{named:?}");
    for name in named {
        // There is a series of these once somebody was refused, and where there are certificates.
        assert!(
            known.contains(name) || name == "portcullis_connects_refused_total" || name.contains("certificate"),
            "{name} is on the dashboard only"
        );
    }
    let mut places = BTreeSet::new();
    for panel in panels {
        assert!(places.insert(panel["gridPos"].to_string()), "two panels in one place: {}", panel["title"]);
    }
}
