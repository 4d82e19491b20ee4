//! Everything that is made of a configuration and can be made again beside a running broker: authenticators, policies, TLS of
//! each port, users, whom to ask, and which files to watch.
//!
//! **Invariant:** nothing here touches what is in force. What is made is complete, or it is an error and nothing.

use super::CommandError;
use super::paths::Paths;
use super::{bridges, surroundings, transport};
use crate::authentication::{Authenticator, Revocation, RevocationInForce, SignatureMemo, Signatures};
use crate::authorization::Policy;
use crate::broker::{Admission, Insider, PortAdmission, Settings};
use crate::config::blob::{ClientIdentifiers, Configuration, ExpiryNotice, Gateway, Secret, Tls};
use crate::crypto;
use crate::net::Transport;
use crate::platform::SystemClock;
use crate::service::{Inquiries, PROBE, Watched};
use crate::time::UnixTime;
use sha2::{Digest as _, Sha256};
use std::rc::Rc;
use std::sync::Arc;

/// What a configuration was made into.
pub struct Prepared {
    /// Who may come in and what they may do.
    pub admission: Admission,
    /// Settings of the gateway.
    pub settings: Settings,
    /// By port.
    pub transports: Vec<Transport>,
    /// Whom authentication asks.
    pub inquiries: Rc<Inquiries>,
    /// What is revoked, as the files say that are read again when they change; `None` where nobody is authenticated.
    pub revocation: Option<Arc<RevocationInForce>>,
    /// Stands for the ports and who judges their clients: what is known of a client by one is nothing to another.
    pub judges: u64,
    /// Files to read again when they change.
    pub watched: Vec<Watched>,
    /// What is wrong with files outside of the blob; those who need them are not let in until it is mended.
    pub faults: Vec<String>,
}

/// What a gateway knows that no configuration says.
pub struct Known {
    /// What a running broker has revoked.
    pub revoked: Option<Revocation>,
    /// The clock cannot be right before this time.
    pub clock_floor: UnixTime,
    /// Signatures of certificates that were verified already.
    pub signatures: Arc<SignatureMemo>,
}

/// Makes it.
///
/// # Errors
/// [`CommandError::ConfigurationRefused`] for what the configuration itself is to blame for, [`CommandError::CannotStart`] for
/// what lies outside of it: a key that cannot be read or does not fit.
pub fn prepare(configuration: &Configuration, paths: &Paths, known: &Known) -> Result<Prepared, CommandError> {
    let mut admission = admission(configuration, known)?;
    let (mut watched, mut faults) = (Vec::new(), Vec::new());
    let places = admission.authenticators.iter().map(|authenticator| Arc::clone(authenticator.revocation())).collect();
    surroundings::load_revocation(configuration, paths, places, &mut watched, known.revoked.as_ref())
        .map_err(CommandError::CannotStart)?;
    surroundings::load_passwords(configuration, paths, &mut admission.authenticators, &mut watched, &mut faults);
    let inquiries = surroundings::inquiries(configuration, paths, &mut watched, &mut faults);
    let transports = transports(configuration, &admission, paths, &mut watched)?;
    let settings = settings(&configuration.gateway);
    let revocation = admission.authenticators.first().map(|authenticator| Arc::clone(authenticator.revocation()));
    let judges = judges(configuration);
    Ok(Prepared { revocation, admission, settings, transports, inquiries, judges, watched, faults })
}

fn judges(configuration: &Configuration) -> u64 {
    let ports: Vec<_> = configuration.ports.iter().map(|port| (port.port, port.authentication)).collect();
    let judged_by = (ports, &configuration.authentications, &configuration.gateway.service_account_tokens);
    // What was baked in one body can be written as a part of it.
    let bytes = postcard::to_stdvec(&judged_by).unwrap_or_default();
    Sha256::digest(bytes).first_chunk().map_or(0, |half| u64::from_be_bytes(*half))
}

fn settings(gateway: &Gateway) -> Settings {
    Settings {
        connect_deadline_seconds: gateway.connect_deadline_seconds,
        shares_client_identifiers: gateway.client_identifiers == ClientIdentifiers::Shared,
        announces_expiry: gateway.expiry_notice == ExpiryNotice::Disconnect,
        validate_payload_format: gateway.validate_payload_format,
        sys_interval_seconds: gateway.sys_interval_seconds,
        response_information: gateway.response_information.clone(),
    }
}

fn admission(configuration: &Configuration, known: &Known) -> Result<Admission, CommandError> {
    let refused = |kind: &str, name: &str, fault: &dyn core::fmt::Display| {
        CommandError::ConfigurationRefused(format!("{kind} '{name}': {fault}"))
    };
    let algorithms = crypto::provider().signature_verification_algorithms.all;
    let signatures = Signatures { algorithms, memo: Arc::clone(&known.signatures) };
    let mut authenticators = Vec::new();
    for (index, resource) in (0_u16..).zip(&configuration.authentications) {
        let authenticator = Authenticator::new(configuration, index, signatures.clone(), known.clock_floor)
            .map_err(|fault| refused("BrokerAuthentication", &resource.name, &fault))?;
        for warning in authenticator.warnings(SystemClock::unix()) {
            log::warn!("BrokerAuthentication '{}': {warning}", resource.name);
        }
        authenticators.push(authenticator);
    }
    let mut policies = Vec::new();
    for resource in &configuration.authorizations {
        let policy = Policy::new(resource.clone());
        policies.push(policy.map_err(|fault| refused("BrokerAuthorization", &resource.name, &fault))?);
    }
    let ports = configuration
        .ports
        .iter()
        .map(|port| PortAdmission { authenticator: port.authentication, policy: port.authorization })
        .collect();
    let mut insiders: Vec<Insider> = Insider::new(PROBE).into_iter().collect();
    for bridge in &configuration.bridges {
        insiders.push(bridges::insider(bridge).map_err(CommandError::ConfigurationRefused)?);
    }
    Ok(Admission { ports, authenticators, policies, insiders })
}

fn transports(
    configuration: &Configuration,
    admission: &Admission,
    paths: &Paths,
    watched: &mut Vec<Watched>,
) -> Result<Vec<Transport>, CommandError> {
    let mut transports = Vec::new();
    for (index, port) in (0_u16..).zip(&configuration.ports) {
        let transport = transport::of_port(configuration, &admission.authenticators, paths, index, watched);
        transports.push(transport.map_err(|fault| {
            let message = format!("port {}: {fault}", port.port);
            if secret_of(configuration, port.tls.as_ref()).is_some_and(|secret| secret.embedded.is_none()) {
                CommandError::CannotStart(message)
            } else {
                CommandError::ConfigurationRefused(message)
            }
        })?);
    }
    Ok(transports)
}

/// The Secret of a port's certificate.
pub fn secret_of<'a>(configuration: &'a Configuration, tls: Option<&Tls>) -> Option<&'a Secret> {
    match tls? {
        Tls::Manual { secret } => configuration.secrets.get(usize::from(*secret)),
        Tls::Automatic(_) => None,
    }
}
