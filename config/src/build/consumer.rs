//! Consumers and credentials.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use super::{Builder, PendingPlugin};
use crate::diagnostic::Fault;
use crate::fields::Fields;
use crate::model::{
    BasicCredential, Consumer, ConsumerRef, HmacCredential, JwtAlgorithm, JwtCredential, JwtMaterial,
    KeyCredential, KeyHash, Scope,
};
use crate::schema::Entity;
use crate::source::{FileId, Span};

/// The lists of credentials, the same in a consumer and at the top.
const LISTS: [&str; 5] =
    ["keyauth_credentials", "jwt_secrets", "acls", "basicauth_credentials", "hmacauth_credentials"];

/// Shortest HMAC secret that is as strong as the hash (RFC 7518 section 3.2), in bytes.
const MIN_HMAC_SECRET: usize = 32;

/// What must be unique over all consumers, with the place where it was first seen.
#[derive(Default)]
struct Seen {
    keys: HashMap<KeyHash, Place>,
    jwt: HashMap<String, Place>,
    basic: HashMap<String, Place>,
    hmac: HashMap<String, Place>,
}

/// File, line and column: of a span only what is shown, since there may be a million of them.
type Place = (FileId, u32, u32);

impl<'a> Builder<'a> {
    /// Builds the consumers with their nested credentials, then adds the credentials at the top.
    pub(super) fn build_consumers(&mut self) {
        let mut seen = Seen::default();
        seen.keys.reserve(self.count_of_keys());
        for (_, fields) in self.all("consumers") {
            let reference = ConsumerRef(self.consumers.len() as u32);
            for key in ["username", "custom_id", "id"] {
                self.names.consumers.add(Entity::Consumer, key, &fields, reference);
            }
            let scope = Scope { consumer: Some(reference), ..Scope::default() };
            let plugins = fields.sections("plugins").into_iter();
            self.pending.extend(plugins.map(|fields| PendingPlugin { fields, scope }));
            self.consumers.push(consumer(&fields));
            for list in LISTS {
                for credential in fields.sections(list) {
                    let owner = self.credential_owner(&credential);
                    if owner.is_some_and(|owner| owner != reference) {
                        credential.error(
                            "consumer",
                            "the credential is nested in one consumer and refers to another",
                        );
                    }
                    add(&mut self.consumers[reference.index()], list, &credential, &mut seen);
                }
            }
            self.consumers[reference.index()].keys.shrink_to_fit();
        }
        for list in LISTS {
            for (_, credential) in self.all(list) {
                if !credential.is_set("consumer") {
                    let fault = Fault::new("the credential belongs to no consumer");
                    credential.error("consumer", fault.hint("set `consumer` to a username"));
                }
                if let Some(owner) = self.credential_owner(&credential) {
                    add(&mut self.consumers[owner.index()], list, &credential, &mut seen);
                }
            }
        }
    }

    fn count_of_keys(&self) -> usize {
        let keys = |fields: &Fields<'_>| fields.get(LISTS[0]).map_or(0, |list| list.items().len());
        let nested: usize = self.all("consumers").iter().map(|(_, fields)| keys(fields)).sum();
        nested + self.documents.iter().map(|document| keys(&document.root)).sum::<usize>()
    }

    fn credential_owner(&self, fields: &Fields<'_>) -> Option<ConsumerRef> {
        let reference = fields.reference("consumer")?;
        self.names.consumers.resolve(Entity::Consumer, &reference, &fields.path_of("consumer"), self.found)
    }
}

fn consumer(fields: &Fields<'_>) -> Consumer {
    if !fields.is_set("username") && !fields.is_set("custom_id") {
        let fault = Fault::new("the consumer has neither `username` nor `custom_id`");
        fields.error("username", fault.hint("give it a `username`"));
    }
    let groups = fields.get("groups").map(|node| node.items()).unwrap_or_default();
    let group_name = |node: &crate::node::Node| match node.text() {
        Some(text) => Some(text.to_owned()),
        None => node.get("name").or_else(|| node.get("id"))?.text().map(str::to_owned),
    };
    Consumer {
        username: fields.optional_string("username"),
        custom_id: fields.optional_string("custom_id"),
        id: fields.optional_string("id"),
        groups: Vec::new(),
        consumer_groups: groups.iter().filter_map(group_name).collect(),
        keys: Vec::new(),
        jwt_secrets: Vec::new(),
        basic: Vec::new(),
        hmac: Vec::new(),
        tags: fields.strings("tags"),
        origin: fields.origin(),
    }
}

fn add(consumer: &mut Consumer, list: &str, fields: &Fields<'_>, seen: &mut Seen) {
    match list {
        "keyauth_credentials" => {
            let Some(key) = fields.secret("key") else { return };
            let Some(hash) = KeyHash::read(key.expose()) else {
                let fault = Fault::new("`sha256:` is not followed by a hash").hide_line();
                let hint = "64 hexadecimal digits, as `printf %s KEY | sha256sum` prints them";
                fields.error("key", fault.hint(hint));
                return;
            };
            unique(&mut seen.keys, hash, "key", fields, "another credential has the same key");
            consumer.keys.push(key_credential(hash, fields));
        }
        "jwt_secrets" => {
            let Some(key) = fields.optional_string("key") else { return };
            unique(&mut seen.jwt, key.clone(), "key", fields, "another jwt credential has the same key");
            consumer.jwt_secrets.extend(jwt_credential(key, fields));
        }
        "acls" => {
            let Some(group) = fields.optional_string("group") else { return };
            if !consumer.groups.contains(&group) {
                consumer.groups.push(group);
            }
        }
        "basicauth_credentials" => {
            let (Some(username), Some(password)) =
                (fields.optional_string("username"), fields.secret("password"))
            else {
                return;
            };
            unique(
                &mut seen.basic,
                username.clone(),
                "username",
                fields,
                "another credential has the same username",
            );
            let (id, tags, origin) = record(fields);
            consumer.basic.push(BasicCredential { id, username, password, tags, origin });
        }
        _ => {
            let (Some(username), Some(secret)) =
                (fields.optional_string("username"), fields.secret("secret"))
            else {
                return;
            };
            unique(
                &mut seen.hmac,
                username.clone(),
                "username",
                fields,
                "another credential has the same username",
            );
            let (id, tags, origin) = record(fields);
            consumer.hmac.push(HmacCredential { id, username, secret, tags, origin });
        }
    }
}

fn unique<T: Eq + Hash>(
    seen: &mut HashMap<T, Place>,
    value: T,
    key: &str,
    fields: &Fields<'_>,
    message: &str,
) {
    let span = fields.span_of(key);
    match seen.entry(value) {
        Entry::Vacant(entry) => _ = entry.insert((span.file, span.line, span.column)),
        Entry::Occupied(entry) => {
            let (file, line, column) = *entry.get();
            let place = fields.diagnostics().place(Span { file, line, column, ..Span::default() });
            fields.error(key, Fault::new(message).hint(format!("it was first given at {place}")));
        }
    }
}

fn record(fields: &Fields<'_>) -> (Option<String>, Vec<String>, crate::source::Origin) {
    (fields.optional_string("id"), fields.strings("tags"), fields.origin())
}

fn key_credential(hash: KeyHash, fields: &Fields<'_>) -> KeyCredential {
    let ttl =
        fields.optional_duration("ttl").map_or(0, |ttl| u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX));
    KeyCredential { hash, ttl, id: fields.optional_string("id").map(Into::into) }
}

fn jwt_credential(key: String, fields: &Fields<'_>) -> Option<JwtCredential> {
    let algorithm = JwtAlgorithm::from_word(fields.word("algorithm"))?;
    let word = algorithm.as_str();
    let material = if algorithm.is_symmetric() {
        let Some(secret) = fields.secret("secret") else {
            if !fields.is_set("secret") {
                let fault = Fault::new(format!("{word} needs `secret`"));
                let hint = match fields.is_set("rsa_public_key") {
                    true => "with `rsa_public_key` set `algorithm` too, to RS256 or whatever the tokens say",
                    false => "Kong would make one up; here it must be written",
                };
                fields.error("secret", fault.hint(hint));
            }
            return None;
        };
        if secret.expose().len() < MIN_HMAC_SECRET {
            let message = format!(
                "the secret is shorter than {MIN_HMAC_SECRET} bytes and can be guessed from one token"
            );
            fields.warning("secret", Fault::new(message).hint("see RFC 7518 section 3.2"));
        }
        JwtMaterial::Secret(secret)
    } else {
        let Some(public_key) = fields.optional_string("rsa_public_key") else {
            if !fields.is_set("rsa_public_key") {
                let fault = Fault::new(format!("{word} needs `rsa_public_key`"));
                fields.error("rsa_public_key", fault.hint("the public key in PEM, whatever its kind"));
            }
            return None;
        };
        JwtMaterial::PublicKey(public_key)
    };
    let (id, tags, origin) = record(fields);
    Some(JwtCredential { id, key, algorithm, material, tags, origin })
}
