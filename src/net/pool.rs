//! Bytes of memory that all connections share: how many of them are taken. Who may take how many is decided elsewhere.

/// A number of bytes that connections share.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    bytes: usize,
    taken: usize,
}

impl Pool {
    /// A pool of `bytes`, of which none is taken.
    #[must_use]
    pub const fn new(bytes: usize) -> Self {
        Self { bytes, taken: 0 }
    }

    /// Bytes that nobody has taken.
    #[must_use]
    pub const fn left(self) -> usize {
        self.bytes.saturating_sub(self.taken)
    }

    /// Bytes that there are.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.bytes
    }

    /// Bytes that are taken.
    #[must_use]
    pub const fn taken(self) -> usize {
        self.taken
    }

    /// Whether more than half is taken.
    #[must_use]
    pub const fn is_short(self) -> bool {
        self.taken > self.bytes / 2
    }

    /// Makes a share of `granted` bytes one of `wanted`. Returns false, and changes nothing, where there are too few.
    pub fn grant(&mut self, granted: &mut usize, wanted: usize) -> bool {
        let more = wanted.saturating_sub(*granted);
        if more > self.left() {
            return false;
        }
        self.give_back(*granted);
        self.take(wanted);
        *granted = wanted;
        true
    }

    /// Counts bytes that are taken.
    pub const fn take(&mut self, bytes: usize) {
        self.taken += bytes;
    }

    /// Counts bytes that are no longer taken.
    pub const fn give_back(&mut self, bytes: usize) {
        self.taken -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_only_as_far_as_there_is_something_left() {
        let mut pool = Pool::new(100);
        let (mut one, mut other) = (0, 0);
        assert!(pool.grant(&mut one, 60) && pool.is_short());
        assert!(!pool.grant(&mut other, 41));
        assert_eq!((other, pool.left()), (0, 40));
        assert!(pool.grant(&mut other, 40) && pool.grant(&mut one, 10));
        assert_eq!((one, other, pool.left()), (10, 40, 50));
    }
}
