//! Targets of an upstream: choice, health and retries.
