//! `path-rewrite`: changes the path that the upstream sees, step by step (Traefik's `stripPrefix`, `stripPrefixRegex`,
//! `addPrefix`, `replacePath` and `replacePathRegex`).
//!
//! Owns the steps. What is taken off is told upstream in `X-Forwarded-Prefix`, what is replaced in `X-Replaced-Path`.
//!
//! **Invariant.** The path that comes out is normalised like every path; one that would leave its place by dot segments
//! is refused.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_abi::Reason;
use portcullis_config::{self as config, Diagnostics, Fault, Fields, Key, Kind, Section, schema::text};
use regex::bytes::Regex;

use super::{CompileCx, Cx, Flow, Plugin, PluginSpec, Registration, Response};
use crate::http::path::{PathPolicy, normalise};
use crate::http::{Known, RequestHead};

/// The plugin's line of the registry: before `request-transformer`, whose `replace.uri` has the last word.
pub static REGISTRATION: Registration =
    Registration { name: "path-rewrite", priority: 802, section: &SECTION, compile };

static SECTION: Section = Section::new(
    "path-rewrite",
    "Changes the path before it goes upstream. Nothing is stripped from the result or put before it.",
    &[Key::new("steps", Kind::list(&const { Kind::Section(&STEP) }), "What is done, in order.").required()],
);

static STEP: Section = Section::new(
    "path-rewrite.steps",
    "One change; exactly one of these, but `regex` with `replacement`.",
    &[
        Key::new(
            "strip_prefix",
            Kind::list(&const { Kind::Text(&text::PATH) }),
            "Takes off the first of these that the path begins with.",
        ),
        Key::new(
            "strip_prefix_regex",
            Kind::STRINGS,
            "Takes off what the first of these expressions matches at the beginning.",
        ),
        Key::new("add_prefix", Kind::Text(&text::PATH), "Puts this before the path."),
        Key::new("replace", Kind::Text(&text::PATH), "Becomes the path."),
        Key::new("regex", Kind::NAME, "Regular expression for the path."),
        Key::new("replacement", Kind::STRING, "What every match becomes; `$1` or `${1}` is the first group."),
    ],
);

enum Step {
    StripPrefix(Vec<Vec<u8>>),
    StripRegex(Vec<Regex>),
    AddPrefix(Vec<u8>),
    Replace(Vec<u8>),
    ReplaceRegex(Regex, Vec<u8>),
}

fn compile(plugin: &config::Plugin, _: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let steps: Option<Vec<Step>> = fields.sections("steps").iter().map(step).collect();
    Some(Arc::new(PathRewrite { steps: steps? }))
}

const KINDS: [&str; 5] = ["strip_prefix", "strip_prefix_regex", "add_prefix", "replace", "regex"];

fn step(fields: &Fields<'_>) -> Option<Step> {
    let given: Vec<_> = KINDS.into_iter().filter(|key| fields.is_set(key)).collect();
    let [kind] = given.as_slice() else {
        if !fields.has_unknown_keys() {
            let origin = fields.origin();
            let fault = Fault::new(format!("a step is exactly one of {}", KINDS.join(", ")));
            fields.diagnostics().error(origin.span, &origin.path, fault);
        }
        return None;
    };
    let bytes = |key: &str| fields.string(key).into_bytes();
    Some(match *kind {
        "strip_prefix" => {
            Step::StripPrefix(fields.strings("strip_prefix").into_iter().map(String::into_bytes).collect())
        }
        "strip_prefix_regex" => {
            let sources = fields.strings("strip_prefix_regex");
            let all: Option<Vec<_>> =
                sources.iter().map(|source| regex(fields, "strip_prefix_regex", source)).collect();
            Step::StripRegex(all?)
        }
        "add_prefix" => Step::AddPrefix(bytes("add_prefix")),
        "replace" => Step::Replace(bytes("replace")),
        _ => {
            if !fields.is_set("replacement") {
                fields.error("regex", "`regex` needs `replacement`");
                return None;
            }
            Step::ReplaceRegex(regex(fields, "regex", &fields.string("regex"))?, bytes("replacement"))
        }
    })
}

fn regex(fields: &Fields<'_>, key: &str, source: &str) -> Option<Regex> {
    Regex::new(source)
        .map_err(|error| {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            fields.error(key, format!("the regular expression {source:?} does not compile: {why}"));
        })
        .ok()
}

struct PathRewrite {
    steps: Vec<Step>,
}

impl PathRewrite {
    fn apply(&self, request: &mut RequestHead) -> Result<bool, Reason> {
        let before = request.path().to_vec();
        let mut path = before.clone();
        for step in &self.steps {
            step.apply(&mut path, request);
            if path.first() != Some(&b'/') {
                path.insert(0, b'/');
            }
        }
        if path == before {
            return Ok(false);
        }
        if path.split(|&byte| byte == b'/').any(|segment| matches!(segment, b"." | b"..")) {
            return Err(Reason::BadPathEncoding);
        }
        let mut normal = Vec::with_capacity(path.len());
        normalise(&path, &PathPolicy::default(), &mut normal).map_err(|_| Reason::BadPathEncoding)?;
        request.set_path(&normal);
        Ok(true)
    }
}

impl Step {
    fn apply(&self, path: &mut Vec<u8>, request: &mut RequestHead) {
        match self {
            Step::StripPrefix(prefixes) => {
                if let Some(prefix) = prefixes.iter().find(|prefix| path.starts_with(prefix)) {
                    request.head.append_known(Known::XForwardedPrefix, prefix);
                    path.drain(..prefix.len());
                }
            }
            Step::StripRegex(all) => {
                let found = all.iter().find_map(|regex| regex.find(path).filter(|found| found.start() == 0));
                if let Some(end) = found.map(|found| found.end()) {
                    request.head.append_known(Known::XForwardedPrefix, &path[..end]);
                    path.drain(..end);
                }
            }
            Step::AddPrefix(prefix) => {
                path.splice(..0, prefix.iter().copied());
            }
            Step::Replace(new) => {
                request.head.append("X-Replaced-Path", &*path);
                path.clone_from(new);
            }
            Step::ReplaceRegex(regex, replacement) => {
                if regex.is_match(path) {
                    request.head.append("X-Replaced-Path", &*path);
                    *path = regex.replace_all(path, replacement.as_slice()).into_owned();
                }
            }
        }
    }
}

impl PluginSpec for PathRewrite {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard(self))
    }
}

struct OnShard(Arc<PathRewrite>);

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        match self.0.apply(request) {
            Ok(changed) => {
                cx.rewritten.path |= changed;
                Flow::Continue
            }
            Err(reason) => Flow::Respond(Response::new(400, reason, "Bad request")),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::plugin::fixture::{Fixture, answer, request_with};

    /// The path, `X-Forwarded-Prefix` and `X-Replaced-Path` as they go upstream.
    fn send(steps: &str, path: &str) -> Option<[String; 3]> {
        let fixture = Fixture::default();
        let plugin = fixture.accepted("path-rewrite", &format!("{{steps: [{steps}]}}"));
        let mut head = request_with(path, &[]);
        let mut cx = fixture.cx();
        if let Some(answer) = answer(plugin.on_request(&mut cx, &mut head)) {
            assert_eq!(answer.status, 400);
            return None;
        }
        assert_eq!(cx.rewritten.path, head.path() != path.as_bytes());
        let field =
            |name: &str| String::from_utf8_lossy(head.head.get(name).unwrap_or_default()).into_owned();
        let path = String::from_utf8_lossy(head.path()).into_owned();
        Some([path, field("X-Forwarded-Prefix"), field("X-Replaced-Path")])
    }

    #[test]
    fn steps_of_each_kind() {
        for (steps, path, expected) in [
            ("{strip_prefix: [/foo, /foobar]}", "/foobar/x", ["/bar/x", "/foo", ""]),
            ("{strip_prefix: [/api]}", "/api", ["/", "/api", ""]),
            ("{strip_prefix: [/api]}", "/other", ["/other", "", ""]),
            ("{strip_prefix_regex: ['/v[0-9]+/']}", "/v2/users/v3/", ["/users/v3/", "/v2/", ""]),
            ("{strip_prefix_regex: ['/v[0-9]+']}", "/x/v2", ["/x/v2", "", ""]),
            ("{add_prefix: /base}", "/x", ["/base/x", "", ""]),
            ("{replace: /fixed}", "/x/y", ["/fixed", "", "/x/y"]),
            ("{regex: '^/foo/(.*)', replacement: '/bar/$1'}", "/foo/a/b", ["/bar/a/b", "", "/foo/a/b"]),
            ("{regex: '^/foo/(.*)', replacement: '/bar/$1'}", "/x", ["/x", "", ""]),
            ("{strip_prefix: [/a]}, {add_prefix: /b}", "/a/c", ["/b/c", "/a", ""]),
        ] {
            let expected = expected.map(str::to_owned);
            assert_eq!(send(steps, path), Some(expected), "{steps} {path}");
        }
    }

    #[test]
    fn no_path_climbs_out() {
        assert_eq!(send("{strip_prefix: [/a]}", "/a../x"), None);
        assert_eq!(send("{regex: '-', replacement: '/'}", "/a-..-b"), None);
        assert!(send("{regex: '-', replacement: '.'}", "/a-b").is_some());
    }

    #[test]
    fn wrong_steps_are_refused() {
        let fixture = Fixture::default();
        for (steps, said) in [
            ("{}", "exactly one of"),
            ("{replace: /a, add_prefix: /b}", "exactly one of"),
            ("{regex: a}", "needs `replacement`"),
            ("{regex: '(', replacement: b}", "does not compile"),
            ("{replace: a}", "does not start with"),
        ] {
            let error = fixture.refused("path-rewrite", &format!("{{steps: [{steps}]}}"));
            assert!(error.contains(said), "{steps}: {error}");
        }
    }
}
