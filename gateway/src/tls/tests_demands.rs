//! Handshakes in memory: what is demanded of clients, what is negotiated, and what targets must show.

use std::sync::Arc;

use portcullis_abi::Reason;
use rcgen::{
    CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, KeyIdMethod,
    KeyPair, RevokedCertParams, SanType, SerialNumber,
};

use super::tests::{Authority, connect, only, serve};
use super::*;

fn demand(authority: &Authority, required: bool) -> ClientAuth {
    ClientAuth { required, roots: authority.roots(), verify_depth: None, revoked: Vec::new() }
}

/// A server whose names are `open.example` (nothing demanded) and `closed.example`.
fn server(authority: &Authority, closed: ClientAuth, ticketer: &Ticketer) -> ServerConfig {
    let closed =
        CertificateEntry { client_auth: Some(Arc::new(closed)), ..authority.entry(&["closed.example"]) };
    serve(vec![authority.entry(&["open.example"]), closed], true, ticketer)
}

fn client(authority: &Authority, identity: Option<Certificate>, version: Version) -> ClientConfig {
    client_config(&ClientOptions {
        verify: Verify::Against(authority.roots()),
        identity,
        versions: only(version),
        alpn: vec![Alpn::Http11],
    })
    .unwrap()
}

fn identity(authority: &Authority, serial: u64) -> Certificate {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "ann");
    params.subject_alt_names = vec![SanType::URI("spiffe://shop/ann".try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(SerialNumber::from(serial));
    let key = KeyPair::generate().unwrap();
    let signed = params.signed_by(&key, &authority.0).unwrap();
    Certificate::from_pem(signed.pem().as_bytes(), key.serialize_pem().as_bytes(), "client").unwrap()
}

/// The reason of a handshake that the server refused; in TLS 1.3 the client may be done by then.
fn refused(client: &ClientConfig, server: &ServerConfig, name: &str) -> Option<Reason> {
    let mut client = Session::client(client, name).unwrap();
    let mut server = Session::server(server).unwrap();
    let mut wire = Vec::new();
    for _ in 0..4 {
        client.take_output(&mut wire);
        if let Err(fault) = server.feed(&wire) {
            wire.clear();
            server.take_output(&mut wire);
            // An alert, in the clear or not.
            assert!(matches!(wire.first(), Some(21 | 23)), "no alert");
            return Some(fault.downstream_reason());
        }
        wire.clear();
        server.take_output(&mut wire);
        let _ = client.feed(&wire);
        wire.clear();
    }
    assert!(!server.is_handshaking());
    None
}

#[test]
fn clients_show_what_is_demanded_for_the_name() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for version in [Version::V12, Version::V13] {
        for required in [true, false] {
            let config = server(&authority, demand(&authority, required), &Ticketer::new(0).unwrap());
            let with = |identity| client(&authority, identity, version);
            let missing = required.then_some(Reason::ClientCertificateMissing);
            assert_eq!(refused(&with(None), &config, "closed.example"), missing, "{version:?} {required}");
            assert_eq!(refused(&with(None), &config, "open.example"), None);
            let wrong = with(Some(identity(&stranger, 1)));
            assert_eq!(
                refused(&wrong, &config, "closed.example"),
                Some(Reason::ClientCertificateInvalid),
                "{version:?} {required}"
            );
            assert_eq!(refused(&wrong, &config, "open.example"), None);
            let (_, served) =
                connect(&with(Some(identity(&authority, 1))), &config, "closed.example").unwrap();
            let peer = served.peer().expect("a client with a name");
            assert_eq!(
                (peer.common_name.as_deref(), &*peer.uris),
                (Some("ann"), &["spiffe://shop/ann".into()][..])
            );
        }
    }
}

#[test]
fn a_ticket_is_no_way_around_a_demand() {
    let authority = Authority::new();
    let ticketer = Ticketer::new(0).unwrap();
    let entry = || CertificateEntry { names: vec!["a.example".into()], ..authority.entry(&["a.example"]) };
    let open = serve(vec![entry()], true, &ticketer);
    let demanding =
        |required| CertificateEntry { client_auth: Some(Arc::new(demand(&authority, required))), ..entry() };
    let optional = serve(vec![demanding(false)], true, &ticketer);
    let closed = serve(vec![demanding(true)], true, &ticketer);
    for version in [Version::V12, Version::V13] {
        let nobody = client(&authority, None, version);
        connect(&nobody, &open, "a.example").unwrap();
        let (_, again) = connect(&nobody, &open, "a.example").unwrap();
        assert!(again.resumed(), "{version:?}");
        assert_eq!(refused(&nobody, &closed, "a.example"), Some(Reason::ClientCertificateMissing));
        connect(&nobody, &optional, "a.example").unwrap();
        assert_eq!(refused(&nobody, &closed, "a.example"), Some(Reason::ClientCertificateMissing));

        // Who has shown a certificate is still known after resuming.
        let ann = client(&authority, Some(identity(&authority, 7)), version);
        let (_, first) = connect(&ann, &closed, "a.example").unwrap();
        let (_, second) = connect(&ann, &closed, "a.example").unwrap();
        assert!(!first.resumed() && second.resumed(), "{version:?}");
        assert_eq!(second.peer(), first.peer());
    }
}

#[test]
fn a_connection_covers_the_names_under_the_same_demand() {
    let authority = Authority::new();
    let config = server(&authority, demand(&authority, true), &Ticketer::off());
    let nobody = client(&authority, None, Version::V13);
    let (_, served) = connect(&nobody, &config, "open.example").unwrap();
    let covered = served.covered().expect("two demands");
    assert!(covered.includes(b"open.example") && covered.includes(b"OPEN.example"));
    assert!(!covered.includes(b"closed.example"));
    assert!(covered.includes(b"elsewhere.example"), "no certificate is for it");
    let alike = serve(
        vec![authority.entry(&["a.example"]), authority.entry(&["b.example"])],
        false,
        &Ticketer::off(),
    );
    let (_, served) = connect(&nobody, &alike, "a.example").unwrap();
    assert!(served.covered().is_none());
}

#[test]
fn revoked_and_deep_certificates_are_refused() {
    let authority = Authority::new();
    let list = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2024, 1, 1),
        next_update: rcgen::date_time_ymd(2124, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(66),
            revocation_time: rcgen::date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&authority.0).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (pem, der) = (folder.path().join("crl.pem"), folder.path().join("crl.der"));
    std::fs::write(&pem, list.pem().unwrap()).unwrap();
    std::fs::write(&der, list.der()).unwrap();
    for path in [&pem, &der] {
        let closed = ClientAuth { revoked: Revoked::read(path).unwrap(), ..demand(&authority, true) };
        let config = server(&authority, closed, &Ticketer::off());
        for (serial, expected) in [(66, Some(Reason::ClientCertificateInvalid)), (65, None)] {
            let ann = client(&authority, Some(identity(&authority, serial)), Version::V13);
            assert_eq!(refused(&ann, &config, "closed.example"), expected, "{serial}");
        }
    }
    std::fs::write(&pem, "nothing").unwrap();
    assert!(matches!(Revoked::read(&pem), Err(TlsError::NoRevocationList { .. })));

    let shallow = ClientAuth { verify_depth: Some(0), ..demand(&authority, true) };
    let config = server(&authority, shallow, &Ticketer::off());
    let leaf = client(&authority, Some(identity(&authority, 1)), Version::V13);
    assert_eq!(refused(&leaf, &config, "closed.example"), None);
    let (chain, key) = authority.issue_pem(&["x.example"]);
    let deep = Certificate::from_pem(format!("{chain}{}", authority.0.pem()).as_bytes(), key.as_bytes(), "x")
        .unwrap();
    let deep = client(&authority, Some(deep), Version::V13);
    assert_eq!(refused(&deep, &config, "closed.example"), Some(Reason::ClientCertificateInvalid));
}

#[test]
fn a_judge_takes_what_its_authorities_signed() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let config = server(&authority, demand(&authority, true), &Ticketer::off());
    let ann = client(&authority, Some(identity(&authority, 1)), Version::V13);
    let (_, served) = connect(&ann, &config, "closed.example").unwrap();
    let peer = served.peer().unwrap();
    assert!(ClientJudge::new(authority.roots()).unwrap().accepts(&peer));
    assert!(!ClientJudge::new(stranger.roots()).unwrap().accepts(&peer));
}

fn with_policy(authority: &Authority, policy: Policy) -> ServerConfig {
    server_config(&ServerOptions {
        certificates: vec![authority.entry(&["a.example"])],
        strict_sni: false,
        policy,
        alpn: vec![Alpn::Http11],
        ticketer: Ticketer::off(),
    })
    .unwrap()
}

/// A client of rustls with these groups in its hello, best first.
fn client_with(authority: &Authority, policy: &Policy) -> ClientConfig {
    let config = rustls::ClientConfig::builder_with_provider(policy.provider())
        .with_protocol_versions(&policy.spoken())
        .unwrap()
        .with_root_certificates(authority.roots().store())
        .with_no_client_auth();
    let mut config = config;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    ClientConfig(Arc::new(config))
}

#[test]
fn the_key_exchange_is_hybrid_where_both_sides_can() {
    use rustls::NamedGroup;
    let authority = Authority::new();
    let usual = with_policy(&authority, Policy::default());
    let group = |curves: &[Curve], server: &ServerConfig| {
        let policy = Policy { curves: curves.to_vec(), ..Policy::default() };
        let (_, served) = connect(&client_with(&authority, &policy), server, "a.example").ok()?;
        served.group()
    };
    assert_eq!(group(&Curve::DEFAULT, &usual), Some(NamedGroup::X25519MLKEM768));
    // No second round trip for it.
    assert_eq!(group(&[Curve::P256, Curve::X25519MlKem768], &usual), Some(NamedGroup::secp256r1));
    assert_eq!(group(&[Curve::X25519], &usual), Some(NamedGroup::X25519));
    assert_eq!(group(&[Curve::Secp256r1MlKem768], &usual), None);
    let narrow = with_policy(&authority, Policy { curves: vec![Curve::P384], ..Policy::default() });
    assert_eq!(group(&Curve::DEFAULT, &narrow), Some(NamedGroup::secp384r1));
}

#[test]
fn suites_and_versions_of_a_policy() {
    let authority = Authority::new();
    let modern = Policy { versions: only(Version::V13), ..Policy::default() };
    let old = Policy { ciphers: vec![Cipher::EcdsaChaCha20], ..Policy::default() };
    let version = |client: &Policy, server: &Policy| {
        let server = with_policy(&authority, server.clone());
        connect(&client_with(&authority, client), &server, "a.example").ok()?.1.version()
    };
    let usual = Policy::default();
    assert_eq!(version(&usual, &usual), Some(Version::V13));
    assert_eq!(version(&usual, &old), Some(Version::V12), "no suite of TLS 1.3, so it is not spoken");
    assert_eq!(version(&old, &modern), None);
    let narrow = Policy { ciphers: vec![Cipher::Aes256], ..Policy::default() };
    assert_eq!(version(&Policy { ciphers: vec![Cipher::Aes128], ..usual.clone() }, &narrow), None);
    assert_eq!(version(&usual, &narrow), Some(Version::V13));
}

#[test]
fn early_data_is_never_taken() {
    let authority = Authority::new();
    let config = serve(vec![authority.entry(&["a.example"])], false, &Ticketer::new(0).unwrap());
    let mut eager = (*authority.client(only(Version::V13)).0).clone();
    eager.enable_early_data = true;
    let eager = ClientConfig(Arc::new(eager));
    connect(&eager, &config, "a.example").unwrap();
    let (resumed, _) = connect(&eager, &config, "a.example").unwrap();
    assert!(resumed.resumed());
    // A client that has a ticket which allows it offers early data; ours allows none.
    let mut client = rustls::ClientConnection::new(eager.0, "a.example".try_into().unwrap()).unwrap();
    assert!(client.early_data().is_none(), "a ticket of ours promises to take early data");
}

#[test]
fn targets_are_known_by_the_names_that_are_given() {
    let authority = Authority::new();
    let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI("spiffe://shop/api".try_into().unwrap()));
    let key = KeyPair::generate().unwrap();
    let signed = params.signed_by(&key, &authority.0).unwrap();
    let pem = format!("{}{}", signed.pem(), authority.0.pem());
    let certificate = Certificate::from_pem(pem.as_bytes(), key.serialize_pem().as_bytes(), "x").unwrap();
    let server = serve(
        vec![CertificateEntry { certificate, names: Vec::new(), client_auth: None }],
        false,
        &Ticketer::off(),
    );
    let check = |name: &str, dns: &[&str], uris: &[&str], depth: Option<u8>| {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let names = Names::new(&owned(dns), &owned(uris)).unwrap();
        let options = ClientOptions {
            verify: Verify::Names { roots: authority.roots(), names, depth },
            identity: None,
            versions: VersionRange::default(),
            alpn: vec![Alpn::Http11],
        };
        connect(&client_config(&options).unwrap(), &server, name).is_ok()
    };
    assert!(check("a.example", &[], &[], None));
    assert!(!check("b.example", &[], &[], None));
    assert!(check("b.example", &["x.example", "a.example"], &[], None));
    assert!(!check("a.example", &["x.example"], &[], None), "the names replace the server name");
    assert!(check("b.example", &[], &["spiffe://shop/api"], None));
    assert!(!check("b.example", &[], &["spiffe://shop/other"], None));
    assert!(check("a.example", &[], &[], Some(1)) && !check("a.example", &[], &[], Some(0)));
}

#[test]
fn a_staple_reaches_the_client_or_is_refused() {
    let authority = Authority::new();
    let certificate = authority.issue(&["a.example"]);
    let soon = std::time::Duration::from_secs(4_000_000_000);
    assert!(certificate.not_after().is_some_and(|time| time > soon), "{:?}", certificate.not_after());
    assert_eq!(
        certificate.with_staple(b"nonsense".to_vec(), std::time::Duration::ZERO).unwrap_err().to_string(),
        "it is no OCSP response in DER"
    );
}

#[test]
fn a_hello_is_read_however_it_is_cut() {
    let authority = Authority::new();
    let mut client = Session::client(&client_with(&authority, &Policy::default()), "A.example").unwrap();
    let mut hello = Vec::new();
    client.take_output(&mut hello);
    // The same message over many records (RFC 8446 section 5.1).
    let mut cut = Vec::new();
    for part in hello[5..].chunks(50) {
        cut.extend([22, 3, 1, 0, part.len() as u8]);
        cut.extend(part);
    }
    for (bytes, block) in [(&hello, usize::MAX), (&hello, 1), (&cut, usize::MAX), (&cut, 1), (&cut, 7)] {
        let mut reader = HelloReader::default();
        let mut found = None;
        for part in bytes.chunks(block.min(bytes.len())) {
            match reader.feed(part) {
                HelloRead::Partial => assert!(found.is_none()),
                HelloRead::Complete(hello) => found = Some(hello.sni),
                HelloRead::Broken(kind, _) => panic!("{kind:?}"),
            }
        }
        assert_eq!(found, Some(Some("a.example".into())));
    }
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[22, 3, 1, 0, 4, 2, 0, 0, 0], &[0; 64]] {
        let HelloRead::Broken(_, alert) = HelloReader::default().feed(garbage) else { panic!("{garbage:?}") };
        assert_eq!(alert.first(), Some(&21));
    }
}

#[test]
fn any_garbage_ends_in_a_fault_with_an_alert() {
    let authority = Authority::new();
    let config = serve(vec![authority.entry(&["a.example"])], false, &Ticketer::off());
    let mut client = Session::client(&authority.client(VersionRange::default()), "a.example").unwrap();
    let mut hello = Vec::new();
    client.take_output(&mut hello);
    let mut state = 7_u64;
    let mut random = |below: usize| {
        // Xorshift: the same soup in every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let (mut faults, rounds) = (0, 3000);
    for round in 0..rounds {
        let mut bytes = hello.clone();
        for _ in 0..1 + random(8) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] ^= 1 << random(8),
                1 => bytes[at] = random(256) as u8,
                2 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, random(256) as u8),
            }
        }
        let mut server = Session::server(&config).unwrap();
        let mut out = Vec::new();
        for part in bytes.chunks(1 + random(bytes.len())) {
            if server.feed(part).is_err() {
                faults += 1;
                server.take_output(&mut out);
                // What follows a ServerHello is encrypted, the alert too.
                assert!(
                    out.first().is_some_and(|kind| [20, 21, 22].contains(kind)),
                    "round {round}: {out:?}"
                );
                break;
            }
        }
        // Whatever comes later, and whatever is asked of a dead session, does no harm.
        let _ = (server.feed(&bytes), server.write_plain(b"x"), server.peer(), server.sni().map(str::len));
        server.send_close_notify();
        server.take_output(&mut out);
    }
    assert!(faults > rounds / 4, "{faults} faults: the soup is too thin");
}
