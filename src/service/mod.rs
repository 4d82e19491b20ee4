//! What goes on beside the broker's loop, as tasks of the same executor: questions that authentication asks of servers and
//! of slow hashes, files that change, certificates that are issued; and the thread that writes the log.
//!
//! **Invariant:** nothing here touches a connection; what is found out goes to the loop through a channel.

mod automatic;
mod clock_record;
mod facts;
mod health;
pub mod history;
mod inquiries;
mod machine;
mod probe;
mod store;
pub mod updates;
mod verbosity;
mod watch;
pub mod web;

pub use automatic::{Authority, AuthorityFault, Automatic, IssueFault};
pub use clock_record::ClockRecord;
pub use facts::{AUTHORITIES_MAX, CertificateFacts, Facts, FactsInForce, ListenerFacts};
pub use health::{Check, Health, server_certificate};
pub use history::History;
pub use inquiries::{Cluster, Inquiries, QUESTION_BYTES_MAX};
pub use machine::{Machine, MachineReport, UpdateReport};
pub use probe::{HealthState, Latency, Operation, PROBE, ProbeReport, Probing, SharedReport};
pub use store::spawn_store;
pub use updates::{UpdateFault, Updates};
pub use verbosity::{first_user_signals, say_more_on};
pub use watch::{Fingerprint, Reloaded, Source, Trigger, Watched, hangups, stop_on, terminations, watch, watch_files};
