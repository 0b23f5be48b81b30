//! Steering by the program of the object: a new connection goes to the shard on the core that received it, the entries
//! may change under load, and at an upgrade they are the new process's.

use std::net::{SocketAddr, TcpListener, TcpStream};

use portcullis::kernel::Settings;
use portcullis::kernel::test_run::TestRun;
use portcullis::net;
use portcullis_tests::client::Request;
use portcullis_tests::client::load::{Load, Reuse};
use portcullis_tests::gateway::Gateway;
use portcullis_tests::privileged;
use portcullis_tests::site::Site;

/// Cores that this process may use.
fn cores() -> Vec<usize> {
    (0..256)
        .filter(|core| {
            std::thread::spawn({
                let core = *core;
                move || net::pin_to_core(core)
            })
            .join()
            .expect("a thread")
        })
        .collect()
}

fn group(count: usize, host: &str) -> (SocketAddr, Vec<TcpListener>) {
    let first = net::bind(format!("{host}:0").parse().expect("an address"), 128).expect("a socket");
    let address = first.local_addr().expect("an address");
    let more = (1..count).map(|_| net::bind(address, 128).expect("a socket of the group"));
    let all: Vec<_> = std::iter::once(first).chain(more).collect();
    all.iter().for_each(|socket| socket.set_nonblocking(true).expect("non-blocking"));
    (address, all)
}

/// Connects `count` times from `core`; how many each socket got. The first packet to loopback is received on the core that
/// sent it.
fn connect(core: usize, count: usize, address: SocketAddr, sockets: &[TcpListener]) -> Vec<usize> {
    let clients = std::thread::spawn(move || {
        assert!(net::pin_to_core(core));
        (0..count).map(|_| TcpStream::connect(address).expect("a connection")).collect::<Vec<_>>()
    });
    let clients = clients.join().expect("the clients");
    let queued = |socket: &TcpListener| std::iter::from_fn(|| socket.accept().ok()).count();
    let counts = sockets.iter().map(queued).collect();
    drop(clients);
    counts
}

#[test]
fn the_core_that_received_a_connection_decides_and_entries_may_change() {
    privileged!();
    let mut run = TestRun::load(&Settings::default()).expect("the program loads");
    let core = cores()[0];
    // No client is ever there.
    let elsewhere = 255;
    for host in ["127.0.0.1", "[::1]", "0.0.0.0", "[::]"] {
        let (address, sockets) = group(3, host);
        let target = match host {
            "0.0.0.0" => SocketAddr::new("127.0.0.1".parse().expect("an address"), address.port()),
            "[::]" => SocketAddr::new("::1".parse().expect("an address"), address.port()),
            _ => address,
        };
        run.kernel.steer(address, &sockets, &[elsewhere, core]).expect("steering");
        assert_eq!(connect(core, 40, target, &sockets), [0, 40, 0], "{host}");
        // The order of another process, of other shards.
        run.kernel.steer(address, &sockets, &[core]).expect("steering");
        assert_eq!(connect(core, 40, target, &sockets), [40, 0, 0], "{host}");
        // Nobody is on this core: the hash decides, and nobody is refused.
        run.kernel.steer(address, &sockets, &[elsewhere, elsewhere - 1]).expect("steering");
        let spread = connect(core, 60, target, &sockets);
        assert_eq!(spread.iter().sum::<usize>(), 60, "{host}");
        assert!(spread.iter().filter(|got| **got > 0).count() > 1, "{host}: {spread:?}");
        // The entry's socket is gone, and nobody has said so.
        run.kernel.steer(address, &sockets, &[core]).expect("steering");
        let left = sockets.into_iter().skip(1).collect::<Vec<_>>();
        assert_eq!(connect(core, 40, target, &left).iter().sum::<usize>(), 40, "{host}");
        run.kernel.steer_no_more(address).expect("forgotten");
        assert_eq!(connect(core, 40, target, &left).iter().sum::<usize>(), 40, "{host}");
    }
}

#[test]
fn listeners_are_steered_apart_and_one_too_many_is_refused() {
    privileged!();
    let mut run = TestRun::load(&Settings::default()).expect("the program loads");
    let core = cores()[0];
    let groups: Vec<_> = (0..65).map(|_| group(2, "127.0.0.1")).collect();
    for (at, (address, sockets)) in groups.iter().enumerate() {
        let order = if at % 2 == 0 { [core, 255] } else { [255, core] };
        assert_eq!(run.kernel.steer(*address, sockets, &order).is_ok(), at < 64, "{at}");
    }
    for (at, (address, sockets)) in groups.iter().enumerate().take(64) {
        let got = connect(core, 3, *address, sockets);
        assert_eq!(got, if at % 2 == 0 { [3, 0] } else { [0, 3] }, "{at}");
    }
    run.kernel.steer_no_more(groups[7].0).expect("forgotten");
    let (address, sockets) = &groups[64];
    run.kernel.steer(*address, sockets, &[255, core]).expect("there is room again");
    assert_eq!(connect(core, 3, *address, sockets), [0, 3]);
}

/// With more shards and with fewer, the entries are the new process's, and no client notices.
#[test]
fn an_upgrade_under_load_refuses_and_resets_nobody() {
    privileged!();
    if cores().len() < 2 {
        eprintln!("SKIPPED: one core");
        return;
    }
    let site = Site::new();
    let setup = |shards| {
        let limits = site.setup_with("auto", "1000000/s", "enforcement: enforce");
        let limits = limits.shards(shards).steering("core").timeouts("drain: 20s, drain_delay: 5s");
        limits.with("limits: {requests_per_connection: 1000000000}")
    };
    let mut gateway = Gateway::start(&setup(2));
    for shards in [1, 2, 2] {
        let request = Request::get("/");
        let load = |reuse, bytes: &[u8]| {
            site.lab.in_client(|| Load::start(gateway.addr(), 3, reuse, bytes, "x-target"))
        };
        let fresh = load(Reuse::Never, &request.bytes());
        let kept = load(Reuse::KeepAlive, &Request::get("/").keep().bytes());
        fresh.wait_for(50);
        kept.wait_for(50);
        let before = gateway.pid();
        gateway.write(&setup(shards));
        gateway.upgrade();
        assert_ne!(gateway.pid(), before);
        fresh.wait_for(100);
        kept.wait_for(50);
        let (fresh, kept) = (fresh.stop(), kept.stop());
        fresh.expect_no_failure();
        kept.expect_no_failure();
        assert_eq!(fresh.refused + kept.refused, 0, "a connection was refused");
        let status = gateway.status();
        let listener = &status["listeners"][0];
        assert_eq!((&listener["steering"], &listener["steered_by"]), (&"core".into(), &"program".into()));
    }
    gateway.stop();
}
