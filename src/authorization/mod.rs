//! Rules compiled to tables; identity → applicable rules; decision with the deciding rule.
//!
//! Comes in: the tables of one BrokerAuthorization, who a client is, what it wants to do. Goes out: allowed, and by which
//! rule, or denied. Rules only allow, their order has no meaning, and what no rule allows is denied.
//!
//! **Invariant:** deciding allocates nothing, does not recurse, and costs a few binary searches a level, however many rules
//! there are. Whatever is inconsistent in a table denies.

mod client;
mod coverage;
mod explain;
mod lint;
mod patterns;
mod policy;

pub use client::Client;
pub use coverage::covers;
pub use explain::{Grant, Nearest, Principal, Wish, grants, grants_to, nearest};
pub use lint::lint;
pub use policy::{ApplicableRules, Decision, Policy};
