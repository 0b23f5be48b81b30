//! Kong's plugins that are neither authentication, limits nor transformers: what the client gets and what the origin
//! learns, option by option.

use std::sync::Arc;

use portcullis_tests::client::{Request, Response};
use portcullis_tests::gateway::{Gateway, Setup, Shared};
use portcullis_tests::origin::{Echo, Origin};
use serde_json::json;

struct Suite {
    gateway: Gateway,
    origin: Origin,
}

/// One route a line: its name, which is its path too, and its plugins.
const ROUTES: &[(&str, &str)] = &[
    ("acl", "{name: key-auth}, {name: acl, config: {allow: [readers]}}"),
    ("acl-deny", "{name: key-auth}, {name: acl, config: {deny: [readers], hide_groups_header: true}}"),
    ("acl-alone", "{name: acl, config: {allow: [readers]}}"),
];

const CONSUMERS: &str = "
consumers:
  - username: ann
    keyauth_credentials: [{key: ann-key}]
    acls: [{group: readers}, {group: staff}]
  - username: ben
    keyauth_credentials: [{key: ben-key}]
    acls: [{group: staff}]
";

fn suite() -> Arc<Suite> {
    static SUITE: Shared<Suite> = Shared::new();
    SUITE.get(|| {
        let origin = Origin::start(Echo::default());
        let routes: String = ROUTES
            .iter()
            .map(|(name, plugins)| {
                format!("      - {{name: {name}, paths: [/{name}/], plugins: [{plugins}]}}\n")
            })
            .collect();
        let services =
            format!("services:\n  - name: web\n    url: http://{}\n    routes:\n{routes}", origin.addr());
        Suite { gateway: Gateway::start(&Setup::new(services + CONSUMERS)), origin }
    })
}

fn send(request: Request) -> Response {
    request.send(suite().gateway.addr())
}

fn get(path: &str, key: &str) -> Response {
    send(Request::get(path).header("apikey", key))
}

#[test]
fn acl_allow() {
    let _held = suite();
    let echoed = get("/acl/", "ann-key").expect(200).echoed();
    assert_eq!(echoed.all("x-consumer-groups"), ["readers, staff"]);
    let refused = get("/acl/", "ben-key").expect(403);
    assert_eq!(refused.json(), json!({"message": "You cannot consume this service"}));
    get("/acl/", "nobodys").expect(401);
}

#[test]
fn acl_deny_and_hide_groups_header() {
    let _held = suite();
    get("/acl-deny/", "ann-key").expect(403);
    let request =
        Request::get("/acl-deny/").header("apikey", "ben-key").header("X-Consumer-Groups", "admins");
    assert!(send(request).expect(200).echoed().all("x-consumer-groups").is_empty());
}

#[test]
fn acl_without_a_consumer() {
    let suite = suite();
    let before = suite.origin.requests();
    assert_eq!(get("/acl-alone/", "ann-key").expect(401).json(), json!({"message": "Unauthorized"}));
    assert_eq!(suite.origin.requests(), before);
}
