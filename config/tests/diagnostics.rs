//! What is said about broken configurations: one file, one snapshot. `INSTA_UPDATE=always` writes them anew.

mod catalog;

use std::path::Path;

use catalog::CATALOG;
use portcullis_config::{Diagnostic, FixedEnvironment, Severity, Text, load_str, load_texts};

fn shown(found: &[Diagnostic]) -> String {
    found.iter().map(|one| format!("{one}\n")).collect()
}

fn environment() -> FixedEnvironment {
    let variables = [("NOT_A_NUMBER".to_owned(), "hunter2".to_owned())].into();
    FixedEnvironment { variables, ..FixedEnvironment::default() }
}

fn load(texts: &[(&str, &str)]) -> Result<String, String> {
    let text = |(name, content): &(&str, &str)| Text {
        name: (*name).into(),
        folder: "/etc".into(),
        content: (*content).into(),
    };
    match load_texts(texts.iter().map(text).collect(), &CATALOG, &environment()) {
        Ok(loaded) => Ok(shown(&loaded.warnings)),
        Err(found) => Err(shown(&found)),
    }
}

#[test]
fn broken_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/broken");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 10);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let found = load(&[(&name, &text)]).expect_err(&name);
        assert!(!found.contains("hunter2") && !found.contains("hidden"), "a secret is shown: {found}");
        insta::assert_snapshot!(name.trim_end_matches(".yaml"), found);
    }
}

#[test]
fn several_files_are_one_configuration() {
    let services = "services: [{name: s, host: u}]\nshards: {count: 2}\n";
    let upstreams =
        "upstreams: [{name: u, targets: [{target: 'a:80'}]}]\nroutes: [{name: r, service: s, paths: [/]}]\n";
    assert_eq!(load(&[("a.yaml", services), ("b.yaml", upstreams)]), Ok(String::new()));
    let again = "services: [{name: s, url: 'http://b'}]\nshards: {count: 3}\n";
    insta::assert_snapshot!(
        "several_files",
        load(&[("a.yaml", services), ("b.yaml", upstreams), ("c.yaml", again)]).unwrap_err()
    );
}

#[test]
fn an_empty_file_is_a_gateway_without_routes() {
    let loaded = load_str("empty.yaml", "", &CATALOG).unwrap();
    assert_eq!(loaded.config.listeners[0].address.to_string(), "0.0.0.0:8000");
    assert!(loaded.config.routes.is_empty());
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
fn findings_come_in_the_order_of_the_text_and_carry_their_place() {
    let found =
        load_str("f.yaml", "limits: {head: x}\ntimeouts: {connect: y}\nbogus: 1\n", &CATALOG).unwrap_err();
    let places: Vec<_> =
        found.iter().map(|one| (one.line, one.column, one.path.as_str(), one.severity)).collect();
    let error = Severity::Error;
    assert_eq!(
        places,
        [(1, 16, "limits.head", error), (2, 21, "timeouts.connect", error), (3, 1, "bogus", error)]
    );
}

#[test]
fn a_door_without_a_key_is_noticed() {
    let text = "services: [{name: s, url: 'http://a', plugins: [{name: key-auth}]}]";
    let warnings = load(&[("a.yaml", text)]).expect("valid");
    assert!(
        warnings.contains("no consumer has keyauth_credentials, so `key-auth` lets nobody through"),
        "{warnings}"
    );
    let anonymous =
        "services: [{name: s, url: 'http://a', plugins: [{name: key-auth, config: {anonymous: x}}]}]";
    assert_eq!(load(&[("a.yaml", anonymous)]), Ok(String::new()));
}
