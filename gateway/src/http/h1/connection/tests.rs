//! The tables of the module, row by row.

use super::*;

fn head(fields: &[(&str, &str)]) -> Head {
    let mut head = Head::new();
    for (name, value) in fields {
        head.append(name, value);
    }
    head
}

fn names(head: &Head) -> String {
    head.iter().map(|(_, name, _)| String::from_utf8_lossy(name).into_owned() + " ").collect()
}

#[test]
fn persistence_rfc9112_9_3() {
    for (version, connection, want) in [
        (Version::Http11, &[][..], true),
        (Version::Http11, &["keep-alive"], true),
        (Version::Http11, &["close"], false),
        (Version::Http11, &["CLOSE"], false),
        (Version::Http11, &["keep-alive, close"], false),
        (Version::Http11, &["foo ,\tClose\t, bar"], false),
        (Version::Http11, &["keep-alive", "close"], false),
        (Version::Http11, &["closed", "not-close"], true),
        (Version::Http11, &["upgrade"], true),
        (Version::Http10, &[], false),
        (Version::Http10, &["keep-alive"], true),
        (Version::Http10, &["Keep-Alive, foo"], true),
        (Version::Http10, &["close"], false),
        (Version::Http10, &["keep-alive, close"], false),
        (Version::Http10, &["close", "keep-alive"], false),
    ] {
        let fields: Vec<_> = connection.iter().map(|value| ("Connection", *value)).collect();
        let options = connection_options(&head(&fields));
        assert_eq!(keep_alive(version, options), want, "{version:?} {connection:?}");
        assert_eq!(strip_hop_by_hop(&mut head(&fields)).unwrap().options, options, "{connection:?}");
    }
}

#[test]
fn written_persistence() {
    assert_eq!(Persistence::to(Version::Http11, true), Persistence::Implied);
    assert_eq!(Persistence::to(Version::Http11, false), Persistence::Close);
    assert_eq!(Persistence::to(Version::Http10, true), Persistence::KeepAlive);
    assert_eq!(Persistence::to(Version::Http10, false), Persistence::Close);
}

#[test]
fn connection_specific_fields_go_rfc9110_7_6_1() {
    let mut head = head(&[
        ("Host", "a"),
        ("Connection", "keep-alive, X-One,  x-two ,,"),
        ("Keep-Alive", "timeout=5"),
        ("X-One", "1"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "trailers, deflate;q=0.5"),
        ("X-TWO", "2"),
        ("Transfer-Encoding", "chunked"),
        ("Upgrade", "websocket"),
        ("HTTP2-Settings", "x"),
        ("Proxy-Authorization", "Basic x"),
        ("Trailer", "Expires"),
        ("X-Three", "3"),
        ("connection", "x-four"),
        ("x-four", "4"),
        ("x-two", "2"),
    ]);
    let hop = strip_hop_by_hop(&mut head).unwrap();
    assert_eq!(names(&head), "Host Trailer X-Three ");
    assert!(hop.te_trailers && hop.options.keep_alive && !hop.options.close);
    assert!(!hop.websocket, "not without `upgrade` in Connection");
}

#[test]
fn connection_cannot_take_away_what_rules_depend_on() {
    let kept = [
        "Host",
        "Content-Length",
        "Authorization",
        "X-Forwarded-For",
        "X-Forwarded-User",
        "X-Real-IP",
        "Forwarded",
        "Via",
        "apikey",
        "X-Consumer-ID",
        "X-Request-ID",
        "Expect",
    ];
    // RFC 9110 section 7.6.1: whatever else is listed goes, also what is no one's to list.
    let gone = ["Cookie", "Cache-Control", "If-None-Match", "Content-Type", "Trailer", "Connection", "X-Own"];
    let listed = [&gone[..], &kept].concat().join(", ");
    let all = gone.iter().filter(|name| **name != "Connection").chain(&kept).map(|name| (*name, "1"));
    let mut head = head(&all.chain([("Connection", &*listed)]).collect::<Vec<_>>());
    strip_hop_by_hop(&mut head).unwrap();
    assert_eq!(names(&head).trim_end(), kept.join(" "));
}

#[test]
fn an_endless_list_is_refused() {
    let listed = |count: usize| (0..count).map(|number| format!(" x{number} ,,")).collect::<String>();
    let mut at_most = head(&[("Connection", &listed(16)), ("Connection", &listed(16)), ("x15", "")]);
    assert!(strip_hop_by_hop(&mut at_most).is_ok());
    assert_eq!(names(&at_most), "");
    let mut more = head(&[("Connection", &listed(32)), ("Connection", "close")]);
    assert_eq!(strip_hop_by_hop(&mut more), Err(TooManyOptions));
}

#[test]
fn upgrade_rfc9110_7_8() {
    for (protocols, websocket) in [
        (&["websocket"][..], true),
        (&["WebSocket, x/1"], true),
        (&["h2c ,websocket"], true),
        (&["h2c", "websocket"], true),
        (&["h2c"], false),
        (&["websocket/13", "x websocket"], false),
        (&[], false),
    ] {
        let fields = protocols.iter().map(|protocol| ("Upgrade", *protocol));
        let mut head = head(&fields.chain([("Connection", "Upgrade")]).collect::<Vec<_>>());
        let hop = strip_hop_by_hop(&mut head).unwrap();
        assert!(hop.options.upgrade && head.is_empty());
        assert_eq!(hop.websocket, websocket, "{protocols:?}");
    }
}

#[test]
fn expectations_rfc9110_10_1_1() {
    let refused = Err(Refusal { reason: Reason::UnsupportedExpectation, status: 417 });
    for (version, values, want) in [
        (Version::Http11, &[][..], Ok(Expectation::None)),
        (Version::Http11, &["100-continue"], Ok(Expectation::Continue)),
        (Version::Http11, &["100-Continue"], Ok(Expectation::Continue)),
        (Version::Http11, &["100-continue, x"], refused),
        (Version::Http11, &["100-continue", "100-continue"], refused),
        (Version::Http11, &["cookies"], refused),
        (Version::Http11, &[""], refused),
        (Version::Http10, &["100-continue"], Ok(Expectation::None)),
        (Version::Http10, &["cookies"], Ok(Expectation::None)),
    ] {
        let mut request = RequestHead::new();
        request.set_version(version);
        for value in values {
            request.head.append("Expect", value);
        }
        assert_eq!(expectation(&request), want, "{version:?} {values:?}");
    }
}
