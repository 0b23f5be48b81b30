//! The order of the gateway's modules, and "one dependency, one home".
//!
//! The two tables below are the ones of ARCHITECTURE.md; a new module or crate is added in both places.

use super::rust;
use super::{Finding, Source};

/// Modules of the gateway from the bottom up. A module names only those above it in this list, so the
/// graph has no cycle and each module can be read knowing only what stands before it.
const ORDER: [&str; 15] = [
    "id", "metrics", "log", "net", "limit", "tls", "http", "kernel", "route", "plugin", "upstream",
    "snapshot", "exchange", "shard", "control",
];

/// Where code may name a crate. A path that ends in `/` is a folder.
const HOMES: &[(&[&str], &[&str])] = &[
    (&["monoio", "io_uring", "core_affinity"], &["gateway/src/net/"]),
    (&["rustls", "rustls_pki_types"], &["gateway/src/tls/"]),
    (&["aws_lc_rs"], &["gateway/src/tls/", "gateway/src/plugin/", "gateway/src/upstream/sticky.rs"]),
    (&["httparse", "h2", "brotli", "flate2", "zstd"], &["gateway/src/http/"]),
    (&["aya", "aya_log"], &["gateway/src/kernel/", "ebpf/abi/"]),
    (&["aya_ebpf", "aya_log_ebpf"], &["ebpf/src/"]),
    (&["jsonschema", "jsonwebtoken"], &["gateway/src/plugin/"]),
    (&["argon2", "bcrypt", "md5", "sha_crypt"], &["gateway/src/plugin/password/"]),
    (&["crossbeam_queue"], &["gateway/src/log/", "gateway/src/net/", "gateway/src/plugin/password/pool.rs"]),
    (&["tokio_uring", "axum", "hyper", "tracing_subscriber"], &["gateway/src/control/"]),
    (&["hickory_resolver"], &["gateway/src/control/"]),
    // The codec of HTTP/2 reads and writes by tokio's traits; nothing of tokio runs there.
    (&["tokio"], &["gateway/src/control/", "gateway/src/http/h2/transport.rs"]),
    (&["saphyr_parser"], &["config/"]),
    (&["ratatui"], &["gateway/src/control/top/"]),
    (&["mimalloc"], &["gateway/src/main.rs"]),
    (&["clap"], &["gateway/src/main.rs", "gateway/src/control/", "xtask/"]),
    (&["anyhow"], &["gateway/src/main.rs", "gateway/src/control/", "gateway/build.rs", "xtask/"]),
];

/// `crate::x` of the gateway points down only.
pub fn order(source: &Source, found: &mut Vec<Finding>) {
    let Some(module) = gateway_module(&source.path) else { return };
    let Some(own) = rank(module) else {
        let message = format!("`{module}` has no place in the order of modules ({})", ORDER.join(", "));
        found.push(source.finding(0, "module-order", message));
        return;
    };
    for (at, named) in crate_paths(&source.code) {
        match rank(named) {
            Some(other) if other > own => {
                let message = format!("`{module}` is below `{named}` and may not name it");
                found.push(source.finding(at, "module-order", message));
            }
            _ => {}
        }
    }
}

/// A crate with a home is named nowhere else. Tests may use any crate as a client or a witness.
pub fn homes(source: &Source, found: &mut Vec<Finding>) {
    if source.is_test() {
        return;
    }
    let tests = rust::test_regions(&source.code);
    for (crates, homes) in HOMES {
        if homes.iter().any(|home| source.path.starts_with(home) || is_file_of(&source.path, home)) {
            continue;
        }
        for name in *crates {
            for at in rust::words(&source.code, name).filter(|at| is_crate_path(&source.code, *at, name)) {
                if !tests.iter().any(|r| r.contains(&at)) {
                    let message = format!("`{name}` may be named only in {}", homes.join(", "));
                    found.push(source.finding(at, "one-home", message));
                }
            }
        }
    }
}

/// `gateway/src/http/h1/parse.rs` belongs to `http`; the two crate roots belong to no module.
fn gateway_module(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("gateway/src/")?;
    let module = inside.split('/').next()?;
    let module = module.strip_suffix(".rs").unwrap_or(module);
    (module != "lib" && module != "main").then_some(module)
}

fn rank(module: &str) -> Option<usize> {
    ORDER.iter().position(|m| *m == module)
}

/// A module that is one file instead of a folder is the same home.
fn is_file_of(path: &str, home: &str) -> bool {
    home.strip_suffix('/').is_some_and(|folder| path.strip_suffix(".rs") == Some(folder))
}

/// Every module that `crate::x`, `crate::{x, y::z}` or `pub(in crate::x)` names, with its offset.
fn crate_paths(code: &str) -> Vec<(usize, &str)> {
    let mut named = Vec::new();
    for at in rust::words(code, "crate") {
        let Some(rest) = code[at + 5..].strip_prefix("::") else { continue };
        let start = at + 7;
        if rest.starts_with('{') {
            let end = rust::close_of(code, start).unwrap_or(code.len());
            let mut depth = 0;
            let mut fresh = false;
            for (n, byte) in code.bytes().enumerate().take(end).skip(start) {
                match byte {
                    b'{' => {
                        depth += 1;
                        fresh = depth == 1;
                    }
                    b'}' => depth -= 1,
                    b',' => fresh = depth == 1,
                    b if fresh && rust::is_word_byte(b) => {
                        named.push((n, word_at(code, n)));
                        fresh = false;
                    }
                    _ => {}
                }
            }
        } else {
            named.push((start, word_at(code, start)));
        }
    }
    named
}

fn word_at(code: &str, at: usize) -> &str {
    let len = code[at..].bytes().take_while(|b| rust::is_word_byte(*b)).count();
    &code[at..at + len]
}

/// A path that starts with the crate's name: `name::…`, `use name;`, `use name as …`, `extern crate name`.
fn is_crate_path(code: &str, at: usize, name: &str) -> bool {
    let before = code[..at].trim_end();
    if before.ends_with("::") && !code[..at].ends_with("= ::") && !before.ends_with("use ::") {
        return false;
    }
    let after = code[at + name.len()..].trim_start();
    after.starts_with("::") || before.ends_with("use") || before.ends_with("crate")
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;

    #[test]
    fn a_module_names_only_what_is_below_it() {
        let text = "use crate::http::Head;\nuse crate::shard::Shard;\n";
        let found = findings(order, "gateway/src/route/mod.rs", text);
        assert_eq!(found, ["2: `route` is below `shard` and may not name it"]);
        assert!(findings(order, "gateway/src/control/mod.rs", text).is_empty());
        assert!(findings(order, "gateway/src/shard.rs", text).is_empty());
        assert!(findings(order, "gateway/src/lib.rs", text).is_empty());
    }

    #[test]
    fn grouped_and_inline_paths_are_seen() {
        let text =
            "use crate::{\n    id::{ShardId, control},\n    exchange,\n};\nfn f() { crate::control::g() }\n";
        let found = findings(order, "gateway/src/http/h1/parse.rs", text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("3: `http` is below `exchange`"));
        assert!(found[1].starts_with("5: `http` is below `control`"));
    }

    #[test]
    fn comments_may_name_anything() {
        assert!(findings(order, "gateway/src/id.rs", "//! See crate::control.\n").is_empty());
    }

    #[test]
    fn a_new_module_needs_a_place() {
        let found = findings(order, "gateway/src/extra/mod.rs", "//! X.\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("`extra` has no place"));
    }

    #[test]
    fn a_crate_has_one_home() {
        let text = "//! X.\nuse monoio::net::TcpStream;\n";
        assert!(findings(homes, "gateway/src/net/mod.rs", text).is_empty());
        assert_eq!(
            findings(homes, "gateway/src/exchange/mod.rs", text),
            ["2: `monoio` may be named only in gateway/src/net/"]
        );
        assert!(findings(homes, "tests/src/lib.rs", text).is_empty());
    }

    #[test]
    fn only_paths_count_as_names() {
        let text = "fn f(h2: u8) -> u8 { let monoio = h2; monoio }\nuse crate::http::h2::Frame;\n";
        assert!(findings(homes, "gateway/src/exchange/mod.rs", text).is_empty());
        assert_eq!(findings(homes, "gateway/src/exchange/mod.rs", "use h2;\nuse ::rustls::X;\n").len(), 2);
    }

    #[test]
    fn a_test_beside_the_code_may_use_any_crate() {
        let text = "#[cfg(test)]\nmod tests { use anyhow::Result; }\n";
        assert!(findings(homes, "gateway/src/route/mod.rs", text).is_empty());
    }
}
