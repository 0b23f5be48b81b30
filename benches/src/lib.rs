//! Criterion benches of the hot pure parts live in `micro/`; side-by-side load runs in `load/`.
