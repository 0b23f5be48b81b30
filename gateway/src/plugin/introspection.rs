//! `oauth2-introspection`: the server that issued a token says whether it counts (RFC 7662; Kong's plugin of the same
//! name).
//!
//! Owns what is asked, and what is remembered of the answers. Calls go out from the shard itself; see
//! [`call`](super::call).
//!
//! **Invariant.** A token counts only by an answer with `active: true` for these very bytes, at most `ttl` old and not
//! past its `exp`. One question about a token is under way on a shard at a time, and at most [`PENDING_MAX`] in all.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_abi::Reason;
use portcullis_config::schema::text;
use portcullis_config::{self as config, Diagnostics, Key, Kind, Section};
use serde_json::{Map, Value};

use super::call::{Caller, Reply, Service};
use super::consumer::Consumers;
use super::identity::{self, Access, challenge};
use super::jwt::{Demands, Refused as ClaimRefused, Told};
use super::{CompileCx, CredentialPlaces, Cx, Flow, Plugin, PluginSpec, Registration, Response, Resume};
use crate::http::{Head, Known, Method, RequestHead};
use crate::net::{self, clock};

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "oauth2-introspection", priority: 1700, section: &SECTION, compile };

static SECTION: Section = Section::new(
    "oauth2-introspection",
    "Authentication by an opaque token that another server knows (RFC 7662), in `Authorization: Bearer`.",
    &[
        Key::new("introspection_url", Kind::NAME, "URL of the server's introspection.").required(),
        Key::new(
            "authorization_value",
            Kind::NAME,
            "What our own `Authorization` to the server is, as in `Basic Y2xpZW50OnNlY3JldA==`.",
        )
        .required()
        .secret(),
        Key::new("token_type_hint", Kind::NAME, "The `token_type_hint` of a question."),
        Key::new("ttl", Kind::seconds(0, 86_400), "How long an answer counts, bare seconds; 0 asks each time.")
            .default("30"),
        Key::new("timeout", Kind::TIMEOUT, "Time limit of a question. Without an answer no request passes.")
            .default("3s"),
        Key::new("tls_verify", Kind::Bool, "Whether the server's certificate must verify.").default("true"),
        Key::new("hide_credentials", Kind::Bool, "Whether the token is kept from the upstream.").default("false"),
        Key::new(
            "consumer_by",
            Kind::Word(&["username", "client_id", "sub"]),
            "Which member of the answer is compared with the usernames, custom ids and ids of consumers. A token of no \
             consumer counts, and is nobody's.",
        )
        .default("username"),
        Key::new("issuers", Kind::STRINGS, "Accepted values of `iss`; empty: any.").default("[]"),
        Key::new("audiences", Kind::STRINGS, "Accepted values of `aud`, one of which must be there; empty: any.")
            .default("[]"),
        Key::new("scopes_required", Kind::STRINGS, "Scopes that a token must have all of; else 403.").default("[]"),
        Key::new(
            "claims_to_headers",
            Kind::Map { keys: &text::NAME, of: &Kind::NAME },
            "Fields in which the upstream gets members of the answer. A client's own are removed.",
        ),
    ],
)
.with(identity::KEYS);

/// Most answers that a shard remembers.
const ENTRIES_MAX: usize = 8192;
/// Most questions under way on a shard.
pub const PENDING_MAX: usize = 256;
/// Longest token that is asked about, in bytes.
const TOKEN_MAX: usize = 8192;
/// Most octets of an answer.
const ANSWER_MAX: usize = 64 << 10;
/// Between two looks at a question that another request has asked.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// Compiled settings.
struct Introspection {
    service: Arc<Service>,
    authorization: config::Secret,
    hint: Option<String>,
    ttl: Duration,
    timeout: Duration,
    hide: bool,
    consumer_by: &'static str,
    demands: Demands,
    told: Vec<Told>,
    challenge: String,
    access: Access,
    /// The same for the same settings.
    fingerprint: String,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Missing,
    Invalid,
    Inactive,
    Scope,
    Unavailable,
}

/// What the server said of a token; `None` that it does not count.
type Said = Option<Rc<Map<String, Value>>>;

/// What was said, and until when it counts.
type Answer = (Said, u64);

fn compile(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let verify = fields.bool("tls_verify");
    let service = Service::read(&fields, "introspection_url", verify)?;
    let authorization = fields.secret("authorization_value")?;
    if !authorization.expose().bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        fields.error("authorization_value", config::Fault::new("no value of a field").hide_line());
    }
    let (hint, ttl) = (fields.optional_string("token_type_hint"), fields.duration("ttl"));
    Some(Arc::new(Introspection {
        fingerprint: format!(
            "{:?} {verify} {hint:?} {ttl:?} {}",
            service.url,
            digest(authorization.expose())
        ),
        service,
        authorization,
        hint,
        ttl,
        timeout: fields.duration("timeout"),
        hide: fields.bool("hide_credentials"),
        consumer_by: fields.word("consumer_by"),
        demands: Demands::read(&fields),
        told: Told::read(&fields),
        challenge: challenge("Bearer", fields.optional_string("realm").as_deref()),
        access: Access::read(&fields, cx.consumers),
    }))
}

/// Stands for a secret where it is only compared.
fn digest(secret: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl PluginSpec for Introspection {
    fn instantiate(self: Arc<Self>, previous: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        let memory = previous
            .and_then(|state| state.downcast::<Memory>().ok())
            .filter(|memory| memory.settings == self.fingerprint)
            .unwrap_or_else(|| {
                Rc::new(Memory {
                    settings: self.fingerprint.clone(),
                    caller: Caller::new(self.service.clone()),
                    answers: RefCell::default(),
                    pending: RefCell::default(),
                })
            });
        Rc::new(OnShard { spec: self, memory })
    }

    fn credential_places(&self) -> CredentialPlaces {
        let fields = vec![Known::Authorization.as_str().to_owned()];
        CredentialPlaces { parameters: Vec::new(), fields }
    }
}

/// What a shard keeps across reloads.
struct Memory {
    settings: String,
    caller: Caller,
    /// By token, with the monotonic time until which an answer counts.
    answers: RefCell<HashMap<Box<[u8]>, Answer>>,
    /// Tokens that are being asked about.
    pending: RefCell<HashSet<Box<[u8]>>>,
}

impl Memory {
    fn known(&self, token: &[u8], now_ns: u64) -> Option<Said> {
        let answers = self.answers.borrow();
        answers.get(token).filter(|(_, until)| now_ns < *until).map(|(said, _)| said.clone())
    }

    fn remember(&self, token: &[u8], said: Said, ttl: Duration) {
        let now = clock::now_ns();
        let mut answers = self.answers.borrow_mut();
        if answers.len() >= ENTRIES_MAX {
            answers.retain(|_, (_, until)| now < *until);
        }
        if answers.len() >= ENTRIES_MAX {
            answers.clear();
        }
        answers.insert(token.into(), (said, now.saturating_add(ttl.as_nanos() as u64)));
    }
}

#[derive(Clone)]
struct OnShard {
    spec: Arc<Introspection>,
    memory: Rc<Memory>,
}

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        if self.spec.access.passes(cx, request) {
            return Flow::Continue;
        }
        let token = match token(&request.head) {
            Ok(token) => Box::<[u8]>::from(token),
            Err(refused) => return self.decide(cx, request, Err(refused)),
        };
        if let Some(said) = self.memory.known(&token, cx.now_ns) {
            return self.decide(cx, request, Ok(said));
        }
        if self.memory.pending.borrow().len() >= PENDING_MAX {
            return self.decide(cx, request, Err(Refused::Unavailable));
        }
        let this = self.clone();
        Flow::Wait(Box::pin(async move {
            let outcome = this.ask(&token).await;
            let resume: Resume = Box::new(move |cx, request| this.decide(cx, request, outcome));
            resume
        }))
    }

    fn state(&self) -> Option<Rc<dyn Any>> {
        Some(self.memory.clone())
    }
}

impl OnShard {
    /// Asks, or waits for who asks already.
    async fn ask(&self, token: &[u8]) -> Result<Said, Refused> {
        let memory = &self.memory;
        let end = clock::now_ns().saturating_add(self.spec.timeout.as_nanos() as u64);
        let mut waited = false;
        while memory.pending.borrow().contains(token) {
            waited = true;
            if clock::now_ns() >= end {
                return Err(Refused::Unavailable);
            }
            net::sleep(LOOK_PAUSE).await;
        }
        if waited && let Some(said) = memory.known(token, clock::now_ns()) {
            return Ok(said);
        }
        memory.pending.borrow_mut().insert(token.into());
        let outcome = self.question(token).await;
        memory.pending.borrow_mut().remove(token);
        let said = outcome?;
        memory.remember(token, said.clone(), self.spec.ttl);
        Ok(said)
    }

    async fn question(&self, token: &[u8]) -> Result<Said, Refused> {
        let spec = &self.spec;
        let message = spec.message(token);
        let call = self.memory.caller.call(&message, Method::Post, spec.timeout, ANSWER_MAX);
        read(&call.await.map_err(|_| Refused::Unavailable)?)
    }

    fn decide(&self, cx: &mut Cx<'_>, request: &mut RequestHead, outcome: Result<Said, Refused>) -> Flow {
        let spec = &self.spec;
        for told in &spec.told {
            told.tell(None, &mut request.head);
        }
        let outcome = outcome.and_then(|said| spec.judge(said, cx.wall.as_secs()));
        if outcome.is_ok() && spec.hide {
            request.head.remove_known(Known::Authorization);
        }
        let identify = |cx: &mut Cx<'_>, head: &mut Head, said: Rc<Map<String, Value>>| {
            if cx.wants.claims {
                cx.claims = Some(Box::new(Map::clone(&said)));
            }
            for told in &spec.told {
                told.tell(Some(&said), head);
            }
            let text = |name| {
                let text = said.get(name).and_then(Value::as_str).unwrap_or_default();
                if text.bytes().all(|byte| byte.is_ascii_graphic()) { text } else { "" }
            };
            let subject = if text("sub").is_empty() { text("client_id") } else { text("sub") };
            match consumer(cx.consumers, text(spec.consumer_by)) {
                Some(consumer) => identity::identify_consumer(cx, head, consumer, subject),
                None => identity::identify_nobody(cx, head, subject),
            }
        };
        spec.access.decide_by(cx, request, |_, _| outcome, identify, |refused| spec.refuse(refused))
    }
}

fn consumer(consumers: &Consumers, name: &str) -> Option<crate::id::ConsumerId> {
    if name.is_empty() {
        return None;
    }
    let custom = || consumers.all().find(|(_, one)| one.custom_id.as_deref() == Some(name)).map(|(id, _)| id);
    consumers.by_name(name).or_else(custom)
}

/// The only token of a request.
fn token(head: &Head) -> Result<&[u8], Refused> {
    let value = head.get_known(Known::Authorization).ok_or(Refused::Missing)?;
    if head.count_known(Known::Authorization) > 1 {
        return Err(Refused::Invalid);
    }
    let (scheme, rest) = value.split_at_checked(b"Bearer ".len()).ok_or(Refused::Missing)?;
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return Err(Refused::Missing);
    }
    let token = rest.trim_ascii();
    // RFC 6750 section 2.1.
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    match token.iter().all(fits) && !token.is_empty() && token.len() <= TOKEN_MAX {
        true => Ok(token),
        false => Err(Refused::Invalid),
    }
}

/// Reads an answer (RFC 7662 section 2.2).
fn read(reply: &Reply) -> Result<Said, Refused> {
    if reply.head.status() != 200 {
        return Err(Refused::Unavailable); // 401: the server does not know us
    }
    let answer: Map<String, Value> = serde_json::from_slice(&reply.body).map_err(|_| Refused::Unavailable)?;
    match answer.get("active") {
        Some(Value::Bool(true)) => Ok(Some(Rc::new(answer))),
        Some(Value::Bool(false)) => Ok(None),
        _ => Err(Refused::Unavailable),
    }
}

impl Introspection {
    fn message(&self, token: &[u8]) -> Vec<u8> {
        let url = &self.service.url;
        let mut body = b"token=".to_vec();
        escape(token, &mut body);
        if let Some(hint) = &self.hint {
            body.extend_from_slice(b"&token_type_hint=");
            escape(hint.as_bytes(), &mut body);
        }
        let mut out = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\nAccept: application/json\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
            url.target,
            url.authority,
            self.authorization.expose(),
            body.len()
        )
        .into_bytes();
        out.extend_from_slice(&body);
        out
    }

    fn judge(&self, said: Said, now: u64) -> Result<Rc<Map<String, Value>>, Refused> {
        let said = said.ok_or(Refused::Inactive)?;
        let time = |name: &str| said.get(name).and_then(Value::as_f64);
        if time("exp").is_some_and(|end| now as f64 >= end)
            || time("nbf").is_some_and(|begin| begin > now as f64)
        {
            return Err(Refused::Inactive);
        }
        match self.demands.check(&said) {
            Ok(()) => Ok(said),
            Err(ClaimRefused::Scope) => Err(Refused::Scope),
            Err(_) => Err(Refused::Inactive),
        }
    }

    fn refuse(&self, refused: Refused) -> Box<Response> {
        let (status, reason, message, error) = match refused {
            Refused::Missing => (401, Reason::UnauthorizedMissing, "Unauthorized", ""),
            Refused::Invalid => (401, Reason::UnauthorizedInvalid, "Bad token", "invalid_token"),
            Refused::Inactive => {
                (401, Reason::UnauthorizedInvalid, "The token is not active", "invalid_token")
            }
            Refused::Scope => (403, Reason::Forbidden, "Insufficient scope", "insufficient_scope"),
            Refused::Unavailable => {
                return Response::new(503, Reason::ExternalUnavailable, "The token cannot be checked now");
            }
        };
        let comma = if self.challenge.contains('=') { "," } else { "" };
        let challenge = match error {
            "" => self.challenge.clone(),
            error => format!("{}{comma} error=\"{error}\"", self.challenge),
        };
        Response::new(status, reason, message).with_field("WWW-Authenticate", challenge)
    }
}

/// Writes bytes as `application/x-www-form-urlencoded` has them.
fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ResponseHead;
    use crate::plugin::fixture::{Fixture, request};

    fn reply(status: u16, body: &str) -> Reply {
        let mut head = ResponseHead::new();
        head.set_status(status);
        Reply { head, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn only_an_active_token_counts() {
        let said = |status, body| read(&reply(status, body)).map(|said| said.is_some());
        assert_eq!(said(200, r#"{"active":true}"#), Ok(true));
        assert_eq!(said(200, r#"{"active":false}"#), Ok(false));
        for (status, body) in [
            (200, r#"{"active":"true"}"#),
            (200, r#"{"active":1}"#),
            (200, "{}"),
            (200, "[]"),
            (200, ""),
            (401, r#"{"active":true}"#),
            (302, r#"{"active":true}"#),
        ] {
            assert_eq!(said(status, body), Err(Refused::Unavailable), "{status} {body}");
        }
    }

    #[test]
    fn tokens_are_looked_for_in_one_place() {
        let found = |lines: &str| {
            let request = request(&format!("GET / HTTP/1.1\nHost: a\n{lines}"));
            token(&request.head).map(|token| String::from_utf8_lossy(token).into_owned())
        };
        assert_eq!(found("Authorization: Bearer abc.~+/="), Ok("abc.~+/=".to_owned()));
        assert_eq!(found("Authorization: bearer  x"), Ok("x".to_owned()));
        assert_eq!(found("X-No: token"), Err(Refused::Missing));
        assert_eq!(found("Authorization: Basic eDp5"), Err(Refused::Missing));
        assert_eq!(found("Authorization: Bearer a b"), Err(Refused::Invalid));
        assert_eq!(found("Authorization: Bearer a&active=true"), Err(Refused::Invalid));
        assert_eq!(found("Authorization: Bearer a\nAuthorization: Bearer b"), Err(Refused::Invalid));
    }

    #[test]
    fn settings() {
        let fixture = Fixture::default();
        let url = "introspection_url: 'http://127.0.0.1:9/i'";
        for (settings, expected) in [
            (format!("{{{url}}}"), "authorization_value"),
            ("{authorization_value: x}".to_owned(), "introspection_url"),
            (format!("{{{url}, authorization_value: 'ü'}}"), "no value of a field"),
            ("{introspection_url: 'ftp://a/', authorization_value: x}".to_owned(), "no URL of HTTP"),
        ] {
            let said = fixture.refused("oauth2-introspection", &settings);
            assert!(said.contains(expected), "{settings}: {said}");
        }
    }

    #[test]
    fn a_form_value_is_escaped() {
        let mut out = Vec::new();
        escape(b"a+b/c=&d", &mut out);
        assert_eq!(String::from_utf8_lossy(&out), "a%2Bb%2Fc%3D%26d");
    }
}
