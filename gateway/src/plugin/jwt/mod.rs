//! `jwt`: JSON web tokens signed with the keys of consumers (Kong's plugin of the same name; RFC 7519, RFC 8725).
//!
//! | file | what |
//! |---|---|
//! | `places` | where in a request a token may be |
//! | `token` | the compact serialisation: three parts, header, claims |
//! | `jwk` | keys in JSON |
//! | `keys` | the keys, each with the one algorithm it is for; signatures |
//! | `cache` | tokens whose signature was found good |
//!
//! Owns the order of the checks and what is said about each. Never takes a key, or where to find one, from a token.
//!
//! **Invariant.** A token gets in only when its signature is good under the algorithm of the credential it names, and
//! its times hold at this very request, whether or not it is in the cache.

mod cache;
mod jwk;
mod keys;
mod places;
mod token;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use portcullis_abi::Reason;
use portcullis_config::schema::text;
use portcullis_config::{self as config, Diagnostics, Fault, Fields, Key, Kind, Section};

use self::cache::{Cache, Verified};
pub use self::jwk::{Verdict, judge};
pub use self::keys::KeySet;
use self::places::{Found, Places};
pub(super) use self::token::{Alphabet, base64};
use self::token::{Compact, Value};
use super::consumer::CredentialRef;
use super::identity::{self, Access, challenge};
use super::{CompileCx, CredentialPlaces, Cx, Flow, Plugin, PluginSpec, Registration, Response};
use crate::http::RequestHead;

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
}

/// Compiled settings.
struct Jwt {
    places: Places,
    rules: Rules,
    keys: Arc<KeySet>,
    access: Access,
    challenge: String,
    challenge_with_error: String,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Missing,
    Several,
    Bad(&'static str),
    NoKeyName,
    BadKeyName,
    UnknownKey,
    Algorithm,
    Signature,
    Expired,
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
            Refused::Expired => (Reason::UnauthorizedExpired, "exp", "token expired".into()),
            Refused::Claim(claim, message) => (Reason::UnauthorizedInvalid, claim, message.into()),
        };
        Response::new(401, reason, message)
            .with_member(member)
            .with_field("WWW-Authenticate", self.challenge_with_error.clone())
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
        Ok((not_before, expires))
    }
}

/// What a shard remembers about tokens, and by which rules and keys it was found out.
struct Memory {
    rules: Rules,
    keys: Arc<KeySet>,
    cache: RefCell<Cache>,
    /// Signatures that were checked.
    checks: Cell<u64>,
}

impl Memory {
    fn new(rules: Rules, keys: Arc<KeySet>) -> Self {
        Self { rules, keys, cache: RefCell::new(Cache::new()), checks: Cell::new(0) }
    }

    #[inline]
    fn verify(&self, token: &[u8], now: u64) -> Result<CredentialRef, Refused> {
        if token.len() > TOKEN_MAX {
            return Err(Refused::Bad("too long"));
        }
        let known = self.cache.borrow_mut().get(token);
        let verified = match known {
            Some(verified) => verified,
            None => self.verify_anew(token, now)?,
        };
        if now >= verified.expires {
            return Err(Refused::Expired);
        }
        if now < verified.not_before {
            return Err(Refused::Claim("nbf", "token not valid yet"));
        }
        Ok(verified.credential)
    }

    /// A token that is not in the cache. One with a good signature is kept even when it has expired: whoever goes on
    /// sending it shall not have the signature checked each time.
    #[cold]
    fn verify_anew(&self, token: &[u8], now: u64) -> Result<Verified, Refused> {
        let token = Compact::split(token).map_err(Refused::Bad)?;
        let header = token.header().map_err(Refused::Bad)?;
        let algorithm = token::algorithm(&header).map_err(Refused::Bad)?;
        token::check_kind(&header, &["JWT", "at+jwt"], false).map_err(Refused::Bad)?;
        let claims = token.claims().map_err(Refused::Bad)?;
        let name = &self.rules.key_claim;
        let name = match claims.get(name).or_else(|| header.get(name)) {
            None => return Err(Refused::NoKeyName),
            Some(Value::Text(name)) if !name.is_empty() => name,
            Some(_) => return Err(Refused::BadKeyName),
        };
        let key = self.keys.get(name).ok_or(Refused::UnknownKey)?;
        if key.algorithm() != algorithm {
            return Err(Refused::Algorithm);
        }
        self.checks.set(self.checks.get() + 1);
        if !key.verify(token.signed, token.signature) {
            return Err(Refused::Signature);
        }
        let (not_before, expires) = self.rules.times(&claims, now)?;
        let verified = Verified { credential: key.credential(), not_before, expires };
        self.cache.borrow_mut().insert(token.text, verified, now);
        Ok(verified)
    }
}

impl PluginSpec for Jwt {
    fn instantiate(self: Arc<Self>, previous: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        // A credential that was removed, or belongs to somebody else now, must not live on in a cache.
        let memory = previous
            .and_then(|state| state.downcast::<Memory>().ok())
            .filter(|memory| memory.rules == self.rules && memory.keys.is_same(&self.keys))
            .unwrap_or_else(|| Rc::new(Memory::new(self.rules.clone(), self.keys.clone())));
        Rc::new(OnShard { spec: self, memory })
    }

    fn credential_places(&self) -> CredentialPlaces {
        self.places.to_credential_places()
    }
}

struct OnShard {
    spec: Arc<Jwt>,
    memory: Rc<Memory>,
}

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        let authenticate = |cx: &Cx<'_>, request: &mut RequestHead| match self.spec.places.find(request) {
            Found::None => Err(Refused::Missing),
            Found::Several => Err(Refused::Several),
            Found::One(token) => self.memory.verify(&token, cx.wall.as_secs()),
        };
        self.spec.access.decide(cx, request, authenticate, |refused| self.spec.refuse(refused))
    }

    fn state(&self) -> Option<Rc<dyn Any>> {
        Some(self.memory.clone())
    }
}

#[cfg(test)]
mod tests;
