//! How long a bridge waits before it tries again: twice as long each time, and by chance, so that gateways that have lost the same
//! upstream do not come back at the same moment.

/// Waits between attempts, in milliseconds.
#[derive(Clone, Debug)]
pub struct BackOff {
    min: u64,
    max: u64,
    next: u64,
    state: u64,
}

impl BackOff {
    /// Between `min_seconds` and `max_seconds`. `seed` makes the chance; any number does.
    #[must_use]
    pub fn new(min_seconds: u16, max_seconds: u16, seed: u64) -> Self {
        let min = u64::from(min_seconds.max(1)) * 1_000;
        Self { min, max: (u64::from(max_seconds) * 1_000).max(min), next: min, state: seed | 1 }
    }

    /// The next wait: a half of what it is about to be at least, the whole at most.
    pub fn wait_milliseconds(&mut self) -> u64 {
        let whole = self.next;
        self.next = self.next.saturating_mul(2).min(self.max);
        // xorshift64: enough to spread gateways, and nobody gains by guessing it.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        whole / 2 + self.state % (whole / 2 + 1)
    }

    /// It went well: the next wait is the shortest again.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew() {
        let mut back_off = BackOff::new(1, 60, 7);
        for whole in [1, 2, 4, 8, 16, 32, 60, 60] {
            let wait = back_off.wait_milliseconds();
            assert!((whole * 500..=whole * 1_000).contains(&wait), "{whole}: {wait}");
        }
        back_off.reset();
        assert!(back_off.wait_milliseconds() <= 1_000);
        let (mut one, mut other) = (BackOff::new(1, 60, 1), BackOff::new(1, 60, 12_345));
        assert!((0..8).any(|_| one.wait_milliseconds() != other.wait_milliseconds()));
    }
}
