//! Values from outside the text: `${env:NAME}` and `${file:/path}`.
//!
//! Owns the notation and the [`Environment`] that answers it; the real one lives in `load`, so that parsing
//! does no I/O of its own. Everything that comes from here counts as secret. Invariant: a substituted value
//! is never scanned again, so a value cannot pull in others.
//!
//! | written | read from |
//! |---|---|
//! | `${env:NAME}` | the environment variable |
//! | `${file:/path}` | the file, without its last line break; a relative path is against the folder of the text |
//! | `${{ env "NAME" }}` | the environment variable, as decK writes it |
//! | `{vault://env/some-name}` | `SOME_NAME`, as Kong's environment vault reads it; only as a whole value |
//! | `$${env:..}` | nothing: the text `${env:..}` |

use std::collections::BTreeMap;
use std::path::Path;

use crate::diagnostic::Fault;

/// Answers `${env:..}` and `${file:..}`.
pub trait Environment {
    /// The value of an environment variable; `None` when it is not set.
    fn variable(&self, name: &str) -> Option<String>;

    /// The content of a file. The error says why there is none.
    fn file(&self, path: &Path) -> Result<String, String>;
}

/// An environment of fixed values: for tests, and for fuzzing, where nothing outside may be touched.
#[derive(Clone, Debug, Default)]
pub struct FixedEnvironment {
    /// Variables by name.
    pub variables: BTreeMap<String, String>,
    /// File contents by path.
    pub files: BTreeMap<String, String>,
}

impl Environment for FixedEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn file(&self, path: &Path) -> Result<String, String> {
        self.files.get(&path.to_string_lossy().into_owned()).cloned().ok_or_else(|| "no such file".into())
    }
}

/// Replaces what `text` refers to. `None` when it refers to nothing and holds no escape.
pub(crate) fn substitute(
    text: &str,
    folder: &Path,
    environment: &dyn Environment,
) -> Result<Option<Substituted>, Fault> {
    if let Some(reference) = text.strip_prefix("{vault://").and_then(|rest| rest.strip_suffix('}')) {
        return vault(reference, environment).map(|text| Some(Substituted { text, secret: true }));
    }
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut secret = false;
    let mut changed = false;
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, tail) = rest.split_at(at);
        let Some((kind, argument, after)) = reference(tail)? else {
            out.push_str(before);
            out.push_str("${");
            rest = &tail[2..];
            continue;
        };
        changed = true;
        if let Some(kept) = before.strip_suffix('$') {
            out.push_str(kept);
            out.push_str(&tail[..tail.len() - after.len()]);
        } else {
            out.push_str(before);
            out.push_str(&resolve(kind, argument, folder, environment)?);
            secret = true;
        }
        if out.len() > MAX_SUBSTITUTED {
            return Err(Fault::new(format!("the value is longer than {MAX_SUBSTITUTED} bytes")));
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(changed.then_some(Substituted { text: out, secret }))
}

/// A text after substitution.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Substituted {
    pub(crate) text: String,
    pub(crate) secret: bool,
}

/// Longest value of one scalar. Certificates in PEM are some kilobytes.
const MAX_SUBSTITUTED: usize = 1 << 20;

#[derive(Clone, Copy)]
enum Kind {
    Variable,
    File,
}

/// Splits the reference off the head of `text`, which starts with `${`. `Ok(None)` for any other `${`, which
/// stays as it is: regular expressions and templates use it too.
fn reference(text: &str) -> Result<Option<(Kind, &str, &str)>, Fault> {
    if let Some(rest) = text.strip_prefix("${{") {
        let Some((inside, after)) = rest.split_once("}}") else { return Ok(None) };
        let Some(name) = inside.trim().strip_prefix("env") else { return Ok(None) };
        return Ok(Some((Kind::Variable, name.trim().trim_matches(['"', '\'', '`']), after)));
    }
    let (kind, rest) = if let Some(rest) = text.strip_prefix("${env:") {
        (Kind::Variable, rest)
    } else if let Some(rest) = text.strip_prefix("${file:") {
        (Kind::File, rest)
    } else {
        return Ok(None);
    };
    match rest.split_once('}') {
        Some((argument, after)) => Ok(Some((kind, argument.trim(), after))),
        None => Err(Fault::new("`${` is never closed").hint("end the reference with `}`")),
    }
}

fn resolve(
    kind: Kind,
    argument: &str,
    folder: &Path,
    environment: &dyn Environment,
) -> Result<String, Fault> {
    match kind {
        Kind::Variable => variable(argument, environment),
        Kind::File if argument.is_empty() => Err(Fault::new("`${file:}` names no file")),
        Kind::File => {
            let path = folder.join(argument);
            let text = environment
                .file(&path)
                .map_err(|why| Fault::new(format!("the file {} cannot be read: {why}", path.display())))?;
            let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.trim_end_matches('\r'));
            Ok(text.to_owned())
        }
    }
}

fn variable(name: &str, environment: &dyn Environment) -> Result<String, Fault> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(Fault::new(format!("{name:?} is not the name of an environment variable")));
    }
    environment.variable(name).ok_or_else(|| {
        Fault::new(format!("the environment variable {name} is not set")).hint(format!(
            "set {name} where the gateway is started, or write `$${{env:{name}}}` for the text itself"
        ))
    })
}

fn vault(reference: &str, environment: &dyn Environment) -> Result<String, Fault> {
    let unsupported = || {
        Fault::new(format!("the vault reference {{vault://{reference}}} cannot be followed"))
            .hint("only {vault://env/NAME} is known; write `${env:NAME}` or `${file:/path}`")
    };
    let name = reference.strip_prefix("env/").ok_or_else(unsupported)?;
    if name.contains(['/', '?', '#']) {
        return Err(unsupported());
    }
    variable(&name.to_ascii_uppercase().replace('-', "_"), environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<Option<(&str, bool)>, &str>) {
        let environment = FixedEnvironment {
            variables: [("A", "1"), ("B_C", "two"), ("NEST", "${env:A}")]
                .map(|(k, v)| (k.into(), v.into()))
                .into(),
            files: [("/conf/s.txt".into(), "from file\r\n".into())].into(),
        };
        let found = substitute(text, Path::new("/conf"), &environment);
        let found = found.map(|one| one.map(|one| (one.text, one.secret))).map_err(|fault| fault.message);
        let expected = expected.map(|one| one.map(|(text, secret)| (text.to_owned(), secret)));
        assert_eq!(found, expected.map_err(str::to_owned), "{text:?}");
    }

    #[test]
    fn references_are_replaced() {
        check("plain", Ok(None));
        check("${env:A}", Ok(Some(("1", true))));
        check("a${env:A}b${env:B_C}c", Ok(Some(("a1btwoc", true))));
        check("${file:/conf/s.txt}", Ok(Some(("from file", true))));
        check("${file:s.txt}!", Ok(Some(("from file!", true))));
        check("${{ env \"A\" }}", Ok(Some(("1", true))));
        check("{vault://env/b-c}", Ok(Some(("two", true))));
    }

    #[test]
    fn values_are_not_scanned_again() {
        check("${env:NEST}", Ok(Some(("${env:A}", true))));
    }

    #[test]
    fn other_dollars_stay() {
        check("^/a${1}$", Ok(None));
        check("$(headers.x)", Ok(None));
        check("${", Ok(None));
        check("${{ open", Ok(None));
        check("$${env:A}", Ok(Some(("${env:A}", false))));
    }

    #[test]
    fn what_is_missing_is_said() {
        check("${env:NO}", Err("the environment variable NO is not set"));
        check("${env:}", Err("\"\" is not the name of an environment variable"));
        check("${env:A", Err("`${` is never closed"));
        check("${file:no}", Err("the file /conf/no cannot be read: no such file"));
        check("{vault://hcv/a}", Err("the vault reference {vault://hcv/a} cannot be followed"));
    }
}
