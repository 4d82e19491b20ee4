//! Events of the broker as log lines.
//!
//! Lines that begin with `audit` have fixed words and `name=value` pairs, for programs: a denial, and the end of a connection
//! because of its credential or of the rules. What a peer can cause without being let in is said so many times a second; the
//! rest is counted.

use super::network::Network;
use super::turn::Turn;
use crate::codec::ReasonCode;
use crate::telemetry::{Action, Cause, Counters, Event};
use crate::time::Instant;

/// Lines about refused connections and denials in one second.
const REFUSALS_MAX: u32 = 50;
/// How often the totals of the audit are said, if they have changed, milliseconds.
const TOTALS_MILLISECONDS: u64 = 60_000;

/// Says what happened.
#[derive(Debug, Default)]
pub struct Reporter {
    /// The second in which so many lines were said and so many left out.
    second: u64,
    said: u32,
    left_out: u64,
    totals_due: Instant,
    totals: ([u64; Action::ALL.len()], [u64; Cause::CREDENTIAL_DRIVEN.len()], u64),
}

impl Reporter {
    /// Logs what happened since the last call.
    pub fn report<N: Network>(&mut self, now: Instant, turn: &mut Turn<N>) {
        let second = now.as_milliseconds() / 1_000;
        if second != self.second {
            (self.second, self.said) = (second, 0);
            let left_out = core::mem::take(&mut self.left_out);
            if left_out > 0 {
                log::warn!("{left_out} lines about refused connections and denials were left out");
            }
        }
        let telemetry = turn.broker().telemetry();
        while let Some(event) = telemetry.take_event() {
            if self.may_say(&event) {
                log(&event);
            }
        }
        if now >= self.totals_due {
            self.totals_due = now.plus_milliseconds(TOTALS_MILLISECONDS);
            self.say_totals(&telemetry.counters);
        }
    }

    fn may_say(&mut self, event: &Event) -> bool {
        if !matches!(event, Event::Refused { .. } | Event::Denied { .. }) {
            return true;
        }
        if self.said == REFUSALS_MAX {
            self.left_out += 1;
            return false;
        }
        self.said += 1;
        true
    }

    fn say_totals(&mut self, counters: &Counters) {
        let totals = (counters.denied, counters.credential_ends, counters.authentication_refused);
        if self.totals == totals {
            return;
        }
        self.totals = totals;
        let mut line = heapless::String::<512>::new();
        // Fits: there are eleven short words and numbers.
        for (action, count) in Action::ALL.into_iter().zip(counters.denied) {
            let _ = core::fmt::write(&mut line, format_args!(" denied-{action}={count}"));
        }
        for (cause, count) in Cause::CREDENTIAL_DRIVEN.into_iter().zip(counters.credential_ends) {
            let _ = core::fmt::write(&mut line, format_args!(" {}={count}", word(cause)));
        }
        log::info!("audit totals{line} authentication-refused={}", counters.authentication_refused);
    }
}

/// A cause of the audit in one word.
const fn word(cause: Cause) -> &'static str {
    match cause {
        Cause::CredentialExpired => "credential-expired",
        Cause::CredentialRefused => "credential-refused",
        Cause::PolicyChanged => "policy-changed",
        Cause::AuthenticationChanged => "authentication-changed",
        _ => "other",
    }
}

fn log(event: &Event) {
    match event {
        Event::Connected { client, username, method, attributes, .. } => match (username, attributes.is_empty()) {
            (None, _) => log::info!("client '{client}' connected, {method}"),
            (Some(username), true) => {
                log::info!("client '{client}' connected as '{username}', {method}, no attributes")
            }
            (Some(username), false) => {
                log::info!("client '{client}' connected as '{username}', {method}, attributes: {attributes}");
            }
        },
        Event::Refused { client, reason_code, detail, .. } => {
            let reason = ReasonCode::from_u8(*reason_code).filter(|_| *reason_code != 0);
            match reason {
                Some(reason) if client.is_empty() => {
                    log::info!("connection refused: {detail} (0x{reason_code:02X} {reason})")
                }
                Some(reason) => log::info!("client '{client}' refused: {detail} (0x{reason_code:02X} {reason})"),
                None => log::info!("connection closed: {detail}"),
            }
        }
        Event::Disconnected { who, cause, reason_code, detail } if cause.is_credential_driven() => {
            let code = reason_code.unwrap_or(0);
            log::info!("audit disconnected {who} cause='{cause}' detail='{detail}' code=0x{code:02X}");
        }
        Event::Disconnected { who, cause, reason_code, detail } => {
            let separator = if detail.is_empty() { "" } else { ": " };
            let (client, code) = (&who.client, Code(*reason_code));
            match cause {
                Cause::ClientDisconnected => log::info!("client '{client}' disconnected{code}"),
                cause => log::info!("client '{client}' closed: {cause}{separator}{detail}{code}"),
            }
        }
        Event::TableFull { table, times } => log::warn!("{table}: {times} times so far"),
        Event::SessionExpired { client } => log::info!("session of client '{client}' expired"),
        Event::StoreFailed { detail, retry_seconds } => log::error!(
            "store failed: {detail}; nothing that must be safe is acknowledged until it works again, next attempt in \
             {retry_seconds} s"
        ),
        Event::StoreRewrites => log::warn!("store: writing everything that is live into new segments"),
        Event::StoreRewritten => log::warn!("store works again: everything that was held back is safe"),
        Event::StoreFull { used_bytes } => log::error!(
            "store full: {} KiB in use; new messages, subscriptions and sessions that must be safe are refused until something \
             is taken away",
            used_bytes / 1_024
        ),
        Event::StoreHasRoom => log::warn!("store has room again"),
        Event::StoreSlow { times } => {
            log::warn!(
                "store slow: a write has taken more than a second ({times} so far); acknowledgements wait for it"
            );
        }
        // Rules only allow: what is denied is denied by the lack of one. `portcullis explain` tells the nearest.
        Event::Denied { who, action, resource, unsaid: 0 } => {
            log::info!("audit denied {who} action={action} resource='{resource}' rule=none");
        }
        Event::Denied { who, action, resource, unsaid } => {
            log::info!("audit denied {who} action={action} resource='{resource}' rule=none unsaid={unsaid}");
        }
        Event::DeniedUnsaid { who, count } => log::info!("audit denied {who} unsaid={count}"),
    }
}

/// A Reason Code at the end of a line.
struct Code(Option<u8>);

impl core::fmt::Display for Code {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(0) | None => Ok(()),
            Some(code) => write!(f, " (0x{code:02X})"),
        }
    }
}
