//! Rules about Rust sources: their size, their documentation, and what may not stand in them.
//!
//! Test code is free of the rules on functions, panics and nothing else.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use crate::Finding;
use crate::scan::Code;
use crate::tree::{File, Tree};

/// Lines a file may have.
pub const FILE_LINES_MAX: usize = 500;
/// Lines a function may have, from `fn` to its brace.
pub const FUNCTION_LINES_MAX: usize = 80;
/// Names that say nothing about what a module holds.
const EMPTY_NAMES: [&str; 8] = ["util", "utils", "helper", "helpers", "common", "misc", "shared", "stuff"];

/// A source, read.
struct Source<'a> {
    file: &'a File,
    code: Code,
    tests: Vec<Range<usize>>,
}

impl Source<'_> {
    fn in_test(&self, offset: usize) -> bool {
        self.tests.iter().any(|span| span.contains(&offset))
    }

    fn at(&self, rule: &'static str, offset: usize, message: impl Into<String>) -> Finding {
        Finding::at(rule, &self.file.path, self.code.line(offset), message)
    }
}

/// Everything that is wrong with the sources.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let sources = read(tree);
    let mut found = Vec::new();
    for source in &sources {
        found.extend(header(source.file));
        found.extend(length(source.file));
        found.extend(name(tree, source.file));
        found.extend(functions(source));
        found.extend(left_behind(source));
        found.extend(ignored(source));
        found.extend(unsafe_code(source));
        found.extend(unexplained(source));
    }
    found.extend(panics(tree, &sources));
    found
}

fn read(tree: &Tree) -> Vec<Source<'_>> {
    let codes: Vec<_> = tree.sources().map(|file| (file, Code::of(&file.text))).collect();
    let whole = test_files(tree, &codes);
    codes
        .into_iter()
        .map(|(file, code)| {
            let tests = if is_within(&file.path, &whole) || in_test_folder(tree, &file.path) {
                std::iter::once(0..code.text.len()).collect()
            } else {
                code.tests().into_iter().map(|item| item.span).collect()
            };
            Source { file, code, tests }
        })
        .collect()
}

/// Files, and folders of files, of modules that exist in tests only.
fn test_files(tree: &Tree, codes: &[(&File, Code)]) -> HashSet<String> {
    let mut found = HashSet::new();
    for (file, code) in codes {
        for item in code.tests() {
            let Some(module) = item.module else { continue };
            let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
            let stem = name.trim_end_matches(".rs");
            if let Some(path) = quoted_after(&file.text[item.span], "path") {
                found.insert(format!("{folder}/{path}"));
            }
            let base = match stem {
                "mod" | "lib" | "main" => folder.to_owned(),
                _ => format!("{folder}/{stem}"),
            };
            found.insert(format!("{base}/{module}.rs"));
            found.insert(format!("{base}/{module}/"));
        }
    }
    found.retain(|path| tree.has(path));
    found
}

fn quoted_after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    text.split_once(&format!("{word} = \""))?.1.split('"').next()
}

fn is_within(path: &str, whole: &HashSet<String>) -> bool {
    whole.contains(path) || path.match_indices('/').any(|(at, _)| whole.contains(&path[..=at]))
}

fn in_test_folder(tree: &Tree, path: &str) -> bool {
    within_package(tree, path).is_some_and(|inner| {
        ["tests/", "benches/", "examples/"].iter().any(|folder| inner.starts_with(folder))
    })
}

fn within_package<'a>(tree: &Tree, path: &'a str) -> Option<&'a str> {
    tree.package_of(path).map(|package| &path[package.len() + 1..])
}

fn header(file: &File) -> Option<Finding> {
    let message = "does not begin with `//!`: say what lives here, what it may touch, what it must never do";
    (!file.text.starts_with("//!")).then(|| Finding::at("header", &file.path, 1, message))
}

fn length(file: &File) -> Option<Finding> {
    let lines = file.text.lines().count();
    (lines > FILE_LINES_MAX).then(|| Finding {
        rule: "file-lines",
        subject: file.path.clone(),
        amount: lines,
        place: format!("{}:{}", file.path, FILE_LINES_MAX + 1),
        message: format!("{lines} lines, more than {FILE_LINES_MAX}: cut it along its subjects"),
    })
}

fn name(tree: &Tree, file: &File) -> Option<Finding> {
    let inner = within_package(tree, &file.path)?;
    let module = inner.trim_end_matches(".rs").trim_end_matches("/mod");
    let empty = module.split('/').find(|part| EMPTY_NAMES.contains(part))?;
    (!inner.starts_with("tests/")).then(|| {
        let message =
            format!("a module named `{empty}` says nothing: name it after what it decides or holds");
        Finding::at("module-name", &file.path, 1, message)
    })
}

fn functions<'a>(source: &'a Source<'_>) -> impl Iterator<Item = Finding> + 'a {
    source.code.functions().into_iter().filter(|function| !source.in_test(function.span.start)).filter_map(
        |function| {
            let first = source.code.line(function.span.start);
            let lines = source.code.line(function.span.end - 1) + 1 - first;
            (lines > FUNCTION_LINES_MAX).then(|| Finding {
                rule: "function-lines",
                subject: format!("{}::{}", source.file.path, function.name),
                amount: lines,
                place: format!("{}:{first}", source.file.path),
                message: format!(
                    "`{}` has {lines} lines, more than {FUNCTION_LINES_MAX}: cut it into steps with names",
                    function.name
                ),
            })
        },
    )
}

fn left_behind<'a>(source: &'a Source<'_>) -> impl Iterator<Item = Finding> + 'a {
    let macros = ["todo", "unimplemented", "dbg"];
    macros.into_iter().flat_map(move |name| {
        source.code.words(name).filter(move |at| source.code.text[at + name.len()..].starts_with('!')).map(
            move |at| {
                source.at(
                    "left-behind",
                    at,
                    format!("`{name}!` is left: build it, or answer that it is not built"),
                )
            },
        )
    })
}

/// An ignored test says which command runs it: in its attribute, or at the top of its file.
fn ignored<'a>(source: &'a Source<'_>) -> impl Iterator<Item = Finding> + 'a {
    source.code.text.match_indices("#[ignore").filter_map(|(at, _)| {
        let line = source.file.text[at..].lines().next().unwrap_or_default();
        let message = "an ignored test without the command that runs it: `#[ignore = \"run by cargo ...\"]`";
        let above = source.file.text.lines().take_while(|line| line.starts_with("//!"));
        let named = line.contains("cargo ") || above.into_iter().any(|line| line.contains("--ignored"));
        (!named).then(|| source.at("ignored", at, message))
    })
}

fn unsafe_code(source: &Source<'_>) -> Option<Finding> {
    let places: Vec<_> = source.code.words("unsafe").collect();
    let first = *places.first()?;
    let mut finding = source.at("unsafe", first, "");
    finding.amount = places.len();
    finding.message = format!(
        "`unsafe` ({} times): use a safe wrapper, or list the file with the reason why there is none",
        places.len()
    );
    Some(finding)
}

/// How far above an `unsafe` its reason may begin, in lines.
const SAFETY_ABOVE: usize = 5;

/// `unsafe` that does not say why it is sound.
fn unexplained<'a>(source: &'a Source<'_>) -> impl Iterator<Item = Finding> + 'a {
    let lines: Vec<&str> = source.file.text.lines().collect();
    source.code.words("unsafe").filter_map(move |at| {
        let line = source.code.line(at);
        let above = &lines[line.saturating_sub(SAFETY_ABOVE + 1)..line];
        let explained = above.iter().any(|line| line.contains("SAFETY") || line.contains("# Safety"));
        let message = "`unsafe` without a `// SAFETY:` above it: say why it is sound";
        (!explained).then(|| source.at("safety", at, message))
    })
}

/// `unwrap` and `expect` outside tests, counted by package.
fn panics(tree: &Tree, sources: &[Source<'_>]) -> Vec<Finding> {
    let mut by_package: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for source in sources {
        let Some(package) = tree.package_of(&source.file.path) else { continue };
        for call in [".unwrap()", ".expect("] {
            for (at, _) in source.code.text.match_indices(call) {
                if !source.in_test(at) {
                    let place = format!("{}:{}", source.file.path, source.code.line(at));
                    by_package.entry(package).or_default().push(place);
                }
            }
        }
    }
    by_package.into_iter().map(|(package, places)| panics_of(package, &places)).collect()
}

fn panics_of(package: &str, places: &[String]) -> Finding {
    Finding {
        rule: "unwraps",
        subject: package.to_owned(),
        amount: places.len(),
        place: places[0].clone(),
        message: format!(
            "{} calls of unwrap/expect outside tests in {package}: return the error, or write it so that it cannot \
             fail (at {})",
            places.len(),
            places.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(files: &[(&str, &str)]) -> Vec<String> {
        let mut files = files.to_vec();
        files.push(("a/Cargo.toml", "[package]"));
        let found = check(&Tree::of(&files));
        found.iter().map(|finding| format!("{} {}", finding.rule, finding.place)).collect()
    }

    #[test]
    fn a_good_file_passes() {
        assert!(
            rules(&[("a/src/lib.rs", "//! A.\n#[cfg(test)]\nmod t { fn x() { y.unwrap(); } }\n")]).is_empty()
        );
    }

    #[test]
    fn each_rule_finds_its_line() {
        let long = format!("//! L.\nfn long() {{\n{}}}\n", "x();\n".repeat(80));
        let found = rules(&[
            ("a/src/lib.rs", "// no\nfn a() { b.unwrap();\n todo!() }\n#[ignore]\nfn c() { unsafe {} }\n"),
            ("a/src/long.rs", &long),
            ("a/src/utils/mod.rs", "//! U."),
            ("a/src/big.rs", &"//! B.\n".repeat(501)),
        ]);
        let expected = [
            "header a/src/lib.rs:1",
            "left-behind a/src/lib.rs:3",
            "ignored a/src/lib.rs:4",
            "unsafe a/src/lib.rs:5",
            "safety a/src/lib.rs:5",
            "function-lines a/src/long.rs:2",
            "module-name a/src/utils/mod.rs:1",
            "file-lines a/src/big.rs:501",
            "unwraps a/src/lib.rs:2",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn modules_of_tests_in_other_files_are_tests() {
        let panicky = "//! T.\nfn a() { b.unwrap(); }";
        let found = rules(&[
            (
                "a/src/lib.rs",
                "//! A.\n#[cfg(test)]\nmod fakes;\n#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod tests;\n",
            ),
            ("a/src/fakes/deep.rs", panicky),
            ("a/src/b_tests.rs", panicky),
            ("a/tests/common/mod.rs", panicky),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }
}
