//! Files to configuration: the only module that reads anything.
//!
//! Owns the order of a load: read, parse, check, build. It never stops at the first finding. Invariant: a
//! configuration is given back only when nothing was an error.

use std::cell::RefCell;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use crate::build::{Builder, Document, defaults_of};
use crate::diagnostic::{Diagnostic, Diagnostics, Fault, Severity};
use crate::environment::{Environment, FixedEnvironment};
use crate::fields::Fields;
use crate::model::{Config, Defaults};
use crate::node::Node;
use crate::parse::{MAX_TEXT, parse};
use crate::schema::check::{Checker, Difference, Differences, Path};
use crate::schema::conceal::conceal;
use crate::schema::{PluginCatalog, Section};
use crate::sections::ROOT;
use crate::source::{FileId, Sources, Span};

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The model.
    pub config: Config,
    /// Warnings and notes, in the order of the texts.
    pub warnings: Vec<Diagnostic>,
}

/// One text to load.
#[derive(Clone, Debug)]
pub struct Text {
    /// The name for errors.
    pub name: String,
    /// The folder that relative paths in it are against.
    pub folder: PathBuf,
    /// The content.
    pub content: String,
}

/// Loads a file, or all `.yaml`, `.yml` and `.json` files of a folder (by name, folders inside left out) as one
/// configuration.
///
/// # Errors
/// Everything that is wrong, with the warnings in between, in the order of the files.
pub fn load(path: impl AsRef<FilePath>, catalog: &dyn PluginCatalog) -> Result<Loaded, Vec<Diagnostic>> {
    load_paths(&[path.as_ref()], catalog)
}

/// Loads several files and folders as one configuration.
///
/// # Errors
/// As [`load`].
pub fn load_paths<P: AsRef<FilePath>>(
    paths: &[P],
    catalog: &dyn PluginCatalog,
) -> Result<Loaded, Vec<Diagnostic>> {
    let mut texts = Vec::new();
    let mut failed = Vec::new();
    for path in paths {
        for file in files(path.as_ref()) {
            match file.and_then(|file| read(&file).map(|content| (file, content))) {
                Ok((file, content)) => texts.push(Text {
                    name: file.display().to_string(),
                    folder: file.parent().map(FilePath::to_path_buf).unwrap_or_default(),
                    content,
                }),
                Err(unreadable) => failed.push(unreadable),
            }
        }
    }
    match failed.is_empty() {
        true => load_texts(texts, catalog, &ProcessEnvironment),
        false => Err(failed.into_iter().map(Unreadable::into_diagnostic).collect()),
    }
}

/// Loads one text that refers to nothing outside: for tests and fuzzing.
///
/// # Errors
/// As [`load`].
pub fn load_str(name: &str, text: &str, catalog: &dyn PluginCatalog) -> Result<Loaded, Vec<Diagnostic>> {
    let text = Text { name: name.to_owned(), folder: PathBuf::new(), content: text.to_owned() };
    load_texts(vec![text], catalog, &FixedEnvironment::default())
}

/// Loads texts as one configuration, with an environment of the caller's.
///
/// # Errors
/// As [`load`].
pub fn load_texts(
    texts: Vec<Text>,
    catalog: &dyn PluginCatalog,
    environment: &dyn Environment,
) -> Result<Loaded, Vec<Diagnostic>> {
    let mut sources = Sources::default();
    let files: Vec<(FileId, PathBuf)> =
        texts.into_iter().map(|text| (sources.add(text.name, text.content), text.folder)).collect();
    let found = Diagnostics::new(Arc::new(sources));
    let config = assemble(files, catalog, environment, &found);
    let failed = found.has_errors();
    let all = found.into_sorted();
    match config {
        Some(config) if !failed => Ok(Loaded { config, warnings: all }),
        _ => Err(all),
    }
}

/// Parses one text that refers to nothing outside, without checking it against any table.
///
/// # Errors
/// What is wrong with it as YAML.
pub fn parse_str(name: &str, text: &str) -> Result<(Node, Arc<Sources>), Vec<Diagnostic>> {
    let mut sources = Sources::default();
    let file = sources.add(name, text);
    let sources = Arc::new(sources);
    let found = Diagnostics::new(sources.clone());
    match parse(file, FilePath::new(""), &FixedEnvironment::default(), &found) {
        Some(tree) if !found.has_errors() => Ok((tree, sources)),
        _ => Err(found.into_sorted()),
    }
}

/// Parses one text, checks it against a section and reads it: for tests of a plugin's own `config:`.
///
/// # Errors
/// Everything that is wrong, `read`'s own findings included.
pub fn read_section<T>(
    text: &str,
    section: &'static Section,
    defaults: Defaults,
    read: impl FnOnce(&Fields<'_>) -> T,
) -> Result<T, Vec<Diagnostic>> {
    let (mut tree, sources) = parse_str(section.name, text)?;
    if tree.is_null() {
        tree = Node::empty_map(tree.span);
    }
    let found = Diagnostics::new(sources);
    conceal(&mut tree, section, &found);
    Checker { found: &found, differences: None }.section(&tree, section, &Path::Base("config"));
    let value = read(&Fields::new(&tree, section, "config", defaults, &found));
    if found.has_errors() { Err(found.into_sorted()) } else { Ok(value) }
}

fn assemble(
    files: Vec<(FileId, PathBuf)>,
    catalog: &dyn PluginCatalog,
    environment: &dyn Environment,
    found: &Diagnostics,
) -> Option<Config> {
    let mut trees: Vec<(Node, PathBuf)> = Vec::new();
    for (file, folder) in files {
        let Some(mut tree) = parse(file, &folder, environment, found) else { continue };
        if tree.is_null() {
            found.warning(Span::of_file(file), "", "the file is empty");
            tree = Node::empty_map(tree.span);
        }
        conceal(&mut tree, &ROOT, found);
        trees.push((tree, folder));
    }
    let read = |defaults| -> Vec<Document<'_>> {
        let root = |tree| Fields::new(tree, &ROOT, "", defaults, found);
        trees.iter().map(|(tree, folder)| Document { root: root(tree), folder: folder.clone() }).collect()
    };
    let (defaults, chosen) = defaults_of(&read(Defaults::Portcullis));
    let documents = read(defaults);
    let from_kong = documents.iter().any(|document| document.root.is_set("_format_version"));
    let differences = RefCell::new(Differences::new());
    let checker = || Checker { found, differences: (from_kong && !chosen).then_some(&differences) };
    for (tree, _) in &trees {
        checker().section(tree, &ROOT, &Path::Root);
    }
    let config = Builder::new(&documents, catalog, checker(), defaults).build();
    note(differences.into_inner(), found);
    config
}

/// Says where our defaults and Kong's differ. Only for files in Kong's format that choose neither.
fn note(differences: Differences, found: &Diagnostics) {
    let shown = |text: Option<&str>| match text {
        None | Some("") => "nothing".to_owned(),
        Some(text) => format!("`{text}`"),
    };
    let mut all: Vec<Difference> = differences.into_values().collect();
    all.sort_by_key(|one| (one.span.file, one.span.line, one.span.column));
    for (index, Difference { key, count, span, path }) in all.into_iter().enumerate() {
        let places = if count > 1 { format!(" in {count} places") } else { String::new() };
        let (ours, kongs) = (shown(key.default), shown(key.kong_default));
        let message = format!("`{}` is left out{places}: that means {ours}, and in Kong {kongs}", key.name);
        let mut fault = Fault::new(message).hide_line();
        if index == 0 {
            fault = fault.hint("to choose, write `defaults: kong` or `defaults: portcullis` at the top");
        }
        found.note(span, path, fault);
    }
}

/// The environment of this process and the file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &FilePath) -> Result<String, String> {
        read(path).map_err(|unreadable| unreadable.why)
    }
}

/// A file that could not be read.
struct Unreadable {
    path: PathBuf,
    why: String,
}

impl Unreadable {
    fn new(path: &FilePath, why: impl ToString) -> Self {
        Self { path: path.to_path_buf(), why: why.to_string() }
    }

    fn into_diagnostic(self) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            file: self.path.display().to_string(),
            line: 0,
            column: 0,
            path: String::new(),
            message: format!("cannot be read: {}", self.why),
            hint: None,
            source_line: None,
            caret: (0, 0),
        }
    }
}

fn read(path: &FilePath) -> Result<String, Unreadable> {
    use std::io::Read as _;
    let fail = |why: std::io::Error| Unreadable::new(path, why);
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut bytes = Vec::new();
    // A device or a pipe has no length to look at first.
    file.take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() > MAX_TEXT {
        return Err(Unreadable::new(path, format!("longer than {MAX_TEXT} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        Unreadable::new(path, format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to()))
    })
}

/// The files that a path stands for.
fn files(path: &FilePath) -> Vec<Result<PathBuf, Unreadable>> {
    if !path.is_dir() {
        return vec![Ok(path.to_path_buf())];
    }
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(why) => return vec![Err(Unreadable::new(path, why))],
    };
    let wanted = |file: &PathBuf| {
        let hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let extension = file.extension().and_then(|extension| extension.to_str());
        !hidden && matches!(extension, Some("yaml" | "yml" | "json")) && !file.is_dir()
    };
    let mut found: Vec<_> =
        entries.filter_map(|entry| entry.ok()).map(|entry| entry.path()).filter(wanted).collect();
    found.sort_unstable();
    if found.is_empty() {
        return vec![Err(Unreadable::new(path, "the folder has no .yaml, .yml or .json file"))];
    }
    found.into_iter().map(Ok).collect()
}
