//! The whole path with real processes: rules reach nodes, with the orchestrator and without.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::harness::{Fleet, eventually, free_ports, http, ok, respond_rule, run};

#[test]
fn a_rule_reaches_every_node_whichever_way_it_is_written() {
    let fleet = Fleet::start(3);
    let file = fleet
        .rules_file("hello.yaml", &format!("{{\"id\":\"hello\",{}", &respond_rule("hello")[1..]));
    let printed = ok(&["apply", "-f", &file, "--wait=all", "--orchestrator", &fleet.url()]);
    assert!(printed.contains("hello   new -> v1   revision 2   accepted"), "{printed}");
    assert!(printed.contains("reached    3/3  p50 "), "{printed}");
    assert!(printed.contains("stream 3, peer 0"), "{printed}");
    fleet.all_answer("/hello", Duration::from_secs(1));

    let path = "/v1/configuration/posted";
    let answer = http(fleet.nodes[1].peer, "POST", path, Some(&respond_rule("posted"))).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["through"], "orchestrator");
    assert_eq!(body["results"]["posted"]["state"], "active");
    fleet.all_answer("/posted", Duration::from_secs(2));
    let listed = ok(&["rule", "list", "--orchestrator", &fleet.url()]);
    for id in ["demo", "hello", "posted"] {
        assert!(listed.contains(id), "{listed}");
    }

    let answer = http(fleet.nodes[2].peer, "DELETE", path, None).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    for node in &fleet.nodes {
        eventually(Duration::from_secs(3), "the rule is gone", || {
            let gone = http(node.peer, "GET", path, None)?;
            (gone.status == 404).then_some(())
        });
        let gone = http(node.peer, "GET", path, None).unwrap().json();
        assert_eq!(gone["retired"], true);
        assert_eq!(gone["version"], 2);
    }
    ok(&["check", "--orchestrator", &fleet.url()]);
}

#[test]
fn without_its_orchestrator_the_fleet_serves_restarts_learns_and_takes_rules() {
    let mut fleet = Fleet::start(4);
    let load = Load::start(fleet.nodes[0].traffic);
    load.goes_on(20);
    fleet.orchestrator.take().unwrap().kill();
    load.goes_on(20);

    let path = "/v1/configuration/by-hand";
    let answer = http(fleet.nodes[1].peer, "POST", path, Some(&respond_rule("by-hand"))).unwrap();
    assert_eq!(answer.json()["through"], "override", "{answer:?}");
    let took = fleet.all_answer("/by-hand", Duration::from_secs(5));
    println!("a rule by hand reached every node in {took:?}");
    let tag = http(fleet.nodes[3].peer, "GET", path, None).unwrap();
    assert!(tag.head.contains("\"v1.n2\""), "{tag:?}");

    fleet.nodes[2].kill();
    let begun = Instant::now();
    fleet.nodes[2].start();
    let traffic = fleet.nodes[2].traffic;
    eventually(Duration::from_secs(10), "the restarted node serves from its disk", || {
        http(traffic, "GET", "/by-hand", None).filter(|answer| answer.status == 200)
    });
    println!("a restarted node served after {:?}", begun.elapsed());

    fleet.nodes[3].kill();
    std::fs::remove_dir_all(&fleet.nodes[3].data).unwrap();
    fleet.nodes[3].start();
    let traffic = fleet.nodes[3].traffic;
    eventually(Duration::from_secs(10), "an empty disk learns from a peer", || {
        http(traffic, "GET", "/", None).filter(|answer| answer.status == 200)
    });

    load.goes_on(20);
    fleet.start_orchestrator();
    fleet.all_equal(Duration::from_secs(30));
    load.goes_on(20);
    let history = ok(&["rule", "history", "by-hand", "--orchestrator", &fleet.url()]);
    assert!(history.contains("adopted") && history.contains("n2"), "{history}");
    let conflicts = || ok(&["rule", "conflicts", "--orchestrator", &fleet.url()]);
    assert_eq!(conflicts(), "no two rules match the same\n");
    let twin = fleet
        .rules_file("twin.yaml", &format!("{{\"id\":\"twin\",{}", &respond_rule("by-hand")[1..]));
    ok(&["apply", "-f", &twin, "--orchestrator", &fleet.url()]);
    let found = conflicts();
    assert!(found.contains("by-hand") && found.contains("twin"), "{found}");
    let (sent, failed) = load.end();
    assert_eq!(failed, 0, "of {sent} requests");
}

#[test]
fn an_orchestrator_that_lost_its_disk_takes_everything_back_from_the_nodes() {
    let mut fleet = Fleet::start(3);
    let before = fleet.all_equal(Duration::from_secs(10));
    fleet.orchestrator.take().unwrap().kill();
    let data = fleet.orchestrator_data();
    for entry in std::fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() != "cluster.key" {
            std::fs::remove_file(path).unwrap();
        }
    }
    fleet.start_orchestrator();
    let file =
        fleet.rules_file("late.yaml", &format!("{{\"id\":\"late\",{}", &respond_rule("late")[1..]));
    let refused = run(&["apply", "-f", &file, "--orchestrator", &fleet.url()]);
    assert!(!refused.status.success(), "a fenced orchestrator takes no writes");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("recover"), "{said}");

    let recovered = ok(&["orchestrator", "recover", "--orchestrator", &fleet.url()]);
    assert!(recovered.contains("recovered 1 rules: epoch 2"), "{recovered}");
    let listed = ok(&["rule", "list", "--orchestrator", &fleet.url()]);
    assert!(listed.contains("demo"), "{listed}");
    ok(&["apply", "-f", &file, "--wait=all", "--orchestrator", &fleet.url()]);
    let after = fleet.all_equal(Duration::from_secs(20));
    assert_eq!(after["active"]["epoch"], 2);
    assert!(after["active"]["revision"].as_u64() > before["active"]["revision"].as_u64());
}

#[test]
fn a_silent_stream_is_noticed_and_the_rule_comes_from_a_peer() {
    let relay = Relay::start();
    let mut fleet = Fleet::prepare(3, None);
    let through = format!("http://{}", relay.address);
    let place = fleet.nodes[2].arguments.iter().position(|word| word == "--orchestrator").unwrap();
    fleet.nodes[2].arguments[place + 1] = through;
    relay.to(fleet.grpc);
    fleet.start_orchestrator();
    for node in &mut fleet.nodes {
        node.start();
    }
    let rules = fleet.rules_file("demo.yaml", &fleet.demo_rule());
    ok(&["apply", "-f", &rules, "--orchestrator", &fleet.url()]);
    fleet.all_answer("/", Duration::from_secs(10));
    eventually(Duration::from_secs(10), "every stream is live", || {
        let live = |node: &crate::harness::NodeProcess| Some(node.status()?["feed"] == "live");
        fleet.nodes.iter().all(|node| live(node) == Some(true)).then_some(())
    });

    relay.silence();
    let file =
        fleet.rules_file("late.yaml", &format!("{{\"id\":\"late\",{}", &respond_rule("late")[1..]));
    ok(&["apply", "-f", &file, "--orchestrator", &fleet.url()]);
    let took = fleet.all_answer("/late", Duration::from_secs(5));
    println!("the rule came past a silent stream in {took:?}");
    assert!(relay.swallowed() > 0, "the stream was silent");
    eventually(Duration::from_secs(6), "the silence is noticed", || {
        (fleet.nodes[2].status()?["feed"] == "lost").then_some(())
    });
}

#[test]
fn a_port_that_accepts_and_hangs_up_is_no_orchestrator() {
    let relay = Relay::start();
    let mut fleet = Fleet::prepare(2, Some(relay.address));
    relay.to(fleet.grpc);
    fleet.start_orchestrator();
    for node in &mut fleet.nodes {
        node.start();
    }
    let rules = fleet.rules_file("demo.yaml", &fleet.demo_rule());
    ok(&["apply", "-f", &rules, "--orchestrator", &fleet.url()]);
    fleet.all_answer("/", Duration::from_secs(10));
    // Only then is the node certified: the rule may have come from its neighbour.
    eventually(Duration::from_secs(10), "the stream is live", || {
        (fleet.nodes[0].status()?["feed"] == "live").then_some(())
    });
    fleet.orchestrator.take().unwrap().kill();
    for number in 0..5 {
        let name = format!("by-hand-{number}");
        let path = format!("/v1/configuration/{name}");
        let answer = http(fleet.nodes[0].peer, "POST", &path, Some(&respond_rule(&name))).unwrap();
        assert_eq!(answer.json()["through"], "override", "{answer:?}");
    }
}

#[test]
fn a_node_leaves_in_good_order() {
    let mut fleet = Fleet::start(1);
    let node = fleet.nodes[0].process.take().unwrap();
    assert_eq!(node.terminate(), Some(0));
    let orchestrator = fleet.orchestrator.take().unwrap();
    assert_eq!(orchestrator.terminate(), Some(0));
}

#[test]
fn the_demo_shows_what_it_says() {
    let printed = ok(&["demo", "--check"]);
    assert!(printed.contains("9 nodes in 3 regions"), "{printed}");
    assert!(printed.contains("reached    9/9"), "{printed}");
    assert!(printed.contains("failures   0 of "), "{printed}");
}

/// Requests one after the other until it is ended.
struct Load {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<(u64, u64)>,
}

impl Load {
    fn start(at: SocketAddr) -> Load {
        let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ended, counted) = (over.clone(), answered.clone());
        let thread = std::thread::spawn(move || {
            let (mut sent, mut failed) = (0, 0);
            while !ended.load(Relaxed) {
                sent += 1;
                let answer = http(at, "GET", "/", None);
                failed += u64::from(answer.is_none_or(|answer| answer.status != 200));
                counted.store(sent, Relaxed);
            }
            (sent, failed)
        });
        Load { over, answered, thread }
    }

    /// Returns once that many more requests were answered: what the test does next, or did last,
    /// happened under load.
    fn goes_on(&self, more: u64) {
        let enough = self.answered.load(Relaxed) + more;
        eventually(Duration::from_secs(30), "the load goes on", || {
            (self.answered.load(Relaxed) >= enough).then_some(())
        });
    }

    fn end(self) -> (u64, u64) {
        self.over.store(true, Relaxed);
        self.thread.join().expect("the load ran")
    }
}

/// Passes bytes on until it is told to swallow them.
struct Relay {
    address: SocketAddr,
    silent: Arc<AtomicBool>,
    swallowed: Arc<AtomicU64>,
    target: Arc<std::sync::Mutex<Option<SocketAddr>>>,
}

impl Relay {
    fn start() -> Relay {
        let address = free_ports(1)[0];
        let listener = TcpListener::bind(address).unwrap();
        let relay = Relay {
            address,
            silent: Arc::default(),
            swallowed: Arc::default(),
            target: Arc::default(),
        };
        let (silent, swallowed) = (relay.silent.clone(), relay.swallowed.clone());
        let target = relay.target.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Some(to) = *target.lock().unwrap() else { continue };
                let Ok(far) = TcpStream::connect(to) else { continue };
                let ways = [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)];
                for (from, into) in ways {
                    let (silent, swallowed) = (silent.clone(), swallowed.clone());
                    std::thread::spawn(move || pass(from, into, &silent, &swallowed));
                }
            }
        });
        relay
    }

    fn to(&self, address: SocketAddr) {
        *self.target.lock().unwrap() = Some(address);
    }

    fn silence(&self) {
        self.silent.store(true, Relaxed);
    }

    fn swallowed(&self) -> u64 {
        self.swallowed.load(Relaxed)
    }
}

fn pass(mut from: TcpStream, mut into: TcpStream, silent: &AtomicBool, swallowed: &AtomicU64) {
    use std::io::{Read, Write};
    let mut space = [0u8; 16 << 10];
    while let Ok(some) = from.read(&mut space) {
        if silent.load(Relaxed) {
            swallowed.fetch_add(some as u64, Relaxed);
            if some == 0 {
                return;
            }
            continue;
        }
        if some == 0 || into.write_all(&space[..some]).is_err() {
            return;
        }
    }
}
