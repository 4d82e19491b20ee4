//! Fixed-capacity structures that heapless lacks, because their capacity is known only at start.
//!
//! Each reserves its memory once and answers with a value when it is full; none grows. Untouched memory is not written,
//! so that the system commits only what is used.

mod deadline_heap;
mod hash_index;
mod queue;
mod slab;

pub use deadline_heap::DeadlineHeap;
pub use hash_index::{HashIndex, keyed_hash, keyed_hash_of_bytes};
pub use queue::{Linked, Queue};
pub use slab::{Full, Key, Slab};
