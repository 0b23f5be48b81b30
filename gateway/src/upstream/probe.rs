//! Probes: asking targets how they are instead of waiting for a request to find out (Kong's `healthchecks.active`).
//!
//! Owns one probe from connect to verdict, the rule by which verdicts in a row turn a target up or down, and the loop
//! that repeats it. A probe uses the connector that requests use too (same TLS, same verification), so it tests what
//! they would meet. Never decides where a request goes: it only sets the probed word of [`super::health::Group`].
//!
//! **Invariant.** An upstream is probed by one shard alone, each target of it by one loop, which a reload that changes
//! the upstream ends; at most `concurrency` probes of an upstream are under way.

mod grpc;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::UpstreamSpec;
use super::balance::TargetIndex;
use super::health::{Change, Phase, Statuses};
use crate::http::ResponseHead;
use crate::http::h1::{HeadLimits, Parsed, parse_response};
use crate::net::{self, clock};
use crate::tls::{self, HEAD_ROOM, Intake};

/// How the targets of an upstream are probed.
pub struct ProbeSpec {
    pub kind: ProbeKind,
    /// Service that a call asks about; empty for the server.
    pub grpc_service: Box<str>,
    /// The request of an HTTP probe without its Host line; empty for other kinds.
    pub request: Box<[u8]>,
    /// `Host` where the configuration gives one; else the target's own.
    pub host: Option<Box<[u8]>>,
    /// TLS settings, and the name to ask for where it is not the target's.
    pub tls: Option<(tls::ClientConfig, Option<Box<str>>)>,
    /// From connect to the end of the response head.
    pub timeout: Duration,
    /// Most probes of the upstream under way at once; at least 1.
    pub concurrency: u32,
    /// Pause after a probe of a target that is up; zero sends none.
    pub pause_up: Duration,
    /// Pause after a probe of a target that is down; zero sends none.
    pub pause_down: Duration,
    pub rule: Rule,
    pub limits: HeadLimits,
    /// The same for the same settings.
    pub fingerprint: String,
}

/// What a probe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// A connection (and a handshake, with TLS) is enough.
    Connect,
    /// A GET whose status is judged.
    Http,
    /// A call of the health service.
    Grpc,
}

/// When verdicts in a row turn a target. A count of 0 turns its rule off, as in Kong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub statuses: Statuses,
    /// Successes in a row until a target is up.
    pub successes: u32,
    /// Failing statuses in a row until it is down.
    pub http_failures: u32,
    /// Failed connections in a row until it is down.
    pub tcp_failures: u32,
    /// Time-outs in a row until it is down.
    pub timeouts: u32,
}

/// How one probe went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Connected, and nothing more was asked.
    Connected,
    /// Answered with this status.
    Status(u16),
    /// A call was answered: it serves, or it does not.
    Serving(bool),
    /// Refused, reset, no valid TLS or no valid response.
    Broken,
    /// No answer in time.
    TimedOut,
}

/// Verdicts in a row, of one target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    successes: u32,
    http_failures: u32,
    tcp_failures: u32,
    timeouts: u32,
}

impl Streak {
    /// Counts a verdict. `Some(up)` where the rule now says so. A status in neither list changes nothing.
    pub fn count(&mut self, verdict: Verdict, rule: &Rule) -> Option<bool> {
        let (counter, limit) = match verdict {
            Verdict::Connected | Verdict::Serving(true) => (&mut self.successes, rule.successes),
            Verdict::Serving(false) => (&mut self.http_failures, rule.http_failures),
            Verdict::Status(status) => match rule.statuses.verdict(status) {
                None => return None,
                Some(true) => (&mut self.successes, rule.successes),
                Some(false) => (&mut self.http_failures, rule.http_failures),
            },
            Verdict::Broken => (&mut self.tcp_failures, rule.tcp_failures),
            Verdict::TimedOut => (&mut self.timeouts, rule.timeouts),
        };
        let count = counter.saturating_add(1);
        let up = matches!(verdict, Verdict::Connected | Verdict::Serving(true))
            || matches!(verdict, Verdict::Status(status) if rule.statuses.verdict(status) == Some(true));
        // A success ends every run of failures and the other way round; kinds of failure do not end each other.
        if up {
            *self = Self { successes: count, ..Self::default() };
        } else {
            *counter = count;
            self.successes = 0;
        }
        (limit > 0 && count >= limit).then_some(up)
    }
}

/// Ends the loops of an upstream when it is dropped.
pub struct Watch {
    spec: Arc<UpstreamSpec>,
    ended: Rc<Cell<bool>>,
}

impl Watch {
    /// Starts a loop for each target. `changed` hears what a probe changed.
    pub fn start(
        spec: &Arc<UpstreamSpec>,
        changed: impl Fn(&UpstreamSpec, TargetIndex, Change) + Clone + 'static,
    ) -> Option<Self> {
        spec.probe.as_ref()?;
        let ended = Rc::new(Cell::new(false));
        let under_way = Rc::new(Cell::new(0));
        for index in 0..spec.targets.len() as u32 {
            let task = Loop {
                spec: spec.clone(),
                target: TargetIndex(index),
                ended: ended.clone(),
                under_way: under_way.clone(),
            };
            net::spawn(task.run(changed.clone()));
        }
        Some(Self { spec: spec.clone(), ended })
    }

    /// Whether it watches this very upstream.
    pub fn is_of(&self, spec: &Arc<UpstreamSpec>) -> bool {
        Arc::ptr_eq(&self.spec, spec)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.set(true);
    }
}

/// The probing of one target.
struct Loop {
    spec: Arc<UpstreamSpec>,
    target: TargetIndex,
    ended: Rc<Cell<bool>>,
    under_way: Rc<Cell<u32>>,
}

/// How long a loop that found the upstream's places taken waits before it looks again.
const PLACE_PAUSE: Duration = Duration::from_millis(20);
/// How often a loop that has nothing to send looks whether the target was turned by others.
const IDLE_PAUSE: Duration = Duration::from_secs(1);
/// A long pause is slept in pieces, so that a loop that was ended goes soon.
const PIECE: Duration = Duration::from_secs(2);

impl Loop {
    async fn run(self, changed: impl Fn(&UpstreamSpec, TargetIndex, Change)) {
        let Some(probe) = &self.spec.probe else { return };
        let Some(address) = self.spec.targets[self.target.index()].address else { return };
        let (mut streak, mut was_up) = (Streak::default(), true);
        while !self.ended.get() {
            let condition = self.spec.health.condition(self.target);
            let up = condition.is_none_or(|c| c.probed_up && c.phase == Phase::Healthy);
            if was_up && !up {
                // Turned by requests perhaps: what probes said before that is no ground to take it back.
                streak = Streak::default();
            }
            was_up = up;
            let pause = if up { probe.pause_up } else { probe.pause_down };
            if pause.is_zero() {
                net::sleep(IDLE_PAUSE).await;
                continue;
            }
            if self.under_way.get() >= probe.concurrency {
                net::sleep(PLACE_PAUSE).await;
                continue;
            }
            self.under_way.set(self.under_way.get() + 1);
            let verdict = self.probe(probe, address).await;
            self.under_way.set(self.under_way.get() - 1);
            if self.ended.get() {
                return;
            }
            if let Some(up) = streak.count(verdict, &probe.rule) {
                let change = self.spec.health.set_probed(self.target, clock::now_ns(), up);
                changed(&self.spec, self.target, change);
            }
            self.rest(pause).await;
        }
    }

    async fn rest(&self, mut pause: Duration) {
        while !pause.is_zero() && !self.ended.get() {
            let piece = pause.min(PIECE);
            net::sleep(piece).await;
            pause -= piece;
        }
    }

    async fn probe(&self, probe: &ProbeSpec, address: SocketAddr) -> Verdict {
        let target = &self.spec.targets[self.target.index()];
        let stream = match net::connect(address, probe.timeout).await {
            Ok(stream) => stream,
            Err(net::ConnectError::TimedOut) => return Verdict::TimedOut,
            Err(_) => return Verdict::Broken,
        };
        stream.rx.deadline.arm(probe.timeout);
        stream.tx.deadline.arm(probe.timeout);
        let stream = match &probe.tls {
            None => tls::Stream::plain(stream),
            Some((config, name)) => {
                let name = name.as_deref().unwrap_or(&target.tls_name);
                let Ok(session) = tls::Session::client(config, name) else { return Verdict::Broken };
                match tls::Stream::handshake(stream, session, Vec::new()).await {
                    Ok(stream) => stream,
                    Err(tls::HandshakeError::TimedOut) => return Verdict::TimedOut,
                    Err(_) => return Verdict::Broken,
                }
            }
        };
        let host = probe.host.as_deref().unwrap_or(&target.host);
        match probe.kind {
            ProbeKind::Connect => Verdict::Connected,
            ProbeKind::Http => ask(stream, probe, host).await,
            // Boxed: few probes are calls.
            ProbeKind::Grpc => {
                stream.rx.deadline().disarm();
                stream.tx.deadline().disarm();
                Box::pin(grpc::check(stream, probe, host, probe.timeout)).await
            }
        }
    }
}

/// Sends the request and reads the response's head. The connection is closed after it, whatever the body.
async fn ask(stream: tls::Stream, probe: &ProbeSpec, host: &[u8]) -> Verdict {
    let tls::Stream { rx, mut tx } = stream;
    let mut out = Vec::with_capacity(probe.request.len() + host.len() + 16);
    out.extend_from_slice(&probe.request);
    out.extend_from_slice(b"Host: ");
    out.extend_from_slice(host);
    out.extend_from_slice(b"\r\n\r\n");
    let sent = tx.send(&mut out).await;
    // The limit is on the whole probe and was disarmed by the send.
    tx.deadline().disarm();
    if sent.is_err() {
        return if rx.deadline().expired() { Verdict::TimedOut } else { Verdict::Broken };
    }
    let mut intake = Intake::new(rx, 0);
    let mut head = ResponseHead::new();
    loop {
        match parse_response(intake.unread(), &probe.limits, &mut head) {
            Ok(Parsed::Complete { head_len }) if head.is_interim() => {
                intake.consume(head_len);
                head.clear();
                continue;
            }
            Ok(Parsed::Complete { .. }) => return Verdict::Status(head.status()),
            Ok(Parsed::Partial) => {}
            Err(_) => return Verdict::Broken,
        }
        match intake.receive((probe.limits.head + 1).max(HEAD_ROOM)).await {
            Ok(1..) => {}
            _ if intake.rx.deadline().expired() => return Verdict::TimedOut,
            _ => return Verdict::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Rule {
        Rule {
            statuses: Statuses::new(&[200, 302], &[500, 503]),
            successes: 2,
            http_failures: 3,
            tcp_failures: 2,
            timeouts: 1,
        }
    }

    fn after(verdicts: &[Verdict]) -> Vec<Option<bool>> {
        let mut streak = Streak::default();
        verdicts.iter().map(|&verdict| streak.count(verdict, &rule())).collect()
    }

    #[test]
    fn verdicts_in_a_row_turn_a_target() {
        use Verdict::{Broken, Connected, Status, TimedOut};
        assert_eq!(after(&[Status(200), Status(302)]), [None, Some(true)]);
        assert_eq!(after(&[Connected, Connected, Connected]), [None, Some(true), Some(true)]);
        assert_eq!(after(&[Status(500), Status(503), Status(500)]), [None, None, Some(false)]);
        assert_eq!(after(&[Broken, Broken]), [None, Some(false)]);
        assert_eq!(after(&[TimedOut]), [Some(false)]);
    }

    #[test]
    fn a_success_ends_runs_of_failures_and_a_failure_those_of_successes() {
        use Verdict::{Broken, Status};
        assert_eq!(after(&[Broken, Status(200), Broken]), [None, None, None]);
        assert_eq!(after(&[Status(200), Status(500), Status(200)]), [None, None, None]);
        // Failures of another kind do not end a run.
        assert_eq!(after(&[Broken, Status(500), Broken]), [None, None, Some(false)]);
    }

    #[test]
    fn a_status_in_neither_list_changes_nothing() {
        use Verdict::Status;
        assert_eq!(after(&[Status(200), Status(404), Status(200)]), [None, None, Some(true)]);
    }

    #[test]
    fn a_count_of_zero_turns_its_rule_off() {
        let off = Rule { tcp_failures: 0, ..rule() };
        let mut streak = Streak::default();
        assert!((0..300).all(|_| streak.count(Verdict::Broken, &off).is_none()));
    }
}
