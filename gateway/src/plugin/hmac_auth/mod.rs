//! `hmac-auth`: requests that are signed with a secret (Kong's plugin of the same name; after
//! draft-cavage-http-signatures).
//!
//! | is wrong | answer |
//! |---|---|
//! | there is no signature | 401 |
//! | neither `X-Date` nor `Date` is within `clock_skew` | 401 |
//! | parts of the signature, its algorithm, or a field of `enforce_headers` missing among those signed | 401 |
//! | the user, or the signature | 401 |
//! | the signature was seen within `replay_window` | 401, whoever else may pass |
//! | the body is not what `Digest` says, or `Digest` is not signed | 401 |
//!
//! Owns the decision. What is signed is `signature`'s; the secrets are in [`Consumers`].
//!
//! **Invariant.** A field that is signed occurs once: of two, the upstream could read the other one. Stricter than Kong:
//! with `validate_request_body` a body counts only by a `Digest` that is signed itself.
//!
//! [`Consumers`]: super::consumer::Consumers

mod signature;

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use portcullis_abi::{Charge, Rate, Reason};
use portcullis_config::{self as config, Diagnostics, Fault, Fields, Key, Kind, Section};

use self::signature::{Algorithm, Signature, signed_text};
use super::consumer::CredentialRef;
use super::identity::{self, Access, challenge};
use super::jwt::{Alphabet, base64};
use super::password::same;
use super::{CompileCx, CredentialPlaces, Cx, Flow, Plugin, PluginSpec, Registration, Response};
use crate::http::date::parse_date;
use crate::http::{Known, RequestHead};
use crate::limit::{LimiterId, Word, limit_key};

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "hmac-auth", priority: 1030, section: &SECTION, compile };

/// The plugin's `config:`.
static SECTION: Section = Section::new(
    "hmac-auth",
    "Authentication by a signature over the request (`hmacauth_credentials` of consumers), in `Proxy-Authorization` or \
     `Authorization`.",
    &[
        Key::new("hide_credentials", Kind::Bool, "Whether the signature is kept from the upstream.")
            .default("false"),
        Key::new(
            "clock_skew",
            Kind::seconds(1, 86_400),
            "How far the request's `X-Date` or `Date` may be from our clock, bare seconds.",
        )
        .default("300"),
        Key::new(
            "replay_window",
            Kind::seconds(0, 86_400),
            "How long a signature that was good is not taken again, bare seconds; 0 takes it as often as it comes. Twice \
             `clock_skew` covers all the time that it could be good for.",
        )
        .default("0"),
        Key::new(
            "validate_request_body",
            Kind::Bool,
            "Whether the body must be what the field `Digest` says, by SHA-256. The body is held in memory then, up to \
             `limits.buffered_body`.",
        )
        .default("false"),
        Key::new(
            "enforce_headers",
            Kind::STRINGS,
            "What must be among the things signed: names of fields, `request-line` or `@request-target`.",
        )
        .default("[]"),
        Key::new("algorithms", Kind::list(&Kind::Word(&Algorithm::WORDS)), "Algorithms that are taken.")
            .default("[hmac-sha1, hmac-sha256, hmac-sha384, hmac-sha512]"),
    ],
)
.with(identity::KEYS);

fn compile(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    Some(Arc::new(HmacAuth::read(&plugin.fields(&SECTION, found), cx)))
}

/// Compiled settings, and the plugin itself: what it keeps is in the shards' common table.
struct HmacAuth {
    /// Names what it keeps there.
    id: LimiterId,
    hide: bool,
    skew: Duration,
    /// One request in the window with one signature.
    replay: Option<Rate>,
    validates_body: bool,
    /// In lower case.
    enforced: Vec<String>,
    algorithms: Vec<Algorithm>,
    challenge: String,
    access: Access,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Missing,
    Date,
    Invalid,
    Signature,
    Replayed,
}

/// Marks an exchange whose body is to be looked at by the instance with this id.
struct BodyDue(LimiterId);

impl HmacAuth {
    fn read(fields: &Fields<'_>, cx: &CompileCx<'_>) -> Self {
        let (skew, window) = (fields.duration("clock_skew"), fields.duration("replay_window"));
        if !window.is_zero() && window < 2 * skew {
            let message = "a request may be sent again after this, and its date is still good";
            let hint = format!("twice `clock_skew` is {} seconds", 2 * skew.as_secs());
            fields.warning("replay_window", Fault::new(message).hint(hint));
        }
        let nanos = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        let algorithms: Vec<_> =
            fields.words("algorithms").into_iter().filter_map(Algorithm::from_word).collect();
        if algorithms.is_empty() {
            fields.error("algorithms", "without an algorithm every request is refused");
        }
        Self {
            id: LimiterId::from_number(cx.instance),
            hide: fields.bool("hide_credentials"),
            skew,
            replay: (nanos > 0).then(|| Rate::new(1, nanos, 1)),
            validates_body: fields.bool("validate_request_body"),
            enforced: fields
                .strings("enforce_headers")
                .iter()
                .map(|name| name.to_ascii_lowercase())
                .collect(),
            algorithms,
            challenge: challenge("hmac", fields.optional_string("realm").as_deref()),
            access: Access::read(fields, cx.consumers),
        }
    }

    fn authenticate(&self, cx: &Cx<'_>, request: &mut RequestHead) -> Result<CredentialRef, Refused> {
        let (field, signature) = Signature::find(&request.head)?;
        let in_time = |text: Option<&[u8]>| {
            let date = text.and_then(parse_date);
            date.is_some_and(|date| date.abs_diff(cx.wall.as_secs()) <= self.skew.as_secs())
        };
        if !in_time(request.head.get("X-Date")) && !in_time(request.head.get_known(Known::Date)) {
            return Err(Refused::Date);
        }
        let signature = signature.ok_or(Refused::Invalid)?;
        let algorithm =
            Algorithm::from_word(&signature.algorithm).filter(|one| self.algorithms.contains(one));
        let algorithm = algorithm.ok_or(Refused::Invalid)?;
        let names = || signature.names();
        if !self.enforced.iter().all(|wanted| names().any(|name| name.eq_ignore_ascii_case(wanted))) {
            return Err(Refused::Invalid);
        }
        let text = signed_text(request, names()).ok_or(Refused::Invalid)?;
        let given = base64(signature.signature.as_bytes(), Alphabet::Any).ok_or(Refused::Signature)?;
        // For an unknown user as long as for a known one.
        let (secret, credential) = cx.consumers.hmac_secret(&signature.username);
        let right = algorithm.sign(secret, &text);
        let credential = credential.filter(|_| same(right.as_ref(), &given)).ok_or(Refused::Signature)?;
        if self.validates_body && request.head.get("Digest").is_some() {
            let signed = names().any(|name| name.eq_ignore_ascii_case("digest"));
            signed.then_some(()).ok_or(Refused::Invalid)?;
        }
        if let Some(rate) = self.replay {
            let key = limit_key(self.id, &[signature.username.as_bytes(), &given]);
            if let Charge::Limited { .. } = cx.limit_table.charge(key, Word::Request, cx.now_ns, rate, 1) {
                return Err(Refused::Replayed);
            }
        }
        if self.hide {
            request.head.remove_known(field);
        }
        Ok(credential)
    }

    fn refuse(&self, refused: Refused) -> Box<Response> {
        let (reason, message) = match refused {
            Refused::Missing => (Reason::UnauthorizedMissing, "Unauthorized"),
            Refused::Date => (
                Reason::UnauthorizedExpired,
                "HMAC signature cannot be verified, a valid date or x-date header is required for HMAC Authentication",
            ),
            Refused::Invalid => (Reason::UnauthorizedInvalid, "HMAC signature cannot be verified"),
            Refused::Signature => (Reason::UnauthorizedInvalid, "HMAC signature does not match"),
            Refused::Replayed => (Reason::ReplayedRequest, "HMAC signature was used before"),
        };
        Response::new(401, reason, message).with_field("WWW-Authenticate", self.challenge.clone())
    }
}

/// Whether a body is the one that a `Digest` field names. Without the field only an empty body is.
fn is_digest_of(body: &[u8], field: Option<&[u8]>) -> bool {
    let Some(field) = field else { return body.is_empty() };
    let Some((name, value)) = field.split_at_checked(b"SHA-256=".len()) else { return false };
    let given = base64(value.trim_ascii(), Alphabet::Any);
    name.eq_ignore_ascii_case(b"SHA-256=")
        && given.is_some_and(|given| given == digest(&SHA256, body).as_ref())
}

impl PluginSpec for HmacAuth {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard(self))
    }

    fn credential_places(&self) -> CredentialPlaces {
        let fields = signature::FIELDS.map(|field| field.as_str().to_owned()).to_vec();
        CredentialPlaces { parameters: Vec::new(), fields }
    }
}

struct OnShard(Arc<HmacAuth>);

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        let plugin = &*self.0;
        if plugin.access.passes(cx, request) {
            return Flow::Continue;
        }
        let outcome = plugin.authenticate(cx, request);
        if outcome == Err(Refused::Replayed) {
            // Who sends what another has signed is not simply unknown.
            return Flow::Respond(plugin.refuse(Refused::Replayed));
        }
        if outcome.is_ok() && plugin.validates_body {
            cx.held.push(Box::new(BodyDue(plugin.id)));
        }
        plugin.access.decide(cx, request, |_, _| outcome, |refused| plugin.refuse(refused))
    }

    fn wants_request_body(&self, cx: &Cx<'_>, _: &RequestHead) -> bool {
        let due = |held: &Box<dyn Any>| held.downcast_ref::<BodyDue>().is_some_and(|due| due.0 == self.0.id);
        self.0.validates_body && cx.held.iter().any(due)
    }

    fn on_request_body(&self, cx: &mut Cx<'_>, request: &mut RequestHead, body: &mut Vec<u8>) -> Flow {
        let only = request.head.get_all("Digest").count() <= 1;
        match only && is_digest_of(body, request.head.get("Digest")) {
            true => Flow::Continue,
            false => self.0.access.take_back(cx, request, || self.0.refuse(Refused::Signature)),
        }
    }
}

#[cfg(test)]
mod tests;
