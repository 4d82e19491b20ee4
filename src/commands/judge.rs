//! What a port would say to a client, without a broker: for `explain` and `test`.
//!
//! In: a configuration, who a client is, what it wishes. Out: the identity that the port derives, and the decision with its
//! rule or what is missing. **Invariant:** [`Authenticator`] and [`Policy`] decide, as they do in the broker; a client that
//! may not connect may do nothing else.
//!
//! Deliberately absent: questions to servers. Who is judged by one is described by hand.

use super::paths::Paths;
use super::{CommandError, inspect, revocation, surroundings};
use crate::authentication::{Authenticator, Evidence, Granting, Verdict};
use crate::authorization::{ApplicableRules, Client, Decision, Nearest, Policy, Wish, nearest};
use crate::config::blob::{Configuration, ListenerPort, Method};
use crate::config::diagnostic::Escaped;
use crate::config::envelope::MAGIC;
use crate::config::policy_test::{TestAction, TestClient};
use crate::config::{LoadOptions, load};
use crate::crypto;
use crate::identity::{AuthenticationMethod, Identity, Username};
use crate::limits::{CLIENT_IDENTIFIER_BYTES_MAX, PEER_CHAIN_BYTES_MAX, TOKEN_BYTES_MAX};
use crate::time::{RELEASED, UnixTime};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Reads a configuration: one blob, or sources as `bake` takes them. Mistakes go to `diagnostics`.
///
/// # Errors
/// A file that cannot be read, a blob that is refused, or mistakes.
pub fn read_configuration(sources: &[PathBuf], diagnostics: &mut dyn Write) -> Result<Configuration, CommandError> {
    if let [path] = sources
        && is_blob(path).unwrap_or(false)
    {
        return inspect::read_blob(path).map(|(configuration, _)| configuration);
    }
    match load(sources, &LoadOptions::default()) {
        Ok(loaded) => Ok(loaded.configuration),
        Err(found) => {
            write!(diagnostics, "{found}")?;
            Err(CommandError::mistakes(&found))
        }
    }
}

fn is_blob(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    if path.is_file() {
        File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    }
    Ok(start == MAGIC)
}

/// The policy of a BrokerAuthorization.
///
/// # Errors
/// Tables that do not fit together.
pub fn policy(configuration: &Configuration, index: u16) -> Result<Policy, CommandError> {
    let table = configuration.authorizations.get(usize::from(index)).ok_or_else(|| refused("no such policy"))?;
    Policy::new(table.clone()).map_err(|fault| refused(&format!("BrokerAuthorization '{}': {fault}", table.name)))
}

fn refused(message: &str) -> CommandError {
    CommandError::ConfigurationRefused(message.to_owned())
}

/// A port with what judges its clients.
pub struct Port<'a> {
    configuration: &'a Configuration,
    /// Its settings.
    pub settings: &'a ListenerPort,
    authenticator: Option<Authenticator>,
    /// Its policy; `None`: authenticated clients may do everything.
    pub policy: Option<Policy>,
}

/// A client as a port knows it.
pub struct Known {
    /// What authentication found out, or what was described.
    pub identity: Identity,
    /// The client identifier.
    pub identifier: String,
    /// Whether no credential was judged: the identity is as it was described.
    pub is_assumed: bool,
    /// For a client with certificates: the verified path, and the entry that grants its attributes.
    pub granting: Option<Granting>,
    /// Label of that entry.
    pub entry: Option<String>,
    rules: ApplicableRules,
}

impl Known {
    /// The client before the policy of the port that knows it.
    #[must_use]
    pub fn client(&self) -> Client<'_> {
        Client { rules: &self.rules, identity: &self.identity, identifier: &self.identifier }
    }
}

/// What a port says.
#[derive(Debug)]
pub enum Answer {
    /// Allowed, by the rule at this place; `None`: the port has no policy.
    Allowed(Option<String>),
    /// Denied.
    Denied {
        /// Why, one line, escaped.
        reason: String,
        /// The rules that come nearest, each with its place.
        nearest: Vec<(String, Nearest)>,
    },
}

impl Answer {
    /// Denied for a reason that no rule changes.
    pub fn refusal(reason: impl Into<String>) -> Self {
        Self::Denied { reason: reason.into(), nearest: Vec::new() }
    }
}

impl<'a> Port<'a> {
    /// The port with number `wanted`, or the only one with a policy, or the only one.
    ///
    /// # Errors
    /// There is no such port, or there are several.
    pub fn choose(configuration: &'a Configuration, wanted: Option<u16>) -> Result<Self, CommandError> {
        let ports = &configuration.ports;
        let listed = || ports.iter().map(|port| port.port.to_string()).collect::<Vec<_>>().join(", ");
        let with_policy: Vec<_> = ports.iter().filter(|port| port.authorization.is_some()).collect();
        let settings = match (wanted, with_policy.as_slice(), ports.as_slice()) {
            (Some(number), ..) => ports
                .iter()
                .find(|port| port.port == number)
                .ok_or_else(|| CommandError::Usage(format!("there is no port {number}; ports are {}", listed())))?,
            (None, [only], _) => *only,
            (None, [], [only]) => only,
            (None, ..) => {
                return Err(CommandError::Usage(format!(
                    "several ports could be meant: --port with one of {}",
                    listed()
                )));
            }
        };
        let algorithms = crypto::provider().signature_verification_algorithms.all;
        let authenticator =
            settings.authentication.map(|index| Authenticator::new(configuration, index, algorithms, RELEASED));
        let authenticator = authenticator.transpose().map_err(|fault| refused(&fault.to_string()))?;
        let policy = settings.authorization.map(|index| policy(configuration, index)).transpose()?;
        Ok(Self { configuration, settings, authenticator, policy })
    }

    /// Puts what is revoked beside a blob in force; nothing is where the sources are not one blob.
    ///
    /// # Errors
    /// A revocation folder that keeps a broker from starting.
    pub fn revoke(&self, sources: &[PathBuf]) -> Result<(), CommandError> {
        let ([blob], Some(authenticator)) = (sources, &self.authenticator) else { return Ok(()) };
        if !is_blob(blob).unwrap_or(false) {
            return Ok(());
        }
        let gateway = &self.configuration.gateway;
        let folder = Paths::beside(blob.parent().unwrap_or(Path::new("")), gateway).revocation;
        let found = revocation::read(&folder, gateway.stale_revocation_lists).map_err(CommandError::CannotStart)?;
        let place = core::slice::from_ref(authenticator.revocation());
        match found.map(|found| surroundings::put(found, place)).unwrap_or_default() {
            faults if faults.is_empty() => Ok(()),
            faults => Err(CommandError::CannotStart(faults.join("; "))),
        }
    }

    /// Who a client is to this port at time `now`; inside, why it is refused.
    ///
    /// # Errors
    /// A file that cannot be read, a client that cannot be, or one that only a server can judge.
    pub fn know(&self, who: &TestClient, now: UnixTime) -> Result<Result<Known, String>, CommandError> {
        let chain = who.certificate.as_deref().map(read_chain).transpose()?.unwrap_or_default();
        let token = who.token.as_deref().map(|path| read_bounded(path, TOKEN_BYTES_MAX)).transpose()?;
        let (identity, granting) = match (&self.authenticator, &token) {
            (None, _) => (Identity::default(), None),
            (Some(_), None) if chain.is_empty() => (described(who)?, None),
            (Some(authenticator), token) => {
                let token = token.as_ref().map(|token| token.trim_ascii());
                let evidence = Evidence {
                    peer_chain: &chain,
                    username: who.username.as_deref(),
                    authentication_method: token.map(|_| "K8S-SAT"),
                    authentication_data: token,
                    ..Evidence::default()
                };
                match authenticator.authenticate(&evidence, now) {
                    Verdict::Accepted { identity, method } => {
                        let granting = authenticator.granting(method, &chain, now);
                        (identity, granting.map(|granting| (method, granting)))
                    }
                    Verdict::Refused(refusal) => return Ok(Err(Escaped(&refusal.to_string()).to_string())),
                    Verdict::Undecided(_) => {
                        return Err(CommandError::CannotStart(
                            "a server would be asked about this credential, which cannot be done here; --username, \
                             --client-id and --attribute describe what it would grant"
                                .to_owned(),
                        ));
                    }
                }
            }
        };
        let identifier = who.client_identifier.clone().or_else(|| identity.username.as_deref().map(str::to_owned));
        let identifier = identifier.unwrap_or_default();
        if identifier.len() > CLIENT_IDENTIFIER_BYTES_MAX {
            return Ok(Err(format!("the client id is longer than {CLIENT_IDENTIFIER_BYTES_MAX} bytes")));
        }
        let rules = self.policy.as_ref().map(|policy| policy.applicable(&identity, &identifier)).unwrap_or_default();
        let entry = granting.as_ref().and_then(|(method, granting)| self.label(*method, granting.entry?.1));
        let is_assumed = self.authenticator.is_some() && chain.is_empty() && token.is_none();
        let granting = granting.map(|(_, granting)| granting);
        Ok(Ok(Known { identity, identifier, is_assumed, granting, entry, rules }))
    }

    /// The label of an entry of `authorizationAttributes`.
    fn label(&self, method: u16, entry: usize) -> Option<String> {
        let authentication = self.configuration.authentications.get(usize::from(self.settings.authentication?))?;
        match authentication.methods.get(usize::from(method))? {
            Method::X509 { attributes, .. } => Some(attributes.get(entry)?.label.clone()),
            Method::ServiceAccountToken { .. } | Method::Custom { .. } | Method::UsernamePassword { .. } => None,
        }
    }

    /// Whether a client may do something.
    #[must_use]
    pub fn judge(&self, known: &Known, action: &TestAction) -> Answer {
        let connects = self.ask(known, Wish::Connect);
        let wish = match action {
            TestAction::Connect => return connects,
            TestAction::Publish(topic) => Wish::publish(topic),
            TestAction::Subscribe(filter) => Wish::subscribe(filter),
        };
        match (connects, wish) {
            (_, Err(reason)) => Answer::refusal(reason),
            (Answer::Denied { reason, nearest }, Ok(_)) => {
                Answer::Denied { reason: format!("it may not even connect: {reason}"), nearest }
            }
            (Answer::Allowed(_), Ok(wish)) => self.ask(known, wish),
        }
    }

    fn ask(&self, known: &Known, wish: Wish<'_>) -> Answer {
        let Some(policy) = &self.policy else { return Answer::Allowed(None) };
        let client = known.client();
        let (decision, what) = match wish {
            Wish::Connect => (policy.decide_connect(&client), "connect".to_owned()),
            Wish::Publish(topic) => {
                (policy.decide_publish(&client, topic), format!("publish to '{}'", topic.escape_debug()))
            }
            Wish::Subscribe(filter) => {
                (policy.decide_subscribe(&client, filter), format!("subscribe to '{}'", filter.escape_debug()))
            }
        };
        match decision {
            Decision::Allowed { rule } => Answer::Allowed(Some(Escaped(policy.rule_source(rule)).to_string())),
            Decision::Denied => {
                let place = |found: Nearest| (Escaped(policy.rule_source(found.rule)).to_string(), found);
                let nearest = nearest(policy, &client, wish).into_iter().map(place).collect();
                Answer::Denied { reason: format!("no rule allows it to {what}"), nearest }
            }
        }
    }
}

/// The identity of a client without a credential that can be judged here.
fn described(who: &TestClient) -> Result<Identity, CommandError> {
    let long = |_| CommandError::Usage("the user name is too long".to_owned());
    let username = who.username.as_deref().map(Username::try_from).transpose().map_err(long)?;
    let mut identity = Identity { method: AuthenticationMethod::Custom, username, ..Identity::default() };
    for (name, value) in &who.attributes {
        identity.attributes.insert(name, value).map_err(|_| {
            CommandError::Usage(format!("the attribute '{}' is given twice or does not fit", name.escape_debug()))
        })?;
    }
    Ok(identity)
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CommandError> {
    let faulty = |what: &str| CommandError::CannotStart(format!("{}: {what}", Escaped(&path.to_string_lossy())));
    // Text around the certificates is allowed, and a key is passed over.
    let pem = read_bounded(path, 4 * PEER_CHAIN_BYTES_MAX)?;
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(faulty("there is no certificate in PEM")),
        Err(_) => Err(faulty("not well-formed PEM")),
    }
}

fn read_bounded(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, CommandError> {
    let failed = |error: io::Error| CommandError::file(path, &error);
    let mut contents = Zeroizing::new(Vec::new());
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path).map_err(failed)?.take(limit).read_to_end(&mut contents).map_err(failed)?;
    if contents.len() > bytes_max {
        return Err(failed(io::Error::other(format!("longer than {bytes_max} bytes"))));
    }
    Ok(contents)
}
