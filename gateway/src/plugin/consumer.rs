//! Consumers and their credentials: who a key or a token belongs to.
//!
//! Immutable, part of the snapshot, shared by all shards. Look-ups borrow; nothing is copied per request.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use portcullis_config::{BasicCredential, Config, Diagnostics, Fault, HmacCredential, JwtCredential, Secret};

use super::jwt::KeySet;
use super::password::{Found, Password, Users};
use crate::http::{Head, Known};
use crate::id::ConsumerId;

/// Names one credential of one consumer; what `limit_by: credential` counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CredentialRef(pub u32);

/// Somebody who uses the services behind the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consumer {
    /// Kong's `id`; made from the username when the file has none, so that it stays the same across reloads.
    pub id: String,
    pub username: Option<String>,
    pub custom_id: Option<String>,
    /// ACL groups.
    pub groups: Vec<String>,
    /// Kong's consumer groups, which count for `acl` where it says so.
    pub consumer_groups: Vec<String>,
}

/// A credential as it is known to the authentication plugins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    pub consumer: ConsumerId,
    /// Sent upstream as `X-Credential-Identifier`.
    pub identifier: String,
}

/// A `jwt_secrets` entry.
#[derive(Clone)]
pub struct JwtSecret {
    pub settings: JwtCredential,
    pub credential: CredentialRef,
}

/// An API key that is valid until some moment.
#[derive(Clone, Copy)]
struct ApiKey {
    credential: CredentialRef,
    /// Wall clock; `Duration::MAX` for ever.
    expires: Duration,
}

/// An API key as the configuration writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyText<'a> {
    Plain(&'a [u8]),
    /// Its SHA-256, so that who reads the configuration does not know it.
    Hashed([u8; 32]),
}

impl<'a> KeyText<'a> {
    /// Reads a key, or `sha256:` and 64 hexadecimal digits. `None` where the digits are none.
    pub fn read(text: &'a str) -> Option<Self> {
        let Some(digits) = text.strip_prefix("sha256:") else { return Some(Self::Plain(text.as_bytes())) };
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let mut hash = [0; 32];
        for (at, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Self::Hashed(hash))
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// All consumers of a generation.
#[derive(Default)]
pub struct Consumers {
    consumers: Vec<Consumer>,
    /// By consumer: what upstreams are told about it, made once because it is sent with every request.
    fields: Vec<Head>,
    /// By consumer: its groups as upstreams read them.
    group_lists: Vec<Box<str>>,
    credentials: Vec<Credential>,
    /// Hashed with a key of this process, so that nobody can choose keys that collide.
    keys: HashMap<Vec<u8>, ApiKey>,
    /// By the SHA-256 of the key: those that the configuration holds hashed.
    hashed_keys: HashMap<[u8; 32], ApiKey>,
    passwords: Users<CredentialRef>,
    /// Signing secrets by user name.
    hmac: HashMap<String, (Secret, CredentialRef)>,
    jwt: Vec<JwtSecret>,
    /// The keys in `jwt`, with plain secrets and with base64 ones: converted once, however many plugins ask.
    jwt_keys: [OnceLock<Arc<KeySet>>; 2],
}

impl Consumers {
    /// Takes over the consumers of a configuration, in its order: the indices of both are the same. Lives of API keys
    /// (`ttl`) count from `wall`, the wall clock at the load.
    pub fn compile(config: &Config, wall: Duration, found: &Diagnostics) -> Self {
        let mut consumers = Self::default();
        for consumer in &config.consumers {
            let id = consumers.push(Consumer {
                id: consumer.id.clone().unwrap_or_else(|| consumer.name().to_owned()),
                username: consumer.username.clone(),
                custom_id: consumer.custom_id.clone(),
                groups: consumer.groups.clone(),
                consumer_groups: consumer.consumer_groups.clone(),
            });
            for (number, key) in consumer.keys.iter().enumerate() {
                let identifier =
                    key.id.clone().unwrap_or_else(|| format!("{}/key/{number}", consumer.name()));
                let expires = key.ttl.map_or(Duration::MAX, |ttl| wall.saturating_add(ttl));
                let Some(written) = KeyText::read(key.key.expose()) else {
                    let fault = Fault::new("`sha256:` is not followed by a hash").hide_line();
                    let fault =
                        fault.hint("64 hexadecimal digits, as `printf %s KEY | sha256sum` prints them");
                    found.error(key.origin.span, &key.origin.path, fault);
                    continue;
                };
                if !consumers.push_key(id, identifier, written, expires) {
                    found.error(
                        key.origin.span,
                        &key.origin.path,
                        "the key belongs to another credential already",
                    );
                }
            }
            for (number, basic) in consumer.basic.iter().enumerate() {
                let identifier = || format!("{}/basic/{number}", consumer.name());
                consumers.push_password(id, basic.id.clone().unwrap_or_else(identifier), basic, found);
            }
            for (number, hmac) in consumer.hmac.iter().enumerate() {
                let identifier = || format!("{}/hmac/{number}", consumer.name());
                consumers.push_hmac(id, hmac.id.clone().unwrap_or_else(identifier), hmac);
            }
            for jwt in &consumer.jwt_secrets {
                consumers.push_jwt(id, jwt.clone());
            }
        }
        consumers
    }

    /// Adds a consumer.
    pub fn push(&mut self, consumer: Consumer) -> ConsumerId {
        let mut fields = Head::new();
        fields.append_known(Known::XConsumerId, &consumer.id);
        if let Some(text) = &consumer.custom_id {
            fields.append_known(Known::XConsumerCustomId, text);
        }
        if let Some(text) = &consumer.username {
            fields.append_known(Known::XConsumerUsername, text);
        }
        self.fields.push(fields);
        self.group_lists.push(consumer.groups.join(", ").into());
        self.consumers.push(consumer);
        ConsumerId(self.consumers.len() as u32 - 1)
    }

    /// Adds an API key that is valid until the wall clock says `expires`. False when the key is another credential's
    /// already.
    pub fn push_key(
        &mut self,
        consumer: ConsumerId,
        identifier: String,
        key: KeyText<'_>,
        expires: Duration,
    ) -> bool {
        let credential = self.push_credential(consumer, identifier);
        let known = ApiKey { credential, expires };
        match key {
            KeyText::Plain(key) => self.keys.insert(key.to_vec(), known).is_none(),
            KeyText::Hashed(hash) => self.hashed_keys.insert(hash, known).is_none(),
        }
    }

    /// Adds a user name with its password; the configuration holds no user name twice. A hash that cannot be used is
    /// reported.
    pub fn push_password(
        &mut self,
        consumer: ConsumerId,
        identifier: String,
        basic: &BasicCredential,
        found: &Diagnostics,
    ) {
        let credential = self.push_credential(consumer, identifier);
        match Password::read(basic.password.expose()) {
            Ok(password) => _ = self.passwords.insert(basic.username.clone(), password, credential),
            Err(wrong) => {
                let fault = Fault::new(format!("the password begins like a hash, but {wrong}")).hide_line();
                found.error(basic.origin.span, &basic.origin.path, fault);
            }
        }
    }

    /// The password of a user, and the credential that it is.
    pub fn password(&self, user: &[u8]) -> Found<'_, CredentialRef> {
        self.passwords.find(user)
    }

    /// Whether some password is hashed so that its comparison takes long.
    pub fn has_slow_passwords(&self) -> bool {
        self.passwords.has_slow()
    }

    /// Adds a signing secret; the configuration holds no user name twice.
    pub fn push_hmac(&mut self, consumer: ConsumerId, identifier: String, hmac: &HmacCredential) {
        let credential = self.push_credential(consumer, identifier);
        self.hmac.insert(hmac.username.clone(), (hmac.secret.clone(), credential));
    }

    /// The signing secret of a user, and the credential that it is. An unknown user has some secret and no credential.
    pub fn hmac_secret(&self, user: &str) -> (&[u8], Option<CredentialRef>) {
        match self.hmac.get(user) {
            Some((secret, credential)) => (secret.expose().as_bytes(), Some(*credential)),
            None => (b"a secret that signs for nobody", None),
        }
    }

    /// Adds a JWT credential. Its identifier is its key, as in Kong.
    pub fn push_jwt(&mut self, consumer: ConsumerId, settings: JwtCredential) {
        let credential = self.push_credential(consumer, settings.key.clone());
        self.jwt.push(JwtSecret { settings, credential });
        self.jwt_keys = Default::default();
    }

    fn push_credential(&mut self, consumer: ConsumerId, identifier: String) -> CredentialRef {
        self.credentials.push(Credential { consumer, identifier });
        CredentialRef(self.credentials.len() as u32 - 1)
    }

    /// The credential that an API key is, unless its life has ended at `wall`.
    pub fn by_key(&self, key: &[u8], wall: Duration) -> Option<CredentialRef> {
        let hashed = || match self.hashed_keys.is_empty() {
            true => None,
            // Keys are long and random, so that a fast hash keeps them as well as a slow one.
            false => self.hashed_keys.get(&sha256(key)),
        };
        let known = self.keys.get(key).or_else(hashed);
        known.filter(|known| wall < known.expires).map(|known| known.credential)
    }

    /// The keys of all JWT credentials. The first call reports those that cannot be used.
    pub fn jwt_keys(&self, secret_is_base64: bool, found: &Diagnostics) -> Arc<KeySet> {
        let compile = || Arc::new(KeySet::compile(&self.jwt, secret_is_base64, found));
        self.jwt_keys[usize::from(secret_is_base64)].get_or_init(compile).clone()
    }

    /// A credential that one of the look-ups returned.
    pub fn credential(&self, credential: CredentialRef) -> &Credential {
        &self.credentials[credential.0 as usize]
    }

    /// A consumer of this generation.
    pub fn consumer(&self, id: ConsumerId) -> &Consumer {
        &self.consumers[id.index()]
    }

    /// The fields that tell an upstream of a consumer of this generation.
    pub fn fields(&self, id: ConsumerId) -> &Head {
        &self.fields[id.index()]
    }

    /// The groups of a consumer of this generation, with commas between them.
    pub fn group_list(&self, id: ConsumerId) -> &str {
        &self.group_lists[id.index()]
    }

    /// All consumers of this generation.
    pub fn all(&self) -> impl Iterator<Item = (ConsumerId, &Consumer)> {
        self.consumers.iter().enumerate().map(|(index, consumer)| (ConsumerId(index as u32), consumer))
    }

    /// The consumer with this username or id, as `config.anonymous` and plugin scopes name it.
    pub fn by_name(&self, name: &str) -> Option<ConsumerId> {
        let named = |c: &Consumer| c.id == name || c.username.as_deref() == Some(name);
        self.consumers.iter().position(named).map(|i| ConsumerId(i as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_works_until_its_life_ends() {
        let mut consumers = Consumers::default();
        let ann = consumers.push(Consumer { id: "1".into(), ..Consumer::default() });
        let second = Duration::from_secs(1);
        assert!(consumers.push_key(ann, "short".into(), KeyText::Plain(b"k1"), 100 * second));
        assert!(consumers.push_key(ann, "long".into(), KeyText::Plain(b"k2"), Duration::MAX));
        let found =
            |key: &[u8], wall| consumers.by_key(key, wall).map(|c| &*consumers.credential(c).identifier);
        assert_eq!(found(b"k1", 99 * second), Some("short"));
        assert_eq!(found(b"k1", 100 * second), None);
        assert_eq!(found(b"k2", 1000 * second), Some("long"));
        assert_eq!(found(b"k", second), None);
    }

    #[test]
    fn a_hashed_key_is_known_by_itself_and_not_by_its_hash() {
        // printf %s secret-key | sha256sum
        let digest = "85dbe15d75ef9308c7ae0f33c7a324cc6f4bf519a2ed2f3027bd33c140a4f9aa";
        for digits in [digest.to_owned(), digest.to_uppercase()] {
            let text = format!("sha256:{digits}");
            let mut consumers = Consumers::default();
            let ann = consumers.push(Consumer::default());
            let key = KeyText::read(&text).expect("a hash");
            assert!(consumers.push_key(ann, "a".into(), key, Duration::MAX));
            assert!(consumers.by_key(b"secret-key", Duration::ZERO).is_some());
            for other in [&b"secret-kez"[..], text.as_bytes(), digits.as_bytes(), b""] {
                assert!(consumers.by_key(other, Duration::ZERO).is_none());
            }
        }
        assert_eq!(KeyText::read("sha256"), Some(KeyText::Plain(b"sha256")));
        for wrong in ["sha256:", "sha256:xyz", &format!("sha256:{}", "g".repeat(64))] {
            assert_eq!(KeyText::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_key_belongs_to_one_credential() {
        let mut consumers = Consumers::default();
        let ann = consumers.push(Consumer::default());
        assert!(consumers.push_key(ann, "a".into(), KeyText::Plain(b"k"), Duration::MAX));
        assert!(!consumers.push_key(ann, "b".into(), KeyText::Plain(b"k"), Duration::MAX));
    }
}
