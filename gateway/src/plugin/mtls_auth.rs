//! `mtls-auth`: the client's TLS certificate says who asks (Kong's plugin of the same name).
//!
//! The listener asks for the certificate (`tls.client_auth`) and verifies it in the handshake. This plugin decides which
//! authorities count for its routes, and which consumer a certificate is.
//!
//! | certificate | `skip_consumer_lookup` | anonymous | what happens |
//! |---|---|---|---|
//! | none | any | no / yes | 401 / the stand-in |
//! | of another authority | any | no / yes | 401 / the stand-in |
//! | good, a name is a consumer's | no | any | that consumer |
//! | good, no name is | no | no / yes | 401 / the stand-in; `default_consumer` goes before both |
//! | good | yes | any | nobody; the upstream is told the names |
//!
//! **Invariant.** A certificate counts only if one of `ca_certificates` has signed it, whatever the listener trusts.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_abi::Reason;
use portcullis_config::{self as config, Diagnostics, Fault, Fields, Key, Kind, Pem, Section};

use super::consumer::Consumers;
use super::identity::{self, Access, identify_consumer};
use super::{CompileCx, Cx, Flow, Plugin, PluginSpec, Registration, Response};
use crate::http::{Head, Known, RequestHead};
use crate::id::ConsumerId;
use crate::tls::{self, ClientJudge, Peer, Roots};

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "mtls-auth", priority: 1600, section: &SECTION, compile };

/// The plugin's `config:`.
static SECTION: Section = Section::new(
    "mtls-auth",
    "Authentication by the client's TLS certificate, which the listener asks for (`tls.client_auth`).",
    &[
        Key::new(
            "ca_certificates",
            Kind::STRINGS,
            "Names or ids of `ca_certificates` that a certificate must be signed by.",
        )
        .required(),
        Key::new(
            "consumer_by",
            Kind::list(&Kind::Word(&["username", "custom_id"])),
            "What of a consumer the names in a certificate are compared with: subject alternative names first, then the \
             common name.",
        )
        .default("[username, custom_id]"),
        Key::new(
            "skip_consumer_lookup",
            Kind::Bool,
            "Whether a good certificate is enough. The upstream is told its names then, in `X-Client-Cert-Dn` and \
             `X-Client-Cert-San`.",
        )
        .default("false"),
        Key::new(
            "authenticated_group_by",
            Kind::Word(&["CN", "DN"]),
            "What is sent as `X-Authenticated-Groups` with `skip_consumer_lookup`: the common name or the whole subject.",
        )
        .default("CN"),
        Key::new(
            "default_consumer",
            Kind::NAME,
            "Username or id of the consumer for good certificates that are no consumer's.",
        ),
        Key::new("cache_ttl", Kind::Any, "Kong's cache of consumers; here they are in memory.").ignored(),
        Key::new("cert_cache_ttl", Kind::Any, "Kong's cache of revocations.").ignored(),
        Key::new("http_timeout", Kind::Any, "Kong's time limit for asking about revocations.").ignored(),
        Key::new(
            "revocation_check_mode",
            Kind::Word(&["SKIP", "IGNORE_CA_ERROR", "STRICT"]),
            "Whether Kong asks about revocations. Here `tls.client_auth.crl_files` has the lists.",
        )
        .reserved(),
        Key::new("allow_partial_chain", Kind::Bool, "Whether an intermediate authority may be listed alone.")
            .reserved(),
        Key::new("send_ca_dn", Kind::Any, "The listener always sends the names of its authorities.").ignored(),
    ],
)
.with(identity::KEYS);

/// Certificates whose judgement one shard remembers; more are judged again.
const REMEMBERED_MAX: usize = 4096;
/// Kong's fields for `skip_consumer_lookup`.
const DN_FIELD: &str = "X-Client-Cert-Dn";
const SAN_FIELD: &str = "X-Client-Cert-San";

/// Compiled settings.
struct MtlsAuth {
    judge: ClientJudge,
    /// Consumers by what `consumer_by` compares; the earlier word wins.
    by_name: HashMap<String, ConsumerId>,
    skip_lookup: bool,
    group_by_subject: bool,
    default: Option<ConsumerId>,
    access: Access,
}

fn compile(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    Some(Arc::new(MtlsAuth::read(&plugin.fields(&SECTION, found), cx)?))
}

impl MtlsAuth {
    fn read(fields: &Fields<'_>, cx: &CompileCx<'_>) -> Option<Self> {
        let roots = roots(fields, cx.config)?;
        let judge =
            ClientJudge::new(roots).map_err(|error| fields.error("ca_certificates", error.to_string()));
        let default = fields.optional_string("default_consumer").and_then(|name| {
            let known = cx.consumers.by_name(&name);
            if known.is_none() {
                fields.error("default_consumer", format!("there is no consumer {name:?}"));
            }
            known
        });
        let asks = |auth: &config::ClientAuth| auth.mode != config::ClientAuthMode::None;
        let listeners = cx.config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let certificates = cx.config.certificates.iter().filter_map(|one| one.client_auth.as_ref());
        if !listeners.map(|tls| &tls.client_auth).chain(certificates).any(asks) {
            let fault = Fault::new("no listener asks clients for certificates, so none is ever shown");
            fields.warning("ca_certificates", fault.hint("set `tls.client_auth` of the listener"));
        }
        Some(Self {
            judge: judge.ok()?,
            by_name: names(cx.consumers, &fields.words("consumer_by")),
            skip_lookup: fields.bool("skip_consumer_lookup"),
            group_by_subject: fields.word("authenticated_group_by") == "DN",
            default,
            access: Access::read(fields, cx.consumers),
        })
    }

    /// The consumer that a good certificate is, and the name that says so.
    fn consumer<'p>(&self, peer: &'p Peer) -> Option<(ConsumerId, &'p str)> {
        let alternative = peer.dns.iter().chain(&peer.emails).chain(&peer.uris);
        let mut names = alternative.chain(&peer.common_name).map(String::as_str);
        names
            .find_map(|name| Some((*self.by_name.get(name)?, name)))
            .or_else(|| Some((self.default?, peer.common_name.as_deref().unwrap_or(&peer.subject))))
    }

    /// Tells the upstream the names in the certificate.
    fn tell(&self, head: &mut Head, peer: &Peer, groups: &mut Vec<String>) {
        head.set(DN_FIELD, printable(&peer.subject));
        let names: Vec<_> =
            peer.dns.iter().chain(&peer.emails).chain(&peer.uris).map(String::as_str).collect();
        head.remove(SAN_FIELD);
        if !names.is_empty() {
            head.append(SAN_FIELD, printable(&names.join(",")));
        }
        let group = if self.group_by_subject { Some(&peer.subject) } else { peer.common_name.as_ref() };
        if let Some(group) = group {
            head.set_known(Known::XAuthenticatedGroups, printable(group));
            groups.push(group.clone());
        }
    }
}

/// The certificates of `ca_certificates`, which are named one by one.
fn roots(fields: &Fields<'_>, config: &config::Config) -> Option<Roots> {
    let mut pem = Vec::new();
    for name in fields.strings("ca_certificates") {
        let named = |one: &&config::CaCertificate| one.id == name || one.uuid.as_deref() == Some(&*name);
        let Some(authority) = config.ca_certificates.iter().find(named) else {
            let fault = Fault::new(format!("there is no CA certificate {name:?}"));
            fields.error("ca_certificates", fault.hint("write the name or id of one of `ca_certificates`"));
            return None;
        };
        match &authority.cert {
            Pem::Inline(text) => pem.extend_from_slice(text.expose().as_bytes()),
            Pem::File(path) => match tls::read_file(path) {
                Ok(text) => pem.extend(text),
                Err(error) => {
                    fields.error("ca_certificates", error.to_string());
                    return None;
                }
            },
        }
        pem.push(b'\n');
    }
    if pem.is_empty() {
        // An absent list is reported by the table.
        if fields.is_set("ca_certificates") {
            fields.error("ca_certificates", "the list is empty: no certificate would be good");
        }
        return None;
    }
    Roots::from_pem(&pem, "ca_certificates")
        .map_err(|error| fields.error("ca_certificates", error.to_string()))
        .ok()
}

fn names(consumers: &Consumers, by: &[&str]) -> HashMap<String, ConsumerId> {
    let mut names = HashMap::new();
    for word in by {
        for (id, consumer) in consumers.all() {
            let name = if *word == "username" { &consumer.username } else { &consumer.custom_id };
            if let Some(name) = name {
                names.entry(name.clone()).or_insert(id);
            }
        }
    }
    names
}

/// What a field can hold of a name that comes out of a certificate.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

impl PluginSpec for MtlsAuth {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard { plugin: self, judged: RefCell::default() })
    }
}

/// The plugin on one shard. What it remembers goes with the generation: the next may have other authorities.
struct OnShard {
    plugin: Arc<MtlsAuth>,
    /// Certificates that were judged, by fingerprint. A judgement holds for the life of the connection that brought the
    /// certificate at least, as it does in a handshake.
    judged: RefCell<HashMap<[u8; 32], bool>>,
}

impl OnShard {
    fn accepts(&self, peer: &Peer) -> bool {
        let mut judged = self.judged.borrow_mut();
        if let Some(known) = judged.get(&peer.fingerprint) {
            return *known;
        }
        let good = self.plugin.judge.accepts(peer);
        if judged.len() >= REMEMBERED_MAX {
            judged.clear();
        }
        judged.insert(peer.fingerprint, good);
        good
    }
}

/// Why a request is not let in.
enum Refused {
    NoCertificate,
    NotGood,
    Nobody,
}

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        let plugin = &*self.plugin;
        // Whoever is let in, only this plugin says so.
        request.head.remove(DN_FIELD);
        request.head.remove(SAN_FIELD);
        plugin.access.decide_by(
            cx,
            request,
            |cx, _| {
                let peer = cx.peer.clone().ok_or(Refused::NoCertificate)?;
                if !self.accepts(&peer) {
                    return Err(Refused::NotGood);
                }
                let consumer = plugin.consumer(&peer).map(|(consumer, name)| (consumer, name.to_owned()));
                if consumer.is_none() && !plugin.skip_lookup {
                    return Err(Refused::Nobody);
                }
                Ok((peer, consumer.filter(|_| !plugin.skip_lookup)))
            },
            |cx, head, (peer, consumer)| match consumer {
                Some((consumer, name)) => identify_consumer(cx, head, consumer, &printable(&name)),
                None => plugin.tell(head, &peer, &mut cx.authenticated_groups),
            },
            |refused| {
                let (reason, message) = match refused {
                    Refused::NoCertificate => {
                        (Reason::ClientCertificateMissing, "No required TLS certificate was sent")
                    }
                    Refused::NotGood => {
                        (Reason::ClientCertificateInvalid, "TLS certificate failed verification")
                    }
                    Refused::Nobody => (Reason::UnauthorizedInvalid, "Unauthorized"),
                };
                Response::new(401, reason, message)
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::{Fixture, answer, request};
    use crate::tls::peer::signed_fixture;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
    }

    fn peer(authority: &CertifiedIssuer<'static, KeyPair>, name: &str, alternative: &[SanType]) -> Arc<Peer> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = alternative.to_vec();
        signed_fixture(&params, authority)
    }

    fn fixture(pem: &str, settings: &str) -> Fixture {
        let pem: String = pem.lines().map(|line| format!("      {line}\n")).collect();
        Fixture::new(&format!(
            "ca_certificates:\n  - name: ours\n    cert: |\n{pem}\
             consumers: [{{username: ann}}, {{custom_id: ben@shop.example, username: ben}}, {{username: nobody}}]\n\
             plugins:\n- name: mtls-auth\n  config: {{ca_certificates: [ours]{settings}}}\n"
        ))
    }

    /// Username told upstream with the reason of the refusal, if any.
    fn send(fixture: &Fixture, peer: Option<&Arc<Peer>>, lines: &str) -> (RequestHead, Option<Reason>) {
        let (plugin, _) = fixture.plugin(0, None).expect("a good config");
        let mut request = request(&format!("GET / HTTP/1.1\nHost: a\n{lines}"));
        let mut cx = fixture.cx();
        cx.peer = peer.cloned();
        let refused = answer(plugin.on_request(&mut cx, &mut request));
        assert!(refused.as_ref().is_none_or(|answer| answer.status == 401));
        (request, refused.and_then(|answer| answer.reason))
    }

    #[test]
    fn names_become_consumers() {
        let (ours, others) = (authority("ours"), authority("others"));
        let plain = fixture(&ours.pem(), "");
        let email = SanType::Rfc822Name("ben@shop.example".try_into().expect("an address"));
        let dns = |name: &str| SanType::DnsName(name.try_into().expect("a name"));
        let table = [
            (Some(peer(&ours, "ann", &[])), Ok("ann")),
            (Some(peer(&ours, "x", &[dns("y.example"), email.clone()])), Ok("ben")),
            (Some(peer(&ours, "ann", &[email])), Ok("ben")),
            (Some(peer(&ours, "eve", &[])), Err(Reason::UnauthorizedInvalid)),
            (Some(peer(&others, "ann", &[])), Err(Reason::ClientCertificateInvalid)),
            (None, Err(Reason::ClientCertificateMissing)),
        ];
        let stand_in = fixture(&ours.pem(), ", anonymous: nobody");
        for (peer, expected) in table {
            let (sent, refused) = send(&plain, peer.as_ref(), "X-Client-Cert-Dn: CN=ann");
            assert_eq!(refused, expected.err(), "{peer:?}");
            let told = |request: &RequestHead| {
                let name = request.head.get_known(Known::XConsumerUsername);
                name.map(|name| String::from_utf8_lossy(name).into_owned())
            };
            assert_eq!(told(&sent).as_deref(), expected.ok());
            assert_eq!(sent.head.get(DN_FIELD), None, "a claim gets through");
            let (sent, refused) = send(&stand_in, peer.as_ref(), "");
            assert_eq!((told(&sent).as_deref(), refused), (Some(expected.unwrap_or("nobody")), None));
        }
    }

    #[test]
    fn who_is_asked_for_by_what() {
        let ours = authority("ours");
        let named = peer(&ours, "ben@shop.example", &[]);
        let by = |settings: &str| send(&fixture(&ours.pem(), settings), Some(&named), "").1;
        assert_eq!(by(", consumer_by: [custom_id]"), None);
        assert_eq!(by(", consumer_by: [username]"), Some(Reason::UnauthorizedInvalid));
        assert_eq!(by(", consumer_by: [username], default_consumer: nobody"), None);
    }

    #[test]
    fn without_a_look_up_the_names_are_told() {
        let ours = authority("ours");
        let named = peer(&ours, "ann", &[SanType::DnsName("a.example".try_into().expect("a name"))]);
        let (sent, refused) = send(&fixture(&ours.pem(), ", skip_consumer_lookup: true"), Some(&named), "");
        assert_eq!(refused, None);
        assert_eq!(sent.head.get_known(Known::XConsumerUsername), None);
        assert_eq!(sent.head.get(DN_FIELD), Some(&b"CN=ann"[..]));
        assert_eq!(sent.head.get(SAN_FIELD), Some(&b"a.example"[..]));
        assert_eq!(sent.head.get_known(Known::XAuthenticatedGroups), Some(&b"ann"[..]));
    }

    #[test]
    fn bad_settings() {
        let ours = authority("ours");
        let findings = |text: &str| {
            let fixture = Fixture::new(text);
            fixture
                .plugin(0, None)
                .err()
                .expect("an error")
                .iter()
                .map(ToString::to_string)
                .collect::<String>()
        };
        let missing = findings("plugins:\n- name: mtls-auth\n  config: {ca_certificates: [ours]}\n");
        assert!(missing.contains("there is no CA certificate \"ours\""), "{missing}");
        let (_, warnings) = fixture(&ours.pem(), "").plugin(0, None).expect("a good config");
        assert!(warnings.iter().any(|one| one.message.contains("no listener asks")), "{warnings:?}");
    }
}
