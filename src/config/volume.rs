//! `diskBackedMessageBuffer` of a Broker, and volume claims: checked against the vendor's schema; nothing of them is used.
//!
//! They are read in full all the same, so that a file with a mistake in them is told of the mistake.

use super::diagnostic::{Report, quoted};
use super::source::Node;
use super::source::walk::{Fields, full_text, sequence, text, text_map, texts};

/// `diskBackedMessageBuffer`.
pub fn disk_backed_message_buffer(node: &Node, report: &mut Report) {
    let Some(mut fields) = Fields::of(node, "diskBackedMessageBuffer", report) else { return };
    if let Some(node) = fields.required("maxSize", report) {
        size(node, report);
    }
    for name in ["ephemeralVolumeClaimSpec", "persistentVolumeClaimSpec"] {
        if let Some(node) = fields.optional(name) {
            volume_claim(node, report);
        }
    }
    fields.finish(report);
}

/// A size as `^[0-9]+[KMGTPE]$`.
fn size(node: &Node, report: &mut Report) {
    let Some(given) = full_text(node, "maxSize", report) else { return };
    let digits = given.strip_suffix(['K', 'M', 'G', 'T', 'P', 'E']).unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        report.error(
            &node.place,
            format!("maxSize must be digits and one of K, M, G, T, P, E, and this is {}", quoted(given)),
        );
    }
}

/// A volume claim of the cluster.
pub(super) fn volume_claim(node: &Node, report: &mut Report) {
    let Some(mut fields) = Fields::of(node, "the volume claim", report) else { return };
    optional_texts(&mut fields, &["storageClassName", "volumeMode", "volumeName"], report);
    if let Some(node) = fields.optional("accessModes") {
        texts(node, "accessModes", report);
    }
    for name in ["dataSource", "dataSourceRef"] {
        if let Some(node) = fields.optional(name)
            && let Some(mut source) = Fields::of(node, name, report)
        {
            for name in ["kind", "name"] {
                if let Some(node) = source.required(name, report) {
                    text(node, name, report);
                }
            }
            optional_texts(&mut source, &["apiGroup"], report);
            if name == "dataSourceRef" {
                optional_texts(&mut source, &["namespace"], report);
            }
            source.finish(report);
        }
    }
    if let Some(node) = fields.optional("resources") {
        resources(node, report);
    }
    if let Some(node) = fields.optional("selector") {
        selector(node, report);
    }
    fields.finish(report);
}

fn optional_texts(fields: &mut Fields<'_>, names: &[&'static str], report: &mut Report) {
    for name in names {
        if let Some(node) = fields.optional(name) {
            text(node, name, report);
        }
    }
}

fn resources(node: &Node, report: &mut Report) {
    let Some(mut fields) = Fields::of(node, "resources", report) else { return };
    for name in ["limits", "requests"] {
        if let Some(node) = fields.optional(name) {
            text_map(node, name, report);
        }
    }
    if let Some(node) = fields.optional("claims") {
        for node in sequence(node, "claims", report).unwrap_or_default() {
            let Some(mut claim) = Fields::of(node, "claims[]", report) else { continue };
            if let Some(node) = claim.required("name", report) {
                text(node, "name", report);
            }
            claim.finish(report);
        }
    }
    fields.finish(report);
}

fn selector(node: &Node, report: &mut Report) {
    let Some(mut fields) = Fields::of(node, "selector", report) else { return };
    if let Some(node) = fields.optional("matchLabels") {
        text_map(node, "matchLabels", report);
    }
    if let Some(node) = fields.optional("matchExpressions") {
        for node in sequence(node, "matchExpressions", report).unwrap_or_default() {
            let Some(mut expression) = Fields::of(node, "matchExpressions[]", report) else { continue };
            for name in ["key", "operator"] {
                if let Some(node) = expression.required(name, report) {
                    text(node, name, report);
                }
            }
            if let Some(node) = expression.optional("values") {
                texts(node, "values", report);
            }
            expression.finish(report);
        }
    }
    fields.finish(report);
}
