//! This program beside itself: the same requests with few rules and with many, and with the access
//! log on and off.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::peers::Peer;
use super::traffic::{self, Asked, Shape};
use crate::cli::failure::Failure;

/// A node, what it is called here, and what it is asked.
pub(super) struct Variant {
    pub(super) name: String,
    pub(super) node: Peer,
    pub(super) shape: Shape,
}

/// By what rules tell requests apart.
#[derive(Clone, Copy)]
enum By {
    /// Each rule has a host of its own.
    Host,
    /// Each rule has a path of its own under one of a few hosts.
    Path,
}

/// For each of these numbers of rules a node whose rules differ by host, and one whose rules differ
/// by path. All rules are asked for equally often, which no cache is a match for; where rules are
/// many, another such node is asked for as few of them as the first one has.
pub(super) async fn rules(
    directory: &Path,
    origin: SocketAddr,
    counts: &[usize],
    plain: &Shape,
) -> Result<Vec<Variant>, Failure> {
    let mut variants = Vec::new();
    for (by, word) in [(By::Host, "hosts"), (By::Path, "paths")] {
        let few = counts.first().copied().unwrap_or(1);
        for count in counts {
            let mut asked_for = vec![few.min(*count), *count];
            asked_for.dedup();
            for met in asked_for {
                let asked: Result<Vec<Asked>, Failure> = (0..met)
                    .map(|number| {
                        let (host, path) = by.place(number);
                        Asked::new(&host, &path)
                    })
                    .collect();
                let shape = Shape { asked: Arc::from(asked?), ..plain.clone() };
                let own = directory.join(format!("{word}-{count}-{met}"));
                let (node, _) = Peer::node(&own, &by.text(*count, origin))?;
                if !traffic::wait_until_answered(node.at, &shape).await {
                    return Err(node.is_not_up());
                }
                let of = if met == *count { String::new() } else { format!("{met} of ") };
                variants.push(Variant { name: format!("{of}{count} {word}"), node, shape });
            }
        }
    }
    Ok(variants)
}

/// A node without an access log, one that writes it to standard output, where nobody reads it, and
/// one that writes it to a file.
pub(super) async fn logs(
    directory: &Path,
    origin: SocketAddr,
    shape: &Shape,
) -> Result<Vec<Variant>, Failure> {
    let text = format!("id: bench\ndata:\n  targets: [{{ url: \"http://{origin}\" }}]\n");
    let mut variants = Vec::new();
    for (name, to) in [("log off", "off"), ("log to /dev/null", "-"), ("log to a file", "file")] {
        let own = directory.join(to);
        let file = own.join("access.log");
        let (node, _) = Peer::node_with(&own, &text, |command| {
            command.arg("--access-log");
            match to {
                "file" => command.arg(&file),
                to => command.arg(to),
            };
        })?;
        if !traffic::wait_until_answered(node.at, shape).await {
            return Err(node.is_not_up());
        }
        variants.push(Variant { name: name.to_string(), node, shape: shape.clone() });
    }
    Ok(variants)
}

impl By {
    /// Where the rule of this number is met.
    fn place(self, number: usize) -> (String, String) {
        match self {
            By::Host => (format!("h{number}.example"), "/".to_string()),
            By::Path => (format!("h{}.example", number % HOSTS), format!("/r{number}/x")),
        }
    }

    fn text(self, count: usize, origin: SocketAddr) -> String {
        let mut text = String::new();
        for number in 0..count {
            let (host, _) = self.place(number);
            let paths = match self {
                By::Host => String::new(),
                By::Path => format!(", any: [{{ path: {{ prefix: /r{number} }} }}]"),
            };
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "---\nid: r{number}\ndata: {{ match: {{ hosts: [{host}]{paths} }}, \
                 targets: [{{ url: \"http://{origin}\" }}] }}\n"
            );
        }
        text
    }
}

/// How many hosts rules share that differ by path.
const HOSTS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rule_document::rules_from_yaml_or_json;

    #[test]
    fn every_rule_is_met_by_its_own_request() {
        for by in [By::Host, By::Path] {
            let text = by.text(25, "127.0.0.1:80".parse().unwrap());
            assert_eq!(rules_from_yaml_or_json(&text).unwrap().len(), 25);
            let mut places: Vec<(String, String)> = (0..25).map(|n| by.place(n)).collect();
            places.sort();
            places.dedup();
            assert_eq!(places.len(), 25);
        }
    }
}
