//! The `jwt` plugin on one request: a token seen before (the usual case), and one seen for the first time,
//! which costs the signature check.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use portcullis::http::RequestHead;
use portcullis::http::h1::{HeadLimits, parse_request};
use portcullis::limit::{Table, random_secret};
use portcullis::plugin::consumer::Consumers;
use portcullis::plugin::{CompileCx, Cx, Flow, Plugin, registry};
use portcullis_config::{Diagnostics, PluginCatalog, Section, load_str};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The wall clock, in seconds; tokens outlast it.
const NOW: u64 = 1_700_000_000;

/// Tokens sent in turn, as in the load run.
const TOKENS: usize = 256;

struct Catalog;

impl PluginCatalog for Catalog {
    fn names(&self) -> Vec<&'static str> {
        registry::REGISTRY.iter().map(|plugin| plugin.name).collect()
    }

    fn section(&self, name: &str) -> Option<&'static Section> {
        registry::find(name).map(|plugin| plugin.section)
    }
}

/// A key pair, and what the configuration and the signer need of it.
struct Issuer {
    algorithm: Algorithm,
    name: &'static str,
    public: String,
    key: EncodingKey,
}

impl Issuer {
    fn rsa() -> Self {
        let pair = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("an RSA key");
        let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).expect("PKCS #8");
        Self { algorithm: Algorithm::RS256, name: "RS256", public: pair.public_key_pem(), key }
    }

    fn ecdsa() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a P-256 key");
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("PKCS #8");
        Self { algorithm: Algorithm::ES256, name: "ES256", public: pair.public_key_pem(), key }
    }

    fn config(&self) -> String {
        let public: String = self.public.lines().map(|line| format!("      {line}\n")).collect();
        format!(
            "consumers:\n- username: load\n  jwt_secrets:\n  - key: load\n    algorithm: {}\n    \
             rsa_public_key: |\n{public}plugins:\n- name: jwt\n",
            self.name
        )
    }

    /// The requests of so many users, each with a token of its own.
    fn requests(&self, users: usize) -> Vec<RequestHead> {
        (0..users).map(|user| self.request(user)).collect()
    }

    fn request(&self, user: usize) -> RequestHead {
        let claims = json!({ "iss": "load", "sub": format!("user-{user}"), "exp": NOW + 3600 });
        let token = encode(&Header::new(self.algorithm), &claims, &self.key).expect("a token");
        let text = format!("GET /small HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
        let mut head = RequestHead::new();
        parse_request(text.as_bytes(), &HeadLimits::default(), &mut head).expect("a request");
        head
    }
}

fn jwt(c: &mut Criterion) {
    for issuer in [Issuer::rsa(), Issuer::ecdsa()] {
        let loaded = match load_str("bench.yaml", &issuer.config(), &Catalog) {
            Ok(loaded) => loaded,
            Err(found) => panic!("{}", found.iter().map(|one| format!("{one}\n")).collect::<String>()),
        };
        let config = loaded.config;
        let found = Diagnostics::new(config.sources.clone());
        let wall = Duration::from_secs(NOW);
        let consumers = Arc::new(Consumers::compile(&config, wall, &found));
        let table = Table::new(64, random_secret()).expect("a small table");
        let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
        // An instance that has seen nothing, as a shard has it after start.
        let fresh = || -> Rc<dyn Plugin> {
            let registration = registry::find("jwt").expect("jwt is registered");
            let cx = CompileCx { consumers: &consumers, instance: 0 };
            let spec = (registration.compile)(&config.plugins[0], &cx, &found);
            spec.expect("a good configuration").instantiate(None)
        };
        let accept = |plugin: &dyn Plugin, head: &mut RequestHead| {
            let mut cx = Cx::new(1, wall, source, source, &consumers, &table, &table);
            assert!(matches!(plugin.on_request(&mut cx, head), Flow::Continue), "the token is refused");
        };
        let mut group = c.benchmark_group(format!("jwt, {}", issuer.name));
        let seen = fresh();
        let heads = issuer.requests(TOKENS);
        heads.iter().for_each(|head| accept(seen.as_ref(), &mut head.clone()));
        let mut turn = 0;
        group.bench_function("256 known tokens in turn", |b| {
            b.iter_batched_ref(
                || {
                    turn = (turn + 1) % TOKENS;
                    heads[turn].clone()
                },
                |head| accept(seen.as_ref(), head),
                BatchSize::SmallInput,
            );
        });
        group.bench_function("a new token", |b| {
            b.iter_batched_ref(
                || (fresh(), heads[0].clone()),
                |(plugin, head)| accept(plugin.as_ref(), head),
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, jwt);
criterion_main!(benches);
