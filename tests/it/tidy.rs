//! The rules of the house, held by a test: shape, words and floors of the source tree.
//!
//! Not a compiler: it reads text, so it knows a little lexing and no types. Invariant: every check
//! is a function from one file to its problems, and is shown to fail on a bad snippet beside it.

mod floors;
mod lexer;
mod shape;
mod tree;
mod words;

use tree::{Problem, SourceFile};

/// Runs one check over all files and fails with every problem at once.
fn hold(rule: &str, files: &[SourceFile], check: impl Fn(&SourceFile) -> Vec<Problem>) {
    let problems: Vec<String> = files
        .iter()
        .flat_map(|file| {
            check(file).into_iter().map(move |problem| problem.at(&file.path)).collect::<Vec<_>>()
        })
        .collect();
    assert!(problems.is_empty(), "{rule}\n  {}\n", problems.join("\n  "));
}

#[test]
fn the_tree_is_found() {
    let files = tree::rust_files();
    for path in ["src/lib.rs", "src/main.rs", "tests/it/tidy.rs"] {
        assert!(files.iter().any(|file| file.path == path), "{path} was not walked");
    }
    assert!(tree::text_files().iter().any(|file| file.path == "Cargo.toml"));
    assert!(tree::proto_files().iter().any(|file| file.path.ends_with("rule.proto")));
}

#[test]
fn every_rust_file_says_what_it_is() {
    hold("a .rs file opens with `//!`", &tree::rust_files(), shape::opening);
}

#[test]
fn files_stay_small() {
    hold("a file holds one concept: name the second", &tree::rust_files(), shape::file_length);
}

#[test]
fn functions_fit_a_screen() {
    hold("a function fits a screen", &tree::rust_files(), shape::function_length);
}

#[test]
fn lines_stay_narrow() {
    hold("100 columns", &tree::rust_files(), shape::line_length);
}

#[test]
fn unsafe_code_is_forbidden() {
    let files = tree::rust_files();
    let library = files.iter().find(|file| file.path == "src/lib.rs").expect("src/lib.rs");
    hold("no unsafe code", std::slice::from_ref(library), shape::forbids_unsafe);
}

#[test]
fn nothing_half_done_is_landed() {
    hold("no unwrap, no placeholders outside tests", &tree::rust_files(), words::unfinished);
}

#[test]
fn names_say_what_things_are() {
    hold("no get_, manager, handler, helper, common, utils", &tree::rust_files(), words::names);
}

#[test]
fn decisions_are_apart_from_io() {
    hold("model, engine and routing do no IO", &tree::rust_files(), floors::pure);
}

#[test]
fn only_wire_names_generated_types() {
    hold("generated types stay in wire", &tree::rust_files(), floors::generated);
}

#[test]
fn serialisation_stays_at_the_edges() {
    hold("serde lives in wire and at the edges", &tree::rust_files(), floors::serialised);
}

#[test]
fn floors_never_name_higher_ones() {
    hold("a floor names only floors below", &tree::rust_files(), floors::upward);
}

#[test]
fn neighbour_is_spelt_one_way() {
    hold("neighbour, with u", &tree::text_files(), words::spelling);
}

#[test]
fn no_file_names_a_machine() {
    hold("no path or registry of one machine", &tree::text_files(), words::machine);
}

#[test]
fn every_message_and_rpc_is_commented() {
    hold("a comment above it", &tree::proto_files(), words::proto_comments);
}
