//! The proxies that are compared, in front of eight targets each.
//!
//! The others' configurations are the files beside this one. What requests may take and how often
//! they are tried is the same for all; what to do about a target in trouble is each one's own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::targets::{Target, round_trip};
use crate::cli::bench::peers::{Description, Peer, free_ports};
use crate::cli::failure::Failure;

/// Where the distance to the targets is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Distance {
    /// In a node of ours by its --simulate, which delays connecting, too, as real distance does;
    /// for the other proxies, which do not look at that, in the targets
    Node,
    /// In the targets for every proxy: connecting takes no time, and tells a node of ours nothing
    Target,
}

/// A proxy that takes part.
#[derive(Clone, Debug)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// This program, with a policy.
    Ours(&'static str),
    /// Another one, described for targets in any number.
    Other(&'static str),
}

/// How nodes of ours are started.
#[derive(Clone, Debug)]
pub(super) struct Ours {
    pub(super) program: PathBuf,
    pub(super) distance: Distance,
}

/// What one node of ours is told.
pub(super) struct NodePlan<'a> {
    pub(super) id: &'a str,
    pub(super) policy: &'a str,
    /// The peer port of another one.
    pub(super) seed: Option<SocketAddr>,
}

impl Contender {
    /// Ours, then those of the others that are installed; who is not is returned by name.
    pub(super) fn all(references: bool) -> Result<(Vec<Contender>, Vec<&'static str>), Failure> {
        let mut all = vec![Contender { name: OURS, kind: Kind::Ours("latency") }];
        let mut missing = Vec::new();
        for (name, text) in OTHERS {
            if described(text, &[])?.program().is_some() {
                all.push(Contender { name, kind: Kind::Other(text) });
            } else {
                missing.push(name);
            }
        }
        if references {
            let policies = ["least_requests", "round_robin"];
            all.extend(policies.map(|name| Contender { name, kind: Kind::Ours(name) }));
        }
        Ok((all, missing))
    }

    /// Whether it is another proxy, which ours has to beat.
    pub(super) fn is_other(&self) -> bool {
        matches!(self.kind, Kind::Other(_))
    }

    /// Starts it, with a folder of its own below `directory`.
    pub(super) fn start(
        &self,
        directory: &Path,
        targets: &[Target],
        ours: &Ours,
    ) -> Result<Peer, Failure> {
        match self.kind {
            Kind::Ours(policy) => {
                let plan = NodePlan { id: "bench", policy, seed: None };
                ours.start(&directory.join(self.name), targets, &plan).map(|(node, _)| node)
            }
            Kind::Other(text) => {
                let far: Vec<SocketAddr> = targets.iter().map(|target| target.far).collect();
                let [nobody] = free_ports()?;
                described(text, &far)?.start(directory, nobody)
            }
        }
    }
}

/// A description with a line for each target.
fn described(text: &str, targets: &[SocketAddr]) -> Result<Description, Failure> {
    Description::parse(&for_each(text, targets), "a description of our own")
}

/// Each line that names a target, once for each of them.
fn for_each(text: &str, targets: &[SocketAddr]) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        if line.starts_with('#') || !line.contains("{target}") {
            out.push_str(line);
            continue;
        }
        for (number, target) in targets.iter().enumerate() {
            let line = line.replace("{target}", &target.to_string());
            out.push_str(&line.replace("{number}", &number.to_string()));
        }
    }
    out
}

impl Ours {
    /// A node in front of these targets; it, and where its operators reach it.
    pub(super) fn start(
        &self,
        directory: &Path,
        targets: &[Target],
        plan: &NodePlan<'_>,
    ) -> Result<(Peer, SocketAddr), Failure> {
        let fail = |error: std::io::Error| Failure::failed(format!("the node: {error}"));
        std::fs::create_dir_all(directory).map_err(fail)?;
        let at_node = self.distance == Distance::Node;
        let address = |target: &Target| if at_node { target.near } else { target.far };
        let addresses: Vec<SocketAddr> = targets.iter().map(address).collect();
        let distances_file = directory.join("distances.toml");
        if at_node {
            std::fs::write(&distances_file, distances(&addresses)).map_err(fail)?;
        }
        let rule = rule(&addresses, plan.policy);
        Peer::node_of(&self.program, plan.id, directory, &rule, |command| {
            command.args(["--access-log", "off", "--drain-delay", "1ms", "--region", "here"]);
            if at_node {
                command.arg("--simulate").arg(distances_file);
            }
            if let Some(seed) = plan.seed {
                command.args(["--seed", &format!("http://{seed}")]);
            }
        })
    }
}

/// Its defaults, but for what all proxies have in common.
fn rule(targets: &[SocketAddr], policy: &str) -> String {
    let targets: Vec<String> =
        targets.iter().map(|at| format!("    - {{ url: \"http://{at}\" }}\n")).collect();
    format!(
        "id: bench\ndata:\n  targets:\n{}  balance: {{ policy: {policy} }}\n  \
         timeouts: {{ connect: 1s, perTry: 2s, request: 10s }}\n  \
         retry: {{ attempts: 2, on: [connect_failure, \"502\", \"503\", \"504\"] }}\n",
        targets.concat()
    )
}

fn distances(targets: &[SocketAddr]) -> String {
    let numbered = || targets.iter().enumerate();
    let rtt =
        |(number, _)| format!("\"here-t{number}\" = \"{}ms\"\n", round_trip(number).as_millis());
    let place = |(number, at)| format!("\"{at}\" = \"t{number}\"\n");
    let rtt: String = numbered().map(rtt).collect();
    let places: String = numbered().map(place).collect();
    format!("[rtt]\n{rtt}[regions]\n{places}")
}

/// How ours is called.
pub(super) const OURS: &str = "tradewind";
const OTHERS: [(&str, &str); 2] =
    [("nginx", include_str!("nginx.toml")), ("haproxy", include_str!("haproxy.toml"))];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::distances::Distances;

    fn addresses() -> Vec<SocketAddr> {
        (0..8).map(|number| SocketAddr::from(([127, 0, 0, 1], 20_000 + number))).collect()
    }

    #[test]
    fn each_description_names_every_target() {
        for (name, text) in OTHERS {
            let all = for_each(text, &addresses());
            for at in addresses() {
                assert_eq!(all.matches(&at.to_string()).count(), 1, "{name}: {at}");
            }
            assert!(!all.contains("{number}"), "{name}");
            assert!(described(text, &addresses()).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_node_of_ours_is_as_far_from_its_targets_as_they_are_from_the_others() {
        let milliseconds =
            |text: &str| text.strip_suffix("ms")?.parse().ok().map(Duration::from_millis);
        let distances = Distances::parse(&distances(&addresses()), milliseconds).unwrap();
        for (number, at) in addresses().iter().enumerate() {
            let one_way = distances.one_way("here", &at.to_string());
            assert_eq!(one_way, round_trip(number) / 2, "{at}");
        }
    }
}
