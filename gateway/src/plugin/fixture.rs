//! What unit tests of plugins stand on: consumers from a configuration, an exchange, and plugins compiled for it.

use std::any::Any;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_config::{self as config, Diagnostic, Diagnostics};

use super::consumer::Consumers;
use super::{CompileCx, Cx, Flow, Plugin, Response, registry};
use crate::http::RequestHead;
use crate::http::h1::{HeadLimits, parse_request};
use crate::limit::{Table, random_secret};

/// The wall clock of [`Fixture::cx`], in seconds.
pub const NOW: u64 = 1_700_000_000;

/// The plugins of this gateway, as the configuration's checks see them.
pub struct Catalog;

impl config::PluginCatalog for Catalog {
    fn names(&self) -> Vec<&'static str> {
        registry::REGISTRY.iter().map(|plugin| plugin.name).collect()
    }

    fn section(&self, name: &str) -> Option<&'static config::Section> {
        registry::find(name).map(|plugin| plugin.section)
    }
}

/// A plugin's instance and the warnings of its compilation, or all findings when one is an error.
pub type Compiled = Result<(Rc<dyn Plugin>, Vec<Diagnostic>), Vec<Diagnostic>>;

/// A configuration with what a plugin needs of a running gateway.
pub struct Fixture {
    pub config: config::Config,
    pub consumers: Arc<Consumers>,
    table: Table,
    wall: Duration,
}

impl Fixture {
    /// From the text of a whole configuration, which must be good as far as it is not a plugin's.
    pub fn new(text: &str) -> Self {
        let config = match config::load_str("test.yaml", text, &Catalog) {
            Ok(loaded) => loaded.config,
            Err(found) => panic!("{}", found.iter().map(|one| format!("{one}\n")).collect::<String>()),
        };
        let found = Diagnostics::new(config.sources.clone());
        let wall = Duration::from_secs(NOW);
        let consumers = Arc::new(Consumers::compile(&config, wall, &found));
        assert!(!found.has_errors(), "consumers: {:?}", found.into_sorted());
        Self { config, consumers, table: Table::new(64, random_secret()).expect("a small table"), wall }
    }

    /// Moves the wall clock.
    pub fn at(mut self, seconds: u64) -> Self {
        self.wall = Duration::from_secs(seconds);
        self
    }

    /// An exchange with an unknown client.
    pub fn cx(&self) -> Cx<'_> {
        let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Cx::new(1, self.wall, source, source, &self.consumers, &self.table, &self.table)
    }

    /// Compiles the configuration's plugin with this number and makes its instance.
    pub fn plugin(&self, number: usize, previous: Option<Rc<dyn Any>>) -> Compiled {
        let found = Diagnostics::new(self.config.sources.clone());
        let plugin = &self.config.plugins[number];
        let registration = registry::find(&plugin.name).expect("a registered plugin");
        let cx = CompileCx { consumers: &self.consumers, instance: number as u64 };
        let spec = (registration.compile)(plugin, &cx, &found);
        if found.has_errors() {
            return Err(found.into_sorted());
        }
        Ok((spec.expect("no error was reported").instantiate(previous), found.into_sorted()))
    }
}

/// A parsed request, from its head without the empty line.
pub fn request(head: &str) -> RequestHead {
    let text = format!("{}\r\n\r\n", head.trim_end().replace('\n', "\r\n"));
    let mut request = RequestHead::new();
    let parsed = parse_request(text.as_bytes(), &HeadLimits::default(), &mut request);
    assert!(parsed.is_ok(), "{text}");
    request
}

/// The answer in a flow.
pub fn answer(flow: Flow) -> Option<Box<Response>> {
    match flow {
        Flow::Continue => None,
        Flow::Respond(response) => Some(response),
        Flow::Wait(_) => panic!("the plugin waits"),
    }
}
