//! Phase 5: one try on one target, and whether there is another.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use portcullis_abi::Reason;
use portcullis_config::HashKey;

use super::expiry::Limit;
use super::failure::Failure;
use super::finish::Record;
use super::plan::Plan;
use super::refuse;
use super::shard::Shard;
use crate::http::{Known, RequestHead};
use crate::net::clock;
use crate::plugin::{Cx, Response};
use crate::snapshot::LocalService;
use crate::upstream::balance::{TargetIndex, Tried};
use crate::upstream::health::{Admission, Outcome, Trial};
use crate::upstream::retry::{self, RetryDecision, Where};
use crate::upstream::{Connected, Load, LocalUpstream, Pool, Preamble, TargetSpec};

/// How long a failed attempt waits for the client's next bytes, to leave its receiving open: for the next attempt, or
/// so that the answer is not lost to a reset.
pub const SETTLE: Duration = Duration::from_millis(100);

/// A target that an attempt goes to.
pub struct Target<'a> {
    index: TargetIndex,
    spec: &'a TargetSpec,
    pool: &'a Rc<Pool>,
    trial: Cell<Option<Trial>>,
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
    policy: retry::Policy,
    connect_timeout: Duration,
    /// When the exchange is to be over.
    limit: Option<Limit>,
    preamble: Preamble,
    /// The connection is to become a tunnel.
    tunnel: bool,
    idempotent: bool,
    replayable: bool,
    hash: Option<u64>,
    tried: Tried,
    retries_made: u32,
    /// The last connection was stale: the same target, on a new one.
    stale: Option<TargetIndex>,
    /// That has happened before.
    was_stale: bool,
    last: Option<Failure>,
}

impl<'a> Attempts<'a> {
    /// No attempt made yet.
    pub fn new(plan: &Plan<'a>, cx: &Cx<'_>, request: &RequestHead) -> Self {
        let service = plan.local_service;
        let upstream = &*service.upstream;
        upstream.budget.borrow_mut().earn();
        let hash = hash_of(&upstream.spec.hash_on, cx, request)
            .or_else(|| hash_of(&upstream.spec.hash_fallback, cx, request));
        Self {
            upstream,
            service,
            policy: retry::Policy { retries: plan.service.retries, ..retry::Policy::default() },
            connect_timeout: plan.times.connect,
            limit: plan.limit,
            preamble: plan.preamble.clone(),
            tunnel: plan.upgrade.is_some(),
            idempotent: plan.method.is_idempotent(),
            replayable: plan.in_hand.is_some(),
            hash,
            tried: Tried::default(),
            retries_made: 0,
            stale: None,
            was_stale: false,
            last: None,
        }
    }

    /// The target of the next attempt; `None` when there is none.
    pub fn pick(&mut self, now_ns: u64) -> Option<Target<'a>> {
        let spec = &self.upstream.spec;
        if let Some(index) = self.stale.take() {
            return Some(self.target(index, None));
        }
        loop {
            let mut picked = self.upstream.pick(&self.tried, self.hash, now_ns);
            if picked.is_none() && self.last.is_some() {
                // Everybody was tried, and there is leave to try again.
                picked = self.upstream.pick(&Tried::default(), self.hash, now_ns);
            }
            let index = picked?;
            match spec.health.admit(index, now_ns, &spec.health_policy) {
                Admission::Normal => return Some(self.target(index, None)),
                Admission::Trial(trial) => return Some(self.target(index, Some(trial))),
                Admission::Refused if self.tried.contains(index) => return None,
                Admission::Refused => self.tried.insert(index),
            }
        }
    }

    fn target(&self, index: TargetIndex, trial: Option<Trial>) -> Target<'a> {
        Target {
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
        let stale = matches!(self.last, Some(Failure { reused: true, kind: retry::Failure::Reset, .. }));
        if !stale && let Some(connection) = target.pool.reuse(now_ns, self.preamble.owner, self.tunnel) {
            shard.metrics.upstream_reuses.inc();
            return Ok(connection);
        }
        shard.metrics.upstream_connects.inc();
        let left = self.limit.map_or(Duration::MAX, |limit| limit.left(now_ns));
        if left.is_zero() {
            return Err(self.limit.map_or(Failure::client_gone(), |limit| Failure::expired(limit.reason)));
        }
        let connection =
            target.pool.connect(self.connect_timeout.min(left), self.preamble.clone(), self.tunnel);
        let connection = connection.await.map_err(Failure::connect)?;
        record.connected_ns = Some(clock::now_ns());
        Ok(connection)
    }

    /// Takes note of a response.
    pub fn answered(&self, target: &Target<'_>, status: u16, now_ns: u64) {
        self.report(target, Outcome::Status(status), now_ns);
    }

    /// Whether a failed attempt is followed by another.
    pub fn again(&mut self, target: &Target<'_>, mut failure: Failure, now_ns: u64) -> bool {
        // Once: a shared connection may be kept, and refuse again.
        failure.reused &= !self.was_stale;
        self.was_stale |= failure.reused;
        let stale = failure.reused && failure.kind == retry::Failure::Reset;
        let outcome = match failure.kind {
            _ if stale => Outcome::Unknown,
            retry::Failure::Connect | retry::Failure::Reset | retry::Failure::BadResponse => {
                Outcome::TcpFailure
            }
            retry::Failure::ConnectTimeout | retry::Failure::ResponseTimeout => Outcome::Timeout,
            retry::Failure::Status(status) => Outcome::Status(status),
            retry::Failure::ClientGone => Outcome::Unknown,
        };
        self.report(target, outcome, now_ns);
        let attempt = retry::Attempt {
            failure: failure.kind,
            bytes_sent: u64::from(failure.sent),
            reused_connection: failure.reused,
            response_started: false,
            idempotent: self.idempotent,
            body_replayable: self.replayable || !failure.body_touched,
            retries_made: self.retries_made,
        };
        let decision = retry::decide(&attempt, &self.policy, &mut self.upstream.budget.borrow_mut(), now_ns);
        self.last = Some(failure);
        match decision {
            RetryDecision::Stop(_) => return false,
            RetryDecision::Retry(Where::Anywhere) => self.stale = Some(target.index),
            RetryDecision::Retry(Where::AnotherTarget) => {
                self.retries_made += 1;
                self.tried.insert(target.index);
            }
        }
        true
    }

    fn report(&self, target: &Target<'_>, outcome: Outcome, now_ns: u64) {
        let spec = &self.upstream.spec;
        let change =
            spec.health.report(target.index, now_ns, &spec.health_policy, target.trial.take(), outcome);
        super::finish::health_changed(spec, target.spec, change);
    }

    /// The answer when there is no further attempt: the last failure's, or that nobody could be asked.
    pub fn give_up(&self) -> Box<Response> {
        match &self.last {
            Some(failure) => refuse::response(failure.status, failure.reason),
            None => refuse::response(503, Reason::NoHealthyTarget),
        }
    }
}

/// What consistent hashing goes by; `None` when the request does not have it.
fn hash_of(key: &HashKey, cx: &Cx<'_>, request: &RequestHead) -> Option<u64> {
    let mut hasher = DefaultHasher::new(); // fixed keys: the same on every shard and node
    match key {
        HashKey::None | HashKey::UriCapture(_) => return None,
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
