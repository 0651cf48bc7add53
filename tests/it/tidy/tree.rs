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
}

impl SourceFile {
    /// A file that is not on disk, for the tests of the checks.
    pub(crate) fn new(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.into(), text: text.into() }
    }

    /// Whether all of it is test code by where it lies.
    pub(crate) fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or("");
        self.path.starts_with("tests/") || name == "tests.rs" || self.path.contains("/tests/")
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
    files(|path| path.ends_with(".rs"))
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
    Some(SourceFile { path: relative, text })
}

/// Folders that hold what people wrote; `target/` and `.git/` hold what machines did.
const FOLDERS: [&str; 7] = ["src", "tests", "docs", "proto", "benches", "fuzz/fuzz_targets", ".ci"];
