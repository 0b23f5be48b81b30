//! Authentication: a token seen for the first time with each algorithm, one that is known, and an API key.
//!
//! Each is the whole plugin: finding the credential in the head, judging it, and telling the upstream who it is.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use portcullis::http::RequestHead;
use portcullis::http::h1::{HeadLimits, parse_request};
use portcullis::limit::{Table, random_secret};
use portcullis::plugin::consumer::Consumers;
use portcullis::plugin::{CompileCx, Cx, Flow, Plugin, PluginSpec, registry};
use portcullis::snapshot::GatewayCatalog;
use portcullis_config::{Diagnostics, load_str};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
use serde_json::json;

const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// Wall clock of the exchanges, in seconds.
const NOW: u64 = 1_700_000_000;
/// Tokens sent in turn, as in the load runs.
const TOKENS: usize = 256;

/// What the plugins stand on: a consumer with a key for each algorithm.
struct Bench {
    keys: [(KeyPair, &'static str, Algorithm); 6],
    consumers: Arc<Consumers>,
    jwt: Arc<dyn PluginSpec>,
    key_auth: Arc<dyn PluginSpec>,
    table: Table,
}

impl Bench {
    fn new() -> Bench {
        let pair = |algorithm| KeyPair::generate_for(algorithm).expect("a key pair");
        let keys = [
            (pair(&PKCS_ED25519), "HS256", Algorithm::HS256),
            (pair(&PKCS_RSA_SHA256), "RS256", Algorithm::RS256),
            (pair(&PKCS_RSA_SHA256), "PS256", Algorithm::PS256),
            (pair(&PKCS_ECDSA_P256_SHA256), "ES256", Algorithm::ES256),
            (pair(&PKCS_ECDSA_P384_SHA384), "ES384", Algorithm::ES384),
            (pair(&PKCS_ED25519), "EdDSA", Algorithm::EdDSA),
        ];
        let mut text =
            "plugins: [{name: jwt}, {name: key-auth}]\nconsumers:\n- username: ann\n  custom_id: a-1\n  \
                        keyauth_credentials: [{key: 5f2b8c1d9e7a4036, id: key-1}]\n  jwt_secrets:\n"
                .to_owned();
        for (pair, word, algorithm) in &keys {
            let (name, material) = match algorithm {
                Algorithm::HS256 => ("secret", SECRET.to_owned()),
                _ => ("rsa_public_key", pair.public_key_pem()),
            };
            let material = serde_json::Value::from(material);
            text.push_str(&format!("  - {{key: issuer-{word}, algorithm: {word}, {name}: {material}}}\n"));
        }
        let config = load_str("bench.yaml", &text, &GatewayCatalog).expect("a good configuration").config;
        let found = Diagnostics::new(config.sources.clone());
        let consumers = Arc::new(Consumers::compile(&config, Duration::from_secs(NOW), &found));
        let compile = |number: usize| {
            let plugin = &config.plugins[number];
            let registration = registry::find(&plugin.name).expect("a registered plugin");
            let cx = CompileCx { consumers: &consumers, config: &config, instance: number as u64 };
            (registration.compile)(plugin, &cx, &found).expect("good settings")
        };
        let (jwt, key_auth) = (compile(0), compile(1));
        assert!(!found.has_errors());
        Bench { keys, consumers, jwt, key_auth, table: Table::new(64, random_secret()).expect("a table") }
    }

    /// A request with a token of `algorithm`; those with different numbers have different ones.
    fn request(&self, algorithm: Algorithm, number: usize) -> Vec<u8> {
        let (pair, word, _) = self.keys.iter().find(|(.., known)| *known == algorithm).expect("a key");
        let pem = pair.serialize_pem();
        let key = match algorithm {
            Algorithm::HS256 => Ok(EncodingKey::from_secret(SECRET.as_bytes())),
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        let claims = json!({
            "iss": format!("issuer-{word}"), "sub": format!("user-{number}"), "exp": NOW + 3600, "nbf": NOW - 60,
            "scope": "read write",
        });
        let token = encode(&Header::new(algorithm), &claims, &key.expect("a signing key")).expect("a token");
        request(&format!("Authorization: Bearer {token}"))
    }

    /// Time of `count` passes of the plugin over the requests in turn. Heads are parsed anew in between, which is not
    /// counted, and have been used before, so that they allocate nothing.
    fn pass(&self, plugin: &dyn Fn() -> Rc<dyn Plugin>, requests: &[Vec<u8>], count: u64) -> Duration {
        let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let wall = Duration::from_secs(NOW);
        let mut cx = Cx::new(1, wall, source, source, &self.consumers, &self.table, &self.table);
        let limits = HeadLimits::default();
        let mut heads: Vec<_> = requests.iter().map(|_| RequestHead::new()).collect();
        let mut plugins: Vec<_> = requests.iter().map(|_| plugin()).collect();
        let (mut spent, mut left) = (Duration::ZERO, count as usize);
        let mut warm = false;
        while left > 0 {
            for (head, text) in heads.iter_mut().zip(requests) {
                head.clear();
                parse_request(text, &limits, head).expect("a good request");
            }
            if warm {
                plugins.iter_mut().for_each(|known| *known = plugin());
            }
            let batch = left.min(requests.len());
            let start = Instant::now();
            for (head, plugin) in heads[..batch].iter_mut().zip(&plugins) {
                assert!(matches!(black_box(plugin.on_request(&mut cx, head)), Flow::Continue));
            }
            if warm {
                spent += start.elapsed();
                left -= batch;
            }
            warm = true;
        }
        spent
    }
}

fn request(field: &str) -> Vec<u8> {
    format!(
        "GET /orders/17 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n{field}\r\n\r\n"
    )
    .into_bytes()
}

fn auth(c: &mut Criterion) {
    let bench = Bench::new();
    let mut group = c.benchmark_group("jwt");
    for (_, word, algorithm) in &bench.keys {
        let requests: Vec<_> = (0..16).map(|number| bench.request(*algorithm, number)).collect();
        // An instance that has just been made remembers nothing.
        let fresh = || bench.jwt.clone().instantiate(None);
        group.bench_function(format!("first, {word}"), |b| {
            b.iter_custom(|count| bench.pass(&fresh, &requests, count));
        });
    }
    let requests: Vec<_> = (0..TOKENS).map(|number| bench.request(Algorithm::RS256, number)).collect();
    let one = vec![requests[0].clone(); 16];
    for (name, requests) in [("known, RS256", &one), ("known, RS256, 256 in turn", &requests)] {
        let plugin = bench.jwt.clone().instantiate(None);
        group.bench_function(name, |b| {
            b.iter_custom(|count| bench.pass(&|| plugin.clone(), requests, count));
        });
    }
    group.finish();
    let mut group = c.benchmark_group("key-auth");
    let requests = vec![request("apikey: 5f2b8c1d9e7a4036"); 16];
    let plugin = bench.key_auth.clone().instantiate(None);
    group.bench_function("field", |b| {
        b.iter_custom(|count| bench.pass(&|| plugin.clone(), &requests, count));
    });
    group.finish();
}

criterion_group!(benches, auth);
criterion_main!(benches);
