//! Where the process sleeps: one epoll, which watches the sockets and a bell.
//!
//! The executor of the process runs until none of its tasks can go on; then its thread waits here, for sockets, for the loop's
//! deadline, or for the bell, which wakers of tasks ring from other threads: the reactor of slow tasks, the writer of the log.
//! A message that comes alone costs three system calls: the wait, its read and its write. A reactor that the loop shared with all
//! other tasks would take eight more, for a timer and a notification that nobody needs.
//!
//! **Invariant:** whoever wakes a task after the executor has run it is heard before, or by, the next wait.

use super::network::Readiness;
use core::cell::RefCell;
use core::future::Future;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Wake;
use std::thread::{self, ThreadId};
use std::time::Instant;

/// Most events taken from the system at once.
const EVENTS_MAX: usize = 256;
/// The bell among the sockets, whose tokens are keys of connections or indices of listeners.
const BELL: u64 = u64::MAX;

/// Wakes the executor.
struct Bell {
    has_rung: AtomicBool,
    descriptor: OwnedFd,
    /// The thread that sleeps: when it wakes a task itself it is awake.
    sleeper: ThreadId,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.has_rung.swap(true, Ordering::AcqRel) && thread::current().id() != self.sleeper {
            // Fails only when it has been rung some 2^64 times.
            let _ = rustix::io::write(&self.descriptor, &1_u64.to_ne_bytes());
        }
    }
}

/// What the loop waits for, and what has come.
#[derive(Default)]
struct Wait {
    /// Who waits.
    waker: Option<Waker>,
    deadline: Option<Instant>,
    is_over: bool,
    ready: Vec<Readiness>,
}

/// The place to sleep, shared by the thread that sleeps and the loop that is woken for sockets.
#[derive(Clone)]
pub struct Sleeper {
    epoll: Rc<OwnedFd>,
    bell: Arc<Bell>,
    wait: Rc<RefCell<Wait>>,
}

impl Sleeper {
    /// A place for this thread to sleep in `epoll`, which watches the loop's sockets.
    ///
    /// # Errors
    /// What the system says when it has no descriptor left.
    pub fn new(epoll: BorrowedFd<'_>) -> io::Result<Self> {
        let epoll = epoll.try_clone_to_owned()?;
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &descriptor, EventData::new_u64(BELL), EventFlags::IN)?;
        let bell = Bell { has_rung: AtomicBool::new(false), descriptor, sleeper: thread::current().id() };
        Ok(Self { epoll: Rc::new(epoll), bell: Arc::new(bell), wait: Rc::default() })
    }

    /// Waits until sockets are ready or `time` is over; `None`: for sockets only. Puts into `ready`, which is cleared first, what
    /// is ready. To be asked again until it says so, with the same task.
    pub fn poll_ready(
        &self,
        context: &mut Context<'_>,
        time: Option<Duration>,
        ready: &mut Vec<Readiness>,
    ) -> Poll<()> {
        let mut wait = self.wait.borrow_mut();
        if core::mem::take(&mut wait.is_over) {
            wait.waker = None;
            core::mem::swap(&mut wait.ready, ready);
            return Poll::Ready(());
        }
        match &mut wait.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => {
                wait.deadline = time.map(|time| Instant::now() + time);
                wait.waker = Some(context.waker().clone());
            }
        }
        Poll::Pending
    }

    /// Gives up waiting: something else has come first. What was ready is ready the next time too.
    pub fn give_up(&self) {
        let mut wait = self.wait.borrow_mut();
        (wait.waker, wait.is_over) = (None, false);
    }

    /// Runs `executor`, which polls all tasks, to its end, and sleeps while none of them can go on.
    ///
    /// # Errors
    /// What the system says when it cannot wait.
    pub fn run<T>(&self, executor: impl Future<Output = T>) -> io::Result<T> {
        let mut executor = pin!(executor);
        let waker = Waker::from(Arc::clone(&self.bell));
        let mut context = Context::from_waker(&waker);
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            // Whoever has woken a task until now is heard by this.
            self.bell.has_rung.swap(false, Ordering::AcqRel);
            if let Poll::Ready(result) = executor.as_mut().poll(&mut context) {
                return Ok(result);
            }
            self.sleep(&mut events)?;
        }
    }

    fn sleep(&self, events: &mut Vec<Event>) -> io::Result<()> {
        let has_rung = self.bell.has_rung.load(Ordering::Acquire);
        let deadline = {
            let wait = self.wait.borrow();
            wait.deadline.filter(|_| wait.waker.is_some())
        };
        let time = if has_rung {
            Some(Duration::ZERO)
        } else {
            deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
        };
        events.clear();
        // Times beyond what the system can express are for ever.
        let time = time.and_then(|time| Timespec::try_from(time).ok());
        match epoll::wait(&self.epoll, spare_capacity(events), time.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut wait = self.wait.borrow_mut();
        wait.ready.clear();
        for event in events.iter() {
            if event.data.u64() == BELL {
                let _ = rustix::io::read(&self.bell.descriptor, &mut [0_u8; 8]);
            } else {
                wait.ready.push(readiness(event));
            }
        }
        let is_due = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if !wait.ready.is_empty() || is_due() {
            let waker = wait.waker.clone();
            wait.is_over = waker.is_some();
            drop(wait);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        Ok(())
    }
}

fn readiness(event: &Event) -> Readiness {
    let flags = event.flags;
    Readiness {
        token: event.data.u64(),
        readable: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP),
        writable: flags.intersects(EventFlags::OUT | EventFlags::ERR),
        hung_up: flags.intersects(EventFlags::HUP | EventFlags::ERR),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use core::future::poll_fn;
    use rustix::event::epoll::CreateFlags;
    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    fn sleeper() -> (OwnedFd, Sleeper) {
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let sleeper = Sleeper::new(epoll.as_fd()).unwrap();
        (epoll, sleeper)
    }

    #[test]
    fn a_wait_ends_with_its_time_or_with_a_socket() {
        let (epoll, sleeper) = sleeper();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        epoll::add(&epoll, &theirs, EventData::new_u64(7), EventFlags::IN).unwrap();
        let mut ready = Vec::new();
        let mut wait = |time| {
            let waited = poll_fn(|context| sleeper.poll_ready(context, Some(time), &mut ready));
            sleeper.run(waited).unwrap();
            ready.iter().map(|ready| ready.token).collect::<Vec<_>>()
        };
        assert!(wait(Duration::from_millis(1)).is_empty());
        ours.write_all(b"x").unwrap();
        assert_eq!(wait(Duration::from_secs(60)), [7]);
    }

    #[test]
    fn a_task_that_another_thread_wakes_is_run_while_the_loop_waits_for_sockets() {
        let (_epoll, sleeper) = sleeper();
        let executor = smol::LocalExecutor::new();
        let (sender, receiver) = smol::channel::bounded(1);
        let waits = sleeper.clone();
        executor
            .spawn(async move {
                let mut ready = Vec::new();
                poll_fn(|context| waits.poll_ready(context, None, &mut ready)).await;
            })
            .detach();
        let thread = thread::spawn(move || {
            for number in 0..1_000 {
                sender.send_blocking(number).unwrap();
            }
        });
        let received = sleeper.run(executor.run(async {
            let mut sum = 0;
            while let Ok(number) = receiver.recv().await {
                sum += number;
            }
            sum
        }));
        assert_eq!(received.unwrap(), 499_500);
        thread.join().unwrap();
    }

    #[test]
    fn a_task_that_never_rests_does_not_keep_sockets_waiting() {
        let (epoll, sleeper) = sleeper();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        epoll::add(&epoll, &theirs, EventData::new_u64(7), EventFlags::IN).unwrap();
        ours.write_all(b"x").unwrap();
        let executor = smol::LocalExecutor::new();
        executor
            .spawn(async {
                loop {
                    smol::future::yield_now().await;
                }
            })
            .detach();
        let mut ready = Vec::new();
        let wait = poll_fn(|context| sleeper.poll_ready(context, None, &mut ready));
        sleeper.run(executor.run(wait)).unwrap();
        assert_eq!(ready.len(), 1);
    }
}
