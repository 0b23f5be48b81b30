//! Load for tests of reload and drain: busy connections, every failure counted.
//!
//! A request counts as failed when it was sent and no whole response came back, whatever the
//! reason; a connection that is refused is counted apart, because nothing was sent on it. A
//! client that sees `Connection: close` opens a new connection, as HTTP asks of it. There are no
//! retries, so the counts say what a strict client would have felt.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::Connection;

/// How the load uses connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Requests follow each other on one connection while the gateway keeps it.
    KeepAlive,
    /// A new connection for each request.
    Never,
}

/// What the load saw.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Whole responses by status.
    pub by_status: BTreeMap<u16, u64>,
    /// Requests sent without a whole response, with the error.
    pub failures: Vec<String>,
    /// Connections refused.
    pub refused: u64,
    /// Connections opened.
    pub connections: u64,
    /// Responses by the value of the header asked for, see [`Load::start`].
    pub by_label: BTreeMap<String, u64>,
}

impl Tally {
    /// Whole responses of any status.
    pub fn answered(&self) -> u64 {
        self.by_status.values().sum()
    }

    /// Asserts that every request sent was answered 200 whole.
    #[track_caller]
    pub fn expect_no_failure(&self) {
        assert!(self.failures.is_empty(), "{} failed requests: {:?}", self.failures.len(), self.failures);
        let statuses: Vec<_> = self.by_status.keys().copied().collect();
        assert_eq!(statuses, [200], "{:?}", self.by_status);
    }
}

#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    answered: AtomicU64,
    tally: Mutex<Tally>,
}

/// Running load.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `workers` threads that send `request` over and over. `label` is a response header
    /// whose values are counted.
    pub fn start(addr: SocketAddr, workers: usize, reuse: Reuse, request: &[u8], label: &str) -> Load {
        let shared = Arc::new(Shared::default());
        let workers = (0..workers)
            .map(|_| {
                let (shared, request, label) = (shared.clone(), request.to_vec(), label.to_owned());
                std::thread::spawn(move || work(addr, reuse, &request, &label, &shared))
            })
            .collect();
        Load { shared, workers }
    }

    /// Responses so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Waits until `more` further responses have come.
    #[track_caller]
    pub fn wait_for(&self, more: u64) {
        let goal = self.answered() + more;
        crate::eventually::eventually("progress of the load", || {
            let got = self.answered();
            if got >= goal { Ok(()) } else { Err(format!("{got} of {goal}")) }
        });
    }

    /// Lets each worker finish its request and gives the sum.
    pub fn stop(self) -> Tally {
        self.shared.stopping.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.join().expect("a load worker");
        }
        self.shared.tally.lock().expect("tally").clone()
    }
}

fn work(addr: SocketAddr, reuse: Reuse, request: &[u8], label: &str, shared: &Shared) {
    let mut mine = Tally::default();
    let mut kept: Option<Connection> = None;
    while !shared.stopping.load(Ordering::Relaxed) {
        let mut connection = match kept.take().map_or_else(|| Connection::try_open(addr), Ok) {
            Ok(connection) => connection,
            Err(_) => {
                mine.refused += 1;
                // Nobody listens any more: the test stops us, and spinning would slow it down.
                std::thread::yield_now();
                continue;
            }
        };
        match connection.try_send(request).and_then(|()| connection.try_response(false)) {
            Ok(response) => {
                *mine.by_status.entry(response.status).or_default() += 1;
                if !label.is_empty() {
                    *mine.by_label.entry(response.header(label).to_owned()).or_default() += 1;
                }
                shared.answered.fetch_add(1, Ordering::Relaxed);
                let close = response.head.has_token("connection", "close");
                if reuse == Reuse::KeepAlive && !close {
                    kept = Some(connection);
                } else {
                    mine.connections += 1;
                }
            }
            Err(error) => {
                mine.failures.push(error.to_string());
                mine.connections += 1;
            }
        }
    }
    mine.connections += u64::from(kept.is_some());
    merge(&mut shared.tally.lock().expect("tally"), mine);
}

fn merge(sum: &mut Tally, part: Tally) {
    for (status, count) in part.by_status {
        *sum.by_status.entry(status).or_default() += count;
    }
    for (label, count) in part.by_label {
        *sum.by_label.entry(label).or_default() += count;
    }
    sum.failures.extend(part.failures);
    sum.refused += part.refused;
    sum.connections += part.connections;
}
