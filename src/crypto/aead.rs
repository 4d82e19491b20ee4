//! Record protection: AES-GCM and ChaCha20-Poly1305 for TLS 1.3 and TLS 1.2.
//!
//! In: traffic keys and records from rustls. Out: sealed or opened records. One implementation of each record format is
//! shared by all ciphers; hash, HKDF and PRF are those of the published crate, which have no known defect.
//!
//! **Invariant:** no input of a peer can panic here; a record that is too short to hold its overhead is a `DecryptError`
//! like any other that does not verify. A key of the wrong length cannot come from rustls; if it did, every record would
//! fail instead of the process.

use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::{AeadInOut, KeyInit, Nonce as AeadNonce, Tag};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use chacha20poly1305::ChaCha20Poly1305;
use core::marker::PhantomData;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, KeyBlockShape, MessageDecrypter, MessageEncrypter,
    NONCE_LEN, Nonce, OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, Tls12AeadAlgorithm,
    Tls13AeadAlgorithm, UnsupportedOperationError, make_tls12_aad, make_tls13_aad,
};
use rustls::crypto::{CipherSuiteCommon, KeyExchangeAlgorithm};
use rustls::{
    CipherSuite, ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion, SignatureScheme, SupportedCipherSuite,
    Tls12CipherSuite, Tls13CipherSuite,
};

/// Records that one AES-GCM key may protect (RFC 8446 §5.5 allows 2^24.5 full records).
pub const AES_GCM_RECORDS_MAX: u64 = 1 << 24;
/// ChaCha20-Poly1305 reaches the end of the sequence numbers before its own limit (RFC 8446 §5.5).
const CHACHA20_RECORDS_MAX: u64 = u64::MAX;
/// Bytes of every authentication tag.
const TAG_BYTES: usize = 16;
/// Bytes of the part of a TLS 1.2 AES-GCM nonce that travels with the record (RFC 5288 §3).
const EXPLICIT_NONCE_BYTES: usize = 8;
/// Bytes of the part of a TLS 1.2 AES-GCM nonce that comes from the key block.
const SALT_BYTES: usize = NONCE_LEN - EXPLICIT_NONCE_BYTES;
/// Most bytes of plaintext in a record (RFC 5246 §6.2.1).
const PLAINTEXT_BYTES_MAX: usize = 16_384;

/// What distinguishes one cipher from the next, for rustls.
trait RecordCipher: KeyInit + AeadInOut<NonceSize = U12, TagSize = U16> + Send + Sync + 'static {
    /// Bytes of a key.
    const KEY_BYTES: usize;
    /// The keys under their right name, for a record layer outside rustls.
    fn secrets(key: AeadKey, iv: Iv) -> ConnectionTrafficSecrets;

    /// Encrypts `text` in place and returns the tag.
    fn seal(&self, nonce: Nonce, associated: &[u8], text: &mut [u8]) -> Result<Tag<Self>, Error>
    where
        Self: Sized,
    {
        self.encrypt_inout_detached(&AeadNonce::<Self>::from(nonce.0), associated, text.into())
            .map_err(|_| Error::EncryptError)
    }

    /// Verifies and decrypts `sealed` (ciphertext, then tag) in place and returns the length of the plaintext.
    fn open(&self, nonce: Nonce, associated: &[u8], sealed: &mut [u8]) -> Result<usize, Error>
    where
        Self: Sized,
    {
        let Some((text, tag)) = sealed.split_last_chunk_mut::<TAG_BYTES>() else {
            return Err(Error::DecryptError);
        };
        let length = text.len();
        self.decrypt_inout_detached(
            &AeadNonce::<Self>::from(nonce.0),
            associated,
            text.into(),
            &Tag::<Self>::from(*tag),
        )
        .map_err(|_| Error::DecryptError)?;
        Ok(length)
    }
}

impl RecordCipher for Aes128Gcm {
    const KEY_BYTES: usize = 16;
    fn secrets(key: AeadKey, iv: Iv) -> ConnectionTrafficSecrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
    }
}

impl RecordCipher for Aes256Gcm {
    const KEY_BYTES: usize = 32;
    fn secrets(key: AeadKey, iv: Iv) -> ConnectionTrafficSecrets {
        ConnectionTrafficSecrets::Aes256Gcm { key, iv }
    }
}

impl RecordCipher for ChaCha20Poly1305 {
    const KEY_BYTES: usize = 32;
    fn secrets(key: AeadKey, iv: Iv) -> ConnectionTrafficSecrets {
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }
    }
}

/// TLS 1.3 record protection (RFC 8446 §5.2) with cipher `C`.
struct Tls13<C>(PhantomData<fn() -> C>);
/// TLS 1.2 record protection with an explicit nonce (RFC 5288) and cipher `C`.
struct Tls12ExplicitNonce<C>(PhantomData<fn() -> C>);
/// TLS 1.2 record protection with a nonce made of the sequence number (RFC 7905).
struct Tls12ImplicitNonce<C>(PhantomData<fn() -> C>);

/// A key and its first nonce, under the format of records `F`. `None` instead of a key refuses every record.
struct Traffic<C, F> {
    cipher: Option<C>,
    iv: Iv,
    format: PhantomData<fn() -> F>,
}

impl<C: RecordCipher, F> Traffic<C, F> {
    fn new(key: &AeadKey, iv: Iv) -> Self {
        Self { cipher: C::new_from_slice(key.as_ref()).ok(), iv, format: PhantomData }
    }
}

impl<C: RecordCipher> Tls13AeadAlgorithm for Tls13<C> {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Traffic::<C, Self>::new(&key, iv))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Traffic::<C, Self>::new(&key, iv))
    }

    fn key_len(&self) -> usize {
        C::KEY_BYTES
    }

    fn extract_keys(&self, key: AeadKey, iv: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Ok(C::secrets(key, iv))
    }
}

impl<C: RecordCipher> MessageEncrypter for Traffic<C, Tls13<C>> {
    fn encrypt(&mut self, message: OutboundPlainMessage<'_>, sequence: u64) -> Result<OutboundOpaqueMessage, Error> {
        let cipher = self.cipher.as_ref().ok_or(Error::EncryptError)?;
        let length = self.encrypted_payload_len(message.payload.len());
        let mut payload = PrefixedPayload::with_capacity(length);
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&message.typ.to_array());
        let tag = cipher.seal(Nonce::new(&self.iv, sequence), &make_tls13_aad(length), payload.as_mut())?;
        payload.extend_from_slice(&tag);
        // The outer type and version are frozen by RFC 8446 §5.2; the inner type went in with the plaintext.
        Ok(OutboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, payload))
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        payload_len + 1 + TAG_BYTES
    }
}

impl<C: RecordCipher> MessageDecrypter for Traffic<C, Tls13<C>> {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        sequence: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let cipher = self.cipher.as_ref().ok_or(Error::DecryptError)?;
        let associated = make_tls13_aad(message.payload.len());
        let length = cipher.open(Nonce::new(&self.iv, sequence), &associated, &mut message.payload)?;
        message.payload.truncate(length);
        // Takes padding and inner type off, and refuses plaintext beyond 2¹⁴ bytes.
        message.into_tls13_unpadded_message()
    }
}

/// The nonce that a TLS 1.2 AES-GCM encrypter starts from: the salt of the key block, then as much again as the explicit
/// part takes. rustls gives both in the lengths that [`KeyBlockShape`] asks for; other lengths give `None`.
fn explicit_nonce_iv(salt: &[u8], explicit: &[u8]) -> Option<Iv> {
    let mut iv = [0; NONCE_LEN];
    let (front, back) = iv.split_first_chunk_mut::<SALT_BYTES>()?;
    *front = salt.try_into().ok()?;
    if explicit.len() != back.len() {
        return None;
    }
    back.copy_from_slice(explicit);
    Some(Iv::from(iv))
}

impl<C: RecordCipher> Tls12AeadAlgorithm for Tls12ExplicitNonce<C> {
    fn encrypter(&self, key: AeadKey, iv: &[u8], extra: &[u8]) -> Box<dyn MessageEncrypter> {
        match explicit_nonce_iv(iv, extra) {
            Some(iv) => Box::new(Traffic::<C, Self>::new(&key, iv)),
            None => Box::new(Traffic::<C, Self> { cipher: None, iv: Iv::default(), format: PhantomData }),
        }
    }

    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn MessageDecrypter> {
        match explicit_nonce_iv(iv, &[0; EXPLICIT_NONCE_BYTES]) {
            Some(iv) => Box::new(Traffic::<C, Self>::new(&key, iv)),
            None => Box::new(Traffic::<C, Self> { cipher: None, iv: Iv::default(), format: PhantomData }),
        }
    }

    fn key_block_shape(&self) -> KeyBlockShape {
        KeyBlockShape { enc_key_len: C::KEY_BYTES, fixed_iv_len: SALT_BYTES, explicit_nonce_len: EXPLICIT_NONCE_BYTES }
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: &[u8],
        explicit: &[u8],
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Ok(C::secrets(key, explicit_nonce_iv(iv, explicit).ok_or(UnsupportedOperationError)?))
    }
}

impl<C: RecordCipher> MessageEncrypter for Traffic<C, Tls12ExplicitNonce<C>> {
    fn encrypt(&mut self, message: OutboundPlainMessage<'_>, sequence: u64) -> Result<OutboundOpaqueMessage, Error> {
        let cipher = self.cipher.as_ref().ok_or(Error::EncryptError)?;
        let mut payload = PrefixedPayload::with_capacity(self.encrypted_payload_len(message.payload.len()));
        // The sequence number folded into the start value: no nonce comes twice under one key.
        let nonce = Nonce::new(&self.iv, sequence);
        payload.extend_from_slice(&nonce.0[SALT_BYTES..]);
        payload.extend_from_chunks(&message.payload);
        let associated = make_tls12_aad(sequence, message.typ, message.version, message.payload.len());
        let Some((_, text)) = payload.as_mut().split_first_chunk_mut::<EXPLICIT_NONCE_BYTES>() else {
            return Err(Error::EncryptError);
        };
        let tag = cipher.seal(nonce, &associated, text)?;
        payload.extend_from_slice(&tag);
        Ok(OutboundOpaqueMessage::new(message.typ, message.version, payload))
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        EXPLICIT_NONCE_BYTES + payload_len + TAG_BYTES
    }
}

impl<C: RecordCipher> MessageDecrypter for Traffic<C, Tls12ExplicitNonce<C>> {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        sequence: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let cipher = self.cipher.as_ref().ok_or(Error::DecryptError)?;
        let Some(text_bytes) = message.payload.len().checked_sub(EXPLICIT_NONCE_BYTES + TAG_BYTES) else {
            return Err(Error::DecryptError);
        };
        let associated = make_tls12_aad(sequence, message.typ, message.version, text_bytes);
        let Some((explicit, sealed)) = message.payload.split_first_chunk_mut::<EXPLICIT_NONCE_BYTES>() else {
            return Err(Error::DecryptError);
        };
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(self.iv.as_ref());
        nonce[SALT_BYTES..].copy_from_slice(explicit);
        let length = cipher.open(Nonce(nonce), &associated, sealed)?;
        if length > PLAINTEXT_BYTES_MAX {
            return Err(Error::PeerSentOversizedRecord);
        }
        message.payload.copy_within(EXPLICIT_NONCE_BYTES..EXPLICIT_NONCE_BYTES + length, 0);
        message.payload.truncate(length);
        Ok(message.into_plain_message())
    }
}

impl<C: RecordCipher> Tls12AeadAlgorithm for Tls12ImplicitNonce<C> {
    fn encrypter(&self, key: AeadKey, iv: &[u8], _extra: &[u8]) -> Box<dyn MessageEncrypter> {
        Box::new(Traffic::<C, Self>::of_slice(&key, iv))
    }

    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn MessageDecrypter> {
        Box::new(Traffic::<C, Self>::of_slice(&key, iv))
    }

    fn key_block_shape(&self) -> KeyBlockShape {
        KeyBlockShape { enc_key_len: C::KEY_BYTES, fixed_iv_len: NONCE_LEN, explicit_nonce_len: 0 }
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: &[u8],
        _explicit: &[u8],
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        let iv: [u8; NONCE_LEN] = iv.try_into().map_err(|_| UnsupportedOperationError)?;
        Ok(C::secrets(key, Iv::from(iv)))
    }
}

impl<C: RecordCipher> Traffic<C, Tls12ImplicitNonce<C>> {
    fn of_slice(key: &AeadKey, iv: &[u8]) -> Self {
        match <[u8; NONCE_LEN]>::try_from(iv) {
            Ok(iv) => Self::new(key, Iv::from(iv)),
            Err(_) => Self { cipher: None, iv: Iv::default(), format: PhantomData },
        }
    }
}

impl<C: RecordCipher> MessageEncrypter for Traffic<C, Tls12ImplicitNonce<C>> {
    fn encrypt(&mut self, message: OutboundPlainMessage<'_>, sequence: u64) -> Result<OutboundOpaqueMessage, Error> {
        let cipher = self.cipher.as_ref().ok_or(Error::EncryptError)?;
        let mut payload = PrefixedPayload::with_capacity(self.encrypted_payload_len(message.payload.len()));
        payload.extend_from_chunks(&message.payload);
        let associated = make_tls12_aad(sequence, message.typ, message.version, message.payload.len());
        let tag = cipher.seal(Nonce::new(&self.iv, sequence), &associated, payload.as_mut())?;
        payload.extend_from_slice(&tag);
        Ok(OutboundOpaqueMessage::new(message.typ, message.version, payload))
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        payload_len + TAG_BYTES
    }
}

impl<C: RecordCipher> MessageDecrypter for Traffic<C, Tls12ImplicitNonce<C>> {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        sequence: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let cipher = self.cipher.as_ref().ok_or(Error::DecryptError)?;
        let Some(text_bytes) = message.payload.len().checked_sub(TAG_BYTES) else {
            return Err(Error::DecryptError);
        };
        let associated = make_tls12_aad(sequence, message.typ, message.version, text_bytes);
        let length = cipher.open(Nonce::new(&self.iv, sequence), &associated, &mut message.payload)?;
        if length > PLAINTEXT_BYTES_MAX {
            return Err(Error::PeerSentOversizedRecord);
        }
        message.payload.truncate(length);
        Ok(message.into_plain_message())
    }
}

/// The TLS 1.3 suite of the published crate, of which hash and HKDF are taken over.
const fn base13(suite: SupportedCipherSuite) -> &'static Tls13CipherSuite {
    match suite {
        SupportedCipherSuite::Tls13(suite) => suite,
        SupportedCipherSuite::Tls12(_) => panic!("not a suite of TLS 1.3"),
    }
}

/// The TLS 1.2 suite of the published crate, of which hash and PRF are taken over.
const fn base12(suite: SupportedCipherSuite) -> &'static Tls12CipherSuite {
    match suite {
        SupportedCipherSuite::Tls12(suite) => suite,
        SupportedCipherSuite::Tls13(_) => panic!("not a suite of TLS 1.2"),
    }
}

/// A TLS 1.3 suite with our record protection.
const fn suite13(
    base: &'static Tls13CipherSuite,
    suite: CipherSuite,
    confidentiality_limit: u64,
    aead_alg: &'static dyn Tls13AeadAlgorithm,
) -> Tls13CipherSuite {
    Tls13CipherSuite {
        common: CipherSuiteCommon { suite, hash_provider: base.common.hash_provider, confidentiality_limit },
        hkdf_provider: base.hkdf_provider,
        aead_alg,
        quic: None,
    }
}

/// A TLS 1.2 ECDHE-ECDSA suite with our record protection.
const fn suite12(
    base: &'static Tls12CipherSuite,
    suite: CipherSuite,
    confidentiality_limit: u64,
    aead_alg: &'static dyn Tls12AeadAlgorithm,
) -> Tls12CipherSuite {
    Tls12CipherSuite {
        common: CipherSuiteCommon { suite, hash_provider: base.common.hash_provider, confidentiality_limit },
        prf_provider: base.prf_provider,
        kx: KeyExchangeAlgorithm::ECDHE,
        sign: &[
            SignatureScheme::ED25519,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ECDSA_NISTP256_SHA256,
        ],
        aead_alg,
    }
}

static TLS13_AES_128: Tls13CipherSuite = suite13(
    base13(rustls_rustcrypto::TLS13_AES_128_GCM_SHA256),
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    AES_GCM_RECORDS_MAX,
    &Tls13::<Aes128Gcm>(PhantomData),
);
static TLS13_AES_256: Tls13CipherSuite = suite13(
    base13(rustls_rustcrypto::TLS13_AES_256_GCM_SHA384),
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    AES_GCM_RECORDS_MAX,
    &Tls13::<Aes256Gcm>(PhantomData),
);
static TLS13_CHACHA20: Tls13CipherSuite = suite13(
    base13(rustls_rustcrypto::TLS13_CHACHA20_POLY1305_SHA256),
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CHACHA20_RECORDS_MAX,
    &Tls13::<ChaCha20Poly1305>(PhantomData),
);
static TLS12_AES_128: Tls12CipherSuite = suite12(
    base12(rustls_rustcrypto::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    AES_GCM_RECORDS_MAX,
    &Tls12ExplicitNonce::<Aes128Gcm>(PhantomData),
);
static TLS12_AES_256: Tls12CipherSuite = suite12(
    base12(rustls_rustcrypto::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    AES_GCM_RECORDS_MAX,
    &Tls12ExplicitNonce::<Aes256Gcm>(PhantomData),
);
static TLS12_CHACHA20: Tls12CipherSuite = suite12(
    base12(rustls_rustcrypto::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    CHACHA20_RECORDS_MAX,
    &Tls12ImplicitNonce::<ChaCha20Poly1305>(PhantomData),
);

/// The TLS 1.3 suites: AES-128, AES-256, ChaCha20.
pub static TLS13_SUITES: [SupportedCipherSuite; 3] = [
    SupportedCipherSuite::Tls13(&TLS13_AES_128),
    SupportedCipherSuite::Tls13(&TLS13_AES_256),
    SupportedCipherSuite::Tls13(&TLS13_CHACHA20),
];

/// The TLS 1.2 suites, all ECDHE-ECDSA (which RFC 8422 lets Ed25519 keys use too): AES-128, AES-256, ChaCha20.
pub static TLS12_SUITES: [SupportedCipherSuite; 3] = [
    SupportedCipherSuite::Tls12(&TLS12_AES_128),
    SupportedCipherSuite::Tls12(&TLS12_AES_256),
    SupportedCipherSuite::Tls12(&TLS12_CHACHA20),
];

#[cfg(test)]
mod tests;
