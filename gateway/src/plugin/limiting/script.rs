//! A check as a call of a script in Redis.
//!
//! Owns the names of keys, the arguments, and what the reply means. Pure: the moment is an argument, so that the same
//! sequence of checks can be made in memory and in Redis, and gives the same decisions.
//!
//! **Invariant.** All keys of one call have the same hash tag, so that a cluster keeps them in one node. No key holds what
//! a request said: names of limited things are hashed.

use crate::limit::{Algorithm, Counts, Limiter, LogState, Moment, Raw};
use crate::plugin::redis::{Away, Reply};

/// The script.
pub const TEXT: &str = include_str!("script.lua");

/// Whether what does not fit is refused, or charged because it has passed already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Check,
    Add,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub keys: Vec<Vec<u8>>,
    pub arguments: Vec<Vec<u8>>,
}

const SECOND: u64 = 1_000_000_000;

impl Call {
    /// A check of `cost` for `name`, which is unique within `namespace`.
    pub fn new(
        limiter: &Limiter,
        namespace: &str,
        name: &str,
        moment: Moment,
        cost: u64,
        mode: Mode,
    ) -> Self {
        let strategy = match limiter.algorithm() {
            Algorithm::FixedWindow => "f",
            Algorithm::SlidingCounter => "c",
            Algorithm::SlidingLog => "l",
            Algorithm::TokenBucket | Algorithm::LeakyBucket => "b",
        };
        let (mut keys, mut arguments) = (Vec::new(), Vec::new());
        let word = if mode == Mode::Check { "check" } else { "add" };
        arguments.extend([strategy, word, if limiter.penalty() { "1" } else { "0" }].map(Vec::from));
        let mut numbers =
            |all: &[u64]| arguments.extend(all.iter().map(|number| number.to_string().into_bytes()));
        numbers(&[cost, moment.wall / SECOND, moment.wall % SECOND]);
        for quota in limiter.quotas() {
            let (span, window) = (quota.span.shortest_ns(), quota.span.window(moment.wall));
            let mut key = format!("portcullis:{{{namespace}:{name}}}:{strategy}:{}", quota.span.label());
            // Longer than needed, for gateways whose clocks differ.
            let keep = |ns: u64| ns / 1_000_000 + 10_000;
            match limiter.algorithm() {
                Algorithm::FixedWindow => {
                    key.push_str(&format!(":{}", window.start / 1_000_000));
                    numbers(&[quota.limit, keep(window.end - moment.wall), 0, 0]);
                }
                Algorithm::SlidingCounter => {
                    let weight = Limiter::weight(quota, moment);
                    numbers(&[quota.limit, window.start / span, weight, keep(span.saturating_mul(2))]);
                }
                Algorithm::SlidingLog => numbers(&[quota.limit, span / SECOND, span % SECOND, keep(span)]),
                Algorithm::TokenBucket | Algorithm::LeakyBucket => {
                    let rate = limiter.rate(quota);
                    let cost = cost.saturating_mul(rate.interval_ns);
                    numbers(&[cost / SECOND, cost % SECOND, rate.burst_ns / SECOND, rate.burst_ns % SECOND]);
                }
            }
            keys.push(key.into_bytes());
        }
        Self { keys, arguments }
    }
}

/// Whether a call's cost was charged, and the counts after it.
///
/// # Errors
/// [`Away`] where the reply is not the script's.
pub fn read(limiter: &Limiter, moment: Moment, reply: &Reply) -> Result<(bool, Vec<Raw>), Away> {
    let Reply::Array(items) = reply else { return Err(Away) };
    let mut numbers = items.iter().map(|item| match item {
        Reply::Integer(number) => u64::try_from(*number).map_err(|_| Away),
        _ => Err(Away),
    });
    let mut next = || numbers.next().unwrap_or(Err(Away));
    let charged = next()? == 1;
    let ahead =
        |seconds: u64, ns: u64| seconds.saturating_mul(SECOND).saturating_add(ns).saturating_sub(moment.wall);
    let raws = limiter.quotas().iter().map(|_| {
        Ok(match limiter.algorithm() {
            Algorithm::FixedWindow => Raw::Count(next()?),
            Algorithm::SlidingCounter => Raw::Counts(Counts { previous: next()?, current: next()? }),
            Algorithm::SlidingLog => Raw::Log(LogState { live: next()?, wait_ns: ahead(next()?, next()?) }),
            Algorithm::TokenBucket | Algorithm::LeakyBucket => Raw::Debt(ahead(next()?, next()?)),
        })
    });
    Ok((charged, raws.collect::<Result<_, Away>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Quota, Span};

    #[test]
    fn the_keys_of_a_call_have_one_tag() {
        let quotas = [60, 3_600].map(|seconds| Quota { span: Span::seconds(seconds), limit: 5, burst: 5 });
        let limiter = Limiter::new(Algorithm::FixedWindow, quotas.to_vec(), false).expect("good");
        let moment = Moment { now: 7, wall: 7_300 * SECOND };
        let call = Call::new(&limiter, "web", "0123", moment, 1, Mode::Check);
        let keys = call.keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect::<Vec<_>>();
        assert_eq!(keys, ["portcullis:{web:0123}:f:Minute:7260000", "portcullis:{web:0123}:f:Hour:7200000"]);
    }

    #[test]
    fn what_is_no_reply_of_the_script_is_no_answer() {
        let quota = Quota { span: Span::seconds(60), limit: 5, burst: 5 };
        let limiter = Limiter::new(Algorithm::TokenBucket, vec![quota], false).expect("good");
        let moment = Moment { now: 7, wall: 9 * SECOND };
        let reply =
            |numbers: &[i64]| Reply::Array(numbers.iter().map(|number| Reply::Integer(*number)).collect());
        assert_eq!(read(&limiter, moment, &reply(&[1, 21, 5])), Ok((true, vec![Raw::Debt(12 * SECOND + 5)])));
        for wrong in
            [reply(&[]), reply(&[1, 21]), reply(&[1, -1, 0]), Reply::Nil, Reply::Array(vec![Reply::Nil])]
        {
            assert_eq!(read(&limiter, moment, &wrong), Err(Away));
        }
    }
}
