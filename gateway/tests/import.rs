//! Kong's and Traefik's files: what they come to, and that what `import` prints means the same.

use std::path::PathBuf;

use portcullis::snapshot::GatewayCatalog;
use portcullis_config::{
    Config, Diagnostic, FixedEnvironment, Format, Imported, Text, import_texts, load_str,
};

fn shown(found: &[Diagnostic]) -> String {
    found.iter().map(|one| format!("{one}\n")).collect()
}

fn import(name: &str, content: &str) -> Imported {
    let text = Text { name: name.into(), folder: PathBuf::new(), content: content.into() };
    let environment =
        FixedEnvironment { variables: [("KEY".into(), "from outside".into())].into(), ..Default::default() };
    import_texts(vec![text], &GatewayCatalog, &environment, None)
        .unwrap_or_else(|found| panic!("{name}:\n{}", shown(&found)))
}

/// Everything of a model but places, ids of files, and settings of plugins that are written otherwise.
fn meaning(config: &Config) -> String {
    let mut text = String::new();
    for service in &config.services {
        let tls = &service.tls;
        text += &format!(
            "service {} {:?} {:?} {:?} {:?} {:?} {:?} {} {} {:?}\n",
            service.name,
            service.protocol,
            service.destination,
            service.path,
            service.connect_timeout,
            service.write_timeout,
            service.first_byte_timeout,
            service.retries,
            service.enabled,
            tls
        );
    }
    for route in &config.routes {
        text += &format!(
            "route {} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {} {:?} {} {} {:?} {}\n",
            route.name,
            route.service,
            route.hosts,
            route.paths,
            route.methods,
            route.headers,
            route.snis,
            route.rule,
            route.priority,
            route.protocols,
            route.strip_path,
            route.preserve_host,
            route.path_handling,
            route.enabled
        );
    }
    for upstream in &config.upstreams {
        let targets: Vec<_> =
            upstream.targets.iter().map(|target| (&target.address, target.weight)).collect();
        text += &format!(
            "upstream {} {:?} {:?} {:?} {:?}\n",
            upstream.name, upstream.algorithm, upstream.hash_on, targets, upstream.healthchecks
        );
    }
    for consumer in &config.consumers {
        let keys = consumer.keys.iter().map(|key| key.hash.number()).collect::<Vec<_>>();
        text += &format!(
            "consumer {} {:?} {} {:?}\n",
            consumer.name(),
            consumer.groups,
            consumer.jwt_secrets.len(),
            keys
        );
    }
    for plugin in &config.plugins {
        text += &format!(
            "plugin {} {} {:?} {}\n",
            plugin.name,
            plugin.enabled,
            plugin.scope,
            settings(&plugin.config)
        );
    }
    text
}

/// Settings but for those that moved.
fn settings(config: &portcullis_config::Node) -> String {
    let entries = config.entries().iter().filter(|entry| !entry.name.starts_with("redis"));
    entries.map(|entry| format!("{}: {:?}; ", entry.name, entry.value)).collect()
}

#[track_caller]
fn round_trip(name: &str, content: &str) -> (Config, String) {
    let imported = import(name, content);
    let yaml = imported.to_yaml(&imported.loaded.warnings);
    let again = load_str("again.yaml", &yaml.replace("${env:KEY}", "from outside"), &GatewayCatalog)
        .unwrap_or_else(|found| panic!("{name}:\n{yaml}\n{}", shown(&found)));
    assert_eq!(meaning(&again.config), meaning(&imported.loaded.config), "{name}:\n{yaml}");
    (imported.loaded.config, yaml)
}

const TRAEFIK: &str = include_str!("import/traefik.yaml");
const DYNAMIC: &str = include_str!("import/dynamic.yaml");

#[test]
fn a_routers_missing_middleware_is_named_and_closes_it() {
    let found = import("traefik.yaml", TRAEFIK);
    let said = shown(&found.loaded.warnings);
    assert!(said.contains("there is no middleware `strip-prefix`"), "{said}");
    assert!(said.contains("traefik.yaml:18:"), "{said}");
    assert!(said.contains("`websecure` without `tls`"), "{said}");
    assert!(said.contains("the limit is 100 per 60s, not per second"), "{said}");
    let config = &found.loaded.config;
    let of = |route: usize| -> Vec<&str> {
        let own =
            config.plugins.iter().filter(|plugin| plugin.scope.route.is_some_and(|one| one.index() == route));
        own.map(|plugin| plugin.name.as_str()).collect()
    };
    assert_eq!(of(0), ["request-termination"]);
    let mut all = of(1);
    all.sort_unstable();
    assert_eq!(
        all,
        [
            "cors",
            "in-flight-limit",
            "ip-restriction",
            "path-rewrite",
            "request-size-limiting",
            "request-transformer",
            "security-headers",
            "token-bucket"
        ]
    );
}

#[test]
fn routers_become_services_with_a_rule() {
    let config = import("traefik.yaml", TRAEFIK).loaded.config;
    let routes: Vec<_> = config.routes.iter().map(|route| (route.name.as_str(), route.priority)).collect();
    assert_eq!(routes, [("orders-api-0", 51), ("orders-api-1", 100)]);
    assert!(
        config.routes.iter().all(|route| !route.strip_path && route.preserve_host && route.rule.is_some())
    );
    let weights: Vec<_> = config.upstreams[0]
        .targets
        .iter()
        .map(|target| (target.address.to_string(), target.weight))
        .collect();
    assert_eq!(weights, [("shop-a:80".to_owned(), 3), ("shop-b:80".to_owned(), 1)]);
    assert_eq!((config.services[1].retries, config.services[0].retries), (3, 1));
}

#[test]
fn files_of_the_file_provider_are_read() {
    let config = import("dynamic.yaml", DYNAMIC).loaded.config;
    let split = config.upstreams.iter().find(|upstream| upstream.name == "api.upstream").expect("split");
    let weights: Vec<_> =
        split.targets.iter().map(|target| (target.address.to_string(), target.weight)).collect();
    // 3 parts shared as 1:2, and 1 part: 1, 2 and 1.
    assert_eq!(
        weights,
        [("127.0.0.1:9001".into(), 1), ("127.0.0.1:9002".into(), 2), ("127.0.0.1:9003".into(), 1)]
    );
    let site = config.upstreams.iter().find(|upstream| upstream.name == "site.upstream").expect("site");
    assert_eq!(site.healthchecks.active.http_path, "/health");
    assert_eq!(site.healthchecks.active.healthy.successes, 1);
    let names: Vec<_> = config.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    assert!(names.contains(&"redirect") && names.contains(&"path-rewrite"), "{names:?}");
}

#[test]
fn what_import_prints_means_the_same() {
    for (name, content) in [("traefik.yaml", TRAEFIK), ("dynamic.yaml", DYNAMIC)] {
        let (_, yaml) = round_trip(name, content);
        assert!(yaml.contains("# warning (line"), "{yaml}");
    }
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/import/kong");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("files").map(|file| file.expect("a file").path()).collect();
    files.sort();
    assert!(files.len() >= 7, "{files:?}");
    for file in files {
        let content = std::fs::read_to_string(&file).expect("text");
        round_trip(&file.display().to_string(), &content);
    }
}

#[test]
fn notes_stand_beside_what_they_are_about() {
    let (_, yaml) = round_trip("traefik.yaml", TRAEFIK);
    let lines: Vec<_> = yaml.lines().collect();
    let at = lines.iter().position(|line| line.contains("the limit is 100 per 60s")).expect("the note");
    assert!(
        lines[at..at + 3].iter().any(|line| line.trim_start().starts_with("average: 100")),
        "{:?}",
        &lines[at..at + 3]
    );
}

#[test]
fn paths_of_old_formats_are_written_as_of_today() {
    let text = "_format_version: '1.1'\n_transform: false\n_info: {select_tags: [a]}\nservices:\n- name: a\n  url: http://127.0.0.1:1\n  \
                created_at: 1\n  routes:\n  - {name: r, paths: ['/a/\\d+', /plain]}\n";
    let (config, yaml) = round_trip("old.yaml", text);
    assert!(yaml.contains("~/a/"), "{yaml}");
    for gone in ["_format_version", "_transform", "_info", "created_at"] {
        assert!(!yaml.contains(gone), "{yaml}");
    }
    assert_eq!(config.routes[0].paths.len(), 2);
}

#[test]
fn values_from_outside_are_never_printed() {
    let text = "consumers:\n- username: a\n  keyauth_credentials: [{key: '${env:KEY}'}]\n";
    let (_, yaml) = round_trip("secret.yaml", text);
    assert!(yaml.contains("${env:KEY}") && !yaml.contains("from outside"), "{yaml}");
}

#[test]
fn the_format_that_was_asked_for_is_held_to() {
    let ask = |content: &str, format| {
        let text = Text { name: "a.yaml".into(), folder: PathBuf::new(), content: content.into() };
        import_texts(vec![text], &GatewayCatalog, &FixedEnvironment::default(), Some(format)).is_ok()
    };
    assert!(ask(DYNAMIC, Format::Traefik) && !ask(DYNAMIC, Format::Kong));
    assert!(ask("_format_version: '3.0'", Format::Kong) && !ask("_format_version: '3.0'", Format::Traefik));
}

#[test]
fn mistakes_are_shown_where_they_were_made() {
    let check = |text: &str, expected: &str| {
        let found = load_str("t.yaml", text, &GatewayCatalog);
        let said = match found {
            Ok(loaded) => shown(&loaded.warnings),
            Err(found) => shown(&found),
        };
        assert!(said.contains(expected), "{text}\n{said}");
    };
    let middleware = |spec: &str| {
        format!("apiVersion: traefik.io/v1alpha1\nkind: Middleware\nmetadata: {{name: m}}\nspec:\n  {spec}\n")
    };
    let used = |spec: &str| {
        format!(
            "{}---\napiVersion: traefik.io/v1alpha1\nkind: IngressRoute\nmetadata: {{name: r}}\nspec:\n  routes:\n  - \
             match: Path(`/`)\n    services: [{{name: 127.0.0.1, port: 1}}]\n    middlewares: [{{name: m}}]\n",
            middleware(spec)
        )
    };
    check(
        &middleware("rateLimt: {average: 1}"),
        "t.yaml:5:3: error: Middleware/m.spec.rateLimt: unknown key `rateLimt`",
    );
    check(&middleware("rateLimit: {average: many}"), "expected a whole number");
    check(
        &used("digestAuth: {secret: a}"),
        "`digestAuth` has no counterpart here, and a router that it guards must not be open",
    );
    check(&used("contentType: {}"), "`contentType` is not acted on yet");
    check(&used("rateLimit: {average: 0}"), "without `average` nothing is limited");
    check(&used("basicAuth: {secret: users}"), "there is no Secret `users`");
    check(
        "apiVersion: traefik.io/v1alpha1\nkind: IngressRoute\nmetadata: {name: r}\nspec: {routes: [{match: Hots(`a`)}]}",
        "there is no matcher `Hots`",
    );
    check("http: {routers: {r: {rule: Path(`/`), service: s}}}", "there is no service `s`");
    check("http: {routers: {r: {rule: Path(`/`), service: api@internal}}}", "is a service inside Traefik");
    check("listeners: []\n---\nservices: []\n", "a second document begins here");
    check("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n", "a Pod is not read");
}
