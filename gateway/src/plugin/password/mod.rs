//! Passwords as the configuration writes them: plain, or by a hash that `htpasswd`, `mkpasswd` or `argon2` make.
//!
//! Owns the reading of hashes, the comparison, and [`Users`], the look-up by name. Hashes that are made to be slow are
//! compared by [`pool`]'s threads alone, never on a shard; [`memory`] is what shards remember of them.
//!
//! | begins with | is | slow |
//! |---|---|---|
//! | `$2a$`, `$2b$`, `$2x$`, `$2y$` | bcrypt | yes |
//! | `$argon2id$`, `$argon2i$`, `$argon2d$` | Argon2 (RFC 9106), in the PHC form | yes |
//! | `$apr1$`, `$1$` | MD5-crypt, Apache's and the older one | yes |
//! | `$5$`, `$6$` | SHA-256-crypt, SHA-512-crypt | yes |
//! | `{SHA}` | SHA-1 in base64 | |
//!
//! **Invariant.** A hash that is taken can be computed within the bounds below: one that would keep a thread for minutes
//! is a mistake of the configuration.

mod md5;
pub mod memory;
pub mod pool;

use std::collections::HashMap;
use std::sync::Arc;

use argon2::PasswordVerifier;
use portcullis_config::Secret;

use super::jwt::{Alphabet, base64};

/// Highest cost of bcrypt: some seconds.
const BCRYPT_COST_MAX: u32 = 16;
/// Most memory of Argon2, in KiB.
const ARGON2_MEMORY_MAX: u32 = 1 << 18;
/// Most passes of Argon2.
const ARGON2_PASSES_MAX: u32 = 32;
/// Most rounds of SHA-crypt: about a second.
const SHA_CRYPT_ROUNDS_MAX: u32 = 2_000_000;
/// Longest password that is compared with a slow hash, in bytes: some take longer for longer ones.
pub const GIVEN_MAX: usize = 1024;

/// A password that is known, plain or hashed.
#[derive(Debug)]
pub struct Password {
    kind: Kind,
    /// As it was written.
    text: Secret,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Sha1([u8; 20]),
    Md5Crypt,
    ShaCrypt,
    Bcrypt,
    Argon2,
}

impl Password {
    /// Reads what is a hash if it begins like one, and else the password itself.
    ///
    /// # Errors
    /// What is wrong with the hash; nothing of it is repeated.
    pub fn read(text: &str) -> Result<Self, String> {
        let kind = kind(text)?.unwrap_or(Kind::Plain);
        Ok(Self { kind, text: Secret::new(text) })
    }

    /// Reads a hash.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read_hash(text: &str) -> Result<Self, String> {
        match kind(text)? {
            Some(kind) => Ok(Self { kind, text: Secret::new(text) }),
            None => Err("it is no hash that is known: bcrypt, Argon2, apr1, SHA-crypt or {SHA}".into()),
        }
    }

    /// Whether a comparison takes so long that no shard may make it.
    pub fn is_slow(&self) -> bool {
        !matches!(self.kind, Kind::Plain | Kind::Sha1(_))
    }

    /// Whether `given` is the password. The time that it takes depends on `given` and on the kind of hash alone.
    pub fn is(&self, given: &[u8]) -> bool {
        let text = self.text.expose();
        if self.is_slow() && given.len() > GIVEN_MAX {
            return false;
        }
        match self.kind {
            Kind::Plain => same(text.as_bytes(), given),
            Kind::Sha1(hash) => same(&hash, &sha1(given)),
            Kind::Md5Crypt => md5::verify(text, given),
            Kind::ShaCrypt => sha_crypt::ShaCrypt::default().verify_password(given, text).is_ok(),
            Kind::Bcrypt => bcrypt::verify(given, text).unwrap_or(false),
            Kind::Argon2 => argon2::Argon2::default().verify_password(given, text).is_ok(),
        }
    }

    /// The text of the configuration.
    fn text(&self) -> &str {
        self.text.expose()
    }
}

/// What a text is by its beginning; `None` for what looks like no hash.
fn kind(text: &str) -> Result<Option<Kind>, String> {
    let begins = |all: &[&str]| all.iter().any(|one| text.starts_with(one));
    if let Some(encoded) = text.strip_prefix("{SHA}") {
        let bytes = base64(encoded.as_bytes(), Alphabet::Any);
        let hash = bytes.and_then(|bytes| <[u8; 20]>::try_from(&bytes[..]).ok());
        return hash
            .map(|hash| Some(Kind::Sha1(hash)))
            .ok_or_else(|| "{SHA} is not followed by 20 bytes in base64".into());
    }
    if begins(&["$2a$", "$2b$", "$2x$", "$2y$"]) {
        let parts: bcrypt::HashParts = text.parse().map_err(|_| "it is no whole bcrypt hash")?;
        return match parts.get_cost() {
            ..=BCRYPT_COST_MAX => Ok(Some(Kind::Bcrypt)),
            cost => Err(format!("its cost of {cost} is over {BCRYPT_COST_MAX}")),
        };
    }
    if text.starts_with("$argon2") {
        return check_argon2(text).map(|()| Some(Kind::Argon2));
    }
    if begins(&["$apr1$", "$1$"]) {
        return match md5::split(text) {
            Some(_) => Ok(Some(Kind::Md5Crypt)),
            None => Err("it is no whole MD5-crypt hash".into()),
        };
    }
    if begins(&["$5$", "$6$"]) {
        return check_sha_crypt(text).map(|()| Some(Kind::ShaCrypt));
    }
    Ok(None)
}

fn check_argon2(text: &str) -> Result<(), String> {
    let hash = argon2::PasswordHash::new(text).map_err(|_| "it is no whole Argon2 hash")?;
    argon2::Algorithm::try_from(hash.algorithm.as_str()).map_err(|_| "this kind of Argon2 is not known")?;
    let parameters = argon2::Params::try_from(&hash).map_err(|_| "its parameters are not those of Argon2")?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err("it is no whole Argon2 hash".into());
    }
    match (parameters.m_cost(), parameters.t_cost()) {
        (..=ARGON2_MEMORY_MAX, ..=ARGON2_PASSES_MAX) => Ok(()),
        _ => Err(format!("it asks for more than {ARGON2_MEMORY_MAX} KiB or {ARGON2_PASSES_MAX} passes")),
    }
}

fn check_sha_crypt(text: &str) -> Result<(), String> {
    let broken = || "it is no whole SHA-crypt hash".to_owned();
    let (wide, rest) = match text.split_at(3) {
        ("$5$", rest) => (43, rest),
        (_, rest) => (86, rest),
    };
    let rest = match rest.strip_prefix("rounds=") {
        None => rest,
        Some(rest) => {
            let (rounds, rest) = rest.split_once('$').ok_or_else(broken)?;
            match rounds.parse::<u32>() {
                Ok(1000..=SHA_CRYPT_ROUNDS_MAX) => rest,
                _ => return Err(format!("its rounds are not within 1000 and {SHA_CRYPT_ROUNDS_MAX}")),
            }
        }
    };
    let (salt, hash) = rest.split_once('$').ok_or_else(broken)?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    let whole = hash.len() == wide && hash.bytes().all(fits) && salt.len() <= 16 && !salt.is_empty();
    if whole { Ok(()) } else { Err(broken()) }
}

fn sha1(bytes: &[u8]) -> [u8; 20] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    let mut hash = [0; 20];
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// Whether two passwords are the same, in a time that depends on `given` alone.
pub fn same(known: &[u8], given: &[u8]) -> bool {
    let mut differences = known.len() ^ given.len();
    for (at, byte) in given.iter().enumerate() {
        let expected = known.get(at % known.len().max(1)).copied().unwrap_or(0);
        differences |= usize::from(std::hint::black_box(byte ^ expected));
    }
    differences == 0
}

/// Passwords by the names of users.
#[derive(Debug)]
pub struct Users<T> {
    users: HashMap<String, (Arc<Password>, T)>,
    /// What the passwords of unknown users are compared with, so that they are refused as slowly as wrong ones.
    decoy: Arc<Password>,
}

impl<T> Default for Users<T> {
    fn default() -> Self {
        let decoy = Arc::new(Password { kind: Kind::Plain, text: Secret::default() });
        Self { users: HashMap::new(), decoy }
    }
}

/// What is known of a user name.
pub struct Found<'u, T> {
    /// To be compared with what was given, whether there is such a user or not.
    pub password: &'u Arc<Password>,
    /// Whose it is; for nobody's, the comparison does not count.
    pub who: Option<&'u T>,
}

impl<T> Users<T> {
    /// Adds a user. False where the name is taken.
    pub fn insert(&mut self, name: String, password: Password, who: T) -> bool {
        let password = Arc::new(password);
        if password.is_slow() && !self.decoy.is_slow() {
            self.decoy = password.clone();
        }
        self.users.insert(name, (password, who)).is_none()
    }

    /// What is known of a name.
    pub fn find(&self, name: &[u8]) -> Found<'_, T> {
        match std::str::from_utf8(name).ok().and_then(|name| self.users.get(name)) {
            Some((password, who)) => Found { password, who: Some(who) },
            None => Found { password: &self.decoy, who: None },
        }
    }

    /// Whether threads are needed to compare some password.
    pub fn has_slow(&self) -> bool {
        self.decoy.is_slow()
    }
}

#[cfg(test)]
mod tests;
