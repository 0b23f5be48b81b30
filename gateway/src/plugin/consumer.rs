//! Consumers and their credentials: who a key or a token belongs to.
//!
//! Immutable, part of the snapshot, shared by all shards. Look-ups borrow; nothing is copied per request.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use portcullis_config::{
    BasicCredential, Config, Diagnostics, Fault, HmacCredential, JwtCredential, KeyHash, Secret,
};

use super::credentials::{Credentials, KeyTable};
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credential<'c> {
    pub consumer: ConsumerId,
    /// Sent upstream as `X-Credential-Identifier`.
    pub identifier: &'c str,
}

/// A `jwt_secrets` entry.
#[derive(Clone)]
pub struct JwtSecret {
    pub settings: JwtCredential,
    pub credential: CredentialRef,
}

/// Where the texts of a consumer are that upstreams are told: close together, since among a million consumers those of a
/// request are nowhere near.
#[derive(Clone, Copy)]
struct Told {
    start: u32,
    /// Lengths of id, custom id and name; [`NOT_TOLD`] of what there is not.
    lens: [u32; 3],
}

const NOT_TOLD: u32 = u32::MAX;
const TOLD_AS: [Known; 3] = [Known::XConsumerId, Known::XConsumerCustomId, Known::XConsumerUsername];

/// All consumers of a generation.
#[derive(Default)]
pub struct Consumers {
    consumers: Vec<Consumer>,
    /// By consumer: what upstreams are told about it.
    told: Vec<Told>,
    /// The texts of `told`, one after the other.
    texts: String,
    /// By consumer: its groups as upstreams read them.
    group_lists: Vec<Box<str>>,
    credentials: Credentials,
    keys: KeyTable,
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
        let keys = config.consumers.iter().map(|one| one.keys.len()).sum();
        consumers.keys = KeyTable::with_room(keys);
        consumers.credentials = Credentials::with_room(keys);
        for consumer in &config.consumers {
            let id = consumers.push(Consumer {
                id: consumer.id.clone().unwrap_or_else(|| consumer.name().to_owned()),
                username: consumer.username.clone(),
                custom_id: consumer.custom_id.clone(),
                groups: consumer.groups.clone(),
                consumer_groups: consumer.consumer_groups.clone(),
            });
            for (number, key) in consumer.keys.iter().enumerate() {
                let identifier = match &key.id {
                    Some(id) => Cow::Borrowed(&**id),
                    None => format!("{}/key/{number}", consumer.name()).into(),
                };
                let expires = match key.ttl {
                    0 => Duration::MAX,
                    seconds => wall.saturating_add(Duration::from_secs(seconds.into())),
                };
                let credential = consumers.credentials.push(id, &identifier);
                // Unique already, by the rules of the configuration.
                consumers.keys.insert(key.hash, credential, expires);
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
        self.tell_of(&consumer);
        self.group_lists.push(consumer.groups.join(", ").into());
        self.consumers.push(consumer);
        ConsumerId(self.consumers.len() as u32 - 1)
    }

    /// Texts beyond 4 GiB in all are not told.
    fn tell_of(&mut self, consumer: &Consumer) {
        let texts = [Some(&consumer.id), consumer.custom_id.as_ref(), consumer.username.as_ref()];
        let start = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let room = (u32::MAX - start) as usize;
        let fits = texts.iter().flatten().map(|text| text.len()).sum::<usize>() < room;
        let lens = texts.map(|text| text.filter(|_| fits).map_or(NOT_TOLD, |text| text.len() as u32));
        if fits {
            texts.iter().flatten().for_each(|text| self.texts.push_str(text));
        }
        self.told.push(Told { start, lens });
    }

    /// Adds an API key that is valid until the wall clock says `expires`. False when the key is another credential's
    /// already.
    pub fn push_key(
        &mut self,
        consumer: ConsumerId,
        identifier: &str,
        key: KeyHash,
        expires: Duration,
    ) -> bool {
        let credential = self.credentials.push(consumer, identifier);
        self.keys.insert(key, credential, expires)
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
        let credential = self.credentials.push(consumer, &identifier);
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
        let credential = self.credentials.push(consumer, &identifier);
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
        let credential = self.credentials.push(consumer, &settings.key);
        self.jwt.push(JwtSecret { settings, credential });
        self.jwt_keys = Default::default();
    }

    /// The credential that an API key is, unless its life has ended at `wall`.
    pub fn by_key(&self, key: &[u8], wall: Duration) -> Option<CredentialRef> {
        self.keys.find(KeyHash::of(key), wall)
    }

    /// The keys of all JWT credentials. The first call reports those that cannot be used.
    pub fn jwt_keys(&self, secret_is_base64: bool, found: &Diagnostics) -> Arc<KeySet> {
        let compile = || Arc::new(KeySet::compile(&self.jwt, secret_is_base64, found));
        self.jwt_keys[usize::from(secret_is_base64)].get_or_init(compile).clone()
    }

    /// A credential that one of the look-ups returned.
    pub fn credential(&self, credential: CredentialRef) -> Credential<'_> {
        self.credentials.get(credential)
    }

    /// A consumer of this generation.
    pub fn consumer(&self, id: ConsumerId) -> &Consumer {
        &self.consumers[id.index()]
    }

    /// Adds the fields that tell an upstream of a consumer of this generation.
    pub fn tell(&self, id: ConsumerId, head: &mut Head) {
        let told = self.told[id.index()];
        let mut start = told.start as usize;
        for (field, len) in TOLD_AS.into_iter().zip(told.lens) {
            if len != NOT_TOLD {
                let end = start + len as usize;
                head.append_known(field, &self.texts[start..end]);
                start = end;
            }
        }
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
        assert!(consumers.push_key(ann, "short", KeyHash::of(b"k1"), 100 * second));
        assert!(consumers.push_key(ann, "long", KeyHash::of(b"k2"), Duration::MAX));
        let found =
            |key: &[u8], wall| consumers.by_key(key, wall).map(|c| consumers.credential(c).identifier);
        assert_eq!(found(b"k1", 99 * second), Some("short"));
        assert_eq!(found(b"k1", 100 * second), None);
        assert_eq!(found(b"k2", 1000 * second), Some("long"));
        assert_eq!(found(b"k", second), None);
    }

    #[test]
    fn a_key_belongs_to_one_credential() {
        let mut consumers = Consumers::default();
        let ann = consumers.push(Consumer::default());
        assert!(consumers.push_key(ann, "a", KeyHash::of(b"k"), Duration::MAX));
        assert!(!consumers.push_key(ann, "b", KeyHash::of(b"k"), Duration::MAX));
    }
}
