//! What a source does at the proxy and what becomes of it at the network card, the whole gateway in between: one bucket
//! charged by both, prices and bans, marks and promotion, floods of made-up sources, lists and resets.

use std::io;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds, within};
use portcullis_tests::gateway::Gateway;
use portcullis_tests::netns::Forger;
use portcullis_tests::packet::{Packet, SYN};
use portcullis_tests::privileged;
use portcullis_tests::site::{BAD, GOOD, PATIENCE, Site, packets};

/// Sends a wrong key on a connection of its own; `false` if none can be had.
fn guess(site: &Site, number: usize) -> bool {
    let Ok(mut connection) = site.connect(BAD) else { return false };
    let request = Request::get("/private").header("apikey", format!("guess-{number}"));
    let _ = connection.try_send(&request.bytes());
    let status = connection.try_response(false).map(|response| response.status);
    assert!(matches!(status, Ok(401 | 429) | Err(_)), "{status:?}");
    true
}

/// Credential stuffing is cut by its cost, and a client on the same link notices nothing: not one of its requests fails.
/// How long they take, before and meanwhile, is printed and not judged: other tests share this machine.
#[test]
fn stuffing_is_cut_at_the_nic_while_a_neighbour_is_served() {
    privileged!();
    let site = Site::new();
    let gateway = Gateway::start(&site.setup("enforcement: enforce, costs: {unauthorized: 3}"));
    let stop = AtomicBool::new(false);
    let attack = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    let (guesses, cut, [before, during]) = std::thread::scope(|scope| {
        let neighbour = scope.spawn(|| {
            let mut connection = site.connect(GOOD).expect("the neighbour's connection");
            let mut took = [Vec::new(), Vec::new()];
            while !stop.load(Relaxed) {
                let (asked, phase) = (Instant::now(), usize::from(attack.load(Relaxed)));
                Request::get("/").keep().send_on(&mut connection).expect(200);
                took[phase].push(asked.elapsed());
                served.fetch_add(1, Relaxed);
                std::thread::park_timeout(Duration::from_millis(5));
            }
            took
        });
        // Quiet first.
        let more = |so_far: usize| holds(served.load(Relaxed) >= so_far, "no progress");
        eventually("the neighbour's first requests", || more(200));
        attack.store(true, Relaxed);
        let quiet = served.load(Relaxed);
        let begun = Instant::now();
        let mut guesses = 0;
        while guesses < 200 && guess(&site, guesses) {
            guesses += 1;
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let cut = begun.elapsed();
        // It does not give up, and each try is dropped before the stack.
        eventually("the neighbour's requests meanwhile", || {
            let _ = site.connect(BAD);
            more(quiet + 200)
        });
        stop.store(true, Relaxed);
        (guesses, cut, neighbour.join().expect("the neighbour was served to the end"))
    });
    // Ten tokens, four for each guess, and five a second come back: at fifty a second it is over at the third.
    let p99 = |mut took: Vec<Duration>| {
        took.sort_unstable();
        took[took.len() * 99 / 100]
    };
    let served = during.len();
    println!(
        "{guesses} guesses got in, cut after {cut:?}; the neighbour was served {served} times meanwhile"
    );
    println!("99 % of its requests within {:?} before, {:?} meanwhile", p99(before), p99(during));
    assert!(guesses <= 20, "{guesses} guesses");
    assert!(packets(&gateway, "drop_connection_rate") >= 1.0);
    assert!(site.admitted(GOOD));
}

#[test]
fn bans_come_by_offence_end_by_themselves_and_grow() {
    privileged!();
    let site = Site::new();
    let more = "enforcement: enforce, bans: {triggers: {unauthorized: 6/m}, steps: [5s, 15s], decay: 1h}";
    let gateway = Gateway::start(&site.setup_with("auto", "1000/s", more));
    let mut early = site.connect(BAD).expect("a connection");
    let banned_by = |connection: &mut Connection| {
        let asked = Instant::now();
        // The connection at hand is reset while the ban holds, though nothing that it acknowledges gets in any more.
        for number in 0..40 {
            let request = Request::get("/private").header("apikey", format!("guess-{number}")).keep();
            if connection.try_send(&request.bytes()).is_err() || connection.try_response(false).is_err() {
                break;
            }
        }
        assert!(!site.admitted(BAD), "banned after {:?}", asked.elapsed());
        Instant::now()
    };
    let banned = banned_by(&mut early);
    assert!(packets(&gateway, "drop_banned") >= 1.0);
    assert!(site.admitted(GOOD), "the neighbour is not");
    eventually("the end of the first ban", || holds(site.admitted(BAD), "still banned"));
    let first = banned.elapsed();

    let mut late = site.connect(BAD).expect("a connection");
    let banned = banned_by(&mut late);
    within(Duration::from_secs(60), "the end of the second ban", || {
        holds(site.admitted(BAD), "still banned")
    });
    let second = banned.elapsed();
    println!("banned for {first:?}, then {second:?}");
    // The client sees its connection end up to a second into the ban, and two more may pass on a busy machine.
    assert!(second > Duration::from_secs(8) && second > first, "{second:?}");
    assert!(site.admitted(GOOD));
}

/// New connections and kept-alive requests of one address, on two shards, are charged to one bucket: together they get
/// what it holds.
#[test]
fn two_enforcers_give_away_one_bucket() {
    privileged!();
    const RATE: f64 = 400.0;
    let site = Site::new();
    let setup = site.setup_with(
        "auto",
        "{rate: 400/s, burst: 400}",
        "enforcement: enforce, costs: {request: 1, too_many_requests: 0}",
    );
    let gateway = Gateway::start(&setup.shards(2));
    let stop = AtomicBool::new(false);
    // The kernel counts each SYN that it let in, a retransmitted one as well.
    let syns = || packets(&gateway, "pass");
    let (tokens, seconds) = std::thread::scope(|scope| {
        scope.spawn(|| site.lab.in_client(|| knock(&stop)));
        let mut connection = site.connect(BAD).expect("the first connection");
        let mut served = 0.0;
        let mut until_limited = |served: &mut f64| loop {
            match Request::get("/").keep().send_on(&mut connection).status {
                200 => *served += 1.0,
                429 => return (Instant::now(), syns()),
                other => panic!("{other}"),
            }
        };
        let (start, syns_before) = until_limited(&mut served);
        served = 0.0;
        let (mut end, mut syns_after) = (start, syns_before);
        while end - start < Duration::from_secs(5) {
            // Asked without a pause, requests would take each token the moment it is there, and connections none.
            std::thread::sleep(Duration::from_millis(8));
            (end, syns_after) = until_limited(&mut served);
        }
        stop.store(true, Relaxed);
        println!("{served} requests, {} connections", syns_after - syns_before);
        assert!(served > 10.0 && syns_after - syns_before > 10.0, "both enforcers were at work");
        (served + syns_after - syns_before, (end - start).as_secs_f64())
    });
    let share = tokens / (RATE * seconds);
    println!("{tokens} tokens in {seconds:.3} s: {share:.4} of the rate");
    assert!((0.99..=1.01).contains(&share), "{share}");
}

/// Opens connections that nobody goes on with, a few hundred a second: whether one is let in, its sender does not wait to
/// see.
fn knock(stop: &AtomicBool) {
    let forger = Forger::open().expect("a raw socket");
    let (from, gate): (Ipv4Addr, _) = (BAD.parse().expect("an address"), Ipv4Addr::new(10, 77, 0, 2));
    for number in 0u32.. {
        if stop.load(Relaxed) {
            return;
        }
        let port = 1_024 + (number % 30_000) as u16;
        let syn = Packet::between(from.into(), gate.into()).tcp(8080, SYN).tcp_numbers(port, number, 0);
        forger.send(&syn.checksummed().build(), gate.into()).expect("sending");
        std::thread::park_timeout(Duration::from_millis(3));
    }
}

/// The shards charge by memory alone: not one bpf() call on their threads.
#[test]
fn no_bpf_call_on_the_way_of_a_request() {
    privileged!();
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: no strace");
        return;
    }
    let site = Site::new();
    let gateway = Gateway::start(&site.setup_with(
        "auto",
        "10000/s",
        "enforcement: enforce, costs: {request: 1, unauthorized: 1}",
    ));
    assert!(site.admitted(GOOD));
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).expect("the threads");
    let shards: Vec<String> = tasks
        .flatten()
        .filter(|task| {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            name.starts_with("shard")
        })
        .map(|task| task.file_name().to_string_lossy().into_owned())
        .collect();
    assert!(!shards.is_empty(), "threads called shard");
    let log = gateway.dir().join("strace");
    let mut strace = Command::new("strace");
    strace.args(["-e", "trace=bpf,accept,accept4,io_uring_enter,epoll_wait", "-o"]).arg(&log);
    for shard in &shards {
        strace.args(["-p", shard]);
    }
    let mut strace = strace.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("strace");
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("a system call that is seen", || {
        assert!(site.admitted(GOOD));
        holds(!read().is_empty(), "nothing yet")
    });
    for number in 0..30 {
        assert!(guess(&site, number) && site.admitted(GOOD));
    }
    assert!(Command::new("kill").arg(strace.id().to_string()).status().expect("kill").success());
    strace.wait().expect("the end of strace");
    let seen = read();
    let calls = seen.lines().filter(|line| line.contains("bpf(")).collect::<Vec<_>>();
    assert!(calls.is_empty(), "{calls:?}");
    assert!(seen.lines().count() > 30, "it did watch: {seen}");
}

/// Under a flood of made-up sources a known client goes on connecting, and an unknown one gets in by trying again.
#[test]
fn a_spoofed_flood_closes_no_door_to_the_known() {
    privileged!();
    let site = Site::new();
    let strangers: Vec<String> = (1..=5).map(|number| format!("10.77.2.{number}")).collect();
    for stranger in &strangers {
        site.lab.client_ip(&["addr", "add", &format!("{stranger}/16"), "dev", "veth0"]).expect("an address");
    }
    let more = "enforcement: enforce, aggregates: {unknown: {rate: 20/s, burst: 20}}";
    let gateway = Gateway::start(&site.setup_with("auto", "1000/s", more));
    assert!(site.admitted(GOOD), "known from here on");
    let stop = AtomicBool::new(false);
    let (tries, admitted) = std::thread::scope(|scope| {
        scope.spawn(|| site.lab.in_client(|| flood(&stop)));
        eventually("a flood over its limit", || {
            let dropped = packets(&gateway, "drop_unknown_rate");
            holds(dropped > 1_000.0, format!("{dropped} dropped"))
        });
        let (mut tries, mut admitted) = (0, 0);
        while tries < 100 {
            tries += 1;
            admitted += usize::from(site.connect(GOOD).is_ok());
        }
        // A busy machine holds the flood up now and then, which leaves a token to whoever comes at that moment: then it is the
        // next one who shows that trying again helps.
        for stranger in &strangers {
            let begun = Instant::now();
            let connected = site.lab.in_client(|| connect_patiently(stranger));
            println!("{stranger} got in after {:?}", begun.elapsed());
            connected.expect("an unknown client gets in within its retries");
            if packets(&gateway, "pass_retried") >= 1.0 {
                break;
            }
        }
        stop.store(true, Relaxed);
        (tries, admitted)
    });
    let dropped = packets(&gateway, "drop_unknown_rate");
    println!("{admitted} of {tries} connections of a known client, {dropped} made-up ones dropped");
    assert!(admitted >= 99, "{admitted} of {tries}");
    assert!(packets(&gateway, "pass_retried") >= 1.0, "nobody got in by trying again");
}

/// Waits until what a request has shown of its source is noted: that comes after its answer.
fn await_mark(gateway: &Gateway, source: &str) {
    eventually("the mark of a request", || {
        let said = gateway.order(&["why", source]).0;
        holds(said.contains("mark: "), said)
    });
}

/// SYNs from sources all over, as fast as it goes.
fn flood(stop: &AtomicBool) {
    let forger = Forger::open().expect("a raw socket");
    let gate = Ipv4Addr::new(10, 77, 0, 2);
    let mut state = 0x2545_f491_4f6c_dd1du64;
    while !stop.load(Relaxed) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let source = Ipv4Addr::from((state >> 16) as u32 & 0x7fff_ffff | 0x0100_0000);
        let syn = Packet::between(source.into(), gate.into()).tcp(8080, SYN).tcp_numbers(
            1_024 + (state >> 48) as u16 / 2,
            state as u32,
            0,
        );
        forger.send(&syn.checksummed().build(), gate.into()).expect("sending");
    }
}

/// As an ordinary client, who waits for the stack's retransmissions.
fn connect_patiently(from: &str) -> io::Result<()> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let source: std::net::SocketAddr = format!("{from}:0").parse().expect("an address");
    let gate: std::net::SocketAddr = portcullis_tests::site::GATE.parse().expect("an address");
    socket.bind(&source.into())?;
    socket.connect_timeout(&gate.into(), Duration::from_secs(60))
}

#[test]
fn a_valid_key_lifts_the_limit_of_its_address_and_no_more() {
    privileged!();
    let site = Site::new();
    let more = "enforcement: enforce, promotion: {factor: 4, for: 10m}";
    let gateway = Gateway::start(&site.setup_with("auto", "{rate: 1/m, burst: 10}", more));
    // One that is not answered in time on a busy machine was let in all the same, unless the program says that it was not.
    let admitted = |source| {
        let dropped = || packets(&gateway, "drop_connection_rate");
        let before = dropped();
        (0..60).take_while(|_| site.connect(source).is_ok() || dropped() == before).count()
    };
    let mut connection = site.connect(GOOD).expect("the first connection");
    Request::get("/private").header("apikey", "open-sesame").send_on(&mut connection).expect(200);
    await_mark(&gateway, GOOD);
    // One token for the first connection, and the rest at a quarter of the price.
    let (promoted, plain) = (admitted(GOOD), admitted(BAD));
    println!("{promoted} connections with a key, {plain} without");
    assert_eq!(plain, 10);
    // A SYN that is sent again on a busy machine costs its part as well.
    assert!((30..=37).contains(&promoted), "{promoted}");
    assert!(packets(&gateway, "drop_connection_rate") >= 2.0);
    eventually("the count of those with keys that the limit hits", || {
        let labels = [("reason", "drop_connection_rate"), ("outcome", "dropped")];
        let hit = gateway.metrics().series().any(|(name, value)| {
            name.starts_with("portcullis_xdp_known_good_sources{")
                && labels.iter().all(|(label, wanted)| name.contains(&format!("{label}={wanted:?}")))
                && value == 1.0
        });
        holds(hit, "not counted yet")
    });
}

/// One key from a dozen addresses that all go over their limit: they are not the innocent for whom a limit is switched off.
#[test]
fn a_stolen_key_switches_no_limit_off() {
    privileged!();
    let site = Site::new();
    let more = "enforcement: enforce, promotion: {factor: 2}, blast_radius: {percent: 5, sources: 10}";
    let gateway = Gateway::start(&site.setup_with("auto", "{rate: 1/m, burst: 2}", more));
    let bots: Vec<String> = (1..=12).map(|number| format!("10.77.1.{number}")).collect();
    for bot in &bots {
        site.lab.client_ip(&["addr", "add", &format!("{bot}/16"), "dev", "veth0"]).expect("an address");
        let mut connection = site.connect(bot).expect("the first connection");
        Request::get("/private").header("apikey", "open-sesame").send_on(&mut connection).expect(200);
        await_mark(&gateway, bot);
        assert!((0..8).any(|_| site.connect(bot).is_err()), "{bot} is never over its limit");
    }
    let hit = |gateway: &Gateway| {
        let labels = ["reason=\"drop_connection_rate\"", "outcome=\"dropped\""];
        let metrics = gateway.metrics();
        let mut series = metrics.series().filter(|(name, _)| {
            name.starts_with("portcullis_xdp_known_good_sources{")
                && labels.iter().all(|label| name.contains(label))
        });
        series.next().map(|(_, value)| value)
    };
    // The beat that counts them is the one that would switch the limit off.
    eventually("the count of those with a key", || {
        holds(hit(&gateway) == Some(4.0), format!("{:?} of {}", hit(&gateway), bots.len()))
    });
    let status = gateway.status();
    assert_eq!(status["kernel"]["tripped"], serde_json::json!([]), "{status}");
    assert!(site.connect(&bots[11]).is_err(), "the limit is in force");
}

#[test]
fn lists_come_from_files_and_may_answer_with_a_reset() {
    privileged!();
    let site = Site::new();
    let list = std::env::temp_dir().join(format!("portcullis-sources-{}", std::process::id()));
    std::fs::write(&list, format!("# scanners\n{BAD} # this one\n192.0.2.0/24\n")).expect("a file");
    let more = |refusal: &str| {
        format!(
            "enforcement: enforce, lists: [{{name: scanners, file: {}, refusal: {refusal}}}]",
            list.display()
        )
    };
    // Native XDP on a veth sends only where the other end runs a program too; the generic hook always does.
    let gateway = Gateway::start(&site.setup_with("generic", "1000/s", &more("drop")));
    assert_eq!(site.connect(BAD).err().map(|error| error.kind()), Some(io::ErrorKind::TimedOut));
    assert!(site.admitted(GOOD));
    gateway.reload(&site.setup_with("generic", "1000/s", &more("reset")));
    let begun = Instant::now();
    assert_eq!(site.connect(BAD).err().map(|error| error.kind()), Some(io::ErrorKind::ConnectionRefused));
    assert!(begun.elapsed() < PATIENCE * 4, "told at once");
    assert!(gateway.metrics().get("portcullis_xdp_resets_total", &[]) >= 1.0);
    gateway.reload(&site.setup_with("generic", "1000/s", &more("shadow")));
    assert!(site.admitted(BAD) && packets(&gateway, "shadow_denied") >= 1.0);

    std::fs::write(&list, "not an address\n").expect("a file");
    gateway.write(&site.setup_with("generic", "1000/s", &more("drop")));
    let (said, ok) = gateway.order(&["reload"]);
    assert!(!ok && said.contains(":1: \"not an address\""), "{said}");
    assert!(site.admitted(BAD), "a bad file changes nothing");
    std::fs::remove_file(&list).expect("removed");
}

#[test]
fn a_limit_may_be_left_to_the_proxy() {
    privileged!();
    let site = Site::new();
    let more = "enforcement: enforce, costs: {malformed: 10}, refusals: {connections: pass}";
    let gateway = Gateway::start(&site.setup(more));
    let refused = (0..20).find_map(|_| {
        let mut connection = site.connect(BAD).expect("the kernel passes it");
        let answer = connection.send("NO HTTP\r\n\r\n").response();
        assert_eq!(answer.status, 400);
        let mut connection = site.connect(BAD).expect("the kernel passes it");
        let answer = Request::get("/").send_on(&mut connection);
        (answer.status == 429).then_some(answer)
    });
    let refused = refused.expect("the proxy refuses in the end");
    assert!(refused.has("retry-after"));
    drop(site.connect(BAD).expect("the kernel passes it"));
    assert!(packets(&gateway, "shadow_connection_rate") >= 1.0);
    assert_eq!(packets(&gateway, "drop_connection_rate"), 0.0);
    assert!(site.admitted(GOOD));
}
