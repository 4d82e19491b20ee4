//! `cargo xtask bench` without a name: Portcullis, mosquitto and a bare forwarder under the same load, in turn, in one run.
//!
//! Each case is run by each server, one after the other, in a fresh process; the load generator (`tests/load`) reads what the
//! server has spent from the operating system. Ratios of one run are what counts: a busy machine makes all of them slower.

mod cases;
mod report;
mod servers;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::{self, Failure, Outcome};
use crate::targets::Target;
use crate::{build, install, left_out, workspace};
use cases::{Case, Load};
use servers::{Folder, Server};

/// What was asked for.
pub struct Asked {
    /// A minute of everything, which asserts only that it works.
    pub smoke: bool,
    /// Only cases whose name has this in it.
    pub only: Option<String>,
    /// Seconds of each case.
    pub seconds: Option<f64>,
    /// Whether table, figures and chart replace those in the repository.
    pub save: bool,
}

/// One case with one server.
pub struct Measured {
    /// The case.
    pub case: Case,
    /// The server.
    pub server: Server,
    /// What the load generator says.
    pub result: Value,
}

/// Runs the comparison.
pub fn run(asked: &Asked) -> Outcome {
    let servers = if process::find("mosquitto").is_some() {
        Server::ALL.to_vec()
    } else {
        left_out::tell("mosquitto in the benchmarks: it is not installed (Debian's package `mosquitto`)")?;
        vec![Server::Forwarder, Server::Portcullis]
    };
    let programs = build_programs(asked.smoke)?;
    let folder = Folder::new(programs)?;
    let all = if asked.smoke { cases::smoke() } else { cases::all() };
    let wanted = |case: &Case| asked.only.as_ref().is_none_or(|only| case.name().contains(only.as_str()));
    let mut measured = Vec::new();
    for case in all.into_iter().filter(wanted) {
        for server in servers.iter().copied().filter(|server| case.is_for(*server)) {
            let result = measure(&folder, &case, server, asked)?;
            println!("{:44} {:10} {}", case.name(), server.name(), report::line(&result));
            measured.push(Measured { case: case.clone(), server, result });
        }
    }
    if asked.smoke {
        return report::check(&measured);
    }
    let figures = report::figures(&measured, folder.binary_bytes()?);
    let text = report::table(&measured);
    println!("\n{text}");
    let kept = workspace::target_folder().join("bench");
    workspace::make_folder(&kept)?;
    let mut places = vec![kept];
    if asked.save {
        places.push(workspace::root().join("tests/load/results"));
        workspace::make_folder(&workspace::root().join("tests/load/results"))?;
    }
    for place in places {
        workspace::write(&place.join("figures.json"), &format!("{figures:#}\n"))?;
        workspace::write(&place.join("table.md"), &text)?;
        workspace::write(&place.join("chart.svg"), &report::chart(&measured))?;
        println!("figures.json, table.md and chart.svg are in {}", place.display());
    }
    Ok(())
}

/// The programs that are compared, and the load generator. The smoke run takes what the tests have built.
fn build_programs(smoke: bool) -> Outcome<servers::Programs> {
    if smoke {
        // As `cargo xtask test` builds them, so that nothing is built twice.
        process::run(workspace::cargo("test").args(["--workspace", "--locked", "--quiet", "--no-run"]))?;
        let folder = workspace::target_folder().join("debug");
        return Ok(servers::Programs { portcullis: folder.join("portcullis"), load: folder.join("load") });
    }
    let Some(host) = Target::named("host")? else { return Err(Failure::new("there is no target for this machine")) };
    install::for_targets(std::slice::from_ref(&host))?;
    let (portcullis, _) = build::release(&host, &[])?;
    process::run(workspace::cargo("build").args(["--profile", "load", "--package", "load", "--locked"]))?;
    Ok(servers::Programs { portcullis, load: workspace::target_folder().join("load/load") })
}

/// Runs one case with one server. A server that cannot do it is a result too.
fn measure(folder: &Folder, case: &Case, server: Server, asked: &Asked) -> Outcome<Value> {
    let Some(command) = case.load.command() else {
        return start_up(folder, server, if asked.smoke { 2 } else { 20 });
    };
    let mut running = folder.start(server, case)?;
    let mut load = servers::pinned(1, &folder.programs.load);
    load.arg(command).args(["--port", &running.port.to_string()]);
    load.args(["--pid", &running.process.id().to_string()]);
    if case.tls {
        load.arg("--tls").arg(folder.pki());
    }
    load.args(&case.arguments);
    if !matches!(case.load, Load::Idle) {
        let seconds = asked.seconds.unwrap_or(if asked.smoke { 0.3 } else { case.seconds });
        load.args(["--seconds", &seconds.to_string()]);
    }
    let answer = process::capture(&mut load);
    running.stop();
    match answer {
        Ok(text) => serde_json::from_str(&text).map_err(|error| Failure::new(format!("the load said {text}: {error}"))),
        // The forwarder and mosquitto may do what they like; ours may not.
        Err(failure) if server == Server::Portcullis => Err(failure),
        Err(failure) => Ok(json!({ "failed": failure.to_string() })),
    }
}

/// From the start of a process until its port takes a connection, the middle of some starts.
fn start_up(folder: &Folder, server: Server, times: usize) -> Outcome<Value> {
    let case = cases::plain();
    let mut taken = Vec::new();
    for _ in 0..times {
        let begin = Instant::now();
        let mut running = folder.start(server, &case)?;
        taken.push(begin.elapsed());
        running.stop();
    }
    taken.sort_unstable();
    let middle: Duration = taken[taken.len() / 2];
    Ok(json!({ "start_ms": middle.as_secs_f64() * 1e3 }))
}
