//! `portcullis test`: a site's expectations of its policy, one line each.

use super::CommandError;
use super::judge::{Answer, Known, Port, read_configuration};
use crate::config::diagnostic::Escaped;
use crate::config::policy_test::{PolicyQuestion, TestAction, load_policy_tests};
use crate::platform::SystemClock;
use std::io::Write;
use std::path::PathBuf;

/// What `test` was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestOptions {
    /// The file of tests.
    pub file: PathBuf,
    /// Folders and files, or one blob, instead of those that the file names. Empty: those.
    pub sources: Vec<PathBuf>,
}

/// Asks every question of the file. One line a question goes to `output`, and a closing one.
///
/// # Errors
/// [`CommandError::AnswerIsNo`] when a test failed; a file, configuration or credential that cannot be read.
pub fn run(options: &TestOptions, output: &mut dyn Write, diagnostics: &mut dyn Write) -> Result<(), CommandError> {
    let tests = match load_policy_tests(&options.file) {
        Ok(tests) => tests,
        Err(found) => {
            write!(diagnostics, "{found}")?;
            return Err(CommandError::ConfigurationRefused("the policy tests are refused".to_owned()));
        }
    };
    let sources = if options.sources.is_empty() { &tests.configuration } else { &options.sources };
    if sources.is_empty() {
        return Err(CommandError::Usage("the file names no configuration: give one with --config".to_owned()));
    }
    let configuration = read_configuration(sources, diagnostics)?;
    let port = Port::choose(&configuration, tests.port)?;
    port.revoke(sources)?;
    let now = tests.at.unwrap_or_else(SystemClock::unix);
    let mut failed = 0_usize;
    for question in &tests.questions {
        let known = port.know(&question.client, now).map_err(|error| at_its_place(question, error))?;
        let answer = match &known {
            Ok(known) => port.judge(known, &question.action),
            Err(refusal) => Answer::refusal(format!("refused at authentication: {refusal}")),
        };
        let passes = matches!(answer, Answer::Allowed(_)) == question.expects_allowed;
        failed += usize::from(!passes);
        let verdict = if passes { "pass " } else { "FAIL " };
        let (file, line) = (Escaped(&question.place.file), question.place.line);
        let name = name_of(question, known.as_ref().ok());
        write!(output, "{verdict} {file}:{line} {name}: {}", said(&answer))?;
        match (passes, question.expects_allowed) {
            (true, _) => writeln!(output)?,
            (false, true) => writeln!(output, "; expected allowed")?,
            (false, false) => writeln!(output, "; expected denied")?,
        }
    }
    writeln!(output, "{} passed, {failed} failed", tests.questions.len() - failed)?;
    if failed == 0 { Ok(()) } else { Err(CommandError::AnswerIsNo) }
}

/// A credential that cannot be used is a mistake of the test that names it.
fn at_its_place(question: &PolicyQuestion, error: CommandError) -> CommandError {
    let message = format!("{}: {error}", question.place);
    // What would be wrong usage on a command line is wrong in the file here.
    if matches!(error, CommandError::Usage(_)) {
        CommandError::ConfigurationRefused(message)
    } else {
        CommandError::CannotStart(message)
    }
}

/// The name of a test and what it asks.
fn name_of(question: &PolicyQuestion, known: Option<&Known>) -> String {
    let (action, resource) = match &question.action {
        TestAction::Connect => ("connect", None),
        TestAction::Publish(topic) => ("publish", Some(topic)),
        TestAction::Subscribe(filter) => ("subscribe", Some(filter)),
    };
    let client = &question.client;
    let credential = client.certificate.as_ref().or(client.token.as_ref());
    let name = question
        .name
        .clone()
        .or_else(|| known.and_then(|known| known.identity.username.as_deref()).map(str::to_owned))
        .or_else(|| client.client_identifier.clone())
        .or_else(|| credential.map(|path| path.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "client".to_owned());
    let resource = resource.map(|resource| format!(" {}", resource.escape_debug())).unwrap_or_default();
    format!("{} {action}{resource}", name.escape_debug())
}

fn said(answer: &Answer) -> String {
    match answer {
        Answer::Allowed(Some(rule)) => format!("allowed by {rule}"),
        Answer::Allowed(None) => "allowed: the port has no authorizationRef".to_owned(),
        Answer::Denied { reason, nearest } => match nearest.first() {
            Some((rule, near)) => format!("denied, {reason}; nearest rule {rule}: {}", near.missing),
            None => format!("denied, {reason}"),
        },
    }
}
