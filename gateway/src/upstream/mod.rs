//! Targets of an upstream: choice, health and retries.

pub mod balance;
pub mod health;
pub mod retry;
