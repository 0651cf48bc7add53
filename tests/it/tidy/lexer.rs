//! Just enough lexing to read Rust as code: without comments, literals and test modules.
//!
//! Not a parser. Invariant: a `Code` has as many lines as its text, so line numbers agree.

use std::collections::BTreeSet;

/// Rust source with comments and the contents of literals blanked out.
pub(crate) struct Code {
    /// One string per line of the text.
    pub(crate) lines: Vec<String>,
    /// Lines (from 1) that a raw string touches.
    pub(crate) raw_lines: BTreeSet<usize>,
}

impl Code {
    /// Blanks everything that is not code.
    pub(crate) fn read(text: &str) -> Code {
        let mut reader = Reader { chars: text.chars().collect(), ..Reader::default() };
        reader.run();
        Code {
            lines: reader.out.split('\n').map(str::to_owned).collect(),
            raw_lines: reader.raw_lines,
        }
    }

    /// The same without `#[cfg(test)] mod … { … }`; what follows such a module is kept.
    pub(crate) fn without_tests(mut self) -> Code {
        let mut at = 0;
        while at < self.lines.len() {
            if self.opens_test_module(at) {
                let end = self.block_end(at).unwrap_or(self.lines.len() - 1);
                self.lines[at..=end].iter_mut().for_each(String::clear);
                at = end;
            }
            at += 1;
        }
        self
    }

    /// The words and marks of the code, each with its line from 1.
    pub(crate) fn tokens(&self) -> Vec<(usize, String)> {
        let mut tokens = Vec::new();
        for (index, line) in self.lines.iter().enumerate() {
            let chars: Vec<char> = line.chars().collect();
            let mut at = 0;
            while at < chars.len() {
                let len = token_length(&chars[at..]);
                if !chars[at].is_whitespace() {
                    tokens.push((index + 1, chars[at..at + len].iter().collect()));
                }
                at += len;
            }
        }
        tokens
    }

    /// Every path that is named; `use a::{b, c::d}` is `a::b` and `a::c::d`.
    pub(crate) fn paths(&self) -> Vec<(usize, Vec<String>)> {
        let tokens = self.tokens();
        let mut paths = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            if tokens[at].1 == "use" {
                at = use_tree(&tokens, at + 1, &[], &mut paths);
            } else if is_word(&tokens[at].1) {
                at = plain_path(&tokens, at, &mut paths);
            } else {
                at += 1;
            }
        }
        paths
    }

    /// The last line of the block that opens on or after line `start` (both from 0).
    fn block_end(&self, start: usize) -> Option<usize> {
        let mut depth = 0usize;
        for (index, line) in self.lines.iter().enumerate().skip(start) {
            for mark in line.chars() {
                match mark {
                    '{' => depth += 1,
                    '}' if depth == 1 => return Some(index),
                    '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
        }
        None
    }

    fn opens_test_module(&self, at: usize) -> bool {
        let line = self.lines[at].trim();
        let Some(rest) = line.strip_prefix("#[cfg(test)]") else { return false };
        let following = std::iter::once(rest).chain(self.lines[at + 1..].iter().map(|l| l.trim()));
        following
            .filter(|line| !line.is_empty() && !line.starts_with("#["))
            .take(1)
            .any(|line| line.split_whitespace().any(|word| word == "mod") && line.ends_with('{'))
    }
}

/// Whether a token is a name or a number, not a mark.
pub(crate) fn is_word(token: &str) -> bool {
    token.chars().next().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

fn token_length(chars: &[char]) -> usize {
    let in_word = |c: &&char| c.is_alphanumeric() || **c == '_';
    match chars {
        [':', ':', ..] => 2,
        [first, ..] if in_word(&first) => chars.iter().take_while(in_word).count(),
        _ => 1,
    }
}

/// Reads `a::b::c` from `at`; paths of one word are names, not paths, and are left out.
fn plain_path(
    tokens: &[(usize, String)],
    mut at: usize,
    paths: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let line = tokens[at].0;
    let mut path = vec![tokens[at].1.clone()];
    at += 1;
    while at + 1 < tokens.len() && tokens[at].1 == "::" && is_word(&tokens[at + 1].1) {
        path.push(tokens[at + 1].1.clone());
        at += 2;
    }
    if path.len() > 1 {
        paths.push((line, path));
    }
    at
}

/// Spreads one level of a `use` tree; returns the place after it.
fn use_tree(
    tokens: &[(usize, String)],
    mut at: usize,
    prefix: &[String],
    paths: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let mut path = prefix.to_vec();
    let mut spread = false;
    while let Some((line, token)) = tokens.get(at) {
        match token.as_str() {
            "{" => {
                spread = true;
                at += 1;
                while tokens.get(at).is_some_and(|(_, token)| token != "}") {
                    at = use_tree(tokens, at, &path, paths);
                    if tokens.get(at).is_some_and(|(_, token)| token == ",") {
                        at += 1;
                    }
                }
            }
            "," | "}" | ";" => {
                if !spread {
                    paths.push((*line, path));
                }
                return if token == ";" { at + 1 } else { at };
            }
            "as" => at += 1,
            "::" => {}
            _ => path.push(token.clone()),
        }
        at += 1;
    }
    at
}

#[derive(Default)]
struct Reader {
    chars: Vec<char>,
    at: usize,
    line: usize,
    out: String,
    raw_lines: BTreeSet<usize>,
}

impl Reader {
    fn run(&mut self) {
        self.line = 1;
        while let Some(&mark) = self.chars.get(self.at) {
            match mark {
                '/' if self.peek(1) == Some('/') => self.blank_while(|reader| reader.is_on_line()),
                '/' if self.peek(1) == Some('*') => self.block_comment(),
                '"' => self.string(),
                'r' | 'b' | 'c' if !self.in_word() => self.maybe_literal(),
                '\'' => self.character_or_lifetime(),
                _ => self.keep(),
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn in_word(&self) -> bool {
        self.at > 0 && {
            let before = self.chars[self.at - 1];
            before.is_alphanumeric() || before == '_'
        }
    }

    fn is_on_line(&self) -> bool {
        self.peek(0).is_some_and(|mark| mark != '\n')
    }

    fn keep(&mut self) {
        if let Some(mark) = self.peek(0) {
            self.out.push(mark);
            self.line += usize::from(mark == '\n');
            self.at += 1;
        }
    }

    fn blank(&mut self) {
        if let Some(mark) = self.peek(0) {
            self.out.push(if mark == '\n' { '\n' } else { ' ' });
            self.line += usize::from(mark == '\n');
            self.at += 1;
        }
    }

    fn blank_while(&mut self, more: impl Fn(&Reader) -> bool) {
        while self.at < self.chars.len() && more(self) {
            self.blank();
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0usize;
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => depth += 1,
                (Some('*'), Some('/')) => depth -= 1,
                _ => {
                    self.blank();
                    continue;
                }
            }
            self.blank();
            self.blank();
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.keep();
        while let Some(mark) = self.peek(0) {
            match mark {
                '"' => return self.keep(),
                '\\' => {
                    self.blank();
                    self.blank();
                }
                _ => self.blank(),
            }
        }
    }

    /// `r"…"`, `r#"…"#`, `b"…"`, `br"…"`, `c"…"`; anything else is a plain letter.
    fn maybe_literal(&mut self) {
        let prefix = self.chars[self.at..].iter().take_while(|c| c.is_ascii_lowercase()).count();
        let hashes = self.chars[self.at + prefix..].iter().take_while(|c| **c == '#').count();
        let word: String = self.chars[self.at..self.at + prefix].iter().collect();
        let quoted = self.peek(prefix + hashes) == Some('"');
        let is_raw = matches!(word.as_str(), "r" | "br" | "cr");
        if quoted && is_raw {
            return self.raw_string(prefix + hashes, hashes);
        }
        self.keep();
    }

    fn raw_string(&mut self, before_quote: usize, hashes: usize) {
        let first = self.line;
        (0..=before_quote).for_each(|_| self.keep());
        let closes = |reader: &Reader| {
            reader.peek(0) == Some('"') && (1..=hashes).all(|ahead| reader.peek(ahead) == Some('#'))
        };
        self.blank_while(|reader| !closes(reader));
        (0..=hashes).for_each(|_| self.keep());
        self.raw_lines.extend(first..=self.line);
    }

    /// `'x'` and `'\n'` are literals, `'static` is not.
    fn character_or_lifetime(&mut self) {
        let is_character = self.peek(1) == Some('\\') || self.peek(2) == Some('\'');
        self.keep();
        if !is_character {
            return;
        }
        if self.peek(0) == Some('\\') {
            self.blank();
        }
        self.blank();
        self.blank_while(|reader| reader.is_on_line() && reader.peek(0) != Some('\''));
        self.keep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Code::read(text).lines.join("\n")
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        assert_eq!(code("a // b.unwrap()\nc").replace(' ', ""), "a\nc");
        assert_eq!(code("a /* x /* y */ z */ b").replace(' ', ""), "ab");
        assert_eq!(code(r#"a("todo!(\"x\")")"#).replace(' ', ""), r#"a("")"#);
        assert_eq!(code("r##\"x\"# {\"## y").replace(' ', ""), "r##\"\"##y");
        assert_eq!(code("'{' '\\'' '\\u{7f}' &'a str").replace(' ', ""), "''''''&'astr");
    }

    #[test]
    fn raw_strings_are_known_by_line() {
        let read = Code::read("a\nr\"b\nc\"\nd");
        assert_eq!(read.raw_lines, BTreeSet::from([2, 3]));
        assert_eq!(read.lines.len(), 4);
    }

    #[test]
    fn test_modules_are_cut_out_and_the_rest_is_kept() {
        let text = "a\n#[cfg(test)]\nmod tests {\n  fn x() {}\n}\nb\n#[cfg(test)]\nmod other;\nc";
        let kept = Code::read(text).without_tests().lines.join(" ");
        assert!(kept.contains('a') && kept.contains('b') && kept.contains('c'));
        assert!(!kept.contains('x'));
    }

    #[test]
    fn use_trees_are_spread_out() {
        let read = Code::read("use std::{fmt, net::{IpAddr as Ip, *}};\nlet x = a::b::<C>();");
        let paths: Vec<String> = read.paths().into_iter().map(|(_, p)| p.join("::")).collect();
        let all = ["std::fmt", "std::net::IpAddr", "std::net::*", "a::b"];
        assert_eq!(paths, all);
    }
}
