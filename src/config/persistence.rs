//! `persistence` of a Broker: what outlives a restart.
//!
//! A Broker without it keeps everything ([`Persistence::default`]); one with it keeps what it names and nothing else, as
//! the vendor's does (azure-model §4.4). What a gateway cannot do (a state store, encryption) is checked and refused.

use super::blob::{Kept, Persistence};
use super::broker::{SWITCH, note_no_effect};
use super::diagnostic::{Report, quoted};
use super::kept::{PATTERN_BYTES_MAX, PATTERNS_MAX, SIZE_BYTES};
use super::source::Node;
use super::source::walk::{Fields, choice, full_text, sequence, texts, topic_filter};
use super::volume::volume_claim;
use crate::limits::CLIENT_IDENTIFIER_BYTES_MAX;

/// `maxSize` must be more than this in the vendor's cluster.
const VENDOR_SIZE_BYTES: u64 = 100_000_000;

/// Reads the node. Where it has a mistake, the report has an error and what comes back means nothing.
pub fn read(node: &Node, report: &mut Report) -> Persistence {
    let mut persistence = Persistence { retain: Kept::None, subscriber_queue: Kept::None, ..Persistence::default() };
    let Some(mut fields) = Fields::of(node, "persistence", report) else { return persistence };
    if let Some(node) = fields.required("maxSize", report)
        && let Some(bytes) = size(node, report)
    {
        persistence.size_bytes = bytes;
    }
    if let Some(node) = fields.optional("persistentVolumeClaimSpec") {
        volume_claim(node, report);
        note_no_effect(node, "persistence.persistentVolumeClaimSpec", report);
    }
    encryption(&mut fields, report);
    for (name, policy, kept) in [
        ("retain", &RETAIN, &mut persistence.retain),
        ("subscriberQueue", &SUBSCRIBER_QUEUE, &mut persistence.subscriber_queue),
    ] {
        match fields.optional(name) {
            Some(node) => *kept = policy.read(node, report).unwrap_or(Kept::None),
            None => {
                let message =
                    format!("persistence without {name} means the mode None: a restart loses {}", policy.lost);
                report.note(&node.place, message);
            }
        }
    }
    if let Some(node) = fields.optional("stateStore")
        && STATE_STORE.read(node, report).is_some_and(|kept| kept != Kept::None)
    {
        report.error(&node.place, "the mode of persistence.stateStore must be None: this version has no state store");
    }
    fields.finish(report);
    persistence
}

/// `maxSize`: a quantity of Kubernetes, since the vendor makes a volume claim of it. The schema has no form for it; that of
/// `diskBackedMessageBuffer` has one letter, which counts in powers of 1000.
fn size(node: &Node, report: &mut Report) -> Option<u64> {
    let given = full_text(node, "persistence.maxSize", report)?;
    let Some(bytes) = quantity(given) else {
        let message = format!(
            "persistence.maxSize must be digits and one of K, M, G, T, P, E (powers of 1000) or Ki, Mi, Gi, Ti, Pi, Ei \
             (powers of 1024), and this is {}",
            quoted(given)
        );
        report.error(&node.place, message);
        return None;
    };
    if !SIZE_BYTES.contains(&bytes) {
        let (low, high) = (SIZE_BYTES.start(), SIZE_BYTES.end());
        report.error(&node.place, format!("persistence.maxSize is {}, outside {low} to {high} bytes", quoted(given)));
        return None;
    }
    if bytes <= VENDOR_SIZE_BYTES {
        let message = format!("persistence.maxSize is {}, and the vendor's broker needs more than 100M", quoted(given));
        report.note(&node.place, message);
    }
    Some(bytes)
}

/// Bytes; those beyond 64 bits count as the most that there are.
fn quantity(given: &str) -> Option<u64> {
    let (base, given) = given.strip_suffix('i').map_or((1_000_u64, given), |given| (1_024, given));
    let (exponent, digits) = (1..)
        .zip("KMGTPE".chars())
        .find_map(|(exponent, unit)| given.strip_suffix(unit).map(|digits| (exponent, digits)))?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(base.saturating_pow(exponent)))
}

fn encryption(fields: &mut Fields<'_>, report: &mut Report) {
    let Some(node) = fields.optional("encryption") else {
        let message = "what persistence writes is not encrypted here (the vendor's default is Enabled): put the state folder \
                       on an encrypted file system where that matters, and write encryption: {mode: Disabled}";
        report.note(fields.place(), message);
        return;
    };
    let Some(mut encryption) = Fields::of(node, "persistence.encryption", report) else { return };
    if let Some(node) = encryption.required("mode", report)
        && choice(node, "persistence.encryption.mode", &SWITCH, report) == Some(true)
    {
        let message = "this broker does not encrypt what it writes: put the state folder on an encrypted file system, and \
                       write Disabled";
        report.error(&node.place, message);
    }
    encryption.finish(report);
}

/// The names of one of the three policies, and what is in its list.
struct Policy {
    /// For messages.
    what: &'static str,
    /// The field with the settings of mode Custom.
    settings: &'static str,
    /// The field with the list in them.
    list: &'static str,
    /// Reads the list.
    read_list: fn(&Node, &mut Report) -> Vec<String>,
    /// What a restart loses in mode None.
    lost: &'static str,
}

const RETAIN: Policy = Policy {
    what: "persistence.retain",
    settings: "retainSettings",
    list: "topics",
    read_list: |node, report| patterns(node, "topics", topic, report),
    lost: "retained messages",
};
const SUBSCRIBER_QUEUE: Policy = Policy {
    what: "persistence.subscriberQueue",
    settings: "subscriberQueueSettings",
    list: "subscriberClientIds",
    read_list: |node, report| patterns(node, "subscriberClientIds", client_identifier, report),
    lost: "queued messages",
};
const STATE_STORE: Policy = Policy {
    what: "persistence.stateStore",
    settings: "stateStoreSettings",
    list: "stateStoreResources",
    read_list: state_store_resources,
    lost: "the state store",
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    None,
    All,
    Custom,
}

impl Policy {
    /// Reads `{mode: None | All | Custom}`, with settings where the mode is Custom.
    fn read(&self, node: &Node, report: &mut Report) -> Option<Kept> {
        const MODES: [(&str, Mode); 3] = [("None", Mode::None), ("All", Mode::All), ("Custom", Mode::Custom)];
        let mut fields = Fields::of(node, self.what, report)?;
        let mode = fields.required("mode", report).and_then(|node| choice(node, "mode", &MODES, report));
        let body = match mode {
            Some(Mode::Custom) => fields.required(self.settings, report),
            Some(Mode::None | Mode::All) | None => fields.optional(self.settings),
        };
        if let (Some(Mode::None | Mode::All), Some(node)) = (mode, body) {
            report.error(&node.place, format!("{} belongs to mode Custom", self.settings));
        }
        let settings = body.and_then(|node| self.settings(node, report));
        fields.finish(report);
        match mode? {
            Mode::None => Some(Kept::None),
            Mode::All => Some(Kept::All),
            Mode::Custom => settings,
        }
    }

    fn settings(&self, node: &Node, report: &mut Report) -> Option<Kept> {
        let mut fields = Fields::of(node, self.settings, report)?;
        let list = fields.optional(self.list);
        let patterns = list.map(|node| (self.read_list)(node, report)).unwrap_or_default();
        let mut dynamic = false;
        if let Some(node) = fields.optional("dynamic")
            && let Some(mut fields) = Fields::of(node, "dynamic", report)
        {
            let mode = fields.required("mode", report);
            dynamic = mode.and_then(|node| choice(node, "dynamic.mode", &SWITCH, report)).unwrap_or(false);
            fields.finish(report);
        }
        fields.finish(report);
        if list.is_none() && !dynamic {
            let (settings, list) = (self.settings, self.list);
            let message =
                format!("{settings} covers nothing: it needs {list}, or dynamic: {{mode: Enabled}}, or the mode None");
            report.error(&node.place, message);
        }
        Some(Kept::Some { patterns, dynamic })
    }
}

/// A list of patterns, each of which `check` looks at.
fn patterns(node: &Node, list: &'static str, check: fn(&str, &Node, &mut Report), report: &mut Report) -> Vec<String> {
    let Some(elements) = sequence(node, list, report) else { return Vec::new() };
    if !(1..=PATTERNS_MAX).contains(&elements.len()) {
        report.error(&node.place, format!("{list} has {} elements, outside 1 to {PATTERNS_MAX}", elements.len()));
        return Vec::new();
    }
    let mut patterns: Vec<String> = Vec::new();
    for (pattern, node) in texts(node, list, report).unwrap_or_default() {
        if patterns.iter().any(|earlier| earlier == pattern) {
            report.error(&node.place, format!("{} stands here twice", quoted(pattern)));
        }
        check(pattern, node, report);
        patterns.push(pattern.to_owned());
    }
    let bytes: usize = patterns.iter().map(String::len).sum();
    if bytes > PATTERN_BYTES_MAX {
        report.error(&node.place, format!("{list} takes {bytes} bytes, and {PATTERN_BYTES_MAX} is the most"));
    }
    patterns
}

fn topic(filter: &str, node: &Node, report: &mut Report) {
    if topic_filter(filter, node, report) && filter.starts_with("$share/") {
        let message = format!("{}: a message is retained under a topic, not for a shared subscription", quoted(filter));
        report.error(&node.place, message);
    }
}

fn client_identifier(pattern: &str, node: &Node, report: &mut Report) {
    let literal = pattern.bytes().filter(|byte| *byte != b'*').count();
    if pattern.is_empty() {
        report.error(&node.place, "a client identifier must not be empty");
    } else if pattern.contains('\0') {
        report.error(&node.place, format!("{} contains U+0000, and no client identifier does", quoted(pattern)));
    } else if literal > CLIENT_IDENTIFIER_BYTES_MAX {
        let message =
            format!("a client identifier has at most {CLIENT_IDENTIFIER_BYTES_MAX} bytes, and this has {literal}");
        report.error(&node.place, message);
    }
}

/// `stateStoreResources`, of which nothing is kept.
fn state_store_resources(node: &Node, report: &mut Report) -> Vec<String> {
    for node in sequence(node, "stateStoreResources", report).unwrap_or_default() {
        let Some(mut fields) = Fields::of(node, "stateStoreResources[]", report) else { continue };
        if let Some(node) = fields.required("keyType", report) {
            choice(node, "keyType", &[("Pattern", ()), ("String", ()), ("Binary", ())], report);
        }
        if let Some(node) = fields.required("keys", report) {
            texts(node, "keys", report);
        }
        fields.finish(report);
    }
    Vec::new()
}
