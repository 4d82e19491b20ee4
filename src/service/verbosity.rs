//! SIGUSR1: the log says one step more, without a restart.

use crate::platform;
use async_signal::{Signal, Signals};
use smol::stream::StreamExt as _;
use std::io;

/// From now on SIGUSR1 does not end the program: [`say_more_on`] hears of it.
///
/// # Errors
/// The system has no room for a signal's handler.
pub fn first_user_signals() -> io::Result<Signals> {
    Signals::new([Signal::Usr1])
}

/// Has all rooms say one step more at each signal.
pub async fn say_more_on(mut signals: Signals) {
    while let Some(Ok(_)) = signals.next().await {
        let levels = platform::say_more();
        log::error!("SIGUSR1: the log level is {levels}");
    }
}
