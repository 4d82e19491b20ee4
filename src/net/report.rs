//! Events of the broker as log lines.

use super::network::Network;
use super::turn::Turn;
use crate::codec::ReasonCode;
use crate::telemetry::{Action, Cause, Event};

/// Logs what happened since the last call.
pub fn report<N: Network>(turn: &mut Turn<N>) {
    while let Some(event) = turn.broker().telemetry().take_event() {
        log(&event);
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
        Event::Disconnected { client, cause, reason_code, detail } => {
            let separator = if detail.is_empty() { "" } else { ": " };
            let code = Code(*reason_code);
            match cause {
                Cause::ClientDisconnected => log::info!("client '{client}' disconnected{code}"),
                cause => log::info!("client '{client}' closed: {cause}{separator}{detail}{code}"),
            }
        }
        Event::TableFull { table, times } => log::warn!("{table}: {times} refused so far"),
        Event::SessionExpired { client } => log::info!("session of client '{client}' expired"),
        Event::Denied { client, username, action, resource } => {
            let action = match action {
                Action::Connect => "connect as",
                Action::Publish => "publish to",
                Action::Subscribe => "subscribe to",
                Action::Will => "leave a will for",
                Action::KeepSubscription => "stay subscribed to",
            };
            match username {
                Some(username) => {
                    log::debug!("client '{client}' ('{username}') denied: no rule allows it to {action} '{resource}'")
                }
                None => log::debug!("client '{client}' denied: no rule allows it to {action} '{resource}'"),
            }
        }
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
