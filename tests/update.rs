//! Updates of the image, from outside: what of them comes in, by which door, and what is left of those that do not. The test is in
//! the place of PID 1.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use portcullis::bundle::Kind;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use support::client::{Client, certificates, key, tcp, tls};
use support::image::{Image, WELL, ask, bundle, post, send, site};
use support::{Site, free_ports, plain_listener};

const MEBIBYTE: usize = 1024 * 1024;

fn update(version: u64, bytes: usize) -> Vec<u8> {
    bundle(Kind::System, "host", version, bytes)
}

#[test]
fn a_bundle_arrives_as_it_was_sent_and_pid_1_is_told_once_it_is_whole() {
    let image = Image::start(site("update-whole", free_ports(2), None), WELL);
    let bytes = update(8, 5 * MEBIBYTE);
    assert_eq!(image.update(), ("idle".to_owned(), String::new(), 0));
    let (status, text) = send(image.control(), &bytes, "");
    assert_eq!(status, 202, "{text}");
    assert!(!text.contains("100 Continue") && text.contains("\"state\":\"working\""), "{text}");
    image.waits_for_word();
    assert_eq!(std::fs::metadata(image.incoming()).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!image.partial().exists());
    // Until PID 1 has said something, it counts as worked on.
    assert_eq!(image.update(), ("working".to_owned(), "received, and not looked at yet".to_owned(), 8));
    assert_eq!(send(image.control(), &bytes, "").0, 409);
    assert!(std::fs::read(image.incoming()).unwrap() == bytes);
    // A word of the network is none of the update, while its file lies there.
    image.says(&WELL.replace("10.0.2.15", "10.0.2.16"));
    assert_eq!(image.update().0, "working");
    std::fs::remove_file(image.incoming()).unwrap();
    image.says(
        &WELL.replace("update=idle", "update=refused\nupdateText=version 8 is not newer than 9\nupdateVersion=8"),
    );
    assert_eq!(image.update(), ("refused".to_owned(), "version 8 is not newer than 9".to_owned(), 8));
    // One that was refused before is told of anew.
    assert_eq!(send(image.control(), &bytes, "Expect: 100-continue\r\n").0, 202);
    assert!(image.takes_update() == bytes);
    assert_eq!(image.update().0, "working");
    for (state, expected) in [("working", 409), ("trial", 409), ("kept", 202)] {
        image.says(&WELL.replace("idle", state));
        assert_eq!(image.update().0, state);
        assert_eq!(send(image.control(), &bytes, "").0, expected, "{state}");
    }
    assert_eq!(
        image.process.count_to(6, "bytes, from the control socket, user "),
        6,
        "said at its beginning and its end"
    );
}

#[test]
fn what_is_no_update_leaves_nothing_behind_and_nobody_is_told() {
    let port = free_ports(2);
    let image = Image::start(site("update-refused", port, None), WELL);
    let good = update(8, 3 * MEBIBYTE);
    let other = bundle(Kind::System, "rpi3", 8, 1_000);
    let length = |bytes: usize| format!("Content-Length: {bytes}\r\n");
    for (fields, body, expected, part) in [
        ("Transfer-Encoding: chunked\r\n".to_owned(), &b"5\r\nportc\r\n0\r\n\r\n"[..], 411, "Length Required"),
        (String::new(), b"", 411, "Length Required"),
        (length(96 * MEBIBYTE + 1), b"", 413, "96 MiB"),
        (length(0), b"", 400, "no update"),
        (length(20), b"not a bundle, surely", 400, "no update"),
        (length(3 * MEBIBYTE), &[0; 3 * MEBIBYTE], 400, "no update"),
        (length(good.len() + 1), &good, 400, "are sent"),
        (length(good.len() - 1), &good, 400, "are sent"),
        (length(100), &good[..100], 400, "no end"),
        (length(other.len()), &other, 400, "for the board rpi3, and this gateway is a host"),
        (format!("{}Origin: null\r\n", length(good.len())), &good, 403, "Forbidden"),
        (format!("{}Expect: tea\r\n", length(good.len())), &good, 417, "Expectation"),
    ] {
        let (status, text) = ask(image.control(), &post(&fields), body);
        assert_eq!(status, expected, "{fields}: {text}");
        assert!(text.contains(part), "{fields}: {text}");
        assert!(!image.partial().exists() && !image.incoming().exists(), "{fields}");
    }
    // In clear it is for reading only.
    let (status, text) = ask(tcp(port + 1), &post(&length(good.len())).replace("gateway", "localhost"), &good);
    assert_eq!(status, 403);
    assert!(text.contains("control socket only"), "{text}");
    assert!(!image.has_word());
    Client::accepted(tcp(port), "somebody").ping();
}

#[test]
fn a_card_that_keeps_nothing_is_the_reason_and_not_the_room_in_memory() {
    let image = Image::start(site("update-not-kept", free_ports(2), None), WELL);
    let bytes = update(8, 1_000);
    for data in ["read-only", "absent"] {
        image.says(&WELL.replace("data=kept", &format!("data={data}")));
        let (status, text) = send(image.control(), &bytes, "");
        assert_eq!(status, 501, "{text}");
        assert!(text.contains("the card can only be read, or has no data partition"), "{text}");
        assert!(!image.partial().exists() && !image.incoming().exists() && !image.has_word());
    }
    // A machine that does not say is not in the way.
    image.says(&WELL.replace("data=kept\n", ""));
    assert_eq!(send(image.control(), &bytes, "").0, 202);
}

#[test]
fn one_is_received_at_a_time_and_half_of_one_is_removed() {
    let mut image = Image::start(site("update-half", free_ports(2), None), WELL);
    let bytes = update(8, 3 * MEBIBYTE);
    let head = post(&format!("Content-Length: {}\r\nExpect: 100-Continue\r\n", bytes.len()));
    let mut first = image.control();
    first.write_all(head.as_bytes()).unwrap();
    let mut permission = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    first.read_exact(&mut permission).unwrap();
    assert_eq!(&permission, b"HTTP/1.1 100 Continue\r\n\r\n");
    let (status, text) = send(image.control(), &bytes, "");
    assert_eq!(status, 409, "{text}");
    assert!(text.contains("being received"), "{text}");
    first.write_all(&bytes[..MEBIBYTE]).unwrap();
    image.process.wait_for("is being received");
    drop(first);
    image.process.wait_for("has gone before all of it came");
    assert!(!image.incoming().exists() && !image.has_word());
    // Its place is free again, with the answer to the next one at the latest.
    assert_eq!(send(image.control(), &bytes, "").0, 202);
    assert!(image.takes_update() == bytes);
    assert!(!image.partial().exists());
    // What a broker left that was killed meanwhile is removed when it starts.
    std::fs::write(image.partial(), "half").unwrap();
    image.restart();
    assert!(!image.partial().exists());
}

#[test]
fn who_rests_too_long_is_told_so_and_nothing_is_left() {
    let image = Image::start(site("update-slow", free_ports(2), None), WELL);
    let bytes = update(8, MEBIBYTE);
    // Within its header: nothing is written yet.
    let mut slow = image.control();
    slow.write_all(post(&format!("Content-Length: {}\r\n", bytes.len())).as_bytes()).unwrap();
    slow.write_all(&bytes[..100]).unwrap();
    let mut heard = String::new();
    slow.read_to_string(&mut heard).unwrap();
    assert!(heard.starts_with("HTTP/1.1 408 "), "{heard}");
    assert!(heard.contains("takes too long"), "{heard}");
    assert!(!image.partial().exists() && !image.has_word());
}

#[test]
fn beyond_this_machine_an_update_takes_the_word_of_the_gateway_resource() {
    let port = free_ports(2);
    let image = Image::start(site("update-closed", port, Some("tokenSecretRef: metrics")), WELL);
    let authority = image.folder.join("demo/contoso_root_ca.crt");
    let token = "Authorization: Bearer correct horse battery staple\r\n";
    let bytes = update(8, MEBIBYTE);
    let (status, text) = send(tls(port + 1, &authority, None).unwrap(), &bytes, token);
    assert_eq!(status, 403, "{text}");
    assert!(text.contains("diagnosticsTls.updates: Allowed"), "{text}");
    assert_eq!(send(tls(port + 1, &authority, None).unwrap(), &bytes, "").0, 401);
    assert!(!image.has_word() && !image.partial().exists());
    // Reading is something else.
    let get = format!("GET /api/v1/update HTTP/1.1\r\nHost: g\r\n{token}\r\n");
    assert_eq!(ask(tls(port + 1, &authority, None).unwrap(), &get, b"").0, 200);
}

#[test]
fn where_it_is_allowed_a_token_or_a_certificate_opens_the_door_and_it_is_said_whose() {
    let port = free_ports(2);
    let guard = "tokenSecretRef: metrics, trustedClientCaCert: readers, updates: Allowed";
    let mut image = Image::start(site("update-open", port, Some(guard)), WELL);
    let authority = image.folder.join("demo/contoso_root_ca.crt");
    let file = |ending: &str| image.folder.join(&format!("demo/heater.{ending}"));
    let identity = || Some((certificates(&file("crt")), key(&file("key"))));
    let connect = || tls(port + 1, &authority, identity()).unwrap();
    let token = "Authorization: Bearer correct horse battery staple\r\n";
    let bytes = update(8, 5 * MEBIBYTE);
    // As much as a door hears out while it says no.
    let short = update(8, MEBIBYTE);
    let (status, text) = send(connect(), &short, "Authorization: Bearer correct horse battery stapl\r\n");
    assert_eq!(status, 401, "{text}");
    let (status, text) = send(connect(), &short, &format!("{token}Origin: https://evil.example\r\n"));
    assert_eq!(status, 403, "{text}");
    assert!(!image.has_word());
    // What else changes something is for the socket only, as before.
    let other = format!("POST /api/v1/log HTTP/1.1\r\nHost: g\r\n{token}Content-Length: 4\r\n\r\n");
    assert_eq!(ask(connect(), &other, b"info").0, 403);
    let (status, text) = send(connect(), &bytes, token);
    assert_eq!(status, 202, "{text}");
    assert!(image.takes_update() == bytes);
    let line = image.process.wait_for(": received");
    assert!(line.contains("system version 8 (0.1.0 (test)) for host"), "{line}");
    assert!(line.contains("127.0.0.1:") && line.contains("certificate 'CN=heater") && line.contains("token"), "{line}");
}

#[test]
fn what_the_machine_says_is_shown_and_only_degrades() {
    let port = free_ports(2);
    let notices = format!("{WELL}notice=network: no cable at eth0\nnotice=clock: \u{1b}[2Jno server\n");
    let mut image = Image::start(site("update-machine", port, None), &notices);
    image.process.wait_for("diagnostics on 127.0.0.1");
    let (status, ready) = image.get("/readyz");
    let checks = ready["checks"].as_array().unwrap();
    let machine = checks.iter().find(|check| check["name"] == "machine").unwrap();
    assert_eq!(
        (&machine["ok"], &machine["detail"]),
        (&false.into(), &"network: no cable at eth0; clock: [2Jno server".into())
    );
    // The probe may not have been around yet; the machine keeps nothing from being ready.
    assert!(status == 200 || checks.iter().any(|check| check["name"] == "probe" && check["ok"] == false), "{ready}");
    let (_, document) = image.get("/api/v1/status");
    let machine = &document["machine"];
    for (name, expected) in [
        ("board", "host".into()),
        ("release", "0.0.9".into()),
        ("version", 7.into()),
        ("slot", "a".into()),
        ("trial", false.into()),
        ("data", "kept".into()),
        ("configuration", "a".into()),
        ("configurationVersion", 3.into()),
        ("network", "eth0 10.0.2.15/24 by DHCP".into()),
        ("clock", "set by 10.0.2.2".into()),
        ("update", serde_json::json!({"state": "idle", "text": null, "version": null})),
        ("notices", serde_json::json!(["network: no cable at eth0", "clock: [2Jno server"])),
    ] {
        assert_eq!(machine[name], expected, "{name}");
    }
    let (_, metrics) = ask(tcp(port + 1), "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", b"");
    assert!(metrics.contains("\nportcullis_machine_notices 2\n"), "{metrics}");
    assert!(metrics.contains("\nportcullis_check_passed{check=\"machine\"} 0\n"), "{metrics}");
    // It is read anew; where it cannot be, that is what is to be told.
    image.says(WELL);
    assert_eq!(image.get("/api/v1/status").1["machine"]["notices"], serde_json::json!([]));
    std::fs::remove_file(image.folder.join("machine")).unwrap();
    let (_, document) = image.get("/api/v1/status");
    assert!(document["machine"]["notices"][0].as_str().unwrap().contains("cannot be read"), "{document}");
}

#[test]
fn a_broker_that_no_image_started_refers_to_the_package_manager() {
    let site = Site::start("update-package", &[("listener.yaml", plain_listener(free_ports(1)))]);
    let connect = || UnixStream::connect(site.folder.join("site/state/control.sock")).unwrap();
    let (status, text) = send(connect(), &update(8, 1_000), "");
    assert_eq!(status, 501);
    assert!(text.contains("package manager"), "{text}");
    assert_eq!(ask(connect(), "GET /api/v1/update HTTP/1.1\r\nHost: x\r\n\r\n", b"").0, 501);
    let (_, text) = ask(connect(), "GET /api/v1/status HTTP/1.1\r\nHost: x\r\n\r\n", b"");
    assert!(text.contains("\"machine\":null") && !text.contains("\"name\":\"machine\""), "{text}");
    assert!(!site.folder.join("site/state/update").exists());
}
