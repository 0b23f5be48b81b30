//! Rules of routes: Traefik's expressions over a request (its version 3 syntax).
//!
//! Owns the syntax and what can be said of a rule from its text alone. It never matches a request; the router does.
//! Invariant: a parsed [`Rule`] holds only expressions that compile, and no empty `All` or `Any`.
//!
//! ```text
//! rule    = and *( "||" and )
//! and     = unary *( "&&" unary )
//! unary   = "!" unary | "(" rule ")" | matcher
//! matcher = name "(" text *( "," text ) ")"        text in backticks or double quotes
//! ```

use ipnet::IpNet;

use crate::diagnostic::Fault;
use crate::model::Pattern;
use crate::schema::suggest::did_you_mean;
use crate::schema::text;

/// A condition on a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Every part holds.
    All(Vec<Rule>),
    /// Some part holds.
    Any(Vec<Rule>),
    /// The part does not hold.
    Not(Box<Rule>),
    /// One matcher.
    Is(Matcher),
}

/// What one matcher asks. Expressions match anywhere in the text and mind its case, as in Traefik.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matcher {
    /// The host is this one, in lower case; ports do not matter.
    Host(String),
    /// The expression matches the host, which is in lower case.
    HostRegexp(Pattern),
    /// The path is this one.
    Path(String),
    /// The path begins with this text.
    PathPrefix(String),
    /// The expression matches the path.
    PathRegexp(Pattern),
    /// The method is this one.
    Method(String),
    /// A field of this name (lower case) has exactly this value.
    Header(String, String),
    /// A field of this name (lower case) has a value that the expression matches.
    HeaderRegexp(String, Pattern),
    /// A parameter of this name has exactly this value.
    Query(String, String),
    /// A parameter of this name has a value that the expression matches.
    QueryRegexp(String, Pattern),
    /// The client's address is in this range.
    ClientIp(IpNet),
}

/// A rule as written; a form of text for the tables.
pub static RULE: text::Text = text::Text::new("a rule", |text| Rule::parse(text).map(|_| ()));

/// Deepest nesting of a rule.
const MAX_DEPTH: usize = 32;
/// Most matchers of one rule.
const MAX_MATCHERS: usize = 1024;

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    /// What is wrong and where, as a number of characters.
    pub fn parse(text: &str) -> Result<Rule, Fault> {
        let mut parser = Parser { text, at: 0, depth: 0, matchers: 0 };
        let rule = parser.any()?;
        match parser.peek() {
            None => Ok(rule),
            Some(')') => Err(parser.fault("a `)` closes nothing")),
            Some(_) => Err(parser.fault("expected `&&`, `||` or the end")),
        }
    }

    /// Every matcher, in the order written.
    pub fn matchers(&self) -> Vec<&Matcher> {
        match self {
            Rule::Is(matcher) => vec![matcher],
            Rule::Not(inner) => inner.matchers(),
            Rule::All(parts) | Rule::Any(parts) => parts.iter().flat_map(Rule::matchers).collect(),
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
    matchers: usize,
}

impl Parser<'_> {
    fn any(&mut self) -> Result<Rule, Fault> {
        let mut parts = vec![self.all()?];
        while self.take("||") {
            parts.push(self.all()?);
        }
        Ok(joined(parts, Rule::Any))
    }

    fn all(&mut self) -> Result<Rule, Fault> {
        let mut parts = vec![self.unary()?];
        while self.take("&&") {
            parts.push(self.unary()?);
        }
        Ok(joined(parts, Rule::All))
    }

    fn unary(&mut self) -> Result<Rule, Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.fault("nested too deep"));
        }
        let rule = if self.take("!") {
            Rule::Not(Box::new(self.unary()?))
        } else if self.take("(") {
            let inner = self.any()?;
            if !self.take(")") {
                return Err(self.fault("expected `)`"));
            }
            inner
        } else {
            self.matcher()?
        };
        self.depth -= 1;
        Ok(rule)
    }

    fn matcher(&mut self) -> Result<Rule, Fault> {
        self.matchers += 1;
        if self.matchers > MAX_MATCHERS {
            return Err(self.fault(&format!("more than {MAX_MATCHERS} matchers")));
        }
        self.skip_blanks();
        let start = self.at;
        let rest = &self.text[start..];
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let name = &rest[..length];
        self.at += length;
        if name.is_empty() {
            let what = if rest.is_empty() { "a matcher is missing at the end" } else { "expected a matcher" };
            return Err(self.fault(what));
        }
        if !self.take("(") {
            return Err(self.fault(&format!("expected `(` after {name}")));
        }
        let mut values = vec![self.value()?];
        while self.take(",") {
            values.push(self.value()?);
        }
        if !self.take(")") {
            return Err(self.fault(&format!("expected `)` after the values of {name}")));
        }
        matcher(name, &values)
    }

    fn value(&mut self) -> Result<String, Fault> {
        self.skip_blanks();
        let rest = &self.text[self.at..];
        if let Some(raw) = rest.strip_prefix('`') {
            let end = raw.find('`').ok_or_else(|| self.fault("the backtick is not closed"))?;
            self.at += end + 2;
            return Ok(raw[..end].to_owned());
        }
        let Some(quoted) = rest.strip_prefix('"') else {
            let hint = if rest.starts_with('\'') {
                "single quotes mean nothing here"
            } else {
                "as in Host(`a.example`)"
            };
            return Err(self.fault("expected a value in backticks or double quotes").hint(hint));
        };
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.at += at + 2;
                    return Ok(value);
                }
                '\\' => match characters.next() {
                    Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                    _ => return Err(self.fault("only `\\\"` and `\\\\` are escapes").hint("use backticks")),
                },
                _ => value.push(character),
            }
        }
        Err(self.fault("the double quote is not closed"))
    }

    fn skip_blanks(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_blanks();
        self.text[self.at..].chars().next()
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_blanks();
        let found = self.text[self.at..].starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn fault(&self, what: &str) -> Fault {
        let before = self.text[..self.at].chars().count();
        Fault::new(format!("the rule does not parse at character {}: {what}", before + 1))
    }
}

fn joined(mut parts: Vec<Rule>, join: fn(Vec<Rule>) -> Rule) -> Rule {
    match parts.len() {
        1 => parts.remove(0),
        _ => join(parts),
    }
}

const NAMES: [&str; 11] = [
    "Host",
    "HostRegexp",
    "Path",
    "PathPrefix",
    "PathRegexp",
    "Method",
    "Header",
    "HeaderRegexp",
    "Query",
    "QueryRegexp",
    "ClientIP",
];

/// The rule of a matcher. Several values where Traefik's version 2 allowed them stand for alternatives.
fn matcher(name: &str, values: &[String]) -> Result<Rule, Fault> {
    let each = |make: &dyn Fn(&str) -> Result<Matcher, Fault>| -> Result<Rule, Fault> {
        let parts: Result<Vec<_>, _> = values.iter().map(|value| make(value).map(Rule::Is)).collect();
        Ok(joined(parts?, Rule::Any))
    };
    let pair = || match values {
        [name, value] => Ok((name.as_str(), value.as_str())),
        _ => Err(Fault::new(format!("{name} takes a name and a value"))),
    };
    match name {
        "Host" => each(&|value| host(value).map(Matcher::Host)),
        "HostRegexp" => each(&|value| pattern(value).map(Matcher::HostRegexp)),
        "Path" => each(&|value| path(value).map(Matcher::Path)),
        "PathPrefix" => each(&|value| path(value).map(Matcher::PathPrefix)),
        "PathRegexp" => each(&|value| pattern(value).map(Matcher::PathRegexp)),
        "Method" => each(&|value| {
            let method = value.to_ascii_uppercase();
            (text::METHOD.check)(&method).map(|()| Matcher::Method(method))
        }),
        "Header" | "Headers" => {
            let (name, value) = pair()?;
            Ok(Rule::Is(Matcher::Header(field_name(name)?, value.to_owned())))
        }
        "HeaderRegexp" | "HeadersRegexp" => {
            let (name, value) = pair()?;
            Ok(Rule::Is(Matcher::HeaderRegexp(field_name(name)?, pattern(value)?)))
        }
        "Query" => match values {
            [name] => Ok(Rule::Is(Matcher::Query(name.clone(), String::new()))),
            _ => pair().map(|(name, value)| Rule::Is(Matcher::Query(name.to_owned(), value.to_owned()))),
        },
        "QueryRegexp" => {
            let (name, value) = pair()?;
            Ok(Rule::Is(Matcher::QueryRegexp(name.to_owned(), pattern(value)?)))
        }
        "ClientIP" => each(&|value| client_range(value).map(Matcher::ClientIp)),
        "HostSNI" | "HostSNIRegexp" | "ALPN" => {
            Err(Fault::new(format!("{name} is a matcher of TCP routers, not of HTTP ones")))
        }
        _ => {
            let hint = did_you_mean(name, NAMES);
            let all = format!("the matchers are {}", NAMES.join(", "));
            Err(Fault::new(format!("there is no matcher `{name}`")).hint(hint.unwrap_or(all)))
        }
    }
}

fn host(value: &str) -> Result<String, Fault> {
    let name = value.trim_end_matches('.').to_ascii_lowercase();
    if name.contains(['{', '*']) {
        let fault = Fault::new(format!("the host {value:?} is taken literally and never matches"));
        return Err(fault.hint("use HostRegexp, as in HostRegexp(`^.+\\.example\\.com$`)"));
    }
    if let Some((bare, port)) = name.rsplit_once(':')
        && !bare.contains(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err(Fault::new(format!("the host {value:?} has a port, which is not compared"))
            .hint(format!("write Host(`{bare}`)")));
    }
    text::host_pattern(&name).map(|_| name)
}

fn path(value: &str) -> Result<String, Fault> {
    if value.contains('{') {
        let fault = Fault::new(format!("the path {value:?} is of Traefik's version 2"));
        return Err(
            fault.hint("write a regular expression with PathRegexp, as in PathRegexp(`^/users/[0-9]+$`)")
        );
    }
    (text::PATH.check)(value).map(|()| value.to_owned())
}

fn pattern(value: &str) -> Result<Pattern, Fault> {
    text::regex(value, value).map(|()| Pattern(value.to_owned()))
}

fn field_name(name: &str) -> Result<String, Fault> {
    (text::HEADER_NAME.check)(name)?;
    if name.eq_ignore_ascii_case("host") {
        return Err(Fault::new("the Host header is no header condition").hint("use Host(..)"));
    }
    Ok(name.to_ascii_lowercase())
}

fn client_range(value: &str) -> Result<IpNet, Fault> {
    let range = value.parse::<IpNet>().or_else(|_| value.parse::<std::net::IpAddr>().map(IpNet::from));
    range.map_err(|_| Fault::new(format!("{value:?} is neither an address nor a range")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule with every operator in brackets.
    fn shown(rule: &Rule) -> String {
        let all =
            |parts: &[Rule], by: &str| format!("({})", parts.iter().map(shown).collect::<Vec<_>>().join(by));
        match rule {
            Rule::All(parts) => all(parts, " & "),
            Rule::Any(parts) => all(parts, " | "),
            Rule::Not(inner) => format!("!{}", shown(inner)),
            Rule::Is(matcher) => match matcher {
                Matcher::Host(text)
                | Matcher::Path(text)
                | Matcher::PathPrefix(text)
                | Matcher::Method(text) => text.clone(),
                Matcher::HostRegexp(pattern) | Matcher::PathRegexp(pattern) => {
                    format!("~{}", pattern.as_str())
                }
                Matcher::Header(name, value) | Matcher::Query(name, value) => format!("{name}={value}"),
                Matcher::HeaderRegexp(name, pattern) | Matcher::QueryRegexp(name, pattern) => {
                    format!("{name}~{}", pattern.as_str())
                }
                Matcher::ClientIp(range) => range.to_string(),
            },
        }
    }

    #[test]
    fn rules_are_read() {
        for (text, expected) in [
            ("Host(`A.Example.com`)", "a.example.com"),
            ("Host(`a`) && PathPrefix(`/x`)", "(a & /x)"),
            ("Host(`a`) || Host(`b`) && Path(`/x`)", "(a | (b & /x))"),
            ("(Host(`a`) || Host(`b`)) && !Path(`/x`)", "((a | b) & !/x)"),
            ("!(Method(`get`) || !ClientIP(`10.0.0.0/8`))", "!(GET | !10.0.0.0/8)"),
            ("Header(`X-A`, `b c`)&&HeaderRegexp(\"X-B\",\"^\\\\d\\\"$\")", "(x-a=b c & x-b~^\\d\"$)"),
            ("Query(`debug`) || QueryRegexp(`page`, `^[0-9]+$`)", "(debug= | page~^[0-9]+$)"),
            (
                "HostRegexp(`^.+\\.example\\.com$`) && PathRegexp(`\\.(jpg|png)$`)",
                "(~^.+\\.example\\.com$ & ~\\.(jpg|png)$)",
            ),
            (" Host( `a` , `b` ) ", "(a | b)"),
            ("ClientIP(`::1`)", "::1/128"),
        ] {
            assert_eq!(Rule::parse(text).map(|rule| shown(&rule)), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_rule_says_where() {
        for (text, expected) in [
            ("", "the rule does not parse at character 1: a matcher is missing at the end"),
            ("Host(`a`) &&", "the rule does not parse at character 13: a matcher is missing at the end"),
            (
                "Host(`a`) & Path(`/`)",
                "the rule does not parse at character 11: expected `&&`, `||` or the end",
            ),
            ("Host(`a`))", "the rule does not parse at character 10: a `)` closes nothing"),
            ("(Host(`a`)", "the rule does not parse at character 11: expected `)`"),
            (
                "Host(a)",
                "the rule does not parse at character 6: expected a value in backticks or double quotes",
            ),
            ("Host(`a)", "the rule does not parse at character 6: the backtick is not closed"),
            ("Host", "the rule does not parse at character 5: expected `(` after Host"),
            ("PathPrefx(`/a`)", "there is no matcher `PathPrefx`"),
            ("Host(`*.a.com`)", "the host \"*.a.com\" is taken literally and never matches"),
            ("Host(`a.com:80`)", "the host \"a.com:80\" has a port, which is not compared"),
            ("Path(`/a/{id}`)", "the path \"/a/{id}\" is of Traefik's version 2"),
            ("PathPrefix(`a`)", "the path \"a\" does not start with `/`"),
            ("Header(`X-A`)", "Header takes a name and a value"),
            ("ClientIP(`home`)", "\"home\" is neither an address nor a range"),
            ("HostSNI(`*`)", "HostSNI is a matcher of TCP routers, not of HTTP ones"),
        ] {
            assert_eq!(Rule::parse(text).map_err(|fault| fault.message), Err(expected.to_owned()), "{text}");
        }
        assert!(Rule::parse(&"!".repeat(100_000)).is_err());
        assert!(Rule::parse(&"(".repeat(100_000)).is_err());
        assert!(Rule::parse(&vec!["Path(`/`)"; 2000].join("||")).is_err());
    }
}
