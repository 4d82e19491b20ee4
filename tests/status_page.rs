//! The status page in a browser: against made-up answers in every state that a broker can be in, and against a broker with
//! clients. `cargo xtask install` brings chromium, and playwright-core and MQTT.js below `target/interop`.
//!
//! What is checked stands in `tests/status_page/*.cjs`; each says one line for each thing that holds, and here is which lines
//! there must be. With a folder as last argument the scripts leave pictures there.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use portcullis::authentication::{PasswordAlgorithm, hash_password};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Folder, Process, Site, free_ports, portcullis};

const MADE_UP: [&str; 11] = [
    "ok a broker that is well",
    "ok a broker with everything wrong",
    "ok why something was denied",
    "ok a broker that goes and comes back",
    "ok nothing at all",
    "ok names that mean harm",
    "ok five thousand clients, in pages",
    "ok what changes, changes without a reload, and the focus stays",
    "ok everything by keyboard",
    "ok charts tell values, to the pointer and to the keyboard",
    "ok colours by button, kept over a reload",
];

/// Bytes that the page may take in the program.
const PAGE_BYTES_MAX: usize = 32 * 1024;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A script under node; says what is missing where something is.
fn node(script: &str) -> Command {
    let modules = file("target/interop/node/node_modules");
    for needed in [modules.join("playwright-core"), modules.join("mqtt"), PathBuf::from("/usr/bin/chromium")] {
        assert!(needed.exists(), "{} is missing: run `cargo xtask install`", needed.display());
    }
    let mut command = Command::new("node");
    command.arg(file("tests/status_page").join(script)).env("NODE_PATH", modules);
    command
}

fn ends_well(mut process: Process) {
    let status = process.wait();
    assert!(status.success(), "{}", process.output().join("\n"));
}

#[test]
fn every_state_of_a_broker_is_shown_and_no_name_does_harm() {
    let mut process = Process::start(node("made_up.cjs").arg(file("src/service/web/status_page.html")));
    for line in MADE_UP {
        process.wait_for(line);
    }
    ends_well(process);
}

#[test]
fn the_page_is_small() {
    let bytes = std::fs::metadata(file("src/service/web/status_page.html")).unwrap().len();
    assert!(bytes <= PAGE_BYTES_MAX as u64, "{bytes}");
}

/// A broker with one user, who may do what begins with `commands/thermostat/`.
fn site(port: u16, diagnostics: u16) -> Site {
    let folder = Folder::new("status-page");
    let hash = hash_password(b"pw", PasswordAlgorithm::Argon2id, &[7; 16]).unwrap();
    folder.write(
        "site/secrets/users/passwords.toml",
        format!("[thermostat]\npassword = {hash:?}\nattributes = {{ group = 'heaters' }}\n"),
    );
    folder.write(
        "site/users.authentication.yaml",
        "authenticationMethods: [{method: UsernamePassword, usernamePasswordSettings: {secretRef: users}}]",
    );
    folder.write(
        "site/rules.authorization.yaml",
        "authorizationPolicies:\n  rules:\n  - principals: {attributes: [{group: heaters}]}\n    brokerResources:\n    \
         - {method: Connect}\n    - {method: Publish, topics: ['commands/thermostat/#']}\n    \
         - {method: Subscribe, topics: ['commands/thermostat/#']}\n",
    );
    folder.write(
        "site/all.listener.yaml",
        format!("serviceType: ClusterIp\nports: [{{port: {port}, authenticationRef: users, authorizationRef: rules}}]"),
    );
    folder.write(
        "site/broker.yaml",
        format!(
            "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {{name: default}}\nspec:\n  \
             diagnostics: {{metrics: {{prometheusPort: {diagnostics}}}}}\n"
        ),
    );
    Site::start_in(folder)
}

#[test]
fn the_page_shows_what_clients_do() {
    let port = free_ports(2);
    let mut site = site(port, port + 1);
    let mut browser = Process::start(node("live.cjs").args([port.to_string(), (port + 1).to_string()]));
    for line in [
        "ok a client appears, as it is, and goes",
        "ok a denial appears, with its rule and why",
        "ok what waits is listed: sessions and retained messages",
        "ok more clients than a page has",
        "ok messages of the last hour are drawn",
        "stop the broker",
    ] {
        browser.wait_for(line);
    }
    site.process.terminate();
    assert!(site.process.wait().success());
    browser.wait_for("start the broker");
    let blob = site.folder.join("site/site.blob");
    site.process = Process::start(&mut portcullis(&["run", "--config", blob.to_str().unwrap()]));
    browser.wait_for("ok a broker that goes is missed, and found again");
    ends_well(browser);
}
