//! Consumers and their credentials: who a key or a token belongs to.
//!
//! Immutable, part of the snapshot, shared by all shards. Look-ups borrow; nothing is copied per request.

use std::collections::HashMap;

use portcullis_config::Origin;

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
}

/// A credential as it is known to the authentication plugins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    pub consumer: ConsumerId,
    /// Sent upstream as `X-Credential-Identifier`.
    pub identifier: String,
}

/// Key material of a `jwt_secrets` entry.
#[derive(Clone)]
pub struct JwtSecret {
    /// The value of the key claim (`iss` by default) that selects this entry.
    pub key: String,
    /// `HS256`, `RS256`, ...: the only algorithm accepted for this entry.
    pub algorithm: String,
    /// Shared secret of the HS algorithms.
    pub secret: Option<String>,
    /// PEM public key of the others.
    pub public_key: Option<String>,
    pub credential: CredentialRef,
    /// Where it was written, for errors in the key.
    pub origin: Origin,
}

/// All consumers of a generation.
#[derive(Default)]
pub struct Consumers {
    consumers: Vec<Consumer>,
    credentials: Vec<Credential>,
    keys: HashMap<Vec<u8>, CredentialRef>,
    jwt: Vec<JwtSecret>,
}

impl Consumers {
    /// Adds a consumer.
    pub fn push(&mut self, consumer: Consumer) -> ConsumerId {
        self.consumers.push(consumer);
        ConsumerId(self.consumers.len() as u32 - 1)
    }

    /// Adds an API key. False when the key is another credential's already.
    pub fn push_key(&mut self, consumer: ConsumerId, identifier: String, key: &[u8]) -> bool {
        let credential = self.push_credential(consumer, identifier);
        self.keys.insert(key.to_vec(), credential).is_none()
    }

    /// Adds a JWT credential.
    pub fn push_jwt(&mut self, consumer: ConsumerId, identifier: String, secret: impl FnOnce(CredentialRef) -> JwtSecret) {
        let credential = self.push_credential(consumer, identifier);
        self.jwt.push(secret(credential));
    }

    fn push_credential(&mut self, consumer: ConsumerId, identifier: String) -> CredentialRef {
        self.credentials.push(Credential { consumer, identifier });
        CredentialRef(self.credentials.len() as u32 - 1)
    }

    /// The credential that an API key is.
    pub fn by_key(&self, key: &[u8]) -> Option<CredentialRef> {
        self.keys.get(key).copied()
    }

    /// All JWT credentials, for a plugin to index.
    pub fn jwt_secrets(&self) -> &[JwtSecret] {
        &self.jwt
    }

    /// A credential that one of the look-ups returned.
    pub fn credential(&self, credential: CredentialRef) -> &Credential {
        &self.credentials[credential.0 as usize]
    }

    /// A consumer of this generation.
    pub fn consumer(&self, id: ConsumerId) -> &Consumer {
        &self.consumers[id.index()]
    }

    /// The consumer with this username or id, as `config.anonymous` and plugin scopes name it.
    pub fn by_name(&self, name: &str) -> Option<ConsumerId> {
        let named = |c: &Consumer| c.id == name || c.username.as_deref() == Some(name);
        self.consumers.iter().position(named).map(|i| ConsumerId(i as u32))
    }
}
