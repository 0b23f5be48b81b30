//! What authentication plugins have in common: who the request is from, and what the upstream is told about it.
//!
//! Owns [`Access`], the part of Kong's authentication plugins that does not depend on the kind of credential, and the
//! identity fields of the upstream request. Never looks at a credential itself.
//!
//! **Invariant.** After a success or an anonymous pass the identity fields tell of exactly the consumer in
//! `cx.identity`, and of nobody who was set before.

use portcullis_config::{Fault, Fields, Key, Kind};

use super::consumer::{Consumers, CredentialRef};
use super::{Cx, Flow, Identity, Response};
use crate::http::{Head, Known, KnownSet, Method, RequestHead};
use crate::id::ConsumerId;

/// Kong's keys that every authentication plugin has.
pub const KEYS: &[Key] = &[
    ANONYMOUS,
    Key::new("realm", Kind::NAME, "The `realm` of the `WWW-Authenticate` field."),
    RUN_ON_PREFLIGHT,
];

/// Who stands in.
pub const ANONYMOUS: Key = Key::new(
    "anonymous",
    Kind::NAME,
    "Username or id of the consumer that stands in when authentication fails; without it such requests are refused. With \
     several authentication plugins that all have it, one success is enough.",
);

/// Kong's exemption of preflight requests.
pub const RUN_ON_PREFLIGHT: Key =
    Key::new("run_on_preflight", Kind::Bool, "Whether OPTIONS requests must authenticate too.")
        .default("true");

/// Who gets in without a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    anonymous: Option<ConsumerId>,
    run_on_preflight: bool,
}

impl Access {
    /// Reads [`KEYS`] but `realm`. A stand-in that does not exist is an error.
    pub fn read(fields: &Fields<'_>, consumers: &Consumers) -> Self {
        let anonymous = fields.optional_string("anonymous").and_then(|name| {
            let found = consumers.by_name(&name);
            if found.is_none() {
                let fault = Fault::new(format!("there is no consumer {name:?}"));
                fields
                    .error("anonymous", fault.hint("write the username or the id of one under `consumers`"));
            }
            found
        });
        Self { anonymous, run_on_preflight: fields.bool("run_on_preflight") }
    }

    /// Whether a request gets past without a credential: a preflight that need none, or one that another plugin has
    /// identified where one success is enough.
    #[inline]
    pub fn passes(&self, cx: &Cx<'_>, request: &RequestHead) -> bool {
        let preflight = !self.run_on_preflight && request.method() == Method::Options;
        let known = cx.identity.authenticated || cx.identity.consumer.is_some();
        preflight || (self.anonymous.is_some() && known && !cx.identity.anonymous)
    }

    /// Kong's order of things: preflight requests and those that another plugin has identified may pass, then
    /// `authenticate` decides, then the stand-in takes who failed. `refuse` makes the answer for those it does not.
    #[inline]
    pub fn decide<E>(
        &self,
        cx: &mut Cx<'_>,
        request: &mut RequestHead,
        authenticate: impl FnOnce(&Cx<'_>, &mut RequestHead) -> Result<CredentialRef, E>,
        refuse: impl FnOnce(E) -> Box<Response>,
    ) -> Flow {
        self.decide_by(cx, request, authenticate, identify, refuse)
    }

    /// As [`Access::decide`], for what is no credential: `identify` says whose it is.
    #[inline]
    pub fn decide_by<T, E>(
        &self,
        cx: &mut Cx<'_>,
        request: &mut RequestHead,
        authenticate: impl FnOnce(&Cx<'_>, &mut RequestHead) -> Result<T, E>,
        identify: impl FnOnce(&mut Cx<'_>, &mut Head, T),
        refuse: impl FnOnce(E) -> Box<Response>,
    ) -> Flow {
        if self.passes(cx, request) {
            return Flow::Continue;
        }
        match (authenticate(cx, request), self.anonymous) {
            (Ok(found), _) => identify(cx, &mut request.head, found),
            (Err(_), Some(stand_in)) => identify_anonymous(cx, &mut request.head, stand_in),
            (Err(refused), None) => return Flow::Respond(refuse(refused)),
        }
        Flow::Continue
    }
}

impl Access {
    /// What becomes of a request that was let in by its head, and fails by its body: the stand-in takes it, or it is
    /// refused.
    pub fn take_back(
        &self,
        cx: &mut Cx<'_>,
        request: &mut RequestHead,
        refuse: impl FnOnce() -> Box<Response>,
    ) -> Flow {
        let Some(stand_in) = self.anonymous else { return Flow::Respond(refuse()) };
        identify_anonymous(cx, &mut request.head, stand_in);
        Flow::Continue
    }
}

/// The challenge of a 401 (RFC 9110 section 11.6.1): the scheme, and the realm where there is one.
pub fn challenge(scheme: &str, realm: Option<&str>) -> String {
    let mut text = scheme.to_owned();
    if let Some(realm) = realm {
        text.push_str(" realm=\"");
        for character in realm.chars() {
            if matches!(character, '"' | '\\') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push('"');
    }
    text
}

/// The fields that tell of an identity. Those of groups are `acl`'s.
const FIELDS: KnownSet = KnownSet::of(&[
    Known::XConsumerId,
    Known::XConsumerCustomId,
    Known::XConsumerUsername,
    Known::XCredentialIdentifier,
    Known::XAnonymousConsumer,
]);

/// The request is from the owner of `credential`.
#[inline]
pub fn identify(cx: &mut Cx<'_>, head: &mut Head, credential: CredentialRef) {
    let known = cx.consumers.credential(credential);
    cx.identity = Identity {
        consumer: Some(known.consumer),
        credential: Some(credential),
        authenticated: true,
        anonymous: false,
    };
    head.remove_set(FIELDS);
    cx.consumers.tell(known.consumer, head);
    head.append_known(Known::XCredentialIdentifier, known.identifier);
}

/// The request is from `consumer`, known by something that is no credential of the configuration.
pub fn identify_consumer(cx: &mut Cx<'_>, head: &mut Head, consumer: ConsumerId, identifier: &str) {
    cx.identity =
        Identity { consumer: Some(consumer), credential: None, authenticated: true, anonymous: false };
    head.remove_set(FIELDS);
    cx.consumers.tell(consumer, head);
    head.append_known(Known::XCredentialIdentifier, identifier);
}

/// The request is from somebody who proved who he is, and is no consumer.
pub fn identify_nobody(cx: &mut Cx<'_>, head: &mut Head, identifier: &str) {
    cx.identity = Identity { authenticated: true, ..Identity::default() };
    head.remove_set(FIELDS);
    if !identifier.is_empty() {
        head.append_known(Known::XCredentialIdentifier, identifier);
    }
}

/// Undoes what came after `before`, of a request that had no identity of any plugin before.
pub fn restore(cx: &mut Cx<'_>, head: &mut Head, before: Identity) {
    cx.identity = before;
    cx.authenticated_groups.clear();
    cx.claims = None;
    if before.consumer.is_none() {
        head.remove_set(FIELDS);
        head.remove_set(KnownSet::of(&[Known::XConsumerGroups, Known::XAuthenticatedGroups]));
    }
}

/// The request is from nobody known; `stand_in` takes his place.
pub fn identify_anonymous(cx: &mut Cx<'_>, head: &mut Head, stand_in: ConsumerId) {
    cx.identity =
        Identity { consumer: Some(stand_in), credential: None, authenticated: false, anonymous: true };
    head.remove_set(FIELDS);
    cx.consumers.tell(stand_in, head);
    head.append_known(Known::XAnonymousConsumer, "true");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::Fixture;

    #[test]
    fn a_challenge_quotes_the_realm() {
        assert_eq!(challenge("Key", None), "Key");
        assert_eq!(challenge("Bearer", Some("a \"b\" \\c")), r#"Bearer realm="a \"b\" \\c""#);
    }

    #[test]
    fn the_second_identity_leaves_nothing_of_the_first() {
        let fixture = Fixture::new(
            "consumers:\n\
             - {username: ann, id: id-a, custom_id: c-a, keyauth_credentials: [{key: a, id: key-a}]}\n\
             - {custom_id: c-b, keyauth_credentials: [{key: b, id: key-b}]}\n\
             - {username: nobody}\n",
        );
        let mut cx = fixture.cx();
        let mut request = RequestHead::new();
        let fields = |request: &RequestHead| -> Vec<(String, String)> {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            request.head.iter().map(|(_, name, value)| (text(name), text(value))).collect()
        };
        let of = |key: &[u8]| fixture.consumers.by_key(key, cx.wall).expect("a known key");
        let (ann, ben) = (of(b"a"), of(b"b"));

        identify(&mut cx, &mut request.head, ann);
        let pairs = [
            ("X-Consumer-ID", "id-a"),
            ("X-Consumer-Custom-ID", "c-a"),
            ("X-Consumer-Username", "ann"),
            ("X-Credential-Identifier", "key-a"),
        ];
        assert_eq!(fields(&request), pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));

        identify(&mut cx, &mut request.head, ben);
        let pairs =
            [("X-Consumer-ID", "c-b"), ("X-Consumer-Custom-ID", "c-b"), ("X-Credential-Identifier", "key-b")];
        assert_eq!(fields(&request), pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(cx.identity.credential, Some(ben));

        let nobody = fixture.consumers.by_name("nobody").expect("the stand-in");
        identify_anonymous(&mut cx, &mut request.head, nobody);
        let pairs = [
            ("X-Consumer-ID", "nobody"),
            ("X-Consumer-Username", "nobody"),
            ("X-Anonymous-Consumer", "true"),
        ];
        assert_eq!(fields(&request), pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!((cx.identity.credential, cx.identity.anonymous), (None, true));
    }
}
