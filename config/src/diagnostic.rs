//! What is wrong with a configuration, and where.
//!
//! Owns [`Diagnostic`] (one finding, ready to print) and [`Diagnostics`] (the collector that every step of a
//! load writes to, so that all findings come out at once). It never stops a load: the caller asks
//! [`Diagnostics::has_errors`] at the end. Invariant: at most [`MAX_KEPT`] findings are kept, whatever the input.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use crate::source::{Sources, Span};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but probably does not mean what it says.
    Warning,
    /// Worth knowing, such as a default that differs from Kong's.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// One finding. Prints as `file:line:column: error: path: message`, the line with a caret, and a hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The name of the text.
    pub file: String,
    /// Line from 1; 0 when the finding belongs to no line.
    pub line: u32,
    /// Column from 1, in characters.
    pub column: u32,
    /// The way to the key, as in `services[0].routes[1].paths[0]`; empty at the top.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The line as written, cut to a window when very long; absent where it could show a secret.
    pub source_line: Option<String>,
    /// Where in `source_line` the caret stands (characters before it) and how many carets there are.
    pub caret: (usize, usize),
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}: ", self.severity)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if let Some(line) = &self.source_line {
            let number = self.line.to_string();
            let (before, carets) = self.caret;
            write!(f, "\n {number} | {line}")?;
            write!(f, "\n {:1$} | ", "", number.len())?;
            write!(f, "{:1$}{2}", "", before, "^".repeat(carets.max(1)))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// What is wrong, before it is known where: the result of a check of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether the line may be shown.
    pub show_line: bool,
}

impl Fault {
    /// A fault without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, show_line: true }
    }

    /// Says what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what to do about it, when there is something to say.
    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// Keeps the line out of the output because it holds a secret.
    pub fn hide_line(mut self) -> Self {
        self.show_line = false;
        self
    }
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<&str> for Fault {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

/// How many findings one load keeps. A file that is wrong in more places than this is not the file that was
/// meant, and hostile input must not fill the memory.
pub const MAX_KEPT: usize = 500;

/// Collects the findings of a load. Shared by reference, so that readers of nested sections can all report.
#[derive(Debug)]
pub struct Diagnostics {
    sources: Arc<Sources>,
    kept: RefCell<Vec<Finding>>,
    /// Places of secret values; lines are shown with these masked.
    secrets: RefCell<Vec<Span>>,
    errors: Cell<usize>,
    dropped: Cell<usize>,
}

/// A finding whose line is not cut out yet.
#[derive(Debug)]
struct Finding {
    span: Span,
    show_line: bool,
    diagnostic: Diagnostic,
}

impl Diagnostics {
    /// A collector for findings in these texts.
    pub fn new(sources: Arc<Sources>) -> Self {
        Self {
            sources,
            kept: RefCell::default(),
            secrets: RefCell::default(),
            errors: Cell::new(0),
            dropped: Cell::new(0),
        }
    }

    /// Reports an error.
    pub fn error(&self, span: Span, path: impl fmt::Display, fault: impl Into<Fault>) {
        self.add(Severity::Error, span, path, fault.into());
    }

    /// Reports a warning.
    pub fn warning(&self, span: Span, path: impl fmt::Display, fault: impl Into<Fault>) {
        self.add(Severity::Warning, span, path, fault.into());
    }

    /// Reports a note.
    pub fn note(&self, span: Span, path: impl fmt::Display, fault: impl Into<Fault>) {
        self.add(Severity::Note, span, path, fault.into());
    }

    fn add(&self, severity: Severity, span: Span, path: impl fmt::Display, fault: Fault) {
        if severity == Severity::Error {
            self.errors.set(self.errors.get() + 1);
        }
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= MAX_KEPT {
            // An error must never be lost behind a heap of warnings.
            let last = kept.iter().rposition(|old| old.diagnostic.severity > severity);
            self.dropped.set(self.dropped.get() + 1);
            let Some(last) = last else { return };
            kept.swap_remove(last);
        }
        let diagnostic = Diagnostic {
            severity,
            file: self.sources.name(span.file).to_owned(),
            line: span.line,
            column: span.column,
            path: path.to_string(),
            message: fault.message,
            hint: fault.hint,
            source_line: None,
            caret: (0, 0),
        };
        kept.push(Finding { span, show_line: fault.show_line, diagnostic });
    }

    /// Masks the text of this place wherever its line is shown.
    pub fn conceal(&self, span: Span) {
        self.secrets.borrow_mut().push(span);
    }

    /// Whether further errors are only counted, so that nobody need work out their hints.
    pub fn is_full(&self) -> bool {
        self.errors.get() >= MAX_KEPT
    }

    /// Whether an error was reported.
    pub fn has_errors(&self) -> bool {
        self.errors.get() > 0
    }

    /// The texts that places point into.
    pub fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }

    /// `file:line:column` of a place, for messages that name a second one.
    pub fn place(&self, span: Span) -> String {
        if !span.is_in_text() {
            return self.sources.name(span.file).to_owned();
        }
        format!("{}:{}:{}", self.sources.name(span.file), span.line, span.column)
    }

    /// All findings in the order of the texts, each once.
    pub fn into_sorted(self) -> Vec<Diagnostic> {
        let mut kept = self.kept.take();
        kept.sort_by_key(|one| (one.span.file, one.span.line, one.span.column, one.diagnostic.severity));
        let complete = |one: Finding| {
            let (source_line, caret) = self.excerpt(one.span, one.show_line);
            Diagnostic { source_line, caret, ..one.diagnostic }
        };
        let mut found: Vec<_> = kept.into_iter().map(complete).collect();
        found.dedup();
        if let (dropped @ 1.., Some(last)) = (self.dropped.get(), found.last().cloned()) {
            found.push(Diagnostic {
                path: String::new(),
                message: format!("and {dropped} more"),
                hint: None,
                source_line: None,
                line: 0,
                column: 0,
                ..last
            });
        }
        found
    }

    fn excerpt(&self, span: Span, show: bool) -> (Option<String>, (usize, usize)) {
        if !show || !span.is_in_text() {
            return (None, (0, 0));
        }
        let Some(source) = self.sources.get(span.file) else { return (None, (0, 0)) };
        let text = source.text();
        let (at, line) = text.line_at(span.line);
        if line.is_empty() {
            return (None, (0, 0));
        }
        let secrets = self.secrets.borrow();
        let secrets: Vec<_> = secrets.iter().filter(|secret| secret.file == span.file).collect();
        let hidden = |byte: u32| secrets.iter().any(|secret| (secret.start..secret.end).contains(&byte));
        let column = span.column.saturating_sub(1) as usize;
        let spanned = text.as_str().get(span.start as usize..span.end as usize).unwrap_or("");
        let spanned = spanned.split(['\r', '\n']).next().unwrap_or("").trim_end().chars().count();
        let skipped = column.saturating_sub(WINDOW / 2);
        let shown = |(offset, character)| if hidden(at + offset as u32) { '*' } else { printable(character) };
        let window: String = line.char_indices().skip(skipped).take(WINDOW).map(shown).collect();
        let before = column - skipped;
        let carets = spanned.clamp(1, window.chars().count().saturating_sub(before).max(1));
        (Some(window), (before, carets))
    }
}

/// Longest part of a line that is shown, in characters.
const WINDOW: usize = 120;

/// Tabs and control characters would move the caret, or the terminal.
fn printable(character: char) -> char {
    if character.is_control() { ' ' } else { character }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector(text: &str) -> Diagnostics {
        let mut sources = Sources::default();
        sources.add("gateway.yaml", text);
        Diagnostics::new(Arc::new(sources))
    }

    #[test]
    fn prints_place_line_caret_and_hint() {
        let all = collector("services:\n  - prot: http\n");
        let span = Span { line: 2, column: 5, start: 14, end: 18, ..Span::default() };
        all.error(
            span,
            "services[0].prot",
            Fault::new("unknown key `prot`").hint("did you mean `protocol`?"),
        );
        let expected = "gateway.yaml:2:5: error: services[0].prot: unknown key `prot`\n \
                        2 |   - prot: http\n   |     ^^^^\n hint: did you mean `protocol`?";
        assert_eq!(all.into_sorted()[0].to_string(), expected);
    }

    #[test]
    fn a_long_line_is_shown_around_the_caret() {
        let all = collector(&"x".repeat(100_000));
        let span = Span { line: 1, column: 50_001, start: 50_000, end: 50_003, ..Span::default() };
        all.error(span, "", "here");
        let found = &all.into_sorted()[0];
        assert_eq!(found.source_line.as_deref().map(str::len), Some(WINDOW));
        assert_eq!(found.caret, (WINDOW / 2, 3));
    }

    #[test]
    fn errors_displace_warnings_when_full() {
        let all = collector("a\n");
        (0..MAX_KEPT).for_each(|n| all.warning(Span::default(), n, "w"));
        all.error(Span::default(), "", "e");
        let found = all.into_sorted();
        assert_eq!(found.len(), MAX_KEPT + 1);
        assert_eq!(found.iter().filter(|one| one.severity == Severity::Error).count(), 1);
        assert_eq!(found.last().map(|one| one.message.as_str()), Some("and 1 more"));
    }
}
