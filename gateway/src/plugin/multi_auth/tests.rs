//! Which of several members lets a request in, and what is answered when none does.

use crate::http::Known;
use crate::plugin::fixture::{Fixture, answer, request};

fn fixture(settings: &str) -> Fixture {
    Fixture::new(&format!(
        "consumers:\n\
         - {{username: ann, keyauth_credentials: [{{key: ann-key}}], basicauth_credentials: [{{username: ann, password: pw}}], \
         acls: [{{group: staff}}]}}\n\
         - {{username: ben, keyauth_credentials: [{{key: ben-key}}]}}\n\
         - {{username: nobody}}\n\
         plugins:\n- name: multi-auth\n  config: {{{settings}}}\n"
    ))
}

/// `ann:pw` and `ann:no`.
const RIGHT: &str = "Authorization: Basic YW5uOnB3\n";
const WRONG: &str = "Authorization: Basic YW5uOm5v\n";

/// The consumer that the upstream is told of, or status, message and challenges.
fn send(settings: &str, lines: &str) -> Result<String, (u16, String, Vec<String>)> {
    let fixture = fixture(settings);
    let (plugin, _) = fixture.plugin(0, None).unwrap_or_else(|found| panic!("{settings}: {found:?}"));
    let mut request = request(&format!("GET / HTTP/1.1\nHost: a\n{lines}"));
    match answer(plugin.on_request(&mut fixture.cx(), &mut request)) {
        None => {
            let names: Vec<_> = request.head.all_known(Known::XConsumerUsername).collect();
            assert!(names.len() <= 1);
            Ok(String::from_utf8_lossy(names.first().unwrap_or(&&b"-"[..])).into_owned())
        }
        Some(answer) => {
            assert!(request.head.get_known(Known::XConsumerUsername).is_none(), "something stayed");
            let challenges = answer.fields.iter().map(|(_, value)| value.to_string()).collect();
            Err((answer.status, answer.message.into_owned(), challenges))
        }
    }
}

const ANY: &str = "any: [{name: key-auth}, {name: basic-auth}]";
const ALL: &str = "all: [{name: key-auth}, {name: basic-auth}]";

#[test]
fn any_is_content_with_one() {
    assert_eq!(send(ANY, "apikey: ben-key"), Ok("ben".into()));
    assert_eq!(send(ANY, RIGHT), Ok("ann".into()));
    assert_eq!(send(ANY, &format!("{RIGHT}apikey: ben-key")), Ok("ben".into()), "the first that does");
    assert_eq!(send(ANY, &format!("{RIGHT}apikey: wrong")), Ok("ann".into()));
    let challenges = |first: &str, second: &str| vec![first.to_owned(), second.to_owned()];
    let (key, basic) = ("Key", "Basic realm=\"service\"");
    assert_eq!(send(ANY, ""), Err((401, "No API key found in request".into(), challenges(key, basic))));
    assert_eq!(send(ANY, WRONG), Err((401, "Unauthorized".into(), challenges(basic, key))));
}

#[test]
fn all_want_each() {
    assert_eq!(send(ALL, &format!("{RIGHT}apikey: ben-key")), Ok("ann".into()), "the last says who it is");
    for lines in
        ["apikey: ben-key", RIGHT, &format!("{WRONG}apikey: ben-key"), &format!("{RIGHT}apikey: no"), ""]
    {
        assert_eq!(send(ALL, lines).map_err(|(status, ..)| status), Err(401), "{lines}");
    }
}

#[test]
fn ways_nest_and_leave_nothing_when_they_fail() {
    let settings = "any: [{name: multi-auth, config: {all: [{name: key-auth}, {name: acl, config: {allow: [staff]}}]}}, \
                    {name: ip-restriction, config: {allow: [192.0.2.1]}}]";
    assert_eq!(send(settings, "apikey: ann-key"), Ok("ann".into()));
    // Known, but not of the group: `send` looks that no identity is left.
    assert_eq!(send(settings, "apikey: ben-key").map_err(|(status, ..)| status), Err(403));
    assert_eq!(send(settings, "").map_err(|(status, ..)| status), Err(401));
    let inside = settings.replace("192.0.2.1", "127.0.0.1");
    assert_eq!(send(&inside, "apikey: ben-key"), Ok("-".into()));
}

#[test]
fn anonymous_and_preflight_are_of_the_whole() {
    assert_eq!(send(&format!("{ANY}, anonymous: nobody"), WRONG), Ok("nobody".into()));
    assert_eq!(send(&format!("{ANY}, anonymous: nobody"), "apikey: ann-key"), Ok("ann".into()));
    let fixture = fixture(&format!("{ANY}, run_on_preflight: false"));
    let (plugin, _) = fixture.plugin(0, None).expect("a good config");
    let mut options = request("OPTIONS / HTTP/1.1\nHost: a");
    assert!(answer(plugin.on_request(&mut fixture.cx(), &mut options)).is_none());
}

#[test]
fn settings_that_cannot_work_are_reported() {
    for (settings, said) in [
        ("", "exactly one"),
        ("any: [{name: key-auth}], all: [{name: key-auth}]", "exactly one"),
        ("any: []", "1 to 8"),
        ("any: [{name: key-auth, config: {anonymous: nobody}}]", "let everybody in"),
        ("any: [{name: key-auth, config: {key_in_body: true}}]", "decide by the body"),
        ("any: [{name: key-auth, config: {key_name: x}}]", "key_name"),
        ("any: [{name: jwt, config: {clock_skew: soon}}]", "clock_skew"),
    ] {
        let found = fixture(settings).plugin(0, None).err().unwrap_or_else(|| panic!("{settings} was taken"));
        let text: String = found.iter().map(|one| format!("{one}\n")).collect();
        assert!(text.contains(said), "{settings}: {text}");
    }
}
