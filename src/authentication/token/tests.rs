//! Tokens made on the spot, good and bad, against the verifier; key sets likewise.

use super::*;
use crate::authentication::key_set::{KEY_SET_BYTES_MAX, KEYS_MAX, KeySetFault};
use base64ct::{Base64UrlUnpadded, Encoding as _};
use p256::ecdsa::signature::{SignatureEncoding as _, Signer as _};
use rsa::sha2::Sha256;
use rsa::traits::PublicKeyParts as _;
use rsa::{BigUint, RsaPrivateKey, pkcs1v15, pss};
use serde_json::{Value, json};

const NOW: UnixTime = UnixTime(1_800_000_000);
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const OTHER_ISSUER: &str = "https://other.example";
const AUDIENCE: &str = "aio-internal";

// An RSA key that is made for this test and used for nothing else: finding primes takes seconds.
const PRIME_P: &str = "\
    fcb6bfc34f5ddc4d581f3f455b58c64911d21f8d564125c71a149d40616e20f6\
    8efc196998610b545194405c24b909f7907dfd2ce2bad0712b89140d8fb0b904\
    2ef2d38901a6a9aa40e77f4d51f78794688f2725eb6a1ab44e38ce6a369feb91\
    5f44334c9d7a7eae199b5a4faf857e999e6924e656d232396017c5ef2cd9a561";
const PRIME_Q: &str = "\
    c1f5ef033e73138b4d6b66524a7fd55b406c005effa01124c33822004b1fe7d3\
    fb3bcda10a388c57c72b94e6a5f352a37952d47786e176bc552dbfe2bd47e9df\
    59f52b52bd74f7a7b83dc61027b90d9cc39af65628fd03449b7e1f226ddff196\
    f89f9c423f2739195a642e89c8f8487091422077019146ce80fa5b362b34e559";

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    Base64UrlUnpadded::encode_string(bytes.as_ref())
}

fn rsa_key() -> RsaPrivateKey {
    let prime = |digits: &str| BigUint::parse_bytes(digits.as_bytes(), 16).unwrap();
    RsaPrivateKey::from_p_q(prime(PRIME_P), prime(PRIME_Q), BigUint::from(65_537_u32)).unwrap()
}

fn p256_key(seed: u8) -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap()
}

fn p384_key() -> p384::ecdsa::SigningKey {
    p384::ecdsa::SigningKey::from_slice(&[7; 48]).unwrap()
}

fn ed25519_key() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[9; 32])
}

fn rsa_jwk(identifier: &str) -> Value {
    let key = rsa_key();
    let (n, e) = (base64url(key.n().to_bytes_be()), base64url(key.e().to_bytes_be()));
    json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": identifier, "n": n, "e": e})
}

fn p256_jwk(identifier: &str, seed: u8) -> Value {
    let point = p256_key(seed).verifying_key().to_encoded_point(false);
    let (x, y) = (base64url(point.x().unwrap()), base64url(point.y().unwrap()));
    json!({"kty": "EC", "crv": "P-256", "kid": identifier, "x": x, "y": y})
}

fn p384_jwk(identifier: &str) -> Value {
    let point = p384_key().verifying_key().to_encoded_point(false);
    let (x, y) = (base64url(point.x().unwrap()), base64url(point.y().unwrap()));
    json!({"kty": "EC", "crv": "P-384", "kid": identifier, "x": x, "y": y})
}

fn ed25519_jwk(identifier: &str) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "kid": identifier, "x": base64url(ed25519_key().verifying_key().as_bytes())})
}

fn parse(keys: &[Value]) -> Result<KeySet, KeySetFault> {
    KeySet::parse(&json!({ "keys": keys }).to_string())
}

/// The issuer has a key of each kind; another issuer has one of its own.
fn verifier() -> TokenVerifier {
    let keys = parse(&[rsa_jwk("rsa"), p256_jwk("p256", 1), p384_jwk("p384"), ed25519_jwk("ed25519")]).unwrap();
    let others = parse(&[p256_jwk("other", 2)]).unwrap();
    let issuers = vec![
        TokenIssuer { issuer: ISSUER.to_owned(), keys },
        TokenIssuer { issuer: OTHER_ISSUER.to_owned(), keys: others },
    ];
    TokenVerifier::new(issuers, vec!["something-else".to_owned(), AUDIENCE.to_owned()]).unwrap()
}

/// The claims that Kubernetes writes.
fn claims() -> Value {
    json!({
        "aud": [AUDIENCE],
        "exp": NOW.0 + 3_600,
        "iat": NOW.0,
        "iss": ISSUER,
        "jti": "6b2ca8fd-0b5b-4f0c-a0a4-0d7a3a1f2f11",
        "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": "mqtt-client", "uid": "1"}},
        "nbf": NOW.0,
        "sub": "system:serviceaccount:default:mqtt-client",
    })
}

/// The claims with one changed, or removed by null.
fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

fn assemble(header: &str, claims: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let message = format!("{}.{}", base64url(header), base64url(claims));
    let signature = base64url(sign(message.as_bytes()));
    format!("{message}.{signature}").into_bytes()
}

fn sign_rsa(message: &[u8]) -> Vec<u8> {
    pkcs1v15::SigningKey::<Sha256>::new(rsa_key()).sign(message).to_vec()
}

fn sign_p256(message: &[u8]) -> Vec<u8> {
    let signature: p256::ecdsa::Signature = p256_key(1).sign(message);
    signature.to_vec()
}

fn sign_p384(message: &[u8]) -> Vec<u8> {
    let signature: p384::ecdsa::Signature = p384_key().sign(message);
    signature.to_vec()
}

fn sign_ed25519(message: &[u8]) -> Vec<u8> {
    ed25519_key().sign(message).to_vec()
}

/// A token with the good header and the good P-256 key.
fn signed(claims: &Value) -> Vec<u8> {
    signed_text(&claims.to_string())
}

fn signed_text(claims: &str) -> Vec<u8> {
    assemble(r#"{"alg":"ES256","kid":"p256"}"#, claims, sign_p256)
}

/// A token with the good claims, another header, and a signature by the good P-256 key.
fn headed(header: &str) -> Vec<u8> {
    assemble(header, &claims().to_string(), sign_p256)
}

fn fault(token: &[u8]) -> TokenFault {
    verifier().verify(token, NOW).unwrap_err()
}

#[test]
fn a_token_of_each_algorithm_proves_its_service_account() {
    let claims = claims().to_string();
    for (header, sign) in [
        (r#"{"alg":"RS256","kid":"rsa"}"#, sign_rsa as fn(&[u8]) -> Vec<u8>),
        (r#"{"alg":"ES256","kid":"p256"}"#, sign_p256),
        (r#"{"alg":"ES384","kid":"p384","typ":"JWT"}"#, sign_p384),
        (r#"{"alg":"EdDSA","kid":"ed25519"}"#, sign_ed25519),
        (r#"{"alg":"RS256"}"#, sign_rsa),
        (r#"{"alg":"ES256"}"#, sign_p256),
    ] {
        let token = verifier().verify(&assemble(header, &claims, sign), NOW).expect(header);
        assert_eq!((token.account.namespace(), token.account.name()), ("default", "mqtt-client"));
        assert_eq!(token.account.subject(), "system:serviceaccount:default:mqtt-client");
        assert_eq!(token.expires, NOW.plus_seconds(3_600));
    }
}

#[test]
fn the_issuer_must_be_known_and_its_own_keys_count() {
    assert_eq!(fault(&signed(&claims_with("iss", json!("https://evil.example")))), TokenFault::Issuer);
    assert_eq!(fault(&signed(&claims_with("iss", Value::Null))), TokenFault::Issuer);
    assert_eq!(fault(&signed(&claims_with("iss", json!(format!("{ISSUER}/"))))), TokenFault::Issuer);
    let sign_other = |message: &[u8]| {
        let signature: p256::ecdsa::Signature = p256_key(2).sign(message);
        signature.to_vec()
    };
    // The key of the other issuer is as good as any, but not for this one.
    assert_eq!(
        fault(&assemble(r#"{"alg":"ES256","kid":"other"}"#, &claims().to_string(), sign_other)),
        TokenFault::UnknownKey
    );
    assert_eq!(fault(&assemble(r#"{"alg":"ES256"}"#, &claims().to_string(), sign_other)), TokenFault::Signature);
    let others = claims_with("iss", json!(OTHER_ISSUER)).to_string();
    assert!(verifier().verify(&assemble(r#"{"alg":"ES256","kid":"other"}"#, &others, sign_other), NOW).is_ok());
}

#[test]
fn one_of_the_audiences_must_be_accepted() {
    for good in [json!(AUDIENCE), json!(["x", AUDIENCE]), json!(["something-else"])] {
        assert!(verifier().verify(&signed(&claims_with("aud", good)), NOW).is_ok());
    }
    for bad in [Value::Null, json!("x"), json!([]), json!(["x", "y"]), json!("AIO-INTERNAL"), json!("")] {
        assert_eq!(fault(&signed(&claims_with("aud", bad.clone()))), TokenFault::Audience, "{bad}");
    }
    for malformed in [json!(1), json!([1]), json!({"a": 1}), json!([AUDIENCE, 1])] {
        assert_eq!(fault(&signed(&claims_with("aud", malformed.clone()))), TokenFault::Claims, "{malformed}");
    }
}

#[test]
fn the_end_is_needed_and_exact() {
    let with_end = |end: u64| verifier().verify(&signed(&claims_with("exp", json!(end))), NOW);
    assert_eq!(with_end(NOW.0 + 1).unwrap().expires, NOW.plus_seconds(1));
    assert_eq!(with_end(NOW.0), Err(TokenFault::Expired));
    assert_eq!(with_end(NOW.0 - 1), Err(TokenFault::Expired));
    assert_eq!(with_end(0), Err(TokenFault::Expired));
    assert_eq!(with_end(u64::MAX).unwrap().expires, UnixTime(u64::MAX));
    assert_eq!(fault(&signed(&claims_with("exp", Value::Null))), TokenFault::NoExpiry);
    for malformed in [json!("2030"), json!(-1), json!(1.9e9), json!([NOW.0 + 60])] {
        assert_eq!(fault(&signed(&claims_with("exp", malformed.clone()))), TokenFault::Claims, "{malformed}");
    }
}

#[test]
fn the_begin_may_be_a_minute_ahead() {
    for (name, later) in [("nbf", TokenFault::NotYetValid), ("iat", TokenFault::IssuedLater)] {
        let with_begin = |begin: Value| verifier().verify(&signed(&claims_with(name, begin)), NOW).map(|_| ());
        assert_eq!(with_begin(json!(NOW.0 + 60)), Ok(()));
        assert_eq!(with_begin(Value::Null), Ok(()));
        assert_eq!(with_begin(json!(NOW.0 + 61)), Err(later));
        assert_eq!(with_begin(json!(u64::MAX)), Err(later));
        assert_eq!(with_begin(json!("soon")), Err(TokenFault::Claims));
    }
}

#[test]
fn only_service_accounts_come_in() {
    for subject in [
        Value::Null,
        json!("admin"),
        json!("system:node:default:a"),
        json!("system:serviceaccount:default"),
        json!("system:serviceaccount:default:a:b"),
        json!("system:serviceaccount:Default:a"),
        json!("system:serviceaccount:default:a\n"),
    ] {
        assert_eq!(fault(&signed(&claims_with("sub", subject.clone()))), TokenFault::Subject, "{subject}");
    }
}

#[test]
fn an_unsigned_token_is_refused() {
    for algorithm in ["none", "None", "", "nOnE"] {
        let header = format!(r#"{{"alg":"{algorithm}"}}"#);
        assert_eq!(fault(&assemble(&header, &claims().to_string(), |_| Vec::new())), TokenFault::Header);
    }
    assert_eq!(fault(&headed(r#"{"kid":"p256"}"#)), TokenFault::Header);
    let token = String::from_utf8(signed(&claims())).unwrap();
    let (message, _) = token.rsplit_once('.').unwrap();
    assert_eq!(fault(format!("{message}.").as_bytes()), TokenFault::Signature);
    assert_eq!(fault(message.as_bytes()), TokenFault::Header);
}

#[test]
fn a_public_key_is_no_secret() {
    use hmac::{Hmac, Mac as _};
    let der = rsa::pkcs1::EncodeRsaPublicKey::to_pkcs1_der(&rsa_key().to_public_key()).unwrap();
    let sign = |message: &[u8]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(der.as_bytes()).unwrap();
        mac.update(message);
        mac.finalize().into_bytes().to_vec()
    };
    for header in [r#"{"alg":"HS256","kid":"rsa"}"#, r#"{"alg":"HS256"}"#, r#"{"alg":"HS384"}"#, r#"{"alg":"HS512"}"#] {
        assert_eq!(fault(&assemble(header, &claims().to_string(), sign)), TokenFault::Algorithm);
    }
}

#[test]
fn the_algorithm_follows_from_the_key() {
    assert_eq!(fault(&headed(r#"{"alg":"RS256","kid":"p256"}"#)), TokenFault::KeyAlgorithm);
    assert_eq!(fault(&headed(r#"{"alg":"ES384","kid":"p256"}"#)), TokenFault::KeyAlgorithm);
    assert_eq!(fault(&headed(r#"{"alg":"ES256","kid":"rsa"}"#)), TokenFault::KeyAlgorithm);
    assert_eq!(fault(&headed(r#"{"alg":"RS256"}"#)), TokenFault::Signature);
    for algorithm in ["RS384", "RS512", "PS256", "PS384", "PS512"] {
        assert_eq!(fault(&headed(&format!(r#"{{"alg":"{algorithm}","kid":"rsa"}}"#))), TokenFault::Algorithm);
    }
    assert_eq!(fault(&headed(r#"{"alg":"ES512","kid":"p256"}"#)), TokenFault::Header);
    // A PSS signature by the right RSA key, under the name of the other padding.
    let sign_pss = |message: &[u8]| {
        use rsa::signature::RandomizedSigner as _;
        let mut rng = rsa::rand_core::OsRng;
        pss::SigningKey::<Sha256>::new(rsa_key()).sign_with_rng(&mut rng, message).to_vec()
    };
    let token = assemble(r#"{"alg":"RS256","kid":"rsa"}"#, &claims().to_string(), sign_pss);
    assert_eq!(fault(&token), TokenFault::Signature);
}

#[test]
fn a_header_chooses_no_key_but_by_its_identifier() {
    assert_eq!(fault(&headed(r#"{"alg":"ES256","kid":"nobody"}"#)), TokenFault::UnknownKey);
    assert_eq!(fault(&headed(r#"{"alg":"ES256","kid":""}"#)), TokenFault::UnknownKey);
    assert_eq!(fault(&headed(r#"{"alg":"ES256","kid":7}"#)), TokenFault::Header);
    assert_eq!(fault(&headed(r#"{"alg":"ES256","kid":"p256","crit":["exp"]}"#)), TokenFault::Critical);
    // The key that came with the token made the signature. It is nobody's.
    let sign = |message: &[u8]| {
        let signature: p256::ecdsa::Signature = p256_key(3).sign(message);
        signature.to_vec()
    };
    let header = json!({"alg": "ES256", "jwk": p256_jwk("mine", 3), "jku": "https://evil.example"}).to_string();
    assert_eq!(fault(&assemble(&header, &claims().to_string(), sign)), TokenFault::Signature);
}

#[test]
fn a_signature_of_the_wrong_length_or_value_is_refused() {
    for length in [0, 1, 63, 65, 96, 256] {
        let token = assemble(r#"{"alg":"ES256","kid":"p256"}"#, &claims().to_string(), |message| {
            let mut signature = sign_p256(message);
            signature.resize(length, 0);
            signature
        });
        assert_eq!(fault(&token), TokenFault::Signature, "{length}");
    }
    for header in
        [r#"{"alg":"EdDSA","kid":"ed25519"}"#, r#"{"alg":"RS256","kid":"rsa"}"#, r#"{"alg":"ES384","kid":"p384"}"#]
    {
        for length in [0, 1, 64, 96, 256, 257] {
            assert_eq!(fault(&assemble(header, &claims().to_string(), |_| vec![0; length])), TokenFault::Signature);
        }
    }
    let der = assemble(r#"{"alg":"ES256","kid":"p256"}"#, &claims().to_string(), |message| {
        let signature: p256::ecdsa::Signature = p256_key(1).sign(message);
        signature.to_der().to_vec()
    });
    assert_eq!(fault(&der), TokenFault::Signature);
}

#[test]
fn another_payload_under_the_same_signature_is_refused() {
    let token = String::from_utf8(signed(&claims())).unwrap();
    let parts: Vec<_> = token.split('.').collect();
    let other = base64url(claims_with("sub", json!("system:serviceaccount:default:admin")).to_string());
    assert_eq!(fault(format!("{}.{other}.{}", parts[0], parts[2]).as_bytes()), TokenFault::Signature);
}

#[test]
fn a_token_beyond_the_limit_is_not_looked_at() {
    let padded = |bytes: usize| signed(&claims_with("padding", json!("x".repeat(bytes))));
    assert!(verifier().verify(&padded(8_000), NOW).is_ok());
    assert_eq!(fault(&padded(64 * 1024)), TokenFault::TooLarge);
    assert_eq!(fault(&vec![b'.'; TOKEN_BYTES_MAX + 1]), TokenFault::TooLarge);
    assert_eq!(fault(&vec![b'.'; TOKEN_BYTES_MAX]), TokenFault::Header);
}

#[test]
fn garbage_is_refused() {
    let good = String::from_utf8(signed(&claims())).unwrap();
    let parts: Vec<_> = good.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    for (token, expected) in [
        (String::new(), TokenFault::Header),
        ("..".to_owned(), TokenFault::Header),
        ("\u{0}".to_owned(), TokenFault::Header),
        (format!("{header}.{payload}.{signature}.{signature}"), TokenFault::Header),
        (format!("!!!.{payload}.{signature}"), TokenFault::Header),
        (format!("{header}=.{payload}.{signature}"), TokenFault::Header),
        (format!("{header}.!!!.{signature}"), TokenFault::Claims),
        (format!("{header}..{signature}"), TokenFault::Claims),
        (format!("{header}.{payload}.!!!"), TokenFault::Signature),
        (format!("{good}\n"), TokenFault::Signature),
        (format!(" {good}"), TokenFault::Header),
    ] {
        assert_eq!(fault(token.as_bytes()), expected, "{token}");
    }
    assert_eq!(fault(&[0xFF; 300]), TokenFault::Header);
    for claims in ["", "null", "[]", "7", "{", "{}x", "\u{feff}{}"] {
        assert_eq!(fault(&signed_text(claims)), TokenFault::Claims, "{claims}");
    }
    let not_text = assemble(r#"{"alg":"ES256","kid":"p256"}"#, "{\"iss\":\"\\ud800\"}", sign_p256);
    assert_eq!(fault(&not_text), TokenFault::Claims);
}

#[test]
fn deep_nesting_is_refused_without_recursion() {
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    assert_eq!(fault(&signed_text(&deep)), TokenFault::Claims);
    let text = claims().to_string();
    assert_eq!(fault(&signed_text(&text.replace(&format!("[\"{AUDIENCE}\"]"), &deep))), TokenFault::Claims);
    assert_eq!(fault(&headed(&deep)), TokenFault::Header);
    assert_eq!(fault(&headed(&format!(r#"{{"alg":"ES256","kid":"p256","x":{deep}}}"#))), TokenFault::Header);
    // A claim that nobody reads may be what it likes; it is skipped without a stack.
    assert!(verifier().verify(&signed_text(&text.replacen('{', &format!("{{\"x\":{deep},"), 1)), NOW).is_ok());
}

#[test]
fn a_claim_that_stands_twice_is_refused() {
    let text = claims().to_string();
    for again in [
        r#""sub":"system:serviceaccount:default:admin""#,
        r#""exp":9999999999"#,
        r#""aud":"aio-internal""#,
        r#""iss":"https://other.example""#,
    ] {
        assert_eq!(fault(&signed_text(&text.replacen('{', &format!("{{{again},"), 1))), TokenFault::Claims, "{again}");
    }
    assert_eq!(fault(&headed(r#"{"alg":"ES256","kid":"p256","alg":"ES256"}"#)), TokenFault::Header);
}

#[test]
fn a_token_without_identifier_is_tried_with_a_few_keys_only() {
    let with_keys = |count: u8| {
        let keys: Vec<_> = (1..=count).rev().map(|seed| p256_jwk(&seed.to_string(), seed)).collect();
        let issuer = TokenIssuer { issuer: ISSUER.to_owned(), keys: parse(&keys).unwrap() };
        TokenVerifier::new(vec![issuer], vec![AUDIENCE.to_owned()]).unwrap()
    };
    let nameless = headed(r#"{"alg":"ES256"}"#);
    assert!(with_keys(8).verify(&nameless, NOW).is_ok());
    assert_eq!(with_keys(9).verify(&nameless, NOW), Err(TokenFault::TooManyKeys));
    assert!(with_keys(9).verify(&headed(r#"{"alg":"ES256","kid":"1"}"#), NOW).is_ok());
}

#[test]
fn a_verifier_that_could_let_nobody_in_is_not_made() {
    let issuer = |name: &str| TokenIssuer { issuer: name.to_owned(), keys: parse(&[p256_jwk("a", 1)]).unwrap() };
    let audiences = || vec![AUDIENCE.to_owned()];
    let refused = |issuers, audiences| TokenVerifier::new(issuers, audiences).unwrap_err();
    assert_eq!(refused(vec![], audiences()), VerifierFault::NoIssuers);
    assert_eq!(
        refused(vec![issuer("a"), issuer("b"), issuer("a")], audiences()),
        VerifierFault::Issuer("a".to_owned())
    );
    assert_eq!(refused(vec![issuer("")], audiences()), VerifierFault::Issuer(String::new()));
    assert_eq!(refused(vec![issuer("a")], vec![]), VerifierFault::Audiences);
    assert_eq!(refused(vec![issuer("a")], vec![String::new()]), VerifierFault::Audiences);
}

#[test]
fn keys_for_other_purposes_are_left_out() {
    let with = |name: &str, value: Value| {
        let mut key = p256_jwk("a", 1);
        key[name] = value;
        key
    };
    for other in [
        with("use", json!("enc")),
        with("key_ops", json!(["sign"])),
        with("alg", json!("ES384")),
        with("alg", json!("HS256")),
        with("crv", json!("P-521")),
        with("crv", json!("secp256k1")),
        with("kty", json!("OKP")),
        with("kty", json!("AKP")),
        with("kty", json!("ec")),
    ] {
        assert_eq!(parse(std::slice::from_ref(&other)).unwrap_err(), KeySetFault::Empty, "{other}");
        assert_eq!(parse(&[other, p256_jwk("b", 1)]).unwrap().iter().count(), 1);
    }
    let good = [with("use", json!("sig")), with("key_ops", json!(["verify"])), with("alg", json!("ES256"))];
    assert_eq!(parse(&good).unwrap().iter().count(), 3);
    assert_eq!(parse(&[]).unwrap_err(), KeySetFault::Empty);
}

#[test]
fn a_key_that_must_not_be_there_is_named() {
    let secret = json!({"kty": "oct", "k": base64url([1; 32]), "alg": "HS256"});
    assert_eq!(parse(&[p256_jwk("a", 1), secret]).unwrap_err(), KeySetFault::Symmetric { index: 1 });
    let mut private = p256_jwk("a", 1);
    private["d"] = json!(base64url([1; 32]));
    assert_eq!(parse(&[private]).unwrap_err(), KeySetFault::Private { index: 0 });
}

#[test]
fn a_broken_key_is_named() {
    let with = |mut key: Value, name: &str, value: Value| {
        key[name] = value;
        key
    };
    let x = |key: &Value| Base64UrlUnpadded::decode_vec(key["x"].as_str().unwrap()).unwrap();
    let (p256, ed25519) = (p256_jwk("a", 1), ed25519_jwk("a"));
    let long = base64url([x(&p256), vec![0]].concat());
    let (point_x, point_y) = (x(&p256), p256["y"].as_str().unwrap());
    let shifted = [point_x, Base64UrlUnpadded::decode_vec(point_y).unwrap()].concat();
    for broken in [
        with(p256.clone(), "x", Value::Null),
        with(p256.clone(), "y", Value::Null),
        with(p256.clone(), "x", json!("!!!")),
        with(p256.clone(), "x", json!("")),
        with(p256.clone(), "x", json!(long)),
        with(p256.clone(), "y", p256["x"].clone()),
        with(with(p256.clone(), "x", json!(base64url(&shifted[..31]))), "y", json!(base64url(&shifted[31..]))),
        with(p256.clone(), "crv", json!("P-384")),
        with(ed25519.clone(), "x", json!(base64url([9; 31]))),
        with(ed25519.clone(), "x", json!(base64url([9; 33]))),
        with(ed25519.clone(), "x", json!("")),
        // The neutral element: any signature would do.
        with(ed25519, "x", json!(base64url([&[1][..], &[0; 31]].concat()))),
        with(rsa_jwk("a"), "n", Value::Null),
        with(rsa_jwk("a"), "e", json!("AQAB=")),
    ] {
        assert_eq!(parse(&[p256.clone(), broken.clone()]).unwrap_err(), KeySetFault::Key { index: 1 }, "{broken}");
    }
}

#[test]
fn rsa_keys_outside_of_the_bounds_are_refused() {
    let with_bits = |bits: usize| {
        let mut key = rsa_jwk("a");
        key["n"] = json!(base64url(vec![0xFF; bits / 8]));
        parse(&[key])
    };
    for bits in [512, 1_024, 2_040, 4_104, 8_192] {
        assert_eq!(with_bits(bits).unwrap_err(), KeySetFault::RsaBounds { index: 0 }, "{bits}");
    }
    for bits in [2_048, 3_072, 4_096] {
        assert!(with_bits(bits).is_ok(), "{bits}");
    }
    let mut key = rsa_jwk("a");
    key["e"] = json!("Aw");
    assert_eq!(parse(&[key]).unwrap_err(), KeySetFault::RsaBounds { index: 0 });
}

#[test]
fn a_key_set_is_bounded_and_well_formed() {
    let keys = |count: usize| vec![p256_jwk("a", 1); count];
    assert_eq!(parse(&keys(KEYS_MAX)).unwrap().iter().count(), KEYS_MAX);
    assert_eq!(parse(&keys(KEYS_MAX + 1)).unwrap_err(), KeySetFault::TooManyKeys);
    assert_eq!(KeySet::parse(&" ".repeat(KEY_SET_BYTES_MAX + 1)).unwrap_err(), KeySetFault::TooLarge);
    for text in ["", "{}", "[]", "{\"keys\":{}}", "{\"keys\":[7]}", "{\"keys\":[{}]}", "{\"keys\":[],\"keys\":[]}"] {
        assert!(matches!(KeySet::parse(text).unwrap_err(), KeySetFault::Malformed { line: 1 | 0, .. }), "{text}");
    }
    let twice = p256_jwk("a", 1).to_string().replacen('{', "{\"x\":\"\",", 1);
    let fault = KeySet::parse(&format!("{{\n\"keys\": [{twice}]}}")).unwrap_err();
    assert!(fault.to_string().starts_with("line 2, column "), "{fault}");
}
