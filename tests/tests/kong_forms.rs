//! Forms of Kong's declarative format beside the plain one: older versions, flat entities, and what exports write.

use portcullis_tests::client::Request;
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Echo, Origin};

/// Before 3.0 a path with characters of expressions is one; since then it says so with `~`.
#[test]
fn paths_of_older_versions_are_expressions_without_a_mark() {
    let origin = Origin::start(Echo::default());
    let text = format!(
        "services: [{{name: s, url: '{}', routes: [{{name: r, strip_path: false, paths: ['/users/\\d+$', /plain]}}]}}]\n",
        origin.url()
    );
    for version in ["1.1", "2.1"] {
        let gateway = Gateway::start(&Setup::new(text.clone()).format_version(version));
        Request::get("/users/17").send(gateway.addr()).expect(200);
        Request::get("/users/ann").send(gateway.addr()).expect(404);
        Request::get("/plain/x").send(gateway.addr()).expect(200);
    }
}

#[test]
fn expressions_of_3_0_bear_their_mark() {
    let origin = Origin::start(Echo::default());
    let text = format!(
        "services: [{{name: s, url: '{}', routes: [{{name: r, strip_path: false, paths: ['~/users/\\d+$']}}]}}]\n",
        origin.url()
    );
    let gateway = Gateway::start(&Setup::new(text));
    Request::get("/users/17").send(gateway.addr()).expect(200);
    Request::get("/users/ann").send(gateway.addr()).expect(404);
}

/// What an export has: every entity by itself, with references, ids, times and tags.
#[test]
fn flat_entities_with_references_and_what_exports_write() {
    let origin = Origin::start(Echo::default());
    let text = format!(
        "_transform: false\n_info: {{select_tags: [edge], defaults: {{}}}}\n\
         services:\n- {{id: 5bd2f1a2-0000-4000-8000-000000000001, name: orders, protocol: http, host: {}, port: {}, tags: [edge], \
         created_at: 1700000000, updated_at: 1700000000}}\n\
         routes:\n- {{name: orders, service: {{id: 5bd2f1a2-0000-4000-8000-000000000001}}, paths: [/orders], methods: [GET], tags: \
         [edge]}}\n\
         consumers:\n- {{username: ann, custom_id: c-1, tags: [edge]}}\n\
         keyauth_credentials:\n- {{consumer: {{username: ann}}, key: key-of-ann}}\n\
         plugins:\n- {{name: key-auth, route: {{name: orders}}, config: {{key_names: [apikey]}}}}\n\
         - {{name: request-transformer, consumer: {{username: ann}}, config: {{add: {{headers: ['X-Of:ann']}}}}}}\n",
        origin.addr().ip(),
        origin.addr().port()
    );
    let gateway = Gateway::start(&Setup::new(text));
    Request::get("/orders/1").send(gateway.addr()).expect(401);
    Request::new("DELETE", "/orders/1").header("apikey", "key-of-ann").send(gateway.addr()).expect(404);
    let echoed =
        Request::get("/orders/1").header("apikey", "key-of-ann").send(gateway.addr()).expect(200).echoed();
    assert_eq!((echoed.target(), echoed.all("x-of")), ("/1", vec!["ann"]));
    assert_eq!(echoed.all("x-consumer-custom-id"), ["c-1"]);
}
