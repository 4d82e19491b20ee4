//! Follows an update until the gateway keeps it or does not, while the gateway or its broker starts again.

use super::gateway::{Gateway, Trouble};
use super::text;
use crate::bundle::{Kind, Manifest, UpdateState};
use crate::commands::CommandError;
use serde_json::Value;
use std::io::Write;
use std::time::{Duration, Instant};

/// How often the gateway is asked.
const PERIOD: Duration = Duration::from_secs(2);

/// How the update ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Kept,
    NotKept,
}

/// Says what the gateway says, until the end. `patience` is for how long it may say nothing new: it is away while it starts.
///
/// # Errors
/// [`CommandError::AnswerIsNo`]: it did not keep it, or nothing was heard of it. It has been said.
pub fn follow(
    gateway: &Gateway,
    manifest: &Manifest,
    patience: Duration,
    output: &mut dyn Write,
) -> Result<(), CommandError> {
    let mut last = String::new();
    let mut news = Instant::now();
    while news.elapsed() < patience {
        let (line, end) = match gateway.document() {
            Ok(document) => {
                let told = told(&document).unwrap_or_else(|| "it tells of no update".to_owned());
                (told, end(&document, manifest))
            }
            Err(Trouble::Away(_)) => ("no answer; it may be starting".to_owned(), None),
            Err(Trouble::Refused(_, why)) => (format!("no answer: {why}"), None),
        };
        if line != last {
            writeln!(output, "{}: {line}", gateway.name())?;
            (last, news) = (line, Instant::now());
        }
        match end {
            Some(End::Kept) => return Ok(()),
            Some(End::NotKept) => return Err(CommandError::AnswerIsNo),
            None => std::thread::sleep(PERIOD),
        }
    }
    writeln!(output, "{}: nothing new for {} s; `portcullis update` asks again", gateway.name(), patience.as_secs())?;
    Err(CommandError::AnswerIsNo)
}

/// The state that a document tells.
fn state(document: &Value) -> Option<UpdateState> {
    let word = document.get("update")?.get("state")?.as_str()?;
    UpdateState::parse(word)
}

/// Whether a document tells the end of this update. One that tells of no update is of a gateway that has started since: what runs
/// there says how it ended, if it is this.
fn end(document: &Value, manifest: &Manifest) -> Option<End> {
    let version = |name: &str| document.get(name).and_then(Value::as_u64);
    let of_this = || {
        let told = document.get("update").and_then(|update| update.get("version")).and_then(Value::as_u64);
        told.is_none_or(|told| told == manifest.version)
    };
    match state(document)? {
        UpdateState::Kept => of_this().then_some(End::Kept),
        UpdateState::Refused | UpdateState::Back => of_this().then_some(End::NotKept),
        UpdateState::Working | UpdateState::Trial => None,
        UpdateState::Idle => {
            let runs = match manifest.kind {
                Kind::System => version("version").filter(|_| document.get("trial") == Some(&Value::Bool(false))),
                Kind::Configuration => version("configurationVersion"),
            };
            (runs == Some(manifest.version)).then_some(End::Kept)
        }
    }
}

/// What a document tells of the last update, in a line; `None` where there was none.
pub fn told(document: &Value) -> Option<String> {
    let update = document.get("update").unwrap_or(&Value::Null);
    let word = match state(document) {
        None | Some(UpdateState::Idle) => return None,
        Some(UpdateState::Working) => "is worked on",
        Some(UpdateState::Trial) => "runs for a trial",
        Some(UpdateState::Kept) => "is kept",
        Some(UpdateState::Refused) => "is refused",
        Some(UpdateState::Back) => "was not kept, what ran before runs again",
    };
    let why = match update.get("text").and_then(Value::as_str) {
        Some(_) => format!(": {}", text(update, "text")),
        None => String::new(),
    };
    let what = match update.get("version").and_then(Value::as_u64) {
        Some(version) => format!("version {version}"),
        None => "an update".to_owned(),
    };
    Some(format!("{what} {word}{why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest(kind: Kind) -> Manifest {
        Manifest { kind, board: String::new(), version: 8, release: String::new(), bytes: 0, digest: [0; 32] }
    }

    #[test]
    fn an_end_is_that_of_the_same_version() {
        for (state, version, expected) in [
            ("kept", json!(8), Some(End::Kept)),
            ("kept", json!(7), None),
            ("refused", json!(8), Some(End::NotKept)),
            ("refused", json!(null), Some(End::NotKept)),
            ("back", json!(8), Some(End::NotKept)),
            ("back", json!(9), None),
            ("working", json!(8), None),
            ("trial", json!(8), None),
            ("dancing", json!(8), None),
        ] {
            let document = json!({"update": {"state": state, "version": version}});
            assert_eq!(end(&document, &manifest(Kind::System)), expected, "{document}");
        }
        assert_eq!(end(&json!({}), &manifest(Kind::System)), None);
    }

    #[test]
    fn what_runs_tells_the_end_where_the_gateway_has_started_since() {
        let document = json!({"version": 8, "trial": false, "configurationVersion": 3, "update": {"state": "idle"}});
        assert_eq!(end(&document, &manifest(Kind::System)), Some(End::Kept));
        assert_eq!(end(&document, &manifest(Kind::Configuration)), None);
        let document = json!({"version": 8, "trial": true, "configurationVersion": 8, "update": {"state": "idle"}});
        assert_eq!(end(&document, &manifest(Kind::System)), None);
        assert_eq!(end(&document, &manifest(Kind::Configuration)), Some(End::Kept));
    }

    #[test]
    fn what_is_told_is_escaped() {
        let document = json!({"update": {"state": "back", "version": 8, "text": "not\u{1b}[2J ready"}});
        let told = told(&document);
        let unread = json!({"update": {"state": "working", "version": null, "text": "it is being checked"}});
        assert_eq!(super::told(&unread).as_deref(), Some("an update is worked on: it is being checked"));
        assert_eq!(told.as_deref(), Some("version 8 was not kept, what ran before runs again: not\\u{1b}[2J ready"));
    }
}
