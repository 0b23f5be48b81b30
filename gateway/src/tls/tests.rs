//! Handshakes in memory between our own two sides, with certificates made on the spot.

use std::io::IoSlice;

use portcullis_abi::Reason;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;

/// An authority and the certificates it signs.
pub(super) struct Authority(pub(super) CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn issue_pem(&self, names: &[&str]) -> (String, String) {
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let key = KeyPair::generate().unwrap();
        let signed = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        (signed.pem(), key.serialize_pem())
    }

    pub(super) fn issue(&self, names: &[&str]) -> Certificate {
        let (chain, key) = self.issue_pem(names);
        Certificate::from_pem(chain.as_bytes(), key.as_bytes(), "test").unwrap()
    }

    pub(super) fn entry(&self, names: &[&str]) -> CertificateEntry {
        CertificateEntry { certificate: self.issue(names), names: Vec::new(), client_auth: None }
    }

    pub(super) fn roots(&self) -> Roots {
        Roots::from_pem(self.0.pem().as_bytes(), "test authority").unwrap()
    }

    pub(super) fn client(&self, versions: VersionRange) -> ClientConfig {
        client_config(&ClientOptions {
            verify: Verify::Against(self.roots()),
            identity: None,
            versions,
            alpn: vec![Alpn::Http11],
        })
        .unwrap()
    }
}

pub(super) fn only(version: Version) -> VersionRange {
    VersionRange { min: version, max: version }
}

pub(super) fn serve(
    certificates: Vec<CertificateEntry>,
    strict_sni: bool,
    ticketer: &Ticketer,
) -> ServerConfig {
    server_config(&ServerOptions {
        certificates,
        strict_sni,
        policy: Policy::default(),
        alpn: vec![Alpn::Http11],
        ticketer: ticketer.clone(),
    })
    .unwrap()
}

/// Carries bytes both ways, in blocks of `block`, until neither side has any left.
pub(super) fn settle(client: &mut Session, server: &mut Session, block: usize) -> Result<(), TlsFault> {
    while client.wants_output() || server.wants_output() {
        let mut wire = Vec::new();
        client.take_output(&mut wire);
        let fault = wire.chunks(block).try_for_each(|part| server.feed(part));
        wire.clear();
        server.take_output(&mut wire);
        let other = wire.chunks(block).try_for_each(|part| client.feed(part));
        fault?;
        other?;
    }
    Ok(())
}

pub(super) fn connect(
    client: &ClientConfig,
    server: &ServerConfig,
    name: &str,
) -> Result<(Session, Session), TlsFault> {
    let mut client = Session::client(client, name).unwrap();
    let mut server = Session::server(server).unwrap();
    settle(&mut client, &mut server, 4096)?;
    Ok((client, server))
}

#[test]
fn both_versions_carry_data_both_ways() {
    let authority = Authority::new();
    let server_config = serve(vec![authority.entry(&["a.example"])], false, &Ticketer::new(0).unwrap());
    for version in [Version::V12, Version::V13] {
        // One byte at a time: record boundaries must not matter.
        for block in [1, 4096] {
            let mut client = Session::client(&authority.client(only(version)), "a.example").unwrap();
            let mut server = Session::server(&server_config).unwrap();
            assert!(server.is_handshaking());
            settle(&mut client, &mut server, block).unwrap();
            assert!(!server.is_handshaking() && !client.is_handshaking());
            assert_eq!(server.version(), Some(version));
            assert_eq!(server.alpn(), Some(Alpn::Http11));
            assert_eq!(server.sni(), Some("a.example"));
            assert!(!server.resumed());

            assert_eq!(client.write_plain(b"ping"), 4);
            let parts = [IoSlice::new(b"po"), IoSlice::new(b"ng")];
            assert_eq!(server.write_plain_vectored(&parts), 4);
            settle(&mut client, &mut server, block).unwrap();
            let mut got = Vec::new();
            assert_eq!(server.read_plain(&mut got, 3), 3);
            assert_eq!(server.read_plain(&mut got, 3), 1);
            assert_eq!(server.read_plain(&mut got, 3), 0);
            assert_eq!(client.read_plain(&mut got, usize::MAX), 4);
            assert_eq!(got, b"pingpong");
        }
    }
}

#[test]
fn a_ticket_resumes_on_another_configuration_with_the_same_ticketer() {
    let authority = Authority::new();
    let ticketer = Ticketer::new(0).unwrap();
    let first = serve(vec![authority.entry(&["a.example"])], false, &ticketer);
    let second = serve(vec![authority.entry(&["a.example"])], false, &ticketer);
    let stranger = serve(vec![authority.entry(&["a.example"])], false, &Ticketer::new(0).unwrap());
    let without = serve(vec![authority.entry(&["a.example"])], false, &Ticketer::off());
    for version in [Version::V12, Version::V13] {
        let client = authority.client(only(version));
        for _ in 0..2 {
            let (_, server) = connect(&client, &without, "a.example").unwrap();
            assert!(!server.resumed(), "{version:?} resumes without tickets");
        }
        let (_, full) = connect(&client, &first, "a.example").unwrap();
        assert!(!full.resumed());
        let (resumed, server) = connect(&client, &second, "a.example").unwrap();
        assert!(server.resumed() && resumed.resumed(), "{version:?} does not resume");
        let (_, other_keys) = connect(&client, &stranger, "a.example").unwrap();
        assert!(!other_keys.resumed(), "{version:?} resumes under keys that never sealed the ticket");
        let (_, other_shard) = connect(&client.for_shard(), &first, "a.example").unwrap();
        assert!(!other_shard.resumed(), "shards share a store of sessions");
    }
}

#[test]
fn names_choose_the_certificate() {
    let authority = Authority::new();
    let entries = vec![
        authority.entry(&["default.example"]),
        authority.entry(&["*.wild.example", "wild.example"]),
        CertificateEntry {
            certificate: authority.issue(&["listed.wild.example", "not-listed.example"]),
            names: vec!["Listed.Wild.Example".into()],
            client_auth: None,
        },
    ];
    let lenient = resolve::NameTable::new(&entries, false).unwrap();
    let strict = resolve::NameTable::new(&entries, true).unwrap();
    // (asked for, entry found, whether by name)
    let table = [
        (Some("default.example"), 0, true),
        (Some("DEFAULT.example"), 0, true),
        (Some("wild.example"), 1, true),
        (Some("x.wild.example"), 1, true),
        (Some("X.WILD.example"), 1, true),
        (Some("x.y.wild.example"), 0, false),
        (Some("listed.wild.example"), 2, true),
        (Some("not-listed.example"), 0, false),
        (Some("example"), 0, false),
        (None, 0, false),
    ];
    for (asked, entry, by_name) in table {
        let expected = entries[entry].certificate.certified_key();
        let found = lenient.find(asked).unwrap();
        assert!(std::sync::Arc::ptr_eq(&found.key, expected), "{asked:?} gets another certificate");
        assert_eq!(strict.find(asked).is_some(), by_name, "{asked:?} under strict_sni");
    }
    let too_long = "a".repeat(256);
    assert!(strict.find(Some(&too_long)).is_none());
}

#[test]
fn names_that_cannot_be_served_are_refused() {
    let authority = Authority::new();
    for name in ["", "*", "*.", "a.*.example", "*x.example", "a b.example", "[::1]"] {
        let entry = CertificateEntry { names: vec![name.into()], ..authority.entry(&["a.example"]) };
        let error = resolve::NameTable::new(&[entry], false).unwrap_err();
        assert!(matches!(error, TlsError::NamePattern { .. }), "{name:?}: {error}");
    }
}

#[test]
fn strict_sni() {
    let authority = Authority::new();
    let config = serve(vec![authority.entry(&["a.example"])], true, &Ticketer::new(0).unwrap());
    for version in [Version::V12, Version::V13] {
        let client = authority.client(only(version));
        connect(&client, &config, "a.example").unwrap();
        let fault = connect(&client, &config, "b.example").unwrap_err();
        assert_eq!(fault.kind, FaultKind::UnknownName, "{fault}");
        assert_eq!(fault.downstream_reason(), Reason::UnknownSni);
        assert!(fault.handshaking);
    }
}

#[test]
fn a_target_must_prove_its_name_unless_told_otherwise() {
    let authority = Authority::new();
    let config = serve(vec![authority.entry(&["a.example"])], false, &Ticketer::new(0).unwrap());
    let refused = |client: &ClientConfig, name: &str| {
        let mut client = Session::client(client, name).unwrap();
        let mut server = Session::server(&config).unwrap();
        let mut wire = Vec::new();
        client.take_output(&mut wire);
        server.feed(&wire).unwrap();
        wire.clear();
        server.take_output(&mut wire);
        client.feed(&wire).err().map(|fault| fault.kind)
    };
    let strict = authority.client(VersionRange::default());
    assert_eq!(refused(&strict, "a.example"), None);
    assert_eq!(refused(&strict, "b.example"), Some(FaultKind::CertificateRefused));
    let distrustful = Authority::new().client(VersionRange::default());
    assert_eq!(refused(&distrustful, "a.example"), Some(FaultKind::CertificateRefused));
    let careless = client_config(&ClientOptions {
        verify: Verify::Off,
        identity: Some(authority.issue(&["client.example"])),
        versions: VersionRange::default(),
        alpn: vec![Alpn::Http11],
    })
    .unwrap();
    assert_eq!(refused(&careless, "b.example"), None);
    assert_eq!(refused(&careless, "127.0.0.1"), None);
}

#[test]
fn faults_are_told_apart_and_leave_an_alert() {
    let authority = Authority::new();
    let config = serve(vec![authority.entry(&["a.example"])], false, &Ticketer::new(0).unwrap());
    let mut server = Session::server(&config).unwrap();
    let fault = server.feed(b"GET / HTTP/1.1\r\n\r\n").unwrap_err();
    assert_eq!(fault.kind, FaultKind::NotTls);
    assert_eq!(fault.kind.blame(), Blame::Remote);
    assert_eq!(fault.downstream_reason(), Reason::TlsHandshakeFailed);
    let mut alert = Vec::new();
    server.take_output(&mut alert);
    assert_eq!(alert.first(), Some(&21), "no alert record in {alert:?}");

    let old = server_config(&ServerOptions {
        certificates: vec![authority.entry(&["a.example"])],
        strict_sni: false,
        policy: Policy { versions: only(Version::V13), ..Policy::default() },
        alpn: vec![Alpn::H2],
        ticketer: Ticketer::new(0).unwrap(),
    })
    .unwrap();
    let client = authority.client(only(Version::V12));
    assert_eq!(connect(&client, &old, "a.example").unwrap_err().kind, FaultKind::NothingInCommon);
    let client = authority.client(only(Version::V13));
    assert_eq!(connect(&client, &old, "a.example").unwrap_err().kind, FaultKind::NothingInCommon);

    let (mut client, mut server) = connect(&client, &config, "a.example").unwrap();
    assert_eq!(client.write_plain(b"x"), 1);
    let mut wire = Vec::new();
    client.take_output(&mut wire);
    *wire.last_mut().unwrap() ^= 1;
    let fault = server.feed(&wire).unwrap_err();
    assert_eq!(fault.kind, FaultKind::BadRecord);
    assert_eq!(fault.downstream_reason(), Reason::ClientAborted);
    assert_eq!(fault.upstream_reason(), Reason::UpstreamProtocolError);
    assert!(!fault.handshaking);
}

#[test]
fn the_end_is_clean_only_after_close_notify() {
    let authority = Authority::new();
    let config = serve(vec![authority.entry(&["a.example"])], false, &Ticketer::new(0).unwrap());
    let client = authority.client(VersionRange::default());
    let (mut client, mut server) = connect(&client, &config, "a.example").unwrap();
    assert_eq!(server.end(), End::Truncated);
    assert_eq!(client.write_plain(b"last"), 4);
    client.send_close_notify();
    let mut wire = Vec::new();
    client.take_output(&mut wire);
    wire.extend_from_slice(b"ignored");
    server.feed(&wire).unwrap();
    assert!(server.received_close_notify());
    assert_eq!(server.end(), End::Clean);
    server.feed(b"ignored too").unwrap();
    let mut got = Vec::new();
    server.read_plain(&mut got, usize::MAX);
    assert_eq!(got, b"last");
}

#[test]
fn a_block_of_many_records_is_taken_whole_and_output_is_bounded() {
    let authority = Authority::new();
    let config = serve(vec![authority.entry(&["a.example"])], false, &Ticketer::new(0).unwrap());
    let client = authority.client(VersionRange::default());
    let (mut client, mut server) = connect(&client, &config, "a.example").unwrap();
    let body = (0..300_000_u32).map(|i| (i % 251) as u8).collect::<Vec<_>>();
    let mut wire = Vec::new();
    let mut sent = 0;
    while sent < body.len() {
        let taken = client.write_plain(&body[sent..]);
        assert!(taken > 0 && taken <= session::OUTPUT_LIMIT);
        sent += taken;
        client.take_output(&mut wire);
    }
    server.feed(&wire).unwrap();
    let mut got = Vec::new();
    while server.read_plain(&mut got, 1000) > 0 {}
    assert!(got == body);
}

#[test]
fn plain_http_is_told_from_tls_by_its_first_bytes() {
    let http: [&[u8]; 6] =
        [b"G", b"GET / HTTP/1.1", b"PRI * HTTP/2.0", b"OPTIONS *", b"CONNECT a:1", b"PROPFIND /"];
    for first in http {
        assert!(looks_like_plain_http(first), "{first:?}");
    }
    let other: [&[u8]; 7] =
        [b"", b"\x16\x03\x01", b"\x15\x03", b"get /", b"SSH-2.0-x", b"GET\r\n", b"AAAAAAAAAAAAAAAAAAAA "];
    for first in other {
        assert!(!looks_like_plain_http(first), "{first:?}");
    }
}

#[test]
fn pem_errors_name_file_and_cause() {
    let authority = Authority::new();
    let (chain, key) = authority.issue_pem(&["A.example", "*.b.example"]);
    let (_, other_key) = authority.issue_pem(&["a.example"]);
    let folder = tempfile::tempdir().unwrap();
    let both = folder.path().join("both.pem");
    std::fs::write(&both, format!("{chain}{key}")).unwrap();
    let loaded = Certificate::from_files(&both, &both).unwrap();
    assert_eq!(loaded.names(), ["a.example", "*.b.example"]);
    assert!(!format!("{loaded:?}").contains("key"));

    let missing = folder.path().join("missing.pem");
    let error = Certificate::from_files(&both, &missing).unwrap_err();
    assert!(matches!(error, TlsError::File { .. }) && error.to_string().contains("missing.pem"), "{error}");
    let load = |chain: &str, key: &str| {
        Certificate::from_pem(chain.as_bytes(), key.as_bytes(), "x.pem").unwrap_err()
    };
    assert!(matches!(load(&key, &key), TlsError::NoCertificate { .. }));
    assert!(matches!(load(&chain, &chain), TlsError::NoKey { .. }));
    assert!(matches!(load(&chain, &other_key), TlsError::KeyPair { .. }));
    assert!(matches!(load(&chain[..chain.len() / 2], &key), TlsError::Pem { .. }));
    let hollow = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(load(hollow, &key), TlsError::Unparsable { .. }));
    assert!(load(hollow, &key).to_string().starts_with("x.pem: "));
    assert!(Roots::from_pem(hollow.as_bytes(), "ca.pem").is_err());
    assert_eq!(Roots::from_pem(chain.as_bytes(), "ca.pem").unwrap().count(), 1);
}

#[test]
fn impossible_options_are_refused() {
    let authority = Authority::new();
    let options = ServerOptions {
        certificates: Vec::new(),
        strict_sni: false,
        policy: Policy::default(),
        alpn: Vec::new(),
        ticketer: Ticketer::new(0).unwrap(),
    };
    assert!(matches!(server_config(&options).unwrap_err(), TlsError::NoCertificates));
    let upside_down = ServerOptions {
        certificates: vec![authority.entry(&["a.example"])],
        policy: Policy {
            versions: VersionRange { min: Version::V13, max: Version::V12 },
            ..Policy::default()
        },
        ..options
    };
    assert!(matches!(server_config(&upside_down).unwrap_err(), TlsError::Config(_)));
    let config = authority.client(VersionRange::default());
    assert!(matches!(Session::client(&config, "not a name").unwrap_err(), TlsError::Name { .. }));
}
