//! What unit tests of plugins stand on: consumers from a configuration, an exchange, and plugins compiled for it.

use std::any::Any;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_config::{self as config, Diagnostic, Diagnostics};

use super::consumer::Consumers;
use super::registry::{self, GatewayCatalog};
use super::{CompileCx, Cx, Flow, Plugin, Response};
use crate::http::RequestHead;
use crate::http::h1::{HeadLimits, Parsed, parse_request};
use crate::limit::{Table, random_secret};

/// The wall clock at which exchanges of a [`Fixture`] begin, in seconds: 2024-02-29T12:00:00Z.
pub const NOW: u64 = 1_709_208_000;
/// The monotonic clock at the same moment.
const NOW_NS: u64 = 5_000_000_000_000;

/// A plugin's instance and the warnings of its compilation, or all findings when one is an error.
pub type Compiled = Result<(Rc<dyn Plugin>, Vec<Diagnostic>), Vec<Diagnostic>>;

/// A configuration with what a plugin needs of a running gateway.
pub struct Fixture {
    pub config: config::Config,
    pub consumers: Arc<Consumers>,
    pub table: Table,
    pub limit_table: Table,
    /// Added to both clocks.
    pub elapsed: Duration,
    wall: Duration,
}

impl Default for Fixture {
    /// Two consumers: `ann` with the keys `ann/1` and `ann/2`, `ben` with `ben/1`.
    fn default() -> Self {
        Self::new(
            "consumers:\n\
             - {username: ann, keyauth_credentials: [{key: ann/1}, {key: ann/2}]}\n\
             - {username: ben, keyauth_credentials: [{key: ben/1}]}\n",
        )
    }
}

impl Fixture {
    /// From the text of a whole configuration, which must be good as far as it is not a plugin's.
    pub fn new(text: &str) -> Self {
        let config = match config::load_str("test.yaml", text, &GatewayCatalog) {
            Ok(loaded) => loaded.config,
            Err(found) => panic!("{}", found.iter().map(|one| format!("{one}\n")).collect::<String>()),
        };
        let found = Diagnostics::new(config.sources.clone());
        let wall = Duration::from_secs(NOW);
        let consumers = Arc::new(Consumers::compile(&config, wall, &found));
        assert!(!found.has_errors(), "consumers: {:?}", found.into_sorted());
        let table = || Table::new(1024, random_secret()).expect("a small table");
        Self { config, consumers, table: table(), limit_table: table(), elapsed: Duration::ZERO, wall }
    }

    /// Moves the wall clock.
    pub fn at(mut self, seconds: u64) -> Self {
        self.wall = Duration::from_secs(seconds);
        self
    }

    /// An exchange with an unknown client.
    pub fn cx(&self) -> Cx<'_> {
        self.cx_from("127.0.0.1")
    }

    /// An exchange with an unknown client of that address, whom nobody stands before.
    pub fn cx_from(&self, client: &str) -> Cx<'_> {
        let client: IpAddr = client.parse().expect("an address");
        let now_ns = NOW_NS + self.elapsed.as_nanos() as u64;
        let wall = self.wall + self.elapsed;
        let mut cx = Cx::new(now_ns, wall, client, client, &self.consumers, &self.table, &self.limit_table);
        cx.service_name = Some("web");
        cx
    }

    /// Compiles the configuration's plugin with this number and makes its instance.
    pub fn plugin(&self, number: usize, previous: Option<Rc<dyn Any>>) -> Compiled {
        self.instance(&self.config, number, number as u64, previous)
    }

    fn instance(
        &self,
        config: &config::Config,
        number: usize,
        instance: u64,
        previous: Option<Rc<dyn Any>>,
    ) -> Compiled {
        let found = Diagnostics::new(config.sources.clone());
        let plugin = &config.plugins[number];
        let registration = registry::find(&plugin.name).expect("a registered plugin");
        let cx = CompileCx { consumers: &self.consumers, config, instance };
        let spec = (registration.compile)(plugin, &cx, &found);
        if found.has_errors() {
            return Err(found.into_sorted());
        }
        Ok((spec.expect("no error was reported").instantiate(previous), found.into_sorted()))
    }

    /// Compiles a plugin that is not in the configuration from its `config:`, a YAML flow map. The error is everything
    /// that `check` says, one finding a line; so is what comes beside the plugin.
    pub fn compile(
        &self,
        name: &str,
        instance: u64,
        settings: &str,
    ) -> Result<(Rc<dyn Plugin>, String), String> {
        let text = format!("plugins:\n  - name: {name}\n    config: {settings}\n");
        let loaded = config::load_str("test.yaml", &text, &GatewayCatalog).map_err(lines)?;
        let (plugin, more) = self
            .instance(&loaded.config, 0, instance, None)
            .map_err(|found| lines(loaded.warnings.iter().cloned().chain(found).collect()))?;
        Ok((plugin, lines(loaded.warnings.into_iter().chain(more).collect())))
    }

    /// [`compile`](Self::compile) of a `config:` that must be right.
    #[track_caller]
    pub fn accepted(&self, name: &str, settings: &str) -> Rc<dyn Plugin> {
        self.compile(name, 1, settings).unwrap_or_else(|error| panic!("{settings}: {error}")).0
    }

    /// [`compile`](Self::compile) of a `config:` that must be wrong: what is said of it.
    #[track_caller]
    pub fn refused(&self, name: &str, settings: &str) -> String {
        match self.compile(name, 1, settings) {
            Ok(_) => panic!("{settings} was accepted"),
            Err(error) => error,
        }
    }
}

/// Findings about the only plugin, without the way to it.
fn lines(found: Vec<Diagnostic>) -> String {
    let line = |one: &Diagnostic| format!("{}: {}: {}", one.severity, one.path, one.message);
    found.iter().map(line).collect::<Vec<_>>().join("\n").replace("plugins[0].config.", "")
}

/// A parsed request, from its head without the empty line.
#[track_caller]
pub fn request(head: &str) -> RequestHead {
    let text = format!("{}\r\n\r\n", head.trim_end().replace('\n', "\r\n"));
    let mut request = RequestHead::new();
    let parsed = parse_request(text.as_bytes(), &HeadLimits::default(), &mut request);
    assert!(matches!(parsed, Ok(Parsed::Complete { .. })), "{text:?}: {parsed:?}");
    request
}

/// A GET request for `target` with these header lines.
#[track_caller]
pub fn request_with(target: &str, lines: &[&str]) -> RequestHead {
    request(&format!("GET {target} HTTP/1.1\nHost: example.com\n{}", lines.join("\n")))
}

/// The answer in a flow.
pub fn answer(flow: Flow) -> Option<Box<Response>> {
    match flow {
        Flow::Continue => None,
        Flow::Respond(response) => Some(response),
        Flow::Wait(_) => panic!("the plugin waits"),
    }
}
