//! The same limit gives the same answers in memory and in Redis, for any sequence of times, keys and costs.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;

use super::script::{self, Call, Mode};
use crate::limit::{
    Algorithm, Decision, Limiter, LimiterId, Moment, Period, Place, Quota, Span, Table, limit_key,
    random_secret,
};
use crate::plugin::redis::resp::{Reply, command, parse};

const SECOND: u64 = 1_000_000_000;
/// 2024-02-29T23:59:50Z: ten seconds before the end of a minute, an hour, a day and a month.
const WALL: u64 = 1_709_251_190 * SECOND;
const NOW: u64 = 5_000 * SECOND;

/// A server of this test's own, which ends with it. It listens in a folder and on no port: one that asks a free port
/// of the loopback address again and again ends up connected to itself (RFC 9293, section 3.5, simultaneous open).
struct Redis {
    process: Child,
    stream: UnixStream,
    _folder: TempDir,
}

impl Redis {
    /// Needs Debian's package redis-server.
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("redis");
        let mut process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .args(["--unixsocket".as_ref(), socket.as_os_str(), "--dir".as_ref(), folder.path().as_os_str()])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server, of the Debian package of that name");
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            if let Ok(stream) = UnixStream::connect(&socket) {
                return Self { process, stream, _folder: folder };
            }
            if let Some(status) = process.try_wait().expect("its state") {
                panic!("redis-server ended: {status}");
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        let _ = process.kill();
        let _ = process.wait();
        panic!("no redis-server came up");
    }

    fn ask(&mut self, words: &[&[u8]]) -> Reply {
        let mut out = Vec::new();
        command(&mut out, words);
        self.stream.write_all(&out).expect("sent");
        let mut received = Vec::new();
        loop {
            if let Some((reply, _)) = parse(&received).expect("a reply") {
                return reply;
            }
            let mut piece = [0; 4096];
            let n = self.stream.read(&mut piece).expect("received");
            assert!(n > 0, "closed");
            received.extend_from_slice(&piece[..n]);
        }
    }

    fn check(&mut self, limiter: &Limiter, name: &str, moment: Moment, cost: u64, mode: Mode) -> Decision {
        let call = Call::new(limiter, "test", name, moment, cost, mode);
        let count = call.keys.len().to_string();
        let mut words: Vec<&[u8]> = vec![b"EVAL", script::TEXT.as_bytes(), count.as_bytes()];
        words.extend(call.keys.iter().chain(&call.arguments).map(Vec::as_slice));
        let reply = self.ask(&words);
        let (charged, raws) = script::read(limiter, moment, &reply).unwrap_or_else(|_| panic!("{reply:?}"));
        limiter.tell(&raws, charged, moment, cost)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A limit of any strategy.
fn limits() -> impl Strategy<Value = Limiter> {
    use Algorithm::{FixedWindow, LeakyBucket, SlidingCounter, SlidingLog, TokenBucket};
    let algorithm = prop_oneof![
        Just(FixedWindow),
        Just(LeakyBucket),
        Just(SlidingCounter),
        Just(SlidingLog),
        Just(TokenBucket)
    ];
    // Lengths that divide by the limit and lengths that do not.
    let quota = (1..40u64, prop_oneof![1..90_000u64, Just(1_000), Just(60_000), Just(86_400_000)], 0..20u64);
    (algorithm, prop::collection::vec(quota, 1..4), any::<bool>(), any::<bool>()).prop_map(
        |(algorithm, quotas, penalty, calendar)| {
            let mut all: Vec<Quota> = Vec::new();
            for (limit, span, burst) in quotas {
                let span = Span::Every(span * 1_000_000);
                if all.iter().all(|other| other.span != span) {
                    all.push(Quota { span, limit, burst: burst.max(1) });
                }
            }
            if calendar && algorithm == FixedWindow {
                all.push(Quota { span: Period::Month.into(), limit: 30, burst: 1 });
            }
            Limiter::new(algorithm, all, penalty).expect("a good limit")
        },
    )
}

/// Steps: nanoseconds since the last, whose, and the cost.
fn steps() -> impl Strategy<Value = Vec<(u64, u8, u64)>> {
    let pause = prop_oneof![Just(0), 0..50_000_000u64, 0..SECOND, 0..40 * SECOND, Just(SECOND)];
    prop::collection::vec((pause, 0..3u8, prop_oneof![4 => Just(1), 1 => 0..4u64]), 1..60)
}

#[test]
fn memory_and_redis_give_the_same_answers() {
    let mut redis = Redis::start();
    let mut runner = TestRunner::new(Config { failure_persistence: None, cases: 1_000, ..Config::default() });
    let redis = std::cell::RefCell::new(&mut redis);
    let outcome = runner.run(&(limits(), steps()), |(limiter, steps)| {
        let mut redis = redis.borrow_mut();
        redis.ask(&[b"FLUSHALL"]);
        let table = Table::new(1 << 12, random_secret()).expect("a small table");
        let logs = limiter.logs(1 << 12);
        let mut after = 0;
        for (step, (pause, key, cost)) in steps.into_iter().enumerate() {
            after += pause;
            let moment = Moment { now: NOW + after, wall: WALL + after };
            let place =
                Place { table: &table, logs: &logs, key: limit_key(LimiterId::from_number(1), &[&[key]]) };
            let memory = limiter.check(place, moment, cost);
            let shared = redis.check(&limiter, &key.to_string(), moment, cost, Mode::Check);
            prop_assert_eq!(memory, shared, "step {} at {} ns: {:?}", step, after, &limiter);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn what_is_added_is_charged_whether_or_not_it_fits() {
    let mut redis = Redis::start();
    let moment = Moment { now: NOW, wall: WALL };
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingCounter, Algorithm::TokenBucket] {
        redis.ask(&[b"FLUSHALL"]);
        let quota = Quota { span: Span::seconds(3_600), limit: 10, burst: 10 };
        let limiter = Limiter::new(algorithm, vec![quota], false).expect("good");
        for expected in [4, 0, 0] {
            let added = redis.check(&limiter, "a", moment, 6, Mode::Add);
            assert!(added.allowed() && added.windows()[0].remaining == expected, "{algorithm:?}: {added:?}");
        }
        let checked = redis.check(&limiter, "a", moment, 1, Mode::Check);
        assert!(!checked.allowed(), "{algorithm:?}: {checked:?}");
    }
}
