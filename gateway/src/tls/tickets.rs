//! Session tickets (RFC 5077, RFC 8446 section 4.6.1): the keys, and what they seal.
//!
//! ```text
//! | name 16 | nonce 12 | AES-256-GCM of the session, with the scope as additional data |
//! ```
//!
//! Owns: the keys of the process, random or out of a file that several nodes share, and their rotation. Never: reading
//! the file by itself; the control thread brings its content. Invariant: a ticket opens only under the client
//! authentication it was made under (its scope). Without that, a session begun where no certificate is asked for would
//! be resumed where one is required.

use std::fmt;
#[allow(
    clippy::disallowed_types,
    reason = "read-locked for the clone of an Arc once a ticket, next to a key exchange; \
    written every few hours"
)]
use std::sync::RwLock;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

use super::fault::TlsError;

/// Bytes of a key in a file: a name of 16 and a secret of 64.
pub const KEY_LEN: usize = 80;
const NAME_LEN: usize = 16;
/// Keys of a file that are kept; each is tried by its name only.
const KEYS_MAX: usize = 64;

/// One key.
struct Key {
    name: [u8; NAME_LEN],
    seal: LessSafeKey,
    /// What it was made of, for a successor of this process.
    bytes: [u8; KEY_LEN],
}

impl Key {
    /// From the bytes of a file, or random ones.
    fn new(bytes: &[u8; KEY_LEN]) -> Option<Self> {
        let (name, secret) = bytes.split_first_chunk::<NAME_LEN>()?;
        // The whole of the secret counts, however it was made.
        let derived = Salt::new(HKDF_SHA256, &[]).extract(secret);
        let info: [&[u8]; 1] = [b"portcullis session ticket"];
        let seal = UnboundKey::from(derived.expand(&info, &AES_256_GCM).ok()?);
        Some(Self { name: *name, seal: LessSafeKey::new(seal), bytes: *bytes })
    }

    fn random() -> Option<Self> {
        let mut bytes = [0; KEY_LEN];
        rand::fill(&mut bytes).ok()?;
        Self::new(&bytes)
    }
}

/// The keys at one time: the first seals, all open.
struct Keys {
    keys: Vec<Arc<Key>>,
    /// When the first began to seal, CLOCK_MONOTONIC ns; `None` for keys of a file.
    since_ns: Option<u64>,
}

/// Random keys on their way from one process to the one that takes its place, so that tickets stay good.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct HandedKeys {
    /// In hex: the one that seals first.
    keys: Vec<String>,
    /// When that one began to, CLOCK_MONOTONIC ns.
    since_ns: u64,
}

impl fmt::Debug for HandedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandedKeys({} keys)", self.keys.len())
    }
}

/// Keys as they stand in a file.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyFile(Vec<[u8; KEY_LEN]>);

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFile({} keys)", self.0.len())
    }
}

impl KeyFile {
    /// Reads keys: lines of 160 hex digits or of base64 for 80 bytes, or 80-byte blocks. Lines that begin with `#` are
    /// left out.
    ///
    /// # Errors
    /// What is in there is no such thing. `origin` names the file.
    pub fn parse(content: &[u8], origin: &str) -> Result<Self, TlsError> {
        let bad = |what: String| TlsError::TicketKeys { origin: origin.into(), what };
        let is_text = content.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
        let keys: Vec<[u8; KEY_LEN]> = if is_text {
            let lines = content.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).enumerate();
            lines
                .filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#"))
                .map(|(at, line)| {
                    key_of_line(line)
                        .ok_or_else(|| bad(format!("line {} is not 80 bytes in hex or base64", at + 1)))
                })
                .collect::<Result<_, _>>()?
        } else {
            let (blocks, rest) = content.as_chunks::<KEY_LEN>();
            if !rest.is_empty() {
                return Err(bad(format!("{} bytes are no multiple of {KEY_LEN}", content.len())));
            }
            blocks.to_vec()
        };
        match keys.len() {
            0 => Err(bad("there is no key".into())),
            1..=KEYS_MAX => Ok(Self(keys)),
            many => Err(bad(format!("{many} keys are more than {KEYS_MAX}"))),
        }
    }
}

fn key_of_line(line: &[u8]) -> Option<[u8; KEY_LEN]> {
    let bytes = if line.len() == 2 * KEY_LEN { hex(line) } else { base64(line) };
    bytes?.try_into().ok()
}

fn hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    text.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(text);
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    for group in text.chunks(4) {
        let mut bits = 0_u32;
        for &byte in group {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        bits <<= 6 * (4 - group.len());
        let bytes = bits.to_be_bytes();
        out.extend(&bytes[1..group.len()]);
    }
    Some(out)
}

/// The keys that session tickets are sealed with. One for the whole process and kept across reloads: a ticket sealed on
/// one shard, or under the last generation, must open on every other. Cheap to clone.
#[derive(Clone)]
pub struct Ticketer(Option<Arc<Keyring>>);

#[allow(clippy::disallowed_types, reason = "see the import")]
struct Keyring(RwLock<Arc<Keys>>);

impl Ticketer {
    /// A fresh random key. `now_ns` is CLOCK_MONOTONIC.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn new(now_ns: u64) -> Result<Self, TlsError> {
        let key = Key::random().ok_or_else(no_randomness)?;
        let keys = Arc::new(Keys { keys: vec![Arc::new(key)], since_ns: Some(now_ns) });
        #[allow(clippy::disallowed_types, reason = "see the import")]
        let lock = RwLock::new(keys);
        Ok(Self(Some(Arc::new(Keyring(lock)))))
    }

    /// Makes no tickets: every handshake is a full one.
    pub fn off() -> Self {
        Self(None)
    }

    /// Uses the keys of a file, or random ones again.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn set(&self, file: Option<&KeyFile>, now_ns: u64) -> Result<(), TlsError> {
        let Some(ring) = &self.0 else { return Ok(()) };
        let old = ring.current();
        match file {
            Some(file) => {
                let keys = file
                    .0
                    .iter()
                    .map(|key| Key::new(key).map(Arc::new))
                    .collect::<Option<_>>()
                    .ok_or_else(no_randomness)?;
                ring.replace(Keys { keys, since_ns: None });
            }
            None if old.since_ns.is_some() => {}
            None => {
                let keys = vec![Arc::new(Key::random().ok_or_else(no_randomness)?)];
                ring.replace(Keys { keys, since_ns: Some(now_ns) });
            }
        }
        Ok(())
    }

    /// The random keys, for the process that takes the place of this one. None of a file: it reads that itself.
    pub fn hand_over(&self) -> HandedKeys {
        let Some((keys, since_ns)) = self.0.as_ref().map(|ring| ring.current()).and_then(|keys| {
            let since_ns = keys.since_ns?;
            Some((keys, since_ns))
        }) else {
            return HandedKeys::default();
        };
        let hex = |key: &Arc<Key>| key.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        HandedKeys { keys: keys.keys.iter().map(hex).collect(), since_ns }
    }

    /// Goes on with the random keys of the process before. What cannot be read changes nothing: clients come with full
    /// handshakes then.
    pub fn take_over(&self, handed: &HandedKeys) {
        let keys: Option<Vec<_>> =
            handed.keys.iter().map(|key| Key::new(&key_of_line(key.as_bytes())?).map(Arc::new)).collect();
        if let (Some(ring), Some(keys)) = (&self.0, keys.filter(|keys| !keys.is_empty())) {
            ring.replace(Keys { keys, since_ns: Some(handed.since_ns) });
        }
    }

    /// Makes a new random key once the present one has sealed for `after`; the old one opens for as long again. Keys of
    /// a file stay.
    pub fn rotate(&self, after: Duration, now_ns: u64) {
        let Some(ring) = &self.0 else { return };
        let old = ring.current();
        let due =
            old.since_ns.is_some_and(|since| u128::from(now_ns.saturating_sub(since)) >= after.as_nanos());
        if let Some(key) = due.then(Key::random).flatten() {
            let keys = [Arc::new(key)].into_iter().chain(old.keys.first().cloned()).collect();
            ring.replace(Keys { keys, since_ns: Some(now_ns) });
        }
    }

    /// What a configuration seals with. `scope` names the client authentication that a session was made under.
    pub(super) fn scoped(&self, scope: [u8; 32]) -> Option<Arc<dyn ProducesTickets>> {
        self.0.as_ref().map(|ring| Arc::new(Scoped { ring: ring.clone(), scope }) as Arc<dyn ProducesTickets>)
    }
}

fn no_randomness() -> TlsError {
    TlsError::Config(rustls::Error::FailedToGetRandomBytes)
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticketer")
    }
}

impl Keyring {
    fn current(&self) -> Arc<Keys> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, keys: Keys) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }
}

struct Scoped {
    ring: Arc<Keyring>,
    scope: [u8; 32],
}

impl fmt::Debug for Scoped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scoped")
    }
}

impl ProducesTickets for Scoped {
    fn enabled(&self) -> bool {
        true
    }

    /// A hint to clients; the keys decide.
    fn lifetime(&self) -> u32 {
        LIFETIME_HINT_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.ring.current();
        let key = keys.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME_LEN + NONCE_LEN + plain.len() + 16);
        ticket.extend(key.name);
        ticket.extend(nonce);
        let mut sealed = plain.to_vec();
        let aad = Aad::from(self.scope);
        key.seal.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        ticket.extend(sealed);
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.ring.current();
        // The name is no secret: it is sent in the clear.
        let key = keys.keys.iter().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key.seal.open_in_place(nonce, Aad::from(self.scope), &mut sealed).ok()?.len();
        sealed.truncate(opened);
        Some(sealed)
    }
}

/// Seconds that clients are told to keep a ticket.
const LIFETIME_HINT_S: u32 = 12 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_NS: u64 = 3_600_000_000_000;

    fn file(first: u8, count: usize) -> KeyFile {
        KeyFile((0..count).map(|at| [first + at as u8; KEY_LEN]).collect())
    }

    #[test]
    fn a_key_opens_while_it_is_kept() {
        let tickets = Ticketer::new(0).unwrap();
        let sealer = tickets.scoped([0; 32]).unwrap();
        let ticket = sealer.encrypt(b"session").unwrap();
        assert_eq!(sealer.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        let after = Duration::from_secs(12 * 3600);
        tickets.rotate(after, 11 * HOUR_NS);
        assert_eq!(sealer.encrypt(b"").unwrap()[..16], ticket[..16], "rotated before its time");
        tickets.rotate(after, 12 * HOUR_NS);
        assert_ne!(sealer.encrypt(b"").unwrap()[..16], ticket[..16], "not rotated");
        assert!(sealer.decrypt(&ticket).is_some(), "the key before does not open");
        tickets.rotate(after, 24 * HOUR_NS);
        assert!(sealer.decrypt(&ticket).is_none(), "a key opens for ever");
    }

    #[test]
    fn tickets_are_bound_to_their_scope_and_whole() {
        let tickets = Ticketer::new(0).unwrap();
        let (one, other) = (tickets.scoped([1; 32]).unwrap(), tickets.scoped([2; 32]).unwrap());
        let ticket = one.encrypt(b"session").unwrap();
        assert!(one.decrypt(&ticket).is_some());
        assert!(other.decrypt(&ticket).is_none());
        for at in 0..ticket.len() {
            let mut broken = ticket.clone();
            broken[at] ^= 1;
            assert!(one.decrypt(&broken).is_none(), "byte {at}");
            assert!(one.decrypt(&ticket[..at]).is_none());
        }
    }

    #[test]
    fn nodes_with_the_same_file_open_each_others_tickets() {
        let (here, there) = (Ticketer::new(0).unwrap(), Ticketer::new(0).unwrap());
        here.set(Some(&file(1, 1)), 0).unwrap();
        there.set(Some(&file(1, 2)), 0).unwrap();
        let ticket = here.scoped([0; 32]).unwrap().encrypt(b"s").unwrap();
        let reader = there.scoped([0; 32]).unwrap();
        assert!(reader.decrypt(&ticket).is_some());
        // The operator puts a new key before it; then it goes.
        there.set(Some(&KeyFile(vec![[9; KEY_LEN], [1; KEY_LEN]])), 0).unwrap();
        assert!(reader.decrypt(&ticket).is_some());
        there.rotate(Duration::from_secs(1), 100 * HOUR_NS);
        assert!(reader.decrypt(&ticket).is_some(), "keys of a file are not rotated here");
        there.set(Some(&file(9, 1)), 0).unwrap();
        assert!(reader.decrypt(&ticket).is_none());
    }

    #[test]
    fn a_successor_opens_the_tickets_of_the_process_before() {
        let (old, new) = (Ticketer::new(0).unwrap(), Ticketer::new(5 * HOUR_NS).unwrap());
        let (sealer, reader) = (old.scoped([0; 32]).unwrap(), new.scoped([0; 32]).unwrap());
        let after = Duration::from_secs(12 * 3600);
        let first = sealer.encrypt(b"first").unwrap();
        old.rotate(after, 12 * HOUR_NS);
        let second = sealer.encrypt(b"second").unwrap();
        let handed = old.hand_over();
        let handed: HandedKeys = serde_json::from_str(&serde_json::to_string(&handed).unwrap()).unwrap();
        new.take_over(&handed);
        assert_eq!(reader.decrypt(&first).as_deref(), Some(&b"first"[..]));
        assert_eq!(reader.decrypt(&second).as_deref(), Some(&b"second"[..]));
        // The age of the key goes on too.
        new.set(None, 13 * HOUR_NS).unwrap();
        new.rotate(after, 23 * HOUR_NS);
        assert!(sealer.decrypt(&reader.encrypt(b"x").unwrap()).is_some(), "rotated before its time");
        new.rotate(after, 24 * HOUR_NS);
        assert!(sealer.decrypt(&reader.encrypt(b"x").unwrap()).is_none(), "not rotated");
        assert!(!format!("{handed:?}").contains(&handed.keys[0]));

        // Nothing that could be used, or keys of a file: nothing changes.
        let own = reader.encrypt(b"own").unwrap();
        new.take_over(&HandedKeys::default());
        new.take_over(&HandedKeys { keys: vec!["x".into()], since_ns: 0 });
        assert!(reader.decrypt(&own).is_some());
        old.set(Some(&file(1, 1)), 0).unwrap();
        assert_eq!(old.hand_over(), HandedKeys::default());
    }

    #[test]
    fn forms_of_a_key_file() {
        let bytes: [u8; KEY_LEN] = std::array::from_fn(|at| at as u8 * 3);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        // `printf ... | base64 -w 0` of the same bytes.
        let base64 = "AAMGCQwPEhUYGx4hJCcqLTAzNjk8P0JFSEtOUVRXWl1gY2ZpbG9ydXh7foGEh4qNkJOWmZyfoqWoq66xtLe6vcDDxsnMz9LV2Nve4eTn6u0=";
        let table: [(Vec<u8>, usize); 5] = [
            (format!("{hex}\n").into(), 1),
            (format!("# first\n{hex}\n\n  {base64}\r\n").into(), 2),
            (base64.into(), 1),
            (bytes.to_vec(), 1),
            ([[200; KEY_LEN], bytes].concat(), 2),
        ];
        for (content, count) in table {
            let parsed = KeyFile::parse(&content, "f").unwrap();
            assert_eq!(parsed.0.len(), count);
            assert_eq!(parsed.0[count - 1], bytes);
        }
        for broken in [&b""[..], b"# nothing\n", b"abcd\n", &[200; 79], &[200; 81], &[200; KEY_LEN * 65]] {
            let error = KeyFile::parse(broken, "keys").unwrap_err();
            assert!(error.to_string().starts_with("keys: "), "{error}");
        }
        assert!(!format!("{:?}", file(1, 1)).contains("1, 1"));
    }
}
