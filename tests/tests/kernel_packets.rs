//! The XDP program on byte fixtures (BPF_PROG_TEST_RUN): one verdict a packet, every kernel reason, bytes cut
//! off anywhere, and the bucket words that both sides charge.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering::Relaxed;

use portcullis::kernel::test_run::{Entry, TestRun};
use portcullis::kernel::{Kernel, Limits, Listener, Lists, Settings};
use portcullis_abi::{
    Protocol, Rate, Reason, ban, charge, find, find_or_take, key_v4, key_v6, penalize, set_index,
};
use portcullis_tests::packet::{ACK, Extension, Packet, SYN};
use portcullis_tests::privileged;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3_600 * SECOND;

/// Far from anything that a single packet reaches.
const WIDE: Rate = Rate { interval_ns: 1_000, burst_ns: SECOND };

const DENIED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const ALLOWED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 8);
const TRUSTED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const BANNED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const IN_DEBT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);
const NOISY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 12);

/// Listeners on one address a version (port 443), and on any address (port 8443); lists and debts by source.
fn gateway() -> TestRun {
    let mut run =
        TestRun::load(&Settings { sets: 1 << 12, ..Settings::default() }).expect("the program loads");
    let mut listeners = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for (address, port) in
            [("198.51.100.1", 443), ("2001:db8:ff::1", 443), ("0.0.0.0", 8443), ("::", 8443)]
        {
            listeners.push(Listener { address: address.parse().expect("an address"), port, protocol });
        }
    }
    run.kernel.sync_listeners(&listeners).expect("listeners");
    let net = |text: &str| text.parse().expect("a prefix");
    let lists = Lists {
        trusted: vec![net("203.0.113.9/32"), net("2001:db8:9::/48")],
        allow: vec![net("203.0.113.8/32"), net("2001:db8:8::/48")],
        // The second names a trusted source by mistake, and covers the allowed one.
        deny: vec![net("203.0.113.7/32"), net("203.0.113.8/31"), net("2001:db8:7::/48")],
        ..Lists::default()
    };
    run.kernel.sync_lists(&lists).expect("lists");
    run.kernel.set_limits(&Limits { packets: WIDE, connections: WIDE, ..Limits::default() });

    let now = Kernel::now();
    with_set(&run, BANNED, |set, key| ban(set, key, now, now + HOUR, 0, Reason::BadChunk));
    with_set(&run, IN_DEBT, |set, key| {
        penalize(&find_or_take(set, key, now).request_tat, now, HOUR, HOUR);
    });
    with_set(&run, NOISY, |set, key| {
        penalize(&find_or_take(set, key, now).packet_tat, now, HOUR, HOUR);
    });
    run
}

fn with_set<T>(run: &TestRun, source: Ipv4Addr, f: impl FnOnce(&portcullis_abi::Set, u64) -> T) -> T {
    let (table, key) = (run.kernel.table(), key_v4(source.into()));
    f(&table[set_index(key, &run.kernel.secret(), table.len())], key)
}

/// Runs one packet and returns the reason that was counted for it, and the action.
#[track_caller]
fn verdict(run: &TestRun, packet: &[u8]) -> (Reason, u32) {
    let before = run.kernel.counters().expect("counters");
    let outcome = run.run(Entry::Product, packet, 1).expect("a run");
    let after = run.kernel.counters().expect("counters");
    let counted: Vec<Reason> = Reason::ALL
        .iter()
        .copied()
        .filter(|reason| after[*reason as usize] != before[*reason as usize])
        .collect();
    assert_eq!(counted.len(), 1, "one reason a packet: {counted:?}");
    assert_eq!(after[counted[0] as usize], before[counted[0] as usize] + 1);
    (counted[0], outcome.action)
}

fn syn() -> Packet {
    Packet::v4().tcp(443, SYN)
}

fn from(source: Ipv4Addr) -> Packet {
    syn().from(source.into())
}

fn chain(length: usize) -> Packet {
    (0..length).fold(Packet::v6(), |packet, _| packet.extension(Extension::Destination(1)))
}

fn cut(packet: &Packet, length: usize) -> Vec<u8> {
    packet.build()[..length].to_vec()
}

/// Name, frame, reason.
fn fixtures() -> Vec<(&'static str, Vec<u8>, Reason)> {
    let other: IpAddr = Ipv4Addr::new(198, 51, 100, 2).into();
    let other_v6: IpAddr = "2001:db8:ff::2".parse().expect("an address");
    let v6_from = |text: &str| Packet::v6().from(text.parse().expect("an address")).tcp(443, SYN).build();
    let mut short_tcp = syn().build();
    short_tcp[14 + 20 + 12] = 4 << 4;
    let mut short_udp = Packet::v4().udp(443, 4).build();
    short_udp[14 + 20 + 5] = 7;
    let mut bad_ihl = syn().build();
    bad_ihl[14] = 0x44;
    let mut wrong_version = syn().build();
    wrong_version[14] = 0x65;
    let mut wrong_version_v6 = Packet::v6().tcp(443, SYN).build();
    wrong_version_v6[14] = 0x45;
    let mut arp = vec![0xff; 12];
    arp.extend([0x08, 0x06]);
    arp.resize(60, 0);

    vec![
        ("IPv4 SYN", syn().build(), Reason::Pass),
        ("IPv6 SYN", Packet::v6().tcp(443, SYN).build(), Reason::Pass),
        ("segment", Packet::v4().tcp(443, ACK).build(), Reason::PassEstablished),
        ("SYN and ACK is no opening", Packet::v4().tcp(443, SYN | ACK).build(), Reason::PassEstablished),
        ("datagram", Packet::v4().udp(443, 20).build(), Reason::Pass),
        ("IPv6 datagram", Packet::v6().udp(443, 20).build(), Reason::Pass),
        ("any address", syn().to(other).tcp(8443, SYN).build(), Reason::Pass),
        ("any IPv6 address", Packet::v6().to(other_v6).tcp(8443, SYN).build(), Reason::Pass),
        ("one VLAN tag", syn().vlan(0x8100, 7).build(), Reason::Pass),
        ("two VLAN tags", syn().vlan(0x88a8, 5).vlan(0x8100, 7).build(), Reason::Pass),
        (
            "two VLAN tags, IPv6",
            Packet::v6().vlan(0x88a8, 5).vlan(0x8100, 7).tcp(443, SYN).build(),
            Reason::Pass,
        ),
        (
            "three VLAN tags",
            syn().vlan(0x88a8, 5).vlan(0x8100, 6).vlan(0x8100, 7).build(),
            Reason::PassNotOurs,
        ),
        ("IPv4 options", syn().options(&[1; 4]).build(), Reason::Pass),
        ("most IPv4 options", syn().options(&[1; 40]).build(), Reason::Pass),
        (
            "each extension header",
            Packet::v6()
                .extension(Extension::HopByHop(1))
                .extension(Extension::Destination(3))
                .extension(Extension::Routing(2))
                .extension(Extension::Authentication)
                .extension(Extension::Destination(1))
                .tcp(443, SYN)
                .build(),
            Reason::Pass,
        ),
        ("longest chain looked through", chain(7).tcp(443, SYN).build(), Reason::Pass),
        (
            "atomic fragment",
            Packet::v6().extension(Extension::Fragment(0, false)).tcp(443, SYN).build(),
            Reason::Pass,
        ),
        ("first fragment has ports", syn().fragment(0, true).build(), Reason::Pass),
        ("later fragment", syn().fragment(3, false).build(), Reason::Fragment),
        (
            "later IPv6 fragment",
            Packet::v6().extension(Extension::Fragment(3, true)).tcp(443, SYN).build(),
            Reason::Fragment,
        ),
        (
            "later fragment of ICMP",
            Packet::v4().transport(1, &[0; 16]).fragment(3, false).build(),
            Reason::PassNotOurs,
        ),
        ("later fragment of a banned source", from(BANNED).fragment(3, false).build(), Reason::DropBanned),
        ("other port", Packet::v4().tcp(22, SYN).build(), Reason::PassNotOurs),
        ("other address", syn().to(other).build(), Reason::PassNotOurs),
        ("other IPv6 address", Packet::v6().to(other_v6).tcp(443, SYN).build(), Reason::PassNotOurs),
        ("ARP", arp, Reason::PassNotOurs),
        ("ICMP", Packet::v4().transport(1, &[8, 0, 0, 0, 0, 1, 0, 1]).build(), Reason::PassNotOurs),
        ("ESP", Packet::v6().extension(Extension::Esp).tcp(443, SYN).build(), Reason::PassNotOurs),
        ("denied", from(DENIED).build(), Reason::DropDenied),
        ("denied IPv6", v6_from("2001:db8:7::1"), Reason::DropDenied),
        ("denied elsewhere", from(DENIED).tcp(22, SYN).build(), Reason::PassNotOurs),
        ("allowed inside denied", from(ALLOWED).build(), Reason::PassAllowed),
        ("allowed IPv6", v6_from("2001:db8:8::1"), Reason::PassAllowed),
        ("trusted inside denied", from(TRUSTED).build(), Reason::PassTrusted),
        ("trusted IPv6", v6_from("2001:db8:9::1"), Reason::PassTrusted),
        ("banned", from(BANNED).build(), Reason::DropBanned),
        ("banned elsewhere", from(BANNED).tcp(22, SYN).build(), Reason::PassNotOurs),
        ("in debt, new connection", from(IN_DEBT).build(), Reason::DropConnectionRate),
        ("in debt, open connection", from(IN_DEBT).tcp(443, ACK).build(), Reason::PassEstablished),
        ("too many packets", from(NOISY).tcp(443, ACK).build(), Reason::DropPacketRate),
        ("cut VLAN tag", cut(&syn().vlan(0x8100, 7), 16), Reason::MalformedVlan),
        ("cut IPv4", cut(&syn(), 33), Reason::MalformedIpv4),
        ("IPv4 header of 16 bytes", bad_ihl, Reason::MalformedIpv4),
        ("IPv6 under the IPv4 type", wrong_version, Reason::MalformedIpv4),
        ("IPv4 under the IPv6 type", wrong_version_v6, Reason::MalformedIpv6),
        ("cut IPv6", cut(&Packet::v6().tcp(443, SYN), 53), Reason::MalformedIpv6),
        ("cut extension header", cut(&chain(1).tcp(443, SYN), 14 + 40 + 7), Reason::MalformedIpv6),
        ("TCP without ports", cut(&syn(), 14 + 20 + 3), Reason::MalformedTcp),
        ("UDP without ports", cut(&Packet::v4().udp(443, 0), 14 + 20 + 3), Reason::MalformedUdp),
        ("cut TCP", cut(&syn(), 14 + 20 + 19), Reason::DropMalformedTcp),
        ("TCP header of 16 bytes", short_tcp, Reason::DropMalformedTcp),
        ("cut UDP", cut(&Packet::v4().udp(443, 0), 14 + 20 + 7), Reason::DropMalformedUdp),
        ("UDP length of 7", short_udp, Reason::DropMalformedUdp),
        ("chain too long", chain(9).tcp(443, SYN).build(), Reason::DropExtensionChain),
    ]
}

#[test]
fn every_fixture_has_its_reason_and_action() {
    privileged!();
    let run = gateway();
    for (name, packet, expected) in fixtures() {
        let action = if expected.drops_packet() { XDP_DROP } else { XDP_PASS };
        assert_eq!(verdict(&run, &packet), (expected, action), "{name}");
    }
}

#[test]
fn shadow_mode_counts_the_same_and_drops_nothing() {
    privileged!();
    let mut run = gateway();
    run.kernel.set_limits(&Limits { packets: WIDE, connections: WIDE, shadow: true, ..Limits::default() });
    for (name, packet, expected) in fixtures() {
        let reason = expected.shadow().unwrap_or(expected);
        assert_eq!(verdict(&run, &packet), (reason, XDP_PASS), "{name}");
    }
}

/// Together with the fixtures, no kernel reason is without a test.
#[test]
fn fixtures_cover_every_reason() {
    let elsewhere = [
        // BPF_PROG_TEST_RUN takes no frame below 14 bytes.
        Reason::MalformedEthernet,
        // `concurrent_charges_are_exact` bounds how often.
        Reason::PassContended,
        // `a_dead_gateway_passes_everything`.
        Reason::DeadGateway,
        // `kernel_sources.rs`.
        Reason::PassRetried,
        Reason::DropAggregateRate,
        Reason::DropUnknownRate,
        Reason::DropRuleRate,
        Reason::ShadowAggregateRate,
        Reason::ShadowUnknownRate,
        Reason::ShadowRuleRate,
        // `without_an_address_of_ours_a_long_chain_passes`.
        Reason::ExtensionChainTooLong,
    ];
    let fixtures = fixtures();
    let mut covered: BTreeSet<Reason> = fixtures.iter().map(|(_, _, reason)| *reason).collect();
    covered.extend(fixtures.iter().filter_map(|(_, _, reason)| reason.shadow()));
    covered.extend(elsewhere);
    let kernel: BTreeSet<Reason> = Reason::ALL[..Reason::KERNEL_COUNT].iter().copied().collect();
    assert_eq!(kernel.difference(&covered).collect::<Vec<_>>(), Vec::<&Reason>::new());
}

#[test]
fn a_dead_gateway_passes_everything() {
    privileged!();
    let mut run = gateway();
    let limits = Limits { packets: WIDE, connections: WIDE, dead_after_ns: SECOND, ..Limits::default() };
    run.kernel.set_limits(&limits);
    run.kernel.heartbeat(Kernel::now() - 2 * SECOND);
    for source in [DENIED, BANNED, IN_DEBT, NOISY] {
        assert_eq!(verdict(&run, &from(source).build()), (Reason::DeadGateway, XDP_PASS));
    }
    assert_eq!(verdict(&run, &syn().tcp(22, SYN).build()).0, Reason::PassNotOurs);
    run.kernel.heartbeat(Kernel::now());
    assert_eq!(verdict(&run, &from(BANNED).build()), (Reason::DropBanned, XDP_DROP));
}

#[test]
fn without_an_address_of_ours_a_long_chain_passes() {
    privileged!();
    let mut run = gateway();
    let address = "2001:db8:ff::2".parse().expect("an address");
    run.kernel
        .sync_listeners(&[Listener { address, port: 443, protocol: Protocol::Tcp }])
        .expect("listeners");
    assert_eq!(verdict(&run, &chain(9).tcp(443, SYN).build()), (Reason::ExtensionChainTooLong, XDP_PASS));
    assert_eq!(verdict(&run, &syn().build()).0, Reason::PassNotOurs, "the old listeners are gone");
    assert_eq!(verdict(&run, &syn().fragment(3, false).build()).0, Reason::PassNotOurs);
}

#[test]
fn lists_change_while_running() {
    privileged!();
    let mut run = gateway();
    let net = |text: &str| text.parse().expect("a prefix");
    run.kernel
        .sync_lists(&Lists { deny: vec![net("192.0.2.0/24"), net("2001:db8:1::/48")], ..Lists::default() })
        .expect("lists");
    assert_eq!(verdict(&run, &syn().build()).0, Reason::DropDenied);
    assert_eq!(verdict(&run, &Packet::v6().tcp(443, SYN).build()).0, Reason::DropDenied);
    assert_eq!(verdict(&run, &from(DENIED).build()).0, Reason::Pass);
    run.kernel.sync_lists(&Lists::default()).expect("lists");
    assert_eq!(verdict(&run, &syn().build()).0, Reason::Pass);
}

/// Whatever is cut off, there is a verdict, and no cut lets a refused source through to a listener's port.
#[test]
fn every_truncation_has_a_verdict() {
    privileged!();
    let run = gateway();
    let harmless = [
        Reason::MalformedVlan,
        Reason::MalformedIpv4,
        Reason::MalformedIpv6,
        Reason::MalformedTcp,
        Reason::MalformedUdp,
    ];
    for (name, packet, expected) in fixtures() {
        for length in 14..packet.len() {
            let (reason, _) = verdict(&run, &packet[..length]);
            let fine = reason == expected || reason.drops_packet() || harmless.contains(&reason);
            assert!(fine || expected == Reason::PassNotOurs, "{name} cut to {length}: {reason:?}");
        }
    }
}

/// Mutated frames: an answer for each, exactly one reason each.
#[test]
fn mutated_frames_are_counted_exactly_once() {
    privileged!();
    let run = gateway();
    let seeds: Vec<Vec<u8>> = fixtures().into_iter().map(|(_, packet, _)| packet).collect();
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let total = |run: &TestRun| run.kernel.counters().expect("counters").iter().sum::<u64>();
    let before = total(&run);
    const RUNS: u64 = 30_000;
    for _ in 0..RUNS {
        let mut frame = seeds[random() as usize % seeds.len()].clone();
        for _ in 0..1 + random() % 4 {
            let at = 12 + random() as usize % (frame.len() - 12);
            frame[at] = random() as u8;
        }
        frame.truncate((14 + random() as usize % frame.len()).min(frame.len()));
        let outcome = run.run(Entry::Product, &frame, 1).expect("a run");
        assert!(matches!(outcome.action, XDP_PASS | XDP_DROP));
    }
    assert_eq!(total(&run) - before, RUNS);
}

#[test]
fn both_sides_charge_one_word() {
    privileged!();
    let mut run = gateway();
    // Nothing comes back within the test, however slow the machine is.
    let rate = Rate { interval_ns: HOUR, burst_ns: 6 * HOUR };
    run.kernel.set_limits(&Limits { packets: Rate::UNLIMITED, connections: rate, ..Limits::default() });
    let source = Ipv4Addr::new(192, 0, 2, 9);
    let charge_here = || {
        let now = Kernel::now();
        with_set(&run, source, |set, key| {
            charge(&find_or_take(set, key, now).request_tat, now, rate, 1).conforms()
        })
    };
    // Six tokens between them, three each, and then neither gets another.
    for _ in 0..3 {
        assert_eq!(verdict(&run, &syn().build()).0, Reason::Pass);
        assert!(charge_here());
    }
    assert_eq!(verdict(&run, &syn().build()).0, Reason::DropConnectionRate);
    assert!(!charge_here());
    // An IPv6 source shares its /64 and nothing more.
    let v6 = |text: &str| Packet::v6().from(text.parse().expect("an address")).tcp(443, SYN).build();
    for host in 1..=6 {
        assert_eq!(verdict(&run, &v6(&format!("2001:db8:5::{host}"))).0, Reason::Pass);
    }
    assert_eq!(verdict(&run, &v6("2001:db8:5:0:ffff::1")).0, Reason::DropConnectionRate);
    assert_eq!(verdict(&run, &v6("2001:db8:5:1::1")).0, Reason::Pass);
    let key = key_v6("2001:db8:5::".parse::<std::net::Ipv6Addr>().expect("an address").octets());
    let table = run.kernel.table();
    assert!(find(&table[set_index(key, &run.kernel.secret(), table.len())], key).is_some());
}

/// XDP on one CPU and this process on the other charge one word: it moves by exactly what both were told.
#[test]
fn concurrent_charges_are_exact() {
    privileged!();
    let mut run = gateway();
    const CHARGES: u32 = 2_000_000;
    // One ns a charge and no end to the burst, so that the word counts charges.
    let rate = Rate { interval_ns: 1, burst_ns: u64::MAX / 2 };
    run.kernel.set_limits(&Limits { packets: Rate::UNLIMITED, connections: rate, ..Limits::default() });
    let source = Ipv4Addr::new(192, 0, 2, 9);
    let start = Kernel::now() + HOUR;
    with_set(&run, source, |set, key| {
        let word = &find_or_take(set, key, Kernel::now()).request_tat;
        word.store(start, Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..CHARGES {
                    assert!(charge(word, Kernel::now(), rate, 1).conforms());
                }
            });
            run.run(Entry::Product, &syn().build(), CHARGES).expect("a run");
        });
        let counters = run.kernel.counters().expect("counters");
        let uncharged = counters[Reason::PassContended as usize];
        assert_eq!(counters[Reason::Pass as usize] + uncharged, u64::from(CHARGES));
        assert_eq!(word.load(Relaxed) - start, u64::from(CHARGES) * 2 - uncharged);
        assert!(uncharged < 100, "{uncharged} packets lost every try");
    });
}

/// The limit holds on both clocks, to the token.
#[test]
fn one_source_gets_its_rate_on_either_clock() {
    privileged!();
    for coarse in [false, true] {
        let mut run = gateway();
        // A burst of some seconds: on a busy machine this thread is away for that long.
        let rate = Rate::per_second(5_000, 25_000);
        run.kernel.set_limits(&Limits { packets: rate, connections: Rate::UNLIMITED, ..Limits::default() });
        run.coarse_clock(coarse);
        let packet = Packet::v4().tcp(443, ACK).build();
        let passed =
            |run: &TestRun| run.kernel.counters().expect("counters")[Reason::PassEstablished as usize];
        // Each run empties the bucket at some time between its begin and its end, which on a busy machine may be apart.
        let until = |deadline: u64| {
            loop {
                let begun = Kernel::now();
                run.run(Entry::Product, &packet, 20_000).expect("a run");
                let ended = Kernel::now();
                if ended >= deadline {
                    return (begun, ended);
                }
            }
        };
        let first = until(Kernel::now() + SECOND / 2);
        let before = passed(&run);
        let last = until(first.1 + 2 * SECOND);
        let passed = passed(&run) - before;
        // The coarse clock may be late by some ticks.
        let late = if coarse { 4 * TICK_MAX } else { 0 };
        let (least, most) = (last.0 - first.1 - late, last.1 - first.0 + late);
        let (least, most) = (least / rate.interval_ns - 1, most / rate.interval_ns + 1);
        assert!((least..=most).contains(&passed), "coarse {coarse}: {passed}, not {least} to {most}");
    }
}

/// The longest tick that Linux offers.
const TICK_MAX: u64 = 10_000_000;

/// 20 M packets from random sources leave 10,000 throttled sources throttled.
#[test]
fn a_spoofed_flood_does_not_wash_out_debts() {
    privileged!();
    const THROTTLED: u32 = 10_000;
    const FLOOD: u32 = 20_000_000;
    // Four ways each: a million sources, 32 MiB.
    let mut run =
        TestRun::load(&Settings { sets: 1 << 18, ..Settings::default() }).expect("the program loads");
    let address = Ipv4Addr::UNSPECIFIED.into();
    run.kernel
        .sync_listeners(&[Listener { address, port: 443, protocol: Protocol::Tcp }])
        .expect("listeners");
    // Slow enough that the flood's own debts fill most of the table.
    let rate = Rate::per_second(10, 20);
    run.kernel.set_limits(&Limits { packets: rate, connections: rate, ..Limits::default() });

    let throttled = |i: u32| Ipv4Addr::from(0xc000_0000 + i * 7919);
    let now = Kernel::now();
    for i in 0..THROTTLED {
        with_set(&run, throttled(i), |set, key| {
            penalize(&find_or_take(set, key, now).request_tat, now, 600 * SECOND, 600 * SECOND);
        });
    }
    run.random_sources(u32::MAX, 0x9e37_79b9).expect("the scrambler");
    run.run(Entry::RandomSources, &syn().build(), FLOOD).expect("the flood");
    let counters = run.kernel.counters().expect("counters");
    assert_eq!(counters.iter().sum::<u64>(), u64::from(FLOOD));
    assert!(
        counters[Reason::Pass as usize] > u64::from(FLOOD) * 9 / 10,
        "the flood was a flood: {counters:?}"
    );

    let deep = |i: u32| {
        with_set(&run, throttled(i), |set, key| {
            find(set, key).is_some_and(|way| way.request_tat.load(Relaxed) > Kernel::now() + 60 * SECOND)
        })
    };
    let kept = (0..THROTTLED).filter(|i| deep(*i)).count();
    println!("{kept} of {THROTTLED} throttled sources are still throttled");
    assert!(kept as u32 * 100 >= THROTTLED * 99, "{kept} of {THROTTLED}");
    // And the program says so too.
    let refused = (0..THROTTLED).step_by(50).filter(|i| {
        let packet = syn().from(throttled(*i).into()).build();
        verdict(&run, &packet) == (Reason::DropConnectionRate, XDP_DROP)
    });
    assert!(refused.count() >= 198);
}

/// The scrambler is inert unless a fixture arms it, so it could do no harm even if it were attached.
#[test]
fn the_scrambler_does_nothing_unarmed() {
    privileged!();
    let mut run = gateway();
    run.also(Entry::RandomSources).expect("the program loads");
    run.run(Entry::RandomSources, &from(DENIED).build(), 1_000).expect("a run");
    assert_eq!(run.kernel.counters().expect("counters")[Reason::DropDenied as usize], 1_000);
}

/// Older verifiers prune otherwise than this machine's: a good half of the allowance leaves them room.
#[test]
fn the_verifier_walks_less_than_half_of_what_it_allows() {
    privileged!();
    let mut run = gateway();
    run.also(Entry::Frags).expect("the program loads");
    // Older verifiers see less often that they were there before: four times as much in 6.1.
    let allowed = if linux() < (6, 6) { 850_000 } else { 450_000 };
    for entry in [Entry::Product, Entry::Frags] {
        let Some(walked) = run.verified_instructions(entry).expect("program info") else { return };
        println!("{entry:?}: {walked} instructions verified");
        assert!(walked < allowed, "{entry:?}: {walked} of {allowed}");
    }
}

/// Major and minor version of the kernel.
fn linux() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
