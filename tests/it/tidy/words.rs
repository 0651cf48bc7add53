//! What files say: words that may not appear, and comments that must.
//!
//! Forbidden words are put together from halves, so that this file passes its own checks.

use super::lexer::{Code, is_word};
use super::tree::{Problem, SourceFile};

/// Outside tests nothing unwraps and nothing is left for later.
pub(crate) fn unfinished(file: &SourceFile) -> Vec<Problem> {
    if file.is_test() {
        return Vec::new();
    }
    let code = Code::read(&file.text).without_tests();
    let tokens = code.tokens();
    let mut problems = Vec::new();
    for (at, (line, token)) in tokens.iter().enumerate() {
        let next = |ahead: usize| tokens.get(at + ahead).map_or("", |(_, token)| token.as_str());
        let before = at.checked_sub(1).map_or("", |before| tokens[before].1.as_str());
        let unwraps = token == "unwrap" && before == "." && next(1) == "(" && next(2) == ")";
        let placeholder = PLACEHOLDERS.contains(&token.as_str()) && next(1) == "!";
        if unwraps || placeholder {
            problems.push(Problem::new(*line, format!("`{token}` outside tests")));
        }
    }
    problems
}

/// Names say what a thing is, not that it does something with something.
pub(crate) fn names(file: &SourceFile) -> Vec<Problem> {
    let mut problems = Vec::new();
    for part in file.path.split('/') {
        let stem = part.strip_suffix(".rs").unwrap_or(part);
        if stem.split('_').any(|word| EMPTY_WORDS.contains(&word)) {
            problems.push(Problem::new(1, format!("`{stem}` says nothing about what is inside")));
        }
    }
    // The service traits take their method names from the protocol.
    let is_service = file.path.starts_with("src/orchestrator/service");
    let tokens = Code::read(&file.text).tokens();
    for pair in tokens.windows(2) {
        let ((_, keyword), (line, name)) = (&pair[0], &pair[1]);
        if !is_word(name) {
            continue;
        }
        let is_getter = keyword == "fn" && name.starts_with("get_") && !is_service;
        let is_type = matches!(keyword.as_str(), "struct" | "enum" | "trait" | "mod");
        let lower = name.to_lowercase();
        if is_getter || (is_type && EMPTY_WORDS.iter().any(|word| lower.ends_with(word))) {
            problems.push(Problem::new(*line, format!("`{name}`: say what it is")));
        }
    }
    problems
}

/// One spelling, so that one search finds all.
pub(crate) fn spelling(file: &SourceFile) -> Vec<Problem> {
    let wrong = ["neigh", "bor"].concat();
    matching_lines(file, |line| {
        line.to_lowercase().contains(&wrong).then(|| "spell it `neighbour`".to_owned())
    })
}

/// What holds on one machine only, or sends a build to one registry, stays out of the tree.
pub(crate) fn machine(file: &SourceFile) -> Vec<Problem> {
    matching_lines(file, |line| {
        let folder = FOLDERS.iter().map(|name| format!("/{name}/")).find(|name| {
            line.match_indices(name.as_str()).any(|(at, _)| starts_a_path(&line[..at]))
        });
        let host = HOSTS.iter().map(|halves| halves.concat()).find(|host| line.contains(host));
        folder.or(host).map(|found| format!("names `{found}`"))
    })
}

/// Every message, enum, service and rpc has a comment on the line above.
pub(crate) fn proto_comments(file: &SourceFile) -> Vec<Problem> {
    let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
    let mut problems = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let first = line.split_whitespace().next().unwrap_or("");
        let is_item = matches!(first, "message" | "enum" | "service" | "rpc");
        let commented = index > 0 && lines[index - 1].starts_with("//");
        if is_item && !commented {
            problems.push(Problem::new(index + 1, format!("no comment above `{line}`")));
        }
    }
    problems
}

fn matching_lines(file: &SourceFile, bad: impl Fn(&str) -> Option<String>) -> Vec<Problem> {
    let lines = file.text.lines().enumerate();
    lines.filter_map(|(index, line)| bad(line).map(|why| Problem::new(index + 1, why))).collect()
}

/// Whether what stands before a slash lets it begin an absolute path: not a name, not a `/`.
fn starts_a_path(before: &str) -> bool {
    !before.chars().next_back().is_some_and(|c| c.is_alphanumeric() || "._-/}~)*$".contains(c))
}

const PLACEHOLDERS: [&str; 3] = ["todo", "unimplemented", "dbg"];

const EMPTY_WORDS: [&str; 8] =
    ["manager", "handler", "helper", "helpers", "common", "util", "utils", "misc"];

/// First parts of paths that exist on some machines only.
const FOLDERS: [&str; 3] = ["work", "root", "home"];

/// In halves: see the top of this file.
const HOSTS: [[&str; 2]; 9] = [
    ["crates", ".io/"],
    ["static.", "crates.io"],
    ["index.", "crates.io"],
    ["py", "pi.org"],
    ["python", "hosted.org"],
    ["npm", "js.org"],
    ["docker", ".io/"],
    ["deb.", "debian.org"],
    ["proxy.", "golang.org"],
];

#[cfg(test)]
mod tests {
    use super::*;

    fn count(check: fn(&SourceFile) -> Vec<Problem>, path: &str, text: &str) -> usize {
        check(&SourceFile::new(path, text)).len()
    }

    #[test]
    fn unfinished_code_is_found_outside_tests() {
        for text in ["x.unwrap()", "x\n  .unwrap()", "todo!()", "dbg!(x)", "unimplemented!(\"y\")"]
        {
            assert_eq!(count(unfinished, "src/x.rs", text), 1, "{text}");
            assert_eq!(count(unfinished, "tests/it/x.rs", text), 0, "{text}");
            let tested = format!("#[cfg(test)]\nmod tests {{\n{text}\n}}");
            assert_eq!(count(unfinished, "src/x.rs", &tested), 0, "{text}");
        }
        let fine = "// x.unwrap()\nlet a = \"todo!()\"; x.unwrap_or(1);";
        assert_eq!(count(unfinished, "src/x.rs", fine), 0);
    }

    #[test]
    fn empty_names_are_found() {
        assert_eq!(count(names, "src/node/utils.rs", ""), 1);
        assert_eq!(count(names, "src/node/rule_manager.rs", ""), 1);
        assert_eq!(count(names, "src/x.rs", "struct RuleHandler;"), 1);
        assert_eq!(count(names, "src/x.rs", "fn get_rule() {}"), 1);
        assert_eq!(count(names, "src/orchestrator/service.rs", "fn get_rule() {}"), 0);
        assert_eq!(count(names, "src/x.rs", "struct Rule; fn target() {}"), 0);
    }

    #[test]
    fn the_other_spelling_is_found() {
        assert_eq!(count(spelling, "docs/x.md", &["a Neigh", "bors list"].concat()), 1);
        assert_eq!(count(spelling, "docs/x.md", "a neighbour"), 0);
    }

    #[test]
    fn a_machine_in_a_file_is_found() {
        for folder in FOLDERS {
            assert_eq!(count(machine, "docs/x.md", &format!("see `/{folder}/x`")), 1);
            assert_eq!(count(machine, "docs/x.md", &format!("see docs/{folder}/x")), 0);
        }
        for host in HOSTS {
            let text = ["https://", host[0], host[1], "x"].concat();
            assert_eq!(count(machine, "docs/x.md", &text), 1, "{text}");
        }
    }

    #[test]
    fn a_bare_message_is_found() {
        let text = "// A.\nmessage A {}\n\nmessage B {}\nservice C {\n  rpc D(A) returns (B);\n}\n";
        assert_eq!(count(proto_comments, "proto/x.proto", text), 3);
    }
}
