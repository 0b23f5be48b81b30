//! Independent HTTP/1.1 clients against the gateway: a list of checks each, and every one must hold.

use std::sync::Arc;

use portcullis_tests::client::programs::{curl, node, python, run, run_json};
use portcullis_tests::gateway::{Gateway, Setup, Shared};
use portcullis_tests::origin::{Canned, Chunked, Echo, Interim, Origin, UntilClose};

struct Suite {
    gateway: Gateway,
    _origins: Vec<Origin>,
}

fn suite() -> Arc<Suite> {
    static SUITE: Shared<Suite> = Shared::new();
    SUITE.get(|| {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
        let chunks = Chunked {
            fields: "Trailer: X-Sum\r\n",
            chunks: &["one ", "two ", "three"],
            extension: ";part=yes",
            trailers: "X-Sum: 3\r\n",
        };
        let origins = [
            ("", Origin::start(Echo::default())),
            ("hints", Origin::start(Interim { interim: hints })),
            ("chunks", Origin::start(chunks)),
            ("closing", Origin::start(UntilClose { version: "HTTP/1.0", body: "to the end" })),
            ("empty", Origin::start(Canned { status: "204 No Content", fields: "", body: "" })),
        ];
        let services: String = origins
            .iter()
            .map(|(path, origin)| {
                format!(
                    "  - name: at-{path}\n    url: http://{}\n    routes:\n      \
                     - {{name: to-{path}, paths: [/{path}], strip_path: false}}\n",
                    origin.addr()
                )
            })
            .collect();
        let gateway = Gateway::start(&Setup::new(format!("services:\n{services}")));
        Suite { gateway, _origins: origins.into_iter().map(|(_, origin)| origin).collect() }
    })
}

#[test]
fn python_on_bare_sockets() {
    let suite = suite();
    let Some(mut python) = python("battery.py") else { return };
    let addr = suite.gateway.addr();
    let told = run_json(python.arg(addr.ip().to_string()).arg(addr.port().to_string()));
    assert_eq!(told["ok"], true, "{told:#}");
}

#[test]
fn node_http() {
    let suite = suite();
    let Some(mut node) = node("battery.mjs") else { return };
    let told = run_json(node.arg(suite.gateway.url()));
    assert_eq!(told["ok"], true, "{told:#}");
}

#[test]
fn curl_versions_and_methods() {
    let suite = suite();
    let url = suite.gateway.url();
    let status = "%{http_code} %{http_version} %{size_download} %{num_connects}\n";
    let ask = |args: &[&str]| -> Option<String> {
        let output = run(curl()?.args(["-o", "/dev/null", "-w", status]).args(args));
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for (args, want) in [
        (&["--http1.0", "/chunks"][..], "200 1.1 13 1\n"),
        (&["-I", "/x"][..], "200 1.1 0 1\n"),
        (&["-H", "Expect: 100-continue", "-d", "x=1", "/chunks"][..], "200 1.1 13 1\n"),
        (
            &[
                "-T",
                concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
                "-H",
                "Transfer-Encoding: chunked",
                "/chunks",
            ][..],
            "200 1.1 13 1\n",
        ),
        (&["-X", "TRACE", "/x"][..], "405 1.1 "),
        (&["-X", "CONNECT", "/x"][..], "405 1.1 "),
        (&["--path-as-is", "/a/../chunks"][..], "200 1.1 13 1\n"),
        (&["--path-as-is", "/a%2fb"][..], "400 1.1 "),
        (&["-H", "Host:", "/x"][..], "400 1.1 "),
        (&["-H", "Connection: Upgrade", "-H", "Upgrade: h2c", "/chunks"][..], "200 1.1 13 1\n"),
        (&["--http2", "/chunks"][..], "200 1.1 13 1\n"),
    ] {
        let (path, options) = args.split_last().expect("a path");
        let whole = format!("{url}{path}");
        let mut args = options.to_vec();
        args.push(&whole);
        let Some(told) = ask(&args) else { return };
        assert!(told.starts_with(want), "{args:?}: {told}");
    }
}
