//! The files of the source tree, read once per check.
//!
//! Not a judge of their content. Invariant: paths are relative to the package, with `/`, sorted.

use std::fs;
use std::path::{Path, PathBuf};

/// One text file.
pub(crate) struct SourceFile {
    /// Relative to the package.
    pub(crate) path: String,
    /// As it stands on disk.
    pub(crate) text: String,
    /// Some file says `#[cfg(test)] mod …;` and means this one.
    declared_test: bool,
}

impl SourceFile {
    /// A file that is not on disk, for the tests of the checks.
    pub(crate) fn new(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.into(), text: text.into(), declared_test: false }
    }

    /// Whether all of it is test code, by where it lies or by how it is declared.
    pub(crate) fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or("");
        let lies_there = self.path.starts_with("tests/") || self.path.contains("/tests/");
        self.declared_test || lies_there || name == "tests.rs"
    }

    /// The paths, without ending, of the modules that this file declares for tests only.
    fn test_modules(&self) -> Vec<String> {
        let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let folder = match name {
            "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
            _ => format!("{folder}/{}", name.trim_end_matches(".rs")),
        };
        let mut modules = Vec::new();
        let mut for_tests = false;
        for line in self.text.lines().map(str::trim) {
            let declared = line.strip_suffix(';').and_then(|line| line.split_once("mod "));
            match declared {
                Some((_, module)) if for_tests => modules.push(format!("{folder}/{module}")),
                _ if line.starts_with("#[") && line != "#[cfg(test)]" => continue,
                _ => {}
            }
            for_tests = line == "#[cfg(test)]";
        }
        modules
    }
}

/// What is wrong, and on which line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// From 1.
    pub(crate) line: usize,
    /// One sentence.
    pub(crate) text: String,
}

impl Problem {
    pub(crate) fn new(line: usize, text: impl Into<String>) -> Problem {
        Problem { line, text: text.into() }
    }

    /// As compilers print it, so that editors can jump there.
    pub(crate) fn at(&self, path: &str) -> String {
        format!("{path}:{}: {}", self.line, self.text)
    }
}

/// Every Rust file of the package.
pub(crate) fn rust_files() -> Vec<SourceFile> {
    mark_tests(files(|path| path.ends_with(".rs")))
}

fn mark_tests(mut files: Vec<SourceFile>) -> Vec<SourceFile> {
    let modules: Vec<String> = files.iter().flat_map(SourceFile::test_modules).collect();
    for file in &mut files {
        let path = file.path.trim_end_matches(".rs");
        file.declared_test = modules.iter().any(|module| {
            path.strip_prefix(module.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('/'))
        });
    }
    files
}

/// Every protobuf file.
pub(crate) fn proto_files() -> Vec<SourceFile> {
    files(|path| path.ends_with(".proto"))
}

/// Every text file that people write; the lock file is written by cargo.
pub(crate) fn text_files() -> Vec<SourceFile> {
    files(|path| path != "Cargo.lock")
}

fn files(wanted: impl Fn(&str) -> bool) -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for entry in fs::read_dir(root).expect("the package can be listed").flatten() {
        if entry.path().is_file() {
            paths.push(entry.path());
        }
    }
    for folder in FOLDERS {
        walk(&root.join(folder), &mut paths);
    }
    paths.sort();
    paths.iter().filter_map(|path| read(root, path, &wanted)).collect()
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, paths);
        } else {
            paths.push(path);
        }
    }
}

/// `None` for what is not wanted, not text, or private to one checkout (`.git` of a worktree).
fn read(root: &Path, path: &Path, wanted: impl Fn(&str) -> bool) -> Option<SourceFile> {
    let relative = path.strip_prefix(root).ok()?.to_str()?.replace('\\', "/");
    if relative == ".git" || !wanted(&relative) {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    Some(SourceFile::new(&relative, &text))
}

/// Folders that hold what people wrote; `target/` and `.git/` hold what machines did.
const FOLDERS: [&str; 7] = ["src", "tests", "docs", "proto", "benches", "fuzz/fuzz_targets", ".ci"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_declared_for_tests_are_test_code() {
        let declares = "#[cfg(test)]\n#[allow(missing_docs)]\nmod samples;\nmod real;\n";
        let paths =
            ["src/x/samples.rs", "src/x/samples/a.rs", "src/x/real.rs", "src/x/samples2.rs"];
        let mut all = vec![SourceFile::new("src/x/mod.rs", declares)];
        all.extend(paths.map(|path| SourceFile::new(path, "")));
        let tests: Vec<bool> = mark_tests(all).iter().map(SourceFile::is_test).collect();
        assert_eq!(tests, [false, true, true, false, false]);
        let beside = vec![
            SourceFile::new("src/x/y.rs", "#[cfg(test)]\nmod cases;"),
            SourceFile::new("src/x/y/cases.rs", ""),
        ];
        assert!(mark_tests(beside)[1].is_test());
    }
}
