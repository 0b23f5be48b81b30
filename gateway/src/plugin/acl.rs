//! `acl`: which groups of consumers may use a service (Kong's plugin of the same name).
//!
//! Owns the decision by group and the field that tells the upstream of groups. Who the consumer is, the authentication
//! plugins say; which groups he is in, [`Consumers`].
//!
//! **Invariant.** With an `allow` list nobody passes who is not in one of its groups, whoever he is.
//!
//! [`Consumers`]: super::consumer::Consumers

use std::any::Any;
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_abi::Reason;
use portcullis_config::{self as config, Diagnostics, Fault, Fields, Key, Kind, Section};

use super::{CompileCx, Cx, Flow, Plugin, PluginSpec, Registration, Response};
use crate::http::{Known, RequestHead};

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "acl", priority: 950, section: &SECTION, compile };

/// The plugin's `config:`.
static SECTION: Section = Section::new(
    "acl",
    "Lets consumers through by their groups (`acls`). Exactly one of `allow` and `deny` is given.",
    &[
        Key::new("allow", Kind::STRINGS, "Groups that may pass; one of them is enough."),
        Key::new("deny", Kind::STRINGS, "Groups that may not pass; one of them is enough."),
        Key::new(
            "hide_groups_header",
            Kind::Bool,
            "Whether `X-Consumer-Groups` is kept from the upstream.",
        )
        .default("false"),
        Key::new(
            "always_use_authenticated_groups",
            Kind::Bool,
            "Whether groups that an authentication plugin found (`jwt`, `mtls-auth`) go before those of the consumer. \
             Without a consumer they count in any case.",
        )
        .default("false"),
        Key::new(
            "include_consumer_groups",
            Kind::Bool,
            "Whether consumer groups (`groups`) count like those of `acls`.",
        )
        .default("false"),
    ],
);

fn compile(plugin: &config::Plugin, _: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    Some(Arc::new(Acl::read(&plugin.fields(&SECTION, found))?))
}

/// Compiled settings.
struct Acl {
    /// What a consumer in one of `groups` gets; all others get the contrary.
    allows: bool,
    groups: Vec<String>,
    tell: bool,
    authenticated_first: bool,
    with_consumer_groups: bool,
}

impl Acl {
    fn read(fields: &Fields<'_>) -> Option<Self> {
        let (allow, deny) = (fields.strings("allow"), fields.strings("deny"));
        let (allows, groups) = match (allow.is_empty(), deny.is_empty()) {
            (false, true) => (true, allow),
            (true, false) => (false, deny),
            (false, false) => {
                fields.error("deny", "only one of 'allow' and 'deny' can be given");
                return None;
            }
            (true, true) if fields.has_unknown_keys() => return None, // reported already
            (true, true) => {
                let origin = fields.origin();
                let fault = Fault::new("one of 'allow' and 'deny' must name a group");
                let fault = fault.hint("as in `allow: [orders-read]`");
                fields.diagnostics().error(origin.span, &origin.path, fault);
                return None;
            }
        };
        Some(Self {
            allows,
            groups,
            tell: !fields.bool("hide_groups_header"),
            authenticated_first: fields.bool("always_use_authenticated_groups"),
            with_consumer_groups: fields.bool("include_consumer_groups"),
        })
    }
}

impl PluginSpec for Acl {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard(self))
    }
}

struct OnShard(Arc<Acl>);

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        let plugin = &*self.0;
        let found = &cx.authenticated_groups;
        let listed = |groups: &[String]| groups.iter().any(|group| plugin.groups.contains(group));
        let by_found = !found.is_empty() && (plugin.authenticated_first || cx.identity.consumer.is_none());
        let (listed, field, told) = match cx.identity.consumer {
            _ if by_found => (listed(found), Known::XAuthenticatedGroups, found.join(", ").into()),
            None => return Flow::Respond(Response::new(401, Reason::UnauthorizedMissing, "Unauthorized")),
            Some(consumer) => {
                let known = cx.consumers.consumer(consumer);
                let more = if plugin.with_consumer_groups { &known.consumer_groups[..] } else { &[] };
                let told = match (cx.consumers.group_list(consumer), more) {
                    (own, []) => Cow::Borrowed(own),
                    ("", more) => Cow::Owned(more.join(", ")),
                    (own, more) => Cow::Owned(format!("{own}, {}", more.join(", "))),
                };
                (listed(&known.groups) || listed(more), Known::XConsumerGroups, told)
            }
        };
        if listed != plugin.allows {
            let message = "You cannot consume this service";
            return Flow::Respond(Response::new(403, Reason::Forbidden, message));
        }
        if plugin.tell && !told.is_empty() {
            request.head.set_known(field, &*told);
        }
        Flow::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::{Fixture, answer, request};
    use crate::plugin::identity::{identify, identify_anonymous};

    fn fixture(settings: &str) -> Fixture {
        Fixture::new(&format!(
            "consumers:\n\
             - {{username: ann, keyauth_credentials: [{{key: a}}], acls: [{{group: read}}, {{group: write}}]}}\n\
             - {{username: ben, keyauth_credentials: [{{key: b}}], groups: [gold]}}\n\
             - {{username: cat, keyauth_credentials: [{{key: c}}], acls: [{{group: read}}], groups: [gold]}}\n\
             - {{username: nobody, acls: [{{group: guests}}]}}\n\
             plugins:\n- name: acl\n  config: {{{settings}}}\n"
        ))
    }

    /// What becomes of a request of `name`: the groups that the upstream is told of, or status and message.
    fn send(settings: &str, name: Option<&str>) -> Result<String, (u16, String)> {
        let fixture = fixture(settings);
        let (plugin, _) = fixture.plugin(0, None).expect("a good config");
        let (mut cx, mut request) = (fixture.cx(), request("GET / HTTP/1.1\nHost: a"));
        match name {
            Some("nobody") => {
                let stand_in = fixture.consumers.by_name("nobody").expect("the stand-in");
                identify_anonymous(&mut cx, &mut request.head, stand_in);
            }
            Some(name) => {
                let credential = fixture.consumers.by_key(&name.as_bytes()[..1], cx.wall).expect("a key");
                identify(&mut cx, &mut request.head, credential);
            }
            None => {}
        }
        match answer(plugin.on_request(&mut cx, &mut request)) {
            Some(answer) => Err((answer.status, answer.message.into_owned())),
            None => {
                let told = request.head.get_known(Known::XConsumerGroups).unwrap_or(b"-");
                Ok(String::from_utf8_lossy(told).into_owned())
            }
        }
    }

    #[test]
    fn one_group_is_enough() {
        let forbidden = || Err((403, "You cannot consume this service".to_owned()));
        let table = [
            ("allow: [write]", Some("ann"), Ok("read, write".to_owned())),
            ("allow: [other, read]", Some("ann"), Ok("read, write".to_owned())),
            ("allow: [other]", Some("ann"), forbidden()),
            ("allow: [Read]", Some("ann"), forbidden()),
            ("allow: [read]", Some("ben"), forbidden()),
            ("allow: [guests]", Some("nobody"), Ok("guests".to_owned())),
            ("deny: [write]", Some("ann"), forbidden()),
            ("deny: [other]", Some("ann"), Ok("read, write".to_owned())),
            ("deny: [write]", Some("ben"), Ok("-".to_owned())),
            ("allow: [read]", None, Err((401, "Unauthorized".to_owned()))),
            ("deny: [read]", None, Err((401, "Unauthorized".to_owned()))),
            ("allow: [read], hide_groups_header: true", Some("ann"), Ok("-".to_owned())),
            (
                "allow: [read], always_use_authenticated_groups: true",
                Some("ann"),
                Ok("read, write".to_owned()),
            ),
        ];
        for (settings, name, expected) in table {
            assert_eq!(send(settings, name), expected, "{settings} {name:?}");
        }
    }

    #[test]
    fn include_consumer_groups() {
        let forbidden = || Err((403, "You cannot consume this service".to_owned()));
        for (settings, name, expected) in [
            ("allow: [gold]", "ben", forbidden()),
            ("allow: [gold], include_consumer_groups: true", "ben", Ok("gold".to_owned())),
            ("allow: [gold], include_consumer_groups: true", "cat", Ok("read, gold".to_owned())),
            ("deny: [gold], include_consumer_groups: true", "cat", forbidden()),
            ("allow: [read]", "cat", Ok("read".to_owned())),
        ] {
            assert_eq!(send(settings, Some(name)), expected, "{settings} {name}");
        }
    }

    #[test]
    fn always_use_authenticated_groups() {
        let send = |settings: &str, name: Option<&str>, groups: &[&str]| {
            let fixture = fixture(settings);
            let (plugin, _) = fixture.plugin(0, None).expect("a good config");
            let (mut cx, mut request) = (fixture.cx(), request("GET / HTTP/1.1\nHost: a"));
            if let Some(name) = name {
                let credential = fixture.consumers.by_key(&name.as_bytes()[..1], cx.wall).expect("a key");
                identify(&mut cx, &mut request.head, credential);
            }
            cx.authenticated_groups = groups.iter().map(|group| (*group).to_owned()).collect();
            let status = answer(plugin.on_request(&mut cx, &mut request)).map(|answer| answer.status);
            let told = request.head.get_known(Known::XAuthenticatedGroups);
            (status, told.map(|told| String::from_utf8_lossy(told).into_owned()))
        };
        let always = "allow: [staff], always_use_authenticated_groups: true";
        assert_eq!(send(always, Some("ann"), &["staff", "all"]), (None, Some("staff, all".into())));
        assert_eq!(send(always, Some("ann"), &["other"]), (Some(403), None));
        assert_eq!(
            send("allow: [staff]", Some("ann"), &["staff"]),
            (Some(403), None),
            "ann's own groups count"
        );
        assert_eq!(send("allow: [read]", Some("ann"), &["staff"]), (None, None));
        assert_eq!(send("allow: [staff]", None, &["staff"]), (None, Some("staff".into())), "nobody's groups");
        assert_eq!(send("allow: [staff], hide_groups_header: true", None, &["staff"]), (None, None));
        assert_eq!(send("allow: [staff]", None, &[]), (Some(401), None));
    }

    #[test]
    fn exactly_one_list_is_given() {
        for (settings, expected) in [
            ("", "must name a group"),
            ("allow: [a], deny: [b]", "only one of"),
            ("allow: []", "must name a group"),
        ] {
            let found = fixture(settings).plugin(0, None).err().expect("an error");
            assert!(found.iter().any(|one| one.message.contains(expected)), "{settings}: {found:?}");
        }
    }
}
