//! What was measured, for people: lines, a table, figures, a chart.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Measured;
use super::cases::Case;
use super::servers::Server;
use crate::process::{Failure, Outcome};

/// What decides of a result, and its unit.
const MEASURES: [(&str, &str); 4] = [
    ("cpu_per_million", "CPU s per million"),
    ("cpu_ms_per_connect", "CPU ms per connect"),
    ("bytes_per_connection", "bytes per connection before traffic"),
    ("start_ms", "ms to the open port"),
];

/// What is said beside it: where it is, its name, the most that we want of it, and the largest ratio to mosquitto.
const BESIDE: [(&str, &str, Option<f64>, Option<f64>); 5] = [
    ("/latency_us/p50", "p50 µs", None, None),
    ("/latency_us/p99", "p99 µs", None, Some(1.0)),
    ("/latency_us/p99.9", "p99.9 µs", None, None),
    ("/bytes_per_connection_after_traffic", "bytes per connection after traffic", Some(12_288.0), None),
    ("/resident_at_start", "bytes without connections", None, None),
];

fn measure(result: &Value) -> Option<(f64, &'static str)> {
    MEASURES.iter().find_map(|(name, unit)| Some((result.get(*name)?.as_f64()?, *unit)))
}

fn number(result: &Value, path: &str) -> Option<f64> {
    result.pointer(path).and_then(Value::as_f64)
}

/// One result in one line.
pub fn line(result: &Value) -> String {
    if let Some(failed) = result.get("failed").and_then(Value::as_str) {
        return format!("failed: {}", failed.lines().last().unwrap_or_default());
    }
    let mut line = measure(result).map_or_else(|| "nothing".to_owned(), |(value, unit)| format!("{value:.3} {unit}"));
    if let Some(after) = number(result, "/bytes_per_connection_after_traffic") {
        let base = number(result, "/resident_at_start").unwrap_or(0.0);
        let _ = write!(line, ", {after:.0} after it; {:.0} KiB without any", base / 1_024.0);
    }
    if let (Some(p50), Some(p99)) = (number(result, "/latency_us/p50"), number(result, "/latency_us/p99")) {
        let _ = write!(line, ", p50 {p50:.0} µs, p99 {p99:.0} µs");
    }
    if let (Some(own), Some(seconds)) = (number(result, "/load_cpu_seconds"), number(result, "/seconds")) {
        let _ = write!(line, ", load busy {:.0} %", own / seconds * 100.0);
    }
    for name in ["lost", "disordered", "refused"] {
        if let Some(count) = number(result, &format!("/{name}")).filter(|count| *count > 0.0) {
            let _ = write!(line, ", {count:.0} {name}");
        }
    }
    line
}

/// Fails unless every case could be run, and ours has delivered something, and everything, once and in order.
pub fn check(measured: &[Measured]) -> Outcome {
    for Measured { case, server, result } in measured {
        let says = |what: &str| Err(Failure::new(format!("{}, {}: {what}: {result}", case.name(), server.name())));
        if result.get("failed").is_some() {
            return says("it failed");
        }
        if *server != Server::Portcullis {
            continue;
        }
        let moved = ["/delivered", "/connects", "/connections", "/start_ms"];
        if !moved.iter().any(|path| number(result, path).is_some_and(|count| count > 0.0)) {
            return says("nothing was delivered");
        }
        let faults = ["/lost", "/disordered", "/refused"];
        if faults.iter().any(|path| number(result, path).unwrap_or(0.0) > 0.0) {
            return says("something is missing");
        }
    }
    println!("{} measurements, all of them work", measured.len());
    Ok(())
}

/// The cases in their order, each with what its servers gave.
fn rows(measured: &[Measured]) -> Vec<(&Case, Vec<&Measured>)> {
    let mut rows: Vec<(&Case, Vec<&Measured>)> = Vec::new();
    for one in measured {
        match rows.last_mut() {
            Some((case, of)) if case.name() == one.case.name() => of.push(one),
            _ => rows.push((&one.case, vec![one])),
        }
    }
    rows
}

fn of(row: &[&Measured], server: Server, path: &str) -> Option<f64> {
    row.iter().find(|one| one.server == server).and_then(|one| match path {
        "" => measure(&one.result).map(|(value, _)| value),
        path => number(&one.result, path),
    })
}

fn ratio(row: &[&Measured], to: Server, path: &str) -> Option<f64> {
    Some(of(row, Server::Portcullis, path)? / of(row, to, path)?)
}

/// All of it as Markdown.
pub fn table(measured: &[Measured]) -> String {
    let mut text = String::from(
        "| case | forwarder | portcullis | mosquitto | to mosquitto | wanted | to forwarder | wanted |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    let cell = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.3}"));
    let judged = |value: Option<f64>, wanted: Option<f64>| match (value, wanted) {
        (Some(value), Some(wanted)) if value > wanted => format!("**{value:.3}**"),
        (value, _) => cell(value),
    };
    for (case, row) in rows(measured) {
        let unit = row.iter().find_map(|one| measure(&one.result)).map_or("", |(_, unit)| unit);
        let _ = writeln!(
            text,
            "| {}: {unit} | {} | {} | {} | {} | {} | {} | {} |",
            case.name(),
            cell(of(&row, Server::Forwarder, "")),
            judged(of(&row, Server::Portcullis, ""), case.most),
            cell(of(&row, Server::Mosquitto, "")),
            judged(ratio(&row, Server::Mosquitto, ""), case.wanted),
            cell(case.most.or(case.wanted)),
            judged(ratio(&row, Server::Forwarder, ""), case.wanted_of_floor),
            cell(case.wanted_of_floor),
        );
        for (path, name, most, wanted) in BESIDE {
            if of(&row, Server::Portcullis, path).is_some() {
                let _ = writeln!(
                    text,
                    "| … {name} | {} | {} | {} | {} | {} |  |  |",
                    cell(of(&row, Server::Forwarder, path)),
                    judged(of(&row, Server::Portcullis, path), most),
                    cell(of(&row, Server::Mosquitto, path)),
                    judged(ratio(&row, Server::Mosquitto, path), wanted),
                    cell(most.or(wanted)),
                );
            }
        }
    }
    text
}

/// All of it for programs.
pub fn figures(measured: &[Measured], binary_bytes: u64) -> Value {
    let results: Vec<Value> = measured
        .iter()
        .map(|one| json!({ "case": one.case.name(), "server": one.server.name(), "result": one.result }))
        .collect();
    json!({ "binary_bytes": binary_bytes, "results": results })
}

const BAR: f64 = 15.0;
const LEFT: f64 = 290.0;
const WIDTH: f64 = 920.0;

/// CPU time per million messages of 64 B, as bars on a logarithmic scale.
pub fn chart(measured: &[Measured]) -> String {
    let is_shown = |(case, row): &(&Case, Vec<&Measured>)| {
        case.wanted_of_floor.is_some()
            && !case.name().contains("1:1000")
            && of(row, Server::Mosquitto, "/cpu_per_million").is_some()
    };
    let rows: Vec<_> = rows(measured).into_iter().filter(is_shown).collect();
    let row_height = 3.0 * BAR + 10.0;
    let height = rows.len() as f64 * row_height + 90.0;
    // From 0.03 to 100 seconds.
    let (low, high) = (0.03_f64.log10(), 100_f64.log10());
    let place = |value: f64| (value.log10() - low).max(0.0) / (high - low) * (WIDTH - LEFT - 60.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\" role=\"img\" aria-label=\"CPU seconds per million delivered messages\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"15\" font-weight=\"bold\" fill=\"#1b1f24\">CPU seconds per million delivered \
         messages; shorter is better, the scale is logarithmic</text>\n"
    );
    for mark in [0.1, 1.0, 10.0, 100.0] {
        let x = LEFT + place(mark);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"40\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#d8dee4\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#57606a\">{mark}</text>",
            height - 44.0,
            height - 28.0
        );
    }
    let colours = [(Server::Forwarder, "#9aa4ae"), (Server::Portcullis, "#0969da"), (Server::Mosquitto, "#bf8700")];
    for (index, (case, row)) in rows.iter().enumerate() {
        let top = 46.0 + index as f64 * row_height;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#1b1f24\">{}</text>",
            LEFT - 8.0,
            top + 1.5 * BAR + 4.0,
            case.name()
        );
        for (bar, (server, colour)) in colours.iter().enumerate() {
            let Some(value) = of(row, *server, "/cpu_per_million") else { continue };
            let (y, width) = (top + bar as f64 * BAR, place(value));
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#57606a\" font-size=\"11\">{value:.2}</text>",
                BAR - 2.0,
                LEFT + width + 4.0,
                y + BAR - 4.0
            );
        }
    }
    for (index, (server, colour)) in colours.iter().enumerate() {
        let x = LEFT + index as f64 * 120.0;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{:.1}\" width=\"11\" height=\"11\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{:.1}\" fill=\"#1b1f24\">{}</text>",
            height - 18.0,
            x + 16.0,
            height - 8.0,
            server.name()
        );
    }
    svg.push_str("</svg>\n");
    svg
}
