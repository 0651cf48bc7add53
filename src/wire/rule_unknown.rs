//! Fields in the bytes of a rule that its schema does not have.
//!
//! prost passes such fields over in silence, which is right between processes and wrong at a door
//! where a person writes. Not a decoder: malformed bytes end the walk, and decoding reports them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet};

use crate::model::limits::{DOCUMENT_DEPTH, PROBLEMS};
use crate::wire::proto;
use crate::wire::rule_problems::{Findings, Flaw, Problem, ProblemCode, Problems};
use crate::wire::rule_schema::section::place;

/// A problem for each field that a request to the rule service has and its schema has not;
/// `request` is the name of its message.
pub(crate) fn request_unknown_fields(request: &str, bytes: &[u8]) -> Option<Problems> {
    let mut problems = Vec::new();
    walk(bytes, &format!(".tradewind.v1.{request}"), "", DOCUMENT_DEPTH, &mut problems);
    let mut findings = Findings::default();
    for Problem { pointer, code, detail, hint } in problems {
        findings.add(&pointer, Flaw { code, detail, hint });
    }
    findings.finish(Some(())).err()
}

/// A field as the walk needs it.
struct Field {
    name: String,
    repeated: bool,
    /// The full name of its message, where it is one.
    message: Option<String>,
}

/// The fields of every message by number, by full name of the message.
static MESSAGES: LazyLock<BTreeMap<String, BTreeMap<u64, Field>>> = LazyLock::new(|| {
    let mut messages = BTreeMap::new();
    // Our own bytes, made by the build; were they unreadable, every field would be unknown.
    let files = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap_or_default().file;
    for file in &files {
        for message in &file.message_type {
            add(&format!(".{}", file.package()), message, &mut messages);
        }
    }
    messages
});

fn add(
    scope: &str,
    message: &DescriptorProto,
    messages: &mut BTreeMap<String, BTreeMap<u64, Field>>,
) {
    use prost_types::field_descriptor_proto::{Label, Type};
    let name = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        add(&name, nested, messages);
    }
    let fields = message.field.iter().filter_map(|field| {
        let name = field.json_name.as_deref().unwrap_or(field.name()).to_owned();
        let is_message = field.r#type() == Type::Message;
        let message = is_message.then(|| field.type_name().to_owned());
        let repeated = field.label() == Label::Repeated;
        Some((u64::try_from(field.number()).ok()?, Field { name, repeated, message }))
    });
    messages.insert(name, fields.collect());
}

/// Walks one message; nothing once the bytes make no sense.
fn walk(
    mut bytes: &[u8],
    message: &str,
    at: &str,
    levels: usize,
    problems: &mut Vec<Problem>,
) -> Option<()> {
    let levels = levels.checked_sub(1)?;
    let fields = MESSAGES.get(message)?;
    let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let number = key >> 3;
        let content = content(key & 7, &mut bytes)?;
        let Some(field) = fields.get(&number) else {
            if problems.len() == PROBLEMS {
                return None;
            }
            problems.push(Problem {
                pointer: at.to_owned(),
                code: ProblemCode::UnknownKey,
                detail: format!("there is no field with the number {number} here"),
                hint: Some(String::from("it may belong to a later release")),
            });
            continue;
        };
        let index = seen.entry(number).or_default();
        if let Some(message) = &field.message {
            let mut at = place(at, &field.name);
            if field.repeated {
                at = format!("{at}/{index}");
            }
            walk(content, message, &at, levels, problems)?;
        }
        *index += 1;
    }
    Some(())
}

/// The content of a field of this wire type; empty where it is a number.
fn content<'a>(wire_type: u64, bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = match wire_type {
        0 => {
            varint(bytes)?;
            return Some(&[]);
        }
        1 => 8,
        2 => usize::try_from(varint(bytes)?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (content, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(if wire_type == 2 { content } else { &[] })
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A problem for each field of an encoded `proto::RuleData` that the schema does not have.
    fn rule_unknown_fields(bytes: &[u8]) -> Vec<Problem> {
        let mut problems = Vec::new();
        walk(bytes, ".tradewind.v1.RuleData", "/data", DOCUMENT_DEPTH, &mut problems);
        problems
    }

    /// Field 900, a varint.
    const LATER: [u8; 3] = [0xa0, 0x38, 0x01];

    fn nested(number: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        [&[number << 3 | 2, length], content].concat()
    }

    #[test]
    fn every_unknown_field_is_found_where_it_stands() {
        let target = nested(3, &LATER);
        let labels = nested(11, &nested(2, &nested(3, b"x")));
        let matching = nested(1, &nested(2, &nested(1, &LATER)));
        let bytes = [&LATER[..], &target, &nested(3, b""), &target, &labels, &matching].concat();
        let places: Vec<String> =
            rule_unknown_fields(&bytes).into_iter().map(|problem| problem.pointer).collect();
        let wanted = [
            "/data",
            "/data/targets/0",
            "/data/targets/2",
            "/data/nodes/labels/0",
            "/data/match/any/0/path",
        ];
        assert_eq!(places, wanted);
    }

    #[test]
    fn a_rule_of_this_release_has_none_and_nonsense_ends_the_walk() {
        let rule = proto::RuleData {
            targets: vec![proto::Target { weight: Some(7), ..Default::default() }],
            timeouts: Some(proto::Timeouts { idle: "5m".into(), ..Default::default() }),
            ..Default::default()
        };
        assert_eq!(rule_unknown_fields(&rule.encode_to_vec()), []);
        for bytes in [&b"\xff"[..], b"\x1a\xff\xff\xff\xff\x0f", b"\x0b\x0c", &[0x0a; 300]] {
            rule_unknown_fields(bytes);
        }
        let many = LATER.repeat(1000);
        assert_eq!(rule_unknown_fields(&many).len(), PROBLEMS);
    }
}
