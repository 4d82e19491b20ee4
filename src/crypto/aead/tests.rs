//! Published vectors, and another implementation, against the AEADs.

use super::*;
use rustls::crypto::cipher::OutboundChunks;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Seals and opens a published vector; every flipped bit of text and tag must be noticed.
fn known_answer<C: RecordCipher>(key: &str, nonce: &str, associated: &str, text: &[u8], sealed: &str, tag: &str) {
    let cipher = C::new_from_slice(&hex(key)).unwrap();
    let (nonce, associated) = (hex(nonce).try_into().unwrap(), hex(associated));
    let mut buffer = text.to_vec();
    let computed = cipher.seal(Nonce(nonce), &associated, &mut buffer).unwrap();
    assert_eq!(buffer, hex(sealed));
    assert_eq!(computed.as_slice(), hex(tag));
    buffer.extend_from_slice(&computed);
    for at in 0..buffer.len() {
        let mut changed = buffer.clone();
        changed[at] ^= 1;
        assert_eq!(cipher.open(Nonce(nonce), &associated, &mut changed), Err(Error::DecryptError));
    }
    assert_eq!(cipher.open(Nonce(nonce), &associated, &mut buffer).unwrap(), text.len());
    assert_eq!(&buffer[..text.len()], text);
}

const GCM_TEXT: &str = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525\
                        b16aedf5aa0de657ba637b39";
const GCM_ASSOCIATED: &str = "feedfacedeadbeeffeedfacedeadbeefabaddad2";

#[test]
fn aes_128_gcm_answers_test_case_4_of_the_gcm_specification() {
    known_answer::<Aes128Gcm>(
        "feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        GCM_ASSOCIATED,
        &hex(GCM_TEXT),
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac\
         973d58e091",
        "5bc94fbc3221a5db94fae95ae7121a47",
    );
}

#[test]
fn aes_256_gcm_answers_test_case_16_of_the_gcm_specification() {
    known_answer::<Aes256Gcm>(
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        GCM_ASSOCIATED,
        &hex(GCM_TEXT),
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a\
         0abcc9f662",
        "76fc6ece0f4e1768cddf8853bb2d551b",
    );
}

#[test]
fn chacha20_poly1305_answers_rfc_8439_section_2_8_2() {
    known_answer::<ChaCha20Poly1305>(
        "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
        "070000004041424344454647",
        "50515253c0c1c2c3c4c5c6c7",
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would \
          be it.",
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b\
         2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586ce\
         c64b6116",
        "1ae10b594f09e26a7e902ecbd0600691",
    );
}

#[test]
fn aes_gcm_keys_are_renewed_after_2_to_the_24_records_where_the_published_crate_never_does() {
    let limit = |suite: SupportedCipherSuite| match suite {
        SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
        SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
    };
    assert_eq!(limit(rustls_rustcrypto::TLS13_AES_128_GCM_SHA256), u64::MAX, "mended: drop our override");
    for suites in [TLS13_SUITES, TLS12_SUITES] {
        assert_eq!(suites.map(limit), [1 << 24, 1 << 24, u64::MAX]);
    }
}

#[test]
fn extracted_keys_carry_the_name_of_their_cipher() {
    let key = || AeadKey::from([7; 32]);
    let [aes_128, aes_256, chacha20] = TLS13_SUITES.map(|suite| {
        let SupportedCipherSuite::Tls13(suite) = suite else { panic!("TLS 1.3") };
        suite.aead_alg.extract_keys(key(), Iv::from([1; 12])).unwrap()
    });
    assert!(matches!(aes_128, ConnectionTrafficSecrets::Aes128Gcm { .. }));
    assert!(matches!(aes_256, ConnectionTrafficSecrets::Aes256Gcm { .. }));
    assert!(matches!(chacha20, ConnectionTrafficSecrets::Chacha20Poly1305 { .. }));
    let [aes_128, aes_256, chacha20] = TLS12_SUITES.map(|suite| {
        let SupportedCipherSuite::Tls12(suite) = suite else { panic!("TLS 1.2") };
        let shape = suite.aead_alg.key_block_shape();
        let (iv, explicit) = (vec![1; shape.fixed_iv_len], vec![2; shape.explicit_nonce_len]);
        assert!(suite.aead_alg.extract_keys(key(), &[1; 3], &explicit).is_err());
        suite.aead_alg.extract_keys(key(), &iv, &explicit).unwrap()
    });
    match aes_128 {
        ConnectionTrafficSecrets::Aes128Gcm { iv, .. } => {
            assert_eq!(iv.as_ref(), [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2]);
        }
        _ => panic!("AES-128"),
    }
    assert!(matches!(aes_256, ConnectionTrafficSecrets::Aes256Gcm { .. }));
    assert!(matches!(chacha20, ConnectionTrafficSecrets::Chacha20Poly1305 { .. }));
}

/// Encrypter and decrypter of one suite.
type Pair = (Box<dyn MessageEncrypter>, Box<dyn MessageDecrypter>, ProtocolVersion);

/// Every suite with a key of 32 bytes; rustls makes shorter ones only in handshakes.
fn pairs() -> Vec<Pair> {
    let key = || AeadKey::from([9; 32]);
    let mut pairs: Vec<Pair> = Vec::new();
    for suite in [TLS13_SUITES[1], TLS13_SUITES[2], TLS12_SUITES[1], TLS12_SUITES[2]] {
        match suite {
            SupportedCipherSuite::Tls13(suite) => {
                let (iv, again) = (Iv::from([3; 12]), Iv::from([3; 12]));
                let algorithm = suite.aead_alg;
                let pair = (algorithm.encrypter(key(), iv), algorithm.decrypter(key(), again));
                pairs.push((pair.0, pair.1, ProtocolVersion::TLSv1_3));
            }
            SupportedCipherSuite::Tls12(suite) => {
                let shape = suite.aead_alg.key_block_shape();
                let (iv, extra) = (vec![3; shape.fixed_iv_len], vec![4; shape.explicit_nonce_len]);
                let encrypter = suite.aead_alg.encrypter(key(), &iv, &extra);
                pairs.push((encrypter, suite.aead_alg.decrypter(key(), &iv), ProtocolVersion::TLSv1_2));
            }
        }
    }
    pairs
}

fn plain(payload: &[u8]) -> OutboundPlainMessage<'_> {
    OutboundPlainMessage {
        typ: ContentType::ApplicationData,
        version: ProtocolVersion::TLSv1_2,
        payload: OutboundChunks::Single(payload),
    }
}

#[test]
fn records_of_every_length_come_back_and_none_is_longer_than_announced() {
    for (mut encrypter, mut decrypter, version) in pairs() {
        for (sequence, length) in [0, 1, 15, 16, 17, 255, 1_024, 16_384].into_iter().enumerate() {
            let text = vec![0x5a; length];
            let sequence = sequence as u64;
            let record = encrypter.encrypt(plain(&text), sequence).unwrap().encode();
            let mut body = record[5..].to_vec();
            assert_eq!(body.len(), encrypter.encrypted_payload_len(length));
            let message = InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, &mut body);
            assert_eq!(decrypter.decrypt(message, sequence).unwrap().payload, text, "{version:?}");
        }
    }
}

#[test]
fn records_too_short_for_their_overhead_are_refused() {
    for (_, mut decrypter, version) in pairs() {
        for length in 0..64 {
            let mut body = vec![0; length];
            let message = InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, &mut body);
            assert!(matches!(decrypter.decrypt(message, 0), Err(Error::DecryptError)), "{version:?} {length}");
        }
    }
}

#[test]
fn plaintext_beyond_the_limit_is_refused() {
    for (mut encrypter, mut decrypter, version) in pairs() {
        let text = vec![1; PLAINTEXT_BYTES_MAX + 1];
        let mut body = encrypter.encrypt(plain(&text), 0).unwrap().encode()[5..].to_vec();
        let message = InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, &mut body);
        assert!(matches!(decrypter.decrypt(message, 0), Err(Error::PeerSentOversizedRecord)), "{version:?}");
    }
}

#[test]
fn a_record_opens_under_its_own_sequence_number_only() {
    for (mut encrypter, mut decrypter, version) in pairs() {
        let body = encrypter.encrypt(plain(b"once"), 5).unwrap().encode()[5..].to_vec();
        for sequence in [0, 4, 6, u64::MAX] {
            let mut body = body.clone();
            let message = InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, &mut body);
            assert!(decrypter.decrypt(message, sequence).is_err(), "{version:?} {sequence}");
        }
    }
}

#[test]
fn a_key_of_a_wrong_length_refuses_records_instead_of_the_process() {
    // 32 bytes where AES-128 wants 16: rustls cuts keys to length, this call does not.
    let SupportedCipherSuite::Tls13(suite) = TLS13_SUITES[0] else { panic!("TLS 1.3") };
    let mut encrypter = suite.aead_alg.encrypter(AeadKey::from([1; 32]), Iv::from([0; 12]));
    assert!(matches!(encrypter.encrypt(plain(b"x"), 0), Err(Error::EncryptError)));
    let SupportedCipherSuite::Tls12(suite) = TLS12_SUITES[1] else { panic!("TLS 1.2") };
    let mut encrypter = suite.aead_alg.encrypter(AeadKey::from([1; 32]), &[0; 5], &[0; 7]);
    assert!(matches!(encrypter.encrypt(plain(b"x"), 0), Err(Error::EncryptError)));
}
