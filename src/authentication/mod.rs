//! authentication.
