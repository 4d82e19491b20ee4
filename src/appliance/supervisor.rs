//! The broker as a child, under the contract that it has with systemd, sd_notify(3): it says `READY=1` when clients can come and
//! `WATCHDOG=1` while it works, and gets SIGTERM at the end.
//!
//! One that ends is started again, at once the first time and then later and later; one that says nothing for the watchdog's time
//! is killed. **Invariant:** there is never more than one.

use super::power::{self, Ending};
use super::seed::Folders;
use super::{BROKER_USER, mounts};
use crate::platform::kernel_bytes;
use async_io::{Async, Timer};
use async_signal::{Signal, Signals};
use rustix::process::{Pid, Resource, Rlimit, WaitOptions, WaitStatus};
use smol::channel::{self, Receiver};
use smol::stream::StreamExt as _;
use smol::{LocalExecutor, future};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = "/bin/portcullis";
const NOTIFY_FOLDER: &str = "/run/portcullis";
const NOTIFY_SOCKET: &str = "/run/portcullis/notify";
/// Longest datagram that is read, bytes.
const DATAGRAM_BYTES_MAX: usize = 4_096;
/// How long a broker may say nothing, once it is ready.
const WATCHDOG: Duration = Duration::from_secs(30);
/// How long it may take to be ready: it reads its log first.
const START: Duration = Duration::from_secs(300);
/// How long it may take to end.
const STOP: Duration = Duration::from_secs(20);
/// Between an end and the next start.
const BACK_OFF: Duration = Duration::from_millis(500);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// Whoever has run for so long has earned a quick start.
const RUN: Duration = Duration::from_secs(120);
/// Open files of the broker: a connection takes one.
const FILES_MAX: u64 = 65_536;

/// Sets what the broker inherits.
pub fn limit() {
    let limit = Rlimit { current: Some(FILES_MAX), maximum: Some(FILES_MAX) };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, limit) {
        log::warn!("the limit of open files cannot be raised: {error}");
    }
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        log::warn!("new privileges cannot be ruled out: {error}");
    }
}

/// What PID 1 waits for.
enum Event {
    Signal(Signal),
    /// The power button.
    Ending(Ending),
    /// The broker says something, in these lines.
    Told(String),
    /// It was due.
    Late,
}

/// What the broker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Ready,
    /// It was told to end.
    Ending,
}

/// How one life of the broker ended.
enum Life {
    Ended(String),
    Ordered(Ending),
}

/// Serves until somebody ends the machine.
pub async fn keep(folders: &Folders) -> Ending {
    let mut watch = match Watch::new() {
        Ok(watch) => watch,
        Err(error) => {
            log::error!("the broker cannot be watched: {error}");
            Timer::after(BACK_OFF_MAX).await;
            return Ending::Reboot;
        }
    };
    let buttons = LocalExecutor::new();
    let (pressed, endings) = channel::bounded(1);
    power::watch_buttons(&buttons, &pressed);
    watch.endings = Some(endings);
    buttons.run(serve(folders, &mut watch)).await
}

async fn serve(folders: &Folders, watch: &mut Watch) -> Ending {
    let mut back_off = BACK_OFF;
    loop {
        let begin = Instant::now();
        let reason = match start(folders) {
            Ok(child) => match live(child, watch).await {
                Life::Ordered(ending) => return ending,
                Life::Ended(reason) => reason,
            },
            Err(error) => format!("it cannot be started: {error}"),
        };
        back_off = if begin.elapsed() > RUN { BACK_OFF } else { back_off };
        log::error!("the broker has ended ({reason}); starting it again in {} ms", back_off.as_millis());
        if let Some(ending) = watch.rest(back_off).await {
            return ending;
        }
        back_off = (back_off * 2).min(BACK_OFF_MAX);
    }
}

fn start(folders: &Folders) -> io::Result<Child> {
    let state = folders.writable_state();
    Command::new(PROGRAM)
        .arg("run")
        .arg("--config")
        .arg(folders.configuration.join("portcullis.blob"))
        .arg("--state")
        .arg(&state)
        .env_clear()
        .env("NOTIFY_SOCKET", NOTIFY_SOCKET)
        .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
        .env("STATE_DIRECTORY", &state)
        .current_dir("/")
        .stdin(Stdio::null())
        .uid(BROKER_USER)
        .gid(BROKER_USER)
        .spawn()
}

/// One life of the broker.
async fn live(child: Child, watch: &mut Watch) -> Life {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return Life::Ended("it has no number".to_owned());
    };
    let mut state = State::Starting;
    let mut due = Instant::now() + START;
    let mut ordered = None;
    loop {
        match watch.next(due).await {
            Event::Told(text) => {
                for line in text.lines() {
                    match line {
                        "READY=1" if state == State::Starting => {
                            log::info!("the broker is ready, {} s after power-on; {}", uptime(), memory());
                            state = State::Ready;
                            due = Instant::now() + WATCHDOG;
                        }
                        "READY=1" | "WATCHDOG=1" if state == State::Ready => due = Instant::now() + WATCHDOG,
                        _ => {}
                    }
                }
            }
            Event::Signal(Signal::Child) => {
                if let Some(reason) = reap(pid) {
                    return ordered.map_or(Life::Ended(reason), Life::Ordered);
                }
            }
            Event::Signal(signal) => order(pid, ending_of(signal), &mut ordered, &mut state, &mut due),
            Event::Ending(ending) => order(pid, ending, &mut ordered, &mut state, &mut due),
            Event::Late => {
                log::error!(
                    "the broker {}: killing it",
                    match state {
                        State::Starting => "does not get ready",
                        State::Ready => "hangs",
                        State::Ending => "does not end",
                    }
                );
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                due = Instant::now() + STOP;
            }
        }
    }
}

/// Tells the broker to end, once.
fn order(pid: Pid, ending: Ending, ordered: &mut Option<Ending>, state: &mut State, due: &mut Instant) {
    if ordered.is_none() {
        log::info!("told to end");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        (*ordered, *state, *due) = (Some(ending), State::Ending, Instant::now() + STOP);
    }
}

/// What a signal asks for, as busybox's commands mean it; Ctrl-Alt-Del comes as SIGINT.
fn ending_of(signal: Signal) -> Ending {
    if signal == Signal::Usr2 { Ending::PowerOff } else { Ending::Reboot }
}

/// Collects all children that have ended; how the broker did, if it is among them.
fn reap(broker: Pid) -> Option<String> {
    let mut reason = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == broker {
            reason = Some(told(status));
        }
    }
    reason
}

fn told(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "for a reason unknown".to_owned(),
    }
}

fn uptime() -> String {
    mounts::text("/proc/uptime").and_then(|text| text.split_whitespace().next().map(str::to_owned)).unwrap_or_default()
}

/// How much memory is left for what is to come, in words.
fn memory() -> String {
    let text = mounts::text("/proc/meminfo").unwrap_or_default();
    let mebibytes = |name: &str| Some(kernel_bytes(&text, name)? >> 20);
    match (mebibytes("MemAvailable"), mebibytes("MemTotal")) {
        (Some(available), Some(total)) => format!("{available} of {total} MiB of memory available"),
        _ => "memory unknown".to_owned(),
    }
}

/// All that PID 1 waits for.
struct Watch {
    signals: Signals,
    notify: Async<UnixDatagram>,
    endings: Option<Receiver<Ending>>,
}

impl Watch {
    fn new() -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(NOTIFY_FOLDER)?;
        let notify = Async::<UnixDatagram>::bind(NOTIFY_SOCKET)?;
        chown(NOTIFY_SOCKET, Some(BROKER_USER), Some(BROKER_USER))?;
        let signals = Signals::new([Signal::Child, Signal::Int, Signal::Term, Signal::Usr2])?;
        Ok(Self { signals, notify, endings: None })
    }

    async fn next(&mut self, due: Instant) -> Event {
        let Self { signals, notify, endings } = self;
        let signal = async {
            match signals.next().await {
                Some(Ok(signal)) => Event::Signal(signal),
                Some(Err(_)) | None => future::pending().await,
            }
        };
        let told = async {
            let mut bytes = [0; DATAGRAM_BYTES_MAX];
            match notify.recv(&mut bytes).await {
                Ok(length) => {
                    Event::Told(String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned())
                }
                Err(_) => future::pending().await,
            }
        };
        let ending = async {
            match endings {
                Some(endings) => match endings.recv().await {
                    Ok(ending) => Event::Ending(ending),
                    Err(_) => future::pending().await,
                },
                None => future::pending().await,
            }
        };
        let late = async {
            Timer::at(due).await;
            Event::Late
        };
        future::or(future::or(signal, told), future::or(ending, late)).await
    }

    /// Waits between two lives; how the machine is to end, if it is.
    async fn rest(&mut self, wait: Duration) -> Option<Ending> {
        let due = Instant::now() + wait;
        loop {
            match self.next(due).await {
                Event::Late => return None,
                Event::Ending(ending) => return Some(ending),
                Event::Signal(Signal::Child) => while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {},
                Event::Signal(signal) => return Some(ending_of(signal)),
                // From who is gone.
                Event::Told(_) => {}
            }
        }
    }
}
