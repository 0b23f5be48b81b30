//! `cargo xtask tidy`: the parts of the style that a program can check.
//!
//! Owns the list of rules and the reading of the tree. Never edits a file and never runs a build, so it
//! takes well under a second. Invariant: a rule is a pure function from one file to findings (the few
//! that need the whole tree take all files), and each is tested on small inputs beside it.
//! Next to read: `rust` (how a source file is blanked), then `layers` (module order, homes).

mod content;
mod examples;
mod layers;
mod names;
mod rust;
mod sizes;

use crate::process;
use anyhow::{Result, bail};
use std::fmt;
use std::path::Path;

/// One file of the tree.
pub struct Source {
    /// Path from the root of the repository, with `/`.
    pub path: String,
    pub text: String,
    /// `text` with comments and literals blanked; equal to `text` where the file is not Rust.
    pub code: String,
}

impl Source {
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let code = if path.ends_with(".rs") { rust::blank(&text) } else { text.clone() };
        Self { path, text, code }
    }

    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Tests and benches tell stories in long functions and may name any crate.
    pub fn is_test(&self) -> bool {
        let file = self.path.rsplit('/').next().unwrap_or_default();
        self.path.starts_with("tests/")
            || self.path.starts_with("benches/")
            || self.path.contains("/tests/")
            || file == "tests.rs"
            || file.ends_with("_tests.rs")
    }

    fn finding(&self, at: usize, rule: &'static str, message: impl Into<String>) -> Finding {
        Finding {
            path: self.path.clone(),
            line: rust::line_of(&self.code, at),
            rule,
            message: message.into(),
        }
    }
}

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub path: String,
    pub line: usize,
    pub rule: &'static str,
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.message)
    }
}

/// Checks every file that git tracks or would track.
pub fn run() -> Result<()> {
    let root = process::root();
    let sources = read_tree(&root)?;
    let found = check(&sources);
    for finding in &found {
        println!("{finding}");
    }
    if !found.is_empty() {
        bail!("tidy: {} in {} files", process::count(found.len(), "finding"), sources.len());
    }
    println!("tidy: {} files in order", sources.len());
    Ok(())
}

/// Every rule over every file, in the order of path and line.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    let mut found = Vec::new();
    for source in sources {
        content::forbidden_words(source, &mut found);
        if source.is_rust() {
            sizes::file(source, &mut found);
            sizes::functions(source, &mut found);
            layers::order(source, &mut found);
            layers::homes(source, &mut found);
            content::unfinished(source, &mut found);
            content::module_doc(source, &mut found);
            content::unsafe_places(source, &mut found);
            names::banned(source, &mut found);
        }
    }
    examples::all_tested(sources, &mut found);
    examples::plugins_in_reference(sources, &mut found);
    found.sort();
    found.dedup();
    found
}

fn read_tree(root: &Path) -> Result<Vec<Source>> {
    let listed =
        process::output("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], root)?;
    let mut sources = Vec::new();
    for path in listed.split('\0').filter(|p| !p.is_empty()) {
        // Not text (the prebuilt object, pictures), or deleted and not yet committed: nothing to check.
        if let Ok(text) = std::fs::read_to_string(root.join(path)) {
            sources.push(Source::new(path, text));
        }
    }
    if sources.is_empty() {
        bail!("git lists no file in {}: is this a checkout?", root.display());
    }
    Ok(sources)
}

/// What one rule finds in one made-up file, as `line: message`.
#[cfg(test)]
fn findings(rule: fn(&Source, &mut Vec<Finding>), path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    rule(&Source::new(path, text), &mut found);
    found.iter().map(|f| format!("{}: {}", f.line, f.message)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn these_sources_keep_their_own_rules() {
        let mut sources = read_tree(&process::root()).unwrap();
        sources.retain(|s| s.path.starts_with("xtask/src/tidy/"));
        assert!(sources.len() > 5);
        let found: Vec<String> = check(&sources).iter().map(Finding::to_string).collect();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    #[test]
    fn findings_come_by_path_and_line() {
        let sources = [
            Source::new("xtask/src/b.rs", "//! B.\nfn a() { todo!() }\nfn b() { dbg!(1); }\n"),
            Source::new("xtask/src/a.rs", "fn a() {}\n"),
        ];
        let found: Vec<String> = check(&sources).iter().map(|f| format!("{}:{}", f.path, f.line)).collect();
        assert_eq!(found, ["xtask/src/a.rs:1", "xtask/src/b.rs:2", "xtask/src/b.rs:3"]);
    }
}
