//! What an operator who switches the kernel part on relies on when things go wrong: a gateway that stands still, one that
//! hands over, tables that cannot be written, places for pins that are none, and bans on trial.

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use portcullis::kernel::{Kernel, Settings};
use portcullis_abi::LAYOUT_VERSION;
use portcullis_tests::client::Request;
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Gate, Held, Origin};
use portcullis_tests::privileged;
use portcullis_tests::site::{BAD, GOOD, Site, packets};
use serde_json::Value;

fn setup(site: &Site, more: &str) -> Setup {
    site.setup_with("auto", "100000/s", &format!("enforcement: enforce, {more}"))
}

fn ordered(gateway: &Gateway, order: &[&str]) -> String {
    let (text, ok) = gateway.order(order);
    assert!(ok, "{order:?}: {text}");
    text
}

fn bans(gateway: &Gateway) -> usize {
    let text = ordered(gateway, &["bans", "--json"]);
    let told: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    told["bans"].as_array().map_or(0, Vec::len)
}

fn pause(time: Duration) {
    let begun = Instant::now();
    while let Some(left) = time.checked_sub(begun.elapsed()) {
        std::thread::park_timeout(left);
    }
}

/// A gateway that stands still is dead to the program: it stands aside, or goes on, as configured. A connection to a gateway
/// that is let through is answered by the kernel.
#[test]
fn the_dead_mans_switch_does_as_configured() {
    privileged!();
    let site = Site::new();
    let gateway = Gateway::start(&setup(&site, &format!("deny: [{BAD}], dead_after: 1s, when_dead: hold")));
    assert!(!site.admitted(BAD));
    gateway.signal("STOP");
    pause(Duration::from_millis(2_500));
    for _ in 0..3 {
        let refused = site.connect(BAD).map(drop).expect_err("the program holds");
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
    }
    site.connect(GOOD).expect("the program holds, and this one is not denied");
    gateway.signal("CONT");
    eventually("an answer", || holds(gateway.try_admin("GET", "/status").is_ok(), "none"));
    assert_eq!(packets(&gateway, "dead_gateway"), 0.0);

    gateway.reload(&setup(&site, &format!("deny: [{BAD}], dead_after: 1s, when_dead: pass")));
    assert!(!site.admitted(BAD));
    gateway.signal("STOP");
    eventually("the program standing aside", || holds(site.connect(BAD).is_ok(), "still dropped"));
    gateway.signal("CONT");
    eventually("the program at work again", || holds(site.connect(BAD).is_err(), "still let in"));
    assert!(packets(&gateway, "dead_gateway") >= 1.0, "it says so");
}

/// The predecessor has an exchange to finish and a ban of a prefix that ends meanwhile. The maps are the successor's by
/// then, and stay as its configuration wants them; nor does the file of bans lose what the successor was told.
#[test]
fn a_predecessor_that_drains_leaves_the_maps_alone() {
    privileged!();
    let gate = Gate::shut();
    let site = Site::with({
        let gate = gate.clone();
        move || Origin::start(Held { gate, midway: false })
    });
    let with_drain = |more: &str| {
        site.setup_with("auto", "100000/s", &format!("dead_after: 60s, {more}")).timeouts("drain: 60s")
    };
    let mut gateway = Gateway::start(&with_drain("enforcement: shadow"));
    ordered(&gateway, &["ban", "192.0.2.0/24", "--for", "4s"]);
    let mut under_way = site.connect(GOOD).expect("a connection");
    under_way.send(Request::get("/").bytes());

    gateway.write(&with_drain(&format!("enforcement: enforce, deny: [{BAD}]")));
    let mut predecessor = gateway.succeed();
    ordered(&gateway, &["ban", "198.51.100.0/24", "--for", "10m"]);
    let denied = || site.connect(BAD).map(drop).is_err_and(|error| error.kind() == io::ErrorKind::TimedOut);
    assert!(denied(), "as the successor's configuration has it");
    eventually("the end of the ban", || holds(bans(&gateway) == 1, "still there"));
    // Twice what any beat takes.
    pause(Duration::from_millis(2_500));
    assert!(predecessor.runs(), "it waits for the origin");
    assert!(denied(), "the predecessor has put its own settings back");
    gate.open();
    assert_eq!(under_way.response().status, 200);
    predecessor.wait_end();
    assert!(denied());
    gateway.restart();
    assert_eq!(bans(&gateway), 1, "the ban that the successor was told");
}

/// A ban on trial refuses nothing and closes nothing.
#[test]
fn bans_on_trial_leave_connections_open() {
    privileged!();
    let site = Site::new();
    let more = "bans: {triggers: {malformed: 3/m}, steps: [10m]}, refusals: {banned: shadow}";
    let gateway = Gateway::start(&setup(&site, more));
    let mut kept = site.connect(BAD).expect("a connection");
    Request::get("/").keep().send_on(&mut kept).expect(200);
    for _ in 0..8 {
        site.connect(BAD).expect("a connection").send("NO HTTP\r\n\r\n").response().expect(400);
    }
    eventually("the ban", || holds(bans(&gateway) == 1, "none"));
    assert!(ordered(&gateway, &["bans"]).contains("nobody (shadow mode)"));
    // Twice what a beat takes to close what a banned source has open.
    pause(Duration::from_millis(2_500));
    Request::get("/").keep().send_on(&mut kept).expect(200);
    assert!(site.admitted(BAD));
    assert!(packets(&gateway, "shadow_banned") >= 1.0);
    assert_eq!(packets(&gateway, "drop_banned"), 0.0);
}

/// More kinds of ports than the tables tell apart: without its tables the program is not attached where it is required, and
/// lets everything through where it is not.
#[test]
fn tables_that_cannot_be_written_are_an_error_where_the_program_is_required() {
    privileged!();
    let site = Site::new();
    let with = |required: bool| {
        let rules = (0..16).map(|i| format!("{{name: r{i}, ports: [{}], connections: 1/s}}", 9000 + i));
        let rules = rules.collect::<Vec<_>>().join(", ");
        let more = format!("required: {required}, deny: [{BAD}], rules: [{rules}]");
        (0..16).fold(setup(&site, &more), |setup, i| {
            setup.listener(&format!("l{i}"), format!("10.77.0.2:{}", 9000 + i).parse().expect("an address"))
        })
    };
    let gateway = Gateway::start(&with(false));
    assert!(site.admitted(BAD), "nothing is known to be ours");
    let why = gateway.status()["kernel"]["why"].clone();
    assert!(why.as_str().is_some_and(|why| why.contains("kinds of ports")), "{why}");
    drop(gateway);

    let mut gateway = Gateway::spawn(&with(true));
    assert!(!gateway.wait_end().success());
    let said = gateway.stderr();
    assert!(said.contains("xdp.required is set") && said.contains("kinds of ports"), "{said}");
}

/// Pins of an older layout, and what is left of a set of them, are replaced: their buckets mean something else.
#[test]
fn pins_of_another_layout_and_half_a_set_are_replaced() {
    privileged!();
    let pins = PathBuf::from(format!("/sys/fs/bpf/portcullis-layout-{}", std::process::id()));
    let settings = Settings { pin_root: pins.clone(), sets: 64, ..Settings::default() };
    let load = || Kernel::load(&settings).expect("the program loads");
    let ours = pins.join(format!("v{LAYOUT_VERSION}"));
    let secret = load().secret();
    let again = load();
    assert!(again.adopted_pinned_maps() && again.secret() == secret, "the same build takes them over");
    drop(again);

    let older = pins.join(format!("v{}", LAYOUT_VERSION - 1));
    std::fs::rename(&ours, &older).expect("renaming");
    let kernel = load();
    assert!(!kernel.adopted_pinned_maps() && kernel.secret() != secret, "others are not used");
    assert!(!older.exists(), "nor kept");
    let secret = kernel.secret();
    drop(kernel);

    std::fs::remove_file(ours.join("BUCKETS")).expect("removing");
    let kernel = load();
    assert!(!kernel.adopted_pinned_maps() && kernel.secret() != secret, "a part of them is not used");
    drop(kernel);
    std::fs::remove_dir_all(&pins).expect("removing");
}

/// A folder where nothing can be pinned is said so, and what to do.
#[test]
fn pins_need_a_bpf_file_system_that_can_be_written() {
    privileged!();
    let load = |pin_root: PathBuf| match Kernel::load(&Settings { pin_root, ..Settings::default() }) {
        Ok(_) => panic!("pinned where nothing can be"),
        Err(error) => error.to_string(),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let said = load(folder.path().join("pins"));
    assert!(said.contains("not on a BPF file system"), "{said}");

    let mount = |arguments: &[&str]| {
        let status = Command::new("mount").args(arguments).arg(folder.path()).status();
        assert!(status.is_ok_and(|status| status.success()), "mount {arguments:?}");
    };
    mount(&["-t", "bpf", "bpf"]);
    mount(&["-o", "remount,ro"]);
    let said = load(folder.path().join("pins"));
    let unmounted = Command::new("umount").arg(folder.path()).status();
    assert!(said.contains("Read-only") && said.contains("remount,rw"), "{said}");
    assert!(unmounted.is_ok_and(|status| status.success()), "unmounting");
}
