//! `portcullis bundle` and `portcullis update` as a person uses them: against openssl, and against a broker whose PID 1 is the test.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use portcullis::bundle::{Contents, Header, Kind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use support::image::{Image, WELL, bundle, site};
use support::{Folder, Process, Site, free_ports, plain_listener, portcullis, run};

const MEBIBYTE: usize = 1024 * 1024;

/// Runs the program: exit code, standard output, standard error.
fn told(arguments: &[&str]) -> (i32, String, String) {
    let output = run(arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Runs openssl in a folder.
fn openssl(folder: &Folder, arguments: &str) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder with a key, a blob for `host`, and the beginning of a slot.
fn workshop(name: &str) -> Folder {
    let folder = Folder::new(name);
    openssl(&folder, "genpkey -algorithm ed25519 -out key.pem");
    openssl(&folder, "pkey -in key.pem -pubout -out pub.pem");
    folder.write("site/listener.yaml", plain_listener(1883));
    let (site, blob) = (folder.join("site"), folder.join("site.blob"));
    assert!(run(&["bake", text(&site), "--out", text(&blob)]).status.success());
    let mut slot = vec![0; 100_000];
    slot[510..512].copy_from_slice(&[0x55, 0xAA]);
    folder.write("host.slot", slot);
    folder
}

fn bundled(folder: &Folder, arguments: &str) -> (i32, String, String) {
    let paths = |word: &str| if word.contains('.') { text(&folder.join(word)).to_owned() } else { word.to_owned() };
    let words: Vec<String> = format!("bundle --out out.update {arguments}").split(' ').map(paths).collect();
    told(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn what_is_bundled_openssl_verifies_and_it_holds_what_it_was_made_of() {
    let folder = workshop("bundle-good");
    for (arguments, payload, kind) in [
        ("--key key.pem --board host --version 8 --slot host.slot", "host.slot", Kind::System),
        ("--key key.pem --board host --version 8 --blob site.blob", "site.blob", Kind::Configuration),
    ] {
        let (code, output, errors) = bundled(&folder, arguments);
        assert_eq!(code, 0, "{errors}");
        assert_eq!(errors.contains("takes no other update"), kind == Kind::Configuration, "{errors}");
        assert!(output.contains(&format!("{} version 8 for host, ", kind.name())), "{output}");
        let bytes = std::fs::read(folder.join("out.update")).unwrap();
        let header = Header::parse(&bytes).unwrap();
        assert_eq!((header.manifest().kind, header.manifest().release.as_str()), (kind, env!("CARGO_PKG_VERSION")));
        assert!(bytes[header.length()..] == std::fs::read(folder.join(payload)).unwrap());
        // The raw public key stands at the end of its DER.
        let public = openssl(&folder, "pkey -pubin -in pub.pem -outform DER");
        let public: [u8; 32] = *public.last_chunk().unwrap();
        assert_eq!(header.verify(&public), Ok(()));
        assert!(output.contains(&public.map(|byte| format!("{byte:02x}")).concat()), "{output}");
        // And by somebody who knows nothing of this program.
        let head = std::str::from_utf8(&bytes[..header.length()]).unwrap();
        let (signed, signature) = head.split_once("signature=").unwrap();
        let signature: Vec<u8> =
            (0..64).map(|at| u8::from_str_radix(&signature[2 * at..2 * at + 2], 16).unwrap()).collect();
        folder.write("signed", signed);
        folder.write("signature", signature);
        openssl(&folder, "pkeyutl -verify -rawin -pubin -inkey pub.pem -in signed -sigfile signature");
        let digest = openssl(&folder, &format!("dgst -sha256 -r {payload}"));
        let digest = String::from_utf8(digest).unwrap();
        assert!(head.contains(&format!("sha256={}\n", digest.split(' ').next().unwrap())), "{head}");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_str().unwrap().ends_with(".new")), "{left:?}");
}

#[test]
fn folders_go_with_a_blob_and_nobody_else_reads_them() {
    let folder = workshop("bundle-folders");
    for (file, contents) in [("revocation/deny.yaml", "[]"), ("secrets/server/tls.key", "key"), ("secrets/a", "b")] {
        folder.write(file, contents);
    }
    let with =
        |names: &str| bundled(&folder, &format!("--key key.pem --board host --version 8 --blob site.blob{names}"));
    let here = |name: &str| format!(" --with {}", text(&folder.join(name)));
    let (code, _, errors) = with(&(here("revocation") + &here("secrets")));
    assert_eq!(code, 0, "{errors}");
    let bytes = std::fs::read(folder.join("out.update")).unwrap();
    let payload = &bytes[Header::parse(&bytes).unwrap().length()..];
    let contents = Contents::read(payload).unwrap();
    assert!(contents.blob == std::fs::read(folder.join("site.blob")).unwrap());
    let names: Vec<&str> = contents.beside.iter().map(|entry| entry.name).collect();
    let expected = ["revocation", "revocation/deny.yaml", "secrets", "secrets/a", "secrets/server"];
    assert_eq!(names, [&expected[..], &["secrets/server/tls.key"]].concat());
    assert_eq!(contents.beside[5].contents, b"key");
    let mode = std::fs::metadata(folder.join("out.update")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // By somebody who knows nothing of this program.
    folder.write("payload", payload);
    let listed = Command::new("sh").args(["-c", "cpio -t < payload"]).current_dir(folder.path()).output();
    if let Ok(listed) = listed.as_ref().map(|listed| String::from_utf8_lossy(&listed.stdout)) {
        assert!(listed.is_empty() || listed.lines().eq(names.iter().copied().chain(["portcullis.blob"])), "{listed}");
    }
    folder.write("revocation/large", vec![0; 4 * MEBIBYTE]);
    folder.write("issuers", "a file");
    std::os::unix::fs::symlink("..", folder.join("secrets/server/around")).unwrap();
    for (names, code, part) in [
        (here("revocation"), 3, "a gateway takes 4194304"),
        (here("secrets"), 4, "too large"),
        (here("issuers"), 4, "Not a directory"),
        (here("missing/secrets"), 4, "No such file"),
        (here("site"), 2, "secrets, or issuers, or revocation"),
    ] {
        let (found, _, errors) = with(&names);
        assert!(found == code && errors.contains(part), "{names}: {found}, {errors}");
    }
}

#[test]
fn what_no_gateway_would_take_is_not_bundled() {
    let folder = workshop("bundle-bad");
    openssl(&folder, "genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-256 -out other.pem");
    folder.write("text.slot", "x".repeat(1_000));
    folder.write("short.slot", "x");
    for (arguments, expected, part) in [
        ("--key other.pem --board host --version 8 --slot host.slot", 4, "openssl genpkey -algorithm ed25519"),
        ("--key pub.pem --board host --version 8 --slot host.slot", 4, "no private key of Ed25519"),
        ("--key missing.pem --board host --version 8 --slot host.slot", 4, "No such file"),
        ("--key key.pem --board host --version 8 --slot missing.slot", 4, "No such file"),
        ("--key key.pem --board host --version 8 --slot text.slot", 3, "no FAT file system"),
        ("--key key.pem --board host --version 8 --slot short.slot", 3, "no FAT file system"),
        ("--key key.pem --board host --version 8 --blob host.slot", 3, "not a configuration blob"),
        ("--key key.pem --board rpi3 --version 8 --blob site.blob", 3, "baked for the board host, not for rpi3"),
        ("--key key.pem --board a/b --version 8 --slot host.slot", 2, "--board"),
        ("--key key.pem --board host --version 0 --slot host.slot", 2, "at least 1"),
        (
            "--key key.pem --board host --version 8 --slot host.slot --blob site.blob",
            2,
            "one --blob FILE or one --slot",
        ),
    ] {
        let (code, _, errors) = bundled(&folder, arguments);
        assert_eq!(code, expected, "{arguments}: {errors}");
        assert!(errors.contains(part), "{arguments}: {errors}");
        assert!(!folder.join("out.update").exists());
    }
    let long = "r".repeat(65);
    let (code, _, errors) =
        bundled(&folder, &format!("--key key.pem --board host --version 8 --slot host.slot --release {long}"));
    assert_eq!(code, 2, "{errors}");
}

/// Begins to send an update to a machine, and takes it as PID 1 does.
fn begin(image: &Image, kind: Kind, way: &[&str]) -> Process {
    let bytes = bundle(kind, "host", 8, 3 * MEBIBYTE);
    let file = image.folder.write("host.update", &bytes);
    let process = Process::start(&mut portcullis(&[&["update", text(&file)], way].concat()));
    assert!(image.takes_update() == bytes);
    process
}

/// What the machine says of the update to version 8.
fn with_update(machine: &str, state: &str, why: &str) -> String {
    machine.replace("update=idle", &format!("update={state}\nupdateText={why}\nupdateVersion=8"))
}

#[test]
fn an_update_is_followed_over_a_restart_until_it_is_kept() {
    let port = free_ports(2);
    let guard = "tokenSecretRef: metrics, updates: Allowed";
    let mut image = Image::start(site("update-kept", port, Some(guard)), WELL);
    let (host, authority, token) = (
        format!("localhost:{}", port + 1),
        image.folder.join("demo/contoso_root_ca.crt"),
        image.folder.join("site/secrets/metrics/token"),
    );
    let way = ["--to", &host, "--cafile", text(&authority), "--token-file", text(&token)];
    let mut command = begin(&image, Kind::System, &way);
    command.wait_for("system version 8 (0.1.0 (test)) for host");
    command.wait_for(&format!("{host}: sent in "));
    command.wait_for("version 8 is worked on: received, and not looked at yet");
    image.says(&with_update(WELL, "working", "the slot is written"));
    command.wait_for("version 8 is worked on: the slot is written");
    image.process.terminate();
    image.process.wait();
    command.wait_for("no answer; it may be starting");
    let trial = WELL.replace("version=7", "version=8").replace("slot=a\ntrial=no", "slot=b\ntrial=yes");
    image.says(&with_update(&trial, "trial", "ready 0 of 5"));
    image.restart_ended();
    command.wait_for("version 8 runs for a trial: ready 0 of 5");
    assert!(command.is_alive());
    image.says(&with_update(&trial.replace("trial=yes", "trial=no"), "kept", ""));
    command.wait_for("version 8 is kept");
    assert_eq!(command.wait().code(), Some(0));
    // Asked again, it tells the same.
    let (code, output, errors) = told(&[&["update"], &way[..]].concat());
    assert_eq!((code, errors.as_str()), (0, ""));
    assert!(output.contains("board host, release 0.0.9, version 8 in slot b; configuration a, version 3"), "{output}");
    assert!(output.contains("last update: version 8 is kept"), "{output}");
}

#[test]
fn one_that_is_not_kept_is_said_so_and_why() {
    let image = Image::start(site("update-back", free_ports(2), None), WELL);
    let socket = image.socket();
    let way = ["--control", text(&socket)];
    for (state, why, said) in [
        ("refused", "version 8 is not newer than 9", "version 8 is refused: version 8 is not newer than 9"),
        (
            "back",
            "not ready within 120 s",
            "version 8 was not kept, what ran before runs again: not ready within 120 s",
        ),
    ] {
        image.says(WELL);
        let mut command = begin(&image, Kind::Configuration, &way);
        command.wait_for("version 8 is worked on");
        image.says(&with_update(WELL, state, why));
        command.wait_for(said);
        assert_eq!(command.wait().code(), Some(1));
        let (code, output, _) = told(&[&["update"], &way[..]].concat());
        assert_eq!(code, 0);
        assert!(output.contains(said), "{output}");
        let (_, status, _) = told(&[&["status"], &way[..]].concat());
        assert!(status.contains(&format!("last update: {said}")), "{status}");
    }
    // One that nobody waits for.
    image.says(WELL);
    let file = image.folder.join("host.update");
    let (code, output, errors) = told(&[&["update", text(&file), "--no-wait"], &way[..]].concat());
    assert_eq!((code, errors.as_str()), (0, ""));
    assert!(output.contains("sent in "), "{output}");
    // And a gateway of which nothing is heard any more.
    image.takes_update();
    image.says(&with_update(WELL, "idle", ""));
    let mut command = Process::start(&mut portcullis(&[&["update", text(&file), "--wait", "3"], &way[..]].concat()));
    image.takes_update();
    image.says(&with_update(WELL, "working", "for ever"));
    command.wait_for("nothing new for 3 s");
    assert_eq!(command.wait().code(), Some(1));
}

#[test]
fn what_a_gateway_says_no_to_is_said_with_its_reason() {
    let port = free_ports(2);
    let guard = "tokenSecretRef: metrics, updates: Allowed";
    let image = Image::start(site("update-no", port, Some(guard)), WELL);
    let host = format!("localhost:{}", port + 1);
    let (authority, token) =
        (image.folder.join("demo/contoso_root_ca.crt"), image.folder.join("site/secrets/metrics/token"));
    let wrong = image.folder.write("wrong-token", "another one that is long enough");
    let write = |name: &str, bytes: &[u8]| text(&image.folder.write(name, bytes)).to_owned();
    let good = write("good.update", &bundle(Kind::System, "host", 8, 20 * MEBIBYTE));
    let other = write("other.update", &bundle(Kind::System, "rpi3", 8, 20 * MEBIBYTE));
    let cut = write("cut.update", &bundle(Kind::System, "host", 8, MEBIBYTE)[..MEBIBYTE]);
    let none = write("none.update", b"something else");
    let missing = text(&image.folder.join("missing.update")).to_owned();
    let trusting = ["--to", &host, "--cafile", text(&authority)];
    let knowing = [&trusting[..], &["--token-file", text(&token)]].concat();
    let nobody = format!("localhost:{}", free_ports(1));
    for (file, way, expected, part) in [
        (&missing, &knowing[..], 4, "No such file"),
        (&none, &knowing, 3, "it is no update"),
        (&cut, &knowing, 3, "it was cut"),
        (&good, &trusting, 1, "Unauthorized (401); --token-file"),
        (&good, &[&trusting[..], &["--token-file", text(&wrong)]].concat(), 1, "Unauthorized (401)"),
        // Megabytes are on their way when it says so.
        (&other, &knowing, 1, "for the board rpi3, and this gateway is a host (400)"),
        (
            &good,
            &["--to", &host, "--cafile", &image.folder.join("demo/fabrikam_root_ca.crt").display().to_string()],
            4,
            "certificate",
        ),
        (&good, &["--to", &nobody, "--cafile", text(&authority)], 4, "refused"),
        (&good, &["--to", "not/a host"], 2, "HOST"),
        (&good, &["--control", text(&image.folder.join("nowhere.sock"))], 4, "no broker has its control socket there"),
    ] {
        let (code, _, errors) = told(&[&["update", file.as_str()], way].concat());
        assert_eq!(code, expected, "{file} {way:?}: {errors}");
        assert!(errors.contains(part), "{file} {way:?}: {errors}");
    }
    assert!(!image.has_word());
    // Of several gateways, those behind one that says no are left as they are.
    let (code, _, errors) = told(&[&["update", &good, "--to", &nobody], &knowing[..]].concat());
    assert_eq!(code, 4, "{errors}");
    assert!(errors.contains("1 more are left as they are"), "{errors}");
    assert!(!image.has_word());
}

#[test]
fn a_machine_with_packages_refers_to_them() {
    let site = Site::start("update-none", &[("listener.yaml", plain_listener(free_ports(1)))]);
    let socket = site.folder.join("site/state/control.sock");
    let file = site.folder.write("host.update", bundle(Kind::System, "host", 8, MEBIBYTE));
    for arguments in [vec!["update", text(&file)], vec!["update"]] {
        let (code, _, errors) = told(&[&arguments[..], &["--control", text(&socket)]].concat());
        assert_eq!(code, 1, "{errors}");
        assert!(errors.contains("package manager (501)"), "{errors}");
    }
}
