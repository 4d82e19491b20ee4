//! Events of the broker as log lines.
//!
//! Lines that begin with `audit` have fixed words and `name=value` pairs, for programs: a denial, and the end of a connection
//! because of its credential or of the rules. How much is said in a second is for the sink to bound.

use super::network::Network;
use super::turn::Turn;
use crate::broker::INSIDE_PREFIX;
use crate::codec::ReasonCode;
use crate::identity::AuthenticationMethod;
use crate::telemetry::{Action, Cause, Counters, Event};
use crate::time::Instant;

/// What lines say by whom they are: those of the room that has decided, though all are written here.
const AUTHENTICATION: &str = "portcullis::authentication";
const AUTHORIZATION: &str = "portcullis::authorization";
const BROKER: &str = "portcullis::broker";
const STORE: &str = "portcullis::store";

/// How often the totals of the audit are said, if they have changed, milliseconds.
const TOTALS_MILLISECONDS: u64 = 60_000;

/// Says what happened.
#[derive(Debug, Default)]
pub struct Reporter {
    totals_due: Instant,
    totals: ([u64; Action::ALL.len()], [u64; Cause::CREDENTIAL_DRIVEN.len()], u64),
}

impl Reporter {
    /// Logs what happened since the last call.
    pub fn report<N: Network>(&mut self, now: Instant, turn: &mut Turn<N>) {
        let telemetry = turn.broker().telemetry();
        while let Some(event) = telemetry.take_event() {
            log(&event);
        }
        if now >= self.totals_due {
            self.totals_due = now.plus_milliseconds(TOTALS_MILLISECONDS);
            self.say_totals(&telemetry.counters);
        }
    }

    fn say_totals(&mut self, counters: &Counters) {
        let totals = (counters.denied, counters.credential_ends(), counters.authentication_refused);
        if self.totals == totals {
            return;
        }
        self.totals = totals;
        let mut line = heapless::String::<512>::new();
        // Fits: there are eleven short words and numbers.
        for (action, count) in Action::ALL.into_iter().zip(counters.denied) {
            let _ = core::fmt::write(&mut line, format_args!(" denied-{action}={count}"));
        }
        for (cause, count) in Cause::CREDENTIAL_DRIVEN.into_iter().zip(counters.credential_ends()) {
            let _ = core::fmt::write(&mut line, format_args!(" {}={count}", cause.name()));
        }
        log::info!(target: AUTHORIZATION, "audit totals{line} authentication-refused={}", counters.authentication_refused);
    }
}

fn log(event: &Event) {
    match event {
        // The probe comes and goes all the time; bridges tell their own.
        Event::Connected { client, method: method @ AuthenticationMethod::Inside, .. } => {
            log::debug!(target: BROKER, "client '{client}' connected, {method}");
        }
        Event::Connected { client, username, method, attributes, .. } => match (username, attributes.is_empty()) {
            (None, _) => log::info!(target: BROKER, "client '{client}' connected, {method}"),
            (Some(username), true) => {
                log::info!(target: BROKER, "client '{client}' connected as '{username}', {method}, no attributes");
            }
            (Some(username), false) => {
                log::info!(
                    target: BROKER,
                    "client '{client}' connected as '{username}', {method}, attributes: {attributes}"
                );
            }
        },
        Event::Refused { client, reason_code, detail, .. } => {
            let reason = ReasonCode::from_u8(*reason_code).filter(|_| *reason_code != 0);
            match reason {
                Some(reason) if client.is_empty() => {
                    log::info!(target: AUTHENTICATION, "connection refused: {detail} (0x{reason_code:02X} {reason})")
                }
                Some(reason) => {
                    log::info!(target: AUTHENTICATION, "client '{client}' refused: {detail} (0x{reason_code:02X} {reason})")
                }
                None => log::info!(target: BROKER, "connection closed: {detail}"),
            }
        }
        Event::Disconnected { who, cause, reason_code, detail } if cause.is_credential_driven() => {
            let code = reason_code.unwrap_or(0);
            log::info!(target: AUTHENTICATION, "audit disconnected {who} cause='{cause}' detail='{detail}' code=0x{code:02X}");
        }
        Event::Disconnected { who, cause, reason_code, .. } if who.client.starts_with(INSIDE_PREFIX) => {
            log::debug!(target: BROKER, "client '{}' closed: {cause}{}", who.client, Code(*reason_code));
        }
        Event::Disconnected { who, cause, reason_code, detail } => {
            let separator = if detail.is_empty() { "" } else { ": " };
            let (client, code) = (&who.client, Code(*reason_code));
            match cause {
                Cause::ClientDisconnected => log::info!(target: BROKER, "client '{client}' disconnected{code}"),
                cause => log::info!(target: BROKER, "client '{client}' closed: {cause}{separator}{detail}{code}"),
            }
        }
        Event::TableFull { table, times } => log::warn!(target: BROKER, "{table}: {times} times so far"),
        Event::SessionExpired { client } => log::info!(target: BROKER, "session of client '{client}' expired"),
        Event::InsiderGone { client, messages } => log::warn!(
            target: BROKER,
            "'{client}' is not in the configuration any more: {messages} acknowledged messages that waited for it are dropped"
        ),
        Event::TooLargeForInsider { client, packet_bytes, times } => log::warn!(
            target: BROKER,
            "a message of {packet_bytes} bytes is larger than '{client}' takes and does not reach it ({times} so far)"
        ),
        Event::StoreFailed { detail, retry_seconds } => log::error!(
            target: STORE,
            "store failed: {detail}; nothing that must be safe is acknowledged until it works again, next attempt in \
             {retry_seconds} s"
        ),
        Event::StoreRewrites => log::warn!(target: STORE, "store: writing everything that is live into new segments"),
        Event::StoreRewritten => log::warn!(target: STORE, "store works again: everything that was held back is safe"),
        Event::StoreFull { used_bytes } => log::error!(
            target: STORE,
            "store full: {} KiB in use; new messages, subscriptions and sessions that must be safe are refused until something \
             is taken away",
            used_bytes / 1_024
        ),
        Event::StoreHasRoom => log::warn!(target: STORE, "store has room again"),
        Event::StoreSlow { times } => {
            log::warn!(
                target: STORE,
                "store slow: a write has taken more than a second ({times} so far); acknowledgements wait for it"
            );
        }
        // Rules only allow: what is denied is denied by the lack of one. `portcullis explain` tells the nearest.
        Event::Denied { who, action, resource, unsaid: 0 } => {
            log::info!(target: AUTHORIZATION, "audit denied {who} action={action} resource='{resource}' rule=none");
        }
        Event::Denied { who, action, resource, unsaid } => {
            log::info!(target: AUTHORIZATION, "audit denied {who} action={action} resource='{resource}' rule=none unsaid={unsaid}");
        }
        Event::DeniedUnsaid { who, count } => log::info!(target: AUTHORIZATION, "audit denied {who} unsaid={count}"),
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
