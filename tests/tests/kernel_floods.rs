//! Floods out of trafgen on a veth pair: tagged frames, fragments, IPv6, headers that go on and on. Every packet that was
//! sent is in the ledger under one reason, and what passed and what was dropped add up, exactly.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use portcullis::kernel::{Kernel, Limits, Listener, Lists, Mode, NamedList, Settings, detach};
use portcullis_abi::{Protocol, Rate, Reason};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::netns::{Lab, VETH};
use portcullis_tests::packet::{Extension, Packet, SYN};
use portcullis_tests::privileged;

const SERVER_V4: &str = "10.77.0.2";
const SERVER_V6: &str = "fd77::2";
const GATE: u16 = 8443;
/// Packets of one flood.
const FLOOD: u64 = 20_000;

/// So many at once, and then nothing within a test.
const fn burst(tokens: u64) -> Rate {
    Rate::new(1, 3_600_000_000_000, tokens)
}

struct Site {
    lab: Lab,
    pins: PathBuf,
    kernel: Kernel,
}

impl Site {
    fn new(limits: &Limits, lists: &Lists) -> Site {
        let lab = Lab::new().expect("namespaces");
        let pins = PathBuf::from(format!("/sys/fs/bpf/portcullis-floods-{}", std::process::id()));
        let settings = Settings {
            mode: Mode::Native,
            interfaces: vec![VETH.into()],
            pin_root: pins.clone(),
            sets: 1 << 12,
            ..Settings::default()
        };
        let kernel = lab.in_server(|| {
            let mut kernel = Kernel::load(&settings).expect("the program loads");
            let listener = |address: &str| Listener {
                address: address.parse().expect("an address"),
                port: GATE,
                protocol: Protocol::Tcp,
            };
            kernel.sync_listeners(&[listener(SERVER_V4), listener(SERVER_V6)]).expect("listeners");
            kernel.sync_lists(lists).expect("lists");
            kernel.set_limits(limits);
            kernel.heartbeat(Kernel::now());
            kernel.attach().expect("attaching");
            kernel
        });
        Site { lab, pins, kernel }
    }

    fn counters(&self) -> Vec<u64> {
        self.kernel.counters().expect("counters").to_vec()
    }

    /// Frames that the client's end of the link could not put into the ring.
    fn lost(&self) -> u64 {
        let text = self.lab.client_ip(&["-s", "-j", "link", "show", VETH]).expect("statistics");
        let told: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        told[0]["stats64"]["tx"]["dropped"].as_u64().expect("a number")
    }

    /// Sends `FLOOD` frames; `random` bytes from `at` on are others in each. What was counted, by reason, without those
    /// under reasons that the machines' own chatter has (they are not ours).
    fn flood(&self, frame: &[u8], at: usize, random: usize) -> Vec<(Reason, u64)> {
        let bytes = |part: &[u8]| part.iter().map(|byte| format!("0x{byte:02x},")).collect::<String>();
        let (head, tail) = (&frame[..at], &frame[at + random..]);
        let random = if random == 0 { String::new() } else { format!("drnd({random}),") };
        let packet = format!("{{ {}{random}{} }}", bytes(head), bytes(tail).trim_end_matches(','));
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("flood.cfg");
        std::fs::write(&config, packet).expect("writing");
        let (before, lost) = (self.counters(), self.lost());
        let output = self.lab.in_client(|| {
            let mut trafgen = Command::new("trafgen");
            trafgen.args(["--dev", VETH, "--cpus", "1", "--rate", "20000pps", "--no-sock-mem"]);
            trafgen.args(["--notouch-irq", "--num", &FLOOD.to_string(), "--conf"]).arg(&config);
            trafgen.stdin(Stdio::null()).output().expect("trafgen")
        });
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut counted = Vec::new();
        eventually("every packet in the ledger", || {
            let after = self.counters();
            let grown = |reason: &Reason| after[*reason as usize] - before[*reason as usize];
            let chatter = |reason: &Reason| *reason == Reason::PassNotOurs;
            let known = Reason::ALL.iter().copied().filter(|reason| !chatter(reason));
            counted = known.map(|reason| (reason, grown(&reason))).filter(|(_, count)| *count > 0).collect();
            let sum: u64 = counted.iter().map(|(_, count)| count).sum();
            let sent = FLOOD - (self.lost() - lost);
            holds(sum == sent, format!("{sum} of {sent}: {counted:?}"))
        });
        println!("{counted:?}");
        counted
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = detach(&self.pins);
        let _ = std::fs::remove_dir_all(&self.pins);
    }
}

fn of(counted: &[(Reason, u64)], reason: Reason) -> u64 {
    counted.iter().find(|(known, _)| *known == reason).map_or(0, |(_, count)| *count)
}

/// The server's link address, which a frame has to bear to be taken.
fn framed(mut frame: Vec<u8>) -> Vec<u8> {
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    frame
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn floods_of_every_shape_are_counted_to_the_packet() {
    privileged!();
    if Command::new("trafgen").arg("--version").stdout(Stdio::null()).status().is_err() {
        assert!(std::env::var_os("PORTCULLIS_TESTS_REQUIRE_ALL").is_none(), "trafgen is missing");
        eprintln!("SKIPPED: needs trafgen (Debian: netsniff-ng)");
        return;
    }
    let limits = Limits {
        packets: burst(500),
        connections: burst(100),
        v4_net: burst(1_000_000),
        v6_net: burst(300),
        unknown: burst(5_000),
        resets: burst(700),
        ..Limits::default()
    };
    let lists = Lists { deny: vec!["198.19.0.0/16".parse().expect("a prefix")], ..Lists::default() };
    let mut site = Site::new(&limits, &lists);
    let server = |source: &str| {
        let target = if source.contains(':') { SERVER_V6 } else { SERVER_V4 };
        Packet::between(ip(source), ip(target))
    };
    const V4_SOURCE: usize = 14 + 12;
    const V6_SOURCE: usize = 14 + 8;

    // One source, two tags: its connections up to the burst, then none.
    let tagged = server("198.18.0.1").vlan(0x88a8, 5).vlan(0x8100, 7).tcp(GATE, SYN).build();
    let counted = site.flood(&framed(tagged), 0, 0);
    assert_eq!(of(&counted, Reason::Pass), 100, "{counted:?}");
    // What that drops is charged no packet, so the limit of those is not met.
    let dropped = of(&counted, Reason::DropConnectionRate);
    assert!(counted.len() == 2 && dropped >= FLOOD * 9 / 10, "{counted:?}");

    // Later fragments have no port: the packet limit holds them.
    let fragment = server("198.18.0.2").fragment(100, true).payload(&[0; 64]).build();
    let counted = site.flood(&framed(fragment), 0, 0);
    assert_eq!(of(&counted, Reason::Fragment), 500, "{counted:?}");
    assert!(counted.len() == 2 && of(&counted, Reason::DropPacketRate) > 0, "{counted:?}");

    // First fragments have one, and are SYNs like others.
    let first = server("198.18.0.3").fragment(0, true).tcp(GATE, SYN).build();
    let counted = site.flood(&framed(first), 0, 0);
    assert_eq!(of(&counted, Reason::Pass), 100, "{counted:?}");

    // Every frame from another host of a /48: the network's limit, whatever the host.
    let syn = framed(server("2001:db8:5::1").tcp(GATE, SYN).build());
    let counted = site.flood(&syn, V6_SOURCE + 6, 8);
    assert_eq!(of(&counted, Reason::Pass), 300, "{counted:?}");
    assert!(of(&counted, Reason::DropAggregateRate) >= FLOOD * 9 / 10, "{counted:?}");

    // From all over: the limit of the unknown together.
    let syn = framed(server("11.0.0.1").tcp(GATE, SYN).build());
    let counted = site.flood(&syn, V4_SOURCE + 1, 3);
    let passed = of(&counted, Reason::Pass) + of(&counted, Reason::PassContended);
    assert!((3_000..=5_000).contains(&passed), "{counted:?}");
    assert!(of(&counted, Reason::DropUnknownRate) >= FLOOD / 2, "{counted:?}");

    // A denied network, hosts at random: no limit has a say.
    let syn = framed(server("198.19.0.1").tcp(GATE, SYN).build());
    let counted = site.flood(&syn, V4_SOURCE + 2, 2);
    assert_eq!(counted.first().map(|(reason, _)| *reason), Some(Reason::DropDenied), "{counted:?}");
    assert_eq!(counted.len(), 1, "{counted:?}");

    // The same, answered: every packet is under its reason, whether or not a reset was left for it.
    let deny = NamedList {
        name: "told".into(),
        prefixes: ["198.19.0.0/16".parse().expect("a prefix")].into(),
        allows: false,
        shadow: false,
        reset: true,
    };
    site.kernel.sync_lists(&Lists { named: vec![deny], ..Lists::default() }).expect("lists");
    let counted = site.flood(&syn, V4_SOURCE + 2, 2);
    assert_eq!(counted.first().map(|(reason, _)| *reason), Some(Reason::DropDenied), "{counted:?}");
    assert_eq!(counted.len(), 1, "{counted:?}");
    assert_eq!(site.kernel.facts(Kernel::now()).resets_sent, 700);

    // More extension headers than anybody needs.
    let mut chain = server("2001:db8:6::1");
    for _ in 0..9 {
        chain = chain.extension(Extension::Destination(1));
    }
    let counted = site.flood(&framed(chain.tcp(GATE, SYN).build()), 0, 0);
    assert_eq!(counted.first().map(|(reason, _)| *reason), Some(Reason::DropExtensionChain), "{counted:?}");
    assert_eq!(counted.len(), 1, "{counted:?}");
}
