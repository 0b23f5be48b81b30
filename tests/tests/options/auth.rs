//! Options of the authentication plugins beside `jwt` and `forward-auth`, and of `ip-restriction`.

use std::io;
use std::path::Path;
use std::process::Command;

use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use portcullis_tests::certs::{Authority, Leaf};
use portcullis_tests::client::Request;
use portcullis_tests::client::tls::Tls;
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Origin, Script, Wire};
use serde_json::json;

use super::{echo, gateway, setup};

const ANN: &str = "consumers:\n- {username: ann, keyauth_credentials: [{key: ann-key}], \
                   hmacauth_credentials: [{username: ann, secret: the secret of ann}]}\n";

#[test]
fn key_auth_key_in_header() {
    for (in_header, status) in [(true, 200), (false, 401)] {
        let origin = echo();
        let plugins = format!("[{{name: key-auth, config: {{key_in_header: {in_header}}}}}]");
        let gateway = gateway(&origin, &plugins, ANN);
        Request::get("/").header("apikey", "ann-key").send(gateway.addr()).expect(status);
        Request::get("/?apikey=ann-key").send(gateway.addr()).expect(200);
    }
}

#[test]
fn run_on_preflight_of_every_plugin() {
    let plugins = [
        "{name: key-auth, config: {SETTING}}",
        "{name: basic-auth, config: {SETTING}}",
        "{name: hmac-auth, config: {SETTING}}",
        "{name: jwt, config: {SETTING}}",
    ];
    for plugin in plugins {
        for (runs, status) in [(true, 401), (false, 200)] {
            let origin = echo();
            let plugin = plugin.replace("SETTING", &format!("run_on_preflight: {runs}"));
            let gateway = gateway(&origin, &format!("[{plugin}]"), ANN);
            Request::new("OPTIONS", "/").send(gateway.addr()).expect(status);
            Request::get("/").send(gateway.addr()).expect(401);
        }
    }
}

/// A request signed by ann over its date, which lies so many seconds back, with HMAC-SHA-256.
fn signed(seconds_ago: u32) -> Request {
    let when = format!("{seconds_ago} seconds ago");
    let format = "+%a, %d %b %Y %H:%M:%S GMT";
    let output = Command::new("date").env("LC_ALL", "C").args(["-u", "-d", &when, format]).output();
    let date = String::from_utf8(output.expect("date runs").stdout).expect("a date").trim().to_owned();
    let key = EncodingKey::from_secret(b"the secret of ann");
    let signature = crypto::sign(format!("date: {date}").as_bytes(), &key, Algorithm::HS256);
    let value = format!(
        "hmac username=\"ann\", algorithm=\"hmac-sha256\", headers=\"date\", signature=\"{}\"",
        signature.expect("a signature")
    );
    Request::get("/").header("Date", date).header("Authorization", value)
}

#[test]
fn hmac_auth_clock_skew() {
    for (skew, seconds_ago, status) in [(300, 100, 200), (30, 100, 401), (30, 0, 200), (300, 400, 401)] {
        let origin = echo();
        let gateway =
            gateway(&origin, &format!("[{{name: hmac-auth, config: {{clock_skew: {skew}}}}}]"), ANN);
        signed(seconds_ago).send(gateway.addr()).expect(status);
    }
}

#[test]
fn hmac_auth_algorithms() {
    for (algorithms, status) in [("[hmac-sha256]", 200), ("[hmac-sha384, hmac-sha512]", 401)] {
        let origin = echo();
        let gateway =
            gateway(&origin, &format!("[{{name: hmac-auth, config: {{algorithms: {algorithms}}}}}]"), ANN);
        signed(0).send(gateway.addr()).expect(status);
    }
}

/// Knows every token, as ann's by one name and as ben's by another.
struct Issuer;

impl Script for Issuer {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while wire.request()?.is_some() {
            let said = json!({ "active": true, "username": "ann", "sub": "ben", "client_id": "eve" });
            wire.answer("200 OK", "Content-Type: application/json\r\n", said.to_string().as_bytes())?;
        }
        Ok(())
    }
}

fn introspected(settings: &str) -> (Gateway, Origin, Origin) {
    let (issuer, origin) = (Origin::start(Issuer), echo());
    let plugins = format!(
        "[{{name: oauth2-introspection, config: {{introspection_url: '{}/i', authorization_value: 'Basic eA==', {settings}}}}}]",
        issuer.url()
    );
    let more = "consumers: [{username: ann}, {username: ben}, {username: eve}]\n";
    (gateway(&origin, &plugins, more), issuer, origin)
}

fn bearer() -> Request {
    Request::get("/").header("Authorization", "Bearer some")
}

#[test]
fn oauth2_introspection_token_type_hint() {
    for (settings, hinted) in [("token_type_hint: access_token", true), ("", false)] {
        let (gateway, issuer, _origin) = introspected(settings);
        bearer().send(gateway.addr()).expect(200);
        let asked = issuer.last().body.text();
        assert_eq!(asked.contains("token_type_hint=access_token"), hinted, "{asked}");
        assert!(asked.contains("token=some"), "{asked}");
    }
}

#[test]
fn oauth2_introspection_ttl() {
    for (ttl, asked) in [(0, 3), (60, 1)] {
        let (gateway, issuer, _origin) = introspected(&format!("ttl: {ttl}"));
        for _ in 0..3 {
            bearer().send(gateway.addr()).expect(200);
        }
        assert_eq!(issuer.requests(), asked, "{ttl}");
    }
}

#[test]
fn oauth2_introspection_consumer_by() {
    for (by, name) in [("username", "ann"), ("sub", "ben"), ("client_id", "eve")] {
        let (gateway, _issuer, _origin) = introspected(&format!("consumer_by: {by}"));
        let told = bearer().send(gateway.addr()).expect(200).echoed();
        assert_eq!(told.get("x-consumer-username"), Some(name));
    }
}

/// What the origin is told of a client that shows a certificate of `subject`, or the status of the refusal.
fn shown(settings: &str, field: &str) -> Result<String, u16> {
    let dir = tempfile::TempDir::new().expect("a folder");
    let authority = Authority::new(dir.path());
    let (server, client) = (authority.leaf(&["site.test"]), certificate(&authority));
    let origin = echo();
    let more = format!(
        "certificates: [{{name: site, cert_file: {}, key_file: {}}}]\nca_certificates: [{{name: ours, cert_file: {}}}]\n\
         consumers: [{{username: ann}}, {{username: eve, custom_id: c-ann}}, {{username: anybody}}]\n",
        server.cert.display(),
        server.key.display(),
        authority.ca_file().display()
    );
    let plugins = format!("[{{name: mtls-auth, config: {{ca_certificates: [ours], {settings}}}}}]");
    let tls = "{certificates: [site], client_auth: {mode: optional, ca_certificates: [ours]}}";
    let gateway = Gateway::start(&setup(&origin, &plugins, &more).tls(tls));
    let client = Tls::showing(Path::new(&authority.ca_file()), &client);
    let answer = client.exchange(gateway.tls_addr(), "site.test", &Request::get("/")).expect("an answer");
    match answer.status {
        200 => Ok(answer.echoed().get(field).unwrap_or_default().to_owned()),
        status => Err(status),
    }
}

/// Of `CN=c-ann,O=Shop`.
fn certificate(authority: &Authority) -> Leaf {
    authority.leaf_with("client", |params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, "c-ann");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Shop");
    })
}

#[test]
fn mtls_auth_consumer_by() {
    assert_eq!(shown("", "x-consumer-username"), Ok("eve".to_owned()));
    assert_eq!(shown("consumer_by: [username]", "x-consumer-username"), Err(401));
    assert_eq!(shown("consumer_by: [custom_id]", "x-consumer-username"), Ok("eve".to_owned()));
}

#[test]
fn mtls_auth_default_consumer() {
    let settings = "consumer_by: [username], default_consumer: anybody";
    assert_eq!(shown(settings, "x-consumer-username"), Ok("anybody".to_owned()));
}

#[test]
fn mtls_auth_skip_consumer_lookup() {
    let settings = "skip_consumer_lookup: true";
    assert_eq!(shown(settings, "x-consumer-username"), Ok(String::new()));
    assert!(shown(settings, "x-client-cert-dn").is_ok_and(|dn| dn.contains("CN=c-ann")));
}

#[test]
fn mtls_auth_authenticated_group_by() {
    let groups = |by: &str| {
        shown(&format!("skip_consumer_lookup: true, authenticated_group_by: {by}"), "x-authenticated-groups")
    };
    assert_eq!(groups("CN"), Ok("c-ann".to_owned()));
    assert!(groups("DN").is_ok_and(|dn| dn.contains("CN=c-ann") && dn.contains("O=Shop")));
}

#[test]
fn ip_restriction_allow_file() {
    let dir = tempfile::TempDir::new().expect("a folder");
    let file = dir.path().join("allowed");
    std::fs::write(&file, "# nobody of ours\n10.0.0.0/8\n").expect("a file");
    let origin = echo();
    let plugins = format!("[{{name: ip-restriction, config: {{allow_file: {}}}}}]", file.display());
    let gateway = gateway(&origin, &plugins, "");
    Request::get("/").send(gateway.addr()).expect(403);
    std::fs::write(&file, "10.0.0.0/8\n127.0.0.1 # this machine\n").expect("a file");
    eventually("the file is read again", || {
        let status = Request::get("/").send(gateway.addr()).status;
        holds(status == 200, format!("{status}"))
    });
}
