//! The resource schema, validation and the blob.
//!
//! In go manifests, bare bodies and PEM files; out comes a [`Configuration`] or a list of mistakes, each with file, line,
//! column, value and the nearest valid name. Nothing is accepted and then ignored without a note.
//!
//! `source` turns text into nodes, one file per kind turns nodes into resources, `assemble` joins them, `envelope` carries
//! the result. What is valid is the vendor's schema; our own settings have a kind of their own, `Gateway`.

pub mod assemble;
mod authentication;
mod authorization;
pub mod blob;
pub mod board;
mod bridge;
mod bridge_notes;
mod broker;
mod certificate;
pub mod changes;
pub mod diagnostic;
pub mod diagnostics;
pub mod envelope;
mod gateway;
pub mod https_server;
pub mod kept;
mod listener;
mod name;
pub mod network;
mod persistence;
pub mod policy_test;
mod resources;
pub mod secret;
mod service_account;
pub(crate) mod source;
pub mod token;
pub mod topic;
mod trust;
pub mod verify;
mod volume;

pub use assemble::LoadOptions;
pub use certificate::is_dns_name;
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use envelope::{BlobError, decode, encode};

use blob::Configuration;
use diagnostic::{Place, Report};
use source::files::{Found, gather, gather_embedded};
use std::path::PathBuf;

/// The configuration of a broker that was given none: a plain listener on loopback, nobody is authenticated.
pub const DEFAULT_FILES: &[(&str, &str)] = &[
    ("config/default/gateway.yaml", include_str!("../../config/default/gateway.yaml")),
    ("config/default/listener.yaml", include_str!("../../config/default/listener.yaml")),
];

/// The vendor's tutorial on X.509 and attribute-based access control. It refers to the ConfigMap `fabrikam-ca` and the
/// Secret `broker-server-cert`, which whoever loads it adds as `trust/fabrikam-ca/<file>` and `secrets/broker-server-cert/tls.crt`
/// and `tls.key`.
pub const TUTORIAL_FILES: &[(&str, &str)] = &[
    (
        "config/tutorial/abac-authz.authorization.json",
        include_str!("../../config/tutorial/abac-authz.authorization.json"),
    ),
    ("config/tutorial/listener.yaml", include_str!("../../config/tutorial/listener.yaml")),
    ("config/tutorial/x509-auth.x509.json", include_str!("../../config/tutorial/x509-auth.x509.json")),
];

/// A configuration, and what is worth knowing about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub configuration: Configuration,
    /// Notes; never errors.
    pub notes: Diagnostics,
}

/// Reads folders and files into a configuration.
///
/// # Errors
/// Every mistake that was found, and the notes.
pub fn load(sources: &[PathBuf], options: &LoadOptions) -> Result<Loaded, Diagnostics> {
    let mut report = Report::new();
    let found = gather(sources, &mut report);
    finish(found, options, report)
}

/// Reads a configuration from pairs of path and text; the path decides what a text is, as in [`load`].
///
/// # Errors
/// Every mistake that was found, and the notes.
pub fn load_embedded(files: &[(&str, &str)], options: &LoadOptions) -> Result<Loaded, Diagnostics> {
    let mut report = Report::new();
    let found = gather_embedded(files, &mut report);
    finish(found, options, report)
}

fn finish(found: Found, options: &LoadOptions, mut report: Report) -> Result<Loaded, Diagnostics> {
    let resources = resources::Resources::read(found, &mut report);
    let configuration = assemble::assemble(resources, options, &mut report);
    match configuration {
        Some(configuration) if !report.has_errors() => {
            // What bake would write must be what run accepts.
            if let Err(defect) = verify::configuration(&configuration) {
                report.error(
                    &Place::start_of("(all sources)"),
                    format!("the configuration does not fit together: {defect}"),
                );
                return Err(report.finish());
            }
            Ok(Loaded { configuration, notes: report.finish() })
        }
        Some(_) | None => Err(report.finish()),
    }
}
