//! `ip-restriction`: which client addresses may use a service (Kong's plugin of the same name).
//!
//! Owns the two lists and the refusal. The address is the client's: where a trusted proxy stands before the gateway, the
//! one that it tells of. Never touches the lists of the kernel, which know sources only.
//!
//! **Invariant.** An address on the `deny` list does not pass, whatever `allow` says.

use std::any::Any;
use std::borrow::Cow;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_abi::Reason;
use portcullis_config::{self as config, Diagnostics, Fault, Fields, Key, Kind, Section};

use super::{CompileCx, Cx, Flow, Plugin, PluginSpec, Registration, Response};
use crate::http::RequestHead;
use crate::limit::{CidrSet, read_prefixes};

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "ip-restriction", priority: 990, section: &SECTION, compile };

/// The plugin's `config:`.
static SECTION: Section = Section::new(
    "ip-restriction",
    "Lets clients through by their address. At least one list is given; what is denied goes first.",
    &[
        Key::new("allow", Kind::CIDRS, "Addresses and prefixes that may pass; all others may not."),
        Key::new("deny", Kind::CIDRS, "Addresses and prefixes that may not pass."),
        Key::new(
            "allow_file",
            Kind::FILE,
            "A file of more of them that may pass, one a line, `#` begins a comment. It is read again when it changes.",
        ),
        Key::new("deny_file", Kind::FILE, "Such a file of more that may not pass."),
        Key::new("status", Kind::integer(400, 599), "Status of a refusal.").default("403"),
        Key::new(
            "message",
            Kind::NAME,
            "Message of a refusal; left out: `IP address not allowed:` and the address.",
        ),
    ],
);

fn compile(plugin: &config::Plugin, _: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    Some(Arc::new(IpRestriction::read(&plugin.fields(&SECTION, found))?))
}

/// Compiled settings, and the plugin itself: it keeps no state.
struct IpRestriction {
    /// `None`: everybody.
    allow: Option<CidrSet>,
    deny: CidrSet,
    status: u16,
    message: Option<Cow<'static, str>>,
}

impl IpRestriction {
    fn read(fields: &Fields<'_>) -> Option<Self> {
        let (allow, deny) = (list(fields, "allow", "allow_file"), list(fields, "deny", "deny_file"));
        // A file may be empty for now; then nobody is on the list.
        let files = ["allow_file", "deny_file"].iter().any(|key| fields.is_set(key));
        if allow.is_empty() && deny.is_empty() && !files {
            // A list with a wrong prefix, or under a wrong name, is reported already.
            if !fields.has_unknown_keys() {
                let origin = fields.origin();
                let fault = Fault::new("at least one of 'allow' and 'deny' must hold an address");
                fields.diagnostics().error(origin.span, &origin.path, fault);
            }
            return None;
        }
        Some(Self {
            allow: (!allow.is_empty() || fields.is_set("allow_file")).then_some(allow),
            deny,
            status: fields.integer("status"),
            message: fields.optional_string("message").map(Cow::Owned),
        })
    }
}

/// A list with what its file says.
fn list(fields: &Fields<'_>, key: &str, file_key: &str) -> CidrSet {
    let mut prefixes = fields.cidrs(key);
    if let Some(file) = fields.optional_string(file_key) {
        match read_prefixes(Path::new(&file)) {
            Ok(more) => prefixes.extend(more),
            Err(wrong) => fields.error(file_key, wrong),
        }
    }
    CidrSet::new(prefixes)
}

impl PluginSpec for IpRestriction {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard(self))
    }
}

struct OnShard(Arc<IpRestriction>);

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, _: &mut RequestHead) -> Flow {
        let plugin = &*self.0;
        let allowed = plugin.allow.as_ref().is_none_or(|allow| allow.contains(cx.client));
        if allowed && !plugin.deny.contains(cx.client) {
            return Flow::Continue;
        }
        let message = plugin.message.clone();
        let message =
            message.unwrap_or_else(|| format!("IP address not allowed: {}", cx.client.to_canonical()).into());
        Flow::Respond(Response::new(plugin.status, Reason::Forbidden, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::{Fixture, request_with as request};

    fn send(config: &str, client: &str) -> Option<(u16, String)> {
        let bed = Fixture::default();
        let plugin = bed.accepted("ip-restriction", config);
        match plugin.on_request(&mut bed.cx_from(client), &mut request("/", &[])) {
            Flow::Continue => None,
            Flow::Respond(answer) => Some((answer.status, answer.message.into_owned())),
            Flow::Wait(_) => panic!("waits"),
        }
    }

    #[test]
    fn deny_goes_before_allow() {
        let table = [
            ("{allow: [10.0.0.0/8]}", "10.1.2.3", true),
            ("{allow: [10.0.0.0/8]}", "11.1.2.3", false),
            ("{allow: [10.0.0.0/8]}", "::ffff:10.1.2.3", true),
            ("{allow: [10.0.0.0/8]}", "2001:db8::1", false),
            ("{allow: [192.0.2.7]}", "192.0.2.7", true),
            ("{allow: [192.0.2.7]}", "192.0.2.8", false),
            ("{deny: ['2001:db8::/32']}", "2001:db8:1::1", false),
            ("{deny: ['2001:db8::/32']}", "2001:db9::1", true),
            ("{allow: [10.0.0.0/8], deny: [10.9.0.0/16]}", "10.9.0.1", false),
            ("{allow: [10.0.0.0/8], deny: [10.9.0.0/16]}", "10.8.0.1", true),
            ("{allow: [10.9.0.0/16], deny: [10.0.0.0/8]}", "10.9.0.1", false),
        ];
        for (config, client, passes) in table {
            assert_eq!(send(config, client).is_none(), passes, "{config} {client}");
        }
    }

    #[test]
    fn allow_file_and_deny_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path.display().to_string()
        };
        let (some, none) = (file("some", "192.0.2.0/24 # a net\n10.0.0.1\n"), file("none", "# nobody\n"));
        for (config, client, passes) in [
            (format!("{{allow_file: '{some}'}}"), "192.0.2.9", true),
            (format!("{{allow_file: '{some}'}}"), "10.0.0.2", false),
            (format!("{{allow_file: '{some}', allow: [10.0.0.2]}}"), "10.0.0.2", true),
            (format!("{{deny_file: '{some}'}}"), "192.0.2.9", false),
            (format!("{{deny_file: '{some}'}}"), "10.0.0.2", true),
            (format!("{{allow_file: '{some}', deny: [192.0.2.9]}}"), "192.0.2.9", false),
            // An empty list of who may pass lets nobody pass.
            (format!("{{allow_file: '{none}'}}"), "192.0.2.9", false),
            (format!("{{deny_file: '{none}'}}"), "192.0.2.9", true),
        ] {
            assert_eq!(send(&config, client).is_none(), passes, "{config} {client}");
        }
        let bad = file("bad", "10.0.0.1\nnonsense\n");
        for config in [format!("{{deny_file: '{bad}'}}"), "{deny_file: /nowhere}".to_owned()] {
            assert!(Fixture::default().refused("ip-restriction", &config).contains("deny_file"), "{config}");
        }
    }

    #[test]
    fn the_refusal_can_be_chosen() {
        let said = |text: &str| text.to_owned();
        let table = [
            ("{deny: [192.0.2.7]}", (403, said("IP address not allowed: 192.0.2.7"))),
            ("{deny: [192.0.2.7], status: 404, message: gone}", (404, said("gone"))),
        ];
        for (config, expected) in table {
            assert_eq!(send(config, "192.0.2.7"), Some(expected), "{config}");
        }
    }

    #[test]
    fn a_list_is_needed() {
        let bed = Fixture::default();
        for config in ["{}", "{allow: []}"] {
            assert!(bed.refused("ip-restriction", config).contains("at least one"), "{config}");
        }
        assert!(bed.refused("ip-restriction", "{allow: [10.0.0.0/33]}").contains("allow[0]"));
        assert!(bed.refused("ip-restriction", "{deny: [1.2.3.4], status: 200}").contains("status"));
    }
}
