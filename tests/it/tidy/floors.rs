//! Who may name whom: floors, generated types, IO.
//!
//! Reads the paths that a file names, `use` trees spread out. Test modules are left out: they may
//! reach for anything. Not a resolver: what a macro or a re-export hides is not seen.

use super::lexer::Code;
use super::tree::{Problem, SourceFile};

/// Floors of decisions name nothing that does IO, reads a clock or iterates in random order.
pub(crate) fn pure(file: &SourceFile) -> Vec<Problem> {
    if !matches!(floor(file), Some("model" | "engine" | "routing")) {
        return Vec::new();
    }
    check_paths(file, |path| {
        let names = |name: &str| path.iter().any(|segment| segment == name);
        if IO_CRATES.contains(&path[0].as_str()) || IMPURE_NAMES.iter().any(|name| names(name)) {
            return Some("has no place where decisions are made".to_owned());
        }
        let std_part = (path[0] == "std").then(|| path.get(1).map_or("*", String::as_str))?;
        let net_part = path.get(2).map_or("*", String::as_str);
        let is_impure = IO_STD.contains(&std_part)
            || (std_part == "net" && !ADDRESSES.contains(&net_part))
            || (std_part == "time" && net_part != "Duration");
        is_impure.then(|| "has no place where decisions are made".to_owned())
    })
}

/// Generated messages end where `wire` turns them into nouns.
pub(crate) fn generated(file: &SourceFile) -> Vec<Problem> {
    if floor(file).is_none_or(|floor| floor == "wire") || allowed(file, &SERVICES) {
        return Vec::new();
    }
    check_paths(file, |path| {
        path.iter().any(|part| part == "proto").then(|| "names a generated type".to_owned())
    })
}

/// Formats are a matter of the edges; nouns have none.
pub(crate) fn serialised(file: &SourceFile) -> Vec<Problem> {
    let at_the_edge = matches!(floor(file), None | Some("wire" | "config" | "telemetry" | "cli"));
    if at_the_edge || allowed(file, &["src/orchestrator/http"]) {
        return Vec::new();
    }
    check_paths(file, |path| (path[0] == "serde").then(|| "derives a format here".to_owned()))
}

/// A floor names floors below its own, never above or beside.
pub(crate) fn upward(file: &SourceFile) -> Vec<Problem> {
    let Some(own) = floor(file) else { return Vec::new() };
    let Some((_, below)) = BELOW.iter().find(|(name, _)| *name == own) else {
        let known = own == "lib" || own == "main";
        let text = format!("`{own}` is no floor of the house; draw it in src/lib.rs first");
        return if known { Vec::new() } else { vec![Problem::new(1, text)] };
    };
    let module = module_of(&file.path);
    check_paths(file, |path| {
        let named = resolve(&module, path)?;
        let is_floor = BELOW.iter().any(|(name, _)| *name == named);
        (is_floor && named != own && !below.contains(&named.as_str()))
            .then(|| format!("{own} may not name {named}"))
    })
}

fn check_paths(file: &SourceFile, bad: impl Fn(&[String]) -> Option<String>) -> Vec<Problem> {
    if file.is_test() {
        return Vec::new();
    }
    let paths = Code::read(&file.text).without_tests().paths();
    let judged = paths.iter().filter(|(_, path)| !path.is_empty());
    judged
        .filter_map(|(line, path)| {
            bad(path).map(|why| Problem::new(*line, format!("`{}` {why}", path.join("::"))))
        })
        .collect()
}

/// The first part of the path below `src/`; `None` outside it.
fn floor(file: &SourceFile) -> Option<&str> {
    let inside = file.path.strip_prefix("src/")?;
    let first = inside.split('/').next()?;
    Some(first.strip_suffix(".rs").unwrap_or(first))
}

fn allowed(file: &SourceFile, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| file.path.starts_with(prefix))
}

/// `src/node/disk.rs` is `node::disk`, `src/node/mod.rs` is `node`.
fn module_of(path: &str) -> Vec<String> {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut parts: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// The top-level module that a path leads to; `None` when it leaves the crate or stays within.
fn resolve(module: &[String], path: &[String]) -> Option<String> {
    if matches!(path[0].as_str(), "crate" | "tradewind") {
        return path.get(1).cloned();
    }
    let ups = path.iter().take_while(|part| *part == "super").count();
    (ups > 0 && ups >= module.len()).then(|| path.get(ups).cloned())?
}

/// Each floor with all that it may name.
const BELOW: [(&str, &[&str]); 10] = [
    ("model", &[]),
    ("engine", &["model"]),
    ("routing", &["model"]),
    ("config", &["model"]),
    ("telemetry", &["model"]),
    ("wire", &["model", "engine", "routing"]),
    ("proxy", &["model", "engine", "routing", "wire", "config", "telemetry"]),
    ("node", &["model", "engine", "routing", "wire", "proxy", "config", "telemetry"]),
    ("orchestrator", &["model", "engine", "routing", "wire", "proxy", "config", "telemetry"]),
    (
        "cli",
        &[
            "model",
            "engine",
            "routing",
            "wire",
            "proxy",
            "config",
            "telemetry",
            "node",
            "orchestrator",
        ],
    ),
];

/// Service traits and clients carry generated types in their signatures.
const SERVICES: [&str; 3] = ["src/orchestrator/service", "src/node/subscriber", "src/cli/client"];

const IO_CRATES: [&str; 16] = [
    "axum",
    "hickory_resolver",
    "hyper",
    "hyper_util",
    "prost",
    "prost_types",
    "redb",
    "serde",
    "serde_json",
    "socket2",
    "tokio",
    "tokio_stream",
    "tokio_util",
    "tonic",
    "tower",
    "tracing",
];

/// Wherever they come from: clocks, random iteration, randomness that no seed repeats.
const IMPURE_NAMES: [&str; 10] = [
    "HashMap",
    "HashSet",
    "Instant",
    "OsRng",
    "RandomState",
    "SysRng",
    "SystemTime",
    "ThreadRng",
    "UNIX_EPOCH",
    "thread_rng",
];

const IO_STD: [&str; 6] = ["env", "fs", "io", "process", "thread", "os"];

/// Addresses are nouns; sockets are not.
const ADDRESSES: [&str; 7] = [
    "AddrParseError",
    "IpAddr",
    "Ipv4Addr",
    "Ipv6Addr",
    "SocketAddr",
    "SocketAddrV4",
    "SocketAddrV6",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn count(check: fn(&SourceFile) -> Vec<Problem>, path: &str, text: &str) -> usize {
        check(&SourceFile::new(path, text)).len()
    }

    #[test]
    fn io_where_decisions_are_made_is_found() {
        let bad = [
            "use tokio::sync::mpsc;",
            "use std::{fmt, fs};",
            "use std::net::{IpAddr, TcpStream};",
            "let x = std::time::Instant::now();",
            "use std::time::{Duration, SystemTime};",
            "use imbl::HashMap;",
            "use serde::Serialize;",
        ];
        for text in bad {
            assert_eq!(count(pure, "src/engine/x.rs", text), 1, "{text}");
            assert_eq!(count(pure, "src/node/x.rs", text), 0, "{text}");
        }
        let good = "//! tokio::x\nuse std::net::{IpAddr, SocketAddr};\nuse std::time::Duration;";
        assert_eq!(count(pure, "src/model/x.rs", good), 0);
        let test = "#[cfg(test)]\nmod tests {\n    use std::collections::HashMap;\n}\n";
        assert_eq!(count(pure, "src/model/x.rs", test), 0);
        assert_eq!(count(pure, "src/model/tests.rs", "use std::fs;"), 0);
    }

    #[test]
    fn generated_types_outside_wire_are_found() {
        let text = "use crate::wire::proto::Rule;";
        assert_eq!(count(generated, "src/node/driver.rs", text), 1);
        assert_eq!(count(generated, "src/wire/rule.rs", text), 0);
        assert_eq!(count(generated, "src/orchestrator/service/rules.rs", text), 0);
        assert_eq!(count(generated, "src/node/subscriber.rs", text), 0);
        assert_eq!(count(generated, "src/proxy/x.rs", "let x = proto::Rule::default();"), 1);
    }

    #[test]
    fn formats_away_from_the_edges_are_found() {
        let text = "use serde::{Deserialize, Serialize};";
        assert_eq!(count(serialised, "src/node/disk.rs", text), 2);
        assert_eq!(count(serialised, "src/orchestrator/http.rs", text), 0);
        assert_eq!(count(serialised, "src/wire/json.rs", text), 0);
    }

    #[test]
    fn naming_a_higher_floor_is_found() {
        let cases = [
            ("src/model/x.rs", "use crate::engine::Input;"),
            ("src/engine/x.rs", "use crate::routing::Table;"),
            ("src/routing/x.rs", "use super::engine::Input;\nuse super::super::engine::Input;"),
            ("src/wire/x.rs", "use crate::{config::X, model::Y};"),
            ("src/node/x.rs", "crate::orchestrator::run();"),
            ("src/orchestrator/x.rs", "use crate::node::disk;"),
            ("src/telemetry/x.rs", "use crate::config::Config;"),
        ];
        for (path, text) in cases {
            assert_eq!(count(upward, path, text), 1, "{path}: {text}");
        }
        assert_eq!(count(upward, "src/cli/x.rs", "use crate::node::Node;"), 0);
        assert_eq!(count(upward, "src/node/x.rs", "use crate::proxy::Proxy;"), 0);
        assert_eq!(count(upward, "src/node/x.rs", "use super::orchestrator::X;"), 0);
        assert_eq!(count(upward, "src/attic/x.rs", "//! X."), 1);
        assert_eq!(count(upward, "src/lib.rs", "pub mod model;"), 0);
    }
}
