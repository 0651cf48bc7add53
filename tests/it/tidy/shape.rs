//! How files look: their opening, their length, their functions and their lines.
//!
//! Not what they say; that is `words` and `floors`.

use super::lexer::Code;
use super::tree::{Problem, SourceFile};

/// A file opens by saying what it is.
pub(crate) fn opening(file: &SourceFile) -> Vec<Problem> {
    if file.text.starts_with("//!") {
        return Vec::new();
    }
    vec![Problem::new(1, "the file does not open with `//!`")]
}

/// Code before the test module, comments included, stays below the limit.
pub(crate) fn file_length(file: &SourceFile) -> Vec<Problem> {
    let lines: Vec<&str> = file.text.lines().collect();
    let code = Code::read(&file.text).without_tests();
    let last = code.lines.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |at| at + 1);
    // A file of comments only has no code line; it still has a length.
    let length = if last == 0 { lines.len() } else { last };
    if length < FILE_LINES {
        return Vec::new();
    }
    vec![Problem::new(length, format!("{length} lines; the limit is {FILE_LINES}"))]
}

/// From the line with `fn` to its closing brace.
pub(crate) fn function_length(file: &SourceFile) -> Vec<Problem> {
    let tokens = Code::read(&file.text).tokens();
    let mut problems = Vec::new();
    for (at, (line, token)) in tokens.iter().enumerate() {
        if token != "fn" {
            continue;
        }
        let Some(end) = body_end(&tokens[at..]) else { continue };
        let length = end + 1 - line;
        if length > FUNCTION_LINES {
            let name = tokens.get(at + 1).map_or("", |(_, name)| name.as_str());
            problems.push(Problem::new(
                *line,
                format!("`{name}` has {length} lines; the limit is {FUNCTION_LINES}"),
            ));
        }
    }
    problems
}

/// Where the body that follows ends; `None` for a declaration without body and for `fn` types.
fn body_end(tokens: &[(usize, String)]) -> Option<usize> {
    let mut braces = 0usize;
    let mut others = 0usize;
    for (line, token) in tokens {
        match token.as_str() {
            "(" | "[" => others += 1,
            ")" | "]" if others == 0 => return None,
            ")" | "]" => others -= 1,
            ";" | "," | "=" if braces == 0 && others == 0 => return None,
            "{" => braces += 1,
            "}" if braces == 0 => return None,
            "}" if braces == 1 => return Some(*line),
            "}" => braces -= 1,
            _ => {}
        }
    }
    None
}

/// Raw strings may hold wide things: they are data.
pub(crate) fn line_length(file: &SourceFile) -> Vec<Problem> {
    let raw_lines = Code::read(&file.text).raw_lines;
    file.text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.chars().count()))
        .filter(|(line, width)| *width > COLUMNS && !raw_lines.contains(line))
        .map(|(line, width)| Problem::new(line, format!("{width} columns; the limit is {COLUMNS}")))
        .collect()
}

/// The lint in `Cargo.toml` can be switched off from the command line; the attribute cannot.
pub(crate) fn forbids_unsafe(file: &SourceFile) -> Vec<Problem> {
    if Code::read(&file.text).lines.iter().any(|line| line.trim() == "#![forbid(unsafe_code)]") {
        return Vec::new();
    }
    vec![Problem::new(1, "`#![forbid(unsafe_code)]` is missing")]
}

/// A file that reaches this holds two concepts.
const FILE_LINES: usize = 600;
/// What fits a screen; clippy's `too_many_lines` counts the same without comments.
const FUNCTION_LINES: usize = 70;
/// As in `rustfmt.toml`, which leaves comments and strings alone.
const COLUMNS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> SourceFile {
        SourceFile::new("src/x.rs", text)
    }

    #[test]
    fn a_file_without_opening_is_found() {
        assert!(opening(&file("//! X.\n")).is_empty());
        assert_eq!(opening(&file("// X.\n")).len(), 1);
        assert_eq!(opening(&file("")).len(), 1);
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        let long = "let x = 1;\n".repeat(FILE_LINES);
        assert_eq!(file_length(&file(&long)).len(), 1);
        assert!(file_length(&file(&"let x = 1;\n".repeat(FILE_LINES - 1))).is_empty());
        let tested = format!("fn x() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        assert!(file_length(&file(&tested)).is_empty());
    }

    #[test]
    fn a_long_function_is_found() {
        let of = |lines: usize| format!("impl X {{\nfn x() {{\n{}}}\n}}\n", "y();\n".repeat(lines));
        assert!(function_length(&file(&of(FUNCTION_LINES - 2))).is_empty());
        assert_eq!(function_length(&file(&of(FUNCTION_LINES - 1)))[0].line, 2);
        let after = "trait X {\nfn x();\n}\n".to_owned() + &"\n".repeat(100) + "struct Y {}\n";
        assert!(function_length(&file(&after)).is_empty());
        let array = format!("fn x() -> [u8; 4] {{\n{}}}\n", "y();\n".repeat(FUNCTION_LINES));
        assert_eq!(function_length(&file(&array)).len(), 1);
    }

    #[test]
    fn a_wide_line_is_found_outside_raw_strings() {
        let wide = "x".repeat(COLUMNS + 1);
        assert_eq!(line_length(&file(&format!("//! {wide}\n"))).len(), 1);
        assert!(line_length(&file(&format!("//! X\nlet x = r\"{wide}\";\n"))).is_empty());
        assert!(line_length(&file(&"é".repeat(COLUMNS))).is_empty());
    }

    #[test]
    fn missing_forbid_is_found() {
        assert_eq!(forbids_unsafe(&file("// #![forbid(unsafe_code)]\n")).len(), 1);
        assert!(forbids_unsafe(&file("//! X.\n#![forbid(unsafe_code)]\n")).is_empty());
    }
}
