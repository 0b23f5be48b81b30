//! The plugin on exchanges without a connection: counts, headers, and what is said of wrong settings.

use std::rc::Rc;
use std::time::Duration;

use super::super::fixture::{Fixture, request_with};
use portcullis_abi::Reason;

use crate::http::RequestHead;
use crate::metrics::LimiterDecision;
use crate::plugin::{Flow, Identity, Plugin};

const ANN: &str = "ann/1";

/// What the client gets to see of one request.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
}

impl Answer {
    fn field(&self, name: &str) -> &str {
        let mut found = self.fields.iter().filter(|(n, _)| n == name);
        let value = found.next().map_or("", |(_, value)| value);
        assert!(found.next().is_none(), "{name} twice in {self:?}");
        value
    }
}

fn send(
    fixture: &Fixture,
    plugin: &dyn Plugin,
    client: &str,
    identity: Identity,
    head: &mut RequestHead,
) -> Answer {
    let mut cx = fixture.cx_from(client);
    cx.identity = identity;
    let flow = plugin.on_request(&mut cx, head);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("ASCII");
    let fields = cx.response_fields.iter().map(|(_, name, value)| (text(name), text(value))).collect();
    let (status, decision) = match flow {
        Flow::Continue => (200, LimiterDecision::Conforming),
        Flow::Respond(response) => {
            assert_eq!(response.reason, Some(Reason::RateLimited));
            (response.status, LimiterDecision::Limited)
        }
        Flow::Wait(_) => panic!("waits"),
    };
    assert_eq!(cx.limiter, Some(decision));
    Answer { status, fields }
}

fn get(fixture: &Fixture, plugin: &dyn Plugin, client: &str) -> Answer {
    send(fixture, plugin, client, Identity::default(), &mut request_with("/", &[]))
}

/// How many of `count` requests made by `send` pass.
fn passed(count: u32, mut send: impl FnMut() -> Answer) -> u32 {
    (0..count).map(|_| u32::from(send().status == 200)).sum()
}

fn identity(fixture: &Fixture, key: &str) -> Identity {
    let credential = fixture.consumers.by_key(key.as_bytes(), Duration::ZERO).expect("a key of the fixture");
    let consumer = fixture.consumers.credential(credential).consumer;
    Identity { consumer: Some(consumer), credential: Some(credential), authenticated: true, anonymous: false }
}

#[test]
fn the_headers_are_kongs() {
    let fixture = Fixture::default();
    let plugin = fixture.accepted("rate-limiting", "{minute: 2, hour: 10, limit_by: ip}");
    let pairs =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect::<Vec<_>>();
    let limits = [("X-RateLimit-Limit-Minute", "2"), ("X-RateLimit-Limit-Hour", "10")];
    let first = get(&fixture, &*plugin, "203.0.113.1");
    let rest = [
        ("X-RateLimit-Remaining-Minute", "1"),
        ("X-RateLimit-Remaining-Hour", "9"),
        ("RateLimit-Limit", "2"),
        ("RateLimit-Remaining", "1"),
        ("RateLimit-Reset", "60"),
    ];
    assert_eq!(first, Answer { status: 200, fields: pairs(&[&limits[..], &rest].concat()) });
    get(&fixture, &*plugin, "203.0.113.1");
    let refused = get(&fixture, &*plugin, "203.0.113.1");
    let rest = [
        ("X-RateLimit-Remaining-Minute", "0"),
        ("X-RateLimit-Remaining-Hour", "8"),
        ("RateLimit-Limit", "2"),
        ("RateLimit-Remaining", "0"),
        ("RateLimit-Reset", "60"),
        ("Retry-After", "60"),
    ];
    assert_eq!(refused, Answer { status: 429, fields: pairs(&[&limits[..], &rest].concat()) });
}

#[test]
fn every_window_has_a_header_of_its_name() {
    let fixture = Fixture::default();
    let config = "{second: 1, minute: 2, hour: 3, day: 4, month: 5, year: 6}";
    let answer = get(&fixture, &*fixture.accepted("rate-limiting", config), "203.0.113.1");
    for (limit, window) in ["Second", "Minute", "Hour", "Day", "Month", "Year"].iter().enumerate() {
        assert_eq!(answer.field(&format!("X-RateLimit-Limit-{window}")), (limit + 1).to_string());
        assert_eq!(answer.field(&format!("X-RateLimit-Remaining-{window}")), limit.to_string());
    }
    assert_eq!((answer.field("RateLimit-Limit"), answer.field("RateLimit-Reset")), ("1", "1"));
}

#[test]
fn counts_are_exact_over_windows_and_keys() {
    let mut fixture = Fixture::default();
    let plugin = fixture.accepted("rate-limiting", "{second: 3, minute: 7, hour: 9, limit_by: ip}");
    let clients = ["203.0.113.1", "203.0.113.2", "2001:db8::1"];
    // Seconds since the start, and what each client may still do in that second.
    for (second, admitted) in [(0, 3), (1, 3), (2, 1), (3, 0), (60, 2), (61, 0), (3600, 3)] {
        fixture.elapsed = Duration::from_secs(second);
        for client in clients {
            assert_eq!(passed(20, || get(&fixture, &*plugin, client)), admitted, "{client} at {second} s");
        }
    }
}

#[test]
fn a_refused_request_is_not_counted() {
    let mut fixture = Fixture::default();
    let plugin = fixture.accepted("rate-limiting", "{second: 1, minute: 3, limit_by: ip}");
    assert_eq!(passed(50, || get(&fixture, &*plugin, "203.0.113.1")), 1);
    fixture.elapsed = Duration::from_secs(1);
    assert_eq!(get(&fixture, &*plugin, "203.0.113.1").field("X-RateLimit-Remaining-Minute"), "1");
}

#[test]
fn the_one_to_wait_for_is_the_window_that_ends_last() {
    let mut fixture = Fixture::default();
    fixture.elapsed = Duration::from_secs(45);
    let plugin = fixture.accepted("rate-limiting", "{minute: 1, hour: 1, limit_by: ip}");
    get(&fixture, &*plugin, "203.0.113.1");
    let refused = get(&fixture, &*plugin, "203.0.113.1");
    assert_eq!((refused.field("Retry-After"), refused.field("RateLimit-Reset")), ("3555", "3555"));
}

#[test]
fn one_64_is_one_client_and_a_mapped_address_is_its_ipv4_address() {
    let fixture = Fixture::default();
    let plugin = fixture.accepted("rate-limiting", "{hour: 2, limit_by: ip}");
    let status = |client| get(&fixture, &*plugin, client).status;
    let turns = ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:1", "2001:db8:0:1::1"].map(status);
    assert_eq!(turns, [200, 200, 429, 200]);
    assert_eq!(["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1", "192.0.2.2"].map(status), [200, 200, 429, 200]);
}

#[test]
fn consumers_are_counted_over_credentials_and_credentials_apart() {
    let fixture = Fixture::default();
    for (limit_by, turns) in [
        ("consumer", [(ANN, 200), ("ann/2", 200), (ANN, 429), ("ann/2", 429), ("ben/1", 200)]),
        ("credential", [(ANN, 200), (ANN, 200), (ANN, 429), ("ann/2", 200), ("ben/1", 200)]),
    ] {
        let plugin = fixture.accepted("rate-limiting", &format!("{{hour: 2, limit_by: {limit_by}}}"));
        for (turn, (key, status)) in turns.into_iter().enumerate() {
            // From another address each time, which must not matter.
            let client = format!("203.0.113.{turn}");
            let answer =
                send(&fixture, &*plugin, &client, identity(&fixture, key), &mut request_with("/", &[]));
            assert_eq!(answer.status, status, "{limit_by}: turn {turn}, {key}");
        }
    }
}

#[test]
fn headers_and_paths_are_counted_by_value() {
    let fixture = Fixture::default();
    let by_header = fixture.accepted("rate-limiting", "{hour: 2, limit_by: header, header_name: x-Tenant}");
    let by_path =
        fixture.compile("rate-limiting", 2, "{hour: 2, limit_by: path, path: /a}").expect("right").0;
    let status = |plugin: &dyn Plugin, client: &str, target: &str, lines: &[&str]| {
        send(&fixture, plugin, client, Identity::default(), &mut request_with(target, lines)).status
    };
    for (line, expected) in
        [("X-Tenant: a", 200), ("X-TENANT: a", 200), ("X-Tenant: a", 429), ("X-Tenant: b", 200)]
    {
        assert_eq!(status(&*by_header, "203.0.113.1", "/", &[line]), expected, "{line}");
    }
    for (client, target, expected) in [
        ("203.0.113.1", "/a", 200),
        ("203.0.113.2", "/a?x", 200),
        ("203.0.113.3", "/a", 429),
        ("203.0.113.3", "/a/", 200),
    ] {
        assert_eq!(status(&*by_path, client, target, &[]), expected, "{client} {target}");
    }
}

#[test]
fn what_is_missing_falls_back_to_the_address() {
    let fixture = Fixture::default();
    for (instance, config) in [
        "{hour: 2}",
        "{hour: 2, limit_by: credential}",
        "{hour: 2, limit_by: header, header_name: X-Tenant}",
        "{hour: 2, limit_by: path, path: /other}",
        "{hour: 2, limit_by: service}",
    ]
    .iter()
    .enumerate()
    {
        let plugin = fixture.compile("rate-limiting", instance as u64, config).expect("right").0;
        let status = |client| {
            let mut cx = fixture.cx_from(client);
            cx.service_name = None;
            match plugin.on_request(&mut cx, &mut request_with("/", &[])) {
                Flow::Respond(response) => response.status,
                _ => 200,
            }
        };
        let turns = ["203.0.113.1", "203.0.113.1", "203.0.113.1", "203.0.113.2"].map(status);
        assert_eq!(turns, [200, 200, 429, 200], "{config}");
    }
}

#[test]
fn a_service_is_counted_whoever_asks() {
    let fixture = Fixture::default();
    let plugin = fixture.accepted("rate-limiting", "{hour: 2, limit_by: service}");
    let turns =
        ["203.0.113.1", "203.0.113.2", "203.0.113.3"].map(|client| get(&fixture, &*plugin, client).status);
    assert_eq!(turns, [200, 200, 429]);
}

#[test]
fn instances_count_apart_and_the_same_instance_goes_on_counting() {
    let fixture = Fixture::default();
    let compile =
        |instance| fixture.compile("rate-limiting", instance, "{hour: 1, limit_by: ip}").expect("right").0;
    let status = |plugin: Rc<dyn Plugin>| get(&fixture, &*plugin, "203.0.113.1").status;
    assert_eq!([compile(1), compile(2), compile(1), compile(2)].map(status), [200, 200, 429, 429]);
}

#[test]
fn addresses_are_counted_beside_the_kernels_words_and_all_else_is_not() {
    let by_address = |limit_by: &str| {
        let fixture = Fixture::default();
        let plugin = fixture.accepted("rate-limiting", &format!("{{hour: 9, limit_by: {limit_by}}}"));
        send(&fixture, &*plugin, "203.0.113.1", identity(&fixture, ANN), &mut request_with("/", &[]));
        assert_eq!(fixture.table.ways_in_use() + fixture.limit_table.ways_in_use(), 1);
        fixture.table.ways_in_use() == 1
    };
    assert!(by_address("ip"));
    assert!(["consumer", "credential", "service"].into_iter().all(|by| !by_address(by)));
    assert!(by_address("path, path: /other"), "the fallback is an address");
}

#[test]
fn the_client_may_be_told_nothing_and_in_other_words() {
    let fixture = Fixture::default();
    let config =
        "{hour: 1, limit_by: ip, hide_client_headers: true, error_code: 503, error_message: slow down}";
    let plugin = fixture.accepted("rate-limiting", config);
    assert_eq!(get(&fixture, &*plugin, "203.0.113.1").fields, []);
    let mut cx = fixture.cx_from("203.0.113.1");
    match plugin.on_request(&mut cx, &mut request_with("/", &[])) {
        Flow::Respond(response) => assert_eq!((response.status, &*response.message), (503, "slow down")),
        _ => panic!("let through"),
    }
    assert!(cx.response_fields.is_empty());
    let plugin = fixture.compile("rate-limiting", 2, "{hour: 1}").expect("right").0;
    get(&fixture, &*plugin, "203.0.113.1");
    match plugin.on_request(&mut fixture.cx_from("203.0.113.1"), &mut request_with("/", &[])) {
        Flow::Respond(response) => {
            assert_eq!((response.status, &*response.message), (429, "API rate limit exceeded"))
        }
        _ => panic!("let through"),
    }
}

#[test]
fn wrong_settings_are_refused_in_kongs_words() {
    let fixture = Fixture::default();
    for (config, said) in [
        (
            "{}",
            "error: plugins[0].config: at least one of these fields must be non-empty: 'second', 'minute', 'hour', \
             'day', 'month', 'year'",
        ),
        (
            "{minute: 10, hour: 5}",
            "error: hour: The limit for hour(5) cannot be lower than the limit for minute(10)",
        ),
        (
            "{second: 2, hour: 5, day: 4}",
            "error: day: The limit for day(4) cannot be lower than the limit for hour(5)",
        ),
        ("{minute: 0}", "error: minute: 0 is out of range"),
        ("{second: 9000000000}", "error: second: the limit per second must be at most 1000000000"),
        ("{minut: 5}", "error: minut: unknown key `minut` in rate-limiting"),
        ("{minute: 5, limit_by: header}", "error: limit_by: `limit_by: header` needs `header_name`"),
        ("{minute: 5, limit_by: path}", "error: limit_by: `limit_by: path` needs `path`"),
        ("{minute: 5, limit_by: planet}", "error: limit_by: "),
        ("{minute: 5, sync_rate: 1}", "error: sync_rate: sync_rate can only be used with redis policy"),
        (
            "{minute: 5, policy: redis, sync_rate: 0.01, redis: {host: a}}",
            "error: sync_rate: sync_rate must be at least 0.02, or -1",
        ),
        ("{minute: 5, policy: redis}", "error: policy: `policy: redis` needs `redis.host`"),
    ] {
        let found = fixture.refused("rate-limiting", config);
        let errors: Vec<_> = found.lines().filter(|line| line.starts_with("error")).collect();
        assert!(matches!(&*errors, [one] if one.starts_with(said)), "{config}: {found}");
    }
}

#[test]
fn kongs_keys_of_a_shared_store_are_accepted_old_and_new() {
    let fixture = Fixture::default();
    let said = |config: &str| fixture.compile("rate-limiting", 1, config).map(|(_, said)| said);
    let new = "{minute: 5, limit_by: ip, policy: redis, redis: {host: redis.internal, password: x}}";
    assert_eq!(said(new), Ok(String::new()));
    let old = "{minute: 5, limit_by: ip, policy: redis, redis_host: redis.internal, redis_port: 6379, redis_password: x, \
               redis_timeout: 2000, redis_database: 1, fault_tolerant: true, sync_rate: -1}";
    let said_of_old = said(old).expect("accepted");
    assert!(said_of_old.lines().all(|line| line.contains("redis_")), "{said_of_old}");
    assert!(said("{minute: 5, policy: cluster}").expect("accepted").contains("each counts by itself"));
    assert_eq!(said("{minute: 5, limit_by: ip}"), Ok(String::new()));
}
