//! What requests become and what is asked of them: redirect, path-rewrite, request-validator, grpc-web.

use portcullis_tests::client::{Request, Response};

use super::{echo, gateway};

/// Where a redirect leads, with its status.
fn led(settings: &str, request: Request) -> (u16, String) {
    let origin = echo();
    let gateway = gateway(&origin, &format!("[{{name: redirect, config: {{{settings}}}}}]"), "");
    let response = request.send(gateway.addr());
    assert_eq!(origin.requests(), 0, "{settings}");
    (response.status, response.header("location").to_owned())
}

#[test]
fn redirect_keep_incoming_path() {
    let to = |keep: bool| {
        led(
            &format!("location: 'https://new.test/old/place', keep_incoming_path: {keep}"),
            Request::get("/a/b?c=d"),
        )
    };
    assert_eq!(to(false), (301, "https://new.test/old/place".to_owned()));
    assert_eq!(to(true), (301, "https://new.test/a/b?c=d".to_owned()));
}

#[test]
fn redirect_permanent() {
    for (permanent, get, post) in [(true, 301, 308), (false, 302, 307)] {
        let settings = format!("location: 'https://new.test/', permanent: {permanent}");
        assert_eq!(led(&settings, Request::get("/")).0, get);
        assert_eq!(led(&settings, Request::post("/", "x")).0, post);
    }
}

#[test]
fn redirect_regex_and_replacement() {
    let settings = "regex: '^http://test/user/(?<who>[a-z]+)(.*)', replacement: 'https://${who}.test/$2'";
    assert_eq!(led(settings, Request::get("/user/ann/x?y")), (301, "https://ann.test//x?y".to_owned()));
}

#[test]
fn path_rewrite_steps() {
    let sent = |steps: &str, path: &str| {
        let origin = echo();
        let plugins = format!("[{{name: path-rewrite, config: {{steps: [{steps}]}}}}]");
        let gateway = gateway(&origin, &plugins, "");
        Request::get(path).send(gateway.addr()).expect(200).echoed().target().to_owned()
    };
    assert_eq!(sent("{strip_prefix: [/v1, /v2]}", "/v2/a?b"), "/a?b");
    assert_eq!(sent("{strip_prefix_regex: ['/v[0-9]+']}", "/v42/a"), "/a");
    assert_eq!(sent("{add_prefix: /shop}", "/a?b"), "/shop/a?b");
    assert_eq!(sent("{replace: /all}", "/a?b"), "/all?b");
    assert_eq!(sent("{regex: '^/([a-z]+)/([0-9]+)', replacement: '/$2/$1'}", "/item/7/x"), "/7/item/x");
    assert_eq!(sent("{strip_prefix_regex: ['/v[0-9]+']}, {add_prefix: /api}", "/v3/a"), "/api/a");
}

fn validated(settings: &str, request: &Request) -> Response {
    let origin = echo();
    let gateway = gateway(&origin, &format!("[{{name: request-validator, config: {{{settings}}}}}]"), "");
    let response = request.send(gateway.addr());
    assert_eq!(origin.requests() == 1, response.status == 200, "{settings}");
    response
}

fn json(body: &str) -> Request {
    Request::post("/", body).header("Content-Type", "application/json; charset=utf-8")
}

const NAMED: &str = r#"body_schema: '{"type": "object", "required": ["name"]}'"#;

#[test]
fn request_validator_body_schema() {
    let told = validated(NAMED, &json(r#"{"name":"ann"}"#)).expect(200).echoed();
    assert_eq!(told.0["body"], r#"{"name":"ann"}"#);
    for wrong in [r#"{"nam":"ann"}"#, "[]", "{", ""] {
        validated(NAMED, &json(wrong)).expect(400);
    }
}

#[test]
fn request_validator_verbose_response() {
    let quiet = validated(NAMED, &json("{}")).expect(400).text();
    let verbose = validated(&format!("{NAMED}, verbose_response: true"), &json("{}")).expect(400).text();
    assert!(!quiet.contains("name") && verbose.contains("name"), "{quiet} {verbose}");
}

#[test]
fn request_validator_allowed_content_types() {
    let text = Request::post("/", "no JSON").header("Content-Type", "text/plain");
    validated(NAMED, &text).expect(400);
    let both = format!("{NAMED}, allowed_content_types: [application/json, text/plain]");
    validated(&both, &text).expect(200);
    validated(&both, &json("{}")).expect(400);
}

#[test]
fn request_validator_parameter_schema() {
    let page =
        r#"parameter_schema: [{in: query, name: page, required: true, schema: '{"type": "integer"}'}]"#;
    validated(page, &Request::get("/?page=12")).expect(200);
    for wrong in ["/?page=two", "/", "/?pages=12"] {
        validated(page, &Request::get(wrong)).expect(400);
    }
    let header =
        r#"parameter_schema: [{in: header, name: X-Size, required: false, schema: '{"enum": ["s", "m"]}'}]"#;
    validated(header, &Request::get("/")).expect(200);
    validated(header, &Request::get("/").header("X-Size", "m")).expect(200);
    validated(header, &Request::get("/").header("X-Size", "xl")).expect(400);
}

#[test]
fn grpc_web_allow_origin_header() {
    for (settings, expected) in [("", "*"), ("allow_origin_header: 'https://shop.test'", "https://shop.test")]
    {
        let origin = echo();
        let gateway = gateway(&origin, &format!("[{{name: grpc-web, config: {{{settings}}}}}]"), "");
        let call = Request::post("/s/m", vec![0_u8, 0, 0, 0, 0]);
        let told = call.header("Content-Type", "application/grpc-web+proto").send(gateway.addr());
        assert_eq!(told.header("access-control-allow-origin"), expected);
        let other = Request::get("/").send(gateway.addr()).expect(200);
        assert!(!other.has("access-control-allow-origin"));
    }
}
