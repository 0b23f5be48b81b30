//! A client of Redis for the shards: scripts that are run on a key, in a server or a cluster.
//!
//! Owns the connections of a shard ([`link`]), which node has a key ([`slot`]), and the wire format ([`resp`]). Never
//! blocks a shard, and never knows what a script does.
//!
//! **Invariant.** One script call is one request to one node, and its answer comes within the time limit or is [`Away`].
//! Servers that are configured alike share their connections on a shard, however many plugins use them.

mod link;
pub mod resp;
mod sentinel;
mod settings;
mod slot;

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use portcullis_config::Secret;

use self::link::Link;
pub use self::resp::Reply;
use self::sentinel::Sentinels;
pub use self::settings::{ADVANCED, KONG, SHORTHANDS, read};
use self::slot::{Redirect, redirect, slot};
use crate::tls;

/// The store did not answer: not reached, not in time, or with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away;

/// A server, a cluster by some of its nodes, or the master of a group that sentinels watch.
pub struct Server {
    /// Where to begin; at least one. Of a group its name, and no port.
    pub nodes: Vec<(String, u16)>,
    pub sentinels: Option<Sentinels>,
    pub timeout: Duration,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub database: u32,
    pub tls: Option<tls::ClientConfig>,
    /// The name in its certificate; that of the node if there is none.
    pub server_name: Option<String>,
    /// Most times that one call is sent on to another node.
    pub redirections: u32,
    /// The same for the same settings.
    pub fingerprint: String,
}

/// Servers that are known to be away, by a hash of their fingerprint, so that one shard of all says it. Two servers that
/// share a place share a line of the log.
static AWAY: [AtomicBool; 256] = [const { AtomicBool::new(false) }; 256];

impl Server {
    /// Commands that begin a connection, and how many they are.
    fn greeting(&self) -> (Vec<u8>, usize) {
        let mut out = Vec::new();
        let mut commands = resp::login(&mut out, self.username.as_deref(), self.password.as_ref());
        if self.database > 0 {
            resp::command(&mut out, &[b"SELECT", self.database.to_string().as_bytes()]);
            commands += 1;
        }
        // Whether it answers at all: one that hangs still takes connections.
        let question: &[u8] = if self.sentinels.is_some() { b"ROLE" } else { b"PING" };
        resp::command(&mut out, &[question]);
        (out, commands + 1)
    }

    fn is_known_away(&self) -> &'static AtomicBool {
        let mut hasher = DefaultHasher::new();
        self.fingerprint.hash(&mut hasher);
        &AWAY[hasher.finish() as usize % AWAY.len()]
    }

    /// A shard cannot reach it. Said once, until it is found.
    fn lost(&self, host: &str, port: u16) {
        if !self.is_known_away().swap(true, Relaxed) {
            tracing::warn!(
                host,
                port,
                "Redis does not answer: limits are kept by this gateway alone until it does"
            );
        }
    }

    fn found(&self, host: &str, port: u16) {
        if self.is_known_away().swap(false, Relaxed) {
            tracing::info!(host, port, "Redis answers again: limits are shared");
        }
    }

    /// It answers, but not to us.
    fn refused(&self, host: &str, port: u16, said: &str) {
        if !self.is_known_away().swap(true, Relaxed) {
            tracing::warn!(
                host,
                port,
                said,
                "Redis refuses us: limits are kept by this gateway alone until it does not"
            );
        }
    }
}

/// A server as one shard uses it.
pub struct Client {
    server: Arc<Server>,
    links: RefCell<HashMap<(String, u16), Rc<Link>>>,
    /// By slot, where that is known.
    owners: RefCell<HashMap<u16, Rc<Link>>>,
}

thread_local! {
    /// The clients of this shard.
    static CLIENTS: RefCell<HashMap<String, Weak<Client>>> = RefCell::default();
}

/// A script with the name that servers know it by.
pub struct Script {
    text: &'static str,
    sha: String,
}

impl Script {
    pub fn new(text: &'static str) -> Self {
        let algorithm = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
        let digest = aws_lc_rs::digest::digest(algorithm, text.as_bytes());
        let sha = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { text, sha }
    }
}

impl Client {
    /// The client of a server on this shard.
    pub fn of(server: &Arc<Server>) -> Rc<Self> {
        CLIENTS.with(|clients| {
            let mut clients = clients.borrow_mut();
            clients.retain(|_, client| client.strong_count() > 0);
            let kept = clients.get(&server.fingerprint).and_then(Weak::upgrade);
            kept.unwrap_or_else(|| {
                let new = Rc::new(Self {
                    server: server.clone(),
                    links: RefCell::default(),
                    owners: RefCell::default(),
                });
                clients.insert(server.fingerprint.clone(), Rc::downgrade(&new));
                new
            })
        })
    }

    /// Whether the node of a key is known to be away.
    pub fn is_away(&self, key: &[u8]) -> bool {
        self.owner(slot(key)).is_away()
    }

    /// Runs a script on keys of one slot.
    ///
    /// # Errors
    /// [`Away`], also where the script fails: its author has made a mistake then, or the server is no Redis.
    pub async fn run(&self, script: &Script, keys: &[&[u8]], arguments: &[&[u8]]) -> Result<Reply, Away> {
        let slot = slot(keys[0]);
        let count = keys.len().to_string();
        let request = |name: &[u8], text: &[u8], asking: bool| {
            let mut words = vec![name, text, count.as_bytes()];
            words.extend(keys);
            words.extend(arguments);
            let mut out = Vec::new();
            if asking {
                resp::command(&mut out, &[b"ASKING"]);
            }
            resp::command(&mut out, &words);
            out
        };
        let (mut link, mut asking, mut whole) = (self.owner(slot), false, false);
        let mut redirections = 0;
        while redirections <= self.server.redirections {
            let request = match whole {
                false => request(b"EVALSHA", script.sha.as_bytes(), asking),
                true => request(b"EVAL", script.text.as_bytes(), asking),
            };
            let reply = link.ask(request, 1 + usize::from(asking)).await?;
            match (redirect(&reply), reply) {
                (Some(Redirect::Moved { slot, host, port }), _) => {
                    link = self.link(if host.is_empty() { link.host() } else { &host }, port);
                    self.owners.borrow_mut().insert(slot, link.clone());
                    (asking, whole) = (false, false);
                    redirections += 1;
                }
                (Some(Redirect::Ask { host, port }), _) => {
                    link = self.link(if host.is_empty() { link.host() } else { &host }, port);
                    (asking, whole) = (true, false);
                    redirections += 1;
                }
                (None, Reply::Error(said)) if said.starts_with("NOSCRIPT") && !whole => whole = true,
                (None, Reply::Error(said)) => {
                    // The group has another master.
                    if said.starts_with("READONLY") && self.server.sentinels.is_some() {
                        link.renew();
                    }
                    tracing::debug!(said, "Redis answers with an error");
                    return Err(Away);
                }
                (None, reply) => return Ok(reply),
            }
        }
        Err(Away)
    }

    /// The node that has a slot, as far as is known. One that is away gives its place to the next to begin with: that
    /// one may know the new owner.
    fn owner(&self, slot: u16) -> Rc<Link> {
        if let Some(owner) = self.owners.borrow().get(&slot).filter(|owner| !owner.is_away()) {
            return owner.clone();
        }
        let nodes = || self.server.nodes.iter().map(|(host, port)| self.link(host, *port));
        nodes().find(|link| !link.is_away()).or_else(|| nodes().next()).expect("a server has a node")
    }

    fn link(&self, host: &str, port: u16) -> Rc<Link> {
        let mut links = self.links.borrow_mut();
        let link = || Link::new(self.server.clone(), host, port);
        links.entry((host.to_owned(), port)).or_insert_with(link).clone()
    }
}
