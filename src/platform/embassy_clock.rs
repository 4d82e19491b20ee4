//! The clock that minimq waits by: embassy-time's driver over async-io's timers.
//!
//! Each thread has its own clock, because tests set theirs by hand ([`SimulatedClock`]); all of the program's tasks are on one
//! thread. A task that waits has one entry, with the earliest of its deadlines: a timer that is polled again asks again.
//! The driver of embassy-time's feature `std` would start a thread for what the reactor does already.

use core::cell::RefCell;
use core::pin::Pin;
use core::task::{Context, Waker};
use core::time::Duration;
use embassy_time_driver::Driver;
use std::sync::OnceLock;
use std::time::Instant;

/// Nothing but the place where embassy-time finds the functions below.
struct EmbassyClock;

embassy_time_driver::time_driver_impl!(static DRIVER: EmbassyClock = EmbassyClock);

/// One task that waits.
struct Entry {
    /// Ticks, which are microseconds.
    at: u64,
    waker: Waker,
    /// Wakes it; none where time is simulated.
    timer: Option<async_io::Timer>,
}

#[derive(Default)]
struct Clock {
    /// The time, where it is set by hand.
    simulated: Option<u64>,
    /// Tasks that wait, and some that no longer do and whose time has not come yet.
    entries: Vec<Entry>,
}

thread_local! {
    static CLOCK: RefCell<Clock> = RefCell::default();
}

/// When the first of all clocks was read.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

impl Clock {
    fn now(&self) -> u64 {
        self.simulated.unwrap_or_else(|| u64::try_from(start().elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn schedule(&mut self, at: u64, waker: &Waker) {
        let now = self.now();
        if at <= now {
            return waker.wake_by_ref();
        }
        // Time goes on between two timers of a task that asks for both: the one that it asked for first may be due by now, and nobody
        // else would say so once its entry has gone.
        for due in self.entries.extract_if(.., |entry| entry.at <= now) {
            due.waker.wake();
        }
        let known = self.entries.iter().position(|entry| entry.waker.will_wake(waker));
        if known.and_then(|known| self.entries.get(known)).is_some_and(|entry| entry.at <= at) {
            return;
        }
        if let Some(known) = known {
            self.entries.swap_remove(known);
        }
        let timer = match self.simulated {
            Some(_) => None,
            // Times beyond what the system can express are for ever.
            None => start().checked_add(Duration::from_micros(at)).map(async_io::Timer::at),
        };
        let mut entry = Entry { at, waker: waker.clone(), timer };
        if let Some(timer) = &mut entry.timer
            && Pin::new(timer).poll(&mut Context::from_waker(waker)).is_ready()
        {
            return waker.wake_by_ref();
        }
        self.entries.push(entry);
    }
}

impl Driver for EmbassyClock {
    fn now(&self) -> u64 {
        CLOCK.with_borrow(Clock::now)
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        CLOCK.with_borrow_mut(|clock| clock.schedule(at, waker));
    }
}

/// The time of this thread while it lives, set by hand: for tests and simulations.
#[derive(Debug)]
pub struct SimulatedClock(());

impl SimulatedClock {
    /// Stops this thread's clock at zero. There is one at a time.
    #[must_use]
    pub fn start() -> Self {
        CLOCK.with_borrow_mut(|clock| *clock = Clock { simulated: Some(0), entries: Vec::new() });
        Self(())
    }

    /// When the next task wants to be woken, microseconds; `None`: nobody waits.
    #[must_use]
    pub fn next_microseconds(&self) -> Option<u64> {
        CLOCK.with_borrow(|clock| clock.entries.iter().map(|entry| entry.at).min())
    }

    /// Microseconds since it was started.
    #[must_use]
    pub fn now_microseconds(&self) -> u64 {
        CLOCK.with_borrow(Clock::now)
    }

    /// Sets the time, which never goes back, and wakes whom it concerns.
    pub fn set_microseconds(&self, now: u64) {
        let due = CLOCK.with_borrow_mut(|clock| {
            clock.simulated = clock.simulated.max(Some(now));
            let (due, rest) = core::mem::take(&mut clock.entries).into_iter().partition(|entry| entry.at <= now);
            clock.entries = rest;
            due
        });
        let due: Vec<Entry> = due;
        due.into_iter().for_each(|entry| entry.waker.wake());
    }
}

impl Drop for SimulatedClock {
    fn drop(&mut self) {
        CLOCK.with_borrow_mut(|clock| *clock = Clock::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU32, Ordering};
    use embassy_time::{Duration, Instant, Timer, with_timeout};
    use smol::future::{self, FutureExt as _};
    use std::sync::Arc;
    use std::task::Wake;

    #[test]
    fn a_wait_ends_when_its_time_has_come() {
        let begin = Instant::now();
        future::block_on(Timer::after(Duration::from_millis(3)));
        assert!(begin.elapsed() >= Duration::from_millis(3));
    }

    #[test]
    fn a_deadline_that_passes_while_its_task_asks_for_another_is_not_lost() {
        struct Counter(AtomicU32);
        impl Wake for Counter {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let counter = Arc::new(Counter(AtomicU32::new(0)));
        let waker = Waker::from(Arc::clone(&counter));
        let mut clock = Clock { simulated: Some(9), entries: Vec::new() };
        clock.schedule(10, &waker);
        clock.simulated = Some(10);
        clock.schedule(1_000, &waker);
        assert_eq!(counter.0.load(Ordering::Relaxed), 1);
        clock.schedule(1_000, &waker);
        assert_eq!(counter.0.load(Ordering::Relaxed), 1, "and is told once");
    }

    #[test]
    fn of_two_deadlines_of_one_task_both_are_kept() {
        future::block_on(async {
            let long = Timer::after(Duration::from_secs(60));
            let short = async {
                Timer::after(Duration::from_millis(2)).await;
                Timer::after(Duration::from_millis(2)).await;
            };
            long.or(short).await;
            assert!(with_timeout(Duration::from_millis(1), future::pending::<()>()).await.is_err());
        });
    }

    #[test]
    fn a_week_passes_at_once_where_time_is_simulated() {
        let clock = SimulatedClock::start();
        let executor = smol::LocalExecutor::new();
        let week = executor.spawn(Timer::after(Duration::from_secs(7 * 86_400)));
        while executor.try_tick() {}
        assert!(!week.is_finished());
        assert_eq!(clock.next_microseconds(), Some(7 * 86_400 * 1_000_000));
        clock.set_microseconds(7 * 86_400 * 1_000_000);
        while executor.try_tick() {}
        assert!(week.is_finished());
    }
}
