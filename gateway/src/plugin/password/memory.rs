//! What a shard remembers of comparisons with slow hashes, and which of them are under way.
//!
//! Owns the tables of one plugin instance on one shard. No password is kept: an answer is found by a keyed hash of the
//! user's name, the password that was given and the text of the configuration, under a key of this process. So an answer
//! about a hash that is no longer configured is never found again.
//!
//! **Invariant.** Wrong passwords push out no answer about a right one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::hmac;

use super::pool::{self, Check, Full};
use super::{GIVEN_MAX, Password};
use crate::net::{self, clock};

/// Answers of one kind that are remembered: twice that at most.
const ENTRIES_MAX: usize = 4096;
/// Comparisons under way for one shard.
const PENDING_MAX: usize = 64;
/// Comparisons under way for one client address.
const PENDING_OF_CLIENT_MAX: usize = 16;
/// Between two looks for an answer.
const LOOK_PAUSE: Duration = Duration::from_millis(2);
/// How long a request waits for one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Stands for a name, a password and a hash.
pub type Fingerprint = [u8; 32];

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// Too many comparisons are under way.
    Full,
    /// It takes too long.
    Late,
}

/// The tables.
#[derive(Default)]
pub struct Memory {
    right: RefCell<Remembered>,
    wrong: RefCell<Remembered>,
    pending: RefCell<HashMap<Fingerprint, (IpAddr, Weak<Check>)>>,
}

/// Fingerprints and until when they count. Two tables, so that forgetting half of them is cheap.
#[derive(Default)]
struct Remembered {
    young: HashMap<Fingerprint, u64>,
    old: HashMap<Fingerprint, u64>,
}

impl Remembered {
    fn holds(&mut self, print: &Fingerprint, now_ns: u64) -> bool {
        if let Some(until) = self.young.get(print) {
            return now_ns < *until;
        }
        let Some(until) = self.old.remove(print).filter(|until| now_ns < *until) else { return false };
        self.insert(*print, until);
        true
    }

    fn insert(&mut self, print: Fingerprint, until_ns: u64) {
        if self.young.len() >= ENTRIES_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(print, until_ns);
    }
}

/// What the answer for these three is remembered under.
pub fn fingerprint(user: &[u8], given: &[u8], password: &Password) -> Fingerprint {
    static KEY: OnceLock<hmac::Key> = OnceLock::new();
    let key = KEY.get_or_init(|| hmac::Key::new(hmac::HMAC_SHA256, &secret()));
    let mut context = hmac::Context::with_key(key);
    for part in [user, given] {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    context.update(password.text().as_bytes());
    let mut print = [0; 32];
    print.copy_from_slice(context.sign().as_ref());
    print
}

fn secret() -> [u8; 32] {
    let mut secret = [0; 32];
    if aws_lc_rs::rand::fill(&mut secret).is_err() {
        // Never seen; without a secret the fingerprints must at least differ from process to process.
        secret[..8].copy_from_slice(&clock::now_ns().to_le_bytes());
    }
    secret
}

impl Memory {
    /// The answer, if it is remembered.
    pub fn known(&self, print: &Fingerprint, now_ns: u64) -> Option<bool> {
        if self.right.borrow_mut().holds(print, now_ns) {
            return Some(true);
        }
        self.wrong.borrow_mut().holds(print, now_ns).then_some(false)
    }

    /// Begins a comparison, or joins the one that is under way.
    ///
    /// # Errors
    /// [`Busy::Full`].
    pub fn begin(
        self: &Rc<Self>,
        print: Fingerprint,
        client: IpAddr,
        password: &Arc<Password>,
        given: &[u8],
    ) -> Result<Waiting, Busy> {
        let mut pending = self.pending.borrow_mut();
        let running = pending.get(&print).and_then(|(_, check)| check.upgrade());
        let check = match running {
            Some(check) => check,
            None => {
                let of_client = pending.values().filter(|(other, _)| *other == client).count();
                if pending.len() >= PENDING_MAX || of_client >= PENDING_OF_CLIENT_MAX {
                    return Err(Busy::Full);
                }
                // Longer ones are wrong anyway; a part is compared for the time that it takes.
                let given = &given[..given.len().min(GIVEN_MAX)];
                let check = Rc::new(pool::check(password, given).map_err(|Full| Busy::Full)?);
                pending.insert(print, (client, Rc::downgrade(&check)));
                check
            }
        };
        Ok(Waiting { memory: self.clone(), print, check })
    }
}

/// A request that waits for a comparison.
pub struct Waiting {
    memory: Rc<Memory>,
    print: Fingerprint,
    check: Rc<Check>,
}

impl Waiting {
    /// The answer, which is remembered for `ttl`.
    ///
    /// # Errors
    /// [`Busy::Late`].
    pub async fn answer(self, ttl: Duration) -> Result<bool, Busy> {
        let end = clock::now_ns().saturating_add(PATIENCE.as_nanos() as u64);
        let answer = loop {
            if let Some(answer) = self.check.answer() {
                break answer;
            }
            if clock::now_ns() >= end {
                return Err(Busy::Late);
            }
            net::sleep(LOOK_PAUSE).await;
        };
        let until = clock::now_ns().saturating_add(ttl.as_nanos() as u64);
        let table = if answer { &self.memory.right } else { &self.memory.wrong };
        table.borrow_mut().insert(self.print, until);
        Ok(answer)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if Rc::strong_count(&self.check) == 1 {
            self.memory.pending.borrow_mut().remove(&self.print);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_ones_push_out_no_right_one_and_all_are_bounded() {
        let memory = Memory::default();
        memory.right.borrow_mut().insert([1; 32], 100);
        for number in 0..3 * ENTRIES_MAX as u64 {
            let mut print = [0; 32];
            print[..8].copy_from_slice(&number.to_le_bytes());
            memory.wrong.borrow_mut().insert(print, 100);
        }
        assert_eq!(memory.known(&[1; 32], 99), Some(true));
        assert_eq!(memory.known(&[1; 32], 100), None, "its time is over");
        assert_eq!(memory.known(&[0; 32], 99), None, "long forgotten");
        let wrong = memory.wrong.borrow();
        assert!(wrong.young.len() + wrong.old.len() <= 2 * ENTRIES_MAX);
    }

    #[test]
    fn what_is_asked_for_often_is_not_forgotten() {
        let mut remembered = Remembered::default();
        remembered.insert([9; 32], 100);
        for number in 0..5 * ENTRIES_MAX as u64 {
            let mut print = [0; 32];
            print[..8].copy_from_slice(&number.to_le_bytes());
            remembered.insert(print, 100);
            if number % 64 == 0 {
                assert!(remembered.holds(&[9; 32], 50), "{number}");
            }
        }
    }

    #[test]
    fn a_fingerprint_is_of_all_three() {
        let hash = |text: &str| Password::read(text).expect("a password");
        let print = |user: &str, given: &str, known: &str| {
            fingerprint(user.as_bytes(), given.as_bytes(), &hash(known))
        };
        let one = print("ann", "secret", "x");
        assert_eq!(one, print("ann", "secret", "x"));
        for other in [print("anns", "ecret", "x"), print("ann", "secre", "tx"), print("ann", "secret", "y")] {
            assert_ne!(one, other);
        }
    }
}
