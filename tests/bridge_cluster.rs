//! A bridge to a cluster that we did not write: three nodes of rmqttd, of which one is killed.
//!
//! Runs where `PORTCULLIS_RMQTTD` names that program (`cargo install rmqttd` takes a quarter of an hour and is no part of the
//! gate), and says so where it does not.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use support::client::{Client, lasting_connect_packet, tcp};
use support::{Folder, PATIENCE, Process, free_ports, left_out, plain_listener, portcullis, run};

const NODES: u16 = 3;
const MESSAGES: usize = 600;

/// A node's ports: for clients, for other nodes, for their consensus.
const PORTS_PER_NODE: u16 = 3;

struct Node {
    process: Process,
    port: u16,
}

fn start_node(program: &str, folder: &Folder, number: u16, first: u16) -> Node {
    let port_of = |node: u16, which: u16| first + node * PORTS_PER_NODE + which;
    let addresses = |which: u16| {
        let each = (0..NODES).map(|node| format!("\"{}@127.0.0.1:{}\"", node + 1, port_of(node, which)));
        each.collect::<Vec<_>>().join(", ")
    };
    let name = format!("node-{number}");
    let plugins = folder.join(&format!("{name}/plugins"));
    folder.write(
        &format!("{name}/plugins/rmqtt-cluster-raft.toml"),
        format!("node_grpc_addrs = [{}]\nraft_peer_addrs = [{}]\nleader_id = 1\n", addresses(1), addresses(2)),
    );
    let configuration = folder.write(
        &format!("{name}/rmqtt.toml"),
        format!(
            "node.id = {}\nrpc.server_addr = \"127.0.0.1:{}\"\nplugins.dir = \"{}\"\n\
             plugins.default_startups = [\"rmqtt-cluster-raft\"]\n\
             plugins.disabled_default_startups = [\"rmqtt-http-api\"]\nlog.to = \"console\"\nlog.level = \"info\"\n\
             listener.tcp.external.addr = \"127.0.0.1:{}\"\nlistener.tcp.external.allow_anonymous = true\n",
            number + 1,
            port_of(number, 1),
            plugins.display(),
            port_of(number, 0),
        ),
    );
    let mut command = Command::new(program);
    command.arg("-f").arg(&configuration).current_dir(folder.path());
    Node { process: Process::start(&mut command), port: port_of(number, 0) }
}

/// Waits until a port takes clients.
fn wait_for_port(port: u16) {
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < end, "nobody listens on {port}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_is_acknowledged_reaches_a_cluster_of_which_a_node_dies() {
    let Ok(program) = std::env::var("PORTCULLIS_RMQTTD") else {
        left_out("PORTCULLIS_RMQTTD does not name an rmqttd");
        return;
    };
    let folder = Folder::new("cluster");
    let first = free_ports(NODES * PORTS_PER_NODE + 1);
    // The first is the leader, without whom the others end.
    let started = (0..NODES).map(|number| {
        let node = start_node(&program, &folder, number, first);
        wait_for_port(node.port);
        node
    });
    let mut nodes: Vec<Node> = started.collect();
    let port = first + NODES * PORTS_PER_NODE;
    let hosts: Vec<String> = nodes.iter().map(|node| format!("'127.0.0.1:{}'", node.port)).collect();
    folder.write("site/listener.yaml", plain_listener(port));
    folder.write(
        "site/bridge.yaml",
        format!(
            "apiVersion: portcullis.edge/v1\nkind: BrokerBridge\nmetadata: {{name: cloud}}\nspec:\n  remote: {{hosts: [{}], \
             clientId: gateway-7}}\n  backoff: {{minSeconds: 1, maxSeconds: 1}}\n  out: [{{local: sensors/#, remote: \
             site/7/#}}]\n  in: [{{local: commands/#, remote: site/7/commands/#}}]\n",
            hosts.join(", ")
        ),
    );
    let (site, blob) = (folder.join("site"), folder.join("site/site.blob"));
    let (site, blob) = (site.to_str().unwrap(), blob.to_str().unwrap());
    let baked = run(&["bake", site, "--out", blob]);
    assert!(baked.status.success(), "{}", String::from_utf8_lossy(&baked.stderr));
    let mut gateway = Process::start(&mut portcullis(&["run", "--config", blob, "--log", "debug"]));
    gateway.wait_for("bridge 'cloud': connected to 127.0.0.1");
    // At the other end of the cluster.
    let last = nodes.last().unwrap().port;
    let mut reader = Client::new(tcp(last));
    reader.send(&lasting_connect_packet("reader", None, true));
    assert_eq!(reader.receive().unwrap().body[1], 0);
    assert_eq!(reader.subscribe(&["site/7/#"]), [1]);
    let mut publisher = Client::accepted(tcp(port), "publisher");
    for number in 0..MESSAGES {
        assert_eq!(publisher.publish("sensors/a", number.to_string().as_bytes()), 0);
        if number == MESSAGES / 2 {
            // The node that the bridge is at; the reader's goes on.
            nodes.remove(0).process.signal("-KILL");
        }
    }
    let mut arrived = BTreeSet::new();
    while arrived.len() < MESSAGES {
        let (topic, payload) = reader.message();
        assert_eq!(topic, "site/7/a");
        arrived.insert(String::from_utf8(payload).unwrap().parse::<usize>().unwrap());
    }
    let lines: Vec<String> = gateway.output().into_iter().filter(|line| line.contains("bridge 'cloud'")).collect();
    assert_eq!(
        gateway.count_to(2, "bridge 'cloud': connected to 127.0.0.1"),
        2,
        "it has found another node: {lines:#?}"
    );
    // And back: what the cluster says reaches a client here.
    let mut listener = Client::accepted(tcp(port), "listener");
    assert_eq!(listener.subscribe(&["commands/#"]), [1]);
    let mut commander = Client::accepted(tcp(last), "commander");
    assert_eq!(commander.publish("site/7/commands/go", b"now"), 0);
    assert_eq!(listener.message(), ("commands/go".to_owned(), b"now".to_vec()));
}
