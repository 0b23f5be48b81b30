//! What the XDP program costs a packet, beside xdp-tools' xdp-filter in the same minute.
//!
//! Runs as root, without an interface (BPF_PROG_TEST_RUN, which is itself about 10 ns of every figure).
//! Cases take turns, round by round, so that a noisy minute hits all of them. Prints one JSON object a
//! line: `{"case":...,"program":...,"ns_median":...,"ns_min":...,"ns_max":...,"rounds":...}`; a case that
//! cannot run prints `{"case":...,"skipped":"why"}` instead. What is no packet (editing lists, the way of a ban into the
//! kernel) is measured once, and printed as `{"figure":...,"value":...,"unit":...}`.
//!
//! Usage: `cargo bench -p portcullis-benches --bench xdp -- [ROUNDS] [PACKETS_A_ROUND]`, default 15 and 300000.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use portcullis::kernel::test_run::{Entry, Foreign, Outcome, TestRun};
use portcullis::kernel::{
    Kernel, KernelError, LimitSpec, Limits, Listener, Lists, NamedList, Promotion, Settings,
};
use portcullis_abi::{Block, Protocol, Rate, Reason, find_or_take, key_v4, set_index};

const XDP_PASS: u32 = 2;
const XDP_DROP: u32 = 1;

/// A source that no list knows, and one that the deny case's list holds.
const SOURCE: [u8; 4] = [192, 0, 2, 9];
const PORT: u16 = 443;

/// Bit of xdp-filter's map values that matches a source address (xdp-filter/common_kern_user.h).
const XDP_FILTER_SOURCE: u64 = 1;

fn main() {
    // cargo adds `--bench`.
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u32>().ok());
    let rounds = numbers.next().unwrap_or(15);
    let packets = numbers.next().unwrap_or(300_000);

    let mut cases = Vec::new();
    for (name, setup) in OURS {
        match setup() {
            Ok((run, entry, packet, action)) => cases.push(Case::ours(name, run, entry, packet, action)),
            Err(error) => skipped(name, &error.to_string()),
        }
    }
    for (name, drops) in [("xdp-filter pass", false), ("xdp-filter drop", true)] {
        match xdp_filter(drops) {
            Ok(foreign) => cases.push(Case::foreign(name, foreign, if drops { XDP_DROP } else { XDP_PASS })),
            Err(error) => skipped(name, &error),
        }
    }

    for _ in 0..rounds {
        for case in &mut cases {
            case.round(packets);
        }
    }
    for case in &mut cases {
        case.report();
    }
    if let Err(error) = edits().and_then(|()| ban_to_drop()) {
        skipped("lists and bans", &error.to_string());
    }
}

fn figure(what: &str, value: f64, unit: &str) {
    println!(r#"{{"figure":"{what}","value":{value:.3},"unit":"{unit}"}}"#);
}

/// A million prefixes put into an empty trie, then edited in place: a thousand of them changed, all of them taken out.
fn edits() -> Result<(), KernelError> {
    let mut run = loaded(OPEN, OPEN)?;
    let mut sync = |what: &str, lists: &Lists| {
        let begun = Instant::now();
        run.kernel.sync_lists(lists)?;
        figure(what, begun.elapsed().as_secs_f64() * 1e3, "ms");
        Ok::<(), KernelError>(())
    };
    let all = lists(1_000_000);
    let mut edited = lists(999_000);
    edited.deny = (0..1_000u32).map(|i| IpAddr::from(Ipv4Addr::from(0xcb00_0000 + i)).into()).collect();
    sync("a million prefixes, written", &all)?;
    sync("a thousand of them replaced", &edited)?;
    sync("nothing changed", &edited)?;
    sync("all of them removed", &Lists::default())
}

/// From the proxy's decision to the first packet that the program drops for it, the longest of many.
fn ban_to_drop() -> Result<(), KernelError> {
    let run = everything(OPEN, 0)?;
    let mut longest = Duration::ZERO;
    for round in 1..=100u64 {
        mark(&run, Block::Established { until: u64::MAX >> 1 });
        assert_eq!(run.run(Entry::Product, &packet(PORT, ACK), 1)?.action, XDP_PASS);
        let until = Kernel::now() + round * 1_000_000_000;
        let begun = Instant::now();
        mark(&run, Block::Banned { until, level: 0, reason: Reason::BadChunk, known_good: false });
        while run.run(Entry::Product, &packet(PORT, ACK), 1)?.action != XDP_DROP {}
        longest = longest.max(begun.elapsed());
    }
    figure("from a ban to the first packet dropped, the longest of 100", longest.as_secs_f64() * 1e6, "us");
    Ok(())
}

/// One thing measured.
struct Case {
    name: &'static str,
    program: &'static str,
    packet: Vec<u8>,
    action: u32,
    subject: Subject,
    samples: Vec<u128>,
    wrong: Option<u32>,
}

enum Subject {
    Ours(Box<TestRun>, Entry),
    Foreign(Foreign),
}

impl Case {
    fn ours(name: &'static str, run: TestRun, entry: Entry, packet: Vec<u8>, action: u32) -> Case {
        let subject = Subject::Ours(Box::new(run), entry);
        Case { name, program: "portcullis", packet, action, subject, samples: Vec::new(), wrong: None }
    }

    fn foreign(name: &'static str, foreign: Foreign, action: u32) -> Case {
        let subject = Subject::Foreign(foreign);
        let packet = packet(PORT, SYN);
        Case { name, program: "xdp-filter", packet, action, subject, samples: Vec::new(), wrong: None }
    }

    fn round(&mut self, packets: u32) {
        let outcome = match &self.subject {
            Subject::Ours(run, entry) => run.run(*entry, &self.packet, packets),
            Subject::Foreign(foreign) => foreign.run(&self.packet, packets),
        };
        if let Ok(Outcome { action, each }) = outcome {
            self.samples.push(each.as_nanos());
            if action != self.action {
                self.wrong = Some(action);
            }
        }
    }

    fn report(&mut self) {
        self.samples.sort_unstable();
        let (Some(min), Some(max)) = (self.samples.first(), self.samples.last()) else {
            return skipped(self.name, "every run failed");
        };
        if let Some(action) = self.wrong {
            return skipped(self.name, &format!("gave XDP action {action} instead of {}", self.action));
        }
        let median = self.samples[self.samples.len() / 2];
        println!(
            r#"{{"case":"{}","program":"{}","ns_median":{median},"ns_min":{min},"ns_max":{max},"rounds":{}}}"#,
            self.name,
            self.program,
            self.samples.len()
        );
    }
}

fn skipped(name: &str, why: &str) {
    let why: String = why
        .chars()
        .take(300)
        .map(|c| if c == '"' || c == '\\' || c.is_control() { ' ' } else { c })
        .collect();
    println!(r#"{{"case":"{name}","skipped":"{why}"}}"#);
}

type Setup = fn() -> Result<(TestRun, Entry, Vec<u8>, u32), KernelError>;

/// Every case of ours, with maps of its own: no case warms another's bucket.
const OURS: [(&str, Setup); 19] = [
    ("not ours", || Ok((loaded(OPEN, OPEN)?, Entry::Product, packet(22, ACK), XDP_PASS))),
    ("pass, new connection", || Ok((loaded(OPEN, OPEN)?, Entry::Product, packet(PORT, SYN), XDP_PASS))),
    ("pass, segment", || Ok((loaded(OPEN, OPEN)?, Entry::Product, packet(PORT, ACK), XDP_PASS))),
    ("pass, connection limit only", || {
        Ok((loaded(Rate::UNLIMITED, OPEN)?, Entry::Product, packet(PORT, SYN), XDP_PASS))
    }),
    ("pass, exact clock", || {
        let run = loaded(OPEN, OPEN)?;
        run.coarse_clock(false);
        Ok((run, Entry::Product, packet(PORT, ACK), XDP_PASS))
    }),
    ("limited, packets", || Ok((loaded(TIGHT, OPEN)?, Entry::Product, packet(PORT, ACK), XDP_DROP))),
    ("limited, new connections", || Ok((loaded(OPEN, TIGHT)?, Entry::Product, packet(PORT, SYN), XDP_DROP))),
    ("denied", || {
        let mut run = loaded(OPEN, OPEN)?;
        let deny = vec![IpAddr::from(SOURCE).into()];
        run.kernel.sync_lists(&Lists { deny, ..Lists::default() })?;
        Ok((run, Entry::Product, packet(PORT, SYN), XDP_DROP))
    }),
    ("pass, segment, everything on", || {
        Ok((everything(OPEN, 0)?, Entry::Product, packet(PORT, ACK), XDP_PASS))
    }),
    ("pass, new connection of a known source, everything on", || {
        let run = everything(OPEN, 0)?;
        mark(&run, Block::Authenticated { until: u64::MAX >> 1 });
        Ok((run, Entry::Product, packet(PORT, SYN), XDP_PASS))
    }),
    ("pass, new connection of an unknown source, everything on", || {
        Ok((everything(OPEN, 0)?, Entry::Product, packet(PORT, SYN), XDP_PASS))
    }),
    ("limited, packets, everything on", || {
        Ok((everything(TIGHT, 0)?, Entry::Product, packet(PORT, ACK), XDP_DROP))
    }),
    ("limited, new connections, everything on", || {
        let mut run = everything(OPEN, 0)?;
        run.kernel.set_limits(&Limits { connections: TIGHT, ..all(OPEN) });
        Ok((run, Entry::Product, packet(PORT, SYN), XDP_DROP))
    }),
    ("banned, everything on", || {
        let run = everything(OPEN, 0)?;
        let ban =
            Block::Banned { until: u64::MAX >> 1, level: 0, reason: Reason::BadChunk, known_good: false };
        mark(&run, ban);
        Ok((run, Entry::Product, packet(PORT, ACK), XDP_DROP))
    }),
    ("pass, segment, everything on, a million prefixes", || {
        Ok((everything(OPEN, 1_000_000)?, Entry::Product, packet(PORT, ACK), XDP_PASS))
    }),
    ("denied by one of a million prefixes", || {
        let mut run = everything(OPEN, 0)?;
        let mut lists = lists(1_000_000);
        lists.deny = vec![IpAddr::from(SOURCE).into()];
        run.kernel.sync_lists(&lists)?;
        Ok((run, Entry::Product, packet(PORT, SYN), XDP_DROP))
    }),
    ("scrambler alone", || {
        let mut run = loaded(OPEN, OPEN)?;
        run.random_sources((1 << 20) - 1, 1)?;
        Ok((run, Entry::ScrambleOnly, packet(PORT, ACK), XDP_PASS))
    }),
    ("scrambler and pass, a million sources", || {
        let mut run = loaded(OPEN, OPEN)?;
        run.random_sources((1 << 20) - 1, 1)?;
        Ok((run, Entry::RandomSources, packet(PORT, ACK), XDP_PASS))
    }),
    ("pass, multi-buffer program", || {
        let mut run = loaded(OPEN, OPEN)?;
        run.also(Entry::Frags)?;
        Ok((run, Entry::Frags, packet(PORT, ACK), XDP_PASS))
    }),
];

/// A limit that nothing reaches, and one that everything does.
const OPEN: Rate = Rate { interval_ns: 1, burst_ns: 1_000_000_000_000 };
const TIGHT: Rate = Rate { interval_ns: 10_000_000_000, burst_ns: 20_000_000_000 };

fn loaded(packets: Rate, connections: Rate) -> Result<TestRun, KernelError> {
    // Room for the million sources, four to a set.
    let mut run = TestRun::load(&Settings { sets: 1 << 18, ..Settings::default() })?;
    let address = Ipv4Addr::UNSPECIFIED.into();
    run.kernel.sync_listeners(&[Listener { address, port: PORT, protocol: Protocol::Tcp }])?;
    run.kernel.set_limits(&Limits { packets, connections, ..Limits::default() });
    Ok(run)
}

/// Every limit and switch there is, none of them reached but perhaps that of packets.
fn all(packets: Rate) -> Limits {
    Limits {
        packets,
        connections: OPEN,
        v4_net: OPEN,
        v6_net: OPEN,
        unknown: OPEN,
        promotion: Promotion { factor: 4, above_ns: 0 },
        reset_reasons: 0,
        resets: Rate::per_second(100, 100),
        samples: Rate::per_second(10, 10),
        dead_after_ns: u64::MAX >> 1,
        ..Limits::default()
    }
}

fn everything(packets: Rate, prefixes: u32) -> Result<TestRun, KernelError> {
    let mut run = loaded(packets, OPEN)?;
    run.kernel.set_limits(&all(packets));
    run.kernel.sync_lists(&lists(prefixes))?;
    Ok(run)
}

/// A rule for another port, one for other sources, and so many denied /32 elsewhere.
fn lists(prefixes: u32) -> Lists {
    let rule = |ports: &[u16], prefixes: &[&str]| LimitSpec {
        name: String::new(),
        ports: ports.iter().map(|port| *port..=*port).collect(),
        prefixes: prefixes.iter().filter_map(|text| text.parse().ok()).collect(),
        connections: OPEN,
        packets: Rate::UNLIMITED,
        shadow: false,
        reset: false,
    };
    // Spread over the space as far as a trie is concerned: an odd multiplier visits every address once.
    let address = |i: u32| Ipv4Addr::from(0x0b00_0000 | i.wrapping_mul(2_654_435_761) >> 8);
    let named = NamedList {
        name: "many".into(),
        prefixes: (0..prefixes).map(|i| IpAddr::from(address(i)).into()).collect(),
        allows: false,
        shadow: false,
        reset: false,
    };
    Lists {
        named: vec![named],
        limits: vec![rule(&[8443], &[]), rule(&[], &["198.18.0.0/15"])],
        ..Lists::default()
    }
}

fn mark(run: &TestRun, block: Block) {
    let (table, key) = (run.kernel.table(), key_v4(u32::from(Ipv4Addr::from(SOURCE))));
    let set = &table[set_index(key, &run.kernel.secret(), table.len())];
    find_or_take(set, key, Kernel::now()).block.store(block.to_word(), std::sync::atomic::Ordering::Relaxed);
}

fn xdp_filter(drops: bool) -> Result<Foreign, String> {
    let object =
        xdp_filter_object().ok_or("xdp-filter is not installed (Debian: apt-get install xdp-tools)")?;
    let pins = PathBuf::from(format!("/sys/fs/bpf/portcullis-bench-{}", std::process::id()));
    let mut foreign = Foreign::load(&object, "xdpfilt_alw_all", &pins).map_err(|error| error.to_string())?;
    if drops {
        let source = u32::from_ne_bytes(SOURCE);
        foreign.insert("filter_ipv4", source, XDP_FILTER_SOURCE).map_err(|error| error.to_string())?;
    }
    Ok(foreign)
}

fn xdp_filter_object() -> Option<PathBuf> {
    let libraries = std::fs::read_dir("/usr/lib").ok()?;
    let found = libraries.flatten().map(|entry| entry.path().join("bpf/xdpfilt_alw_all.o"));
    found.chain([Path::new("/usr/lib/bpf/xdpfilt_alw_all.o").to_owned()]).find(|path| path.exists())
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A 64-byte IPv4 TCP frame from [`SOURCE`].
fn packet(port: u16, flags: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend(SOURCE);
    frame.extend([198, 51, 100, 1]);
    frame.extend(40_000u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags]);
    frame.resize(64, 0);
    frame
}
