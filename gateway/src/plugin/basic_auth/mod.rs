//! `basic-auth`: user name and password (RFC 7617; Kong's plugin of the same name, and Traefik's `basicAuth`).
//!
//! Owns where they are looked for and what is said to those who have none. Whose they are, [`Consumers`] knows, or the
//! plugin's own `users`. How passwords are compared is `password`'s: with a fast hash on the spot, with a slow one on
//! threads of their own while the request waits.
//!
//! **Invariant.** A wrong password takes as long to refuse as an unknown user, where all passwords are of one kind. A
//! password whose comparison finds no room is answered 503, and lets nobody in.
//!
//! [`Consumers`]: super::consumer::Consumers

mod users;

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_abi::Reason;
use portcullis_config::schema::text;
use portcullis_config::{self as config, Diagnostics, Key, Kind, Section};

use super::consumer::CredentialRef;
use super::identity::{self, Access, challenge};
use super::jwt::{Alphabet, base64};
use super::password::memory::{Busy, Memory, fingerprint};
use super::password::{Password, Users, pool};
use super::{CompileCx, CredentialPlaces, Cx, Flow, Plugin, PluginSpec, Registration, Response, Resume};
use crate::http::{FieldName, Head, Known, RequestHead};

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "basic-auth", priority: 1100, section: &SECTION, compile };

/// The plugin's `config:`.
static SECTION: Section = Section::new(
    "basic-auth",
    "Authentication by user name and password (`basicauth_credentials` of consumers, or `users`), in \
     `Proxy-Authorization` or `Authorization`.",
    &[
        Key::new("hide_credentials", Kind::Bool, "Whether the password is kept from the upstream.")
            .default("false"),
        Key::new(
            "users",
            Kind::STRINGS,
            "Users as `name:hash` each, as `htpasswd` makes them. With `users` or `users_file` only these count, and they \
             are no consumers.",
        )
        .default("[]")
        .secret(),
        Key::new(
            "users_file",
            Kind::FILE,
            "A file with such a line for each user, as `htpasswd` makes it. It is read again when it changes.",
        ),
        Key::new(
            "header_field",
            Kind::Text(&text::HEADER_NAME),
            "The field in which the upstream gets the user's name. A client's own is removed.",
        ),
        Key::new(
            "cache_ttl",
            Kind::seconds(0, 86_400),
            "How long a shard remembers that a password was right or wrong where its comparison is slow, bare seconds. A \
             hash that is taken out of the configuration ends that at once.",
        )
        .default("300"),
    ],
)
.with(identity::KEYS);

/// Kong's realm where none is configured: RFC 7617 wants one.
const REALM: &str = "service";

fn compile(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let realm = fields.optional_string("realm");
    let users = users::read(&fields);
    if users.as_ref().map_or(cx.consumers.has_slow_passwords(), Users::has_slow) {
        pool::start();
    }
    Some(Arc::new(BasicAuth {
        hide: fields.bool("hide_credentials"),
        users,
        header_field: fields.optional_string("header_field").and_then(|name| FieldName::new(&name)),
        cache_ttl: fields.duration("cache_ttl"),
        challenge: challenge("Basic", Some(realm.as_deref().unwrap_or(REALM))),
        access: Access::read(&fields, cx.consumers),
    }))
}

/// Compiled settings.
struct BasicAuth {
    hide: bool,
    /// In place of the credentials of consumers.
    users: Option<Users<()>>,
    header_field: Option<FieldName>,
    cache_ttl: Duration,
    challenge: String,
    access: Access,
}

/// The fields that may hold a password, in the order in which they are looked at.
const FIELDS: [Known; 2] = [Known::ProxyAuthorization, Known::Authorization];

/// What a request says of itself.
struct Claim {
    field: Known,
    /// Name, colon and password.
    decoded: Vec<u8>,
    colon: usize,
}

impl Claim {
    fn user(&self) -> &[u8] {
        &self.decoded[..self.colon]
    }

    fn password(&self) -> &[u8] {
        &self.decoded[self.colon + 1..]
    }
}

/// Whose a password is.
#[derive(Clone, Copy)]
enum Who {
    Credential(CredentialRef),
    /// One of the plugin's own users.
    Listed,
}

impl BasicAuth {
    /// The only password of a request.
    fn claim(head: &Head) -> Result<Claim, Reason> {
        for field in FIELDS {
            let Some(encoded) = head.get_known(field).and_then(encoded) else { continue };
            if head.count_known(field) > 1 {
                return Err(Reason::UnauthorizedInvalid); // the upstream could read the other one
            }
            let decoded = base64(encoded, Alphabet::Any).ok_or(Reason::UnauthorizedInvalid)?;
            let colon = decoded.iter().position(|&byte| byte == b':').ok_or(Reason::UnauthorizedInvalid)?;
            return Ok(Claim { field, decoded, colon });
        }
        Err(Reason::UnauthorizedMissing)
    }

    /// What a password is to be compared with, and whose it is if it is the same.
    fn known<'a>(&'a self, cx: &Cx<'a>, user: &[u8]) -> (&'a Arc<Password>, Option<Who>) {
        match &self.users {
            Some(users) => {
                let found = users.find(user);
                (found.password, found.who.map(|()| Who::Listed))
            }
            None => {
                let found = cx.consumers.password(user);
                (found.password, found.who.copied().map(Who::Credential))
            }
        }
    }

    fn decide(
        &self,
        cx: &mut Cx<'_>,
        request: &mut RequestHead,
        outcome: Result<(Claim, Who), Reason>,
    ) -> Flow {
        if let Some(name) = &self.header_field {
            request.head.remove_field(name);
        }
        let identify = |cx: &mut Cx<'_>, head: &mut Head, (claim, who): (Claim, Who)| {
            if self.hide {
                head.remove_known(claim.field);
            }
            match who {
                Who::Credential(credential) => identity::identify(cx, head, credential),
                // Names are checked where they are read.
                Who::Listed => {
                    identity::identify_nobody(
                        cx,
                        head,
                        std::str::from_utf8(claim.user()).unwrap_or_default(),
                    );
                }
            }
            if let Some(name) = &self.header_field {
                head.append_field(name, claim.user());
            }
        };
        self.access.decide_by(
            cx,
            request,
            |_, _| outcome,
            identify,
            |reason| {
                let answer = Response::new(401, reason, "Unauthorized");
                answer.with_field("WWW-Authenticate", self.challenge.clone())
            },
        )
    }
}

/// What follows the scheme's name.
fn encoded(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(b"Basic ".len())?;
    scheme.eq_ignore_ascii_case(b"Basic ").then(|| rest.trim_ascii())
}

fn busy(busy: Busy) -> Box<Response> {
    let reason = match busy {
        Busy::Full => Reason::QueueFull,
        Busy::Late => Reason::QueueTimeout,
    };
    Response::new(503, reason, "Too many passwords are being checked").with_field("Retry-After", "1")
}

impl PluginSpec for BasicAuth {
    fn instantiate(self: Arc<Self>, previous: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        // What is remembered is found by the text of the hash, so it holds for whatever is configured now.
        let memory = previous.and_then(|state| state.downcast::<Memory>().ok()).unwrap_or_default();
        Rc::new(OnShard { spec: self, memory })
    }

    fn credential_places(&self) -> CredentialPlaces {
        let fields = FIELDS.map(|field| field.as_str().to_owned()).to_vec();
        CredentialPlaces { parameters: Vec::new(), fields }
    }
}

#[derive(Clone)]
struct OnShard {
    spec: Arc<BasicAuth>,
    memory: Rc<Memory>,
}

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        let spec = &*self.spec;
        if spec.access.passes(cx, request) {
            return Flow::Continue;
        }
        let claim = match BasicAuth::claim(&request.head) {
            Ok(claim) => claim,
            Err(reason) => return spec.decide(cx, request, Err(reason)),
        };
        let (password, who) = spec.known(cx, claim.user());
        let judge = move |claim, right: bool| match who.filter(|_| right) {
            Some(who) => Ok((claim, who)),
            None => Err(Reason::UnauthorizedInvalid),
        };
        if !password.is_slow() {
            let right = password.is(claim.password());
            return spec.decide(cx, request, judge(claim, right));
        }
        let print = fingerprint(claim.user(), claim.password(), password);
        if let Some(right) = self.memory.known(&print, cx.now_ns) {
            return spec.decide(cx, request, judge(claim, right));
        }
        let waiting = match self.memory.begin(print, cx.client, password, claim.password()) {
            Ok(waiting) => waiting,
            Err(why) => return Flow::Respond(busy(why)),
        };
        let spec = self.spec.clone();
        Flow::Wait(Box::pin(async move {
            let answer = waiting.answer(spec.cache_ttl).await;
            let resume: Resume = Box::new(move |cx, request| match answer {
                Ok(right) => spec.decide(cx, request, judge(claim, right)),
                Err(why) => Flow::Respond(busy(why)),
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
