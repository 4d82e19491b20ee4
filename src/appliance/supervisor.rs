//! The broker as a child, under the contract that it has with systemd, sd_notify(3): it says `READY=1` when clients can come and
//! `WATCHDOG=1` while it works, and gets SIGTERM at the end.
//!
//! One that ends is started again, at once the first time and then later and later; one that says nothing for the watchdog's time
//! is killed. **Invariant:** there is never more than one.
//!
//! **Invariant:** whatever the broker says or does, the other tasks of PID 1 have their turn between two events, the hardware's watchdog
//! among them; and what is ordered or due comes before what it says.

use super::power::{self, Ending};
use super::seed::Folders;
use super::update::BLOB;
use super::{BROKER_USER, machine, mounts};
use crate::platform::kernel_bytes;
use async_io::{Async, Timer};
use async_signal::{Signal, Signals};
use core::cell::{Cell, RefCell};
use rustix::process::{Pid, Resource, Rlimit, WaitOptions, WaitStatus};
use smol::channel::{Receiver, Sender};
use smol::stream::StreamExt as _;
use smol::{LocalExecutor, future};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = "/bin/portcullis";
/// The broker's own folder for what others find while it runs.
const RUNTIME_FOLDER: &str = "/run/portcullis";
/// Where it answers.
pub const CONTROL_SOCKET: &str = "/run/portcullis/control.sock";
/// In a folder of the system's own: whoever could put another socket there would hear what the broker says.
const NOTIFY_SOCKET: &str = "/run/notify";
/// What the broker says when it has received an update.
const UPDATE_RECEIVED: &str = "X_PORTCULLIS_UPDATE=1";
/// Longest datagram that is read, bytes.
const DATAGRAM_BYTES_MAX: usize = 4_096;
/// Most datagrams that are read in a second. A broker that is as it should be sends a few in ten seconds; what is more waits in the socket,
/// which takes little, and its sender with it.
const DATAGRAMS_A_SECOND_MAX: u32 = 32;
/// How long a broker may say nothing, once it is ready.
const WATCHDOG: Duration = Duration::from_secs(30);
/// How long it may take to be ready: it reads its log first.
pub const START: Duration = Duration::from_secs(300);
/// How long it may take to end.
const STOP: Duration = Duration::from_secs(20);
/// Between an end and the next start.
const BACK_OFF: Duration = Duration::from_millis(500);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// Whoever has run for so long has earned a quick start.
const RUN: Duration = Duration::from_secs(120);
/// Open files of the broker: a connection takes one.
const FILES_MAX: u64 = 65_536;

/// Sets what the broker inherits, and what it may not do.
pub fn limit() {
    let limit = Rlimit { current: Some(FILES_MAX), maximum: Some(FILES_MAX) };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, limit) {
        log::warn!("the limit of open files cannot be raised: {error}");
    }
    // Whoever may only read a file of PID 1's must not give it a second name in a folder of his own.
    if let Err(error) = fs::write("/proc/sys/fs/protected_hardlinks", "1") {
        log::warn!("second names of files cannot be ruled out: {error}");
    }
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        log::warn!("new privileges cannot be ruled out: {error}");
    }
}

/// What the supervisor is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The machine ends.
    End(Ending),
    /// The broker ends and is started again at once, on what [`Broker`] says then.
    Restart,
}

/// What is run, and what became of it: between the supervisor and whoever changes it.
#[derive(Debug)]
pub struct Broker {
    configuration: RefCell<PathBuf>,
    is_trial: Cell<bool>,
    /// How often one said that clients can come.
    pub readies: Cell<u32>,
    /// How often one ended, or could not be started, without having been told to end.
    pub ends: Cell<u32>,
    /// Why the last of these did.
    pub reason: RefCell<String>,
}

impl Broker {
    /// One that is to run on the configuration in this folder; on trial, on that and no other.
    pub fn new(configuration: PathBuf, is_trial: bool) -> Self {
        Self {
            configuration: RefCell::new(configuration),
            is_trial: Cell::new(is_trial),
            readies: Cell::new(0),
            ends: Cell::new(0),
            reason: RefCell::default(),
        }
    }

    /// The next one that is started runs on the configuration in this folder; on trial, on that and no other.
    pub fn serve(&self, configuration: PathBuf, is_trial: bool) {
        self.configuration.replace(configuration);
        self.is_trial.set(is_trial);
    }
}

/// What PID 1 waits for.
enum Event {
    Signal(Signal),
    /// The power button, or the end of an update's work.
    Order(Order),
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
    Ordered(Order),
}

/// How the supervisor is spoken with.
pub struct Ways {
    /// Orders, and one who gives them.
    pub orders: (Sender<Order>, Receiver<Order>),
    /// Rung when the broker has received an update.
    pub bell: Sender<()>,
}

/// Serves until somebody ends the machine.
pub async fn keep(folders: &Folders, broker: &Broker, ways: Ways) -> Ending {
    let (orders, received) = ways.orders;
    let mut watch = match Watch::new(received, ways.bell) {
        Ok(watch) => watch,
        Err(error) => {
            log::error!("the broker cannot be watched: {error}");
            Timer::after(BACK_OFF_MAX).await;
            return Ending::Reboot;
        }
    };
    let buttons = LocalExecutor::new();
    power::watch_buttons(&buttons, &orders);
    buttons.run(serve(folders, broker, &mut watch)).await
}

async fn serve(folders: &Folders, broker: &Broker, watch: &mut Watch) -> Ending {
    let mut back_off = BACK_OFF;
    loop {
        let begin = Instant::now();
        let reason = match start(folders, broker) {
            Ok(child) => match live(child, broker, watch).await {
                Life::Ordered(Order::End(ending)) => return ending,
                Life::Ordered(Order::Restart) => {
                    back_off = BACK_OFF;
                    continue;
                }
                Life::Ended(reason) => reason,
            },
            Err(error) => format!("it cannot be started: {error}"),
        };
        back_off = if begin.elapsed() > RUN { BACK_OFF } else { back_off };
        log::error!("the broker has ended ({reason}); starting it again in {} ms", back_off.as_millis());
        broker.reason.replace(reason);
        broker.ends.set(broker.ends.get() + 1);
        match watch.rest(back_off).await {
            Some(Order::End(ending)) => return ending,
            Some(Order::Restart) => back_off = BACK_OFF,
            None => back_off = (back_off * 2).min(BACK_OFF_MAX),
        }
    }
}

fn start(folders: &Folders, broker: &Broker) -> io::Result<Child> {
    let state = folders.writable_state();
    let mut command = Command::new(PROGRAM);
    command.arg("run").arg("--config").arg(broker.configuration.borrow().join(BLOB)).arg("--state").arg(&state);
    if broker.is_trial.get() {
        // The last good configuration in its place would be ready, and the one on trial kept that cannot be used.
        command.arg("--no-fallback");
    }
    command
        .env_clear()
        .env("NOTIFY_SOCKET", NOTIFY_SOCKET)
        .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
        .env("STATE_DIRECTORY", &state)
        .env("RUNTIME_DIRECTORY", RUNTIME_FOLDER)
        .env("PORTCULLIS_MACHINE", machine::FILE)
        .current_dir("/")
        .stdin(Stdio::null())
        .uid(BROKER_USER)
        .gid(BROKER_USER)
        .spawn()
}

/// One life of the broker.
async fn live(child: Child, broker: &Broker, watch: &mut Watch) -> Life {
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
                            broker.readies.set(broker.readies.get() + 1);
                            state = State::Ready;
                            due = Instant::now() + WATCHDOG;
                        }
                        "READY=1" | "WATCHDOG=1" if state == State::Ready => due = Instant::now() + WATCHDOG,
                        UPDATE_RECEIVED => watch.ring(),
                        _ => {}
                    }
                }
            }
            Event::Signal(Signal::Child) => {
                if let Some(reason) = reap(pid) {
                    return ordered.map_or(Life::Ended(reason), Life::Ordered);
                }
            }
            Event::Signal(signal) => order(pid, Order::End(ending_of(signal)), &mut ordered, &mut state, &mut due),
            Event::Order(wanted) => order(pid, wanted, &mut ordered, &mut state, &mut due),
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

/// Tells the broker to end, once. That the machine ends comes before what else was to be.
fn order(pid: Pid, wanted: Order, ordered: &mut Option<Order>, state: &mut State, due: &mut Instant) {
    match ordered {
        None => {
            log::info!("the broker is told to end");
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            (*ordered, *state, *due) = (Some(wanted), State::Ending, Instant::now() + STOP);
        }
        Some(Order::Restart) => *ordered = Some(wanted),
        Some(Order::End(_)) => {}
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
    heard: Heard,
    orders: Receiver<Order>,
    bell: Sender<()>,
}

/// How much was read of what the broker says, since the first of it in this second.
#[derive(Debug)]
struct Heard {
    since: Instant,
    datagrams: u32,
}

impl Heard {
    /// Until when nothing more is to be read; not later than this: at once.
    fn rests_until(&self) -> Instant {
        if self.datagrams < DATAGRAMS_A_SECOND_MAX { self.since } else { self.since + Duration::from_secs(1) }
    }

    /// One was read.
    fn count(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self { since: now, datagrams: 0 };
        }
        self.datagrams += 1;
    }
}

impl Watch {
    fn new(orders: Receiver<Order>, bell: Sender<()>) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(RUNTIME_FOLDER)?;
        chown(RUNTIME_FOLDER, Some(BROKER_USER), Some(BROKER_USER))?;
        let notify = Async::<UnixDatagram>::bind(NOTIFY_SOCKET)?;
        chown(NOTIFY_SOCKET, Some(BROKER_USER), Some(BROKER_USER))?;
        let signals = Signals::new([Signal::Child, Signal::Int, Signal::Term, Signal::Usr2])?;
        Ok(Self { signals, notify, heard: Heard { since: Instant::now(), datagrams: 0 }, orders, bell })
    }

    async fn next(&mut self, due: Instant) -> Event {
        let Self { signals, notify, heard, orders, bell: _ } = self;
        // What comes without a pause is always ready, and nothing else would run.
        future::yield_now().await;
        let signal = async {
            match signals.next().await {
                Some(Ok(signal)) => Event::Signal(signal),
                Some(Err(_)) | None => future::pending().await,
            }
        };
        let told = async {
            Timer::at(heard.rests_until()).await;
            let mut bytes = [0; DATAGRAM_BYTES_MAX];
            match notify.recv(&mut bytes).await {
                Ok(length) => {
                    heard.count(Instant::now());
                    Event::Told(String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned())
                }
                Err(_) => future::pending().await,
            }
        };
        let order = async {
            match orders.recv().await {
                Ok(order) => Event::Order(order),
                Err(_) => future::pending().await,
            }
        };
        let late = async {
            Timer::at(due).await;
            Event::Late
        };
        future::or(future::or(order, late), future::or(signal, told)).await
    }

    /// Says that there is an update. A bell that has been rung and not been heard yet is rung.
    fn ring(&self) {
        let _ = self.bell.try_send(());
    }

    /// Waits between two lives; what is ordered meanwhile.
    async fn rest(&mut self, wait: Duration) -> Option<Order> {
        let due = Instant::now() + wait;
        loop {
            match self.next(due).await {
                Event::Late => return None,
                Event::Order(order) => return Some(order),
                Event::Signal(Signal::Child) => while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {},
                Event::Signal(signal) => return Some(Order::End(ending_of(signal))),
                // From who is gone, but for what it has left.
                Event::Told(text) => {
                    if text.lines().any(|line| line == UPDATE_RECEIVED) {
                        self.ring();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::channel;

    /// A watch, and the end of its socket that a broker has.
    fn watch(name: &str) -> (Watch, UnixDatagram) {
        let path = std::env::temp_dir().join(format!("portcullis-notify-{name}-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        let notify = Async::<UnixDatagram>::bind(&path).unwrap();
        let broker = UnixDatagram::unbound().unwrap();
        broker.connect(&path).unwrap();
        broker.set_nonblocking(true).unwrap();
        fs::remove_file(&path).unwrap();
        let signals = Signals::new([Signal::Usr2]).unwrap();
        let heard = Heard { since: Instant::now(), datagrams: 0 };
        (Watch { signals, notify, heard, orders: channel::bounded(1).1, bell: channel::bounded(1).0 }, broker)
    }

    #[test]
    fn a_flood_of_what_the_broker_says_keeps_neither_a_deadline_nor_another_task_from_its_turn() {
        let (mut watch, broker) = watch("flood");
        let fed = Cell::new(0_u32);
        let executor = LocalExecutor::new();
        let feeding = executor.spawn(async {
            loop {
                fed.set(fed.get() + 1);
                future::yield_now().await;
            }
        });
        let told = smol::block_on(executor.run(async {
            let due = Instant::now() + Duration::from_millis(100);
            let mut told = 0;
            loop {
                while broker.send(b"STATUS=x").is_ok() {}
                let is_due = Instant::now() >= due;
                match watch.next(due).await {
                    Event::Late => return told,
                    Event::Told(_) => told += 1,
                    Event::Signal(_) | Event::Order(_) => panic!("nobody sends one"),
                }
                assert!(!is_due, "{told} came before what was due");
                assert!(fed.get() >= told, "another task had {} turns in {told}", fed.get());
            }
        }));
        drop(feeding);
        assert!(fed.get() >= told);
    }

    #[test]
    fn what_is_said_beyond_so_much_a_second_is_left_unread() {
        let begin = Instant::now();
        let mut heard = Heard { since: begin, datagrams: 0 };
        let after = |milliseconds| begin + Duration::from_millis(milliseconds);
        for _ in 0..DATAGRAMS_A_SECOND_MAX {
            assert_eq!(heard.rests_until(), begin);
            heard.count(after(900));
        }
        assert_eq!(heard.rests_until(), after(1_000));
        heard.count(after(1_000));
        assert_eq!(heard.rests_until(), after(1_000), "a second later all of it may be said again");
        assert_eq!(heard.datagrams, 1);
    }
}
