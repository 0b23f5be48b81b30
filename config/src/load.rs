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
use crate::import::{native, traefik, write};
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
    load_texts(read_texts(paths)?, catalog, &ProcessEnvironment)
}

/// The texts of files and folders.
fn read_texts<P: AsRef<FilePath>>(paths: &[P]) -> Result<Vec<Text>, Vec<Diagnostic>> {
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
        true => Ok(texts),
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
        Some(mut trees) if !found.has_errors() && trees.len() == 1 => Ok((trees.remove(0), sources)),
        trees => {
            trees.iter().for_each(|trees| refuse_more(trees, &found));
            Err(found.into_sorted())
        }
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
    let trees = read_trees(files, environment, found);
    let read = |defaults| -> Vec<Document<'_>> {
        let root = |tree| Fields::new(tree, &ROOT, "", defaults, found);
        trees.iter().map(|tree| Document { root: root(&tree.node), folder: tree.folder.clone() }).collect()
    };
    let (defaults, chosen) = defaults_of(&read(Defaults::Portcullis));
    let documents = read(defaults);
    let from_kong = documents.iter().any(|document| document.root.is_set("_format_version"));
    let differences = RefCell::new(Differences::new());
    let checker = || Checker { found, differences: (from_kong && !chosen).then_some(&differences) };
    for tree in &trees {
        checker().section(&tree.node, &ROOT, &Path::Root);
    }
    let config = Builder::new(&documents, catalog, checker(), defaults).build();
    note(differences.into_inner(), found);
    config
}

/// One file in our own format, or what another gateway's files come to.
struct Tree {
    node: Node,
    /// What paths in it are against.
    folder: PathBuf,
    format: Format,
}

/// The files as trees in our own format, each with the folder that its paths are against. The documents of another
/// gateway's format come to one tree together.
fn read_trees(
    files: Vec<(FileId, PathBuf)>,
    environment: &dyn Environment,
    found: &Diagnostics,
) -> Vec<Tree> {
    let mut trees: Vec<Tree> = Vec::new();
    let mut foreign: Vec<Node> = Vec::new();
    let mut foreign_folder = PathBuf::new();
    for (file, folder) in files {
        let Some(documents) = parse(file, &folder, environment, found) else { continue };
        let (mut theirs, mut ours): (Vec<Node>, Vec<Node>) =
            documents.into_iter().partition(traefik::is_traefik);
        if !theirs.is_empty() {
            foreign.append(&mut theirs);
            foreign_folder.clone_from(&folder);
        }
        refuse_more(&ours, found);
        if ours.is_empty() {
            continue;
        }
        let mut tree = ours.swap_remove(0);
        if tree.is_null() {
            found.warning(Span::of_file(file), "", "the file is empty");
            tree = Node::empty_map(tree.span);
        }
        conceal(&mut tree, &ROOT, found);
        trees.push(Tree { node: tree, folder, format: Format::Kong });
    }
    if !foreign.is_empty() {
        let mut tree = traefik::translate(&foreign, found);
        conceal(&mut tree, &ROOT, found);
        trees.push(Tree { node: tree, folder: foreign_folder, format: Format::Traefik });
    }
    trees
}

/// A file in our own format is one document.
fn refuse_more(documents: &[Node], found: &Diagnostics) {
    if let Some(second) = documents.get(1) {
        let fault = Fault::new("a second document begins here");
        found.error(second.span, "", fault.hint("put it into a file of its own in the same folder"));
    }
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

/// A configuration of another gateway, loaded, and the text of ours that means the same.
#[derive(Clone, Debug)]
pub struct Imported {
    /// What it means.
    pub loaded: Loaded,
    /// Our text without notes; references to variables and files stand in it as they were written.
    tree: Node,
    sources: Arc<Sources>,
}

impl Imported {
    /// The text in our format, each note as a comment beside what it is about.
    pub fn to_yaml(&self, notes: &[Diagnostic]) -> String {
        write::write(&self.tree, notes, &self.sources)
    }
}

/// Which gateway a configuration is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Kong's declarative format, or our own superset of it.
    Kong,
    /// Traefik's resources or dynamic configuration.
    Traefik,
}

/// Loads a file or folder of another gateway's format, and translates it.
///
/// # Errors
/// Everything that is wrong, as [`load`]; a file that is not in the format that was asked for.
pub fn import(
    path: impl AsRef<FilePath>,
    catalog: &dyn PluginCatalog,
    asked: Option<Format>,
) -> Result<Imported, Vec<Diagnostic>> {
    let texts = read_texts(&[path.as_ref()])?;
    import_texts(texts, catalog, &ProcessEnvironment, asked)
}

/// As [`import`], from texts.
///
/// # Errors
/// As [`import`].
pub fn import_texts(
    texts: Vec<Text>,
    catalog: &dyn PluginCatalog,
    environment: &dyn Environment,
    asked: Option<Format>,
) -> Result<Imported, Vec<Diagnostic>> {
    let loaded = load_texts(texts.clone(), catalog, environment)?;
    // Once more, with references as they are written: no value from outside may be printed.
    let mut sources = Sources::default();
    let files: Vec<(FileId, PathBuf)> =
        texts.into_iter().map(|text| (sources.add(text.name, text.content), text.folder)).collect();
    let sources = Arc::new(sources);
    let found = Diagnostics::new(sources.clone());
    let whole = files.first().map_or(Span::default(), |(file, _)| Span::of_file(*file));
    let trees = read_trees(files, &native::AsWritten, &found);
    let has = |format| trees.iter().any(|tree| tree.format == format);
    match asked {
        Some(Format::Traefik) if !has(Format::Traefik) => {
            found.error(whole, "", "this is no configuration of Traefik");
        }
        Some(Format::Kong) if has(Format::Traefik) => {
            found.error(
                whole,
                "",
                Fault::new("this is a configuration of Traefik").hint("say `--from traefik`"),
            );
        }
        _ => {}
    }
    if found.has_errors() {
        return Err(found.into_sorted());
    }
    let mut trees: Vec<Node> = trees.into_iter().map(|tree| tree.node).collect();
    trees.iter_mut().for_each(|tree| native::rewrite(tree, catalog));
    let tree = native::join(trees, loaded.config.defaults);
    Ok(Imported { loaded, tree, sources })
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
