//! A YAML or JSON document before anybody has said what it means.
//!
//! Not `serde_json::Value`: a tree keeps the order of keys and every repeated key, so that the
//! reader of a schema can report repetitions as problems. Invariant: never deeper than
//! `DOCUMENT_DEPTH`.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Number, Value};

use crate::model::limits::DOCUMENT_DEPTH;
use crate::wire::rule_problems::quoted;

/// A document or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    Null,
    Flag(bool),
    Number(Number),
    Text(String),
    List(Vec<Tree>),
    /// As written: in order, repetitions included.
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// What it is, for a sentence that begins with "expected … found".
    pub(super) fn describe(&self) -> String {
        match self {
            Tree::Null => String::from("nothing"),
            Tree::Flag(flag) => flag.to_string(),
            Tree::Number(number) => format!("the number {number}"),
            Tree::Text(text) => format!("the text {}", quoted(text)),
            Tree::List(_) => String::from("a list"),
            Tree::Map(_) => String::from("a mapping"),
        }
    }

    /// A text of our own.
    pub(super) fn text(text: &str) -> Tree {
        Tree::Text(text.to_owned())
    }

    /// A number of our own.
    pub(super) fn number(number: u32) -> Tree {
        Tree::Number(Number::from(number))
    }

    /// A list of texts.
    pub(super) fn texts(texts: &[String]) -> Tree {
        Tree::List(texts.iter().map(|text| Tree::text(text)).collect())
    }
}

impl From<&Value> for Tree {
    fn from(value: &Value) -> Tree {
        match value {
            Value::Null => Tree::Null,
            Value::Bool(flag) => Tree::Flag(*flag),
            Value::Number(number) => Tree::Number(number.clone()),
            Value::String(text) => Tree::text(text),
            Value::Array(items) => Tree::List(items.iter().map(Tree::from).collect()),
            Value::Object(entries) => {
                let entry = |(key, value): (&String, &Value)| (key.clone(), Tree::from(value));
                Tree::Map(entries.iter().map(entry).collect())
            }
        }
    }
}

impl From<Tree> for Value {
    fn from(tree: Tree) -> Value {
        match tree {
            Tree::Null => Value::Null,
            Tree::Flag(flag) => Value::Bool(flag),
            Tree::Number(number) => Value::Number(number),
            Tree::Text(text) => Value::String(text),
            Tree::List(items) => Value::Array(items.into_iter().map(Value::from).collect()),
            Tree::Map(entries) => {
                let entry = |(key, tree)| (key, Value::from(tree));
                Value::Object(entries.into_iter().map(entry).collect())
            }
        }
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Tree::Null => serializer.serialize_unit(),
            Tree::Flag(flag) => serializer.serialize_bool(*flag),
            Tree::Number(number) => number.serialize(serializer),
            Tree::Text(text) => serializer.serialize_str(text),
            Tree::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Tree::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        Levels(DOCUMENT_DEPTH).deserialize(deserializer)
    }
}

/// Reads a tree that may still be so many levels deep.
#[derive(Clone, Copy)]
struct Levels(usize);

impl Levels {
    fn below<E: Error>(self) -> Result<Levels, E> {
        let deeper = self.0.checked_sub(1).map(Levels);
        let limit = DOCUMENT_DEPTH;
        deeper.ok_or_else(|| E::custom(format_args!("nested more than {limit} levels deep")))
    }
}

impl<'de> DeserializeSeed<'de> for Levels {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Levels {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Tree, E> {
        Ok(Tree::Flag(flag))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Number(Number::from(number)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Number(Number::from(number)))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Tree, E> {
        Number::from_f64(number)
            .map(Tree::Number)
            .ok_or_else(|| E::custom("a number has to be finite"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::text(text))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Tree, E> {
        Ok(Tree::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let below = self.below()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(below)? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let below = self.below()?;
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<String>()? {
            map.push((key, entries.next_value_seed(below)?));
        }
        Ok(Tree::Map(map))
    }
}
