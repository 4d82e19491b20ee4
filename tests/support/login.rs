//! Logging in with every kind of credential: CONNECT and AUTH as bytes, an issuer of tokens, a site that wants them.

use super::client::{Client, packet, tcp, text};
use super::{Folder, Site, plain_listener};
use base64ct::{Base64UrlUnpadded, Encoding as _};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use std::time::SystemTime;

/// CONNECT of MQTT 5 with what of credentials is there.
pub fn connect(
    identifier: &str,
    username: Option<&str>,
    password: Option<&[u8]>,
    enhanced: Option<(&str, &[u8])>,
) -> Vec<u8> {
    let flags = 0x02 | u8::from(username.is_some()) << 7 | u8::from(password.is_some()) << 6;
    let mut body = [&text("MQTT")[..], &[5, flags, 0, 0]].concat();
    body.extend(properties(enhanced));
    body.extend(text(identifier));
    body.extend(username.map(text).unwrap_or_default());
    if let Some(password) = password {
        body.extend((password.len() as u16).to_be_bytes());
        body.extend(password);
    }
    packet(0x10, &body)
}

/// A property section with Authentication Method and Authentication Data.
pub fn properties(enhanced: Option<(&str, &[u8])>) -> Vec<u8> {
    let mut section = Vec::new();
    if let Some((method, data)) = enhanced {
        section.push(0x15);
        section.extend(text(method));
        section.push(0x16);
        section.extend((data.len() as u16).to_be_bytes());
        section.extend(data);
    }
    let mut length = section.len();
    let mut bytes = Vec::new();
    loop {
        bytes.push((length % 128) as u8 | if length >= 128 { 0x80 } else { 0 });
        length /= 128;
        if length == 0 {
            break;
        }
    }
    bytes.extend(section);
    bytes
}

pub fn auth(method: &str, data: &[u8]) -> Vec<u8> {
    packet(0xF0, &[&[0x19][..], &properties(Some((method, data)))].concat())
}

/// Sends a CONNECT and gives the client with the Reason Code of the answer.
pub fn log_in(port: u16, connect: &[u8]) -> (Client, u8) {
    let mut client = Client::new(tcp(port));
    client.send(connect);
    let connack = client.receive().expect("a CONNACK");
    assert_eq!(connack.first, 0x20, "{connack:?}");
    (client, connack.body[1])
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// A listener on loopback whose clients authenticate by `methods`, and a rule for everybody with an attribute.
pub fn site(folder: Folder, port: u16, methods: &str, gateway: &str) -> Site {
    let references = "      authenticationRef: logins\n      authorizationRef: rules\n";
    folder.write("site/listener.yaml", plain_listener(port) + references);
    folder.write(
        "site/logins.yaml",
        format!(
            "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerAuthentication\nmetadata: {{name: logins}}\n\
             spec:\n  authenticationMethods:\n{methods}"
        ),
    );
    folder.write(
        "site/rules.authorization.json",
        r#"[{"principals": {"attributes": [{"floor": "floor1"}, {"floor": "floor2"}]},
             "brokerResources": [{"method": "Connect"}, {"method": "Publish", "topics": ["floors/#"]}]},
            {"principals": {"attributes": [{"group": "authz-sat"}]},
             "brokerResources": [{"method": "Connect"}, {"method": "Publish", "topics": ["odd-numbered-orders"]},
                                 {"method": "Subscribe", "topics": ["orders"]}]}]"#,
    );
    if !gateway.is_empty() {
        let head = "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {name: default}\nspec:\n";
        folder.write("site/gateway.yaml", format!("{head}{gateway}"));
    }
    Site::start_in(folder)
}

/// An issuer of tokens.
pub struct Issuer(SigningKey);

impl Issuer {
    pub fn new() -> Self {
        Self(SigningKey::from_slice(&[7; 32]).unwrap())
    }

    pub fn keys(&self) -> String {
        let point = self.0.verifying_key().to_encoded_point(false);
        let coordinate = |bytes: Option<&p256::FieldBytes>| Base64UrlUnpadded::encode_string(bytes.unwrap());
        format!(
            r#"{{"keys": [{{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k1", "use": "sig", "x": "{}", "y": "{}"}}]}}"#,
            coordinate(point.x()),
            coordinate(point.y())
        )
    }

    pub fn token(&self, audience: &str, seconds: u64) -> Vec<u8> {
        let header = Base64UrlUnpadded::encode_string(br#"{"alg":"ES256","kid":"k1"}"#);
        let claims = format!(
            r#"{{"iss":"https://cluster","aud":["{audience}"],"exp":{},"sub":"system:serviceaccount:iot:mqtt-client"}}"#,
            now() + seconds
        );
        let signed = format!("{header}.{}", Base64UrlUnpadded::encode_string(claims.as_bytes()));
        let signature: Signature = self.0.sign(signed.as_bytes());
        format!("{signed}.{}", Base64UrlUnpadded::encode_string(&signature.to_bytes())).into_bytes()
    }
}

pub const BY_TOKEN: &str =
    "  - method: ServiceAccountToken\n    serviceAccountTokenSettings: {audiences: [my-audience]}\n";
pub const OFFLINE: &str = "  serviceAccountTokens:\n    issuers: [{issuer: 'https://cluster', keysConfigMap: cluster-keys}]\n    \
                       attributes: {iot/mqtt-client: {group: authz-sat}}\n";
