//! `key-auth`: API keys in a header field or a query parameter (Kong's plugin of the same name).
//!
//! Owns where a key is looked for and what is said to those who have none. Keys themselves are in [`Consumers`].
//! Never reads a body.
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

use super::consumer::{Consumers, CredentialRef};
use super::identity::{self, Access, challenge};
use super::{CompileCx, CredentialPlaces, Cx, Flow, Plugin, PluginSpec, Registration, Response};
use crate::http::RequestHead;

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
            "Whether a key may be in the body. Bodies are not looked at yet.",
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
    hide: bool,
    challenge: String,
    access: Access,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Missing,
    Duplicate,
    Unknown,
}

fn compile(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    Some(Arc::new(KeyAuth::read(&plugin.fields(&SECTION, found), cx.consumers)))
}

impl KeyAuth {
    fn read(fields: &Fields<'_>, consumers: &Consumers) -> Self {
        let names: Vec<_> =
            fields.strings("key_names").into_iter().map(|name| name.into_bytes().into()).collect();
        let (in_header, in_query) = (fields.bool("key_in_header"), fields.bool("key_in_query"));
        if fields.bool("key_in_body") {
            fields.warning("key_in_body", "keys in bodies are not looked at yet: such requests are refused");
        }
        if names.is_empty() {
            fields.error(
                "key_names",
                Fault::new("without a name no key is ever found").hint("as in `[apikey]`"),
            );
        } else if !in_header && !in_query {
            fields.warning("key_in_header", "keys are looked for in no place: every request is refused");
        }
        Self {
            names,
            in_header,
            in_query,
            hide: fields.bool("hide_credentials"),
            challenge: challenge("Key", fields.optional_string("realm").as_deref()),
            access: Access::read(fields, consumers),
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

    fn refuse(&self, refused: Refused) -> Box<Response> {
        let (reason, message) = match refused {
            Refused::Missing => (Reason::UnauthorizedMissing, "No API key found in request"),
            Refused::Duplicate => (Reason::UnauthorizedInvalid, "Duplicate API key found"),
            Refused::Unknown => (Reason::UnauthorizedInvalid, "Unauthorized"),
        };
        Response::new(401, reason, message).with_field("WWW-Authenticate", self.challenge.clone())
    }
}

impl PluginSpec for KeyAuth {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard(self))
    }

    fn credential_places(&self) -> CredentialPlaces {
        let names = |wanted: bool| {
            let all = if wanted { &self.names[..] } else { &[] };
            all.iter().map(|name| String::from_utf8_lossy(name).into()).collect()
        };
        CredentialPlaces { parameters: names(self.in_query), fields: names(self.in_header) }
    }
}

struct OnShard(Arc<KeyAuth>);

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        let plugin = &*self.0;
        plugin.access.decide(
            cx,
            request,
            |cx, request| plugin.authenticate(cx, request),
            |refused| plugin.refuse(refused),
        )
    }
}

#[cfg(test)]
mod tests;
