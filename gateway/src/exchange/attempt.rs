//! Phase 5: one try on one target, and whether there is another.

use std::borrow::Cow;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use portcullis_abi::Reason;
use portcullis_config::HashKey;

use super::expiry::{Expiry, Limit};
use super::failure::Failure;
use super::finish::{Record, breaker_changed};
use super::plan::Plan;
use super::refuse;
use super::shard::Shard;
use crate::http::{Known, RequestHead};
use crate::net::{self, clock};
use crate::plugin::{Cx, Response};
use crate::snapshot::LocalService;
use crate::upstream::balance::{TargetIndex, Tried};
use crate::upstream::health::{Admission, Outcome, Trial};
use crate::upstream::retry::{self, RetryDecision, Where};
use crate::upstream::{
    Breakers, Broken, Connected, Leave, Load, LocalUpstream, Patience, Pool, Preamble, TargetSpec,
};

/// How long a failed attempt waits for the client's next bytes, to leave its receiving open: for the next attempt, or
/// so that the answer is not lost to a reset.
pub const SETTLE: Duration = Duration::from_millis(100);

/// A target that an attempt goes to.
pub struct Target<'a> {
    index: TargetIndex,
    spec: &'a TargetSpec,
    pool: &'a Rc<Pool>,
    trial: Cell<Option<Trial>>,
    /// Of the breakers; gone once they were told.
    leave: Cell<Option<Leave>>,
    /// When the attempt began.
    begun_ns: u64,
    /// Counts the attempt for balancers that go by load.
    _load: Load<'a>,
}

impl Target<'_> {
    pub fn address(&self) -> Option<SocketAddr> {
        self.spec.address
    }

    pub fn pool(&self) -> &Pool {
        self.pool
    }

    /// What its requests name as their host.
    pub fn host(&self) -> &[u8] {
        &self.spec.host
    }
}

/// The attempts of one exchange.
pub struct Attempts<'a> {
    upstream: &'a LocalUpstream,
    service: &'a LocalService,
    policy: &'a retry::Policy,
    connect_timeout: Duration,
    /// When the exchange is to be over.
    limit: Option<Limit>,
    preamble: Preamble,
    /// The connection is to become a tunnel.
    tunnel: bool,
    idempotent: bool,
    replayable: bool,
    hash: Option<u64>,
    /// Where the client's session is, until that was tried.
    session: Option<TargetIndex>,
    /// The same for good.
    known_session: Option<TargetIndex>,
    /// A cookie to hash by that the client has not had before.
    new_cookie: Option<String>,
    tried: Tried,
    retries_made: u32,
    /// The last connection was stale: the same target, on a new one.
    stale: Option<(TargetIndex, Leave)>,
    /// The budget has paid for the next attempt.
    granted: Cell<bool>,
    /// A breaker let nobody through, for so long, in ns.
    broken: Option<u64>,
    /// That has happened before.
    was_stale: bool,
    last: Option<Failure>,
}

impl<'a> Attempts<'a> {
    /// No attempt made yet.
    pub fn new(plan: &Plan<'a>, cx: &Cx<'_>, request: &RequestHead, shard: &Shard) -> Self {
        let service = plan.local_service;
        let upstream = &*service.upstream;
        upstream.budget.borrow_mut().earn();
        let spec = &*upstream.spec;
        let mut hash = hash_of(&spec.hash_on, cx, request);
        let mut new_cookie = None;
        if hash.is_none() {
            // As in Kong: a client without the cookie is given one, and hashed by it at once.
            new_cookie = cookie_for(&spec.hash_on, shard);
            if new_cookie.is_none() {
                hash = hash_of(&spec.hash_fallback, cx, request);
                new_cookie = cookie_for(&spec.hash_fallback, shard).filter(|_| hash.is_none());
            }
            hash = hash.or_else(|| new_cookie.as_ref().map(|cookie| hash_value(cookie_value(cookie))));
        }
        let session = spec.sticky.as_ref().and_then(|sticky| {
            let value = cookie(request.head.get_known(Known::Cookie)?, &sticky.name)?;
            spec.target_of(sticky.read(value)?)
        });
        Self {
            upstream,
            service,
            policy: &plan.service.retry,
            connect_timeout: plan.times.connect,
            limit: plan.limit,
            preamble: plan.preamble.clone(),
            tunnel: plan.upgrade.is_some(),
            idempotent: plan.method.is_idempotent(),
            replayable: plan.in_hand.is_some(),
            hash,
            session,
            known_session: session,
            new_cookie,
            tried: Tried::default(),
            retries_made: 0,
            stale: None,
            granted: Cell::new(false),
            broken: None,
            was_stale: false,
            last: None,
        }
    }

    /// The target of the next attempt; `None` when there is none.
    pub fn pick(&mut self, now_ns: u64) -> Option<Target<'a>> {
        if let Some((index, leave)) = self.stale.take() {
            return Some(self.target(index, None, leave, now_ns));
        }
        let mut leave = match self.upstream.enter(now_ns) {
            Ok(leave) => leave,
            Err(Broken(time)) => {
                self.broken = Some(time);
                return None;
            }
        };
        let picked = self.pick_admitted(&mut leave, now_ns);
        match picked {
            Some((index, trial)) => Some(self.target(index, trial, leave, now_ns)),
            None => {
                self.upstream.give_back(leave, None);
                self.broken = self.upstream.broken_for_ns(now_ns);
                None
            }
        }
    }

    fn pick_admitted(&mut self, leave: &mut Leave, now_ns: u64) -> Option<(TargetIndex, Option<Trial>)> {
        let spec = &self.upstream.spec;
        loop {
            let mut picked = self.session.take().filter(|&target| self.upstream.takes(target, now_ns));
            picked = picked.or_else(|| self.upstream.pick(&self.tried, self.hash, now_ns));
            if picked.is_none() && self.last.is_some() {
                // Everybody was tried, and there is leave to try again.
                picked = self.upstream.pick(&Tried::default(), self.hash, now_ns);
            }
            let index = picked?;
            let trial = match spec.health.admit(index, now_ns, &spec.health_policy) {
                Admission::Normal => Some(None),
                Admission::Trial(trial) => Some(Some(trial)),
                Admission::Refused => self.upstream.panics(now_ns).then_some(None),
            };
            match trial {
                Some(trial) if self.upstream.enter_target(leave, index, now_ns) => {
                    return Some((index, trial));
                }
                // Somebody else tries it: this trial says nothing.
                Some(trial) => {
                    spec.health.report(index, now_ns, &spec.health_policy, trial, Outcome::Unknown);
                }
                None => {}
            }
            if self.tried.contains(index) {
                return None;
            }
            self.tried.insert(index);
        }
    }

    fn target(&self, index: TargetIndex, trial: Option<Trial>, leave: Leave, now_ns: u64) -> Target<'a> {
        Target {
            leave: Cell::new(Some(leave)),
            begun_ns: now_ns,
            index,
            spec: &self.upstream.spec.targets[index.index()],
            pool: &self.service.pools[index.index()],
            trial: Cell::new(trial),
            _load: self.upstream.begin(index),
        }
    }

    /// A connection to the target: a kept one, unless the last kept one was stale, or a new one.
    pub async fn acquire(
        &self,
        shard: &Shard,
        target: &Target<'_>,
        record: &mut Record,
        now_ns: u64,
    ) -> Result<Connected, Failure> {
        record.sent_ns = Some(now_ns);
        let stale = self.last.is_some_and(|last| last.reused && is_end(last.kind));
        if !stale && let Some(connection) = target.pool.reuse(now_ns, self.preamble.owner, self.tunnel) {
            shard.metrics.upstream_reuses.inc();
            return Ok(connection);
        }
        shard.metrics.upstream_connects.inc();
        let left = self.limit.map_or(Duration::MAX, |limit| limit.left(now_ns));
        if left.is_zero() {
            return Err(self.limit.map_or(Failure::client_gone(), |limit| Failure::expired(limit.reason)));
        }
        let all = left.min(self.policy.per_try.unwrap_or(Duration::MAX));
        let patience = Patience { connect: self.connect_timeout, all };
        // Boxed: most requests find a connection, and need no room for making one.
        let connection = Box::pin(target.pool.connect(patience, self.preamble.clone(), self.tunnel));
        let connection = connection.await.map_err(|error| match self.limit {
            // Who has no more time says nothing about the target.
            Some(limit) if limit.left(clock::now_ns()).is_zero() => {
                Failure { sent: false, ..Failure::expired(limit.reason) }
            }
            _ => Failure::connect(error),
        })?;
        record.connected_ns = Some(clock::now_ns());
        Ok(connection)
    }

    /// How long the attempt may last from now on.
    pub fn left_of(&self, target: &Target<'_>) -> Duration {
        let Some(per_try) = self.policy.per_try else { return Duration::MAX };
        per_try.saturating_sub(Duration::from_nanos(clock::now_ns().saturating_sub(target.begun_ns)))
    }

    /// Takes note of a response.
    pub fn answered(&self, target: &Target<'_>, status: u16, now_ns: u64) {
        self.upstream.observe(target.index, now_ns.saturating_sub(target.begun_ns), now_ns);
        self.report(target, Outcome::Status(status), now_ns);
    }

    /// Whether a response is to be dropped for another attempt, because of its status.
    pub fn drops(&self, status: u16, now_ns: u64) -> bool {
        if !self.policy.on_statuses.contains(&status) {
            return false;
        }
        // A body that is not in hand may be anywhere by now.
        let failure = Failure::status(status).touching(true);
        let again = matches!(self.decide(&failure, false, now_ns), RetryDecision::Retry(_));
        self.granted.set(again);
        again
    }

    /// The fields that have the client come back to where it is served.
    pub fn cookies(&self, target: &Target<'_>) -> impl Iterator<Item = Cow<'_, str>> {
        let sticky = self.upstream.spec.sticky.as_ref().filter(|_| self.session_is_new(target));
        let session = sticky.map(|sticky| Cow::Owned(sticky.cookie(target.spec.mark)));
        session.into_iter().chain(self.new_cookie.as_deref().map(Cow::Borrowed))
    }

    /// Whether a failed attempt is followed by another.
    pub fn again(&mut self, target: &Target<'_>, mut failure: Failure, now_ns: u64) -> bool {
        // Once: a shared connection may be kept, and refuse again.
        failure.reused &= !self.was_stale;
        self.was_stale |= failure.reused;
        let stale = failure.reused && is_end(failure.kind);
        let outcome = match failure.kind {
            _ if stale => Outcome::Unknown,
            retry::Failure::Connect | retry::Failure::Reset | retry::Failure::BadResponse => {
                Outcome::TcpFailure
            }
            retry::Failure::ConnectTimeout | retry::Failure::ResponseTimeout => Outcome::Timeout,
            retry::Failure::Status(status) => Outcome::Status(status),
            // That the target is busy, or leaves, is no fault of its.
            retry::Failure::ClientGone | retry::Failure::Busy | retry::Failure::Refused => Outcome::Unknown,
        };
        if outcome == Outcome::Timeout {
            self.upstream.observe(target.index, now_ns.saturating_sub(target.begun_ns), now_ns);
        }
        let decision = match self.granted.take() {
            true => RetryDecision::Retry(Where::AnotherTarget),
            false => self.decide(&failure, self.has_other_address(target), now_ns),
        };
        self.last = Some(failure);
        match decision {
            RetryDecision::Retry(Where::Anywhere) => {
                self.stale = target.leave.take().map(|leave| (target.index, leave));
            }
            RetryDecision::Retry(Where::OtherAddress) => self.tried.insert(target.index),
            RetryDecision::Retry(Where::AnotherTarget) => {
                self.retries_made += 1;
                self.tried.insert(target.index);
            }
            RetryDecision::Stop(_) => {}
        }
        self.report(target, outcome, now_ns);
        !matches!(decision, RetryDecision::Stop(_))
    }

    fn decide(&self, failure: &Failure, other_address: bool, now_ns: u64) -> RetryDecision {
        let attempt = retry::Attempt {
            failure: failure.kind,
            bytes_sent: u64::from(failure.sent),
            reused_connection: failure.reused,
            response_started: false,
            idempotent: self.idempotent,
            body_replayable: self.replayable || !failure.body_touched,
            other_address,
            retries_made: self.retries_made,
        };
        retry::decide(&attempt, self.policy, &mut self.upstream.budget.borrow_mut(), now_ns)
    }

    /// Whether the name of the target stands for an address that was not tried, and may be.
    fn has_other_address(&self, target: &Target<'_>) -> bool {
        let targets = &self.upstream.spec.targets;
        let others = (0..).zip(targets).filter(|(_, other)| other.entry == target.spec.entry);
        others.map(|(index, _)| TargetIndex(index)).any(|index| {
            index != target.index
                && !self.tried.contains(index)
                && self.upstream.takes(index, target.begun_ns)
        })
    }

    /// The pause before another attempt, at the end of which a new reading of the clock is due. False: the exchange was
    /// ended from outside meanwhile.
    pub async fn rest(&mut self, expiry: &Expiry) -> bool {
        let counted = self.stale.is_none() && self.retries_made > 0;
        let longest = if counted { self.policy.longest_pause(self.retries_made - 1) } else { Duration::ZERO };
        let pause = self.upstream.random_part(longest);
        if pause.is_zero() {
            return true;
        }
        let mut sleep = pin!(net::sleep(pause));
        poll_fn(|cx| match expiry.poll(cx).is_ready() || sleep.as_mut().poll(cx).is_ready() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        if let Some(reason) = expiry.passed() {
            self.last = Some(Failure::expired(reason));
            return false;
        }
        true
    }

    fn report(&self, target: &Target<'_>, outcome: Outcome, now_ns: u64) {
        let spec = &self.upstream.spec;
        let change =
            spec.health.report(target.index, now_ns, &spec.health_policy, target.trial.take(), outcome);
        super::finish::health_changed(spec, target.spec, change);
        if let Some(leave) = target.leave.take() {
            let took_ns = now_ns.saturating_sub(target.begun_ns);
            for (of, change) in self.upstream.report(leave, target.index, outcome, took_ns, now_ns) {
                breaker_changed(spec, of, change);
            }
        }
    }

    /// The answer when there is no further attempt: the last failure's, or that nobody could be asked.
    pub fn give_up(&self) -> Box<Response> {
        match (&self.last, self.broken) {
            (Some(failure), _) => refuse::response(failure.status, failure.reason),
            (None, Some(time_ns)) => {
                let status = self.upstream.spec.breakers.as_ref().map_or(503, |b: &Breakers| b.status);
                let seconds = time_ns.div_ceil(1_000_000_000).max(1);
                refuse::response(status, Reason::BreakerOpen).with_field("Retry-After", seconds.to_string())
            }
            (None, None) => refuse::response(503, Reason::NoHealthyTarget),
        }
    }

    /// Whether the client does not know yet that it is served there.
    fn session_is_new(&self, target: &Target<'_>) -> bool {
        self.known_session != Some(target.index)
    }
}

/// The connection ended before the response.
fn is_end(kind: retry::Failure) -> bool {
    matches!(kind, retry::Failure::Reset | retry::Failure::Refused)
}

/// The field value that gives the client the cookie that is hashed, with a new value; `None` where none is.
fn cookie_for(key: &HashKey, shard: &Shard) -> Option<String> {
    let HashKey::Cookie { name, path } = key else { return None };
    let id = shard.next_request_id();
    Some(format!("{name}={}; Path={path}", String::from_utf8_lossy(&id)))
}

/// The value out of what [`cookie_for`] made.
fn cookie_value(field: &str) -> &[u8] {
    let value = field.split_once('=').map_or("", |(_, rest)| rest);
    value.split(';').next().unwrap_or_default().as_bytes()
}

fn hash_value(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What consistent hashing goes by; `None` when the request does not have it.
fn hash_of(key: &HashKey, cx: &Cx<'_>, request: &RequestHead) -> Option<u64> {
    let mut hasher = DefaultHasher::new(); // fixed keys: the same on every shard and node
    match key {
        HashKey::None => return None,
        HashKey::UriCapture(name) => cx.captures.get(name)?.hash(&mut hasher),
        HashKey::Consumer => cx.consumers.consumer(cx.identity.consumer?).id.hash(&mut hasher),
        HashKey::Ip => cx.client.hash(&mut hasher),
        HashKey::Header(name) => request.head.get(name)?.hash(&mut hasher),
        HashKey::Cookie { name, .. } => {
            cookie(request.head.get_known(Known::Cookie)?, name)?.hash(&mut hasher)
        }
        HashKey::Path => request.path().hash(&mut hasher),
        HashKey::QueryArgument(name) => query_argument(request.query()?, name)?.hash(&mut hasher),
    }
    Some(hasher.finish())
}

fn cookie<'h>(field: &'h [u8], name: &str) -> Option<&'h [u8]> {
    field
        .split(|&b| b == b';')
        .find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn query_argument<'q>(query: &'q [u8], name: &str) -> Option<&'q [u8]> {
    query.split(|&b| b == b'&').find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}
