//! The kernel part under real traffic: veth pairs between network namespaces, native and generic.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use portcullis::kernel::{
    Attachment, Kernel, KernelError, Limits, Listener, Lists, Mode, Settings, detach, pinned,
};
use portcullis_abi::{Protocol, Rate, Reason, find_or_take, key_v4, set_index};
use portcullis_tests::netns::{Forger, Lab, VETH};
use portcullis_tests::packet::{Packet, SYN};
use portcullis_tests::privileged;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// No host has it; packets from it are forged by the client's side.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(10, 77, 9, 9);

/// Ours, and one that is not.
const GATE: u16 = 8443;
const SSH_LIKE: u16 = 2222;

/// A pin directory that goes with the value, and every link under it.
struct Pins(PathBuf);

impl Pins {
    fn new() -> Pins {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("portcullis-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        Pins(PathBuf::from("/sys/fs/bpf").join(name))
    }

    fn settings(&self, mode: Mode, interface: &str) -> Settings {
        let interfaces = vec![interface.to_owned()];
        Settings { mode, interfaces, pin_root: self.0.clone(), sets: 1 << 10, ..Settings::default() }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = detach(&self.0) {
            eprintln!("{error}");
        }
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("leaving {} behind: {error}", self.0.display());
        }
    }
}

/// Loads, fills and attaches, as the gateway does at its start.
fn start(settings: &Settings, limits: &Limits) -> (Kernel, Vec<Attachment>) {
    let mut kernel = Kernel::load(settings).expect("the program loads");
    let any = |address: &str, protocol| Listener {
        address: address.parse().expect("an address"),
        port: GATE,
        protocol,
    };
    let listeners = [any("0.0.0.0", Protocol::Tcp), any("0.0.0.0", Protocol::Udp), any("::", Protocol::Tcp)];
    kernel.sync_listeners(&listeners).expect("listeners");
    kernel.sync_lists(&Lists::default()).expect("lists");
    kernel.set_limits(limits);
    kernel.heartbeat(Kernel::now());
    let attachments = kernel.attach().expect("attaching");
    (kernel, attachments)
}

fn count(kernel: &Kernel, reason: Reason) -> u64 {
    kernel.counters().expect("counters")[reason as usize]
}

/// Sets a flag at the end of its scope, by whichever way: a failed assertion must not leave threads running
/// that the scope then waits for.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Answers four bytes with the same four, on every connection, until told to stop.
fn echo(address: SocketAddr, stop: &AtomicBool) {
    let listener = TcpListener::bind(address).expect("binding");
    listener.set_nonblocking(true).expect("nonblocking");
    while !stop.load(Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::park_timeout(Duration::from_micros(200));
            continue;
        };
        let _ = stream.set_nonblocking(false);
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let mut bytes = [0; 4];
        if stream.read_exact(&mut bytes).is_ok() {
            let _ = stream.write_all(&bytes);
        }
    }
}

/// One request on a new connection.
fn request(address: SocketAddr, timeout: Duration) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(b"ping")?;
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(())
}

/// Tries until an echo server answers, so that tests start with it ready.
fn await_echo(address: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while request(address, Duration::from_secs(1)).is_err() {
        assert!(Instant::now() < deadline, "no echo server at {address}");
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(SERVER.into(), port)
}

/// The heart of it: a flood from one source is held to its limit within 1 %, and meanwhile a client on
/// another address does not lose one request, nor does a service on a port that is not ours.
#[test]
fn a_flood_is_held_to_its_limit_and_nobody_else_notices() {
    privileged!();
    let lab = Lab::new().expect("namespaces");
    let pins = Pins::new();
    // A burst of two seconds: on a busy machine the flood itself may be away for a good part of one.
    let rate = Rate::per_second(1_000, 2_000);
    let limits = Limits { packets: Rate::UNLIMITED, connections: rate, ..Limits::default() };
    let (kernel, attachments) = lab.in_server(|| start(&pins.settings(Mode::Native, VETH), &limits));
    assert_eq!(attachments[0].style.map(|style| style.as_str()), Some("native"));

    let (stop, close) = (AtomicBool::new(false), AtomicBool::new(false));
    let (gate, other) = (Honest::default(), Honest::default());
    // Servers go when the clients are done: a request in flight at the end is no failure.
    std::thread::scope(|servers| {
        let _close = AtEnd(&close);
        servers.spawn(|| lab.in_server(|| echo(at(GATE), &close)));
        servers.spawn(|| lab.in_server(|| echo(at(SSH_LIKE), &close)));
        lab.in_client(|| [GATE, SSH_LIKE].into_iter().for_each(|port| await_echo(at(port))));
        let (first, last) = std::thread::scope(|clients| {
            let _stop = AtEnd(&stop);
            clients.spawn(|| lab.in_client(|| gate.run(GATE, &stop)));
            clients.spawn(|| lab.in_client(|| other.run(SSH_LIKE, &stop)));
            clients.spawn(|| lab.in_client(|| flood(&stop)));

            // The burst first, then a window in which only the rate counts: from one moment at which the
            // source is over its limit to another.
            let first = Sample::when_limited(&kernel, &gate, 20_000);
            std::thread::park_timeout(Duration::from_secs(4));
            let last = Sample::when_limited(&kernel, &gate, 200);
            (first, last)
        });

        let admitted = (last.passed - first.passed - (last.honest - first.honest)) as f64;
        let allowed = (last.at - first.at) as f64 / rate.interval_ns as f64;
        println!("admitted {admitted} of {allowed:.0} allowed, {} dropped", last.dropped - first.dropped);
        assert!((admitted / allowed - 1.0).abs() <= 0.01, "admitted {admitted}, allowed {allowed:.0}");
    });
    for honest in [&gate, &other] {
        println!("honest client: {honest:?}");
        assert_eq!(honest.failed.load(Relaxed), 0);
        assert!(honest.begun.load(Relaxed) > 50, "it did run");
    }
}

/// A client within its limits.
#[derive(Debug, Default)]
struct Honest {
    begun: AtomicU64,
    failed: AtomicU64,
}

impl Honest {
    fn run(&self, port: u16, stop: &AtomicBool) {
        while !stop.load(Relaxed) {
            self.begun.fetch_add(1, Relaxed);
            if let Err(error) = request(at(port), Duration::from_secs(5)) {
                eprintln!("port {port}: {error}");
                self.failed.fetch_add(1, Relaxed);
            }
            std::thread::park_timeout(Duration::from_millis(4));
        }
    }
}

/// Counters at a moment at which the attacker was just refused.
struct Sample {
    at: u64,
    passed: u64,
    dropped: u64,
    honest: u64,
}

impl Sample {
    /// After `more` drops.
    fn when_limited(kernel: &Kernel, gate: &Honest, more: u64) -> Sample {
        let before = count(kernel, Reason::DropConnectionRate);
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let at = Kernel::now();
            let counters = kernel.counters().expect("counters");
            let dropped = counters[Reason::DropConnectionRate as usize];
            if dropped >= before + more {
                let passed = counters[Reason::Pass as usize];
                return Sample { at, passed, dropped, honest: gate.begun.load(Relaxed) };
            }
            assert!(Instant::now() < deadline, "no flood arrives");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

fn flood(stop: &AtomicBool) {
    let forger = Forger::open().expect("a raw socket");
    let syn = Packet::between(ATTACKER.into(), SERVER.into()).tcp(GATE, SYN).checksummed().build();
    while !stop.load(Relaxed) {
        for _ in 0..64 {
            forger.send(&syn, SERVER.into()).expect("sending");
        }
    }
}

/// Sends datagrams to the gate while `more` says so of the number sent, and returns that.
fn datagrams(more: impl Fn(u64) -> bool) -> u64 {
    let socket = UdpSocket::bind((CLIENT, 0)).expect("binding");
    let mut sent = 0;
    while more(sent) {
        match socket.send_to(&[0; 18], at(GATE)) {
            Ok(_) => sent += 1,
            // The ICMP answer to an earlier one: nobody listens there.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            Err(error) => panic!("{error}"),
        }
        if sent % 32 == 0 {
            std::thread::yield_now();
        }
    }
    sent
}

/// Frames that the veth pair itself lost, its ring being full: they reach no program.
fn lost_in_ring(lab: &Lab) -> u64 {
    let statistics = lab.client_ip(&["-s", "-j", "link", "show", VETH]).expect("statistics");
    let parsed: serde_json::Value = serde_json::from_str(&statistics).expect("json");
    parsed[0]["stats64"]["tx"]["dropped"].as_u64().expect("a number")
}

/// Restarts under traffic: every packet is seen by exactly one program, and buckets and counters go on.
#[test]
fn restarts_under_traffic_miss_no_packet() {
    privileged!();
    let lab = Lab::new().expect("namespaces");
    let pins = Pins::new();
    let settings = pins.settings(Mode::Native, VETH);
    let limits = Limits::default();
    let (kernel, _) = lab.in_server(|| start(&settings, &limits));
    assert!(!kernel.adopted_pinned_maps());
    let secret = kernel.secret();
    let debt = Kernel::now() + 3_600_000_000_000;
    let set_of =
        |kernel: &Kernel, key| &kernel.table()[set_index(key, &kernel.secret(), kernel.table().len())];
    let key = key_v4(ATTACKER.into());
    find_or_take(set_of(&kernel, key), key, Kernel::now()).request_tat.store(debt, Relaxed);

    const RESTARTS: u32 = 6;
    let done = AtomicBool::new(false);
    let mut running = Some(kernel);
    let sent = std::thread::scope(|scope| {
        let end = AtEnd(&done);
        let sender = scope.spawn(|| lab.in_client(|| datagrams(|_| !done.load(Relaxed))));
        for _ in 0..RESTARTS {
            std::thread::park_timeout(Duration::from_millis(100));
            // The old process is gone before the new one starts: only pins bridge the gap.
            running = None;
            let (next, attachments) = lab.in_server(|| start(&settings, &limits));
            assert!(attachments[0].switched, "{attachments:?}");
            assert!(next.adopted_pinned_maps());
            running = Some(next);
        }
        drop(end);
        sender.join().expect("the sender")
    });
    let kernel = running.expect("restarted");
    println!("{sent} packets over {RESTARTS} restarts");
    assert!(sent > 1_000, "there was traffic");
    assert_eq!(kernel.secret(), secret);
    assert_eq!(find_or_take(set_of(&kernel, key), key, Kernel::now()).request_tat.load(Relaxed), debt);
    let expected = sent - lost_in_ring(&lab);
    let deadline = Instant::now() + Duration::from_secs(5);
    while count(&kernel, Reason::Pass) < expected && Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert_eq!(count(&kernel, Reason::Pass), expected);
}

/// Shadow mode under the same traffic: the same count, and nothing is missing.
#[test]
fn shadow_mode_drops_nothing_under_traffic() {
    privileged!();
    const PACKETS: u64 = 2_000;
    let outcome = |shadow: bool| {
        let lab = Lab::new().expect("namespaces");
        let pins = Pins::new();
        // Nothing comes back within the test: the burst passes, the rest does not.
        let limits = Limits { packets: Rate::new(1, 3_600_000_000_000, 100), shadow, ..Limits::default() };
        let (kernel, _) = lab.in_server(|| start(&pins.settings(Mode::Native, VETH), &limits));
        let receiver = lab.in_server(|| UdpSocket::bind(at(GATE)).expect("binding"));
        receiver.set_nonblocking(true).expect("nonblocking");
        let drops = |reason| count(&kernel, reason);
        let (mut sent, mut received) = (0, 0);
        let deadline = Instant::now() + Duration::from_secs(30);
        // In lots that the receive buffer holds: what is missing then was dropped by the program. Under native XDP, the veth
        // of Linux 6.1 takes a page for each packet, of which the buffer holds 49.
        while sent < PACKETS && Instant::now() < deadline {
            sent += lab.in_client(|| datagrams(|sent| sent < 20));
            while received + drops(Reason::DropPacketRate) < sent && Instant::now() < deadline {
                while receiver.recv(&mut [0; 64]).is_ok() {
                    received += 1;
                }
            }
        }
        (received, drops(Reason::DropPacketRate), drops(Reason::ShadowPacketRate))
    };
    assert_eq!(outcome(false), (100, PACKETS - 100, 0));
    assert_eq!(outcome(true), (PACKETS, 0, PACKETS - 100));
}

/// Loopback has no native XDP: said precisely, then generic works.
#[test]
fn loopback_falls_back_to_generic() {
    privileged!();
    let lab = Lab::new().expect("namespaces");
    let pins = Pins::new();
    lab.in_server(|| {
        let mut kernel = Kernel::load(&pins.settings(Mode::Native, "lo")).expect("the program loads");
        let refusal = kernel.attach().expect_err("lo has no native XDP").to_string();
        assert!(refusal.contains("lo in native mode") && refusal.contains("no native XDP"), "{refusal}");

        let limits = Limits { packets: Rate::new(1, 3_600_000_000_000, 10), ..Limits::default() };
        let (kernel, attachments) = start(&pins.settings(Mode::Auto, "lo"), &limits);
        assert_eq!(attachments[0].style.map(|style| style.as_str()), Some("generic"));
        assert_eq!(attachments[0].refused.len(), 1, "{attachments:?}");

        let socket = UdpSocket::bind("127.0.0.1:0").expect("binding");
        for _ in 0..50 {
            let _ = socket.send_to(&[0; 18], ("127.0.0.1", GATE));
        }
        // Loopback delivers within the call.
        assert_eq!(count(&kernel, Reason::DropPacketRate), 40);
    });
}

#[test]
fn jumbo_frames_take_the_multi_buffer_program() {
    privileged!();
    let lab = Lab::new().expect("namespaces");
    lab.client_ip(&["link", "set", VETH, "mtu", "9000"]).expect("MTU");
    lab.server_ip(&["link", "set", VETH, "mtu", "9000"]).expect("MTU");
    let pins = Pins::new();
    let (kernel, attachments) =
        lab.in_server(|| start(&pins.settings(Mode::Native, VETH), &Limits::default()));
    assert_eq!(attachments[0].style.map(|style| style.as_str()), Some("native"));
    let sent = lab.in_client(|| datagrams(|sent| sent < 100));
    assert_eq!(count(&kernel, Reason::Pass), sent);
}

#[test]
fn a_second_gateway_is_told_who_is_in_the_way() {
    privileged!();
    let lab = Lab::new().expect("namespaces");
    let (first, second) = (Pins::new(), Pins::new());
    lab.in_server(|| {
        let _running = start(&first.settings(Mode::Native, VETH), &Limits::default());
        let mut late = Kernel::load(&second.settings(Mode::Native, VETH)).expect("the program loads");
        let refusal = late.attach().expect_err("the hook is taken").to_string();
        assert!(refusal.contains("another XDP program is attached"), "{refusal}");

        let mut nowhere = Kernel::load(&second.settings(Mode::Auto, "nosuch0")).expect("the program loads");
        assert!(matches!(nowhere.attach(), Err(KernelError::NoInterface { .. })));
    });
}

#[test]
fn detach_removes_the_program_and_off_does_too() {
    privileged!();
    let lab = Lab::new().expect("namespaces");
    let pins = Pins::new();
    let attached = || lab.server_ip(&["link", "show", VETH]).expect("ip").contains("xdp");
    // The kernel frees an unpinned link from a work queue, a moment later.
    let soon_detached = || {
        let deadline = Instant::now() + Duration::from_secs(5);
        while attached() && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        !attached()
    };
    lab.in_server(|| {
        // The gateway runs on: removing the pin is enough.
        let running = start(&pins.settings(Mode::Native, VETH), &Limits::default());
        assert!(attached());
        let detached = detach(&pins.0).expect("detaching");
        assert_eq!(detached.iter().map(ToString::to_string).collect::<Vec<_>>(), [format!("{VETH}: native")]);
        assert!(soon_detached());
        drop(running);

        drop(start(&pins.settings(Mode::Native, VETH), &Limits::default()));
        assert!(attached(), "the program outlives its process");
        let (_kernel, attachments) = start(&pins.settings(Mode::Off, VETH), &Limits::default());
        assert_eq!(attachments[0].style, None);
        assert!(soon_detached());
    });
}

/// Namespaces count their interfaces each for itself: a link is known by its program, and one of another namespace is
/// neither given a name from here nor taken over.
#[test]
fn a_link_of_another_namespace_is_not_taken_for_ones_own() {
    privileged!();
    let (lab, other) = (Lab::new().expect("namespaces"), Lab::new().expect("namespaces"));
    let pins = Pins::new();
    let index = |lab: &Lab| {
        let shown = lab.server_ip(&["-o", "link", "show", VETH]).expect("ip");
        shown.split(':').next().unwrap_or_default().to_owned()
    };
    assert_eq!(index(&lab), index(&other), "the case in question");
    let attached = |lab: &Lab| lab.server_ip(&["link", "show", VETH]).expect("ip").contains("xdp");
    let said = |lab: &Lab| {
        let links = lab.in_server(|| pinned(&pins.0).expect("pins"));
        links.iter().map(ToString::to_string).collect::<Vec<_>>()
    };

    let (running, _) = lab.in_server(|| start(&pins.settings(Mode::Native, VETH), &Limits::default()));
    assert_eq!(said(&lab), [format!("{VETH}: native")]);
    let elsewhere = format!("interface {} of another network namespace, or gone: native", index(&lab));
    assert_eq!(said(&other), std::slice::from_ref(&elsewhere));

    let (mut native, mut auto) = other.in_server(|| {
        let load = |mode| Kernel::load(&pins.settings(mode, VETH)).expect("the program loads");
        (load(Mode::Native), load(Mode::Auto))
    });
    let refusal = other.in_server(|| native.attach().expect_err("another's link").to_string());
    assert!(refusal.contains("another network namespace"), "{refusal}");
    let attachments = other.in_server(|| auto.attach().expect("served without"));
    assert_eq!((attachments[0].style, attachments[0].refused.len()), (None, 1));
    assert!(attached(&lab) && !attached(&other), "the first one's guard stands");
    drop((native, auto, running));

    // An interface that is gone leaves a link that holds nothing; the next of its number is attached to anew.
    lab.client_ip(&["link", "del", VETH]).expect("ip");
    assert_eq!(said(&lab), [elsewhere]);
    let (_kernel, attachments) =
        other.in_server(|| start(&pins.settings(Mode::Native, VETH), &Limits::default()));
    assert_eq!(attachments[0].style.map(|style| style.as_str()), Some("native"));
    assert!(attached(&other));
    assert_eq!(said(&other), [format!("{VETH}: native")]);
}

#[test]
fn another_table_size_replaces_the_pinned_maps_without_a_gap() {
    privileged!();
    let lab = Lab::new().expect("namespaces");
    let pins = Pins::new();
    let settings = pins.settings(Mode::Native, VETH);
    let limits = Limits::default();
    let (first, _) = lab.in_server(|| start(&settings, &limits));
    assert_eq!(first.table().len(), 1 << 10);
    let secret = first.secret();
    drop(first);

    let larger = Settings { sets: 1 << 11, ..settings };
    let (second, attachments) = lab.in_server(|| start(&larger, &limits));
    assert!(!second.adopted_pinned_maps());
    assert!(attachments[0].switched, "the link goes on");
    assert_eq!(second.table().len(), 1 << 11);
    assert_ne!(second.secret(), secret);
    lab.in_client(|| datagrams(|sent| sent < 10));
    assert_eq!(count(&second, Reason::Pass), 10, "the new program uses the new maps");
}

/// Deny, trust and IPv6 over the wire.
#[test]
fn lists_act_on_real_connections() {
    privileged!();
    let lab = Lab::new().expect("namespaces");
    let pins = Pins::new();
    let (mut kernel, _) = lab.in_server(|| start(&pins.settings(Mode::Native, VETH), &Limits::default()));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = AtEnd(&stop);
        scope.spawn(|| lab.in_server(|| echo(SocketAddr::new(IpAddr::from([0u16; 8]), GATE), &stop)));
        let gates = [at(GATE), "[fd77::2]:8443".parse().expect("an address")];
        lab.in_client(|| gates.into_iter().for_each(await_echo));
        let net = |text: &str| text.parse().expect("a prefix");
        let deny = vec![net("10.77.0.0/24"), net("fd77::/64")];
        kernel.sync_lists(&Lists { deny: deny.clone(), ..Lists::default() }).expect("lists");
        for gate in gates {
            let refused = lab.in_client(|| request(gate, Duration::from_millis(300)));
            assert!(refused.is_err(), "{gate} is denied");
        }
        let trusted = vec![net("10.77.0.1/32"), net("fd77::1/128")];
        kernel.sync_lists(&Lists { deny, trusted, ..Lists::default() }).expect("lists");
        for gate in gates {
            lab.in_client(|| request(gate, Duration::from_secs(5)))
                .expect("a trusted source is never dropped");
        }
    });
    assert!(count(&kernel, Reason::DropDenied) >= 2 && count(&kernel, Reason::PassTrusted) >= 6);
}
