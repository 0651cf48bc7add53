//! A mapping of the schema: typed reading of its keys, every fault noted, never the first only.
//!
//! Knows nothing of rules. Invariant: a reader that gives back nothing for a key that is there
//! has noted why.

use std::ops::RangeInclusive;

use crate::model::limits::SECTION_KEYS;
use crate::wire::rule_problems::{Findings, Flaw, ProblemCode, did_you_mean, quoted};
use crate::wire::tree::Tree;

/// A mapping whose keys have been looked over.
pub(in crate::wire) struct Section<'a> {
    entries: &'a [(String, Tree)],
    /// JSON pointer to the mapping.
    pub(in crate::wire) at: String,
}

impl<'a> Section<'a> {
    /// Takes a mapping with no other keys than these, none of them twice.
    pub(in crate::wire) fn open(
        tree: &'a Tree,
        at: String,
        keys: &[&str],
        findings: &mut Findings,
    ) -> Option<Section<'a>> {
        let Tree::Map(entries) = tree else {
            findings.add(&at, wrong_type("a mapping", tree));
            return None;
        };
        if entries.len() > SECTION_KEYS {
            findings.add(&at, too_many(entries.len(), SECTION_KEYS));
            return None;
        }
        let section = Section { entries, at };
        for (index, (key, _)) in entries.iter().enumerate() {
            if !keys.contains(&key.as_str()) {
                let mut flaw = Flaw::new(format!("there is no key {} here", quoted(key)));
                flaw.hint = did_you_mean(key, keys);
                findings.add(&section.place(key), flaw.code(ProblemCode::UnknownKey));
            } else if entries[..index].iter().any(|(earlier, _)| earlier == key) {
                findings.note(&section.place(key), ProblemCode::Duplicate, "this key stands twice");
            }
        }
        Some(section)
    }

    /// Takes a mapping of which exactly one key may be given, and says which one.
    pub(in crate::wire) fn open_choice(
        tree: &'a Tree,
        at: String,
        keys: &[&'static str],
        findings: &mut Findings,
    ) -> Option<(Section<'a>, &'static str)> {
        let section = Section::open(tree, at, keys, findings)?;
        let key = section.choice(keys, findings)?;
        Some((section, key))
    }

    /// The one key of these that is given.
    pub(in crate::wire) fn choice(
        &self,
        keys: &[&'static str],
        findings: &mut Findings,
    ) -> Option<&'static str> {
        let given: Vec<&'static str> = keys.iter().copied().filter(|k| self.has(k)).collect();
        match given[..] {
            [key] => Some(key),
            [] => {
                let detail = format!("needs one of {}", keys.join(", "));
                findings.note(&self.at, ProblemCode::Missing, detail);
                None
            }
            _ => {
                let detail = format!("only one of {} may be given", given.join(", "));
                findings.note(&self.at, ProblemCode::Conflict, detail);
                None
            }
        }
    }

    /// JSON pointer to a key.
    pub(in crate::wire) fn place(&self, key: &str) -> String {
        place(&self.at, key)
    }

    /// Whether the key is given.
    pub(in crate::wire) fn has(&self, key: &str) -> bool {
        self.tree(key).is_some()
    }

    /// What stands under the key.
    pub(in crate::wire) fn tree(&self, key: &str) -> Option<&'a Tree> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, tree)| tree)
    }

    /// Notes that the key has to be given, if it is not.
    pub(in crate::wire) fn require(&self, key: &str, findings: &mut Findings) {
        if !self.has(key) {
            findings.note(&self.place(key), ProblemCode::Missing, "has to be given");
        }
    }

    /// The text under the key.
    pub(in crate::wire) fn text(&self, key: &str, findings: &mut Findings) -> Option<&'a str> {
        text(self.tree(key)?, &self.place(key), findings)
    }

    /// The text under the key, read as something.
    pub(in crate::wire) fn read<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, Flaw>,
        findings: &mut Findings,
    ) -> Option<T> {
        let text = self.text(key, findings)?;
        findings.take(&self.place(key), parse(text))
    }

    /// The whole number under the key.
    pub(in crate::wire) fn whole(
        &self,
        key: &str,
        range: RangeInclusive<u32>,
        findings: &mut Findings,
    ) -> Option<u32> {
        let tree = self.tree(key)?;
        let Tree::Number(number) = tree else {
            let mut flaw = wrong_type("a whole number", tree);
            if let Tree::Text(text) = tree
                && text.parse::<u32>().is_ok()
            {
                flaw = flaw.hint("write it without quotes");
            }
            findings.add(&self.place(key), flaw);
            return None;
        };
        let (least, most) = (*range.start(), *range.end());
        let read = number
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                Flaw::new(format!("{number} is not a whole number from {least} to {most}"))
            });
        findings.take(&self.place(key), read)
    }

    /// The boolean under the key.
    pub(in crate::wire) fn flag(&self, key: &str, findings: &mut Findings) -> Option<bool> {
        match self.tree(key)? {
            Tree::Flag(flag) => Some(*flag),
            other => {
                findings.add(&self.place(key), wrong_type("true or false", other));
                None
            }
        }
    }

    /// A key that says all by being there.
    pub(in crate::wire) fn only_true(&self, key: &str, findings: &mut Findings) -> Option<()> {
        let flag = self.flag(key, findings)?;
        let flaw = Flaw::new("can only be true").hint("leave the key out");
        findings.take(&self.place(key), flag.then_some(()).ok_or(flaw))
    }

    /// The items of the list under the key, each with its pointer; none where it is not given.
    pub(in crate::wire) fn list(
        &self,
        key: &str,
        most: usize,
        findings: &mut Findings,
    ) -> Vec<(String, &'a Tree)> {
        match self.tree(key) {
            None => Vec::new(),
            Some(Tree::List(items)) if items.len() <= most => {
                let at = self.place(key);
                let pointer = |index| format!("{at}/{index}");
                items.iter().enumerate().map(|(index, item)| (pointer(index), item)).collect()
            }
            Some(Tree::List(items)) => {
                findings.add(&self.place(key), too_many(items.len(), most));
                Vec::new()
            }
            Some(other) => {
                findings.add(&self.place(key), wrong_type("a list", other));
                Vec::new()
            }
        }
    }

    /// The list of texts under the key, each read as something; repetitions are faults.
    pub(in crate::wire) fn read_list<T: PartialEq>(
        &self,
        key: &str,
        most: usize,
        parse: impl Fn(&str) -> Result<T, Flaw>,
        findings: &mut Findings,
    ) -> Vec<T> {
        let mut values = Vec::new();
        for (at, item) in self.list(key, most, findings) {
            let Some(text) = text(item, &at, findings) else { continue };
            let Some(value) = findings.take(&at, parse(text)) else { continue };
            if values.contains(&value) {
                let detail = format!("{} stands here twice", quoted(text));
                findings.note(&at, ProblemCode::Duplicate, detail);
            } else {
                values.push(value);
            }
        }
        values
    }

    /// The mapping of names to texts under the key, each with its pointer.
    pub(in crate::wire) fn pairs(
        &self,
        key: &str,
        most: usize,
        findings: &mut Findings,
    ) -> Vec<(String, &'a str, &'a str)> {
        let at = self.place(key);
        match self.tree(key) {
            None => Vec::new(),
            Some(Tree::Map(entries)) if entries.len() <= most => entries
                .iter()
                .filter_map(|(name, tree)| {
                    let at = place(&at, name);
                    let value = text(tree, &at, findings)?;
                    Some((at, name.as_str(), value))
                })
                .collect(),
            Some(Tree::Map(entries)) => {
                findings.add(&at, too_many(entries.len(), most));
                Vec::new()
            }
            Some(other) => {
                findings.add(&at, wrong_type("a mapping", other));
                Vec::new()
            }
        }
    }

    /// The mapping under the key, with no other keys than these.
    pub(in crate::wire) fn section(
        &self,
        key: &str,
        keys: &[&str],
        findings: &mut Findings,
    ) -> Option<Section<'a>> {
        Section::open(self.tree(key)?, self.place(key), keys, findings)
    }
}

/// JSON pointer (RFC 6901) to a key of the mapping at a pointer.
pub(in crate::wire) fn place(at: &str, key: &str) -> String {
    if key.contains(['~', '/']) {
        format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"))
    } else {
        format!("{at}/{key}")
    }
}

/// The text that stands here.
pub(in crate::wire) fn text<'a>(
    tree: &'a Tree,
    at: &str,
    findings: &mut Findings,
) -> Option<&'a str> {
    if let Tree::Text(text) = tree {
        return Some(text);
    }
    let flaw = wrong_type("text", tree);
    findings.add(
        at,
        match tree {
            Tree::Number(_) | Tree::Flag(_) => flaw.hint("put it in quotes"),
            _ => flaw,
        },
    );
    None
}

fn wrong_type(wanted: &str, found: &Tree) -> Flaw {
    let flaw = Flaw::new(format!("expected {wanted}, found {}", found.describe()))
        .code(ProblemCode::WrongType);
    if *found == Tree::Null { flaw.hint("leave the key out, or give a value") } else { flaw }
}

fn too_many(found: usize, most: usize) -> Flaw {
    Flaw::new(format!("{found} entries, at most {most} are taken")).code(ProblemCode::TooLarge)
}
