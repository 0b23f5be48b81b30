//! Options of `forward-auth`.

use std::io;

use portcullis_tests::client::Request;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Origin, Script, Wire};

use super::{echo, gateway};

/// Lets everybody pass but who asks for `/login`.
struct Authority;

impl Script for Authority {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while let Some(received) = wire.request()? {
            match received.head.get("x-forwarded-uri") {
                Some("/login") => wire.answer("302 Found", "Location: /sign-in?next=1\r\n", b"")?,
                _ => wire.answer(
                    "200 OK",
                    "X-Role-A: reader\r\nX-Role-B: writer\r\nX-Other: no\r\nSet-Cookie: session=1; Path=/\r\n\
                     Set-Cookie: other=2\r\n",
                    b"",
                )?,
            }
        }
        Ok(())
    }
}

struct Scene {
    authority: Origin,
    gateway: Gateway,
    _origin: Origin,
}

fn scene(settings: &str, more: &str) -> Scene {
    let (authority, origin) = (Origin::start(Authority), echo());
    let plugins =
        format!("[{{name: forward-auth, config: {{address: '{}/check', {settings}}}}}]", authority.url());
    Scene { gateway: gateway(&origin, &plugins, more), authority, _origin: origin }
}

impl Scene {
    /// What the authority was told in a field.
    fn told(&self, name: &str) -> Option<String> {
        self.authority.last().head.get(name).map(str::to_owned)
    }
}

#[test]
fn forward_auth_auth_request_headers() {
    for (settings, seen) in [("auth_request_headers: [X-A]", None), ("", Some("2"))] {
        let scene = scene(settings, "");
        Request::get("/").header("X-A", "1").header("X-B", "2").send(scene.gateway.addr()).expect(200);
        assert_eq!((scene.told("x-a").as_deref(), scene.told("x-b").as_deref()), (Some("1"), seen));
        assert_eq!(scene.told("x-forwarded-method").as_deref(), Some("GET"), "in any case");
    }
}

#[test]
fn forward_auth_auth_response_headers_regex() {
    let scene = scene("auth_response_headers_regex: '^X-Role-'", "");
    let request = Request::get("/").header("X-Role-A", "mine").header("X-Role-C", "mine");
    let seen = request.send(scene.gateway.addr()).expect(200).echoed();
    assert_eq!(seen.all("x-role-a"), ["reader"], "not the client's");
    assert_eq!((seen.get("x-role-b"), seen.get("x-other")), (Some("writer"), None));
    assert_eq!(seen.get("x-role-c"), None, "a client's own is removed");
}

#[test]
fn forward_auth_add_auth_cookies_to_response() {
    let scene = scene("add_auth_cookies_to_response: [session]", "");
    let response = Request::get("/").send(scene.gateway.addr()).expect(200);
    let cookies: Vec<_> =
        response.head.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")).collect();
    assert_eq!(cookies.len(), 1, "{cookies:?}");
    assert_eq!(cookies[0].1, "session=1; Path=/");
}

#[test]
fn forward_auth_preserve_request_method() {
    for (preserve, method) in [(true, "POST"), (false, "GET")] {
        let scene = scene(&format!("preserve_request_method: {preserve}"), "");
        let echoed = Request::post("/", "some body").send(scene.gateway.addr()).expect(200).echoed();
        assert_eq!(echoed.0["body"], "some body");
        assert_eq!(scene.authority.last().head.word(0), method);
        assert_eq!(scene.told("x-forwarded-method").as_deref(), Some("POST"));
    }
}

#[test]
fn forward_auth_preserve_location_header() {
    for preserve in [true, false] {
        let scene = scene(&format!("preserve_location_header: {preserve}"), "");
        let response = Request::get("/login").send(scene.gateway.addr()).expect(302);
        let whole = format!("{}/sign-in?next=1", scene.authority.url());
        let expected = if preserve { "/sign-in?next=1" } else { &whole };
        assert_eq!(response.header("location"), expected);
    }
}

#[test]
fn forward_auth_trust_forward_header() {
    for (trust, host) in [(true, "outer.test"), (false, "test")] {
        let scene = scene(&format!("trust_forward_header: {trust}"), "trusted_proxies: [127.0.0.1/32]\n");
        let request = Request::get("/").header("X-Forwarded-Host", "outer.test");
        request.send(scene.gateway.addr()).expect(200);
        assert_eq!(scene.told("x-forwarded-host").as_deref(), Some(host));
    }
    // Of nobody that is trusted.
    let scene = scene("trust_forward_header: true", "");
    Request::get("/").header("X-Forwarded-Host", "outer.test").send(scene.gateway.addr()).expect(200);
    assert_eq!(scene.told("x-forwarded-host").as_deref(), Some("test"));
}

#[test]
fn forward_auth_cache_uri() {
    for (cache_uri, asked) in [(true, 2), (false, 1)] {
        let scene = scene(&format!("cache_ttl: 60, cache_uri: {cache_uri}"), "");
        for path in ["/a", "/b", "/a"] {
            Request::get(path).send(scene.gateway.addr()).expect(200);
        }
        assert_eq!(scene.authority.requests(), asked);
    }
}
