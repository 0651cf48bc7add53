//! Peers that the operator named: looked up beside everything else, again and again.
//!
//! A start never waits for a resolver, and a name that has no address yet is no mistake: peers of
//! a fleet that starts together come up in any order. What was found stays until something else
//! is. Names never travel; peers tell each other address literals.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::address_policy::PeerPolicy;
use super::driver::Note;
use crate::engine::port::Input;
use crate::model::ids::PeerAddr;

/// Why names have no address, by URL; for the status.
pub(crate) type Unresolved = Arc<ArcSwap<BTreeMap<String, String>>>;

/// What one lookup brings.
type Found = io::Result<Vec<SocketAddr>>;

/// What the operator named.
pub(super) struct Names {
    pub(super) seeds: Vec<String>,
    pub(super) fixed: Vec<String>,
    /// The peer port, where this node's own address is the one towards its first seed.
    pub(super) own_port: Option<u16>,
}

/// Who hears of what was found.
pub(super) struct Hearers {
    pub(super) policy: Arc<PeerPolicy>,
    pub(super) unresolved: Unresolved,
    pub(super) notes: mpsc::Sender<Note>,
}

/// `HOST:PORT` of a peer's URL, if it is one.
pub(super) fn authority(url: &str) -> Option<&str> {
    let authority = url.strip_prefix("http://")?.trim_end_matches('/');
    let (host, port) = authority.rsplit_once(':')?;
    let host_like = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
    (host_like && port.parse::<u16>().is_ok_and(|port| port > 0)).then_some(authority)
}

/// The ones that need no resolver.
pub(super) fn literals(urls: &[String]) -> Vec<PeerAddr> {
    urls.iter().filter_map(|url| PeerAddr::parse(url)).collect()
}

/// Connecting a datagram socket sends nothing, and tells which own address would be used.
pub(super) fn own_address_towards(to: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if to.is_ipv4() {
        SocketAddr::from(([0, 0, 0, 0], 0))
    } else {
        SocketAddr::from(([0u16; 8], 0))
    };
    let socket = std::net::UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|at| at.ip())
}

/// The system's resolver.
pub(super) async fn look_up(authority: String) -> Found {
    Ok(tokio::net::lookup_host(authority).await?.collect())
}

impl Names {
    /// Looks names up until the node ends; at once where all are literals.
    pub(super) async fn run<F: Future<Output = Found> + Send + 'static>(
        self,
        look_up: impl Fn(String) -> F,
        hearers: Hearers,
        mut ended: watch::Receiver<bool>,
    ) {
        let urls = self.seeds.iter().chain(&self.fixed);
        let names: Vec<&String> = urls.filter(|url| PeerAddr::parse(url).is_none()).collect();
        if names.is_empty() {
            return;
        }
        let (mut known, mut told) = (BTreeMap::new(), BTreeMap::new());
        let mut wait = FIRST_WAIT;
        loop {
            let mut problems = BTreeMap::new();
            for (url, found) in look_up_all(&names, &look_up).await {
                match found {
                    Ok(addresses) => {
                        known.insert(url, addresses);
                    }
                    Err(why) => {
                        problems.insert(url, why);
                    }
                }
            }
            hearers.told_of(problems);
            if known != told {
                told.clone_from(&known);
                if hearers.hear(self.found(&known)).await.is_err() {
                    return;
                }
            }
            let all = names.iter().all(|url| known.contains_key(*url));
            wait = if all { REFRESH } else { (wait * 2).min(LONGEST_WAIT) };
            tokio::select! {
                () = tokio::time::sleep(wait.mul_f64(rand::random_range(0.8..1.2))) => {}
                _ = ended.wait_for(|ended| *ended) => return,
            }
        }
    }

    fn found(&self, known: &BTreeMap<String, Vec<PeerAddr>>) -> Input {
        let of = |urls: &[String]| -> Vec<PeerAddr> {
            let each = urls.iter().map(|url| match PeerAddr::parse(url) {
                Some(literal) => vec![literal],
                None => known.get(url).cloned().unwrap_or_default(),
            });
            each.flatten().collect()
        };
        let (seeds, fixed) = (of(&self.seeds), of(&self.fixed));
        let own = self.own_port.and_then(|port| {
            let own = own_address_towards(seeds.first().or(fixed.first())?.0)?;
            Some(PeerAddr(SocketAddr::new(own, port)))
        });
        Input::Resolved { seeds, fixed, own }
    }
}

impl Hearers {
    fn told_of(&self, problems: BTreeMap<String, String>) {
        let before = self.unresolved.load();
        for (url, why) in problems.iter().filter(|(url, _)| !before.contains_key(*url)) {
            tracing::warn!(%url, %why, "a peer's name has no address; trying again");
        }
        self.unresolved.store(Arc::new(problems));
    }

    async fn hear(&self, found: Input) -> Result<(), mpsc::error::SendError<Note>> {
        if let Input::Resolved { seeds, fixed, .. } = &found {
            tracing::info!(?seeds, neighbours = ?fixed, "the names of peers were looked up");
            self.policy.give(seeds.iter().chain(fixed).copied().collect());
        }
        self.notes.send(Note::input(found)).await
    }
}

async fn look_up_all<F: Future<Output = Found> + Send + 'static>(
    names: &[&String],
    look_up: &impl Fn(String) -> F,
) -> Vec<(String, Result<Vec<PeerAddr>, String>)> {
    let mut asking = JoinSet::new();
    for url in names {
        let answer = look_up(authority(url).unwrap_or_default().to_string());
        let url = (*url).clone();
        asking.spawn(async move {
            let answer = tokio::time::timeout(PATIENCE, answer).await;
            (url, answer.map_err(|_| "the resolver does not answer".to_string()))
        });
    }
    let answers = asking.join_all().await;
    let judged = answers.into_iter().map(|(url, answer)| {
        let found = answer.and_then(|found| found.map_err(|error| error.to_string()));
        (url, found.and_then(addresses))
    });
    judged.collect()
}

/// Those of one kind, IPv4 where there is any: a host with two kinds of addresses is one peer.
fn addresses(found: Vec<SocketAddr>) -> Result<Vec<PeerAddr>, String> {
    let four = found.iter().any(SocketAddr::is_ipv4);
    let mut alike: Vec<PeerAddr> =
        found.into_iter().filter(|at| at.is_ipv4() == four).map(PeerAddr).collect();
    if alike.is_empty() {
        return Err("it has no address".to_string());
    }
    alike.sort();
    alike.dedup();
    alike.truncate(PER_NAME);
    Ok(alike)
}

/// Before a name without an address is looked up again; doubled up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// While all names have addresses: peers move.
const REFRESH: Duration = Duration::from_secs(30);
/// For one lookup.
const PATIENCE: Duration = Duration::from_secs(5);
/// Addresses taken of one name.
const PER_NAME: usize = 8;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    type Zone = Arc<Mutex<BTreeMap<String, Vec<&'static str>>>>;

    struct Bed {
        zone: Zone,
        unresolved: Unresolved,
        policy: Arc<PeerPolicy>,
        mailbox: mpsc::Receiver<Note>,
        ended: watch::Sender<bool>,
    }

    fn start(seeds: &[&str]) -> Bed {
        let (notes, mailbox) = mpsc::channel(8);
        let (ended, over) = watch::channel(false);
        let own = PeerAddr::parse("http://10.0.0.1:7500").unwrap();
        let policy = Arc::new(PeerPolicy::new(own, Vec::new()));
        let (zone, unresolved) = (Zone::default(), Unresolved::default());
        let names = Names {
            seeds: seeds.iter().map(ToString::to_string).collect(),
            fixed: Vec::new(),
            own_port: None,
        };
        let hearers = Hearers { policy: policy.clone(), unresolved: unresolved.clone(), notes };
        let asked = zone.clone();
        let look_up = move |name: String| {
            let found = asked.lock().unwrap().get(&name).cloned();
            async move {
                match found {
                    Some(list) => Ok(list.iter().map(|at| at.parse().unwrap()).collect()),
                    None => std::future::pending().await,
                }
            }
        };
        tokio::spawn(names.run(look_up, hearers, over));
        Bed { zone, unresolved, policy, mailbox, ended }
    }

    impl Bed {
        async fn seeds(&mut self) -> Vec<String> {
            match self.mailbox.recv().await {
                Some(Note::Input(input)) => match *input {
                    Input::Resolved { seeds, .. } => {
                        seeds.iter().map(ToString::to_string).collect()
                    }
                    other => panic!("{other:?}"),
                },
                _ => panic!("nothing is said"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_until_it_has_an_address_and_after() {
        let mut bed = start(&["http://a.example:7500", "http://10.0.0.9:7500"]);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let said = bed.unresolved.load_full();
        assert!(said["http://a.example:7500"].contains("does not answer"), "{said:?}");
        assert!(bed.mailbox.try_recv().is_err(), "nothing was found, nothing is said");

        let name = "a.example:7500".to_string();
        let list = vec!["10.0.0.3:7500", "10.0.0.2:7500", "[fd00::1]:7500"];
        bed.zone.lock().unwrap().insert(name.clone(), list);
        let both = ["http://10.0.0.2:7500", "http://10.0.0.3:7500", "http://10.0.0.9:7500"];
        assert_eq!(bed.seeds().await, both);
        assert!(bed.unresolved.load().is_empty());
        assert!(bed.policy.allows(PeerAddr::parse(both[0]).unwrap()));

        bed.zone.lock().unwrap().insert(name.clone(), vec!["10.0.0.7:7500"]);
        assert_eq!(bed.seeds().await, ["http://10.0.0.7:7500", "http://10.0.0.9:7500"]);
        bed.zone.lock().unwrap().insert(name, Vec::new());
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert!(bed.mailbox.try_recv().is_err(), "what was found stays");
        assert_eq!(bed.unresolved.load().len(), 1, "and the problem is told");
        bed.ended.send_replace(true);
        assert!(bed.mailbox.recv().await.is_none(), "it ends with the node");
    }

    #[test]
    fn only_urls_of_peers_are_taken() {
        for good in ["http://a:7500", "http://a.b-c.example:1/", "http://[::1]:7500"] {
            assert!(authority(good).is_some(), "{good}");
        }
        for bad in [
            "a:7500",
            "https://a:7500",
            "http://a",
            "http://a:0",
            "http://a:7500/x",
            "http://u@a:7500",
            "http://:7500",
            "http://a:99999",
        ] {
            assert!(authority(bad).is_none(), "{bad}");
        }
    }
}
