//! Simulated distances between regions, for demonstrations on one machine.
//!
//! A TOML file: `[rtt]` has round trips between pairs of regions, `[regions]` says where an
//! address stands (a host, `host:port`, or a prefix of an address; the longest match counts).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

/// Simulated distances between regions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Distances {
    rtt: BTreeMap<(String, String), Duration>,
    regions: Vec<(String, String)>,
}

/// A distances file that does not say what it should.
#[derive(Debug)]
pub(crate) enum DistancesError {
    /// Not TOML, or unknown keys.
    Syntax(toml::de::Error),
    /// A pair that is not `a-b`, or a duration that is none.
    Pair(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    rtt: BTreeMap<String, String>,
    #[serde(default)]
    regions: BTreeMap<String, String>,
}

impl Distances {
    /// Reads the file's text. `duration` parses `88ms` and the like.
    pub(crate) fn parse(
        text: &str,
        duration: impl Fn(&str) -> Option<Duration>,
    ) -> Result<Distances, DistancesError> {
        let raw: Raw = toml::from_str(text).map_err(DistancesError::Syntax)?;
        let mut distances = Distances::default();
        for (pair, rtt) in raw.rtt {
            let (a, b) = pair.split_once('-').ok_or_else(|| DistancesError::Pair(pair.clone()))?;
            let rtt = duration(&rtt).ok_or_else(|| DistancesError::Pair(pair.clone()))?;
            distances.set(a, b, rtt);
        }
        for (address, region) in raw.regions {
            distances.place(&address, &region);
        }
        Ok(distances)
    }

    /// A round trip between two regions.
    pub(crate) fn set(&mut self, a: &str, b: &str, rtt: Duration) {
        self.rtt.insert(pair(a, b), rtt);
    }

    /// Where an address, or everything that begins with it, stands.
    pub(crate) fn place(&mut self, address: &str, region: &str) {
        self.regions.push((address.to_string(), region.to_string()));
    }

    /// One way from a region to an address; zero where nothing is said.
    pub(crate) fn one_way(&self, from: &str, to: &str) -> Duration {
        let region = self
            .regions
            .iter()
            .filter(|(prefix, _)| to.starts_with(prefix.as_str()))
            .max_by_key(|(prefix, _)| prefix.len())
            .map(|(_, region)| region.as_str());
        region
            .and_then(|region| self.rtt.get(&pair(from, region)))
            .map_or(Duration::ZERO, |rtt| *rtt / 2)
    }
}

fn pair(a: &str, b: &str) -> (String, String) {
    if a <= b { (a.to_string(), b.to_string()) } else { (b.to_string(), a.to_string()) }
}

impl std::fmt::Display for DistancesError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DistancesError::Syntax(error) => write!(f, "the distances cannot be read: {error}"),
            DistancesError::Pair(pair) => {
                write!(f, "[rtt] \"{pair}\" is not \"REGION-REGION\" = \"DURATION\"")
            }
        }
    }
}

impl std::error::Error for DistancesError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_match_says_where_an_address_stands() {
        let text = "[rtt]\n\"fra-iad\" = \"88\"\n[regions]\n\"127.0.0.1:9\" = \"iad\"\n\
                    \"127.0.0.1:9001\" = \"fra\"\n";
        let milliseconds = |text: &str| text.parse().ok().map(Duration::from_millis);
        let distances = Distances::parse(text, milliseconds).unwrap();
        assert_eq!(distances.one_way("fra", "127.0.0.1:9002"), Duration::from_millis(44));
        assert_eq!(distances.one_way("iad", "127.0.0.1:9001"), Duration::from_millis(44));
        assert_eq!(distances.one_way("fra", "127.0.0.1:9001"), Duration::ZERO);
        assert!(Distances::parse("[rtt]\n\"fra\" = \"1\"", milliseconds).is_err());
        assert!(Distances::parse("[rrt]\n", milliseconds).is_err());
    }
}
