//! A role's settings from a TOML file: each key is a flag of the same name, said later.
//!
//! What the command line says wins, then the environment, then the file, then the default. The
//! file is turned into arguments before the command line is read, so that a setting has one
//! meaning wherever it stands. Every problem of the file is named at once; an unknown key is one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

use super::failure::Failure;
use crate::wire::rule_problems::did_you_mean;

/// The arguments, and behind the role's name what its file adds. `is_set` knows the environment.
pub(crate) fn expand(
    arguments: Vec<OsString>,
    command: &Command,
    is_set: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Vec<OsString>, Failure> {
    let role = arguments.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    let role = command.find_subcommand(role).filter(|role| argument(role, FLAG).is_some());
    let (Some(role), Some((said, rest))) = (role, arguments.split_at_checked(2)) else {
        return Ok(arguments);
    };
    let Some(path) = file(role, rest, is_set) else { return Ok(arguments) };
    let failure = |why: String| {
        Failure::configuration(format!("the settings file {} is not usable", path.display()))
            .evidence(why)
    };
    let text = std::fs::read_to_string(&path).map_err(|error| failure(error.to_string()))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| failure(error.to_string()))?;
    let mut reader = Reader { role, rest, is_set, added: Vec::new(), wrong: Vec::new() };
    reader.table("", &table);
    if !reader.wrong.is_empty() {
        return Err(failure(reader.wrong.join("\n")));
    }
    Ok([said, &reader.added, rest].concat())
}

struct Reader<'a> {
    role: &'a Command,
    rest: &'a [OsString],
    is_set: &'a dyn Fn(&str) -> Option<OsString>,
    added: Vec<OsString>,
    wrong: Vec<String>,
}

impl Reader<'_> {
    /// `[drain] delay` is `drain-delay`, and `[label] k = "v"` one of the labels.
    fn table(&mut self, before: &str, table: &Table) {
        for (key, value) in table {
            let name = if before.is_empty() { key.clone() } else { format!("{before}-{key}") };
            let known = argument(self.role, &name).filter(|_| name != FLAG).cloned();
            match (known, value) {
                (Some(known), value) => self.setting(&name, &known, value),
                (None, Value::Table(inner)) => self.table(&name, inner),
                (None, _) => self.unknown(&name),
            }
        }
    }

    fn setting(&mut self, name: &str, argument: &Arg, value: &Value) {
        let variable = argument.get_env().and_then(|name| name.to_str());
        let said = self.rest.iter().any(|word| is_flag(word, name));
        let values = match written(value) {
            Some(values) => values,
            None => {
                self.wrong.push(format!("{name}: a text, a number or a list of them is expected"));
                return;
            }
        };
        let many = matches!(argument.get_action(), ArgAction::Append);
        if values.len() > 1 && !many {
            self.wrong.push(format!("{name}: one value is expected, not {}", values.len()));
            return;
        }
        let before = self.wrong.len();
        let words: Vec<String> = values.iter().map(|value| format!("--{name}={value}")).collect();
        for word in &words {
            if let Some(why) = refused(argument, word) {
                self.wrong.push(format!("{name}: {why}"));
            }
        }
        // A variable that is set, or a flag, says it already; what is wrong here is wrong anyway.
        let overruled = said || variable.is_some_and(|name| (self.is_set)(name).is_some());
        if before == self.wrong.len() && !overruled {
            self.added.extend(words.into_iter().map(OsString::from));
        }
    }

    fn unknown(&mut self, name: &str) {
        let known: Vec<&str> = self.role.get_arguments().filter_map(Arg::get_long).collect();
        let hint = did_you_mean(name, &known).map_or_else(String::new, |hint| format!(": {hint}"));
        self.wrong.push(format!("{name}: there is no such setting{hint}"));
    }
}

/// Which file, by flag or by variable.
fn file(
    role: &Command,
    rest: &[OsString],
    is_set: &dyn Fn(&str) -> Option<OsString>,
) -> Option<PathBuf> {
    let (flag, with_value) = (format!("--{FLAG}"), format!("--{FLAG}="));
    for (at, word) in rest.iter().enumerate() {
        let word = word.to_str().unwrap_or_default();
        if word == flag {
            return rest.get(at + 1).map(PathBuf::from);
        }
        if let Some(path) = word.strip_prefix(&with_value) {
            return Some(Path::new(path).to_owned());
        }
    }
    is_set(argument(role, FLAG)?.get_env()?.to_str()?).map(PathBuf::from)
}

fn argument<'a>(role: &'a Command, name: &str) -> Option<&'a Arg> {
    role.get_arguments().find(|argument| argument.get_long() == Some(name))
}

fn is_flag(word: &OsString, name: &str) -> bool {
    let rest = word.to_str().and_then(|word| word.strip_prefix("--")?.strip_prefix(name));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
}

/// The values as they would stand on a command line; none for what cannot stand there.
fn written(value: &Value) -> Option<Vec<String>> {
    let one = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(yes) => Some(yes.to_string()),
        _ => None,
    };
    match value {
        Value::Array(list) => list.iter().map(one).collect(),
        Value::Table(table) => {
            table.iter().map(|(key, value)| Some(format!("{key}={}", one(value)?))).collect()
        }
        other => Some(vec![one(other)?]),
    }
}

/// Why the argument does not take this word.
fn refused(argument: &Arg, word: &str) -> Option<String> {
    let alone = Command::new("settings").arg(argument.clone().required(false));
    let error = alone.try_get_matches_from(["settings", word]).err()?.to_string();
    let line = error.lines().next().unwrap_or_default();
    Some(line.trim_start_matches("error: ").to_string())
}

/// The flag that names the file.
const FLAG: &str = "config";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::arguments::{self, Arguments, NodeArguments};

    fn expanded(
        text: &str,
        words: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Vec<OsString>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.toml");
        std::fs::write(&path, text).unwrap();
        let mut all: Vec<OsString> = ["tradewind", "node"].map(OsString::from).to_vec();
        all.extend(words.iter().map(OsString::from));
        all.extend([OsString::from("--config"), path.into()]);
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        let is_set = |name: &str| variables.get(name).map(OsString::from);
        expand(all, &Arguments::command(), &is_set).map_err(|failure| failure.to_string())
    }

    fn node(words: Vec<OsString>) -> Box<NodeArguments> {
        match Arguments::parse_from(words).command {
            arguments::Command::Node(node) => node,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_wins_then_the_environment_then_the_file() {
        let text = "id = \"from-file\"\nregion = \"file\"\nnear = 3\nfar = 1\n\
                    listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n\
                    [drain]\ndelay = \"2s\"\n[label]\ndisk = \"fast\"\nrack = 7\n";
        let words = expanded(text, &["--near=4"], &[("TRADEWIND_REGION", "environment")]).unwrap();
        assert!(!words.contains(&OsString::from("--region=file")), "the variable is read later");
        let node = node(words);
        assert_eq!((node.id.as_str(), node.near, node.far), ("from-file", 4, 1));
        assert_eq!(node.listen.len(), 2);
        assert_eq!(node.drain_delay, "2s");
        assert_eq!(node.labels, ["disk=fast", "rack=7"]);
        let said = expanded(text, &["--id", "said"], &[]).unwrap();
        assert_eq!(self::node(said).id, "said");
    }

    #[test]
    fn every_problem_of_a_file_is_named_at_once() {
        let text = "id = [\"a\", \"b\"]\nlisten = \"here\"\nnear = \"many\"\nregoin = \"fra\"\n\
                    config = \"other.toml\"\nfar = 1979-05-27\n[drain]\nwait = \"2s\"\n";
        let said = expanded(text, &["--near=1"], &[]).unwrap_err();
        for part in [
            "id: one value is expected",
            "listen: invalid value 'here'",
            "near: invalid value 'many'",
            "regoin: there is no such setting",
            "region",
            "config: there is no such setting",
            "far: a text, a number",
            "drain-wait: there is no such setting",
        ] {
            assert!(said.contains(part), "{part} is not named in:\n{said}");
        }
        let broken = expanded("id = ", &[], &[]).unwrap_err();
        assert!(broken.contains("node.toml") && broken.contains("line 1"), "{broken}");
    }

    #[test]
    fn the_example_of_the_documentation_is_valid() {
        let node = node(expanded(include_str!("../../docs/examples/node.toml"), &[], &[]).unwrap());
        assert_eq!((node.id.as_str(), node.drain_timeout.as_str()), ("fra1", "30s"));
    }

    #[test]
    fn commands_without_a_file_are_left_as_they_are() {
        for words in [&["tradewind"][..], &["tradewind", "status"], &["tradewind", "node"]] {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            let same = expand(words.clone(), &Arguments::command(), &|_| None);
            assert_eq!(same.ok(), Some(words));
        }
        let named = ["tradewind", "node", "--config=/nowhere.toml"].map(OsString::from).to_vec();
        let failure = expand(named, &Arguments::command(), &|_| None).unwrap_err().to_string();
        assert!(failure.contains("/nowhere.toml"), "{failure}");
    }
}
