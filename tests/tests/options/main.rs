//! Options of plugins that no other suite is about, each against a real origin; tests are named after plugin and option.

mod auth;
mod forward_auth;
mod jwt;
mod limits;
mod protocols;
mod redis;
mod shape;
mod traffic;
mod upstreams;

use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Echo, Origin};

/// A gateway of one shard with these plugins, a YAML flow list, on the only route to `origin`, and `more` sections.
fn gateway(origin: &Origin, plugins: &str, more: &str) -> Gateway {
    Gateway::start(&setup(origin, plugins, more))
}

fn setup(origin: &Origin, plugins: &str, more: &str) -> Setup {
    let text = format!(
        "{more}services: [{{name: web, url: '{}', retries: 0, routes: [{{name: all, paths: [/], plugins: {plugins}}}]}}]\n",
        origin.url()
    );
    Setup::new(text).shards(1)
}

fn echo() -> Origin {
    Origin::start(Echo::default())
}
