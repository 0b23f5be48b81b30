//! Health of targets as their own traffic shows it: consecutive failures eject a target for a while, then one request
//! at a time tries whether it is back.
//!
//! Owns the words that all shards share, one per target, and their transitions. Reads no clock (`now` is an argument,
//! nanoseconds of CLOCK_MONOTONIC), sends no probe, takes no lock. Invariant: the number of targets that are not
//! [`Phase::Healthy`] never exceeds [`Group::most_ejected`] and equals the group's count once no call is running.
//!
//! ```text
//!            threshold reached, share of ejected allows it
//!  Healthy ────────────────────────────────────────────────► Ejected until T
//!     ▲  ▲                                                    │       ▲
//!     │  │ probe says up                  now ≥ T: one caller │       │ failure: T = now + base × n
//!     │  └────────────────────────────┐   wins the trial      ▼       │ no verdict: T = now
//!     └────────────────────────────── Trial, open until its deadline ─┘
//!        enough successes                (a trial that is never reported does not block the next)
//! ```
//!
//! | phase | report of | success | failure | neutral |
//! |---|---|---|---|---|
//! | Healthy | any request | counters to 0 | counter of its kind + 1; at the threshold: eject | – |
//! | Ejected | a request admitted before | – | – | – |
//! | Trial | the trial | successes + 1; enough: Healthy, else next trial at once | Ejected, longer | next trial at once |
//! | Trial | another request | – | – | – |
//!
//! Kong keeps a counter for each kind of failure (`passive.unhealthy.{tcp_failures,timeouts,http_failures}`), which a
//! success resets; so do we, and add one over all kinds. Where Kong differs: a target ejected passively never comes
//! back by itself there; a status in neither list freezes nothing here.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::balance::TargetIndex;
use word::{Kind, LONGEST_NS, Word, ticks};

mod word;

/// When a target is ejected, for how long, and what counts as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Consecutive failures of any kind; 0: not counted.
    pub failures: u8,
    /// Consecutive refused, reset or unreachable connections; 0: not counted.
    pub tcp_failures: u8,
    /// Consecutive time-outs; 0: not counted.
    pub timeouts: u8,
    /// Consecutive failing statuses; 0: not counted.
    pub http_failures: u8,
    /// Successful trials until a target is healthy again; 0 means 1.
    pub successes: u8,
    /// What each status says about the target.
    pub statuses: Statuses,
    /// First ejection, in ns; the n-th in a row lasts n times as long. Each such time spent in health takes one off n.
    pub ejection_ns: u64,
    /// Longest ejection, in ns.
    pub ejection_max_ns: u64,
    /// Share of the targets that may be ejected at once, 0 to 100, rounded down to whole targets: with 50 a single
    /// target is never ejected, since the only target is always the best one there is.
    pub ejected_max_percent: u8,
    /// After so long, in ns, a trial without a report no longer blocks the next.
    pub trial_ns: u64,
}

/// Success, failure, or neither, for each status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses {
    success: [u64; 10],
    failure: [u64; 10],
}

/// What a request says about its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target answered with this status.
    Status(u16),
    /// Connecting failed, or the connection broke before the end of the response.
    TcpFailure,
    /// Connecting or the response took too long.
    Timeout,
    /// Nothing: the client left, or the fault is ours.
    Unknown,
}

/// Leave to send a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// As usual.
    Normal,
    /// The one request that tries an ejected target; hand it to [`Group::report`].
    Trial(Trial),
    /// Ejected, or somebody else's trial is under way.
    Refused,
}

/// The right to report on a trial. Not to be copied: one admission, one report.
#[must_use = "a trial that is not reported blocks the target until its deadline"]
#[derive(Debug, PartialEq, Eq)]
pub struct Trial(u32);

/// What a report changed; for counters and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing worth saying.
    None,
    /// Ejected for so long, in ns.
    Ejected(u64),
    /// Would have been ejected, but too many are already.
    Kept,
    /// Healthy again.
    Restored,
    /// Taken out by probes.
    ProbedDown,
}

/// Phase of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Takes traffic.
    Healthy,
    /// Takes none until a time.
    Ejected,
    /// One request is trying it.
    Trial,
}

/// What is known of one target, for `/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// By traffic.
    pub phase: Phase,
    /// By probes; true where nothing probes.
    pub probed_up: bool,
    /// Ejections in a row.
    pub ejections: u8,
    /// Failures in a row since the last success: connections, time-outs, statuses.
    pub failures: [u8; 3],
}

/// The targets of one upstream. Shared by all shards.
#[derive(Debug)]
pub struct Group {
    records: Box<[Record]>,
    /// How many records are not healthy, or about to be.
    ejected: AtomicU32,
}

#[derive(Debug)]
struct Record {
    /// A [`Word`].
    word: AtomicU64,
    probed_down: AtomicBool,
}

impl Default for Policy {
    fn default() -> Policy {
        const SECOND: u64 = 1_000_000_000;
        Policy {
            failures: 5,
            tcp_failures: 0,
            timeouts: 0,
            http_failures: 0,
            successes: 1,
            statuses: Statuses::default(),
            ejection_ns: 30 * SECOND,
            ejection_max_ns: 300 * SECOND,
            ejected_max_percent: 50,
            trial_ns: 30 * SECOND,
        }
    }
}

impl Statuses {
    /// From lists; what is in neither is neutral, what is in both a failure. Statuses past 639 are neutral.
    pub fn new(success: &[u16], failure: &[u16]) -> Statuses {
        let mut statuses = Statuses { success: [0; 10], failure: [0; 10] };
        for (list, set) in [(success, &mut statuses.success), (failure, &mut statuses.failure)] {
            for status in list {
                if let Some(word) = set.get_mut(usize::from(status / 64)) {
                    *word |= 1 << (status % 64);
                }
            }
        }
        statuses
    }

    /// `Some(true)` for a success, `Some(false)` for a failure.
    pub fn verdict(&self, status: u16) -> Option<bool> {
        let within = |set: &[u64; 10]| {
            set.get(usize::from(status / 64)).is_some_and(|word| word >> (status % 64) & 1 == 1)
        };
        if within(&self.failure) {
            return Some(false);
        }
        within(&self.success).then_some(true)
    }
}

impl Default for Statuses {
    /// 500, 502, 503 and 504 are failures. 408 and 429 speak of the client's or everybody's pace, other 5xx of the
    /// request (501, 505, 511): neutral. The rest is success.
    fn default() -> Statuses {
        let success: Vec<u16> = (200..500).filter(|status| ![408, 429].contains(status)).collect();
        Statuses::new(&success, &[500, 502, 503, 504])
    }
}

impl Group {
    /// `len` healthy targets.
    pub fn new(len: usize) -> Group {
        Group::adopting(len, |_| None)
    }

    /// `len` targets that go on from what another group knows of them; healthy where `known` gives nothing. For a
    /// reload that changes the list; what does not change keeps its group. More targets may start ejected than the
    /// policy would eject; none is added until there is room.
    pub fn adopting<'g>(len: usize, known: impl Fn(usize) -> Option<(&'g Group, TargetIndex)>) -> Group {
        let mut ejected = 0;
        let adopt = |index| {
            let old = known(index).and_then(|(group, target)| group.record(target));
            let word = old.map_or(Word::HEALTHY, |old| Word(old.word.load(Ordering::Relaxed)));
            ejected += u32::from(word.phase() != Phase::Healthy);
            let down = old.is_some_and(|old| old.probed_down.load(Ordering::Relaxed));
            Record { word: AtomicU64::new(word.0), probed_down: AtomicBool::new(down) }
        };
        let records = (0..len).map(adopt).collect();
        Group { records, ejected: AtomicU32::new(ejected) }
    }

    /// Whether [`Group::admit`] would let a request through. One load; for the balancer.
    pub fn available(&self, target: TargetIndex, now: u64) -> bool {
        self.record(target).is_some_and(|record| {
            !record.probed_down.load(Ordering::Relaxed)
                && Word(record.word.load(Ordering::Relaxed)).is_open(ticks(now))
        })
    }

    /// Asks to send a request to the target that the balancer picked. Another shard may have won the trial since
    /// then: on [`Admission::Refused`] add the target to the tried ones and pick again.
    pub fn admit(&self, target: TargetIndex, now: u64, policy: &Policy) -> Admission {
        let Some(record) = self.record(target) else { return Admission::Refused };
        if record.probed_down.load(Ordering::Relaxed) {
            return Admission::Refused;
        }
        let now = ticks(now);
        let word = Word(record.word.load(Ordering::Relaxed));
        if word.phase() == Phase::Healthy {
            return Admission::Normal;
        }
        if !word.is_open(now) {
            return Admission::Refused;
        }
        let deadline = now.wrapping_add(ticks(policy.trial_ns.min(LONGEST_NS)).max(1));
        match record.swap(word, word.with_phase(Phase::Trial).with_time(deadline)) {
            Ok(()) => Admission::Trial(Trial(deadline)),
            // Somebody else's trial, or healthy in this very moment: the next pick sees which.
            Err(_) => Admission::Refused,
        }
    }

    /// Takes the outcome of a request into account. `trial` is what [`Group::admit`] gave.
    pub fn report(
        &self,
        target: TargetIndex,
        now: u64,
        policy: &Policy,
        trial: Option<Trial>,
        outcome: Outcome,
    ) -> Change {
        let Some(record) = self.record(target) else { return Change::None };
        let failure = match outcome {
            Outcome::TcpFailure => Some(Kind::Tcp),
            Outcome::Timeout => Some(Kind::Timeout),
            Outcome::Status(status) => match policy.statuses.verdict(status) {
                Some(true) => None,
                Some(false) => Some(Kind::Status),
                None => return self.report_neutral(record, now, trial),
            },
            Outcome::Unknown => return self.report_neutral(record, now, trial),
        };
        let mut word = Word(record.word.load(Ordering::Relaxed));
        loop {
            let result = match (word.phase(), failure) {
                (Phase::Healthy, None) => record.clear(word),
                (Phase::Healthy, Some(kind)) => self.count(record, word, now, policy, kind),
                (Phase::Trial, _) if trial.as_ref().is_some_and(|trial| trial.0 == word.time()) => {
                    self.conclude(record, word, now, policy, failure.is_none())
                }
                // Sent before the ejection, or a trial that overran its deadline: old news.
                (Phase::Ejected | Phase::Trial, _) => Ok(Change::None),
            };
            match result {
                Ok(change) => return change,
                Err(current) => word = current,
            }
        }
    }

    /// The verdict of probes. Up ends an ejection too, as in Kong: ask for it only when enough probes in a row since the
    /// ejection went well.
    pub fn set_probed(&self, target: TargetIndex, now: u64, up: bool) -> Change {
        let Some(record) = self.record(target) else { return Change::None };
        let was_down = record.probed_down.swap(!up, Ordering::Relaxed);
        match (up, was_down) {
            (false, false) => return Change::ProbedDown,
            (false, true) => return Change::None,
            (true, _) => {}
        }
        if was_down {
            self.begin(target, now);
        }
        let mut word = Word(record.word.load(Ordering::Relaxed));
        let mut restored = was_down;
        while word.phase() != Phase::Healthy {
            match record.swap(word, word.restored(ticks(now))) {
                Ok(()) => {
                    self.ejected.fetch_sub(1, Ordering::Relaxed);
                    restored = true;
                    break;
                }
                Err(current) => word = current,
            }
        }
        if restored { Change::Restored } else { Change::None }
    }

    /// For how long a target has been healthy again, in ns; `None` where it always was, is not now, or probes took it out.
    pub fn healthy_for_ns(&self, target: TargetIndex, now: u64) -> Option<u64> {
        let word = Word(self.record(target)?.word.load(Ordering::Relaxed));
        let since = word.time();
        let healthy = word.phase() == Phase::Healthy && since != 0;
        healthy.then(|| u64::from(ticks(now).wrapping_sub(since)) << word::TICK_SHIFT)
    }

    /// Marks a target as healthy since `now`, so that it starts slowly.
    pub fn begin(&self, target: TargetIndex, now: u64) {
        let Some(record) = self.record(target) else { return };
        let word = Word(record.word.load(Ordering::Relaxed));
        if word.phase() == Phase::Healthy {
            // Lost to a report: then it is not new any more.
            let _ = record.swap(word, word.restored(ticks(now).max(1)));
        }
    }

    /// Nobody probes any more: what probes said last must not stay for ever.
    pub fn forget_probes(&self) {
        self.records.iter().for_each(|record| record.probed_down.store(false, Ordering::Relaxed));
    }

    /// What is known of a target; `None` past the end.
    pub fn condition(&self, target: TargetIndex) -> Option<Condition> {
        let record = self.record(target)?;
        let word = Word(record.word.load(Ordering::Relaxed));
        let failures = match word.phase() {
            Phase::Healthy => [word.count(Kind::Tcp), word.count(Kind::Timeout), word.count(Kind::Status)],
            _ => [0; 3],
        };
        Some(Condition {
            phase: word.phase(),
            probed_up: !record.probed_down.load(Ordering::Relaxed),
            ejections: word.ejections(),
            failures,
        })
    }

    /// How many targets may be ejected at once under `policy`.
    pub fn most_ejected(&self, policy: &Policy) -> u32 {
        (self.records.len() as u64 * u64::from(policy.ejected_max_percent.min(100)) / 100) as u32
    }

    /// How many targets are ejected or on trial.
    pub fn ejected(&self) -> u32 {
        self.ejected.load(Ordering::Relaxed)
    }

    fn record(&self, target: TargetIndex) -> Option<&Record> {
        self.records.get(target.index())
    }

    fn report_neutral(&self, record: &Record, now: u64, trial: Option<Trial>) -> Change {
        let Some(trial) = trial else { return Change::None };
        let word = Word(record.word.load(Ordering::Relaxed));
        if word.phase() == Phase::Trial && word.time() == trial.0 {
            // Losing the race means that the trial is over already.
            let _ = record.swap(word, word.with_phase(Phase::Ejected).with_time(ticks(now)));
        }
        Change::None
    }

    /// One more failure of a healthy target.
    fn count(
        &self,
        record: &Record,
        word: Word,
        now: u64,
        policy: &Policy,
        kind: Kind,
    ) -> Result<Change, Word> {
        let counted = word.counted(kind);
        if !counted.reaches(policy, kind) {
            return record.swap(word, counted).map(|()| Change::None);
        }
        // The place is taken before the word says so, hence the count never passes the limit even between shards.
        let most = self.most_ejected(policy);
        let place = |ejected| (ejected < most).then_some(ejected + 1);
        if self.ejected.fetch_update(Ordering::Relaxed, Ordering::Relaxed, place).is_err() {
            return record.swap(word, counted).map(|()| Change::Kept);
        }
        let now = ticks(now);
        let decay = u64::from(now.wrapping_sub(word.time())) / u64::from(ticks(policy.ejection_ns).max(1));
        let before = u64::from(word.ejections()).saturating_sub(decay);
        let (ejected, span) = word.ejected(now, policy, before + 1);
        record.swap(word, ejected).map(|()| Change::Ejected(span)).inspect_err(|_| {
            self.ejected.fetch_sub(1, Ordering::Relaxed);
        })
    }

    /// The end of a trial.
    fn conclude(
        &self,
        record: &Record,
        word: Word,
        now: u64,
        policy: &Policy,
        success: bool,
    ) -> Result<Change, Word> {
        let now = ticks(now);
        if !success {
            let (ejected, span) = word.ejected(now, policy, u64::from(word.ejections()) + 1);
            return record.swap(word, ejected).map(|()| Change::Ejected(span));
        }
        let counted = word.counted(Kind::SUCCESS);
        if counted.count(Kind::SUCCESS) < policy.successes.max(1) {
            let again = counted.with_phase(Phase::Ejected).with_time(now);
            return record.swap(word, again).map(|()| Change::None);
        }
        record.swap(word, word.restored(now)).map(|()| {
            self.ejected.fetch_sub(1, Ordering::Relaxed);
            Change::Restored
        })
    }
}

impl Record {
    fn swap(&self, from: Word, to: Word) -> Result<(), Word> {
        match self.word.compare_exchange(from.0, to.0, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(current) => Err(Word(current)),
        }
    }

    /// A success of a healthy target, nearly every report there is: writes nothing unless there is something to clear,
    /// so that the line stays shared between the cores.
    fn clear(&self, word: Word) -> Result<Change, Word> {
        match word.without_counts() {
            clean if clean == word => Ok(Change::None),
            clean => self.swap(word, clean).map(|()| Change::None),
        }
    }
}

#[cfg(test)]
mod tests;
