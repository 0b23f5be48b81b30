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
