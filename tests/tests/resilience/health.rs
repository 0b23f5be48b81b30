//! Health of targets: how many may be out, panic, and probes by gRPC.

use portcullis_tests::client::Request;
use portcullis_tests::client::background::Background;
use portcullis_tests::client::programs::python_with;
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Echo, Mood, Moody, Origin};

use super::{counted, get, setup, statuses};

fn passive(more: &str, beside: &str) -> String {
    format!("healthchecks: {{passive: {{unhealthy: {{http_failures: 1}}, eject_for: 1h, {more}}}{beside}}}")
}

#[test]
fn no_more_than_a_share_is_ejected() {
    let origins = ["a", "b", "c", "d"].map(|name| Origin::start(Moody::new(name, Mood::Ill).0));
    let targets = origins.each_ref().map(Origin::addr);
    let gateway = Gateway::start(&setup(&targets, &passive("max_ejected_percent: 50", ""), "retries: 0"));
    assert_eq!(statuses(&gateway, 40), [503; 40]);
    origins.iter().for_each(Origin::forget);
    let before = origins.each_ref().map(Origin::requests);
    assert_eq!(statuses(&gateway, 20), [503; 20]);
    let asked = origins.iter().zip(before).filter(|(origin, before)| origin.requests() > *before).count();
    assert_eq!(asked, 2, "two of four are out");
    assert_eq!(gateway.metrics().sum("portcullis_upstream_target_healthy", &[("upstream", "many")]), 2.0);
    assert_eq!(counted(&gateway, "no_healthy_target"), 0.0);
}

#[test]
fn with_nobody_left_health_refuses_and_panic_does_not() {
    for (panic, status) in [("", 503), (", panic_threshold: 50", 200)] {
        let (script, mood) = Moody::new("only", Mood::Ill);
        let origin = Origin::start(script);
        let keys = passive("max_ejected_percent: 100", panic);
        let gateway = Gateway::start(&setup(&[origin.addr()], &keys, "retries: 0"));
        get(&gateway).expect(503);
        mood.set(Mood::Well);
        let got = get(&gateway);
        assert_eq!(got.status, status, "with {panic:?}");
        assert_eq!(counted(&gateway, "no_healthy_target") > 0.0, panic.is_empty());
    }
}

#[test]
fn an_ejected_target_is_tried_by_one_request_when_its_time_is_over() {
    let (script, mood) = Moody::new("ill", Mood::Ill);
    let (ill, well) = (Origin::start(script), Origin::start(Echo::default()));
    let keys = passive("max_ejected_percent: 50", "").replace("1h", "1s");
    let gateway = Gateway::start(&setup(&[ill.addr(), well.addr()], &keys, "retries: 0"));
    statuses(&gateway, 4);
    assert_eq!(ill.requests(), 1, "one failure is enough");
    eventually("a trial", || {
        statuses(&gateway, 1);
        holds(ill.requests() == 2, "none yet")
    });
    // The next takes two seconds from then.
    statuses(&gateway, 10);
    assert_eq!(ill.requests(), 2, "one trial at a time");
    mood.set(Mood::Well);
    eventually("its share", || {
        let before = ill.requests();
        statuses(&gateway, 10);
        holds(ill.requests() == before + 5, "still out")
    });
}

#[test]
fn grpc_probes_ask_the_health_service() {
    let Some(mut command) = python_with("grpc_health", "health_origin.py") else { return };
    let mut origin = Background::start(&mut command);
    let port = origin.port();
    let healthy = Origin::start(Echo::default());
    // Requests go by HTTP/1 to whoever is well: the gRPC server would break them, so nobody asks it while it is out.
    let keys = "healthchecks: {active: {type: grpc, grpc_service: shop.Orders, timeout: 5s, \
                healthy: {interval: 0.1, successes: 1}, unhealthy: {interval: 0.1, http_failures: 1, tcp_failures: 3}}}";
    let target = ([127, 0, 0, 1], port).into();
    let gateway = Gateway::start(&setup(&[target], keys, "http_version: '2'\nretries: 0"));
    let out = |wanted: bool| {
        let text = gateway.stderr();
        let (down, up) =
            (text.matches("is down, say its probes").count(), text.matches("is healthy again").count());
        holds((down > up) == wanted, format!("down {down} times, back {up} times"))
    };
    origin.say("NOT_SERVING");
    eventually("the target to be out", || out(true));
    assert_eq!(Request::get("/").send(gateway.addr()).expect(503).header("x-origin"), "");
    gateway.logged(|line| line["reason"] == "no_healthy_target");
    origin.say("SERVING");
    eventually("the target to be back", || out(false));
    origin.say("SERVICE_UNKNOWN");
    eventually("an unknown service to be out", || out(true));
    drop(healthy);
}
