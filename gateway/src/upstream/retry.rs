//! Whether a failed attempt is followed by another.
//!
//! Owns the decision and the budget. Sends nothing and reads no clock. Invariant: a request that may have taken effect
//! at a target is never sent twice unless its method says that twice is as good as once, and nothing is sent again
//! once the client has seen a byte of an answer.
//!
//! The first line of the table that applies decides:
//!
//! | # | condition | decision |
//! |---|---|---|
//! | 1 | the answer has begun towards the client | stop: response started |
//! | 2 | the client left | stop: client gone |
//! | 3 | part of the request body was read and is no longer there | stop: body gone |
//! | 4 | bytes of the request were sent, the method is not idempotent (RFC 9110 section 9.2.2) | stop: not idempotent |
//! | 5 | a reused connection ended before the response | retry anywhere, on a new connection |
//! | 6 | no connection was had, and the name of the target has another address | retry there, uncounted |
//! | 7 | `retries` attempts were repeated already | stop: attempts spent |
//! | 8 | the policy does not list the failure | stop: not retryable |
//! | 9 | the budget is spent | stop: budget spent |
//! | 10 | otherwise | retry on another target |
//!
//! Line 4 is where Kong stands too: it repeats other methods only before anything was sent. Line 5: a target may close
//! an idle connection at any time (RFC 9112 section 9.3.1), so that says nothing of the target; it neither counts as
//! a retry nor costs the budget, and can not go round, since the next connection is a new one. Line 6 is what every client of a
//! name with several addresses does (RFC 8305), and ends with the addresses. A status asks for a
//! retry only where the policy lists it (none by default) and then counts as sent.

use std::time::Duration;

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Refused, unreachable, or the TLS handshake failed.
    Connect,
    /// No connection in time.
    ConnectTimeout,
    /// The target refused the stream, or closed the connection, without having seen the request.
    Refused,
    /// Every connection to the target is in use, and none came free.
    Busy,
    /// The connection ended before the response's head was complete.
    Reset,
    /// No response head in time.
    ResponseTimeout,
    /// The response's head is malformed.
    BadResponse,
    /// A complete head with this status.
    Status(u16),
    /// The client went away.
    ClientGone,
}

/// What happened to an attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// How it failed.
    pub failure: Failure,
    /// Bytes of the request that were handed to the kernel on a connection to the target.
    pub bytes_sent: u64,
    /// Whether the connection had served a request before.
    pub reused_connection: bool,
    /// Whether anything of a final response went to the client.
    pub response_started: bool,
    /// GET, HEAD, PUT, DELETE, OPTIONS, TRACE.
    pub idempotent: bool,
    /// Whether the whole body can be sent again: none, not read yet, or kept.
    pub body_replayable: bool,
    /// The name of the target has an address that was not tried yet.
    pub other_address: bool,
    /// Attempts before this one, without those that [`Where::Anywhere`] and [`Where::OtherAddress`] repeated.
    pub retries_made: u32,
}

/// What is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Most attempts after the first (Kong: `retries`, default 5; ours 1).
    pub retries: u32,
    /// After [`Failure::Connect`], [`Failure::ConnectTimeout`] and [`Failure::Busy`].
    pub on_connect: bool,
    /// After [`Failure::Refused`].
    pub on_refused: bool,
    /// After [`Failure::Reset`].
    pub on_reset: bool,
    /// After [`Failure::ResponseTimeout`].
    pub on_timeout: bool,
    /// After [`Failure::BadResponse`].
    pub on_bad_response: bool,
    /// After these statuses.
    pub on_statuses: Vec<u16>,
    /// Treat every method as idempotent. Only where the targets know duplicates.
    pub repeat_any_method: bool,
    /// Longest time of one attempt, to the head of its response.
    pub per_try: Option<Duration>,
    /// Bound of the first pause before another attempt; it doubles with each.
    pub pause: Duration,
    /// Bound of any pause.
    pub pause_max: Duration,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Once more.
    Retry(Where),
    /// Answer the client.
    Stop(Why),
}

/// Where to go for another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// The connection was stale. Do not count this, do not add the target to the tried ones, open a new connection.
    Anywhere,
    /// Another address of the same name. Do not count this.
    OtherAddress,
    /// Another one, if there is any.
    AnotherTarget,
}

/// Why an attempt was the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The client has seen part of an answer.
    ResponseStarted,
    /// Nobody waits for an answer.
    ClientGone,
    /// `retries` is used up.
    AttemptsSpent,
    /// The policy does not repeat after this failure.
    NotRetryable,
    /// The body was streamed and can not be had again.
    BodyGone,
    /// The target may have acted on the request.
    NotIdempotent,
    /// Too large a share of the traffic are retries already.
    BudgetSpent,
}

/// Tokens that retries cost, of one shard for one upstream. A request earns a fifth of a token and a retry costs one,
/// hence retries stay below 20 % of the requests however long an outage lasts; and each second earns what keeps a
/// quiet upstream at 3 retries a second. Without this a struggling upstream gets its load doubled by those who mean
/// well.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Thousandths of a token.
    balance: u64,
    per_request: u64,
    per_second: u64,
    /// Until when time has been credited, in ns.
    credited: u64,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            retries: 1,
            on_connect: true,
            on_refused: true,
            on_reset: true,
            on_timeout: false,
            on_bad_response: false,
            on_statuses: Vec::new(),
            repeat_any_method: false,
            per_try: None,
            pause: Duration::from_millis(25),
            pause_max: Duration::from_millis(250),
        }
    }
}

impl Policy {
    fn lists(&self, failure: Failure) -> bool {
        match failure {
            Failure::Connect | Failure::ConnectTimeout | Failure::Busy => self.on_connect,
            Failure::Refused => self.on_refused,
            Failure::Reset => self.on_reset,
            Failure::ResponseTimeout => self.on_timeout,
            Failure::BadResponse => self.on_bad_response,
            Failure::Status(status) => self.on_statuses.contains(&status),
            Failure::ClientGone => false,
        }
    }
}

impl Policy {
    /// How long to wait at most before retry number `number`, from 0: a random part of it is waited, or those who failed
    /// together would come back together.
    pub fn longest_pause(&self, number: u32) -> Duration {
        self.pause.saturating_mul(1 << number.min(16)).min(self.pause_max)
    }
}

impl Budget {
    /// Retries up to `percent` of the requests, and at least `min_per_second` a second.
    pub fn new(percent: u32, min_per_second: u32) -> Budget {
        let per_second = u64::from(min_per_second) * TOKEN;
        Budget { balance: per_second, per_request: u64::from(percent) * TOKEN / 100, per_second, credited: 0 }
    }

    /// Counts a request; call it once each, at the first attempt.
    pub fn earn(&mut self) {
        self.balance = (self.balance + self.per_request).min(MOST.max(self.per_second));
    }

    /// Takes a token if there is one. `now` in ns.
    fn take(&mut self, now: u64) -> bool {
        let elapsed = now.saturating_sub(self.credited).min(SECOND);
        let earned = self.per_second * elapsed / SECOND;
        if earned > 0 {
            // Only as far as was paid for, or frequent calls would lose the fractions.
            self.credited = now - (elapsed - earned * SECOND / self.per_second);
            // Time fills up to the minimum and no further: a quiet hour is no reason for a storm.
            self.balance = (self.balance + earned).min(self.per_second.max(self.balance));
        }
        let paid = self.balance.checked_sub(TOKEN);
        self.balance = paid.unwrap_or(self.balance);
        paid.is_some()
    }
}

impl Default for Budget {
    fn default() -> Budget {
        Budget::new(20, 3)
    }
}

/// Whether `attempt` is followed by another; if so, takes the retry from the budget. `now` in ns.
pub fn decide(attempt: &Attempt, policy: &Policy, budget: &mut Budget, now: u64) -> RetryDecision {
    if let Some(why) = unsafe_to_repeat(attempt, policy) {
        return RetryDecision::Stop(why);
    }
    if attempt.reused_connection && matches!(attempt.failure, Failure::Reset | Failure::Refused) {
        return RetryDecision::Retry(Where::Anywhere);
    }
    if attempt.other_address && matches!(attempt.failure, Failure::Connect | Failure::ConnectTimeout) {
        return RetryDecision::Retry(Where::OtherAddress);
    }
    if attempt.retries_made >= policy.retries {
        return RetryDecision::Stop(Why::AttemptsSpent);
    }
    if !policy.lists(attempt.failure) {
        return RetryDecision::Stop(Why::NotRetryable);
    }
    if !budget.take(now) {
        return RetryDecision::Stop(Why::BudgetSpent);
    }
    RetryDecision::Retry(Where::AnotherTarget)
}

/// Lines 1 to 4.
fn unsafe_to_repeat(attempt: &Attempt, policy: &Policy) -> Option<Why> {
    // A status is proof that the target knows of the request, whatever the count says.
    let touched = attempt.bytes_sent > 0 || matches!(attempt.failure, Failure::Status(_));
    if attempt.response_started {
        return Some(Why::ResponseStarted);
    }
    if attempt.failure == Failure::ClientGone {
        return Some(Why::ClientGone);
    }
    if !attempt.body_replayable {
        return Some(Why::BodyGone);
    }
    if touched && !attempt.idempotent && !policy.repeat_any_method {
        return Some(Why::NotIdempotent);
    }
    None
}

const TOKEN: u64 = 1000;
const SECOND: u64 = 1_000_000_000;

/// A blip that fails a hundred requests at once may retry them all.
const MOST: u64 = 100 * TOKEN;

#[cfg(test)]
mod tests;
