//! What a file must or may not contain: unfinished code, a module doc, `unsafe`, words that tie the
//! project to one machine.

use super::rust;
use super::{Finding, Source};

/// Folders and files in which `unsafe` may be written; everything else forbids it.
const UNSAFE_PLACES: [&str; 4] =
    ["ebpf/", "gateway/src/net/", "gateway/src/kernel/", "gateway/src/kernel.rs"];

/// Macros that leave work for later.
const UNFINISHED: [&str; 3] = ["dbg", "todo", "unimplemented"];

pub fn unfinished(source: &Source, found: &mut Vec<Finding>) {
    for name in UNFINISHED {
        for at in rust::words(&source.code, name) {
            if source.code[at + name.len()..].starts_with('!') {
                found.push(source.finding(at, "unfinished", format!("`{name}!` may not be committed")));
            }
        }
    }
}

/// A module says what it owns before anything else, inner attributes aside.
pub fn module_doc(source: &Source, found: &mut Vec<Finding>) {
    let mut lines = source.text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with("#!"));
    if !first.is_some_and(|line| line.starts_with("//!")) {
        found.push(source.finding(0, "module-doc", "no `//!`: say what this module owns and never does"));
    }
}

pub fn unsafe_places(source: &Source, found: &mut Vec<Finding>) {
    if UNSAFE_PLACES.iter().any(|place| source.path.starts_with(place)) {
        return;
    }
    for at in rust::words(&source.code, "unsafe") {
        let message = format!("`unsafe` may be written only in {}", UNSAFE_PLACES[..3].join(", "));
        found.push(source.finding(at, "unsafe-place", message));
    }
}

/// No path of one machine, no registry's host name: such text is wrong on every other machine.
pub fn forbidden_words(source: &Source, found: &mut Vec<Finding>) {
    // Cargo writes the name of the default registry into its lock files.
    if source.path.ends_with("Cargo.lock") {
        return;
    }
    for (n, line) in source.text.lines().enumerate() {
        let hit = hosts().into_iter().find(|host| line.contains(host.as_str()));
        let hit = hit.or_else(|| folders().into_iter().find(|folder| names_folder(line, folder)));
        if let Some(word) = hit {
            found.push(Finding {
                path: source.path.clone(),
                line: n + 1,
                rule: "forbidden-word",
                message: format!("`{word}` may not be named here"),
            });
        }
    }
}

/// Joined here, so that this file passes its own rule.
fn hosts() -> Vec<String> {
    let parts: [&[&str]; 6] = [
        &["crates", "io"],
        &["pypi", "org"],
        &["pythonhosted", "org"],
        &["npmjs", "org"],
        &["deb", "debian", "org"],
        &["proxy", "golang", "org"],
    ];
    parts.iter().map(|p| p.join(".")).collect()
}

fn folders() -> Vec<String> {
    [["", "root"], ["", "work"], ["", "home"]].iter().map(|p| p.join("/")).collect()
}

/// An absolute path at or under `folder`: not the tail of a longer path, not a longer name.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + folder.len()..].chars().next();
        let starts = before.is_none_or(|c| !c.is_alphanumeric() && !"_-./~*{}<>)]$".contains(c));
        // `/root` alone may be a request target of a test; only a path below it is a machine's.
        starts && after == Some('/')
    })
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;

    #[test]
    fn unfinished_code_is_found_and_text_is_not() {
        let text = "fn f() {\n    dbg!(1);\n    todo!()\n}\n// todo! later\nfn todo() {}\n";
        assert_eq!(
            findings(unfinished, "a.rs", text),
            ["2: `dbg!` may not be committed", "3: `todo!` may not be committed"]
        );
    }

    #[test]
    fn a_module_needs_a_doc() {
        assert!(findings(module_doc, "a.rs", "#![no_std]\n\n//! Owns.\nfn f() {}\n").is_empty());
        assert_eq!(findings(module_doc, "a.rs", "// Owns.\nfn f() {}\n").len(), 1);
        assert_eq!(findings(module_doc, "a.rs", "").len(), 1);
    }

    #[test]
    fn unsafe_has_an_address() {
        let text = "#![deny(unsafe_code)]\nfn f() { unsafe { g() } }\n";
        assert_eq!(findings(unsafe_places, "gateway/src/http/mod.rs", text).len(), 1);
        assert!(findings(unsafe_places, "gateway/src/net/ring.rs", text).is_empty());
        assert!(findings(unsafe_places, "gateway/src/http/mod.rs", "// unsafe\n").is_empty());
    }

    #[test]
    fn machine_paths_and_hosts_are_found() {
        for folder in folders() {
            let text = format!("ok\nlet p = \"{folder}/x\";\n");
            assert_eq!(findings(forbidden_words, "a.rs", &text).len(), 1, "{folder}");
        }
        for host in hosts() {
            assert_eq!(findings(forbidden_words, "README.md", &format!("from {host}\n")).len(), 1, "{host}");
        }
    }

    #[test]
    fn relative_paths_and_lock_files_pass() {
        let text = "target/work/x\n$DIR/root/x\n/workers/x\n/root\n";
        assert!(findings(forbidden_words, "a.sh", text).is_empty());
        let host = hosts().remove(0);
        assert!(findings(forbidden_words, "tests/fuzz/Cargo.lock", &host).is_empty());
    }
}
