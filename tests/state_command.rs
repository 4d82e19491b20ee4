//! `portcullis state`: what it says of a folder, what it leaves alone, and that compacting keeps everything.
//!
//! `tests/golden/state-N` is a folder of format N and what must be read from it. `PORTCULLIS_BLESS=1 cargo test --test
//! state_command` writes that of today's format.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod simulated_disk;
mod state_folder;
mod support;

use portcullis::store::{self, FORMAT};
use simulated_disk::{Files, SimulatedDisk};
use std::fs;
use std::path::Path;
use support::{Folder, run};

/// A folder with the files of a sample, or with others.
fn folder(name: &str, files: &Files) -> Folder {
    let folder = Folder::new(name);
    for (name, bytes) in files {
        folder.write(name, bytes);
    }
    folder
}

fn sample() -> Files {
    state_folder::write(SimulatedDisk::new(Files::new())).files()
}

fn files_of(path: &Path) -> Files {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let file = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    entries.map(file).collect()
}

/// Exit code, output, errors.
fn state(arguments: &[&str]) -> (i32, String, String) {
    let output = run(&[&["state"], arguments].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn export(folder: &str) -> String {
    let (code, output, errors) = state(&["export", folder]);
    assert_eq!((code, errors.as_str()), (0, ""));
    output
}

fn segments(folder: &str) -> u64 {
    let (_, output, _) = state(&["inspect", folder, "--json"]);
    serde_json::from_str::<serde_json::Value>(&output).unwrap()["segments"].as_u64().unwrap()
}

#[test]
fn inspect_shows_sessions_and_what_waits_for_them() {
    let folder = folder("state-inspect", &sample());
    let (code, output, errors) = state(&["inspect", &folder.text()]);
    assert_eq!((code, errors.as_str()), (0, ""));
    for part in [
        "format 1: ",
        "in 2 segments",
        "written until 2026-12-01T00:01:49Z by a clock that was not set",
        "sessions: 3",
        "  thermostat: away, ends in 7200 s; 1 subscriptions, 1 queued, 2 in flight, a will",
        "  away: away, ends in 3586 s; 1 subscriptions, 1 queued, 1 in flight",
        "  red\\u{1b}[31m\\u{202e}: away, never ends; 0 subscriptions, 0 queued, 0 in flight",
    ] {
        assert!(output.contains(part), "{part:?} in\n{output}");
    }
    let (code, output, _) = state(&["inspect", &folder.text(), "--json"]);
    let document: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(code, 0);
    assert_eq!(document["sessions"][0]["client"], "thermostat");
    assert_eq!(document["sessions"][0]["inFlight"], 2);
    assert_eq!(document["sessions"][2]["client"], "red\u{1b}[31m\u{202e}");
    assert!(output.is_ascii() && !output.contains('\u{1b}') && export(&folder.text()).is_ascii());
    assert_eq!(document["clock"]["trusted"], false);
    assert_eq!((&document["intact"], &document["retained"]), (&true.into(), &1.into()));
}

#[test]
fn verify_names_each_damaged_place_and_ends_with_1() {
    let mut files = sample();
    let whole = folder("state-verify-whole", &files);
    let (code, output, _) = state(&["verify", &whole.text()]);
    assert!(code == 0 && output.starts_with("intact: "), "{output}");

    let segment = files.values_mut().next().unwrap();
    let place = segment.windows(11).position(|bytes| bytes == b"telemetry/b").unwrap();
    segment[place] ^= 1;
    let damaged = folder("state-verify-damaged", &files);
    let (code, output, errors) = state(&["verify", &damaged.text()]);
    assert_eq!((code, errors.as_str()), (1, ""));
    assert!(output.contains("damaged: 1 records do not read\n  segment 0000000000000001, offset "), "{output}");
    let (code, output, _) = state(&["verify", &damaged.text(), "--json"]);
    let document: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!((code, &document["damages"][0]["count"]), (1, &1.into()));
    let (code, _, errors) = state(&["export", &damaged.text()]);
    assert_eq!((code, errors.as_str()), (0, "warning: 1 records do not read; `verify` names them\n"));
}

#[test]
fn compacting_keeps_everything_live_with_its_remaining_time_and_frees_the_rest() {
    let folder = folder("state-compact", &sample());
    let before = export(&folder.text());
    assert!(before.contains("\"endsInMilliseconds\":7200000") && before.contains("\"dueInMilliseconds\":30000"));
    assert_eq!(segments(&folder.text()), 2);
    for _ in 0..3 {
        let (code, output, errors) = state(&["compact", &folder.text()]);
        assert_eq!((code, errors.as_str()), (0, ""));
        assert!(output.contains(" in 1 now"), "{output}");
        assert_eq!(export(&folder.text()), before);
        assert_eq!(segments(&folder.text()), 1);
    }
}

#[test]
fn compacting_many_messages_takes_several_batches_and_segments() {
    use portcullis::store::record::{Identifiers, Message, Receiver};
    use portcullis::store::{Journal, Record, Urgency, recover};
    use portcullis::time::Instant;
    let disk = state_folder::write(SimulatedDisk::new(Files::new()));
    let mut recovered = recover(disk.clone(), state_folder::SIZES).unwrap();
    let mut journal = Journal::new(200_000, 0, recovered.last);
    for id in (1_000..1_080).step_by(2) {
        let message = Message { id, topic_bytes: 1, property_bytes: 0, expires: None };
        let receiver = Receiver { session: 1, delivery: id + 1, flags: 1, identifiers: Identifiers::default() };
        let record = Record::Published { message, retained: None, received: None, receivers: 1 };
        journal.append_with(&record, Urgency::Soon, |body| {
            body.put_receiver(&receiver)?;
            body.put_zeros(50_000)?.fill(b'x');
            Ok(())
        });
        let batch = journal.next_batch(Instant::ZERO).unwrap();
        recovered.log.write(&batch).unwrap();
        journal.written(batch);
    }
    let folder = folder("state-compact-many", &disk.files());
    let before = export(&folder.text());
    assert!(before.lines().count() > 80);
    assert_eq!(state(&["compact", &folder.text()]).0, 0);
    assert_eq!(export(&folder.text()), before);
    assert!(segments(&folder.text()) >= 2);
}

#[test]
fn what_only_reads_changes_nothing_and_makes_no_lock() {
    let mut files = sample();
    // An end that was never finished, which a broker would cut off.
    let end = files.values_mut().next_back().unwrap();
    let written = end.iter().rposition(|byte| *byte != 0).unwrap();
    end[written] ^= 1;
    let folder = folder("state-unchanged", &files);
    for arguments in [["inspect", "--json"], ["verify", "--json"], ["export", "--log=info"]] {
        assert_eq!(state(&[arguments[0], &folder.text(), arguments[1]]).0, 0, "{arguments:?}");
    }
    assert!(files_of(folder.path()) == files);
    let copy = Folder::new("state-export");
    let file = copy.join("export.jsonl");
    assert_eq!(state(&["export", &folder.text(), "--output", file.to_str().unwrap()]).0, 0);
    assert_eq!(fs::read_to_string(file).unwrap(), export(&folder.text()));
}

#[test]
fn a_folder_that_a_broker_uses_is_refused() {
    let folder = folder("state-in-use", &sample());
    let broker = store::Folder::take(folder.path()).unwrap();
    for action in ["inspect", "verify", "export", "compact"] {
        let (code, output, errors) = state(&[action, &folder.text()]);
        assert_eq!((code, output.as_str()), (4, ""), "{action}");
        assert!(errors.ends_with(" is in use by a running broker\n"), "{errors}");
    }
    drop(broker);
}

#[test]
fn a_mistyped_folder_is_not_made_and_another_one_left_alone() {
    let folder = Folder::new("state-mistyped");
    let missing = folder.join("sate");
    let other = folder.write("other/letter.txt", "dear");
    for action in ["inspect", "verify", "export", "compact"] {
        let (code, _, errors) = state(&[action, missing.to_str().unwrap()]);
        assert!(code == 4 && errors.contains("No such file or directory"), "{action}: {errors}");
        let (code, _, errors) = state(&[action, other.parent().unwrap().to_str().unwrap()]);
        assert!(code == 4 && errors.contains("is no state folder: it holds no log"), "{action}: {errors}");
    }
    assert!(!missing.exists());
    assert_eq!(fs::read_dir(other.parent().unwrap()).unwrap().count(), 1);
    assert_eq!(state(&["defrag", "x"]).0, 2);
}

fn golden(format: u16) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/state-{format}"))
}

#[test]
fn every_format_since_the_first_is_read_exactly() {
    if std::env::var_os("PORTCULLIS_BLESS").is_some() {
        bless();
    }
    for format in 1..=FORMAT {
        let golden = golden(format);
        let expected = fs::read_to_string(golden.join("export.jsonl")).unwrap();
        assert_eq!(export(golden.to_str().unwrap()), expected, "format {format}");
        assert_eq!(state(&["verify", golden.to_str().unwrap()]).0, 0);
    }
}

/// Writes the folder of today's format: segments only, without the room behind their records.
fn bless() {
    let golden = golden(FORMAT);
    let _ = fs::remove_dir_all(&golden);
    fs::create_dir_all(&golden).unwrap();
    for (name, mut bytes) in sample().into_iter().filter(|(name, _)| name.ends_with(".log")) {
        let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(written.next_multiple_of(512));
        fs::write(golden.join(name), bytes).unwrap();
    }
    fs::write(golden.join("export.jsonl"), export(golden.to_str().unwrap())).unwrap();
}

#[test]
fn a_newer_format_is_refused_with_the_way_out() {
    let mut files = sample();
    let segment = files.values_mut().next().unwrap();
    segment[8] += 1;
    let checksum = crc32c::crc32c(&segment[..24]);
    segment[24..28].copy_from_slice(&checksum.to_le_bytes());
    let folder = folder("state-newer", &files);
    for action in ["inspect", "verify", "export", "compact"] {
        let (code, output, errors) = state(&[action, &folder.text()]);
        assert_eq!((code, output.as_str()), (4, ""));
        assert!(
            errors.contains("is of format 2, which this version does not know: start the version that"),
            "{errors}"
        );
    }
    let kept: Files = files_of(folder.path()).into_iter().filter(|(name, _)| name != "lock").collect();
    assert!(kept == files);
}
