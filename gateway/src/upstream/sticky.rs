//! Sessions that stay at their target: the cookie that names it, and the proof that we made it.
//!
//! Owns the value of the cookie: 16 hex digits that stand for the target and 32 of an HMAC-SHA256 over the upstream's name
//! and those. Never says where a target is. Invariant: a value that this key did not sign names nobody, and comparing takes
//! the same time whatever it is.

use std::sync::Arc;

use aws_lc_rs::{hmac, rand};

/// Octets of the proof that are kept: 128 bits.
const PROOF: usize = 16;
/// Length of a value.
const LENGTH: usize = 2 * (8 + PROOF);

/// The cookie of one upstream.
pub struct Sticky {
    /// Name of the cookie.
    pub name: Box<str>,
    /// What follows its value.
    pub attributes: Box<str>,
    /// Name of the upstream: what one signs says nothing at another.
    upstream: Arc<str>,
    key: Arc<Key>,
}

/// What cookies are signed with. Outlives reloads.
pub struct Key {
    hmac: hmac::Key,
    /// Made from a secret; else random.
    from_secret: bool,
}

impl Key {
    /// From a secret of the operator's.
    pub fn of_secret(secret: &[u8]) -> Arc<Self> {
        Arc::new(Self { hmac: hmac::Key::new(hmac::HMAC_SHA256, secret), from_secret: true })
    }

    /// One that nobody knows. `None`: there is no randomness to be had.
    pub fn random() -> Option<Arc<Self>> {
        let hmac = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new()).ok()?;
        Some(Arc::new(Self { hmac, from_secret: false }))
    }
}

impl Sticky {
    /// The cookie of `upstream`.
    pub fn new(upstream: Arc<str>, name: &str, attributes: &str, key: Arc<Key>) -> Self {
        Self { name: name.into(), attributes: attributes.into(), upstream, key }
    }

    /// What tells one from another.
    pub fn facts(&self) -> impl std::fmt::Debug {
        let Self { name, attributes, upstream, key } = self;
        // What it signs shows whether the key is the same, and not what it is.
        (name.clone(), attributes.clone(), upstream.clone(), key.from_secret, self.cookie(0))
    }

    /// The key, where it is one that only this process knows: the next generation goes on with it.
    pub fn random_key(&self) -> Option<Arc<Key>> {
        (!self.key.from_secret).then(|| self.key.clone())
    }

    /// The field value that has a client come back to the target that `target` stands for.
    pub fn cookie(&self, target: u64) -> String {
        let proof = self.proof(target);
        let hex: String = proof.as_ref()[..PROOF].iter().map(|octet| format!("{octet:02x}")).collect();
        format!("{}={target:016x}{hex}{}", self.name, self.attributes)
    }

    /// What the target of a session was; `None` for a value that is not ours.
    pub fn read(&self, value: &[u8]) -> Option<u64> {
        let value =
            std::str::from_utf8(value).ok().filter(|value| value.len() == LENGTH && value.is_ascii())?;
        let (target, proof) = value.split_at(16);
        let target = u64::from_str_radix(target, 16).ok()?;
        let mut given = [0; PROOF];
        for (octet, at) in given.iter_mut().zip((0..).step_by(2)) {
            *octet = u8::from_str_radix(proof.get(at..at + 2)?, 16).ok()?;
        }
        let expected = self.proof(target);
        let different =
            expected.as_ref().iter().zip(given).fold(0, |all, (ours, theirs)| all | (ours ^ theirs));
        (different == 0).then_some(target)
    }

    fn proof(&self, target: u64) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key.hmac);
        context.update(self.upstream.as_bytes());
        context.update(&[0]);
        context.update(&target.to_be_bytes());
        context.sign()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sticky(upstream: &str, secret: &[u8]) -> Sticky {
        Sticky::new(upstream.into(), "at", "; Path=/", Key::of_secret(secret))
    }

    fn value(cookie: &str) -> &[u8] {
        cookie
            .strip_prefix("at=")
            .and_then(|rest| rest.strip_suffix("; Path=/"))
            .expect("a cookie")
            .as_bytes()
    }

    #[test]
    fn what_it_signs_it_reads() {
        let sticky = sticky("many", b"secret");
        for target in [0, 7, u64::MAX] {
            assert_eq!(sticky.read(value(&sticky.cookie(target))), Some(target));
        }
    }

    #[test]
    fn what_others_made_or_changed_names_nobody() {
        let ours = sticky("many", b"secret");
        for other in [sticky("many", b"other"), sticky("few", b"secret")] {
            assert_eq!(ours.read(value(&other.cookie(7))), None);
        }
        let good = ours.cookie(7);
        let good = value(&good);
        for at in 0..good.len() {
            let mut changed = good.to_vec();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(ours.read(&changed), None, "octet {at}");
        }
        for value in
            [&b""[..], b"7", &good[..47], &[good, b"0"].concat(), &[b'+'; 48], "ü".repeat(24).as_bytes()]
        {
            assert_eq!(ours.read(value), None);
        }
    }

    #[test]
    fn a_random_key_can_be_handed_on_and_a_secret_needs_not() {
        let key = Key::random().expect("randomness");
        let (one, two) = (
            Sticky::new("many".into(), "at", "; Path=/", key.clone()),
            Sticky::new("many".into(), "at", "; Path=/", key),
        );
        assert_eq!(two.read(value(&one.cookie(3))), Some(3));
        assert!(one.random_key().is_some());
        assert!(sticky("many", b"secret").random_key().is_none());
    }
}
