//! Harness of the end-to-end tests: the real gateway binary between scripted origins and clients.
//!
//! Owns the guard that runs the binary ([`gateway`]), the origins that behave and misbehave on
//! purpose ([`origin`]), clients that put exact bytes on a socket or run real programs
//! ([`client`]), certificates and tokens made at run time ([`certs`], [`tokens`]).
//! It never links the gateway: what is tested is what an operator runs. The exception are the suites of the
//! kernel part (`kernel_*`), which load the XDP program on their own, with packets ([`packet`]) and network
//! namespaces ([`netns`]).
//! Invariant: no fixed port, no fixed path, and no waiting by the clock. A test waits for a
//! reaction ([`eventually`]) with a deadline.
//! Read next: [`gateway::Gateway`], then any suite under `tests/`.

pub mod admin;
pub mod certs;
pub mod client;
pub mod dns;
pub mod eventually;
pub mod gateway;
pub mod h2;
pub mod netns;
pub mod origin;
pub mod packet;
pub mod pattern;
pub mod ports;
pub mod redis;
pub mod site;
pub mod tokens;
pub mod wire;
