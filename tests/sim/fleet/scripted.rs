//! Scenarios as text: commands, and the trace that follows from them.
//!
//! Each file under tests/data/scenarios has blocks of a command, `----`, and what it shows.
//! `UPDATE_EXPECT=1` rewrites them; commit the difference only when you can explain it.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use tradewind::engine::port::{Event, Expected, HandWrite};
use tradewind::model::ids::RuleId;
use tradewind::model::record::Body;

use super::world::{MS, Options, World};

struct Stage {
    world: World,
    /// Events shown so far, per node.
    shown: Vec<usize>,
}

fn carry_out(stage: &mut Option<Stage>, command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    if let ["fleet", rest @ ..] = words.as_slice() {
        *stage = Some(begin(rest));
        return "ok\n".to_string();
    }
    let stage = stage.as_mut().expect("a scenario begins with `fleet`");
    let world = &mut stage.world;
    match words.as_slice() {
        ["put", id, body] => position(world.put(id, body)),
        ["retire", id] => position(world.retire(id)),
        ["run", ms] => {
            world.run(MS * ms.parse::<u32>().unwrap());
            stage.events()
        }
        ["orchestrator", "down"] => {
            world.set_authority(false);
            "ok\n".to_string()
        }
        ["orchestrator", "up"] => {
            world.set_authority(true);
            "ok\n".to_string()
        }
        ["silence", node] => {
            world.faults.black_holes.insert(number(node));
            "ok\n".to_string()
        }
        ["cut", a, b] => {
            world.faults.cuts.insert((number(a), number(b)));
            world.faults.cuts.insert((number(b), number(a)));
            "ok\n".to_string()
        }
        ["heal"] => {
            world.faults = super::world::Faults::default();
            "ok\n".to_string()
        }
        ["crash", node] => {
            world.crash(number(node));
            "ok\n".to_string()
        }
        ["wipe", node] => {
            world.wipe(number(node));
            "ok\n".to_string()
        }
        ["start", node] => {
            world.start(number(node));
            "ok\n".to_string()
        }
        ["write", node, id, body] => {
            let body = match *body {
                "-" => Body::Retired,
                text => Body::Live(bytes::Bytes::copy_from_slice(text.as_bytes())),
            };
            let id = RuleId::parse(id).unwrap();
            let write = HandWrite { id, body, version: None, expected: Expected::Anything };
            let ticket = world.write_at(number(node), vec![write]);
            world.run(MS * 5);
            format!("{:?}\n", world.answers.get(&ticket))
        }
        ["show"] => stage.table(),
        other => panic!("no such command: {other:?}"),
    }
}

fn begin(words: &[&str]) -> Stage {
    let mut options = Options { nodes: 3, cities: 1, ..Options::default() };
    for word in words {
        let (name, value) = word.split_once('=').unwrap();
        match name {
            "nodes" => options.nodes = value.parse().unwrap(),
            "cities" => options.cities = value.parse().unwrap(),
            "orchestrators" => options.orchestrators = value.parse().unwrap(),
            other => panic!("no such option: {other}"),
        }
    }
    let nodes = options.nodes;
    let mut world = World::new(options, 7);
    world.start_all();
    Stage { world, shown: vec![0; nodes] }
}

fn number(node: &str) -> usize {
    node.strip_prefix('n').unwrap().parse().unwrap()
}

fn position(at: tradewind::model::head::Position) -> String {
    format!("epoch {} revision {}\n", at.epoch, at.revision)
}

impl Stage {
    /// What the nodes had to tell, apart from who their neighbours are.
    fn events(&mut self) -> String {
        let mut out = String::new();
        for (index, node) in self.world.nodes.iter().enumerate() {
            for (_, event) in &node.told[self.shown[index]..] {
                let line = match event {
                    Event::NeighbourUp(_) | Event::NeighbourDown(_) => continue,
                    Event::Applied { position, rules, path, replaced } => format!(
                        "applied revision {} by {}: {rules} rules{}",
                        position.revision,
                        path.as_str(),
                        if *replaced { ", whole" } else { "" }
                    ),
                    Event::Feed(state) => format!("feed {}", state.as_str()),
                    Event::OverrideTaken(id, version, node) => {
                        format!("override {id} {version} of {node}")
                    }
                    Event::OverrideVoid(id, version) => format!("void {id} {version}"),
                    Event::Refused { reason, .. } => format!("refused {reason}"),
                    Event::Alarm(_) => "alarm".to_string(),
                    Event::Trusted(_, source) => format!("trusts {source:?}"),
                };
                writeln!(out, "n{index} {line}").unwrap();
            }
            self.shown[index] = node.told.len();
        }
        if out.is_empty() { "quiet\n".to_string() } else { out }
    }

    fn table(&self) -> String {
        let mut out = String::new();
        for (index, node) in self.world.nodes.iter().enumerate() {
            let Some(engine) = &node.engine else {
                writeln!(out, "n{index} down").unwrap();
                continue;
            };
            let status = engine.status(self.world.now);
            let at = status.accepted.map_or("-".to_string(), |at| at.revision.to_string());
            write!(out, "n{index} {} revision {at}:", status.feed.as_str()).unwrap();
            for id in status.rule_set.ids() {
                let rule = status.rule_set.effective(&id).unwrap();
                let body = rule
                    .body
                    .data()
                    .map_or("retired".into(), |data| String::from_utf8_lossy(data).into_owned());
                write!(out, " {id}={}@{body}", rule.version).unwrap();
            }
            out.push('\n');
        }
        out
    }
}

fn play(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut stage = None;
    let mut played = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim().is_empty() || line.starts_with('#') {
            played.push_str(line);
            played.push('\n');
            continue;
        }
        played.push_str(line);
        played.push_str("\n----\n");
        if lines.peek() == Some(&"----") {
            lines.next();
            while lines.peek().is_some_and(|line| !line.is_empty()) {
                lines.next();
            }
        }
        played.push_str(&carry_out(&mut stage, line));
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, &played).unwrap();
    } else {
        assert_eq!(played, text, "{} (UPDATE_EXPECT=1 rewrites it)", path.display());
    }
}

#[test]
fn scenarios_unfold_as_written() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/scenarios");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 4, "the scenarios are there");
    for file in files {
        println!("{}", file.display());
        play(&file);
    }
}
