//! What the XDP program makes of sources, on byte fixtures (BPF_PROG_TEST_RUN): the common limits of the unknown, marks
//! and promotion, limits by port and prefix, lists with their own ways to refuse, resets, samples, and the known-good
//! sources that are hit.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use portcullis::kernel::test_run::{Entry, TestRun};
use portcullis::kernel::{Kernel, LimitSpec, Limits, Listener, Lists, NamedList, Part, Promotion, Settings};
use portcullis::limit::{KNOWN_GOOD_NS, Table, source_key};
use portcullis_abi::{BAN_UNIT_NS, Protocol, Rate, Reason};
use portcullis_tests::packet::{ACK, Packet, SYN, checksum};
use portcullis_tests::privileged;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3_600 * SECOND;

/// Nothing comes back within a test: the burst passes, the rest does not.
const fn burst(tokens: u64) -> Rate {
    Rate::new(1, 3_600 * SECOND, tokens)
}

struct Bench {
    run: TestRun,
    table: Table,
}

impl Bench {
    fn new(limits: Limits) -> Bench {
        let run =
            TestRun::load(&Settings { sets: 1 << 12, ..Settings::default() }).expect("the program loads");
        let table = Table::mapped(run.kernel.table(), run.kernel.secret()).expect("a power of two");
        let mut bench = Bench { run, table };
        let listener = |address: &str, port| Listener {
            address: address.parse().expect("an address"),
            port,
            protocol: Protocol::Tcp,
        };
        let listeners = [listener("0.0.0.0", 443), listener("::", 443), listener("0.0.0.0", 8443)];
        bench.run.kernel.sync_listeners(&listeners).expect("listeners");
        bench.run.kernel.sync_lists(&Lists::default()).expect("lists");
        bench.run.kernel.set_limits(&limits);
        bench
    }

    fn lists(&mut self, lists: &Lists) {
        self.run.kernel.sync_lists(lists).expect("lists");
    }

    fn limits(&mut self, limits: Limits) {
        self.run.kernel.set_limits(&limits);
    }

    /// Runs one packet; the reason that was counted for it, and the action.
    #[track_caller]
    fn verdict(&self, packet: &[u8]) -> (Reason, u32) {
        let before = self.run.kernel.counters().expect("counters");
        let outcome = self.run.run(Entry::Product, packet, 1).expect("a run");
        let after = self.run.kernel.counters().expect("counters");
        let counted: Vec<Reason> = Reason::ALL
            .iter()
            .copied()
            .filter(|reason| after[*reason as usize] != before[*reason as usize])
            .collect();
        assert_eq!(counted.len(), 1, "one reason a packet: {counted:?}");
        (counted[0], outcome.action)
    }

    #[track_caller]
    fn reason(&self, packet: &Packet) -> Reason {
        self.verdict(&packet.build()).0
    }

    /// How many of `tries` new connections get in.
    fn admitted(&self, source: &str, tries: usize) -> usize {
        (0..tries).filter(|i| !self.reason(&syn(source).tcp_numbers(*i as u16, 1, 0)).drops_packet()).count()
    }

    fn mark(&self, source: &str) {
        let now = Kernel::now();
        self.table.mark_established(source_key(ip(source)), now, now + 600 * SECOND);
    }

    fn authenticate(&self, source: &str) {
        let now = Kernel::now();
        self.table.mark_authenticated(source_key(ip(source)), now, now + KNOWN_GOOD_NS);
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn net<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a prefix")
}

fn nets<T: std::str::FromStr<Err: std::fmt::Debug>>(texts: &[&str]) -> Vec<T> {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

fn syn(source: &str) -> Packet {
    let source = ip(source);
    let packet = if source.is_ipv4() { Packet::v4() } else { Packet::v6() };
    packet.from(source).tcp(443, SYN)
}

#[test]
fn unknown_sources_share_their_networks_limit() {
    privileged!();
    let bench = Bench::new(Limits { v4_net: burst(5), v6_net: burst(3), ..Limits::default() });
    let admitted = (1..=20).filter(|i| bench.admitted(&format!("192.0.2.{i}"), 1) == 1).count();
    assert_eq!(admitted, 5);
    assert_eq!(bench.reason(&syn("192.0.2.99")), Reason::DropAggregateRate);
    assert_eq!(bench.admitted("192.0.3.1", 9), 5, "the next /24 has its own");
    let admitted = (1..=20).filter(|i| bench.admitted(&format!("2001:db8:7:{i}::1"), 1) == 1).count();
    assert_eq!(admitted, 3, "sixteen bits of /64s share one /48");
    assert_eq!(bench.admitted("2001:db8:8::1", 9), 3);

    bench.mark("192.0.2.200");
    assert_eq!(bench.admitted("192.0.2.200", 50), 50, "a known source is charged for itself alone");
    assert_eq!(
        bench.reason(&syn("192.0.2.99").tcp(443, ACK)),
        Reason::PassEstablished,
        "open connections too"
    );
}

#[test]
fn over_the_common_limit_the_known_get_in_and_the_others_by_trying_again() {
    privileged!();
    let bench = Bench::new(Limits {
        unknown: burst(4),
        connections: Rate::per_second(1_000, 1_000),
        ..Limits::default()
    });
    bench.mark("198.18.0.1");
    let fresh = |i: u32| Ipv4Addr::from(0x0b00_0000 + i * 7919).to_string();
    let admitted = (0..1_000).filter(|i| bench.admitted(&fresh(*i), 1) == 1).count();
    assert_eq!(admitted, 4);
    assert_eq!(bench.admitted("198.18.0.1", 100), 100);

    let first = syn("203.0.113.5").tcp_numbers(50_000, 77, 0);
    assert_eq!(bench.reason(&first), Reason::DropUnknownRate);
    assert_eq!(bench.reason(&first), Reason::DropUnknownRate, "not at once");
    std::thread::park_timeout(Duration::from_millis(400));
    let other = syn("203.0.113.5").tcp_numbers(50_000, 78, 0);
    assert_eq!(bench.reason(&other), Reason::DropUnknownRate, "another try is not the same again");
    assert_eq!(bench.reason(&first), Reason::PassRetried);
}

/// A CPU takes tokens of the common limit in advance; what gets in is the burst all the same, but for what a CPU may be
/// left with in hand.
#[test]
fn the_common_limit_holds_also_where_tokens_are_taken_in_advance() {
    privileged!();
    let tokens = 4_096;
    let mut bench = Bench::new(Limits { unknown: burst(tokens), ..Limits::default() });
    bench.run.random_sources(u32::MAX, 9).expect("a flood");
    let flood = |packets: u32| {
        let before = bench.run.kernel.counters().expect("counters");
        bench.run.run(Entry::RandomSources, &syn("192.0.2.1").build(), packets).expect("a flood");
        let after = bench.run.kernel.counters().expect("counters");
        let of = |reason: Reason| after[reason as usize] - before[reason as usize];
        (of(Reason::Pass), of(Reason::DropUnknownRate))
    };
    let (passed, dropped) = flood(20_000);
    assert_eq!(passed + dropped, 20_000);
    assert!(passed <= tokens && passed >= tokens - tokens / 8, "{passed}");
    // A limit that is taken away and given again starts with what was left.
    bench.limits(Limits { unknown: Rate::UNLIMITED, ..Limits::default() });
    let run = &bench.run;
    run.run(Entry::RandomSources, &syn("192.0.2.1").build(), 100).expect("a flood");
    bench.limits(Limits { unknown: burst(tokens), ..Limits::default() });
    let again = bench.admitted("203.0.113.77", 64);
    assert!(again <= 32, "{again}: one lease at most");
}

/// A flood of made-up sources takes no ways of the table while it is refused, and evicts nobody who is marked.
#[test]
fn a_spoofed_flood_takes_no_room_and_no_marks() {
    privileged!();
    const KNOWN: u32 = 2_000;
    let mut bench = Bench::new(Limits::default());
    let known = |i: u32| Ipv4Addr::from(0xc000_0000 + i * 7919).to_string();
    (0..KNOWN).for_each(|i| bench.mark(&known(i)));
    let in_use = |bench: &Bench| {
        let ways = bench.run.kernel.table().iter().flat_map(|set| &set.ways);
        ways.filter(|way| way.key.load(std::sync::atomic::Ordering::Relaxed) != 0).count()
    };
    let before = in_use(&bench);
    let limits = Limits { unknown: burst(100), connections: Rate::per_second(10, 20), ..Limits::default() };
    bench.limits(limits);
    bench.run.random_sources(u32::MAX, 7).expect("the scrambler");
    bench.run.run(Entry::RandomSources, &syn("192.0.2.1").build(), 2_000_000).expect("the flood");
    // Of so many random sources some come twice, and late enough to count as tried again.
    let twice = bench.run.kernel.counters().expect("counters")[Reason::PassRetried as usize] as usize;
    assert!(in_use(&bench) <= before + 100 + twice, "{} ways, {before} before, {twice}", in_use(&bench));
    assert!(twice < 20_000, "{twice} of two million");

    // Without that limit the flood takes what it can get, but no marks: at most where five share a set of four.
    bench.limits(Limits { unknown: Rate::UNLIMITED, ..limits });
    bench.run.run(Entry::RandomSources, &syn("192.0.2.1").build(), 2_000_000).expect("the flood");
    bench.limits(Limits { unknown: burst(1), ..limits });
    assert!(bench.admitted("192.0.2.77", 3) <= 1);
    let admitted = (0..KNOWN).filter(|i| bench.admitted(&known(*i), 1) == 1).count();
    println!("{admitted} of {KNOWN} known sources get in");
    assert!(admitted as u32 * 100 >= KNOWN * 99, "{admitted} of {KNOWN}");
}

#[test]
fn a_credential_multiplies_the_limit_and_shields_nobody_from_a_ban() {
    privileged!();
    let promotion = Promotion { factor: 4, above_ns: KNOWN_GOOD_NS - 600 * SECOND };
    let bench = Bench::new(Limits { connections: burst(5), promotion, ..Limits::default() });
    assert_eq!(bench.admitted("192.0.2.1", 50), 5);
    bench.authenticate("192.0.2.2");
    assert_eq!(bench.admitted("192.0.2.2", 50), 20, "four times as many, and no more");
    // Authenticated, but longer ago than it is promoted for.
    let (key, now) = (source_key(ip("192.0.2.3")), Kernel::now());
    bench.table.mark_authenticated(key, now, now + KNOWN_GOOD_NS - 601 * SECOND);
    assert_eq!(bench.admitted("192.0.2.3", 50), 5);
    bench.authenticate("192.0.2.4");
    bench.table.block(source_key(ip("192.0.2.4")), now, Kernel::now() + SECOND / 5, 0, Reason::BadChunk);
    assert_eq!(bench.reason(&syn("192.0.2.4").tcp(443, ACK)), Reason::DropBanned);
    std::thread::park_timeout(Duration::from_millis(300));
    assert_eq!(bench.reason(&syn("192.0.2.4")), Reason::Pass, "the ban ends by itself");
}

#[test]
fn limits_by_port_and_prefix_take_the_place_of_the_general_one() {
    privileged!();
    let limit = |name: &str, ports: &[u16], prefixes: &[&str], tokens| LimitSpec {
        name: name.into(),
        ports: ports.iter().map(|port| *port..=*port).collect(),
        prefixes: nets(prefixes),
        connections: burst(tokens),
        packets: Rate::UNLIMITED,
        shadow: false,
        reset: false,
    };
    let mut bench = Bench::new(Limits { connections: burst(5), ..Limits::default() });
    bench.lists(&Lists {
        limits: vec![limit("office", &[], &["192.0.2.0/24"], 30), limit("narrow port", &[8443], &[], 2)],
        ..Lists::default()
    });
    let on_8443 =
        |source: &str| (0..50).filter(|_| !bench.reason(&syn(source).tcp(8443, SYN)).drops_packet()).count();
    assert_eq!(bench.admitted("192.0.2.1", 50), 30);
    assert_eq!(bench.admitted("192.0.2.2", 50), 30, "each source has its own");
    assert_eq!(bench.admitted("198.18.0.1", 50), 5, "elsewhere the general limit holds");
    assert_eq!(on_8443("198.18.0.2"), 2);
    assert_eq!(bench.admitted("198.18.0.2", 50), 5, "and costs nothing on other ports");
    assert_eq!(on_8443("192.0.2.3"), 30, "the first that fits");
    assert_eq!(bench.reason(&syn("192.0.2.1")), Reason::DropRuleRate);
    let now = Kernel::now();
    bench.table.penalize(
        source_key(ip("192.0.2.4")),
        portcullis::limit::Word::Request,
        now,
        9_000_000 * SECOND,
        9_000_000 * SECOND,
    );
    assert_eq!(bench.reason(&syn("192.0.2.4")), Reason::DropConnectionRate, "debts count all the same");
    let matched = bench.run.kernel.rule_of(ip("192.0.2.4")).expect("a prefix");
    assert_eq!(matched.limits, ["office"]);

    bench.lists(&Lists {
        limits: vec![LimitSpec { shadow: true, ..limit("trial", &[], &["192.0.2.0/24"], 1) }],
        ..Lists::default()
    });
    assert_eq!(bench.verdict(&syn("192.0.2.8").build()), (Reason::Pass, XDP_PASS));
    assert_eq!(bench.verdict(&syn("192.0.2.8").build()), (Reason::ShadowRuleRate, XDP_PASS));
}

/// A ban of a prefix ends by kernel time too, though only to some minutes: nobody has to take it off.
#[test]
fn a_prefix_is_banned_until_its_end() {
    privileged!();
    let mut bench = Bench::new(Limits::default());
    let now = Kernel::now();
    let banned = |source: &str, until| (net(source), until);
    bench.lists(&Lists {
        banned: vec![
            banned("198.18.1.0/24", now + 24 * HOUR),
            banned("198.18.2.0/24", now + HOUR / 60),
            banned("198.18.3.0/24", now.saturating_sub(BAN_UNIT_NS)),
            banned("2001:db8:1::/48", now + HOUR),
            banned("2001:db8:2::/48", now.saturating_sub(BAN_UNIT_NS)),
        ],
        deny: vec![net("198.18.0.0/15")],
        ..Lists::default()
    });
    for (source, expected) in [
        ("198.18.1.1", Reason::DropBanned),
        ("198.18.2.1", Reason::DropBanned),
        ("198.18.3.1", Reason::Pass),
        ("198.18.4.1", Reason::DropDenied),
        ("2001:db8:1::1", Reason::DropBanned),
        ("2001:db8:2::1", Reason::Pass),
    ] {
        assert_eq!(bench.reason(&syn(source)), expected, "{source}");
    }
}

/// New connections that are refused cost nothing else: whoever forges a source's SYNs takes from it no packet of the
/// connections that it has.
#[test]
fn refused_connections_use_up_no_packets() {
    privileged!();
    let limits = Limits { connections: burst(2), packets: burst(10), ..Limits::default() };
    let mut bench = Bench::new(limits);
    assert_eq!(bench.admitted("192.0.2.1", 50), 2);
    let segment = Packet::v4().from(ip("192.0.2.1")).tcp(443, ACK);
    for _ in 0..8 {
        assert_eq!(bench.reason(&segment), Reason::PassEstablished);
    }
    assert_eq!(bench.reason(&segment), Reason::DropPacketRate);
    assert_eq!(bench.reason(&syn("192.0.2.1")), Reason::DropConnectionRate, "the first that it is over");
    // On trial the limit is noted once, and what else there is goes for the packet.
    let shadow_reasons = Reason::DropConnectionRate.drop_bit();
    bench.limits(Limits { shadow_reasons, ..limits });
    assert_eq!(bench.reason(&syn("192.0.2.1")), Reason::DropPacketRate);
    let tries = |bench: &Bench| (0..9).map(|_| bench.reason(&syn("192.0.2.2"))).collect::<Vec<_>>();
    let seen = tries(&bench);
    assert_eq!(seen[..2], [Reason::Pass; 2]);
    assert_eq!(seen[2..], [Reason::ShadowConnectionRate; 7]);
}

#[test]
fn a_list_on_trial_lifts_no_limit_that_is_in_force() {
    privileged!();
    let mut bench = Bench::new(Limits { connections: burst(3), ..Limits::default() });
    let list = |name: &str, prefixes: &[&str], shadow, allows| NamedList {
        name: name.into(),
        prefixes: nets::<_>(prefixes).into(),
        allows,
        shadow,
        reset: false,
    };
    bench.lists(&Lists {
        banned: vec![(net("198.18.5.0/24"), Kernel::now() + HOUR)],
        named: vec![
            list("trial", &["192.0.2.0/24"], true, false),
            list("scanners", &["198.18.0.0/16"], false, false),
            list("friends", &["198.18.7.0/24"], false, true),
        ],
        ..Lists::default()
    });
    for _ in 0..3 {
        assert_eq!(bench.verdict(&syn("192.0.2.1").build()), (Reason::ShadowDenied, XDP_PASS));
    }
    assert_eq!(bench.verdict(&syn("192.0.2.1").build()), (Reason::DropConnectionRate, XDP_DROP));
    assert_eq!(bench.reason(&syn("198.18.1.1")), Reason::DropDenied);
    assert_eq!(bench.reason(&syn("198.18.5.1")), Reason::DropBanned);
    assert_eq!(bench.reason(&syn("198.18.7.1")), Reason::PassAllowed);
    let matched = bench.run.kernel.rule_of(ip("192.0.2.1")).expect("a prefix");
    assert_eq!((matched.list.as_deref(), matched.shadow), (Some("trial"), true));
    assert_eq!(matched.net.to_string(), "192.0.2.0/24");
    assert_eq!(bench.run.kernel.rule_of(ip("203.0.113.1")), None);

    // A single reason on trial, and an operator's order in the middle of everything on trial.
    bench.limits(Limits {
        connections: burst(1),
        shadow_reasons: Reason::DropConnectionRate.drop_bit(),
        ..Limits::default()
    });
    assert_eq!(bench.admitted("203.0.113.1", 5), 5);
    bench.limits(Limits { shadow: true, ..Limits::default() });
    let (now, until) = (Kernel::now(), Kernel::now() + 60 * SECOND);
    bench.table.block(source_key(ip("203.0.113.2")), now, until, 0, Reason::BadChunk);
    bench.table.block(source_key(ip("203.0.113.3")), now, until, 0, Reason::SourceBanned);
    assert_eq!(bench.verdict(&syn("203.0.113.2").build()), (Reason::ShadowBanned, XDP_PASS));
    assert_eq!(bench.verdict(&syn("203.0.113.3").build()), (Reason::DropBanned, XDP_DROP));
}

/// What the stack of a client would check before it believes a reset.
#[track_caller]
fn check_reset(frame: &[u8], network: usize, of: &Packet, sequence: u32, acknowledged: u32, flags: u8) {
    let original = of.build();
    let v6 = frame[network] >> 4 == 6;
    let (addresses, tcp) = if v6 { (network + 8, network + 40) } else { (network + 12, network + 20) };
    let width = if v6 { 16 } else { 4 };
    assert_eq!(frame[..6], original[6..12], "to whom it came from");
    assert_eq!(frame[6..12], original[..6]);
    assert_eq!(frame[12..network], original[12..network], "tags and type stay");
    assert_eq!(frame[addresses..addresses + width], original[addresses + width..addresses + 2 * width]);
    assert_eq!(frame[addresses + width..addresses + 2 * width], original[addresses..addresses + width]);
    assert_eq!(frame[tcp..tcp + 2], original[tcp + 2..tcp + 4]);
    assert_eq!(frame[tcp + 2..tcp + 4], original[tcp..tcp + 2]);
    let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().expect("four bytes"));
    assert_eq!((word(tcp + 4), word(tcp + 8)), (sequence, acknowledged));
    assert_eq!((frame[tcp + 12], frame[tcp + 13]), (5 << 4, flags));
    let mut covered = frame[addresses..addresses + 2 * width].to_vec();
    covered.extend([0, 6, 0, 20]);
    covered.extend(&frame[tcp..tcp + 20]);
    assert_eq!(checksum(&covered), 0, "TCP checksum");
    if v6 {
        assert_eq!(frame[network + 4..network + 6], [0, 20]);
    } else {
        assert_eq!(checksum(&frame[network..network + 20]), 0, "IP checksum");
        assert_eq!(frame[network + 2..network + 4], [0, 40]);
    }
    assert_eq!(frame.len(), (tcp + 20).max(60).min(original.len()));
}

#[test]
fn a_reset_is_one_that_the_client_believes() {
    privileged!();
    const RST: u8 = 0x04;
    let reset_reasons = Reason::DropBanned.drop_bit();
    let limits = Limits { reset_reasons, resets: burst(6), ..Limits::default() };
    let bench = Bench::new(limits);
    let until = Kernel::now() + 60 * SECOND;
    for source in ["192.0.2.9", "2001:db8:1::9"] {
        bench.table.block(source_key(ip(source)), Kernel::now(), until, 0, Reason::BadChunk);
    }
    let answer = |packet: &Packet| bench.run.answer(&packet.build()).expect("a run");
    let new = syn("192.0.2.9").tcp_numbers(40_000, 0xffff_ffff, 0);
    for (packet, network) in [
        (new.clone(), 14),
        (new.clone().vlan(0x8100, 7), 18),
        (new.clone().vlan(0x88a8, 5).vlan(0x8100, 7), 22),
    ] {
        let (action, frame) = answer(&packet);
        assert_eq!(action, XDP_TX);
        check_reset(&frame, network, &packet, 0, 0, RST | ACK);
    }
    let segment = syn("192.0.2.9").tcp(443, ACK).tcp_numbers(40_000, 5, 99).payload(&[7; 600]);
    let (action, frame) = answer(&segment);
    assert_eq!(action, XDP_TX);
    check_reset(&frame, 14, &segment, 99, 0, RST);
    let v6 = syn("2001:db8:1::9").tcp_numbers(40_000, 5, 0);
    let (action, frame) = answer(&v6);
    assert_eq!(action, XDP_TX);
    check_reset(&frame, 14, &v6, 0, 6, RST | ACK);

    for (what, packet) in [
        ("a reset", syn("192.0.2.9").tcp(443, RST)),
        ("IP options", new.clone().options(&[1; 4])),
        ("a first fragment", new.clone().fragment(0, true)),
    ] {
        assert_eq!(answer(&packet).0, XDP_DROP, "{what}");
    }
    // Those three had their turn at the rate as well; the sixth token was the last.
    assert_eq!(answer(&new).0, XDP_DROP, "over the rate of resets");
    assert_eq!(bench.run.kernel.facts(Kernel::now()).resets_sent, 5);
    let counters = bench.run.kernel.counters().expect("counters");
    assert_eq!(counters[Reason::DropBanned as usize], 9, "a reset is a drop");
}

#[test]
fn drops_are_sampled_at_their_rate_and_known_good_sources_noted() {
    privileged!();
    let limits = Limits { connections: burst(2), samples: burst(3), ..Limits::default() };
    let mut bench = Bench::new(limits);
    bench.authenticate("192.0.2.1");
    let packet = syn("192.0.2.1").payload(&[9; 300]);
    for _ in 0..10 {
        bench.verdict(&packet.build());
        bench.verdict(&syn("192.0.2.2").build());
    }
    let hits = bench.run.kernel.known_good_hits().expect("hits");
    assert_eq!(hits.len(), 1, "{hits:?}");
    assert_eq!(hits[0].key, source_key(ip("192.0.2.1")));
    assert_eq!((hits[0].reason, hits[0].packets, hits[0].dropped), (Reason::DropConnectionRate, 8, true));
    assert_eq!(bench.table.known_good(Kernel::now()), 1);

    // Three on each CPU that the test ran on.
    let drops = bench.run.kernel.take_drops(1_000);
    assert!((3..=16).contains(&drops.len()), "{}", drops.len());
    for drop in &drops {
        assert_eq!((drop.reason, drop.shadow), (Reason::DropConnectionRate, false));
        assert!(Kernel::now() - drop.time_ns < 60 * SECOND);
    }
    let long =
        drops.iter().find(|drop| drop.len as usize == packet.build().len()).expect("one of the long ones");
    assert_eq!(long.data, packet.build()[..128]);
    let short =
        drops.iter().find(|drop| drop.len as usize == syn("192.0.2.2").build().len()).expect("a short one");
    assert_eq!(short.data, syn("192.0.2.2").build()[..48], "54 bytes in steps of eight");
    assert!(bench.run.kernel.take_drops(1_000).is_empty());

    // On trial they are noted as well, under the reason, and as not dropped.
    bench.limits(Limits { shadow: true, samples: Rate::UNLIMITED, ..limits });
    bench.authenticate("192.0.2.3");
    assert_eq!(bench.admitted("192.0.2.3", 5), 5);
    let hits = bench.run.kernel.known_good_hits().expect("hits");
    let hit = hits.iter().find(|hit| hit.key == source_key(ip("192.0.2.3"))).expect("noted");
    assert_eq!((hit.reason, hit.packets, hit.dropped), (Reason::DropConnectionRate, 3, false));
    assert!(bench.run.kernel.take_drops(1_000).is_empty(), "no samples are wanted");
}

#[test]
fn a_tripped_reason_passes_until_it_is_armed_again() {
    privileged!();
    let mut bench = Bench::new(Limits { connections: burst(1), ..Limits::default() });
    assert_eq!(bench.admitted("192.0.2.1", 5), 1);
    assert!(!bench.run.kernel.trip(Part { reason: Reason::DropConnectionRate, number: 0 }));
    assert_eq!(bench.verdict(&syn("192.0.2.1").build()), (Reason::ShadowConnectionRate, XDP_PASS));
    bench.limits(Limits { connections: burst(1), ..Limits::default() });
    assert_eq!(bench.admitted("192.0.2.1", 5), 5, "other settings do not arm it");
    bench.run.kernel.rearm();
    assert_eq!(bench.admitted("192.0.2.1", 5), 0);
}

/// Of two lists and two rules, the one that is tripped alone is in shadow; the trie is edited for it, not made anew.
#[test]
fn a_tripped_list_or_rule_passes_and_the_others_do_not() {
    privileged!();
    let mut bench = Bench::new(Limits::default());
    let named = |name: &str, prefix: &str| NamedList {
        name: name.into(),
        prefixes: vec![prefix.parse().expect("a prefix")].into(),
        allows: false,
        shadow: false,
        reset: false,
    };
    let rule = |prefix: &str| LimitSpec {
        name: String::new(),
        ports: Vec::new(),
        prefixes: vec![prefix.parse().expect("a prefix")],
        connections: burst(1),
        packets: Rate::UNLIMITED,
        shadow: false,
        reset: false,
    };
    let lists = Lists {
        deny: vec!["198.51.100.1/32".parse().expect("a prefix")],
        named: vec![named("first", "192.0.2.1/32"), named("second", "192.0.2.2/32")],
        limits: vec![rule("203.0.113.1/32"), rule("203.0.113.2/32")],
        ..Lists::default()
    };
    bench.lists(&lists);
    let sources = ["198.51.100.1", "192.0.2.1", "192.0.2.2", "203.0.113.1", "203.0.113.2"];
    // The first connection under a rule is within it.
    let admitted = |bench: &Bench| sources.map(|source| bench.admitted(source, 3));
    assert_eq!(admitted(&bench), [0, 0, 0, 1, 1]);
    for (part, expected) in [
        (Part { reason: Reason::DropDenied, number: 2 }, [0, 0, 3, 0, 0]),
        (Part { reason: Reason::DropRuleRate, number: 1 }, [0, 0, 3, 3, 0]),
        (Part { reason: Reason::DropDenied, number: 0 }, [3, 0, 3, 3, 0]),
    ] {
        assert!(bench.run.kernel.trip(part), "the lists are to be synced");
        bench.lists(&lists);
        assert_eq!(admitted(&bench), expected, "{part:?}");
    }
    assert_eq!(bench.run.kernel.tripped_names(), ["drop_denied", "list second", "rule "]);
    bench.run.kernel.rearm();
    bench.lists(&lists);
    assert_eq!(admitted(&bench), [0, 0, 0, 0, 0]);
}
