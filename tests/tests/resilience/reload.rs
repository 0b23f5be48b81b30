//! What outlives a reload by name: breakers, health, sessions, budgets; and the drain of a target that is taken away.

use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Echo, Gate, Held, Mood, Moody, Origin};

use super::{NO_HEALTH, get, setup, statuses};

#[test]
fn an_open_breaker_stays_open() {
    let (script, mood) = Moody::new("only", Mood::Ill);
    let origin = Origin::start(script);
    let other = Origin::start(Echo::default());
    let keys = format!(
        "{NO_HEALTH}\ncircuit_breaker: {{window: 60s, open_for: 10m, open_for_max: 10m, consecutive_failures: 2, \
         scope: both, min_requests: 1000}}"
    );
    let gateway = Gateway::start(&setup(&[origin.addr()], &keys, "retries: 0"));
    statuses(&gateway, 2);
    mood.set(Mood::Well);
    assert_eq!(statuses(&gateway, 3), [503; 3]);
    // Another key, and another target beside it.
    gateway.reload(&setup(&[origin.addr()], &format!("{keys}\nslow_start: 1s"), "retries: 0"));
    assert_eq!(statuses(&gateway, 3), [503; 3]);
    let of_targets = keys.replace("scope: both", "scope: target");
    gateway.reload(&setup(&[origin.addr(), other.addr()], &of_targets, "retries: 0"));
    assert_eq!(statuses(&gateway, 6), [200; 6]);
    assert_eq!((origin.requests(), other.requests()), (2, 6), "the target's own is open still");
}

#[test]
fn an_ejected_target_stays_out() {
    let (script, mood) = Moody::new("ill", Mood::Ill);
    let (ill, well) = (Origin::start(script), Origin::start(Echo::default()));
    let keys = "healthchecks: {passive: {unhealthy: {http_failures: 1}, eject_for: 1h}}";
    let targets = [ill.addr(), well.addr()];
    let gateway = Gateway::start(&setup(&targets, keys, "retries: 0"));
    statuses(&gateway, 4);
    mood.set(Mood::Well);
    let third = Origin::start(Echo::default());
    for targets in [&[ill.addr(), well.addr()][..], &[third.addr(), ill.addr(), well.addr()]] {
        gateway.reload(&setup(targets, &format!("{keys}\nalgorithm: least-connections"), "retries: 0"));
        assert_eq!(statuses(&gateway, 6), [200; 6]);
        assert_eq!(ill.requests(), 1, "with {} targets", targets.len());
    }
}

#[test]
fn sessions_stay_where_they_are() {
    let origins = ["a", "b", "c"].map(|name| Origin::start(Moody::new(name, Mood::Well).0));
    let targets = origins.each_ref().map(Origin::addr);
    let keys = "sticky: {cookie: {name: at}}";
    let gateway = Gateway::start(&setup(&targets, keys, "retries: 0"));
    let first = get(&gateway).expect(200);
    let cookie = first.header("set-cookie").split(';').next().expect("a cookie").to_owned();
    // In another order, with another algorithm.
    let turned = [targets[2], targets[0], targets[1]];
    gateway.reload(&setup(&turned, &format!("{keys}\nalgorithm: random"), "retries: 0"));
    for _ in 0..6 {
        let again = Request::get("/").header("Cookie", &cookie).send(gateway.addr()).expect(200);
        assert_eq!(again.header("x-origin"), first.header("x-origin"));
        assert!(!again.has("set-cookie"));
    }
}

#[test]
fn a_target_that_is_taken_away_finishes_what_it_has() {
    let gate = Gate::shut();
    let (leaving, staying) =
        (Origin::start(Held { gate: gate.clone(), midway: false }), Origin::start(Echo::default()));
    let gateway = Gateway::start(&setup(&[leaving.addr()], NO_HEALTH, "retries: 0"));
    let mut waiting: Vec<_> = (0..3)
        .map(|_| {
            let mut connection = Connection::open(gateway.addr());
            connection.send(Request::get("/held").keep().bytes());
            connection
        })
        .collect();
    leaving.wait_for(3);
    gateway.reload(&setup(&[staying.addr()], NO_HEALTH, "retries: 0"));
    assert_eq!(statuses(&gateway, 5), [200; 5]);
    assert_eq!((leaving.requests(), staying.requests()), (3, 5), "nothing new goes there");
    gate.open();
    for connection in &mut waiting {
        assert_eq!(connection.response().expect(200).text(), "held-on\n");
        // The same connection goes on with the new targets.
        Request::get("/").keep().send_on(connection).expect(200);
    }
    assert_eq!(leaving.requests(), 3);
    eventually("the end of its connections", || {
        holds(leaving.open() == 0, format!("{} open", leaving.open()))
    });
}

#[test]
fn pools_go_on_with_their_connections() {
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&setup(&[origin.addr()], NO_HEALTH, "retries: 0"));
    statuses(&gateway, 3);
    for round in 0..3 {
        let keys = format!("{NO_HEALTH}\nslow_start: {}s", round + 1);
        gateway.reload(&setup(&[origin.addr()], &keys, "retries: 0"));
        assert_eq!(statuses(&gateway, 3), [200; 3]);
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_target_that_joins_starts_slowly() {
    let [old, new] = [Origin::start(Echo::default()), Origin::start(Echo::default())];
    let keys = format!("{NO_HEALTH}\nslow_start: 1h");
    let gateway = Gateway::start(&setup(&[old.addr()], &keys, "retries: 0"));
    assert_eq!(statuses(&gateway, 3), [200; 3]);
    let both = [old.addr(), new.addr()];
    gateway.reload(&setup(&both, &keys, "retries: 0"));
    statuses(&gateway, 44);
    let got = new.requests();
    // A tenth of the other's weight: one of eleven.
    assert!((2..=8).contains(&got), "{got} of 44");
    // What it has grown to is not lost, and it does not begin at full weight.
    gateway.reload(&setup(&both, &format!("{keys}\nalgorithm: least-connections"), "retries: 0"));
    gateway.reload(&setup(&both, &keys, "retries: 0"));
    statuses(&gateway, 44);
    assert!((2..=8).contains(&(new.requests() - got)), "{} of 44", new.requests() - got);
}
