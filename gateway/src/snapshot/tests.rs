//! What a snapshot makes of several parts of a configuration together.

use super::*;
use crate::metrics::Registry;

fn snapshot(text: &str) -> Snapshot {
    let loaded = config::load_str("test.yaml", text, &GatewayCatalog).expect("a good configuration");
    let names = Names::default();
    let cx = CompileContext {
        names: &names,
        generation: Generation(1),
        previous: None,
        registry: &Registry::new(1, 16),
        ticketer: &tls::Ticketer::off(),
    };
    compile(Arc::new(loaded.config), &cx).expect("it compiles").0
}

#[test]
fn places_of_credentials_are_masked_though_nobody_lists_them() {
    let redaction = |plugins: &str| {
        snapshot(&format!(
            "services: [{{name: s, url: 'http://127.0.0.1:9'}}]\n\
             telemetry: {{access_log: {{redact_query: [pin], redact_headers: []}}}}\n\
             plugins: [{plugins}]\n"
        ))
        .redaction()
    };
    let none: [&str; 0] = [];
    assert_eq!(redaction(""), log::Redaction::new(&["pin"], &none));
    assert_eq!(
        redaction("{name: key-auth, config: {key_names: [X-Shop-Key]}}"),
        log::Redaction::new(&["pin", "x-shop-key"], &["x-shop-key"])
    );
    assert_eq!(
        redaction("{name: key-auth, config: {key_names: [pass], key_in_query: false}}"),
        log::Redaction::new(&["pin"], &["pass"])
    );
    assert_eq!(
        redaction("{name: jwt, config: {uri_param_names: [ticket], cookie_names: [session]}}"),
        log::Redaction::new(&["pin", "ticket"], &["authorization", "cookie"])
    );
    assert_eq!(
        redaction("{name: key-auth, enabled: false, config: {key_names: [pass]}}"),
        log::Redaction::new(&["pin"], &none)
    );
}

#[test]
fn limits_on_bodies_are_the_routes_before_they_are_everybodys() {
    let snapshot = snapshot(
        "limits: {buffered_body: 64KiB, min_rate: 100, min_rate_after: 3s}\n\
         services:\n  - name: s\n    url: http://127.0.0.1:9\n    routes:\n      \
         - {name: plain, paths: [/a]}\n      \
         - {name: own, paths: [/b], buffered_body: 4KiB, min_rate: 0, min_rate_after: 7s}\n",
    );
    let of = |name: &str| {
        let route = snapshot.routes.iter().find(|route| &*route.name == name).expect("a route");
        (route.buffered_body, route.least.bytes_per_second, route.least.grace.as_secs())
    };
    assert_eq!(of("plain"), (64 * 1024, 100, 3));
    assert_eq!(of("own"), (4 * 1024, 0, 7));
    assert_eq!(snapshot.config.buffered_body_range(), (4 * 1024, 64 * 1024));
}
