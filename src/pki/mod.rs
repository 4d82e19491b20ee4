//! Certificates for the demo and the tests.
