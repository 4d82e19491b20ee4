//! The thread that writes the log. It is the only one that waits for the disk; everything else goes on meanwhile.

use crate::net::Store;
use crate::store::{Disk, Log};
use smol::channel;
use std::io;
use std::thread;

/// Its stack needs no more: one call into the system at a time.
const STACK_BYTES: usize = 256 * 1024;

/// Starts it. It ends when nobody has batches for it any more.
///
/// # Errors
/// The system has no thread left.
pub fn spawn_store<D: Disk + Send + 'static>(mut log: Log<D>) -> io::Result<Store>
where
    D::File: Send,
{
    let (batches, to_write) = channel::bounded(1);
    let (done, written) = channel::bounded(1);
    thread::Builder::new().name("store".to_owned()).stack_size(STACK_BYTES).spawn(move || {
        while let Ok(batch) = to_write.recv_blocking() {
            let outcome = log.write(&batch);
            if done.send_blocking((batch, outcome)).is_err() {
                return;
            }
        }
    })?;
    Ok(Store { batches, written: Box::pin(written) })
}
