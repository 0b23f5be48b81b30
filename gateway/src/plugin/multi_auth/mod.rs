//! `multi-auth`: several ways to authenticate on one route, of which one is enough (`any`) or none may fail (`all`). The
//! name is APISIX's; nginx has it as `satisfy`.
//!
//! Owns the order of the members and what is answered when it comes to a refusal. Each member is a plugin like any other,
//! and stands under `multi-auth` only; one of them may be a `multi-auth` again.
//!
//! | the members of `any` say | answer |
//! |---|---|
//! | one lets the request in | it goes on; later members are not asked |
//! | all refuse, one of them by 5xx | that one |
//! | all refuse, one of them by 401 | 401 with the challenges of all |
//! | all refuse | the first refusal |
//!
//! **Invariant.** Nothing of a member that failed stays in the identity: neither in the exchange nor in the fields of the
//! request.

use std::any::Any;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use portcullis_abi::Reason;
use portcullis_config::{
    self as config, Diagnostics, Fault, Fields, Key, Kind, Node, Origin, Section, check_section,
};

use super::identity::{self, Access};
use super::{
    CompileCx, CredentialPlaces, Cx, Flow, Identity, Plugin, PluginSpec, Registration, Response, Resume,
    registry,
};
use crate::http::RequestHead;

/// The plugin's line of the registry: before the plugins that it puts together.
pub static REGISTRATION: Registration =
    Registration { name: "multi-auth", priority: 1650, section: &SECTION, compile };

/// The plugin's `config:`.
static SECTION: Section = Section::new(
    "multi-auth",
    "Several ways to authenticate, one of which is enough, or all of which are needed. Exactly one of `any` and `all` is \
     given.",
    &[
        Key::new(
            "any",
            Kind::list(&const { Kind::Section(&MEMBER) }),
            "Plugins of which one must let the request in, asked in this order.",
        ),
        Key::new(
            "all",
            Kind::list(&const { Kind::Section(&MEMBER) }),
            "Plugins that must all let the request in, asked in this order. Who the request is from, the last says.",
        ),
        identity::ANONYMOUS,
        identity::RUN_ON_PREFLIGHT,
    ],
);

static MEMBER: Section = Section::new(
    "multi-auth.member",
    "One of the plugins.",
    &[
        Key::new("name", Kind::Word(&MEMBERS), "The plugin.").required(),
        Key::new("config", Kind::Any, "Its own `config:`, without `anonymous`.").secret(),
    ],
);

/// Plugins that say yes or no by the head of a request.
const MEMBERS: [&str; 10] = [
    "acl",
    "basic-auth",
    "forward-auth",
    "hmac-auth",
    "ip-restriction",
    "jwt",
    "key-auth",
    "mtls-auth",
    "multi-auth",
    "oauth2-introspection",
];

/// Most members. Each may wait for another service.
const MEMBERS_MAX: usize = 8;

fn compile(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let (mode, key) = match (fields.is_set("any"), fields.is_set("all")) {
        (true, false) => (Mode::Any, "any"),
        (false, true) => (Mode::All, "all"),
        _ if fields.has_unknown_keys() => return None, // reported already
        _ => {
            let fault = Fault::new("exactly one of `any` and `all` is given");
            found.error(
                plugin.origin.span,
                &plugin.origin.path,
                fault.hint("as in `any: [{name: jwt}, {name: key-auth}]`"),
            );
            return None;
        }
    };
    let sections = fields.sections(key);
    if !(1..=MEMBERS_MAX).contains(&sections.len()) {
        fields.error(key, format!("there are 1 to {MEMBERS_MAX} plugins"));
        return None;
    }
    let members: Vec<_> = sections.iter().map(|section| member(section, plugin, cx)).collect();
    let members = members.into_iter().collect::<Option<_>>()?;
    Some(Arc::new(MultiAuth { mode, members, access: Access::read(&fields, cx.consumers) }))
}

fn member(section: &Fields<'_>, plugin: &config::Plugin, cx: &CompileCx<'_>) -> Option<Arc<dyn PluginSpec>> {
    let registration = registry::find(section.optional_word("name")?)?;
    let found = section.diagnostics();
    let node = match section.get("config") {
        Some(node) => node.clone(),
        None => Node::empty_map(section.origin().span),
    };
    let errors = found.has_errors();
    check_section(&node, registration.section, &section.path_of("config"), found);
    if found.has_errors() && !errors {
        return None;
    }
    if node.get("anonymous").is_some() {
        let fault = Fault::new("a member with `anonymous` would let everybody in");
        section.error("config", fault.hint("give `anonymous` to `multi-auth` itself"));
    }
    let mut hasher = DefaultHasher::new();
    (cx.instance, section.path()).hash(&mut hasher);
    let own = config::Plugin {
        name: registration.name.to_owned(),
        id: None,
        instance_name: None,
        config: node,
        origin: Origin { span: section.origin().span, path: section.path().to_owned() },
        ..plugin.clone()
    };
    let cx = CompileCx { instance: hasher.finish(), ..*cx };
    let spec = (registration.compile)(&own, &cx, found)?;
    if spec.decides_by_body() {
        let fault = Fault::new(format!("here `{}` cannot decide by the body", registration.name));
        section.error("config", fault.hint("leave out `key_in_body`, or `forward_body`"));
    }
    Some(spec)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Any,
    All,
}

/// Compiled settings.
struct MultiAuth {
    mode: Mode,
    members: Vec<Arc<dyn PluginSpec>>,
    access: Access,
}

impl PluginSpec for MultiAuth {
    fn instantiate(self: Arc<Self>, previous: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        let states = previous.and_then(|state| state.downcast::<States>().ok());
        let state = |number: usize| states.as_ref()?.0.get(number)?.clone();
        // A state of another plugin is not taken: each looks whether it is one of its own.
        let members = self.members.iter().enumerate();
        let members = members.map(|(number, member)| member.clone().instantiate(state(number))).collect();
        Rc::new(OnShard { members, spec: self })
    }

    fn decides_by_body(&self) -> bool {
        self.members.iter().any(|member| member.decides_by_body())
    }

    fn credential_places(&self) -> CredentialPlaces {
        let mut all = CredentialPlaces::default();
        for places in self.members.iter().map(|member| member.credential_places()) {
            all.parameters.extend(places.parameters);
            all.fields.extend(places.fields);
        }
        all
    }
}

/// What the members keep across reloads, by number.
struct States(Vec<Option<Rc<dyn Any>>>);

#[derive(Clone)]
struct OnShard {
    spec: Arc<MultiAuth>,
    members: Rc<[Rc<dyn Plugin>]>,
}

/// How far a request has come.
struct Round {
    /// The member whose turn it is.
    at: usize,
    before: Identity,
    refusals: Vec<Response>,
}

impl OnShard {
    /// Asks members from the one whose turn it is; `flow` is what that one has said already.
    fn go_on(
        &self,
        cx: &mut Cx<'_>,
        request: &mut RequestHead,
        mut round: Round,
        mut flow: Option<Flow>,
    ) -> Flow {
        loop {
            let said = match (flow.take(), self.members.get(round.at)) {
                (Some(said), _) => said,
                (None, Some(member)) => member.on_request(cx, request),
                (None, None) if self.spec.mode == Mode::All => return Flow::Continue,
                (None, None) => return self.refuse(cx, request, round.refusals),
            };
            match (said, self.spec.mode) {
                (Flow::Continue, Mode::Any) => return Flow::Continue,
                (Flow::Continue, Mode::All) => {}
                (Flow::Respond(refusal), mode) => {
                    identity::restore(cx, &mut request.head, round.before);
                    round.refusals.push(*refusal);
                    if mode == Mode::All {
                        return self.refuse(cx, request, round.refusals);
                    }
                }
                (Flow::Wait(answer), _) => {
                    let this = self.clone();
                    return Flow::Wait(Box::pin(async move {
                        let resume = answer.await;
                        let resume: Resume = Box::new(move |cx, request| {
                            let said = resume(cx, request);
                            this.go_on(cx, request, round, Some(said))
                        });
                        resume
                    }));
                }
            }
            round.at += 1;
        }
    }

    fn refuse(&self, cx: &mut Cx<'_>, request: &mut RequestHead, refusals: Vec<Response>) -> Flow {
        let refusal = combined(refusals);
        // Who could not be judged, or sends what another has signed, is not simply unknown.
        if refusal.status >= 500 || refusal.reason == Some(Reason::ReplayedRequest) {
            return Flow::Respond(refusal);
        }
        self.spec.access.take_back(cx, request, || refusal)
    }
}

/// One answer for several refusals, of which there is at least one.
fn combined(mut refusals: Vec<Response>) -> Box<Response> {
    if let Some(broken) = refusals.iter().position(|one| one.status >= 500) {
        return Box::new(refusals.swap_remove(broken));
    }
    let unauthorized = |one: &Response| one.status == 401;
    let Some(first) = refusals.iter().position(unauthorized) else {
        return match refusals.is_empty() {
            true => Response::new(401, Reason::UnauthorizedMissing, "Unauthorized"),
            false => Box::new(refusals.swap_remove(0)),
        };
    };
    // What was wrong with a credential says more than that others are missing.
    let telling = |one: &Response| unauthorized(one) && one.reason != Some(Reason::UnauthorizedMissing);
    let chosen = refusals.iter().position(telling).unwrap_or(first);
    let mut answer = Box::new(refusals.remove(chosen));
    let others = refusals.into_iter().filter(unauthorized).flat_map(|one| one.fields);
    answer.fields.extend(others.filter(|(name, _)| name.eq_ignore_ascii_case("WWW-Authenticate")));
    answer
}

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        if self.spec.access.passes(cx, request) {
            return Flow::Continue;
        }
        let round = Round { at: 0, before: cx.identity, refusals: Vec::new() };
        self.go_on(cx, request, round, None)
    }

    fn wants_request_body(&self, cx: &Cx<'_>, request: &RequestHead) -> bool {
        self.members.iter().any(|member| member.wants_request_body(cx, request))
    }

    fn on_request_body(&self, cx: &mut Cx<'_>, request: &mut RequestHead, body: &mut Vec<u8>) -> Flow {
        for member in self.members.iter() {
            if !member.wants_request_body(cx, request) {
                continue;
            }
            match member.on_request_body(cx, request, body) {
                Flow::Continue => {}
                Flow::Respond(refusal) => {
                    identity::restore(cx, &mut request.head, Identity::default());
                    return self.refuse(cx, request, vec![*refusal]);
                }
                // Nobody who decides by the body is a member.
                wait @ Flow::Wait(_) => return wait,
            }
        }
        Flow::Continue
    }

    fn state(&self) -> Option<Rc<dyn Any>> {
        Some(Rc::new(States(self.members.iter().map(|member| member.state()).collect())))
    }
}

#[cfg(test)]
mod tests;
