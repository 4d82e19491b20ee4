//! Load for MQTT brokers: clients of one process and one epoll loop, what a broker spent on them, and a bare forwarder that
//! does the least that any broker must do.
//!
//! In: a command line that names a broker's address and process. Out: one line of JSON with what was delivered and what it
//! cost. **Invariants:** everything is on loopback, bounded in time, and ends by itself; nothing of Portcullis is linked in,
//! so that all brokers are treated alike.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool that talks to whoever started it")]

mod client;
mod connects;
mod flow;
mod forward;
mod idle;
mod loops;
mod measure;
mod options;
mod pki;
mod socket;
mod wire;

use std::process::ExitCode;

/// Why a run ended without a result.
pub type Failure = Box<dyn std::error::Error>;

const HELP: &str = "\
Load for MQTT 5 brokers on loopback, and what they spend on it.

Usage: load pki FOLDER [--clients N]
       load forward --port P [--tls FOLDER]
       load flow --port P --pid N [--tls FOLDER] [OPTIONS]
       load connects --port P --pid N --tls FOLDER [--seconds S] [--at-once N] [--resume]
       load idle --port P --pid N --tls FOLDER [--connections N]

pki       certificates for one run: an authority, a server, and clients
forward   a server that passes packets on without any of a broker's logic
flow      messages from publishers to subscribers
connects  TCP, TLS, CONNECT, DISCONNECT, again and again
idle      resident bytes of connections without traffic, and after some

Options of flow:
  --publishers N         (default 50)
  --subscribers N        (default 50)
  --shape NAME           pairs: publisher i to subscriber i; fan: everyone to everyone
  --qos N                0, 1 or 2
  --payload N            bytes, at least 24 (default 64)
  --topics N             topics of each publisher, in turn, with pairs (default 1)
  --window N             messages of a publisher under way (default 512)
  --rate N               messages a second in all, each at its own time; latency is
                         counted from that time
  --seconds S            what is measured, after --warm-up S
  --idle-subscriptions N subscriptions that match nothing
  --idle-connections N   connections that do nothing";

fn main() -> ExitCode {
    match options::read().and_then(|asked| asked.run()) {
        Ok(Some(result)) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Ok(None) => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("load: {failure}");
            ExitCode::FAILURE
        }
    }
}
