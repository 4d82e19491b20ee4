//! PID 1 of the SD-card image. A program of its own, so that the broker's stays as small as it is, and so that what must never end
//! has little in it that could.

use std::process::ExitCode;

fn main() -> ExitCode {
    portcullis::appliance::run();
    ExitCode::FAILURE
}
