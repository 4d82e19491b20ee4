//! Headers there and back, and everything that is none.

use super::*;
use ed25519_dalek::SigningKey;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn manifest() -> Manifest {
    Manifest {
        kind: Kind::System,
        board: "rpi3".to_owned(),
        version: 8,
        release: "0.1.0 (autumn)".to_owned(),
        bytes: 19_234_816,
        digest: [0xA5; 32],
    }
}

fn written() -> String {
    signed_header(&manifest(), &key()).unwrap()
}

#[test]
fn what_was_signed_is_read_and_verified() {
    let payload = b"\n\npayload";
    let bundle = [written().as_bytes(), payload].concat();
    let header = Header::parse(&bundle).unwrap();
    assert_eq!(*header.manifest(), manifest());
    assert_eq!(&bundle[header.length()..], payload);
    assert_eq!(header.verify(&key().verifying_key().to_bytes()), Ok(()));
}

#[test]
fn a_header_with_any_bit_changed_is_refused() {
    let good = written().into_bytes();
    let trusted = key().verifying_key().to_bytes();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut changed = good.clone();
            changed[at] ^= 1 << bit;
            let verified = Header::parse(&changed).and_then(|header| header.verify(&trusted));
            assert!(verified.is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn a_header_cut_anywhere_is_refused() {
    let good = written();
    for length in 0..good.len() {
        assert!(Header::parse(&good.as_bytes()[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_key_of_somebody_else_verifies_nothing() {
    let header = Header::parse(written().as_bytes()).unwrap();
    assert_eq!(header.verify(&SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes()), Err(Fault::Signature));
    // The neutral point: with it, signatures exist that are good for any message.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    assert_eq!(header.verify(&neutral), Err(Fault::Signature));
}

#[test]
fn one_manifest_has_one_spelling() {
    let good = written();
    for (from, to, fault) in [
        ("kind=system", "kind=kernel", Fault::Field("kind")),
        ("version=8", "version=08", Fault::Field("version")),
        ("version=8", "version=+8", Fault::Field("version")),
        ("version=8", "version=18446744073709551616", Fault::Field("version")),
        ("board=rpi3", "board=", Fault::Field("board")),
        ("board=rpi3", "board=../rpi3", Fault::Field("board")),
        ("board=rpi3\n", "", Fault::Field("board")),
        ("board=rpi3\n", "board=rpi3\nboard=rpi4\n", Fault::Field("version")),
        ("a5a5", "A5A5", Fault::Field("sha256")),
        ("(autumn)", "\u{1b}[31m", Fault::Field("release")),
        ("sha256", "sha512", Fault::Field("sha256")),
        ("\nsignature=", "\nsignature=0", Fault::Field("signature")),
        ("portcullis-update 1", "portcullis-update 2", Fault::NotABundle),
    ] {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good);
        assert_eq!(Header::parse(changed.as_bytes()), Err(fault), "{from} -> {to}");
    }
    let trailing = good.trim_end().to_owned() + "\nnote=x\n\n";
    assert_eq!(Header::parse(trailing.as_bytes()), Err(Fault::Field("signature")));
    let endless = good.trim_end().to_owned() + &"x".repeat(HEADER_BYTES_MAX);
    assert_eq!(Header::parse(endless.as_bytes()), Err(Fault::NoEnd));
    assert_eq!(Header::parse(b""), Err(Fault::NotABundle));
}

#[test]
fn what_no_reader_takes_is_not_written() {
    for (manifest, field) in [
        (Manifest { board: "a b".to_owned(), ..manifest() }, "board"),
        (Manifest { release: "\n".to_owned(), ..manifest() }, "release"),
        (Manifest { release: "x".repeat(RELEASE_BYTES_MAX + 1), ..manifest() }, "release"),
    ] {
        assert_eq!(signed_header(&manifest, &key()), Err(Fault::Field(field)));
    }
}

#[test]
fn the_longest_header_fits() {
    let longest = Manifest {
        kind: Kind::Configuration,
        board: "b".repeat(32),
        version: u64::MAX,
        release: "r".repeat(RELEASE_BYTES_MAX),
        bytes: u64::MAX,
        digest: [0xFF; 32],
    };
    let written = signed_header(&longest, &key()).unwrap();
    assert!(written.len() <= HEADER_BYTES_MAX);
    assert_eq!(*Header::parse(written.as_bytes()).unwrap().manifest(), longest);
}
