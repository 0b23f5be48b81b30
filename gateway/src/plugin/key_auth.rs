//! `key-auth`: API keys in a header field, a query parameter or a body (Kong's plugin of the same name).
//!
//! Owns where a key is looked for and what is said to those who have none. Keys themselves are in [`Consumers`]. A body
//! is read only if it may hold the key, and none of the other places does.
//!
//! **Invariant.** A request with two keys under one name is refused, whichever of them is good: the upstream could
//! read the other one.
//!
//! [`Consumers`]: super::consumer::Consumers

use std::any::Any;
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_abi::Reason;
use portcullis_config::schema::text;
use portcullis_config::{self as config, Diagnostics, Fault, Fields, Key, Kind, Section};

use super::body::{self, Format};
use super::consumer::CredentialRef;
use super::identity::{self, Access, challenge};
use super::transform::{Edits, Rendered};
use super::{CompileCx, CredentialPlaces, Cx, Flow, Plugin, PluginSpec, Registration, Response};
use crate::http::h1::BodyFraming;
use crate::http::{Known, RequestHead};

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "key-auth", priority: 1250, section: &SECTION, compile };

/// The plugin's `config:`.
static SECTION: Section = Section::new(
    "key-auth",
    "Authentication by API key (`keyauth_credentials` of consumers).",
    &[
        Key::new(
            "key_names",
            Kind::list(&Kind::Text(&text::HEADER_NAME)),
            "Names under which a key is looked for, in this order; the first that is there decides.",
        )
        .default("[apikey]"),
        Key::new("key_in_header", Kind::Bool, "Whether a key may be in a header field.").default("true"),
        Key::new("key_in_query", Kind::Bool, "Whether a key may be a parameter of the query.")
            .default("true"),
        Key::new(
            "key_in_body",
            Kind::Bool,
            "Whether a key may be in the body: a member of an object in JSON, a field of a form, or a part of \
             `multipart/form-data`. The body is held in memory then, up to `limits.buffered_body`.",
        )
        .default("false"),
        Key::new("hide_credentials", Kind::Bool, "Whether the key is kept from the upstream.")
            .default("false"),
        Key::new("identity_realms", Kind::Any, "Where Kong's hosted service keeps the keys.").reserved(),
    ],
)
.with(identity::KEYS);

/// Compiled settings, and the plugin itself: it keeps no state.
struct KeyAuth {
    names: Vec<Box<[u8]>>,
    in_header: bool,
    in_query: bool,
    in_body: bool,
    hide: bool,
    /// Tells instances apart.
    instance: u64,
    challenge: String,
    access: Access,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Missing,
    Duplicate,
    Unknown,
    /// The body is not what its media type says.
    BadBody,
}

/// Marks an exchange in whose body the instance with this number looks for the key.
struct BodyDue(u64);

fn compile(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    Some(Arc::new(KeyAuth::read(&plugin.fields(&SECTION, found), cx)))
}

impl KeyAuth {
    fn read(fields: &Fields<'_>, cx: &CompileCx<'_>) -> Self {
        let names: Vec<Box<[u8]>> =
            fields.strings("key_names").into_iter().map(|name| name.into_bytes().into()).collect();
        let (in_header, in_query) = (fields.bool("key_in_header"), fields.bool("key_in_query"));
        let in_body = fields.bool("key_in_body");
        let is_path = |name: &[u8]| name.iter().any(|byte| b".[]".contains(byte));
        if in_body && names.iter().any(|name| is_path(name)) {
            fields.error("key_names", "with `key_in_body` names have no dots or brackets");
        }
        if names.is_empty() {
            fields.error(
                "key_names",
                Fault::new("without a name no key is ever found").hint("as in `[apikey]`"),
            );
        } else if !in_header && !in_query && !in_body {
            fields.warning("key_in_header", "keys are looked for in no place: every request is refused");
        }
        Self {
            names,
            in_header,
            in_query,
            in_body,
            instance: cx.instance,
            hide: fields.bool("hide_credentials"),
            challenge: challenge("Key", fields.optional_string("realm").as_deref()),
            access: Access::read(fields, cx.consumers),
        }
    }

    fn authenticate(&self, cx: &Cx<'_>, request: &mut RequestHead) -> Result<CredentialRef, Refused> {
        for name in &self.names {
            let Some(key) = self.find(request, name)? else { continue };
            let credential = cx.consumers.by_key(&key, cx.wall).ok_or(Refused::Unknown);
            if self.hide {
                request.head.remove(name);
                request.remove_parameter(name);
            }
            return credential;
        }
        Err(Refused::Missing)
    }

    /// The key under one name: the header field, else the parameter. An empty one is none.
    fn find<'r>(&self, request: &'r RequestHead, name: &[u8]) -> Result<Option<Cow<'r, [u8]>>, Refused> {
        if self.in_header {
            let mut values = request.head.get_all(name);
            let first = values.next();
            if values.next().is_some() {
                return Err(Refused::Duplicate);
            }
            if let Some(key) = first.filter(|key| !key.is_empty()) {
                return Ok(Some(Cow::Borrowed(key)));
            }
        }
        if self.in_query && request.query().is_some() {
            let mut parameters = request.parameters().filter(|parameter| parameter.is(name));
            let first = parameters.next();
            if parameters.next().is_some() {
                return Err(Refused::Duplicate);
            }
            return Ok(first.map(|parameter| parameter.value()).filter(|key| !key.is_empty()));
        }
        Ok(None)
    }

    /// The key in a body, by the first name under which there is one. It is taken out if it is to be hidden.
    fn authenticate_by_body(
        &self,
        cx: &Cx<'_>,
        request: &mut RequestHead,
        body: &mut Vec<u8>,
    ) -> Result<CredentialRef, Refused> {
        let format = format(request).ok_or(Refused::Missing)?;
        for name in &self.names {
            let Ok(text) = std::str::from_utf8(name) else { continue };
            let mut values = format.values(body, text).map_err(|_| Refused::BadBody)?;
            if values.len() > 1 {
                return Err(Refused::Duplicate);
            }
            let Some(key) = values.pop().filter(|key| !key.is_empty()) else { continue };
            let credential = cx.consumers.by_key(&key, cx.wall).ok_or(Refused::Unknown);
            if self.hide {
                let place = body::Place::parse(text).map_err(|_| Refused::BadBody)?;
                let edits = Edits { remove: vec![place], ..Edits::default() };
                edits.apply_to_body(&format, body, &Rendered::new()).map_err(|_| Refused::BadBody)?;
                body::drop_validators(&mut request.head);
            }
            return credential;
        }
        Err(Refused::Missing)
    }

    fn refuse(&self, refused: Refused) -> Box<Response> {
        let (reason, message) = match refused {
            Refused::Missing => (Reason::UnauthorizedMissing, "No API key found in request"),
            Refused::Duplicate => (Reason::UnauthorizedInvalid, "Duplicate API key found"),
            Refused::Unknown => (Reason::UnauthorizedInvalid, "Unauthorized"),
            Refused::BadBody => (Reason::UnauthorizedInvalid, "Cannot process request body"),
        };
        Response::new(401, reason, message).with_field("WWW-Authenticate", self.challenge.clone())
    }
}

impl PluginSpec for KeyAuth {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard(self))
    }

    fn decides_by_body(&self) -> bool {
        self.in_body
    }

    fn credential_places(&self) -> CredentialPlaces {
        let names = |wanted: bool| {
            let all = if wanted { &self.names[..] } else { &[] };
            all.iter().map(|name| String::from_utf8_lossy(name).into()).collect()
        };
        CredentialPlaces { parameters: names(self.in_query), fields: names(self.in_header) }
    }
}

/// The format of a body that may hold a key.
fn format(request: &RequestHead) -> Option<Format> {
    match body::is_coded(&request.head) {
        true => None,
        false => Format::of(request.head.get_known(Known::ContentType)?),
    }
}

struct OnShard(Arc<KeyAuth>);

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        let plugin = &*self.0;
        if plugin.access.passes(cx, request) {
            return Flow::Continue;
        }
        let outcome = plugin.authenticate(cx, request);
        let may_be_there = plugin.in_body && cx.body != BodyFraming::None && format(request).is_some();
        if outcome == Err(Refused::Missing) && may_be_there {
            cx.held.push(Box::new(BodyDue(plugin.instance)));
            return Flow::Continue;
        }
        plugin.access.decide(cx, request, |_, _| outcome, |refused| plugin.refuse(refused))
    }

    fn wants_request_body(&self, cx: &Cx<'_>, _: &RequestHead) -> bool {
        let due =
            |held: &Box<dyn Any>| held.downcast_ref::<BodyDue>().is_some_and(|due| due.0 == self.0.instance);
        self.0.in_body && cx.held.iter().any(due)
    }

    fn on_request_body(&self, cx: &mut Cx<'_>, request: &mut RequestHead, body: &mut Vec<u8>) -> Flow {
        let plugin = &*self.0;
        plugin.access.decide(
            cx,
            request,
            |cx, request| plugin.authenticate_by_body(cx, request, body),
            |refused| plugin.refuse(refused),
        )
    }
}

#[cfg(test)]
mod tests;
