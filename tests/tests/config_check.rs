//! `portcullis check`: every error at once, where it is, and what to do; nothing for a good file.

use std::path::Path;
use std::process::{Command, Output};

use portcullis_tests::gateway::binary;
use tempfile::TempDir;

fn check(path: &Path) -> Output {
    Command::new(binary()).arg("check").arg(path).output().expect("the binary starts")
}

/// Checks a file with this text; gives exit code and everything printed.
fn checked(text: &str) -> (i32, String) {
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("file.yaml");
    std::fs::write(&file, text).expect("writing");
    let output = check(&file);
    let printed =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("an exit code"), printed)
}

const GOOD: &str = "_format_version: \"3.0\"
listeners:
  - name: plain
    address: 127.0.0.1:8080
services:
  - name: orders
    url: http://127.0.0.1:9000/api
    routes:
      - name: orders
        paths: [/orders]
";

#[test]
fn a_good_file_passes() {
    let (code, printed) = checked(GOOD);
    assert_eq!(code, 0, "{printed}");
}

#[test]
fn every_error_is_told_with_its_place() {
    let text = "_format_version: \"3.0\"
services:
  - name: orders
    url: http://127.0.0.1:9000
    conect_timeout: 5s
    retries: many
    routes:
      - name: r1
        paths: ['~/(unclosed']
      - name: r2
        hosts: ['a.*.test']
        methods: [get]
      - name: r1
        paths: [/again]
plugins:
  - name: rate-limting
    config: {minute: 5}
";
    let (code, printed) = checked(text);
    assert_eq!(code, 1, "{printed}");
    for (place, word) in [
        (":5:", "connect_timeout"),
        (":6:", "retries"),
        (":9:", "unclosed"),
        (":11:", "wildcard"),
        (":12:", "GET"),
        (":13:", "r1"),
        (":16:", "rate-limiting"),
    ] {
        let line = printed.lines().position(|line| line.contains(&format!("file.yaml{place}")));
        assert!(line.is_some(), "no error at file.yaml{place} in:\n{printed}");
        assert!(printed.contains(word), "no {word} in:\n{printed}");
    }
}

#[test]
fn key_paths_are_named() {
    let text = GOOD.replace("paths: [/orders]", "paths: [/orders]\n        strip_path: perhaps");
    let (code, printed) = checked(&text);
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("services[0].routes[0].strip_path"), "{printed}");
    assert!(printed.contains("file.yaml:11:21"), "{printed}");
}

#[test]
fn dangling_references() {
    let text = GOOD.to_owned() + "plugins:\n  - name: key-auth\n    service: ordres\nconsumers: []\n";
    let (code, printed) = checked(&text);
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("ordres") && printed.contains("orders"), "{printed}");
}

#[test]
fn text_that_is_not_yaml() {
    for text in ["services: [", "a: b: c\n", "\t- x\n", "- a\nb: c\n", "\"open\n"] {
        let (code, printed) = checked(text);
        assert_eq!(code, 1, "{text:?}: {printed}");
        assert!(printed.contains("file.yaml:"), "{text:?}: {printed}");
    }
}

#[test]
fn a_missing_file() {
    let output = check(Path::new("/nonexistent/portcullis.yaml"));
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(printed.contains("/nonexistent/portcullis.yaml"), "{printed}");
}

#[test]
fn secrets_are_never_printed() {
    let secret = "hunter2hunter2hunter2";
    let text = GOOD.to_owned()
        + &format!(
            "consumers:\n  - username: ann\n    keyauth_credentials:\n      - key: {secret}\n      - key: {secret}\n"
        );
    let (code, printed) = checked(&text);
    assert_eq!(code, 1, "one key twice: {printed}");
    assert!(!printed.contains(secret), "{printed}");
}

#[test]
fn unset_variables_are_errors_and_set_ones_are_not_shown() {
    let text = GOOD.replace("[/orders]", "[/orders]\n        hosts: ['${env:PORTCULLIS_TESTS_UNSET}']");
    let (code, printed) = checked(&text);
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("PORTCULLIS_TESTS_UNSET"), "{printed}");
}

#[test]
fn the_examples_pass() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(&examples).expect("the examples").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "yaml")
            && path.file_stem() == Some("minimal".as_ref())
        {
            let output = check(&path);
            assert!(
                output.status.success(),
                "{}: {}",
                path.display(),
                String::from_utf8_lossy(&output.stderr)
            );
            seen += 1;
        }
    }
    assert_eq!(seen, 1, "minimal.yaml is there");
}

#[test]
fn kongs_own_snippets_load_and_their_traps_are_told() {
    let text = "_format_version: \"3.0\"
services:
  - name: orders
    url: http://127.0.0.1:9000
    connect_timeout: 5000
    read_timeout: 30000
    routes:
      - name: orders
        paths: [/orders]
        methods: [GET, POST, PUT]
        strip_path: false
    plugins:
      - name: jwt
        config: {claims_to_verify: [exp], header_names: [Authorization]}
      - name: rate-limiting
        config: {minute: 100, hour: 1000, policy: local, limit_by: credential, hide_client_headers: false}
      - name: request-transformer
        config:
          add: {headers: ['X-Gateway:portcullis']}
          rename: {headers: ['X-Custom-Auth: Authorization']}
";
    let (code, printed) = checked(text);
    assert_eq!(code, 0, "{printed}");
}

#[test]
fn unknown_arguments_are_told() {
    let output = Command::new(binary()).arg("chek").output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(2));
    let help = Command::new(binary()).arg("--help").output().expect("the binary starts");
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.status.success());
    for word in ["run", "check", "reload"] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn the_schema_is_json_schema() {
    let output = Command::new(binary()).arg("schema").output().expect("the binary starts");
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(
        schema["$schema"].as_str().is_some_and(|dialect| dialect.contains("json-schema.org")),
        "{schema}"
    );
    assert!(schema["properties"]["services"].is_object());
}

#[test]
fn errors_can_be_had_as_json() {
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("file.yaml");
    std::fs::write(&file, GOOD.replace("url:", "ulr:")).expect("writing");
    let output =
        Command::new(binary()).args(["check", "--format", "json"]).arg(&file).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told["ok"], false);
    let findings = told["files"][0]["findings"].as_array().expect("findings");
    let error = findings.iter().find(|finding| finding["line"] == 7).expect("an error in line 7");
    assert_eq!((&error["severity"], &error["column"]), (&"error".into(), &5.into()), "{error}");
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("url")), "{error}");
}

#[test]
fn warnings_fail_only_when_asked_to() {
    let text = GOOD.to_owned() + "redis: {host: 127.0.0.1}\n";
    let (code, printed) = checked(&text);
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("warning"), "{printed}");
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("file.yaml");
    std::fs::write(&file, text).expect("writing");
    let strict = Command::new(binary()).args(["check", "--strict"]).arg(&file).output().expect("it starts");
    assert_eq!(strict.status.code(), Some(1));
}
