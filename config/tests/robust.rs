//! No input breaks the loader: it gives a configuration or findings, never a panic, and always in bounded time.

mod catalog;

use std::path::Path;

use catalog::CATALOG;
use portcullis_config::{Config, Diagnostic, load_str};
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Every sample of this crate, good and broken.
fn corpus() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["examples", "tests/data/broken", "tests/data/kong"].map(|folder| root.join(folder));
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("a folder of samples"));
    let mut all: Vec<_> = files.map(|entry| entry.expect("an entry").path()).collect();
    all.sort();
    all.into_iter().map(|file| std::fs::read_to_string(file).expect("a sample")).collect()
}

/// Loads and checks what must hold for every input.
fn check(text: &str) -> Result<Config, Vec<Diagnostic>> {
    match load_str("t.yaml", text, &CATALOG) {
        Ok(loaded) => {
            check_references(&loaded.config);
            // Printing must not fail either.
            let _ = (format!("{:?}", loaded.config), shown(&loaded.warnings));
            Ok(loaded.config)
        }
        Err(found) => {
            assert!(!found.is_empty(), "an error without a finding");
            let failed = found.iter().any(|one| one.message == "the YAML parser failed on this text");
            assert!(!failed, "the parser panicked on {text:?}");
            let _ = shown(&found);
            Err(found)
        }
    }
}

fn shown(found: &[Diagnostic]) -> String {
    found.iter().map(|one| format!("{one}\n")).collect()
}

/// The promise of the model: nothing dangles, nothing is empty that must not be.
fn check_references(config: &Config) {
    use portcullis_config::Destination;
    assert!(!config.listeners.is_empty());
    for service in &config.services {
        assert!(!service.connect_timeout.is_zero() && !service.body_idle_timeout.is_zero());
        match &service.destination {
            Destination::Upstream(upstream) => assert!(!config[*upstream].targets.is_empty()),
            Destination::Target(address) => assert!(!address.to_string().starts_with(':')),
        }
    }
    for service in config.routes.iter().filter_map(|route| route.service) {
        let _ = &config[service];
    }
    for scope in config.plugins.iter().map(|plugin| plugin.scope) {
        let _ = (scope.service.map(|one| &config[one]), scope.route.map(|one| &config[one]));
        let _ = scope.consumer.map(|one| &config[one]);
    }
    for tls in config.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        assert!(!tls.certificates.is_empty());
        tls.certificates
            .iter()
            .chain(&tls.default_certificate)
            .for_each(|one| assert!(one.index() < config.certificates.len()));
    }
    for consumer in &config.consumers {
        assert!(!consumer.name().is_empty());
    }
}

/// Pieces of YAML and of our own words, to get past the first error.
#[rustfmt::skip]
const FRAGMENTS: &[&str] = &[
    "services", "routes", "name", "url", "http://a", "paths", "[/]", "/", "~(", "plugins", "jwt", "config",
    "xdp", "limits", "connections", "100/s", "host", "upstreams", "targets", "target", "a:80", "consumers",
    "username", "key", "&a", "*a", "<<", "{", "}", "[", "]", ",", ":", "- ", "? ", "|", ">", "\"", "'", "#",
    "!!str", "!x", "---", "...", "%YAML 1.2", "\t", "\n", "\n  ", "\n    ", "null", "~", "true", "0", "-1",
    "1e999", "3s", "10MiB", "${env:X}", "${file:/x}", "$${", "é", "\u{feff}", "\u{0}", "\u{85}", "\u{2028}",
    "\r", "\r\n", "_format_version", "defaults", "kong", "listeners", "address", "127.0.0.1:1", "tls",
    "certificates", "snis", "healthchecks", "active", "headers",
];

fn fragment() -> impl Strategy<Value = String> {
    let words = select(FRAGMENTS);
    prop_oneof![8 => words.prop_map(str::to_owned), 1 => any::<String>(), 2 => Just(" ".to_owned())]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text(text in any::<String>()) {
        let _ = check(&text);
    }

    #[test]
    fn fragments(parts in proptest::collection::vec(fragment(), 0..60)) {
        let _ = check(&parts.concat());
    }

    #[test]
    fn samples_cut_short(which in any::<Index>(), at in any::<Index>()) {
        let corpus = corpus();
        let text = which.get(&corpus);
        let mut at = at.index(text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let _ = check(&text[..at]);
    }

    #[test]
    fn samples_with_a_piece_replaced(which in any::<Index>(), at in any::<Index>(), len in 0usize..30, with in fragment()) {
        let corpus = corpus();
        let characters: Vec<char> = which.get(&corpus).chars().collect();
        let start = at.index(characters.len() + 1);
        let end = (start + len).min(characters.len());
        let text: String = characters[..start].iter().copied().chain(with.chars()).chain(characters[end..].iter().copied()).collect();
        let _ = check(&text);
    }

    #[test]
    fn lines_of_samples_shuffled(which in any::<Index>(), from in any::<Index>(), to in any::<Index>()) {
        let corpus = corpus();
        let mut lines: Vec<&str> = which.get(&corpus).lines().collect();
        let (from, to) = (from.index(lines.len()), to.index(lines.len()));
        lines.swap(from, to);
        let _ = check(&lines.join("\n"));
    }
}

#[test]
fn deep_wide_and_long_inputs() {
    let deep = ["[", "{a: ", "- ", "? ", "a:\n ", "\"", "'", "|\n", "&a ", "!!str ", "*a", "[[[[{", "- - - "];
    for piece in deep {
        for count in [1, 50, 1000, 20_000] {
            let _ = check(&piece.repeat(count));
        }
    }
    let wide: String = (0..20_000).map(|n| format!("x-{n}: {n}\n")).collect();
    assert!(check(&wide).is_ok());
    let unknown: String = (0..20_000).map(|n| format!("unknown{n}: {n}\n")).collect();
    let found = check(&unknown).expect_err("unknown keys");
    assert_eq!(found.len(), portcullis_config::diagnostic::MAX_KEPT + 1);
    let _ = check(&format!("services: [{}]", "{},".repeat(5000)));
    let _ = check(&format!("x-long: {}", "y".repeat(1 << 20)));
    let indent: String = (0..300).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    let _ = check(&indent);
}

#[test]
fn aliases_are_bounded_across_shapes() {
    let mut text = String::from("x-0: &a0 {k: [1,2,3,4,5,6,7,8]}\n");
    for n in 1..30 {
        text += &format!(
            "x-{n}: &a{n} {{{}}}\n",
            (0..9).map(|k| format!("k{k}: *a{}", n - 1)).collect::<Vec<_>>().join(", ")
        );
    }
    let found = check(&text).expect_err("a bomb");
    assert!(found[0].message.contains("aliases"), "{}", shown(&found));
    let mut merges = String::from("x-0: &a0 {a: 1}\n");
    for n in 1..40 {
        merges += &format!("x-{n}: &a{n} {{<<: [*a{0}, *a{0}], b{n}: 1}}\n", n - 1);
    }
    let _ = check(&merges);
}

/// Ten thousand routes load in seconds even in a debug build: nothing is quadratic.
#[test]
fn many_entities() {
    let mut text = String::from("services:\n");
    for n in 0..10_000 {
        text += &format!(
            "- {{name: s{n}, url: 'http://10.0.0.1:80', routes: [{{name: r{n}, paths: [/p{n}]}}]}}\n"
        );
    }
    let started = std::time::Instant::now();
    let config = check(&text).expect("valid");
    assert_eq!(config.routes.len(), 10_000);
    assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
}
