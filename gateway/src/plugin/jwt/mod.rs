//! `jwt`: JSON web tokens signed with the keys of consumers (Kong's plugin of the same name; RFC 7519, RFC 8725).
//!
//! | file | what |
//! |---|---|
//! | `places` | where in a request a token may be |
//! | `token` | the compact serialisation: three parts, header, claims |
//! | `jwk` | keys in JSON |
//! | `keys` | the keys, each with the one algorithm it is for; signatures |
//! | `claims` | what else a token must say, and what the upstream is told |
//! | `remote` | keys that others publish |
//! | `cache` | tokens whose signature was found good |
//!
//! Owns the order of the checks and what is said about each. Never takes a key, or where to find one, from a token.
//!
//! **Invariant.** A token gets in only when its signature is good under the algorithm of the credential it names, and
//! its times hold at this very request, whether or not it is in the cache.

mod cache;
mod claims;
mod jwk;
mod keys;
mod places;
mod remote;
mod roca;
mod token;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use portcullis_abi::Reason;
use portcullis_config::schema::text;
use portcullis_config::{self as config, Diagnostics, Fault, Fields, Key, Kind, Section};

use self::cache::{Cache, Owner, Verified};
pub(super) use self::claims::{Demands, Told};
pub use self::jwk::{Verdict, judge};
pub use self::keys::KeySet;
use self::places::{Found, Places};
use self::remote::{Remote, RemoteSpec};
pub(super) use self::token::{Alphabet, base64};
use self::token::{Compact, Value};
use super::consumer::Consumers;
use super::identity::{self, Access, challenge};
use super::{CompileCx, CredentialPlaces, Cx, Flow, Plugin, PluginSpec, Registration, Response, Resume};
use crate::http::{Head, RequestHead};
use crate::id::ConsumerId;

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "jwt", priority: 1450, section: &SECTION, compile };

/// The plugin's `config:`.
static SECTION: Section = Section::new(
    "jwt",
    "Authentication by signed JSON web token (`jwt_secrets` of consumers).",
    &[
        Key::new("uri_param_names", Kind::STRINGS, "Parameters of the query that may hold a token.")
            .default("[jwt]"),
        Key::new("cookie_names", Kind::STRINGS, "Cookies that may hold a token.").default("[]"),
        Key::new(
            "header_names",
            Kind::list(&Kind::Text(&text::HEADER_NAME)),
            "Fields that may hold a token, as `Bearer <token>`.",
        )
        .default("[authorization]"),
        Key::new(
            "claims_to_verify",
            Kind::list(&Kind::Word(&["exp", "nbf"])),
            "Claims that must be there and hold. By default tokens must have an `exp`, and an `nbf` holds where there \
             is one; in Kong expired tokens are accepted unless this says otherwise.",
        )
        .default("[exp, nbf]")
        .kong_default(""),
        Key::new(
            "key_claim_name",
            Kind::NAME,
            "The claim, or else the header parameter, that names the key: the `key` of a `jwt_secrets` entry.",
        )
        .default("iss"),
        Key::new("secret_is_base64", Kind::Bool, "Whether shared secrets are written in base64.")
            .default("false"),
        Key::new(
            "maximum_expiration",
            Kind::seconds(0, 31_536_000),
            "How far ahead `exp` may be, bare seconds; 0: any time. Needs `exp` in `claims_to_verify`.",
        )
        .default("0"),
        Key::new(
            "clock_skew",
            Kind::seconds(0, 300),
            "How far clocks may be apart: `exp` and `nbf` hold by so much longer, bare seconds.",
        )
        .default("0"),
        Key::new("issuers", Kind::STRINGS, "Accepted values of `iss`; empty: any.").default("[]"),
        Key::new("audiences", Kind::STRINGS, "Accepted values of `aud`, one of which a token must have; empty: any.")
            .default("[]"),
        Key::new("scopes_required", Kind::STRINGS, "Scopes that a token must have all of, in `scope` or `scp`; else 403.")
            .default("[]"),
        Key::new(
            "typ_allowed",
            Kind::STRINGS,
            "Accepted values of the header parameter `typ`, which must be there then; empty: `JWT`, `at+jwt`, or none.",
        )
        .default("[]"),
        Key::new(
            "claims_to_headers",
            Kind::Map { keys: &text::NAME, of: &Kind::NAME },
            "Fields in which the upstream gets claims: `{sub: X-User, realm.roles: X-Roles}`. A client's own are removed.",
        ),
        Key::new(
            "jwks_uris",
            Kind::STRINGS,
            "URLs of sets of public keys (RFC 7517). Tokens signed with one of them are accepted without a `jwt_secrets` \
             entry; set `issuers` and `audiences` too.",
        )
        .default("[]"),
        Key::new(
            "issuer",
            Kind::NAME,
            "The issuer whose keys OpenID Connect discovery finds: its `/.well-known/openid-configuration` says where they \
             are. Tokens must be of this issuer, or of `issuers`.",
        ),
        Key::new(
            "algorithms",
            Kind::STRINGS,
            "Algorithms of tokens that are checked with published keys. A key's own `alg` holds too.",
        )
        .default("[RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA]"),
        Key::new(
            "consumer_claim",
            Kind::NAME,
            "The claim of such tokens that names a consumer, by username, custom id or id; one that names none is refused. \
             Left out: they are nobody's, and the upstream gets `sub` as `X-Credential-Identifier`.",
        ),
        Key::new(
            "authenticated_groups_claim",
            Kind::NAME,
            "The claim with groups that count for `acl`: a text or a list, as in `realm_access.roles`.",
        ),
        Key::new("jwks_ttl", Kind::seconds(1, 604_800), "How long a set counts before it is fetched again, bare seconds.")
            .default("300"),
        Key::new(
            "jwks_stale_ttl",
            Kind::seconds(1, 2_592_000),
            "How long a set counts while it cannot be fetched again, bare seconds.",
        )
        .default("86400"),
        Key::new(
            "jwks_refetch_pause",
            Kind::seconds(1, 86_400),
            "Between two fetches for the sake of tokens that name an unknown key, bare seconds.",
        )
        .default("30"),
        Key::new("jwks_timeout", Kind::TIMEOUT, "Time limit of a fetch.").default("5s"),
        Key::new("jwks_tls_verify", Kind::Bool, "Whether the certificates of those URLs must verify.").default("true"),
    ],
)
.with(identity::KEYS);

/// Longest token that is looked at, in bytes: what fits into a header field, or a cookie, of usual limits.
const TOKEN_MAX: usize = 8192;

/// What happens to a claim that is a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Off,
    /// It must hold where it is there.
    IfPresent,
    /// It must be there and hold.
    Required,
}

/// What a token must fulfil beside its signature. Two equal ones judge all tokens alike.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rules {
    key_claim: String,
    exp: Check,
    nbf: Check,
    /// Seconds; 0 for no bound.
    maximum_expiration: u64,
    /// Seconds.
    skew: u64,
    demands: Demands,
    /// Of tokens signed with published keys.
    consumer_claim: Option<String>,
}

/// Compiled settings.
struct Jwt {
    places: Places,
    rules: Rules,
    keys: Arc<KeySet>,
    remote: Option<Arc<RemoteSpec>>,
    told: Vec<Told>,
    groups_claim: Option<String>,
    access: Access,
    challenge: String,
    challenge_with_error: String,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Missing,
    Several,
    Bad(&'static str),
    NoKeyName,
    BadKeyName,
    UnknownKey,
    Algorithm,
    Signature,
    Expired,
    /// The published keys cannot be had.
    NoKeys,
    /// None of the published keys is the one that signed, as far as the token says.
    NoSuchKey,
    NoConsumer,
    Scope,
    Claim(&'static str, &'static str),
}

fn compile(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    Some(Arc::new(Jwt::read(&plugin.fields(&SECTION, found), cx)))
}

impl Jwt {
    fn read(fields: &Fields<'_>, cx: &CompileCx<'_>) -> Self {
        let places = Places::new(
            fields.strings("uri_param_names"),
            fields.strings("cookie_names"),
            fields.strings("header_names"),
        );
        if places.is_empty() {
            fields.warning("header_names", "tokens are looked for in no place: every request is refused");
        }
        let base = challenge("Bearer", fields.optional_string("realm").as_deref());
        let comma = if fields.is_set("realm") { "," } else { "" };
        Self {
            places,
            rules: Rules::read(fields),
            keys: cx.consumers.jwt_keys(fields.bool("secret_is_base64"), fields.diagnostics()),
            remote: RemoteSpec::read(fields),
            told: Told::read(fields),
            groups_claim: fields.optional_string("authenticated_groups_claim"),
            access: Access::read(fields, cx.consumers),
            challenge_with_error: format!("{base}{comma} error=\"invalid_token\""),
            challenge: base,
        }
    }

    fn refuse(&self, refused: Refused) -> Box<Response> {
        let key_claim = &self.rules.key_claim;
        let (reason, member, message) = match refused {
            Refused::Missing => {
                let response = Response::new(401, Reason::UnauthorizedMissing, "Unauthorized");
                return response.with_field("WWW-Authenticate", self.challenge.clone());
            }
            Refused::Several => (Reason::UnauthorizedInvalid, "message", "Multiple tokens provided".into()),
            Refused::Bad(what) => (Reason::UnauthorizedInvalid, "message", format!("Bad token; {what}")),
            Refused::NoKeyName => {
                (Reason::UnauthorizedInvalid, "message", format!("No mandatory '{key_claim}' in claims"))
            }
            Refused::BadKeyName => {
                (Reason::UnauthorizedInvalid, "message", format!("Invalid '{key_claim}' in claims"))
            }
            Refused::UnknownKey => (
                Reason::UnauthorizedInvalid,
                "message",
                format!("No credentials found for given '{key_claim}'"),
            ),
            Refused::Algorithm => (Reason::UnauthorizedInvalid, "message", "Invalid algorithm".into()),
            Refused::Signature => (Reason::UnauthorizedInvalid, "message", "Invalid signature".into()),
            Refused::NoKeys => {
                return Response::new(503, Reason::KeysUnavailable, "The keys of tokens are not available");
            }
            Refused::Scope => {
                let response = Response::new(403, Reason::Forbidden, "Insufficient scope");
                return response.with_field("WWW-Authenticate", self.challenge_with_scope());
            }
            Refused::NoSuchKey => {
                (Reason::UnauthorizedInvalid, "message", "No key found for the token".into())
            }
            Refused::NoConsumer => {
                (Reason::UnauthorizedInvalid, "message", "No consumer found for the token".into())
            }
            Refused::Expired => (Reason::UnauthorizedExpired, "exp", "token expired".into()),
            Refused::Claim(claim, message) => (Reason::UnauthorizedInvalid, claim, message.into()),
        };
        Response::new(401, reason, message)
            .with_member(member)
            .with_field("WWW-Authenticate", self.challenge_with_error.clone())
    }
}

impl Jwt {
    /// RFC 6750 section 3.1.
    fn challenge_with_scope(&self) -> String {
        self.challenge_with_error.replace("invalid_token", "insufficient_scope")
    }
}

impl Rules {
    fn read(fields: &Fields<'_>) -> Self {
        let claims = fields.words("claims_to_verify");
        let listed = |claim| if claims.contains(&claim) { Check::Required } else { Check::Off };
        let mut rules = Self {
            key_claim: fields.string("key_claim_name"),
            exp: listed("exp"),
            nbf: listed("nbf"),
            maximum_expiration: fields.duration("maximum_expiration").as_secs(),
            skew: fields.duration("clock_skew").as_secs(),
            demands: Demands::read_signed(fields),
            consumer_claim: fields.optional_string("consumer_claim"),
        };
        if !fields.is_set("claims_to_verify") && rules.nbf == Check::Required {
            // Few issuers write an nbf, so our default must not ask for one.
            rules.nbf = Check::IfPresent;
        }
        if rules.exp == Check::Off {
            if rules.maximum_expiration > 0 {
                let fault =
                    Fault::new("`claims_to_verify` must contain `exp` when `maximum_expiration` is set");
                fields.error("maximum_expiration", fault);
            }
            if fields.is_set("claims_to_verify") {
                fields.warning("claims_to_verify", "without `exp` a token is accepted for ever");
            }
        }
        rules
    }

    /// The times within which a token with these claims is good.
    fn times(&self, claims: &token::Members<'_>, now: u64) -> Result<(u64, u64), Refused> {
        let time = |claim: &'static str, check, otherwise| match (check, claims.get(claim)) {
            (Check::Off, _) | (Check::IfPresent, None) => Ok(otherwise),
            // Whole seconds as in Kong: a fraction counts as the second that it ends in. The cast saturates.
            (_, Some(Value::Number(seconds))) => Ok(seconds.ceil() as u64),
            _ => Err(Refused::Claim(claim, "must be a number")),
        };
        let expires = time("exp", self.exp, u64::MAX)?;
        let not_before = time("nbf", self.nbf, 0)?;
        if self.maximum_expiration > 0 && expires.saturating_sub(now) > self.maximum_expiration {
            return Err(Refused::Claim("exp", "exceeds maximum allowed expiration"));
        }
        Ok((not_before.saturating_sub(self.skew), expires.saturating_add(self.skew)))
    }
}

/// What a shard remembers about tokens, and by which rules and keys it was found out.
struct Memory {
    rules: Rules,
    keys: Arc<KeySet>,
    remote: Option<Rc<Remote>>,
    cache: RefCell<Cache>,
    /// The generation of the published keys that the cache is of.
    generation: Cell<u64>,
    /// Signatures that were checked.
    checks: Cell<u64>,
}

impl Memory {
    fn new(rules: Rules, keys: Arc<KeySet>, remote: Option<Rc<Remote>>) -> Self {
        let (cache, generation, checks) = (RefCell::new(Cache::new()), Cell::new(0), Cell::new(0));
        Self { rules, keys, remote, cache, generation, checks }
    }

    #[inline]
    fn verify(&self, token: &[u8], consumers: &Consumers, now: u64) -> Result<Owner, Refused> {
        if token.len() > TOKEN_MAX {
            return Err(Refused::Bad("too long"));
        }
        if let Some(remote) = &self.remote
            && remote.generation.get() != self.generation.get()
        {
            // A key that was withdrawn must not live on in what it signed.
            self.generation.set(remote.generation.get());
            *self.cache.borrow_mut() = Cache::new();
        }
        let known = self.cache.borrow_mut().get(token);
        let verified = match known {
            Some(verified) => verified,
            None => self.verify_anew(token, consumers, now)?,
        };
        if now >= verified.expires {
            return Err(Refused::Expired);
        }
        if now < verified.not_before {
            return Err(Refused::Claim("nbf", "token not valid yet"));
        }
        Ok(verified.owner)
    }

    /// A token that is not in the cache. One with a good signature is kept even when it has expired: whoever goes on
    /// sending it shall not have the signature checked each time.
    #[cold]
    fn verify_anew(&self, token: &[u8], consumers: &Consumers, now: u64) -> Result<Verified, Refused> {
        let token = Compact::split(token).map_err(Refused::Bad)?;
        let header = token.header().map_err(Refused::Bad)?;
        let algorithm = token::algorithm(&header).map_err(Refused::Bad)?;
        self.rules.demands.check_kind(&header).map_err(Refused::Bad)?;
        let claims = token.claims().map_err(Refused::Bad)?;
        let name = match claims.get(&self.rules.key_claim).or_else(|| header.get(&self.rules.key_claim)) {
            None => Err(Refused::NoKeyName),
            Some(Value::Text(name)) if !name.is_empty() => Ok(name),
            Some(_) => Err(Refused::BadKeyName),
        };
        let key = name.and_then(|name| self.keys.get(name).ok_or(Refused::UnknownKey));
        let owner = match (key, &self.remote) {
            (Ok(key), _) => {
                if key.algorithm() != algorithm {
                    return Err(Refused::Algorithm);
                }
                self.checks.set(self.checks.get() + 1);
                if !key.verify(token.signed, token.signature) {
                    return Err(Refused::Signature);
                }
                Owner::Credential(key.credential())
            }
            (Err(refused), None) => return Err(refused),
            (Err(_), Some(remote)) => {
                let kid = match header.get("kid") {
                    None => None,
                    Some(Value::Text(kid)) => Some(&**kid),
                    Some(_) => return Err(Refused::Bad("invalid kid")),
                };
                match remote.check(algorithm, kid, token.signed, token.signature) {
                    remote::Found::Good => {}
                    remote::Found::BadSignature => return Err(Refused::Signature),
                    remote::Found::NoKey => return Err(Refused::NoSuchKey),
                    remote::Found::NoSet => return Err(Refused::NoKeys),
                }
                Owner::Published(self.consumer(&claims, consumers)?)
            }
        };
        if !self.rules.demands.ask_nothing() {
            self.rules.demands.check(&token.all_claims().ok_or(Refused::Bad("invalid JSON"))?)?;
        }
        let (not_before, expires) = self.rules.times(&claims, now)?;
        let verified = Verified { owner, not_before, expires };
        self.cache.borrow_mut().insert(token.text, verified, now);
        Ok(verified)
    }

    /// The consumer that a token signed with a published key is of.
    fn consumer(
        &self,
        claims: &token::Members<'_>,
        consumers: &Consumers,
    ) -> Result<Option<ConsumerId>, Refused> {
        let Some(claim) = &self.rules.consumer_claim else { return Ok(None) };
        let Some(Value::Text(name)) = claims.get(claim) else { return Err(Refused::NoConsumer) };
        let custom = |consumer: &super::consumer::Consumer| consumer.custom_id.as_deref() == Some(&**name);
        let by_custom_id = || consumers.all().find(|(_, consumer)| custom(consumer)).map(|(id, _)| id);
        consumers.by_name(name).or_else(by_custom_id).map(Some).ok_or(Refused::NoConsumer)
    }
}

impl PluginSpec for Jwt {
    fn instantiate(self: Arc<Self>, previous: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        let previous = previous.and_then(|state| state.downcast::<Memory>().ok());
        // Keys that were fetched go on, and so does a fetch under way.
        let remote = self.remote.as_ref().map(|spec| {
            let known = previous.as_ref().and_then(|memory| memory.remote.clone());
            let same = known.filter(|known| known.spec.fingerprint == spec.fingerprint);
            same.unwrap_or_else(|| Remote::begin(spec.clone()))
        });
        // A credential that was removed, or belongs to somebody else now, must not live on in a cache; nor may the
        // number of a consumer, which another one may have now.
        let memory = previous
            .filter(|memory| memory.rules == self.rules && memory.keys.is_same(&self.keys))
            .filter(|memory| match (&memory.remote, &remote) {
                (None, None) => true,
                (Some(one), Some(other)) => Rc::ptr_eq(one, other) && self.rules.consumer_claim.is_none(),
                _ => false,
            })
            .unwrap_or_else(|| Rc::new(Memory::new(self.rules.clone(), self.keys.clone(), remote)));
        Rc::new(OnShard { spec: self, memory })
    }

    fn credential_places(&self) -> CredentialPlaces {
        self.places.to_credential_places()
    }
}

#[derive(Clone)]
struct OnShard {
    spec: Arc<Jwt>,
    memory: Rc<Memory>,
}

impl OnShard {
    /// Whose the request's token is.
    fn verify(&self, cx: &Cx<'_>, request: &RequestHead) -> Result<(Owner, Option<Vec<u8>>), Refused> {
        let token = match self.spec.places.find(request) {
            Found::None => return Err(Refused::Missing),
            Found::Several => return Err(Refused::Several),
            Found::One(token) => token,
        };
        let owner = self.memory.verify(&token, cx.consumers, cx.wall.as_secs())?;
        let spec = &self.spec;
        let asked = !spec.told.is_empty() || spec.groups_claim.is_some() || cx.wants.claims;
        let needed = asked || matches!(owner, Owner::Published(_));
        Ok((owner, needed.then(|| token.to_vec())))
    }

    fn decide(
        &self,
        cx: &mut Cx<'_>,
        request: &mut RequestHead,
        outcome: Result<(Owner, Option<Vec<u8>>), Refused>,
    ) -> Flow {
        let spec = &self.spec;
        for told in &spec.told {
            told.tell(None, &mut request.head);
        }
        let identify = |cx: &mut Cx<'_>, head: &mut Head, (owner, token): (Owner, Option<Vec<u8>>)| {
            let token = token.as_deref().and_then(|token| Compact::split(token).ok());
            let claims = token.and_then(|token| token.all_claims());
            for told in &spec.told {
                told.tell(claims.as_ref(), head);
            }
            if let (Some(claim), Some(claims)) = (&spec.groups_claim, &claims) {
                cx.authenticated_groups = Told::list(claims, claim);
            }
            let subject = || {
                let subject = claims.as_ref().and_then(|claims| claims.get("sub")?.as_str());
                subject.filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic())).unwrap_or_default()
            };
            match owner {
                Owner::Credential(credential) => identity::identify(cx, head, credential),
                Owner::Published(Some(consumer)) => {
                    identity::identify_consumer(cx, head, consumer, subject())
                }
                Owner::Published(None) => identity::identify_nobody(cx, head, subject()),
            }
            if cx.wants.claims {
                cx.claims = claims.map(Box::new);
            }
        };
        spec.access.decide_by(cx, request, |_, _| outcome, identify, |refused| spec.refuse(refused))
    }

    /// Whether new keys could make another thing of what was found.
    fn awaits(&self, outcome: &Result<(Owner, Option<Vec<u8>>), Refused>) -> Option<Rc<Remote>> {
        let remote = self.memory.remote.as_ref()?;
        let awaits = match outcome {
            Err(Refused::NoKeys) => remote.may_change(remote::Found::NoSet),
            Err(Refused::NoSuchKey) => remote.may_change(remote::Found::NoKey),
            Ok((Owner::Published(_), _)) => remote.is_old(),
            _ => false,
        };
        awaits.then(|| remote.clone())
    }
}

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        if self.spec.access.passes(cx, request) {
            return Flow::Continue;
        }
        let outcome = self.verify(cx, request);
        let Some(remote) = self.awaits(&outcome) else { return self.decide(cx, request, outcome) };
        let this = self.clone();
        Flow::Wait(Box::pin(async move {
            remote.settle().await;
            let resume: Resume = Box::new(move |cx, request| {
                let outcome = this.verify(cx, request);
                this.decide(cx, request, outcome)
            });
            resume
        }))
    }

    fn state(&self) -> Option<Rc<dyn Any>> {
        Some(self.memory.clone())
    }
}

#[cfg(test)]
mod tests;
