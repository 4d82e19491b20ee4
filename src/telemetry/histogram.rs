//! Histograms of durations: fixed buckets, exact sums, integers only.
//!
//! Durations are differences of the turn's clock and so whole milliseconds: what begins and ends in one turn took 0.

/// Upper bounds of the buckets, milliseconds; what is longer is in the last one, which has none.
pub const BOUNDS_MILLISECONDS: [u64; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];

/// How often which duration was observed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// By bucket, without those of the buckets before.
    counts: [u64; BOUNDS_MILLISECONDS.len() + 1],
    sum_milliseconds: u64,
}

impl Histogram {
    /// Counts a duration.
    pub fn observe(&mut self, milliseconds: u64) {
        let bucket = BOUNDS_MILLISECONDS.iter().position(|bound| milliseconds <= *bound);
        if let Some(count) = self.counts.get_mut(bucket.unwrap_or(BOUNDS_MILLISECONDS.len())) {
            *count += 1;
        }
        self.sum_milliseconds = self.sum_milliseconds.saturating_add(milliseconds);
    }

    /// For each bound, how many durations were not longer.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        BOUNDS_MILLISECONDS.into_iter().zip(self.counts).scan(0, |total, (bound, count)| {
            *total += count;
            Some((bound, *total))
        })
    }

    /// How many durations were observed.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All durations together, milliseconds.
    #[must_use]
    pub const fn sum_milliseconds(&self) -> u64 {
        self.sum_milliseconds
    }
}

/// The durations that are observed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// From accept to a CONNACK that accepts, as it is given to the socket.
    pub connect: Histogram,
    /// From a PUBLISH to its PUBACK or PUBREC, as it is given to the socket: what waits for the disk or for a slow subscriber is
    /// in it. Of each connection one PUBLISH at a time is followed.
    pub acknowledge: Histogram,
    /// Of batches, until they are on the disk or have failed.
    pub sync: Histogram,
    /// Of turns, without the wait between them.
    pub turn: Histogram,
    /// From a question about a credential to its answer.
    pub question: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_every_bucket_that_is_not_shorter() {
        let mut histogram = Histogram::default();
        for milliseconds in [0, 1, 2, 3, 10_000, 10_001, u64::MAX] {
            histogram.observe(milliseconds);
        }
        let cumulative: Vec<_> = histogram.cumulative().collect();
        assert_eq!(cumulative.get(..4), Some(&[(1, 2), (2, 3), (5, 4), (10, 4)][..]));
        assert_eq!(cumulative.last(), Some(&(10_000, 5)));
        assert_eq!((histogram.count(), histogram.sum_milliseconds()), (7, u64::MAX));
    }
}
