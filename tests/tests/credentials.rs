//! basic-auth with hashes and lists, hmac-auth, key-auth by body, multi-auth, groups that authentication found, lists of
//! addresses in files, and bodies shown to an authority: option by option, through a real gateway.

use std::io;
use std::process::Command;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use portcullis_tests::client::{Connection, Request, Response};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup, Shared};
use portcullis_tests::origin::{Echo, Origin, Script, Wire};
use portcullis_tests::tokens::{claims, keys, token};
use serde_json::json;

struct Suite {
    gateway: Gateway,
    _origin: Origin,
}

/// Name, which is the path too, and plugins.
const ROUTES: &[(&str, &str)] = &[
    ("basic", "{name: basic-auth}"),
    (
        "basic-users",
        "{name: basic-auth, config: {users: ['cat:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/', \
      'dan:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ='], header_field: X-User, hide_credentials: true, realm: list}}",
    ),
    ("hmac", "{name: hmac-auth, config: {enforce_headers: [date, request-line]}}"),
    ("hmac-body", "{name: hmac-auth, config: {validate_request_body: true}}"),
    ("hmac-once", "{name: hmac-auth, config: {replay_window: 600, hide_credentials: true}}"),
    ("key-body", "{name: key-auth, config: {key_in_body: true, hide_credentials: true}}"),
    ("any", "{name: multi-auth, config: {any: [{name: jwt}, {name: key-auth}, {name: basic-auth}]}}"),
    (
        "any-nobody",
        "{name: multi-auth, config: {any: [{name: key-auth}, {name: basic-auth}], anonymous: nobody}}",
    ),
    ("all", "{name: multi-auth, config: {all: [{name: key-auth}, {name: basic-auth}]}}"),
    (
        "kong-any",
        "{name: key-auth, config: {anonymous: nobody}}, {name: basic-auth, config: {anonymous: nobody}}",
    ),
    (
        "groups",
        "{name: jwt, config: {authenticated_groups_claim: realm.roles, claims_to_headers: {sub: X-Sub}}}, \
      {name: acl, config: {allow: [admin], always_use_authenticated_groups: true}}",
    ),
    (
        "consumer-groups",
        "{name: key-auth}, {name: acl, config: {allow: [gold], include_consumer_groups: true}}",
    ),
    ("open", ""),
];

/// All passwords are `secret`.
const CONSUMERS: &str = "
consumers:
  - username: nobody
  - username: ann
    keyauth_credentials: [{key: ann-key}]
    hmacauth_credentials: [{username: ann, secret: 'a secret of ann, who signs'}]
    basicauth_credentials:
      - {username: plain, password: secret}
      - {username: bcrypt, password: '$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW'}
      - {username: apr1, password: '$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/'}
      - {username: sha, password: '{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ='}
      - {username: sha256, password: '$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM.'}
      - {username: argon2, password: '$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4'}
  - username: ben
    keyauth_credentials: [{key: ben-key}]
    groups: [gold]
";

fn suite() -> Arc<Suite> {
    static SUITE: Shared<Suite> = Shared::new();
    SUITE.get(|| {
        let origin = Origin::start(Echo::default());
        let route = |(name, plugins): &(&str, &str)| {
            format!("      - {{name: {name}, paths: [/{name}/], plugins: [{plugins}]}}\n")
        };
        let routes: String = ROUTES.iter().map(route).collect();
        let (material, secret) = keys().verifier(Algorithm::HS256);
        let text = format!(
            "services:\n  - name: web\n    url: http://{}\n    routes:\n{routes}{CONSUMERS}    jwt_secrets: \
             [{{key: iss-ben, algorithm: HS256, {material}: {secret}}}]\n",
            origin.addr()
        );
        Suite { gateway: Gateway::start(&Setup::new(text)), _origin: origin }
    })
}

fn send(request: Request) -> Response {
    request.send(suite().gateway.addr())
}

fn base64(text: &str) -> String {
    let url = portcullis_tests::tokens::base64url(text.as_bytes());
    let plain = url.replace('-', "+").replace('_', "/");
    let padding = "=".repeat((4 - plain.len() % 4) % 4);
    plain + &padding
}

fn basic(path: &str, user: &str, password: &str) -> Request {
    Request::get(path).header("Authorization", format!("Basic {}", base64(&format!("{user}:{password}"))))
}

#[test]
fn basic_auth_password_hashes() {
    let _held = suite();
    for user in ["plain", "bcrypt", "apr1", "sha", "sha256", "argon2"] {
        let right = if user == "argon2" { "password" } else { "secret" };
        for _ in 0..2 {
            let echoed = send(basic("/basic/", user, right)).expect(200).echoed();
            assert_eq!(echoed.get("x-consumer-username"), Some("ann"), "{user}");
            send(basic("/basic/", user, "wrong")).expect(401);
        }
    }
    send(basic("/basic/", "unknown", "secret")).expect(401);
    // A hash is no password.
    send(basic("/basic/", "sha", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=")).expect(401);
}

#[test]
fn basic_auth_users_header_field_and_realm() {
    let _held = suite();
    for (user, status) in [("cat", 200), ("dan", 200), ("plain", 401), ("eve", 401)] {
        let response = send(basic("/basic-users/", user, "secret").header("X-User", "root")).expect(status);
        if status == 401 {
            assert_eq!(response.header("www-authenticate"), "Basic realm=\"list\"");
            continue;
        }
        let echoed = response.echoed();
        assert_eq!(echoed.all("x-user"), [user]);
        assert!(echoed.all("authorization").is_empty() && echoed.all("x-consumer-username").is_empty());
    }
}

#[test]
fn basic_auth_users_file_is_read_again_when_it_changes() {
    let origin = Origin::start(Echo::default());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("htpasswd");
    std::fs::write(&file, "# users\ncat:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/\n").expect("a file");
    let text = format!(
        "services:\n  - name: web\n    url: http://{}\n    routes:\n      - paths: [/]\n        plugins:\n          \
         - {{name: basic-auth, config: {{users_file: '{}'}}}}\n",
        origin.addr(),
        file.display()
    );
    let gateway = Gateway::start(&Setup::new(text));
    let status = |user: &str| basic("/", user, "secret").send(gateway.addr()).status;
    assert_eq!((status("cat"), status("dan")), (200, 401));
    std::fs::write(&file, "dan:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n").expect("a file");
    eventually("the other user", || holds(status("dan") == 200 && status("cat") == 401, "as before"));
}

/// The usual cost of bcrypt: what shards must not do.
#[test]
fn basic_auth_slow_hashes_stop_no_other_request_and_are_bounded() {
    let origin = Origin::start(Echo::default());
    let hash = "$2b$10$abcdefghijklmnopqrstuuqflPDzB6gcMhKa1rZqKiun2YGL5sa2u";
    let text = format!(
        "services:\n  - name: web\n    url: http://{}\n    routes:\n      - paths: [/slow]\n        plugins: [{{name: \
         basic-auth}}]\n      - paths: [/open]\nconsumers:\n  - username: ann\n    basicauth_credentials: [{{username: \
         ann, password: '{hash}'}}]\n",
        origin.addr()
    );
    let gateway = Gateway::start(&Setup::new(text).shards(1));
    // More at once than one client may have compared, all different.
    let mut waiting: Vec<_> = (0..40)
        .map(|number| {
            let mut connection = Connection::open(gateway.addr());
            connection.send(basic("/slow", "ann", &format!("wrong {number}")).bytes());
            connection
        })
        .collect();
    // All of them are there before this one; the only shard answers it while passwords are compared.
    for _ in 0..5 {
        Request::get("/open").send(gateway.addr()).expect(200);
    }
    let answers: Vec<_> = waiting.iter_mut().map(Connection::response).collect();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert!(answers.iter().all(|answer| matches!(answer.status, 401 | 503)));
    assert!(!refused.is_empty() && refused.iter().all(|answer| answer.header("retry-after") == "1"));
    let count = gateway.metrics().get("portcullis_refusals_total", &[("reason", "queue_full")]);
    assert!(count > 0.0, "{count}");
    assert_eq!(origin.requests(), 5);
}

fn date() -> String {
    let output = Command::new("date").env("LC_ALL", "C").args(["-u", "+%a, %d %b %Y %H:%M:%S GMT"]).output();
    String::from_utf8(output.expect("date runs").stdout).expect("a date").trim().to_owned()
}

/// A request signed over `date request-line` and what `more` adds.
fn signed(request: Request, line: &str, more: &[(&str, &str)]) -> Request {
    let date = date();
    let mut text = format!("date: {date}\n{line} HTTP/1.1");
    let mut names = "date request-line".to_owned();
    for (name, value) in more {
        text.push_str(&format!("\n{name}: {value}"));
        names.push_str(&format!(" {name}"));
    }
    let key = EncodingKey::from_secret(b"a secret of ann, who signs");
    let signature = crypto::sign(text.as_bytes(), &key, Algorithm::HS256).expect("a signature");
    let value = format!(
        "hmac username=\"ann\", algorithm=\"hmac-sha256\", headers=\"{names}\", signature=\"{signature}\""
    );
    let request = request.header("Date", date).header("Authorization", value);
    more.iter().fold(request, |request, (name, value)| request.header(name, value))
}

#[test]
fn hmac_auth_enforce_headers() {
    let _held = suite();
    let echoed = send(signed(Request::get("/hmac/x?a=b"), "GET /hmac/x?a=b", &[])).expect(200).echoed();
    assert_eq!(echoed.get("x-consumer-username"), Some("ann"));
    assert_eq!(echoed.all("authorization").len(), 1);
    let changed = send(signed(Request::get("/hmac/x?a=c"), "GET /hmac/x?a=b", &[])).expect(401);
    assert_eq!(changed.json(), json!({"message": "HMAC signature does not match"}));
    assert!(changed.header("www-authenticate").starts_with("hmac"));
    let old = Request::get("/hmac/")
        .header("Date", "Sun, 06 Nov 1994 08:49:37 GMT")
        .header("Authorization", "hmac x");
    assert!(send(old).expect(401).text().contains("a valid date"));
}

#[test]
fn hmac_auth_validate_request_body() {
    let _held = suite();
    // printf hello | openssl dgst -sha256 -binary | base64
    let digest = [("digest", "SHA-256=LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=")];
    let post = |body: &str| Request::post("/hmac-body/", body);
    let response = send(signed(post("hello"), "POST /hmac-body/", &digest)).expect(200);
    assert_eq!(response.echoed().get("x-consumer-username"), Some("ann"));
    send(signed(post("hellO"), "POST /hmac-body/", &digest)).expect(401);
    send(signed(post("hello"), "POST /hmac-body/", &[])).expect(401);
    send(signed(Request::get("/hmac-body/"), "GET /hmac-body/", &[])).expect(200);
}

#[test]
fn hmac_auth_replay_window_and_hide_credentials() {
    let suite = suite();
    let request = signed(Request::get("/hmac-once/"), "GET /hmac-once/", &[]);
    let echoed = request.send(suite.gateway.addr()).expect(200).echoed();
    assert!(echoed.all("authorization").is_empty());
    // On whatever shard it comes in.
    for _ in 0..8 {
        request.send(suite.gateway.addr()).expect(401);
    }
    let count =
        || suite.gateway.metrics().get("portcullis_refusals_total", &[("reason", "replayed_request")]);
    eventually("the count", || holds(count() >= 8.0, "not counted"));
}

#[test]
fn key_auth_key_in_body() {
    let _held = suite();
    let post =
        |media: &str, body: &str| send(Request::post("/key-body/", body).header("Content-Type", media));
    for (media, body, left) in [
        ("application/json", r#"{"apikey":"ben-key","a":[1]}"#, r#"{"a":[1]}"#),
        ("application/x-www-form-urlencoded", "a=1&apikey=ben-key", "a=1"),
    ] {
        let response = post(media, body).expect(200);
        let json = response.json();
        assert_eq!(response.echoed().get("x-consumer-username"), Some("ben"));
        assert_eq!(json["body"].as_str(), Some(left), "{json}");
    }
    post("application/json", r#"{"apikey":"wrong"}"#).expect(401);
    post("text/plain", "apikey=ben-key").expect(401);
    send(Request::get("/key-body/").header("apikey", "ann-key")).expect(200);
}

#[test]
fn multi_auth_any() {
    let _held = suite();
    let user = |request: Request| {
        let response =
            send(request.header("X-Consumer-Username", "root").header("X-Authenticated-Groups", "root"));
        match response.status {
            200 => {
                let echoed = response.echoed();
                assert!(
                    echoed.all("x-authenticated-groups").is_empty()
                        && echoed.all("x-consumer-username").len() == 1
                );
                echoed.get("x-consumer-username").expect("a consumer").to_owned()
            }
            status => status.to_string(),
        }
    };
    let bearer = format!("Bearer {}", token(Algorithm::HS256, &claims("iss-ben")));
    assert_eq!(user(Request::get("/any/").header("Authorization", &bearer)), "ben");
    assert_eq!(user(Request::get("/any/").header("apikey", "ann-key")), "ann");
    assert_eq!(user(basic("/any/", "bcrypt", "secret")), "ann", "after a wait");
    assert_eq!(user(basic("/any/", "bcrypt", "wrong")), "401");
    let refused = send(Request::get("/any/")).expect(401);
    let challenges =
        refused.head.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("www-authenticate"));
    assert_eq!(challenges.count(), 3);
    assert_eq!(user(basic("/any-nobody/", "bcrypt", "wrong")), "nobody");
    assert_eq!(user(Request::get("/any-nobody/").header("apikey", "ben-key")), "ben");
}

#[test]
fn multi_auth_all() {
    let _held = suite();
    send(basic("/all/", "bcrypt", "secret")).expect(401);
    send(Request::get("/all/").header("apikey", "ben-key")).expect(401);
    let echoed = send(basic("/all/", "bcrypt", "secret").header("apikey", "ben-key")).expect(200).echoed();
    assert_eq!(echoed.all("x-consumer-username"), ["ann"]);
}

#[test]
fn kongs_any_by_anonymous() {
    let _held = suite();
    for (request, user) in [
        (Request::get("/kong-any/").header("apikey", "ben-key"), "ben"),
        (basic("/kong-any/", "bcrypt", "secret"), "ann"),
        (basic("/kong-any/", "bcrypt", "wrong"), "nobody"),
        (Request::get("/kong-any/"), "nobody"),
    ] {
        let echoed = send(request).expect(200).echoed();
        assert_eq!(echoed.all("x-consumer-username"), [user]);
        assert_eq!(echoed.get("x-anonymous-consumer"), (user == "nobody").then_some("true"));
    }
}

#[test]
fn acl_authenticated_groups_and_consumer_groups() {
    let _held = suite();
    let with = |roles: serde_json::Value| {
        let mut all = claims("iss-ben");
        all["realm"] = json!({"roles": roles});
        all["sub"] = json!("b-1");
        Request::get("/groups/").header("Authorization", format!("Bearer {}", token(Algorithm::HS256, &all)))
    };
    let echoed = send(with(json!(["user", "admin"])).header("X-Sub", "eve")).expect(200).echoed();
    assert_eq!(echoed.all("x-authenticated-groups"), ["user, admin"]);
    assert_eq!(echoed.all("x-sub"), ["b-1"]);
    send(with(json!(["user"])).header("X-Authenticated-Groups", "admin")).expect(403);
    let echoed = send(Request::get("/consumer-groups/").header("apikey", "ben-key")).expect(200).echoed();
    assert_eq!(echoed.all("x-consumer-groups"), ["gold"]);
    send(Request::get("/consumer-groups/").header("apikey", "ann-key")).expect(403);
}

#[test]
fn ip_restriction_deny_file_of_a_million_prefixes() {
    let origin = Origin::start(Echo::default());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("deny");
    let mut text = String::from("# bad ones\n");
    for number in 0..1_000_000u32 {
        text.push_str(&format!("{}\n", std::net::Ipv4Addr::from_bits(0x0a00_0000 + 2 * number)));
    }
    std::fs::write(&file, &text).expect("a file");
    let config = format!(
        "services:\n  - name: web\n    url: http://{}\n    routes:\n      - paths: [/]\n        plugins:\n          \
         - {{name: ip-restriction, config: {{deny_file: '{}'}}}}\ntrusted_proxies: [127.0.0.1]\n",
        origin.addr(),
        file.display()
    );
    let gateway = Gateway::start(&Setup::new(config));
    let status =
        |client: &str| Request::get("/").header("X-Forwarded-For", client).send(gateway.addr()).status;
    assert_eq!((status("10.0.0.2"), status("10.0.0.3"), status("10.30.132.126")), (403, 200, 403));
    std::fs::write(&file, "10.0.0.3\n").expect("a file");
    eventually("the other list", || {
        holds((status("10.0.0.2"), status("10.0.0.3")) == (200, 403), "as before")
    });
}

/// Lets through what has `good` in its body, and breaks off at `break`.
struct Reader;

impl Script for Reader {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while let Some(received) = wire.request()? {
            match received.body.text().as_str() {
                text if text.contains("good") => wire.answer("200 OK", "", b"")?,
                text if text.contains("break") => return wire.reset(),
                _ => wire.answer("403 Forbidden", "", b"no")?,
            }
        }
        Ok(())
    }
}

#[test]
fn forward_auth_forward_body_and_max_body_size() {
    let (origin, authority) = (Origin::start(Echo::default()), Origin::start(Reader));
    let text = format!(
        "services:\n  - name: web\n    url: http://{}\n    routes:\n      - paths: [/]\n        plugins:\n          \
         - {{name: forward-auth, config: {{address: 'http://{}/', forward_body: true, max_body_size: 100, timeout: 2s}}}}\n",
        origin.addr(),
        authority.addr()
    );
    let gateway = Gateway::start(&Setup::new(text).shards(1));
    let post = |body: String| Request::post("/", body).send(gateway.addr());
    let response = post("a good body".into()).expect(200);
    assert_eq!(response.json()["body"].as_str(), Some("a good body"), "the origin gets it too");
    assert_eq!(authority.last().body.text(), "a good body");
    assert_eq!(post("another".into()).expect(403).text(), "no");
    post(format!("good {}", "x".repeat(96))).expect(401);
    post("break".into()).expect(503);
    Request::get("/").send(gateway.addr()).expect(403);
    assert_eq!(origin.requests(), 1);
}

/// What `auth_request` of nginx makes of the answers of an authority.
#[test]
fn forward_auth_convention_nginx() {
    struct Said;
    impl Script for Said {
        fn serve(&self, wire: &mut Wire) -> io::Result<()> {
            while let Some(received) = wire.request()? {
                let status = match received.head.get("x-original-uri") {
                    Some("/yes") => "204 No Content",
                    Some("/who") => "401 Unauthorized",
                    Some("/no") => "403 Forbidden",
                    _ => "302 Found",
                };
                wire.answer(
                    status,
                    "Location: https://id.example/\r\nWWW-Authenticate: Basic realm=\"n\"\r\n",
                    b"",
                )?;
            }
            Ok(())
        }
    }
    let (origin, authority) = (Origin::start(Echo::default()), Origin::start(Said));
    let text = format!(
        "services:\n  - name: web\n    url: http://{}\n    routes:\n      - paths: [/]\n        plugins:\n          \
         - {{name: forward-auth, config: {{address: 'http://{}/', convention: nginx, status_on_error: 500}}}}\n",
        origin.addr(),
        authority.addr()
    );
    let gateway = Gateway::start(&Setup::new(text));
    for (path, status) in [("/yes", 200), ("/who", 401), ("/no", 403), ("/else", 500)] {
        let response = Request::get(path).send(gateway.addr()).expect(status);
        assert_eq!(response.has("www-authenticate"), matches!(status, 401 | 403), "{path}");
    }
    assert_eq!(origin.requests(), 1);
}

/// Traefik's own documents, as a file of its provider has them.
#[test]
fn traefiks_basic_auth_and_forward_auth_with_a_body() {
    let (origin, authority) = (Origin::start(Echo::default()), Origin::start(Reader));
    let documents = format!(
        "---\nhttp:\n  routers:\n    a: {{rule: 'PathPrefix(`/basic`)', service: s, middlewares: [users]}}\n    \
         b: {{rule: 'PathPrefix(`/judged`)', service: s, middlewares: [judge]}}\n  middlewares:\n    users:\n      \
         basicAuth:\n        users:\n          - 'cat:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/'\n          - \
         'dan:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW'\n        headerField: X-WebAuth-User\n        \
         removeHeader: true\n    judge: {{forwardAuth: {{address: 'http://{}/', forwardBody: true, maxBodySize: 50}}}}\n  \
         services:\n    s: {{loadBalancer: {{servers: [{{url: 'http://{}'}}]}}}}\n",
        authority.addr(),
        origin.addr()
    );
    let gateway = Gateway::start(&Setup::new(documents));
    for user in ["cat", "dan"] {
        let echoed = basic("/basic", user, "secret").send(gateway.addr()).expect(200).echoed();
        assert_eq!(echoed.all("x-webauth-user"), [user]);
        assert!(echoed.all("authorization").is_empty());
        let refused = basic("/basic", user, "wrong").send(gateway.addr()).expect(401);
        assert_eq!(refused.header("www-authenticate"), "Basic realm=\"traefik\"");
    }
    let post = |body: String| Request::post("/judged", body).send(gateway.addr()).status;
    assert_eq!((post("good".into()), post("bad".into()), post("good".repeat(20))), (200, 403, 401));
}
