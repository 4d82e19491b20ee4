//! Files of passwords, good and bad.

use super::*;
use crate::limits::{ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX};

/// PHC strings that the vendor published with its preview documentation and its sample server, and their passwords.
const PUBLISHED: [(&str, &str); 4] = [
    (
        "password",
        "$pbkdf2-sha512$i=100000,l=64$HqJwOCHweNk1pLryiu3RsA$KVSvxKYcibIG5S5n55RvxKRTdAAfCUtBJoy5IuFzdSZyzkwvUcU\
         +FPawEWFPn+06JyZsndfRTfpiEh+2eSJLkg",
    ),
    (
        "password2",
        "$pbkdf2-sha512$i=100000,l=64$+H7jXzcEbq2kkyvpxtxePQ$jTzW6fSesiuNRLMIkDDAzBEILk7iyyDZ3rjlEwQap4UJP4TaCR\
         +EXQXNukO7qNJWlPPP8leNnJDCBgX/255Ezw",
    ),
    (
        "password1",
        "$pbkdf2-sha512$i=100000,l=64$EnyzbHpiNqeTeM9Gl3rjWQ$Qc3MqYZ3Q49kz3Uh1Ia4A5UMDMlhxujgNjNYgpgVDDaiq13DP5IEM\
         7gA7MbsU70RTGn5qHU9uis79LkLV5wkAg",
    ),
    (
        "TestPassword",
        "$pbkdf2-sha512$i=210000,l=64$4SnaHtmi7m++00fXNHMTOQ$rPT8BWv7IszPDtpj7gFC40RhhPuP66GJHIpL5G7SYvw\
         +8rFrybyRGDy+PVBYClmdHQGEoy0dvV+ytFTKoYSS4A",
    ),
];

/// Made with the reference implementation in C, through argon2-cffi.
const ARGON2: (&str, &str) = (
    "reference password",
    "$argon2id$v=19$m=1024,t=2,p=4$AAECAwQFBgcICQoLDA0ODw$hnJDo/KqYAeDJfulxrRYl1nCWOAbf0qXIzQw8/5iBBQ",
);

const SALT: &str = "AAAAAAAAAAAAAAAAAAAAAA";
const HASH: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A file with the field `password` of the user `a`.
fn with_password(password: &str) -> String {
    format!("[a]\npassword = {password}\n")
}

/// A file whose user `a` has the PHC string `phc`.
fn with_phc(phc: &str) -> String {
    with_password(&format!("\"{phc}\""))
}

/// The cheapest hash that is allowed.
fn cheap() -> String {
    format!("$pbkdf2-sha512$i=1000${SALT}${HASH}")
}

fn fault(text: &str) -> PasswordsFault {
    Passwords::parse(text).unwrap_err()
}

fn hash_fault(phc: &str) -> HashFault {
    match fault(&with_phc(phc)).kind {
        PasswordsFaultKind::Hash(fault) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_published_hashes_verify() {
    for (password, phc) in PUBLISHED {
        let passwords = Passwords::parse(&with_phc(phc)).unwrap();
        assert_eq!(passwords.find("a").verify(password.as_bytes()), Ok(Attributes::new()));
        assert_eq!(passwords.find("a").verify(b"Password"), Err(PasswordRefusal::Wrong));
        assert_eq!(passwords.find("a").verify(b""), Err(PasswordRefusal::Wrong));
    }
}

#[test]
fn argon2id_of_the_reference_implementation_verifies() {
    let passwords = Passwords::parse(&with_phc(ARGON2.1)).unwrap();
    assert_eq!(passwords.find("a").verify(ARGON2.0.as_bytes()), Ok(Attributes::new()));
    assert_eq!(passwords.find("a").verify(b"Password"), Err(PasswordRefusal::Wrong));
}

#[test]
fn the_vendors_file_is_read_with_its_attributes() {
    let text = format!(
        "# a comment\n[client1]\npassword = \"{}\"   # \"password\"\n[client1.attributes]\nfloor = \"floor1\"\n\
         site = \"site1\"\n\n[client2]\npassword = \"{}\"\nattributes = {{ floor = \"floor2\" }}\n",
        PUBLISHED[0].1, PUBLISHED[1].1
    );
    let passwords = Passwords::parse(&text).unwrap();
    assert_eq!(passwords.len(), 2);
    let attributes = passwords.find("client1").verify(b"password").unwrap();
    assert_eq!(attributes.iter().collect::<Vec<_>>(), [("floor", "floor1"), ("site", "site1")]);
    let attributes = passwords.find("client2").verify(b"password2").unwrap();
    assert_eq!(attributes.iter().collect::<Vec<_>>(), [("floor", "floor2")]);
    assert_eq!(passwords.find("client2").verify(b"password"), Err(PasswordRefusal::Wrong));
    assert_eq!(passwords.find("Client1").verify(b"password"), Err(PasswordRefusal::Wrong));
}

#[test]
fn new_hashes_verify_and_keep_their_form() {
    for (algorithm, begin) in [
        (PasswordAlgorithm::Argon2id, "$argon2id$v=19$m=19456,t=2,p=1$AQEBAQEBAQEBAQEBAQEBAQ$"),
        (PasswordAlgorithm::Pbkdf2Sha512, "$pbkdf2-sha512$i=210000,l=64$AQEBAQEBAQEBAQEBAQEBAQ$"),
    ] {
        let phc = hash_password(b"caf\xE9", algorithm, &[1; 16]).unwrap();
        assert!(phc.starts_with(begin), "{phc}");
        let passwords = Passwords::parse(&with_phc(&phc)).unwrap();
        assert_eq!(passwords.find("a").verify(b"caf\xE9"), Ok(Attributes::new()));
        assert_eq!(passwords.find("a").verify(b"caf\xE8"), Err(PasswordRefusal::Wrong));
    }
}

#[test]
fn an_unknown_user_is_checked_like_the_majority_and_never_let_in() {
    let user = |name: &str, phc: &str| format!("[{name}]\npassword = \"{phc}\"\n");
    let argon2 = |passes| format!("$argon2id$v=19$m=8,t={passes},p=1${SALT}${HASH}");
    let text = user("a", &argon2(1)) + &user("b", PUBLISHED[0].1) + &user("c", PUBLISHED[1].1) + &user("d", &argon2(2));
    let passwords = Passwords::parse(&text).unwrap();
    let unknown = passwords.find("nobody");
    let (decoy, known) = (unknown.hash.clone().unwrap(), passwords.find("b").hash.unwrap());
    assert_eq!(decoy.cost, Cost::Pbkdf2Sha512 { iterations: 100_000 });
    assert_eq!((decoy.salt.len(), decoy.output.len()), (known.salt.len(), known.output.len()));
    // Not even with the password of the user whose hash it is.
    assert_eq!(unknown.clone().verify(b"password"), Err(PasswordRefusal::Wrong));
    assert_eq!(unknown.verify(b"password2"), Err(PasswordRefusal::Wrong));
}

#[test]
fn a_file_without_users_lets_nobody_in() {
    for text in ["", "# nobody yet\n"] {
        let passwords = Passwords::parse(text).unwrap();
        assert!(passwords.is_empty());
        assert_eq!(passwords.find("").verify(b""), Err(PasswordRefusal::Wrong));
    }
}

#[test]
fn a_credential_goes_to_another_thread() {
    let credential = Passwords::parse(&with_phc(PUBLISHED[0].1)).unwrap().find("a");
    let verdict = std::thread::spawn(move || credential.verify(b"password")).join().unwrap();
    assert_eq!(verdict, Ok(Attributes::new()));
}

#[test]
fn a_mistake_is_shown_with_place_and_user_and_without_hash() {
    let cheap = cheap();
    for (text, shown) in [
        (format!("{}\n{}", with_phc(&cheap), with_phc(&cheap)), "line 4, column 2: this is not TOML: duplicate key"),
        (format!("{}password = \"\"", with_phc(&cheap)), "line 3, column 1: this is not TOML: duplicate key"),
        ("[a]\npassword = ".to_owned(), "line 2, column 12: this is not TOML: "),
        ("[a\n".to_owned(), "line 1, column 3: this is not TOML: "),
        ("a = 1\n".to_owned(), "line 1, column 1: user 'a': not a table"),
        ("[[a]]\n".to_owned(), "line 1, column 3: user 'a': not a table"),
        ("[a]\n".to_owned(), "line 1, column 2: user 'a': no password"),
        ("[a.attributes]\nx = \"\"".to_owned(), "line 1, column 2: user 'a': no password"),
        (
            format!("{}pasword = \"{cheap}\"", with_phc(&cheap)),
            "line 3, column 1: user 'a': unknown field 'pasword'; there are password and attributes",
        ),
        (format!("[a.b]\npassword = \"{cheap}\""), "line 1, column 4: user 'a': unknown field 'b'"),
        (with_password("7"), "line 2, column 12: user 'a': the password is not a string"),
        (with_password("[\"x\"]"), "line 2, column 12: user 'a': the password is not a string"),
        (with_password("\"secret\""), "line 2, column 12: user 'a': the password is not a PHC string"),
        (
            format!("{}attributes = \"x\"", with_phc(&cheap)),
            "line 3, column 14: user 'a': the attributes are not a table",
        ),
        (
            format!("{}attributes = {{ '\u{e4}' = 'y', floor = 7 }}", with_phc(&cheap)),
            "line 3, column 35: user 'a': attribute 'floor' is not a string",
        ),
        (
            format!("{}[a.attributes]\nfloor = [\"1\"]", with_phc(&cheap)),
            "line 4, column 9: user 'a': attribute 'floor' is not a string",
        ),
        (format!("[\"\"]\npassword = \"{cheap}\""), "line 1, column 2: user '': a name has between 1 and 256 bytes"),
        (format!("[{}]\n", "a".repeat(257)), "line 1, column 2: user 'aaa"),
        (
            format!("[\"a\\u001B[2J\"]\npassword = \"{cheap}!\"\n"),
            "line 2, column 12: user 'a\\u{1b}[2J': the password is not a PHC string",
        ),
    ] {
        let fault = fault(&text);
        for message in [fault.to_string(), format!("{fault:?}")] {
            assert!(!message.contains("AAAA") && !message.contains("secret"), "{message}");
        }
        assert!(fault.to_string().starts_with(shown), "{text}\n{fault}");
    }
    let passwords = Passwords::parse(&with_phc(PUBLISHED[0].1)).unwrap();
    let shown = format!("{passwords:?} {:?}", passwords.find("a"));
    assert!(!shown.contains("HqJw") && !shown.contains("KVSv"), "{shown}");
}

#[test]
fn attributes_that_do_not_fit_are_refused() {
    let with_attributes = |lines: String| fault(&format!("{}[a.attributes]\n{lines}", with_phc(&cheap())));
    let many: String = (0..=ATTRIBUTES_MAX).map(|index| format!("n{index} = \"\"\n")).collect();
    assert_eq!(with_attributes(many).kind, PasswordsFaultKind::AttributesFull);
    let long = format!("n = \"{}\"\n", "x".repeat(ATTRIBUTE_BYTES_MAX));
    let fault = with_attributes(long);
    assert_eq!((fault.line, fault.user.as_deref()), (4, Some("a")));
    assert_eq!(fault.kind, PasswordsFaultKind::AttributesFull);
}

#[test]
fn what_is_not_a_hash_is_refused() {
    for (phc, expected) in [
        ("", HashFault::Malformed),
        ("$", HashFault::Malformed),
        ("password", HashFault::Malformed),
        ("$pbkdf2-sha512$i=1000", HashFault::Malformed),
        ("$pbkdf2-sha512$i=1000$AAAAAAAAAAAAAAAAAAAAAA", HashFault::Malformed),
        ("$pbkdf2-sha512$i=1000$AAAAAAAAAAAAAAAAAAAAAA$", HashFault::Malformed),
        ("$pbkdf2-sha512$i=1000$AAAAAAAAAAAAAAAAAAAAAA$A!AAAAAAAAAAAAAAAAAAAAAAAAAA", HashFault::Malformed),
        ("$pbkdf2-sha512$i=1000$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAA==", HashFault::Malformed),
        ("$2b$12$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234", HashFault::Malformed),
        ("$pbkdf2-sha512$i=1000$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAA", HashFault::Short),
        ("$pbkdf2-sha512$i=1000$AAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", HashFault::Short),
    ] {
        assert_eq!(hash_fault(phc), expected, "{phc}");
    }
    let long = format!("$pbkdf2-sha512$i=1000${SALT}${}", "A".repeat(88));
    assert_eq!(hash_fault(&long), HashFault::Malformed, "a hash has 64 bytes at most");
}

#[test]
fn other_algorithms_are_refused() {
    for begin in [
        "pbkdf2-sha256$i=100000",
        "pbkdf2$i=100000",
        "argon2i$v=19$m=8,t=1,p=1",
        "argon2d$v=19$m=8,t=1,p=1",
        "argon2id$v=16$m=8,t=1,p=1",
        "argon2id$m=8,t=1,p=1",
        "pbkdf2-sha512$v=1$i=1000",
        "scrypt$ln=16,r=8,p=1",
    ] {
        assert_eq!(hash_fault(&format!("${begin}${SALT}${HASH}")), HashFault::Algorithm, "{begin}");
    }
}

#[test]
fn what_a_hash_may_cost_is_bounded() {
    let pbkdf2 = |parameters: &str| Passwords::parse(&with_phc(&format!("$pbkdf2-sha512${parameters}${SALT}${HASH}")));
    let argon2 = |parameters: &str| Passwords::parse(&with_phc(&format!("$argon2id$v=19${parameters}${SALT}${HASH}")));
    let kind = |result: Result<Passwords, PasswordsFault>| match result.unwrap_err().kind {
        PasswordsFaultKind::Hash(fault) => fault,
        other => panic!("{other:?}"),
    };
    for iterations in ["0", "1", "999", "5000001", "1000000000", "4294967295"] {
        assert_eq!(kind(pbkdf2(&format!("i={iterations}"))), HashFault::Iterations, "{iterations}");
    }
    for parameters in ["l=32", "i=-1", "i=4294967296", "i=1000,l=64", "i=1000,x=1", "i=1000,l=32,data=AA", "i=x"] {
        assert_eq!(kind(pbkdf2(parameters)), HashFault::Parameters, "{parameters}");
    }
    // What stands twice is refused by us or by the parser, depending on what it is.
    for parameters in ["i=1000,i=2000", "i=1000,l=32,l=32"] {
        assert!(matches!(kind(pbkdf2(parameters)), HashFault::Parameters | HashFault::Malformed), "{parameters}");
    }
    for parameters in ["i=1000", "i=5000000", "i=1000,l=32"] {
        assert!(pbkdf2(parameters).is_ok(), "{parameters}");
    }
    for parameters in [
        "m=4194304,t=1,p=1",
        "m=65537,t=1,p=1",
        "m=7,t=1,p=1",
        "m=15,t=1,p=2",
        "m=0,t=1,p=1",
        "m=8,t=0,p=1",
        "m=8,t=17,p=1",
        "m=8,t=1,p=0",
        "m=65536,t=1,p=17",
        "m=4294967295,t=4294967295,p=4294967295",
    ] {
        assert_eq!(kind(argon2(parameters)), HashFault::Cost, "{parameters}");
    }
    for parameters in ["m=8,t=1", "t=1,p=1", "m=8,t=1,p=1,keyid=AA", "m=8,t=1,p=1,data=AAAA", "m=99999999999,t=1,p=1"] {
        assert_eq!(kind(argon2(parameters)), HashFault::Parameters, "{parameters}");
    }
    for parameters in ["m=8,t=1,p=1", "m=65536,t=16,p=16"] {
        assert!(argon2(parameters).is_ok(), "{parameters}");
    }
}

#[test]
fn a_file_is_bounded() {
    let users = |count: usize| (0..count).map(|index| format!("[u{index}]\npassword = \"{}\"\n", cheap())).collect();
    let text: String = users(USERS_MAX);
    assert_eq!(Passwords::parse(&text).unwrap().len(), USERS_MAX);
    let text: String = users(USERS_MAX + 1);
    assert_eq!(fault(&text).kind, PasswordsFaultKind::TooManyUsers);
    assert_eq!(fault(&"\n".repeat(PASSWORDS_BYTES_MAX + 1)).kind, PasswordsFaultKind::TooLarge);
    let deep = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(fault(&deep).kind, PasswordsFaultKind::Syntax(_)));
    let deep = format!("[{}a]", "a.".repeat(100_000));
    assert!(Passwords::parse(&deep).is_err());
}
