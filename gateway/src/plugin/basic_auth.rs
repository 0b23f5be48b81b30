//! `basic-auth`: user name and password (RFC 7617; Kong's plugin of the same name).
//!
//! Owns where they are looked for and what is said to those who have none. Whose they are, [`Consumers`] knows.
//! Passwords are compared as they are written in the configuration; hashes made to be slow would stop a shard, and
//! are not understood.
//!
//! **Invariant.** A wrong password takes as long to refuse as an unknown user, wherever the two differ.
//!
//! [`Consumers`]: super::consumer::Consumers

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_abi::Reason;
use portcullis_config::{self as config, Diagnostics, Key, Kind, Section};

use super::consumer::CredentialRef;
use super::identity::{self, Access, challenge};
use super::jwt::{Alphabet, base64};
use super::{CompileCx, CredentialPlaces, Cx, Flow, Plugin, PluginSpec, Registration, Response};
use crate::http::{Known, RequestHead};

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "basic-auth", priority: 1100, section: &SECTION, compile };

/// The plugin's `config:`.
static SECTION: Section = Section::new(
    "basic-auth",
    "Authentication by user name and password (`basicauth_credentials` of consumers), in `Proxy-Authorization` or \
     `Authorization`.",
    &[Key::new("hide_credentials", Kind::Bool, "Whether the password is kept from the upstream.")
        .default("false")],
)
.with(identity::KEYS);

/// Kong's realm where none is configured: RFC 7617 wants one.
const REALM: &str = "service";

fn compile(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let realm = fields.optional_string("realm");
    Some(Arc::new(BasicAuth {
        hide: fields.bool("hide_credentials"),
        challenge: challenge("Basic", Some(realm.as_deref().unwrap_or(REALM))),
        access: Access::read(&fields, cx.consumers),
    }))
}

/// Compiled settings, and the plugin itself: it keeps no state.
struct BasicAuth {
    hide: bool,
    challenge: String,
    access: Access,
}

/// The fields that may hold a password, in the order in which they are looked at.
const FIELDS: [Known; 2] = [Known::ProxyAuthorization, Known::Authorization];

impl BasicAuth {
    fn authenticate(&self, cx: &Cx<'_>, request: &mut RequestHead) -> Result<CredentialRef, Reason> {
        for field in FIELDS {
            let Some(encoded) = request.head.get_known(field).and_then(encoded) else { continue };
            if request.head.count_known(field) > 1 {
                return Err(Reason::UnauthorizedInvalid); // the upstream could read the other one
            }
            let decoded = base64(encoded, Alphabet::Any).ok_or(Reason::UnauthorizedInvalid)?;
            let colon = decoded.iter().position(|&byte| byte == b':').ok_or(Reason::UnauthorizedInvalid)?;
            let (user, password) = (&decoded[..colon], &decoded[colon + 1..]);
            let credential = cx.consumers.by_password(user, password).ok_or(Reason::UnauthorizedInvalid)?;
            if self.hide {
                request.head.remove_known(field);
            }
            return Ok(credential);
        }
        Err(Reason::UnauthorizedMissing)
    }
}

/// What follows the scheme's name.
fn encoded(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(b"Basic ".len())?;
    scheme.eq_ignore_ascii_case(b"Basic ").then(|| rest.trim_ascii())
}

impl PluginSpec for BasicAuth {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard(self))
    }

    fn credential_places(&self) -> CredentialPlaces {
        let fields = FIELDS.map(|field| field.as_str().to_owned()).to_vec();
        CredentialPlaces { parameters: Vec::new(), fields }
    }
}

struct OnShard(Arc<BasicAuth>);

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        let plugin = &*self.0;
        plugin.access.decide(
            cx,
            request,
            |cx, request| plugin.authenticate(cx, request),
            |reason| {
                let answer = Response::new(401, reason, "Unauthorized");
                answer.with_field("WWW-Authenticate", plugin.challenge.clone())
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::{Fixture, answer, request};

    fn fixture(settings: &str) -> Fixture {
        Fixture::new(&format!(
            "consumers:\n\
             - {{username: ann, basicauth_credentials: [{{username: ann, password: 'a:b', id: c1}}]}}\n\
             - {{username: ben, basicauth_credentials: [{{username: ben, password: ''}}]}}\n\
             - {{username: nobody}}\n\
             plugins:\n- name: basic-auth\n  config: {{{settings}}}\n"
        ))
    }

    /// The upstream's view of a request, or the reason and challenge of the refusal.
    fn send(settings: &str, lines: &str) -> Result<RequestHead, (Option<Reason>, String)> {
        let fixture = fixture(settings);
        let (plugin, _) = fixture.plugin(0, None).expect("a good config");
        let mut request = request(&format!("GET / HTTP/1.1\nHost: a\n{lines}"));
        match answer(plugin.on_request(&mut fixture.cx(), &mut request)) {
            None => Ok(request),
            Some(answer) => {
                assert_eq!((answer.status, &*answer.message), (401, "Unauthorized"));
                let fields = answer.fields.iter().map(|(name, value)| format!("{name}: {value}"));
                Err((answer.reason, fields.collect()))
            }
        }
    }

    #[test]
    fn passwords() {
        let (missing, invalid) = (Err(Reason::UnauthorizedMissing), Err(Reason::UnauthorizedInvalid));
        let table = [
            ("Authorization: Basic YW5uOmE6Yg==", Ok("ann")), // ann:a:b
            ("Authorization: basic  YW5uOmE6Yg", Ok("ann")),
            ("Proxy-Authorization: Basic YW5uOmE6Yg==", Ok("ann")),
            ("Authorization: Basic YmVuOg==", Ok("ben")), // ben:
            ("X-No: password", missing),
            ("Authorization: Bearer YW5uOmE6Yg==", missing),
            ("Authorization: Basic", missing),
            ("Authorization: Basic YW5uOmE6Yw==", invalid), // ann:a:c
            ("Authorization: Basic YW5uOmE=", invalid),     // ann:a
            ("Authorization: Basic YW5uOg==", invalid),     // ann:
            ("Authorization: Basic QU5OOmE6Yg==", invalid), // ANN:a:b
            ("Authorization: Basic ZXZlOmE6Yg==", invalid), // eve:a:b
            ("Authorization: Basic YW5u", invalid),         // ann
            ("Authorization: Basic !", invalid),
            ("Authorization: Basic YW5uOmE6Yg==\nAuthorization: Basic YmVuOg==", invalid),
        ];
        for (lines, expected) in table {
            let sent = send("", lines);
            let told = sent.as_ref().map(|request| request.head.get_known(Known::XConsumerUsername));
            match (told, expected) {
                (Ok(told), Ok(name)) => assert_eq!(told, Some(name.as_bytes()), "{lines}"),
                (Err((reason, challenge)), Err(expected)) => {
                    assert_eq!(*reason, Some(expected), "{lines}");
                    assert_eq!(challenge, "WWW-Authenticate: Basic realm=\"service\"");
                }
                (told, expected) => panic!("{lines}: {told:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn the_password_is_hidden_when_it_is_to_be() {
        let password = |settings| {
            let request = send(settings, "Authorization: Basic YW5uOmE6Yg==").expect("a good password");
            request.head.get_known(Known::Authorization).is_some()
        };
        assert!(password("") && !password("hide_credentials: true"));
    }

    #[test]
    fn realm_and_anonymous() {
        let Err(refused) = send("realm: shop", "") else { panic!("let in") };
        assert_eq!(refused.1, "WWW-Authenticate: Basic realm=\"shop\"");
        let request = send("anonymous: nobody", "Authorization: Basic YW5uOmE6Yw==").expect("a stand-in");
        assert_eq!(request.head.get_known(Known::XConsumerUsername), Some(&b"nobody"[..]));
    }
}
