//! Nothing to import: criterion benches of the hot pure parts are in `micro/`, side-by-side load runs in
//! `load/`, and what they last found in `results/`.
