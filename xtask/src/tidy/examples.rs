//! Operator-facing examples are part of the product: each is read by a test, and the reference names
//! every plugin.

use super::{Finding, Source};

const FOLDER: &str = "config/examples/";

/// Every example is named by a test, or a test walks the folder.
pub fn all_tested(sources: &[Source], found: &mut Vec<Finding>) {
    let tests: Vec<&Source> = sources.iter().filter(|s| s.is_rust() && s.text.contains("#[test]")).collect();
    let walked = tests.iter().any(|s| s.text.contains("examples") && s.code.contains("read_dir"));
    for example in sources.iter().filter(|s| is_example(&s.path)) {
        let name = example.path.rsplit('/').next().unwrap_or_default();
        if !walked && !tests.iter().any(|t| t.text.contains(name)) {
            found.push(example.finding(0, "example-tested", "no test reads this example"));
        }
    }
}

/// A plugin that an operator cannot find in `reference.yaml` is not documented.
pub fn plugins_in_reference(sources: &[Source], found: &mut Vec<Finding>) {
    let reference = sources.iter().find(|s| s.path == format!("{FOLDER}reference.yaml"));
    let Some(reference) = reference else { return };
    for plugin in sources.iter().filter_map(registered_plugin) {
        if !reference.text.contains(&format!("name: {plugin}")) {
            found.push(reference.finding(0, "plugin-in-reference", format!("plugin `{plugin}` is missing")));
        }
    }
}

fn is_example(path: &str) -> bool {
    path.starts_with(FOLDER) && (path.ends_with(".yaml") || path.ends_with(".yml"))
}

/// The name in the `Registration { name: "…", .. }` of a plugin's file.
fn registered_plugin(source: &Source) -> Option<&str> {
    if !source.path.starts_with("gateway/src/plugin/") || source.is_test() {
        return None;
    }
    let at = source.code.find("Registration { name:").or_else(|| source.code.find("Registration {\n"))?;
    let literal = source.text[at..].split_once("name: \"")?.1;
    literal.split_once('"').map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rule: fn(&[Source], &mut Vec<Finding>), files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> = files.iter().map(|(p, t)| Source::new(*p, *t)).collect();
        let mut found = Vec::new();
        rule(&sources, &mut found);
        found.into_iter().map(|f| format!("{}: {}", f.path, f.message)).collect()
    }

    #[test]
    fn an_example_needs_a_test() {
        let example = ("config/examples/minimal.yaml", "x: 1\n");
        assert_eq!(run(all_tested, &[example]), ["config/examples/minimal.yaml: no test reads this example"]);
        let named = ("config/tests/a.rs", "#[test]\nfn f() { load(\"minimal.yaml\") }");
        assert!(run(all_tested, &[example, named]).is_empty());
        let walking = ("config/tests/a.rs", "#[test]\nfn f() { read_dir(\"examples\") }");
        assert!(run(all_tested, &[example, walking]).is_empty());
    }

    #[test]
    fn the_reference_names_every_plugin() {
        let reference = ("config/examples/reference.yaml", "plugins:\n  - name: jwt\n");
        let file = |name: &str| {
            format!(
                "pub static REGISTRATION: Registration =\n    Registration {{\n name: \"{name}\", priority: 1 }};"
            )
        };
        let (known, unknown) = (file("jwt"), file("rate-limiting"));
        let jwt = ("gateway/src/plugin/jwt/mod.rs", known.as_str());
        let limit = ("gateway/src/plugin/rate_limiting.rs", unknown.as_str());
        let chain =
            ("gateway/src/plugin/chain.rs", "pub struct Registration {\n    pub name: &'static str,\n}");
        assert!(run(plugins_in_reference, &[reference, jwt, chain]).is_empty());
        assert_eq!(
            run(plugins_in_reference, &[reference, limit]),
            ["config/examples/reference.yaml: plugin `rate-limiting` is missing"]
        );
    }
}
