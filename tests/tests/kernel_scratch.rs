use portcullis::kernel::{test_run::*, *};
use portcullis_abi::*;
use portcullis_tests::packet::*;
#[test]
fn scratch() {
    let mut t = TestRun::load(&Settings { sets: 1 << 18, ..Settings::default() }).unwrap();
    t.kernel
        .sync_listeners(&[
            Listener { address: "0.0.0.0".parse().unwrap(), port: 443, protocol: Protocol::Tcp },
            Listener { address: "::".parse().unwrap(), port: 443, protocol: Protocol::Tcp },
        ])
        .unwrap();
    let syn = {
        let mut p = Packet::v4().tcp(443, SYN).build();
        p.resize(64, 0);
        p
    };
    let seg = {
        let mut p = Packet::v4().tcp(443, ACK).build();
        p.resize(64, 0);
        p
    };
    let six = Packet::v6().tcp(443, ACK).build();
    let other = {
        let mut p = Packet::v4().tcp(22, ACK).build();
        p.resize(64, 0);
        p
    };
    let bench = |t: &TestRun, e, p: &[u8], l: &str| {
        let mut v: Vec<f64> = (0..7)
            .map(|_| {
                let o = t.run(e, p, 2_000_000).unwrap();
                o.elapsed.as_nanos() as f64 / 2e6
            })
            .collect();
        v.sort_by(f64::total_cmp);
        println!("{l:40} {:6.1} min {:6.1} max {:6.1}", v[3], v[0], v[6]);
    };
    let open = Rate { interval_ns: 1, burst_ns: 1_000_000_000_000 };
    let tight = Rate { interval_ns: 1_000_000_000, burst_ns: 3_000_000_000 };
    t.kernel.set_limits(&Limits { packets: open, connections: open, ..Default::default() });
    for coarse in [true, false] {
        t.coarse_clock(coarse);
        println!("coarse {coarse}");
        bench(&t, Entry::Product, &other, "not ours");
        bench(&t, Entry::Product, &syn, "syn");
        bench(&t, Entry::Product, &seg, "segment");
        bench(&t, Entry::Product, &six, "v6 segment");
        t.kernel.set_limits(&Limits { packets: Rate::UNLIMITED, connections: open, ..Default::default() });
        t.coarse_clock(coarse);
        bench(&t, Entry::Product, &syn, "syn, conn limit only");
        t.kernel.set_limits(&Limits { packets: tight, connections: Rate::UNLIMITED, ..Default::default() });
        t.coarse_clock(coarse);
        bench(&t, Entry::Product, &seg, "limited");
        t.kernel.set_limits(&Limits { packets: open, connections: open, ..Default::default() });
        t.coarse_clock(coarse);
        t.kernel
            .sync_lists(&Lists { deny: vec!["192.0.2.9/32".parse().unwrap()], ..Default::default() })
            .unwrap();
        bench(&t, Entry::Product, &seg, "denied");
        t.kernel.sync_lists(&Lists::default()).unwrap();
    }
    t.random_sources((1 << 20) - 1, 7).unwrap();
    for coarse in [true, false] {
        t.coarse_clock(coarse);
        bench(&t, Entry::ScrambleOnly, &seg, "scramble");
        bench(&t, Entry::RandomSources, &seg, "1M sources");
    }
    let c = t.kernel.counters().unwrap();
    for r in Reason::ALL {
        if c[*r as usize] > 0 {
            println!("{} {}", r.as_str(), c[*r as usize]);
        }
    }
}
