//! What the tests of plugins stand on: plugins compiled from the YAML of their `config:`, and exchanges without a
//! connection.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_config::{Diagnostics, load_str};

use super::consumer::{Consumer, Consumers};
use super::fixture::Catalog;
use super::{CompileCx, Cx, Plugin, registry};
use crate::http::RequestHead;
use crate::http::h1::{HeadLimits, Parsed, parse_request};
use crate::limit::{Table, random_secret};

/// Monotonic and wall time at which exchanges of a [`Testbed`] begin: 2024-02-29T12:00:00Z.
pub const NOW_NS: u64 = 5_000_000_000_000;
pub const WALL: Duration = Duration::from_secs(1_709_208_000);

/// What outlives an exchange.
pub struct Testbed {
    pub consumers: Arc<Consumers>,
    pub table: Table,
    pub limit_table: Table,
    /// Added to both clocks.
    pub elapsed: Duration,
}

impl Testbed {
    /// Two consumers: `ann` with two keys, `ben` with one.
    pub fn new() -> Self {
        let mut consumers = Consumers::default();
        for (name, keys) in [("ann", &["ann/1", "ann/2"][..]), ("ben", &["ben/1"])] {
            let id = consumers.push(Consumer {
                id: format!("id-{name}"),
                username: Some(name.into()),
                ..Consumer::default()
            });
            for key in keys {
                assert!(consumers.push_key(id, (*key).to_owned(), key.as_bytes(), std::time::Duration::MAX));
            }
        }
        let table = || Table::new(1024, random_secret()).expect("a small table");
        Self { consumers: Arc::new(consumers), table: table(), limit_table: table(), elapsed: Duration::ZERO }
    }

    /// Compiles the plugin called `name` from its `config:`, a YAML flow map, and makes one shard's instance of it.
    /// The error is everything that `check` says, one finding a line; so is what comes beside the plugin.
    pub fn compile(
        &self,
        name: &str,
        instance: u64,
        config: &str,
    ) -> Result<(Rc<dyn Plugin>, String), String> {
        let lines = |all: Vec<portcullis_config::Diagnostic>| {
            let line = |one: portcullis_config::Diagnostic| {
                format!("{}: {}: {}", one.severity, one.path, one.message)
            };
            all.into_iter().map(line).collect::<Vec<_>>().join("\n").replace("plugins[0].config.", "")
        };
        let text = format!("plugins:\n  - name: {name}\n    config: {config}\n");
        let loaded = load_str("test.yaml", &text, &Catalog).map_err(lines)?;
        let found = Diagnostics::new(loaded.config.sources.clone());
        let registration = registry::find(name).expect("a registered plugin");
        let cx = CompileCx { consumers: &self.consumers, instance };
        let spec = (registration.compile)(&loaded.config.plugins[0], &cx, &found);
        let failed = found.has_errors();
        let remarks = lines(loaded.warnings.into_iter().chain(found.into_sorted()).collect());
        match spec {
            Some(spec) if !failed => Ok((spec.instantiate(None), remarks)),
            _ => Err(remarks),
        }
    }

    /// [`compile`](Self::compile) of a `config:` that must be right.
    #[track_caller]
    pub fn plugin(&self, name: &str, config: &str) -> Rc<dyn Plugin> {
        self.compile(name, 1, config).unwrap_or_else(|error| panic!("{config}: {error}")).0
    }

    /// [`compile`](Self::compile) of a `config:` that must be wrong: what is said of it.
    #[track_caller]
    pub fn refused(&self, name: &str, config: &str) -> String {
        match self.compile(name, 1, config) {
            Ok(_) => panic!("{config} was accepted"),
            Err(error) => error,
        }
    }

    /// An exchange of a client that nobody stands before.
    pub fn cx(&self, client: &str) -> Cx<'_> {
        let client: IpAddr = client.parse().expect("an address");
        let now_ns = NOW_NS + self.elapsed.as_nanos() as u64;
        let mut cx = Cx::new(
            now_ns,
            WALL + self.elapsed,
            client,
            client,
            &self.consumers,
            &self.table,
            &self.limit_table,
        );
        cx.service_name = Some("web");
        cx
    }
}

/// A request with these header lines, as a client sends it.
#[track_caller]
pub fn request(target: &str, lines: &[&str]) -> RequestHead {
    let text = format!(
        "GET {target} HTTP/1.1\r\nHost: example.com\r\n{}\r\n",
        lines.iter().map(|line| format!("{line}\r\n")).collect::<String>()
    );
    let mut head = RequestHead::new();
    match parse_request(text.as_bytes(), &HeadLimits::default(), &mut head) {
        Ok(Parsed::Complete { .. }) => head,
        other => panic!("{text:?}: {other:?}"),
    }
}
