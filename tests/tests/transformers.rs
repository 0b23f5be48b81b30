//! request-transformer and response-transformer, option by option: each test bears the plugin's and the option's name.
//! How the steps work together is `transform`'s.

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use portcullis_tests::client::{Echoed, Request, Response};
use portcullis_tests::gateway::{Gateway, Setup, Shared};
use portcullis_tests::origin::{Canned, Echo, Origin};
use portcullis_tests::tokens::{claims, keys, token};

struct Suite {
    gateway: Gateway,
    _origins: Vec<Origin>,
}

/// Routes to an echo, each with its request-transformer.
const REQUESTS: &[(&str, &str)] = &[
    ("remove-headers", "{remove: {headers: [X-A]}}"),
    ("remove-query", "{remove: {querystring: [a]}}"),
    ("remove-body", "{remove: {body: [a]}}"),
    ("rename-headers", "{rename: {headers: ['X-A:X-B']}}"),
    ("rename-query", "{rename: {querystring: ['a:b']}}"),
    ("rename-body", "{rename: {body: ['a:b']}}"),
    ("replace-headers", "{replace: {headers: ['X-A:new']}}"),
    ("replace-query", "{replace: {querystring: ['a:new']}}"),
    ("replace-body", "{replace: {body: ['a:new']}}"),
    ("replace-uri", "{replace: {uri: /other/place}}"),
    ("add-headers", "{add: {headers: ['X-A:added']}}"),
    ("add-query", "{add: {querystring: ['a:added']}}"),
    ("add-body", "{add: {body: ['a:added']}}"),
    ("append-headers", "{append: {headers: ['X-A:more']}}"),
    ("append-query", "{append: {querystring: ['a:more']}}"),
    ("append-body", "{append: {body: ['a:more']}}"),
    (
        "nested",
        "{remove: {body: ['user.password', 'list[0].x', 'all[*].y']}, add: {body: ['meta.by:gateway']}}",
    ),
    ("dots", "{dots_in_keys: true, remove: {body: ['user.password']}, add: {body: ['meta.by:gateway']}}"),
    ("allow-body", "{allow: {body: [a, 'user.name']}}"),
    ("method", "{http_method: PATCH}"),
    ("method-get", "{http_method: GET, rename: {body: ['a:b']}}"),
    ("of-headers", "{add: {headers: ['X-Out:$(headers.x_in)!']}}"),
    ("of-query", "{add: {headers: ['X-Out:$(query_params.user)']}}"),
];

/// The same with path expressions of their own.
const CAPTURES: &str = r#"
      - name: captures
        paths: ["~/captures/(?<id>[0-9]+)/(\\w+)"]
        strip_path: false
        plugins:
        - name: request-transformer
          config:
            add: {headers: ["X-Id:$(uri_captures.id)", "X-Second:$(uri_captures[2])"]}
            replace: {uri: "/items/$(uri_captures.id)"}
      - name: known
        paths: [/known]
        plugins:
        - {name: jwt}
        - name: request-transformer
          config:
            add:
              headers: ["X-Who:$(consumer.username)", "X-Custom:$(consumer.custom_id)", "X-Groups:$(consumer.groups)",
                        "X-Shared:$(shared.authenticated_consumer.username)", "X-Issuer:$(claims.iss)", "X-Role:$(claims.realm.role)"]
"#;

const JSON_BODY: &str = r#"{"a":1,"b":{"c":[1.50,2]},"secret":"s"}"#;

/// Routes to the same answer, each with its response-transformer.
const RESPONSES: &[(&str, &str)] = &[
    ("r-remove-headers", "{remove: {headers: [X-A]}}"),
    ("r-rename-headers", "{rename: {headers: ['X-A:X-B']}}"),
    ("r-replace-headers", "{replace: {headers: ['X-A:new', 'X-None:never']}}"),
    ("r-add-headers", "{add: {headers: ['X-A:ignored', 'X-New:added']}}"),
    ("r-append-headers", "{append: {headers: ['X-A:more']}}"),
    ("r-remove-json", "{remove: {json: [secret]}}"),
    ("r-rename-json", "{rename: {json: ['secret:open']}}"),
    ("r-replace-json", "{replace: {json: ['a:2', 'none:x']}}"),
    ("r-add-json", "{add: {json: ['a:x', 'new:x']}}"),
    ("r-append-json", "{append: {json: ['a:x']}}"),
    ("r-types", "{add: {json: ['n:1.50', 't:true', 's:5'], json_types: [number, boolean, string]}}"),
    ("r-nested", "{remove: {json: ['b.c[0]']}}"),
    ("r-dots", "{dots_in_keys: true, remove: {json: ['b.c']}, add: {json: ['b.d:x']}}"),
    ("r-allow", "{allow: {json: [a, 'b.c[1]']}}"),
    ("r-body", "{replace: {body: 'nothing to see'}}"),
    (
        "r-status",
        "{remove: {json: [secret], if_status: ['404']}, add: {headers: ['X-Ok:1'], if_status: [200-299]}}",
    ),
    ("r-body-status", "{replace: {body: 'nothing to see', if_status: [500-599]}}"),
];

/// The suite's gateway. A test holds it to its end, lest it be stopped between two requests.
fn suite() -> Arc<Suite> {
    static SUITE: Shared<Suite> = Shared::new();
    SUITE.get(|| {
        let echo = Origin::start(Echo::default());
        let fields = "Content-Type: application/json\r\nX-A: old\r\nETag: \"v1\"\r\n";
        let canned = Origin::start(Canned { status: "200 OK", fields, body: JSON_BODY });
        let missing = Origin::start(Canned { status: "404 Not Found", fields, body: JSON_BODY });
        let coded = Origin::start(Canned {
            status: "200 OK",
            fields: "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
            body: "\u{1f}not really gzip",
        });
        let text = Origin::start(Canned { status: "200 OK", fields: "Content-Type: text/plain\r\nETag: \"v1\"\r\n", body: JSON_BODY });
        let route = |plugin: &str, (name, settings): &(&str, &str)| {
            format!("      - {{name: {name}, paths: [/{name}], plugins: [{{name: {plugin}, config: {settings}}}]}}\n")
        };
        let service = |name: &str, origin: &Origin, routes: String| {
            format!("  - name: {name}\n    url: {}\n    routes:\n{routes}", origin.url())
        };
        let requests = REQUESTS.iter().map(|one| route("request-transformer", one)).collect::<String>() + CAPTURES;
        let responses = RESPONSES.iter().map(|one| route("response-transformer", one)).collect();
        let one = |name, settings| route("response-transformer", &(name, settings));
        let on_missing = one("m-status", RESPONSES[15].1);
        let on_coded = one("c-remove-json", "{remove: {json: [secret]}}");
        let on_text = one("t-remove-json", "{remove: {json: [secret]}}") + &one("t-body", "{replace: {body: ''}}");
        let (name, secret) = keys().verifier(Algorithm::HS256);
        let consumers = format!(
            "consumers:\n- username: ann\n  custom_id: c-7\n  acls: [{{group: a}}, {{group: b}}]\n  \
             jwt_secrets: [{{key: issuer, algorithm: HS256, {name}: {secret}}}]\n"
        );
        let text_of = [
            consumers,
            "services:\n".to_owned(),
            service("echo", &echo, requests),
            service("canned", &canned, responses),
            service("missing", &missing, on_missing),
            service("coded", &coded, on_coded),
            service("text", &text, on_text),
        ];
        let gateway = Gateway::start(&Setup::new(text_of.concat()));
        Suite { gateway, _origins: vec![echo, canned, missing, coded, text] }
    })
}

#[track_caller]
fn send(request: &Request, status: u16) -> Response {
    request.send(suite().gateway.addr()).expect(status)
}

#[track_caller]
fn headers(route: &str, given: &[&str]) -> Echoed {
    let all =
        given.iter().fold(Request::get(&format!("/{route}")), |request, value| request.header("X-A", value));
    send(&all, 200).echoed()
}

#[track_caller]
fn query(route: &str, query: &str) -> String {
    let echoed = send(&Request::get(&format!("/{route}?{query}")), 200).echoed();
    echoed.target().split_once('?').map(|(_, query)| query.to_owned()).unwrap_or_default()
}

/// The body that the origin got, which has to be as long as its head said.
#[track_caller]
fn body(route: &str, media_type: &str, body: &str) -> String {
    let request =
        Request::post(&format!("/{route}"), body).header("Content-Type", media_type).header("Digest", "x=y");
    let echoed = send(&request, 200).echoed();
    let text = echoed.0["body"].as_str().unwrap_or_default().to_owned();
    assert_eq!(echoed.all("content-length"), [text.len().to_string()]);
    assert_eq!(echoed.all("digest").len(), 0, "it is of other bytes");
    text
}

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// One part named `a` with this value.
fn part(name: &str, value: &str) -> String {
    format!("--xx\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

#[track_caller]
fn multipart(route: &str, parts: &[(&str, &str)], expected: &[(&str, &str)]) {
    let text = |parts: &[(&str, &str)]| {
        parts.iter().map(|(name, value)| part(name, value)).collect::<String>() + "--xx--\r\n"
    };
    assert_eq!(body(route, "multipart/form-data; boundary=xx", &text(parts)), text(expected));
}

#[test]
fn request_transformer_remove() {
    let _held = suite();
    assert_eq!(headers("remove-headers", &["1", "2"]).all("x-a").len(), 0);
    assert_eq!(query("remove-query", "a=1&b=2&a=3"), "b=2");
    assert_eq!(body("remove-body", JSON, r#"{"a":1,"b":2.0}"#), r#"{"b":2.0}"#);
    assert_eq!(body("remove-body", FORM, "a=1&b=%20&a"), "b=%20");
    multipart("remove-body", &[("a", "1"), ("b", "2")], &[("b", "2")]);
}

#[test]
fn request_transformer_rename() {
    let _held = suite();
    let echoed = headers("rename-headers", &["1"]);
    assert_eq!((echoed.all("x-a").len(), echoed.all("x-b")), (0, vec!["1"]));
    assert_eq!(query("rename-query", "a=1"), "b=1");
    assert_eq!(body("rename-body", JSON, r#"{"a":[1],"b":2}"#), r#"{"b":[1]}"#);
    assert_eq!(body("rename-body", FORM, "a=1&c=2"), "b=1&c=2");
    multipart("rename-body", &[("a", "1")], &[("b", "1")]);
}

#[test]
fn request_transformer_replace() {
    let _held = suite();
    assert_eq!(headers("replace-headers", &["1"]).all("x-a"), ["new"]);
    assert_eq!(headers("replace-headers", &[]).all("x-a").len(), 0);
    assert_eq!(query("replace-query", "a=1&b=2"), "a=new&b=2");
    assert_eq!(query("replace-query", "b=2"), "b=2");
    assert_eq!(body("replace-body", JSON, r#"{"a":{"x":1}}"#), r#"{"a":"new"}"#);
    assert_eq!(body("replace-body", FORM, "a=1&b=2"), "a=new&b=2");
    multipart("replace-body", &[("a", "1"), ("b", "2")], &[("a", "new"), ("b", "2")]);
}

#[test]
fn request_transformer_replace_uri() {
    let echoed = send(&Request::get("/replace-uri/x?q=1"), 200).echoed();
    assert_eq!(echoed.target(), "/other/place?q=1");
}

#[test]
fn request_transformer_add() {
    let _held = suite();
    assert_eq!(headers("add-headers", &[]).all("x-a"), ["added"]);
    assert_eq!(headers("add-headers", &["1"]).all("x-a"), ["1"]);
    assert_eq!(query("add-query", "b=1"), "b=1&a=added");
    assert_eq!(query("add-query", "a=1"), "a=1");
    assert_eq!(body("add-body", JSON, r#"{"b":1}"#), r#"{"b":1,"a":"added"}"#);
    assert_eq!(body("add-body", JSON, ""), r#"{"a":"added"}"#);
    assert_eq!(body("add-body", FORM, "b=1"), "b=1&a=added");
    multipart("add-body", &[("b", "1")], &[("b", "1"), ("a", "added")]);
}

#[test]
fn request_transformer_append() {
    let _held = suite();
    assert_eq!(headers("append-headers", &["1"]).all("x-a"), ["1", "more"]);
    assert_eq!(query("append-query", "a=1"), "a=1&a=more");
    assert_eq!(body("append-body", JSON, r#"{"a":"1"}"#), r#"{"a":["1","more"]}"#);
    assert_eq!(body("append-body", FORM, "a=1"), "a=1&a=more");
    multipart("append-body", &[("a", "1")], &[("a", "1"), ("a", "more")]);
}

#[test]
fn request_transformer_body_goes_down_in_json() {
    let sent = r#"{"user":{"name":"n","password":"p"},"list":[{"x":1,"z":2}],"all":[{"y":1},{"y":2,"z":3}]}"#;
    let expected = r#"{"user":{"name":"n"},"list":[{"z":2}],"all":[{},{"z":3}],"meta":{"by":"gateway"}}"#;
    assert_eq!(body("nested", JSON, sent), expected);
}

#[test]
fn request_transformer_dots_in_keys() {
    let sent = r#"{"user":{"password":"p"},"user.password":"q"}"#;
    assert_eq!(body("dots", JSON, sent), r#"{"user":{"password":"p"},"meta.by":"gateway"}"#);
}

#[test]
fn request_transformer_allow_body() {
    let _held = suite();
    let sent = r#"{"a":1,"b":2,"user":{"name":"n","password":"p"}}"#;
    assert_eq!(body("allow-body", JSON, sent), r#"{"a":1,"user":{"name":"n"}}"#);
    assert_eq!(body("allow-body", FORM, "a=1&b=2&a=%33"), "a=1&a=%33");
}

#[test]
fn request_transformer_http_method() {
    let _held = suite();
    let echoed = send(&Request::post("/method", "kept"), 200).echoed();
    assert_eq!((&echoed.0["method"], &echoed.0["body"]), (&"PATCH".into(), &"kept".into()));
    // A form's fields are where a GET has them.
    let form = Request::post("/method-get?q=1", "a=x%20y&c=2").header("Content-Type", FORM);
    let echoed = send(&form, 200).echoed();
    assert_eq!(echoed.0["method"], "GET");
    assert_eq!(echoed.target(), "/?q=1&b=x%20y&c=2");
}

#[test]
fn request_transformer_templates_of_headers_and_query() {
    let _held = suite();
    let echoed = send(&Request::get("/of-headers").header("X-In", "v"), 200).echoed();
    assert_eq!(echoed.all("x-out"), ["v!"]);
    let echoed = send(&Request::get("/of-query?user=a%20b"), 200).echoed();
    assert_eq!(echoed.all("x-out"), ["a b"]);
}

#[test]
fn request_transformer_templates_of_uri_captures() {
    let echoed = send(&Request::get("/captures/17/orders?q"), 200).echoed();
    assert_eq!((echoed.all("x-id"), echoed.all("x-second")), (vec!["17"], vec!["orders"]));
    assert_eq!(echoed.target(), "/items/17?q");
}

#[test]
fn request_transformer_templates_of_consumer_and_claims() {
    let mut claims = claims("issuer");
    claims["realm"] = serde_json::json!({"role": "boss"});
    let token = format!("Bearer {}", token(Algorithm::HS256, &claims));
    let echoed = send(&Request::get("/known").header("Authorization", token), 200).echoed();
    for (name, value) in [
        ("x-who", "ann"),
        ("x-custom", "c-7"),
        ("x-groups", "a, b"),
        ("x-shared", "ann"),
        ("x-issuer", "issuer"),
        ("x-role", "boss"),
    ] {
        assert_eq!(echoed.all(name), [value], "{name}");
    }
}

/// The answer on a route, which is as long as its head says.
#[track_caller]
fn answer(route: &str, status: u16) -> Response {
    let response = send(&Request::get(&format!("/{route}")), status);
    assert_eq!(response.header("content-length"), response.text().len().to_string());
    response
}

#[test]
fn response_transformer_headers() {
    let _held = suite();
    assert!(!answer("r-remove-headers", 200).has("x-a"));
    let renamed = answer("r-rename-headers", 200);
    assert_eq!((renamed.has("x-a"), renamed.header("x-b")), (false, "old"));
    let replaced = answer("r-replace-headers", 200);
    assert_eq!((replaced.header("x-a"), replaced.has("x-none")), ("new", false));
    let added = answer("r-add-headers", 200);
    assert_eq!((added.header("x-a"), added.header("x-new")), ("old", "added"));
    assert_eq!(answer("r-append-headers", 200).head.all("x-a"), ["old", "more"]);
    assert_eq!(added.header("etag"), "\"v1\"", "the body is what it was");
}

#[track_caller]
fn json(route: &str, expected: &str) {
    let response = answer(route, 200);
    assert_eq!(response.text(), expected);
    assert!(!response.has("etag"), "it is of other bytes");
}

#[test]
fn response_transformer_json() {
    let _held = suite();
    json("r-remove-json", r#"{"a":1,"b":{"c":[1.50,2]}}"#);
    json("r-rename-json", r#"{"a":1,"b":{"c":[1.50,2]},"open":"s"}"#);
    json("r-replace-json", r#"{"a":"2","b":{"c":[1.50,2]},"secret":"s"}"#);
    json("r-add-json", r#"{"a":1,"b":{"c":[1.50,2]},"secret":"s","new":"x"}"#);
    json("r-append-json", r#"{"a":[1,"x"],"b":{"c":[1.50,2]},"secret":"s"}"#);
}

#[test]
fn response_transformer_json_types() {
    json("r-types", r#"{"a":1,"b":{"c":[1.50,2]},"secret":"s","n":1.50,"t":true,"s":"5"}"#);
}

#[test]
fn response_transformer_json_goes_down() {
    json("r-nested", r#"{"a":1,"b":{"c":[2]},"secret":"s"}"#);
}

#[test]
fn response_transformer_dots_in_keys() {
    json("r-dots", r#"{"a":1,"b":{"c":[1.50,2]},"secret":"s","b.d":"x"}"#);
}

#[test]
fn response_transformer_allow_json() {
    json("r-allow", r#"{"a":1,"b":{"c":[2]}}"#);
}

#[test]
fn response_transformer_replace_body() {
    let _held = suite();
    json("r-body", "nothing to see");
    assert_eq!(answer("t-body", 200).text(), "");
    let head = Request::new("HEAD", "/r-body").send(suite().gateway.addr()).expect(200);
    assert!(!head.has("content-length"), "a length that would be another");
}

#[test]
fn response_transformer_if_status() {
    let _held = suite();
    let (good, missing) = (answer("r-status", 200), answer("m-status", 404));
    assert_eq!((good.header("x-ok"), good.text().contains("secret")), ("1", true));
    assert_eq!((missing.has("x-ok"), missing.text().contains("secret")), (false, false));
    assert_eq!(answer("r-body-status", 200).text(), JSON_BODY);
}

#[test]
fn response_transformer_leaves_what_is_no_json() {
    let response = answer("t-remove-json", 200);
    assert_eq!((response.text().as_str(), response.header("etag")), (JSON_BODY, "\"v1\""));
}

#[test]
fn response_transformer_lets_nothing_out_that_it_cannot_read() {
    send(&Request::get("/c-remove-json"), 502);
}
