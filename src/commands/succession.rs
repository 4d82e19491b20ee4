//! What becomes of connected clients when a configuration takes another one's place: which method judges them now.
//!
//! Certificates and users with passwords can be judged again at any time. Of tokens, and of what a custom server has seen,
//! nothing is kept: such a client stays where the same judge would be asked the same, and must come again where not.

use crate::broker::{Heir, Succession};
use crate::config::blob::{Configuration, Gateway, Method, ServiceAccountTokens};

/// What becomes of the clients of each port.
#[must_use]
pub fn of_ports(former: &Configuration, next: &Configuration) -> Vec<Succession> {
    let ports = former.ports.iter().zip(&next.ports);
    ports.map(|(port, heir)| of_port(former, port.authentication, next, heir.authentication)).collect()
}

fn of_port(former: &Configuration, authentication: Option<u16>, next: &Configuration, heir: Option<u16>) -> Succession {
    let methods = |configuration: &'_ Configuration, index: Option<u16>| {
        let resource = index.and_then(|index| configuration.authentications.get(usize::from(index)));
        resource.map(|resource| resource.methods.clone())
    };
    match (methods(former, authentication), methods(next, heir)) {
        (None, None) => Succession::Unchanged,
        // Nobody has shown anything.
        (None, Some(_)) => Succession::Changed(vec![Heir::None]),
        // Nobody asks any more.
        (Some(methods), None) => Succession::Changed(vec![Heir::Method(0); methods.len()]),
        (Some(methods), Some(heirs)) => {
            let pairs = methods.iter().zip(&heirs);
            let same = methods.len() == heirs.len()
                && pairs.into_iter().all(|(method, heir)| decides_the_same(former, method, next, heir));
            if same {
                return Succession::Unchanged;
            }
            Succession::Changed(methods.iter().map(|method| heir_of(former, method, next, &heirs)).collect())
        }
    }
}

/// Whether both methods find the same of every client, but for files outside of the configuration.
fn decides_the_same(former: &Configuration, method: &Method, next: &Configuration, heir: &Method) -> bool {
    match (method, heir) {
        (
            Method::X509 { trust_bundle, attributes },
            Method::X509 { trust_bundle: next_bundle, attributes: next_attributes },
        ) => {
            let certificates = |configuration: &'_ Configuration, index: u16| {
                configuration.trust_bundles.get(usize::from(index)).map(|bundle| bundle.certificates.clone())
            };
            attributes == next_attributes
                && certificates(former, *trust_bundle) == certificates(next, *next_bundle)
                && judges_chains_the_same(&former.gateway, &next.gateway)
        }
        (Method::ServiceAccountToken { audiences }, Method::ServiceAccountToken { audiences: next_audiences }) => {
            audiences == next_audiences && judges_tokens_the_same(&former.gateway, &next.gateway)
        }
        // Which certificates and header fields are exchanged with it is between the two of us.
        (Method::Custom { server }, Method::Custom { server: next_server }) => server.endpoint == next_server.endpoint,
        (Method::UsernamePassword { secret }, Method::UsernamePassword { secret: next_secret }) => {
            secret == next_secret
        }
        _ => false,
    }
}

fn judges_chains_the_same(former: &Gateway, next: &Gateway) -> bool {
    former.clock_policy == next.clock_policy
        && former.same_key_algorithm == next.same_key_algorithm
        && former.stale_revocation_lists == next.stale_revocation_lists
}

fn judges_tokens_the_same(former: &Gateway, next: &Gateway) -> bool {
    use ServiceAccountTokens::TokenReview;
    match (&former.service_account_tokens, &next.service_account_tokens) {
        (Some(TokenReview { server, .. }), Some(TokenReview { server: next_server, .. })) => {
            server.endpoint == next_server.endpoint
        }
        (former_tokens, next_tokens) => former_tokens == next_tokens && former.clock_policy == next.clock_policy,
    }
}

/// The first of `heirs` that can judge what `method` accepted.
fn heir_of(former: &Configuration, method: &Method, next: &Configuration, heirs: &[Method]) -> Heir {
    let of_its_kind = |heir: &Method| core::mem::discriminant(heir) == core::mem::discriminant(method);
    // The first method X509 decides about every chain.
    let judges = |heir: &Method| match heir {
        Method::X509 { .. } => of_its_kind(heir),
        heir => decides_the_same(former, method, next, heir),
    };
    match (0_u16..).zip(heirs).find(|(_, heir)| judges(heir)) {
        Some((index, _)) => Heir::Method(index),
        None if heirs.iter().any(of_its_kind) => Heir::MustBeShownAgain,
        None => Heir::None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::blob::{Authentication, HttpsServer, TrustBundle};
    use crate::config::{LoadOptions, load_embedded};

    fn with(methods: Vec<Method>) -> Configuration {
        let files = [("any.listener.yaml", "ports: [{port: 1883}]")];
        let mut configuration = load_embedded(&files, &LoadOptions::default()).unwrap().configuration;
        for name in ["one", "two"] {
            let bundle = TrustBundle { name: name.to_owned(), certificates: vec![name.as_bytes().to_vec()] };
            configuration.trust_bundles.push(bundle);
        }
        if !methods.is_empty() {
            configuration.ports[0].authentication = Some(0);
            configuration.authentications.push(Authentication { name: "logins".to_owned(), methods });
        }
        configuration
    }

    fn x509(trust_bundle: u16) -> Method {
        Method::X509 { trust_bundle, attributes: Vec::new() }
    }

    fn custom(host: &str, header: &str) -> Method {
        let headers = vec![("X".to_owned(), header.to_owned())];
        let endpoint = format!("https://{host}");
        Method::Custom { server: HttpsServer { endpoint, trust_bundle: None, client_secret: None, headers } }
    }

    fn users(secret: &str) -> Method {
        Method::UsernamePassword { secret: secret.to_owned() }
    }

    fn token(audience: &str) -> Method {
        Method::ServiceAccountToken { audiences: vec![audience.to_owned()] }
    }

    fn becomes(former: Vec<Method>, next: Vec<Method>) -> Succession {
        of_ports(&with(former), &with(next)).remove(0)
    }

    #[test]
    fn what_decides_the_same_changes_nothing() {
        assert_eq!(becomes(Vec::new(), Vec::new()), Succession::Unchanged);
        let former = vec![x509(0), custom("a", "old key"), users("u"), token("t")];
        assert_eq!(
            becomes(former.clone(), vec![x509(0), custom("a", "new key"), users("u"), token("t")]),
            Succession::Unchanged
        );
        let (mut one, mut other) = (with(vec![x509(0)]), with(vec![x509(1)]));
        other.trust_bundles.swap(0, 1);
        assert_eq!(of_ports(&one, &other), [Succession::Unchanged], "the same certificates under another index");
        one.gateway.same_key_algorithm = !one.gateway.same_key_algorithm;
        assert_eq!(of_ports(&one, &other), [Succession::Changed(vec![Heir::Method(0)])]);
    }

    #[test]
    fn each_method_is_followed_by_one_that_can_judge_its_clients() {
        let changed = |heirs: &[Heir]| Succession::Changed(heirs.to_vec());
        let former = vec![x509(0), custom("a", ""), users("u"), token("t")];
        assert_eq!(
            becomes(former.clone(), vec![users("u"), token("t"), custom("a", ""), x509(1)]),
            changed(&[Heir::Method(3), Heir::Method(2), Heir::Method(0), Heir::Method(1)])
        );
        assert_eq!(
            becomes(former.clone(), vec![custom("b", ""), users("other"), token("other")]),
            changed(&[Heir::None, Heir::MustBeShownAgain, Heir::MustBeShownAgain, Heir::MustBeShownAgain])
        );
        assert_eq!(becomes(Vec::new(), vec![x509(0)]), changed(&[Heir::None]));
        assert_eq!(becomes(vec![x509(0), users("u")], Vec::new()), changed(&[Heir::Method(0), Heir::Method(0)]));
    }
}
