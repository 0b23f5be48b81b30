//! Keys that others publish: sets of keys at URLs (RFC 7517 section 5), and OpenID Connect discovery of them.
//!
//! Owns when a set is fetched, and for how long it counts. The fetch is a task of the shard; requests wait for it only
//! while there is no usable key at all, or the key they name is new.
//!
//! | the set is | a request |
//! |---|---|
//! | younger than `jwks_ttl` | uses it |
//! | older, at most twice as old | uses it, and a fetch is begun |
//! | older still, or never fetched | waits for a fetch; if that fails, uses it up to `jwks_stale_ttl`, else 503 |
//! | without the `kid` asked for | waits for a fetch, if the last is `jwks_refetch_pause` ago; else is refused |
//!
//! **Invariant.** At most one fetch of a source is under way on a shard, and at most one is begun in
//! `jwks_refetch_pause`, whatever tokens come.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_config::{Fault, Fields, JwtAlgorithm};
use serde::Deserialize;

use super::jwk::{self, Jwk};
use crate::http::Method;
use crate::net::{self, clock};
use crate::plugin::call::{CallError, Caller, Service, Url};

/// Most octets of a set of keys, or of a discovery document.
const DOCUMENT_MAX: usize = 150_000;
/// Between two looks of a request at a fetch that it waits for.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// Between two fetches of a set that was never had.
const FIRST_PAUSE_NS: u64 = 1_000_000_000;

/// Where keys come from, and how long they count.
pub struct RemoteSpec {
    sources: Vec<(Arc<Service>, Kind)>,
    algorithms: Vec<JwtAlgorithm>,
    timeout: Duration,
    ttl_ns: u64,
    stale_ns: u64,
    pause_ns: u64,
    /// The same for the same settings.
    pub fingerprint: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Keys,
    /// The configuration of this issuer says where the keys are.
    Discovery(String),
}

/// The keys of one plugin instance on one shard.
pub struct Remote {
    pub spec: Arc<RemoteSpec>,
    sources: Vec<Source>,
    /// Grows when a set is replaced.
    pub generation: Cell<u64>,
}

struct Source {
    kind: Kind,
    caller: Caller,
    /// The place of the keys, once it was discovered.
    keys_at: RefCell<Option<Rc<Caller>>>,
    keys: RefCell<Rc<[Jwk]>>,
    text: RefCell<Vec<u8>>,
    /// 0 before the first.
    fetched_ns: Cell<u64>,
    begun_ns: Cell<u64>,
    fetching: Cell<bool>,
}

/// What the sets say about a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Good,
    BadSignature,
    /// No key that the token could mean.
    NoKey,
    /// No usable set at all.
    NoSet,
}

impl RemoteSpec {
    /// Reads `jwks_uris` and `issuer`; `None` where there are none.
    pub fn read(fields: &Fields<'_>) -> Option<Arc<Self>> {
        let verify = fields.bool("jwks_tls_verify");
        let mut sources = Vec::new();
        let mut names = fields.strings("jwks_uris");
        for uri in &names {
            sources
                .extend(Service::new(fields, "jwks_uris", uri, verify).map(|service| (service, Kind::Keys)));
        }
        if let Some(issuer) = fields.optional_string("issuer") {
            let at = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
            let service = Service::new(fields, "issuer", &at, verify);
            sources.extend(service.map(|service| (service, Kind::Discovery(issuer.clone()))));
            names.push(issuer);
        }
        if names.is_empty() {
            return None;
        }
        let word = |word: String| {
            let known = JwtAlgorithm::from_word(&word).filter(|known| {
                use JwtAlgorithm::{Hs256, Hs384, Hs512};
                !matches!(known, Hs256 | Hs384 | Hs512)
            });
            if known.is_none() {
                let fault = Fault::new(format!("{word:?} is no algorithm for public keys"));
                fields.error("algorithms", fault.hint("as in `[RS256, ES256]`"));
            }
            known
        };
        let algorithms: Vec<_> = fields.strings("algorithms").into_iter().filter_map(word).collect();
        let ns = |key| u64::try_from(fields.duration(key).as_nanos()).unwrap_or(u64::MAX);
        let (ttl_ns, stale_ns, pause_ns) = (ns("jwks_ttl"), ns("jwks_stale_ttl"), ns("jwks_refetch_pause"));
        let timeout = fields.duration("jwks_timeout");
        let fingerprint =
            format!("{names:?} {verify} {algorithms:?} {timeout:?} {ttl_ns} {stale_ns} {pause_ns}");
        Some(Arc::new(Self { sources, algorithms, timeout, ttl_ns, stale_ns, pause_ns, fingerprint }))
    }
}

impl Remote {
    /// Begins to fetch all sets. On a shard only.
    pub fn begin(spec: Arc<RemoteSpec>) -> Rc<Self> {
        let source = |(service, kind): &(Arc<Service>, Kind)| Source {
            kind: kind.clone(),
            caller: Caller::new(service.clone()),
            keys_at: RefCell::new(None),
            keys: RefCell::new(Rc::new([])),
            text: RefCell::new(Vec::new()),
            fetched_ns: Cell::new(0),
            begun_ns: Cell::new(0),
            fetching: Cell::new(false),
        };
        let sources = spec.sources.iter().map(source).collect();
        let remote = Rc::new(Self { spec, sources, generation: Cell::new(0) });
        remote.fetch(clock::now_ns(), 0);
        remote
    }

    /// Looks for a key that fits, and checks the signature with it. Begins to fetch sets that are getting old.
    pub fn check(
        self: &Rc<Self>,
        algorithm: JwtAlgorithm,
        kid: Option<&str>,
        signed: &[u8],
        signature: &str,
    ) -> Found {
        if !self.spec.algorithms.contains(&algorithm) {
            return Found::BadSignature;
        }
        let now = clock::now_ns();
        self.fetch(now, self.spec.ttl_ns);
        let mut found = Found::NoSet;
        for source in self.sources.iter().filter(|source| source.age(now) <= self.spec.stale_ns) {
            if found == Found::NoSet {
                found = Found::NoKey;
            }
            for key in source.keys.borrow().iter() {
                let meant = kid.is_none() || key.kid.as_deref() == kid;
                if !meant || key.is_shared() || !key.fits(algorithm) {
                    continue;
                }
                if key.verify(algorithm, signed, signature) {
                    return Found::Good;
                }
                found = Found::BadSignature;
            }
        }
        found
    }

    /// Whether what was found could be another thing after a fetch, which is begun, or under way, then.
    pub fn may_change(self: &Rc<Self>, found: Found) -> bool {
        if !matches!(found, Found::NoKey | Found::NoSet) {
            return false;
        }
        self.fetch(clock::now_ns(), 0);
        self.is_fetching()
    }

    /// Whether all sets are so old that a request should wait for new ones.
    pub fn is_old(self: &Rc<Self>) -> bool {
        let now = clock::now_ns();
        self.fetch(now, self.spec.ttl_ns);
        let old = |source: &Source| source.age(now) / 2 > self.spec.ttl_ns;
        self.sources.iter().any(old) && self.is_fetching()
    }

    /// Waits for the fetches under way.
    pub async fn settle(&self) {
        // Each has a limit of its own: of discovery and keys, with some room.
        let end = clock::now_ns().saturating_add(3 * self.spec.timeout.as_nanos() as u64);
        while self.is_fetching() && clock::now_ns() < end {
            net::sleep(LOOK_PAUSE).await;
        }
    }

    fn is_fetching(&self) -> bool {
        self.sources.iter().any(|source| source.fetching.get())
    }

    /// Begins to fetch the sets older than `age`, unless that was tried just now.
    fn fetch(self: &Rc<Self>, now: u64, age: u64) {
        for (number, source) in self.sources.iter().enumerate() {
            let begun = source.begun_ns.get();
            // Where there is no key at all, every request is refused: worth asking more often.
            let pause = if source.fetched_ns.get() == 0 { FIRST_PAUSE_NS } else { u64::MAX };
            let rested = begun == 0 || now.saturating_sub(begun) >= self.spec.pause_ns.min(pause);
            if source.fetching.get() || !rested || source.age(now) < age {
                continue;
            }
            source.fetching.set(true);
            source.begun_ns.set(now);
            let remote = self.clone();
            net::spawn(async move {
                let source = &remote.sources[number];
                if let Ok(text) = source.text(&remote.spec).await
                    && let Some(keys) = jwk::parse_set(&text)
                {
                    if *source.text.borrow() != text {
                        *source.keys.borrow_mut() = keys.into_iter().flatten().collect();
                        *source.text.borrow_mut() = text;
                        remote.generation.set(remote.generation.get() + 1);
                    }
                    source.fetched_ns.set(clock::now_ns());
                }
                source.fetching.set(false);
            });
        }
    }
}

impl Source {
    /// How long ago the set was fetched.
    fn age(&self, now: u64) -> u64 {
        match self.fetched_ns.get() {
            0 => u64::MAX,
            fetched => now.saturating_sub(fetched),
        }
    }

    /// The text of the set.
    async fn text(&self, spec: &RemoteSpec) -> Result<Vec<u8>, CallError> {
        let Kind::Discovery(issuer) = &self.kind else { return get(&self.caller, spec.timeout).await };
        let document = get(&self.caller, spec.timeout).await?;
        let url =
            keys_url(&document, issuer, self.caller.service().url.https).ok_or(CallError::BadResponse)?;
        let known = self.keys_at.borrow().clone().filter(|known| known.service().url == url);
        let caller = known.unwrap_or_else(|| Rc::new(Caller::new(self.caller.service().elsewhere(url))));
        *self.keys_at.borrow_mut() = Some(caller.clone());
        get(&caller, spec.timeout).await
    }
}

/// Where an issuer's keys are (OpenID Connect Discovery 1.0 section 4.3). `None` where the document is another's, or sends
/// us from HTTPS to where anybody can answer.
fn keys_url(document: &[u8], issuer: &str, https: bool) -> Option<Url> {
    #[derive(Deserialize)]
    struct Document {
        issuer: String,
        jwks_uri: String,
    }
    let document: Document = serde_json::from_slice(document).ok()?;
    let url = Url::parse(&document.jwks_uri).ok()?;
    (document.issuer == issuer && url.https == https).then_some(url)
}

async fn get(caller: &Caller, limit: Duration) -> Result<Vec<u8>, CallError> {
    let url = &caller.service().url;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nAccept: application/jwk-set+json, application/json\r\n\r\n",
        url.target, url.authority
    );
    let reply = caller.call(request.as_bytes(), Method::Get, limit, DOCUMENT_MAX).await?;
    if reply.head.status() == 200 { Ok(reply.body) } else { Err(CallError::BadResponse) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discovery_is_believed_about_its_own_issuer_only() {
        let document =
            |issuer: &str, uri: &str| format!("{{\"issuer\":\"{issuer}\",\"jwks_uri\":\"{uri}\",\"x\":[]}}");
        for (issuer, uri, expected) in [
            ("https://id.example", "https://keys.example/a", true),
            ("https://id.example/", "https://keys.example/a", false),
            ("https://evil.example", "https://keys.example/a", false),
            ("https://id.example", "http://keys.example/a", false),
            ("https://id.example", "file:///etc/passwd", false),
        ] {
            let found = keys_url(document(issuer, uri).as_bytes(), "https://id.example", true);
            assert_eq!(found.is_some(), expected, "{issuer} {uri}");
        }
        assert!(keys_url(b"{}", "https://id.example", true).is_none());
    }
}
