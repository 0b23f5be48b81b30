//! What keeps an upstream's trouble from becoming its clients': breakers, retries, sessions, queues, health, and what of
//! all that outlives a reload.

mod breaker;
mod health;
mod pool;
mod reload;
mod retry;
mod session;

use std::net::SocketAddr;

use portcullis_tests::client::{Request, Response};
use portcullis_tests::gateway::{Gateway, Setup};

/// A gateway of one shard before an upstream of these targets. `upstream` and `service` are keys of theirs, one a line.
fn setup(targets: &[SocketAddr], upstream: &str, service: &str) -> Setup {
    let list: Vec<String> = targets.iter().map(|target| format!("{{target: '{target}'}}")).collect();
    let indent = |keys: &str| keys.lines().map(|key| format!("    {key}\n")).collect::<String>();
    Setup::new(format!(
        "upstreams:\n  - name: many\n    targets: [{}]\n{}services:\n  - name: web\n    host: many\n{}    routes:\n      \
         - {{name: all, paths: [/], strip_path: false}}\n",
        list.join(", "),
        indent(upstream),
        indent(service),
    ))
    .shards(1)
}

/// No health of targets beside what a test is about.
const NO_HEALTH: &str =
    "healthchecks: {passive: {unhealthy: {http_failures: 0, tcp_failures: 0, timeouts: 0}}}";

fn get(gateway: &Gateway) -> Response {
    Request::get("/").send(gateway.addr())
}

/// Statuses of so many requests.
fn statuses(gateway: &Gateway, count: usize) -> Vec<u16> {
    (0..count).map(|_| get(gateway).status).collect()
}

/// How often a reason was counted.
fn counted(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metrics().sum("portcullis_refusals_total", &[("reason", reason)])
}
