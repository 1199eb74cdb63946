//! The layout, as far as a program can check it: which part imports which, what each file says first, where SQL and
//! `unsafe` may stand, and which words are not used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, ItemMod, ItemUse, Meta, UseTree, VisRestricted};

/// Each part of `src/`, and the parts that it may import, which are all before it: `*` is all of these.
const LAYERS: [(&str, &[&str]); 23] = [
    ("sync", &[]),
    ("private", &[]),
    ("panics", &[]),
    ("address", &[]),
    ("derived_key", &[]),
    ("error_page", &[]),
    ("protocol", &[]),
    ("time", &["protocol"]),
    ("address_rate", &["address", "time"]),
    ("rejections", &["protocol"]),
    ("quota", &["address", "sync"]),
    (
        "transport",
        &["address", "address_rate", "error_page", "panics", "protocol", "rejections", "sync", "time"],
    ),
    ("auth", &["protocol", "time", "transport"]),
    ("presence", &["derived_key", "panics", "protocol", "sync", "time", "transport"]),
    (
        "history",
        &[
            "address",
            "address_rate",
            "derived_key",
            "panics",
            "private",
            "protocol",
            "quota",
            "rejections",
            "sync",
            "time",
        ],
    ),
    ("cluster", &["derived_key", "history", "panics", "presence", "protocol", "sync", "time", "transport"]),
    (
        "session",
        &[
            "address",
            "auth",
            "cluster",
            "history",
            "panics",
            "presence",
            "protocol",
            "quota",
            "rejections",
            "sync",
            "time",
            "transport",
        ],
    ),
    ("http", &["*"]),
    ("config", &["*"]),
    ("server", &["*"]),
    ("cli", &["*"]),
    ("lib", &["*"]),
    ("main", &["*"]),
];

/// What a session may know of the history: how to append an event, and when an epoch is committed.
const HISTORY_OF_SESSIONS: [&str; 3] = ["capacity", "event", "journal"];

/// Words of the old vocabulary, and words that hide the subject of a sentence. CONTRIBUTING.md says what to use instead.
const BANNED: [&str; 14] = [
    "whoever",
    "whom",
    "somebody",
    "nobody",
    "anybody",
    "told",
    "tells",
    "anew",
    "outlet",
    "tally",
    "keeper",
    "tempo",
    "clogged",
    "the house",
];

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The top-level part that the file belongs to.
    fn part(&self) -> &str {
        self.path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs")
    }

    /// The paths of this crate that the file names outside of its tests, in `use` and in code. What a macro gets is
    /// not read.
    fn imports(&self) -> Vec<Vec<String>> {
        let mut imports = Imports { module: self.module(), found: Vec::new() };
        imports.visit_file(&syn::parse_file(&self.text).unwrap());
        imports.found
    }

    /// The file's module path.
    fn module(&self) -> Vec<String> {
        let path = self.path.with_extension("");
        path.iter().map(|name| name.to_str().unwrap().to_owned()).filter(|name| name != "mod").collect()
    }

    /// Lines before the file's own tests.
    fn lines(&self) -> usize {
        self.text.split("#[cfg(test)]\nmod tests").next().unwrap().lines().count()
    }
}

fn is_test(attribute: &Attribute) -> bool {
    matches!(&attribute.meta, Meta::List(list) if list.path.is_ident("cfg") && list.tokens.to_string() == "test")
}

/// Collects paths of this crate, from its root.
struct Imports {
    /// The module in which the paths stand.
    module: Vec<String>,
    found: Vec<Vec<String>>,
}

impl Imports {
    /// Adds a path if it is of this crate.
    fn add(&mut self, path: &[String]) {
        let supers = path.iter().take_while(|step| *step == "super").count();
        match path.first().map(String::as_str) {
            Some("crate") => self.found.push(path[1..].to_vec()),
            Some("self") => self.found.push([&self.module, &path[1..]].concat()),
            Some("super") => {
                self.found.push([&self.module[..self.module.len() - supers], &path[supers..]].concat());
            }
            _ => {}
        }
    }
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !item.attrs.iter().any(is_test) {
            self.module.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !item.attrs.iter().any(is_test) {
            for path in paths(&item.tree) {
                self.add(&path);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        // `self` alone is a value.
        if names.len() > 1 {
            self.add(&names);
        }
        visit::visit_path(self, path);
    }

    /// `pub(in …)` imports nothing.
    fn visit_vis_restricted(&mut self, _: &'ast VisRestricted) {}
}

/// The paths of a `use`.
fn paths(tree: &UseTree) -> Vec<Vec<String>> {
    fn walk(tree: &UseTree, mut path: Vec<String>, found: &mut Vec<Vec<String>>) {
        match tree {
            UseTree::Path(step) => {
                path.push(step.ident.to_string());
                walk(&step.tree, path, found);
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| walk(tree, path.clone(), found)),
            UseTree::Name(name) => found.push(with(path, &name.ident.to_string())),
            UseTree::Rename(name) => found.push(with(path, &name.ident.to_string())),
            UseTree::Glob(_) => found.push(path),
        }
    }
    fn with(mut path: Vec<String>, name: &str) -> Vec<String> {
        if name != "self" {
            path.push(name.to_owned());
        }
        path
    }
    let mut all = Vec::new();
    walk(tree, Vec::new(), &mut all);
    all
}

fn sources() -> Vec<Source> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    files(&source, "rs")
        .into_iter()
        .map(|path| Source {
            text: fs::read_to_string(&path).unwrap(),
            path: path.strip_prefix(&source).unwrap().to_path_buf(),
        })
        .collect()
}

/// All files below a folder with this extension.
pub fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}

#[test]
fn each_part_imports_only_parts_below_it() {
    for source in sources() {
        let (part, path) = (source.part(), source.path.display());
        let position = |part: &str| LAYERS.iter().position(|(layer, _)| *layer == part);
        let own = position(part).unwrap_or_else(|| panic!("{path}: new part"));
        let allowed = LAYERS[own].1;
        for import in source.imports() {
            let Some(imported) = import.first() else { continue };
            let is_before = position(imported).is_some_and(|imported| imported < own);
            let is_allowed = is_before && (allowed == ["*"] || allowed.contains(&imported.as_str()));
            assert!(imported == part || is_allowed, "{path} imports {}", import.join("::"));
            if part == "session" && imported == "history" {
                let known = import.get(1).is_some_and(|module| {
                    HISTORY_OF_SESSIONS.contains(&module.as_str())
                        || matches!(module.as_str(), "Epoch" | "Journal")
                });
                assert!(known, "{path} imports {}", import.join("::"));
            }
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let sources = sources();
    let modules: BTreeSet<Vec<String>> = sources.iter().map(Source::module).collect();
    // What a folder's mod.rs hands on, by name: an import of it is one of the file that defines it.
    let mut handed_on: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
    for source in
        sources.iter().filter(|source| source.path.ends_with("mod.rs") || source.path.ends_with("config.rs"))
    {
        for import in source.imports() {
            if let Some(name) = import.last().cloned() {
                handed_on.insert([source.module(), vec![name]].concat(), import);
            }
        }
    }
    // The longest beginning of a path that is a file, or that a folder's mod.rs hands on.
    let file_of = |import: &[String]| {
        let beginnings = |path: &[String]| {
            (0..=path.len()).rev().map(|length| path[..length].to_vec()).collect::<Vec<_>>()
        };
        let import =
            beginnings(import).iter().find_map(|path| handed_on.get(path)).map_or(import, Vec::as_slice);
        beginnings(import).into_iter().find(|path| modules.contains(path))
    };
    let mut imports: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for source in &sources {
        let module = source.module();
        let is_folder = source.path.ends_with("mod.rs");
        for import in source.imports() {
            let Some(file) = file_of(&import) else { continue };
            // A folder's own file names what is in the folder, and hands it on.
            if file != module && !(is_folder && file.starts_with(&module)) {
                imports.entry(module.clone()).or_default().insert(file);
            }
        }
    }
    // Remove files that import none of the rest, or that none of the rest imports, until there are no more of them.
    let mut left = imports;
    loop {
        let before = left.len();
        let files: BTreeSet<_> = left.keys().cloned().collect();
        let imported: BTreeSet<_> = left.values().flatten().cloned().collect();
        left.retain(|file, imports| {
            imported.contains(file) && imports.iter().any(|file| files.contains(file))
        });
        if left.len() == before {
            break;
        }
    }
    let lines = left.iter().map(|(file, imports)| {
        let imports: Vec<_> =
            imports.iter().filter(|file| left.contains_key(*file)).map(|file| file.join("::")).collect();
        format!("{} imports {}", file.join("::"), imports.join(", "))
    });
    assert!(left.is_empty(), "circles:\n{}", lines.collect::<Vec<_>>().join("\n"));
}

#[test]
fn every_file_begins_with_two_to_eight_lines_about_itself() {
    for Source { path, text } in sources() {
        let lines = text.lines().take_while(|line| line.starts_with("//!")).count();
        let maximum = if path == Path::new("lib.rs") { 60 } else { 8 };
        assert!(
            (2..=maximum).contains(&lines) || path == Path::new("main.rs"),
            "{}: {lines} lines",
            path.display()
        );
    }
}

#[test]
fn sql_is_in_the_store_and_the_stats_only() {
    for Source { path, text } in sources() {
        let allowed = ["history/store", "history/stats"].iter().any(|part| path.starts_with(part));
        assert!(allowed || !text.contains("sqlx::"), "{} uses sqlx", path.display());
    }
}

#[test]
fn one_module_names_the_client_of_nats() {
    for Source { path, text } in sources() {
        let allowed = path == Path::new("cluster/nats.rs") || path.starts_with("cluster/nats");
        assert!(allowed || !text.contains("async_nats::"), "{} names async_nats", path.display());
    }
}

#[test]
fn one_file_is_unsafe() {
    let is_unsafe = |source: &Source| source.text.contains("unsafe_code") || source.text.contains("unsafe {");
    let found: Vec<_> = sources().into_iter().filter(is_unsafe).map(|source| source.path).collect();
    assert_eq!(found, [Path::new("transport/defer.rs")]);
}

/// More than 600 lines is a question and no law: a file that has a good reason may be named here.
#[test]
fn files_have_at_most_600_lines_without_their_tests() {
    for source in sources() {
        let lines = source.lines();
        assert!(lines <= 600, "{}: {lines} lines without its tests: is it two files?", source.path.display());
    }
}

#[test]
fn sources_and_docs_use_the_words_of_the_field() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = files(&root.join("src"), "rs");
    texts.extend(files(&root.join("docs"), "md"));
    texts.extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    let mut found = Vec::new();
    for path in texts {
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let words = line.to_lowercase();
            let has = |banned: &&&str| {
                words.match_indices(**banned).any(|(at, word)| {
                    let is_letter = |c: char| c.is_alphanumeric();
                    !words[..at].ends_with(is_letter) && !words[at + word.len()..].starts_with(is_letter)
                })
            };
            if let Some(word) = BANNED.iter().find(has) {
                let path = path.strip_prefix(root).unwrap().display();
                found.push(format!("{path}:{}: {word:?} in {:?}", number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{} lines:\n{}", found.len(), found.join("\n"));
}
