//! What a run leaves out because this machine lacks something: said where it happens, and once more at the end of the gate.
//!
//! The parts are lines of a file, so that tests, which are other processes, add theirs: `PORTCULLIS_LEFT_OUT` names it to them.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use crate::process::{Failure, Outcome};
use crate::workspace;

/// Where the parts are.
pub fn file() -> PathBuf {
    workspace::target_folder().join("left-out")
}

/// Begins a run, which has left out nothing yet.
pub fn begin() -> Outcome {
    workspace::make_folder(&workspace::target_folder())?;
    workspace::write(&file(), "")
}

/// A part is left out: which one, and why.
pub fn tell(part: &str) -> Outcome {
    println!("LEFT OUT: {part}");
    let file = file();
    let line = part.split_whitespace().collect::<Vec<_>>().join(" ");
    let opened = OpenOptions::new().create(true).append(true).open(&file);
    opened.and_then(|mut opened| writeln!(opened, "{line}")).map_err(|error| Failure::file("write", &file, &error))
}

/// What was left out since the run has begun.
pub fn parts() -> Outcome<Vec<String>> {
    let file = file();
    let text = fs::read_to_string(&file).map_err(|error| Failure::file("read", &file, &error))?;
    Ok(text.lines().map(str::to_owned).collect())
}
