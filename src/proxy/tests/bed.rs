//! A proxy, origins and clients for tests: plain blocking sockets around real traffic threads.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::model::ids::{RuleId, Version};
use crate::model::moment::WallTime;
use crate::model::network::Network;
use crate::model::rule::{
    Action, Alternative, Balance, Health, Limits, NodeSelector, Retry, Rule, Scheme, Target,
    TargetAddress, Timeouts,
};
use crate::proxy::certificates::Certificates;
use crate::proxy::dial::Distance;
use crate::proxy::listener::{Bounds, ProxyConfig, ProxyHandle, Tls};
use crate::proxy::resolve::AddressPolicy;
use crate::proxy::routes::{RouteChange, RoutesState};
use crate::proxy::shedding::Shedding;
use crate::proxy::sockets::{Inherited, Sockets};
use crate::proxy::target_tls::TargetTls;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::clock::Clock;
use crate::telemetry::request_metrics::RequestMetrics;

/// Long enough for a loaded machine; no claim waits for it when it holds.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A proxy with one rule, `one`, and its counters.
pub(super) struct Bed {
    pub(super) proxy: ProxyHandle,
    pub(super) state: RoutesState,
    pub(super) metrics: Arc<RequestMetrics>,
    pub(super) clock: Clock,
}

/// What a bed may have besides its rule.
pub(super) struct Setup {
    pub(super) bounds: Bounds,
    pub(super) distance: Option<Distance>,
    pub(super) access_log: Option<Arc<AccessLog>>,
    /// Makes it a bed behind TLS.
    pub(super) certificates: Option<Arc<Certificates>>,
    pub(super) target_tls: Arc<TargetTls>,
    pub(super) announcers: Vec<Network>,
    pub(super) shedding: Arc<Shedding>,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            bounds: Bounds::default(),
            distance: None,
            access_log: None,
            certificates: None,
            target_tls: Arc::new(TargetTls::new(&[], None).unwrap()),
            announcers: Vec::new(),
            shedding: Arc::default(),
        }
    }
}

impl Bed {
    pub(super) fn start(rule: Rule) -> Bed {
        Bed::set_up(rule, Setup::default())
    }

    pub(super) fn within(rule: Rule, bounds: Bounds) -> Bed {
        Bed::set_up(rule, Setup { bounds, ..Setup::default() })
    }

    /// Every target is this far away, one way.
    pub(super) fn far(rule: Rule, distance: Duration) -> Bed {
        let distance: Distance = Arc::new(move |_: &TargetAddress| distance);
        Bed::set_up(rule, Setup { distance: Some(distance), ..Setup::default() })
    }

    pub(super) fn set_up(rule: Rule, setup: Setup) -> Bed {
        let metrics = Arc::new(RequestMetrics::default());
        let state = RoutesState::new(metrics.clone());
        let clock = Clock::new();
        let listen = [SocketAddr::from(([127, 0, 0, 1], 0))];
        let sockets = Sockets::open(&listen, 1, &mut Inherited::default()).unwrap();
        let addresses = sockets.addresses.clone();
        let proxy = ProxyHandle::start(ProxyConfig {
            node: "edge".to_string(),
            sockets,
            target_tls: setup.target_tls,
            announcers: setup.announcers,
            tls: setup.certificates.map(|certificates| Tls { addresses, certificates }),
            policy: Arc::new(AddressPolicy { loopback: true, own: Vec::new() }),
            distance: setup.distance,
            routes: state.published(),
            metrics: metrics.clone(),
            access_log: setup.access_log,
            clock,
            bounds: setup.bounds,
            shedding: setup.shedding,
        })
        .unwrap();
        let mut bed = Bed { proxy, state, metrics, clock };
        assert!(bed.put("one", rule).is_empty());
        bed
    }

    /// Puts a rule in force; returns what was rejected.
    pub(super) fn put(&mut self, id: &str, rule: Rule) -> Vec<(RuleId, String)> {
        let change = RouteChange {
            id: RuleId::parse(id).unwrap(),
            version: Version::new(1),
            rule: Some(Arc::new(rule)),
            created: WallTime(1),
        };
        let rejected = self.state.apply(vec![change]);
        self.state.publish();
        rejected
    }

    /// Lets what runs come to its end; nobody hurries it.
    pub(super) async fn drain(self, patience: Duration) {
        self.proxy.drain(patience, CancellationToken::new()).await;
    }

    pub(super) fn client(&self) -> TcpStream {
        let stream = TcpStream::connect(self.proxy.addresses()[0]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes as they are and reads until the other side has nothing more to say.
    pub(super) fn raw(&self, bytes: &str) -> String {
        let mut client = self.client();
        client.write_all(bytes.as_bytes()).unwrap();
        read_all(&mut client)
    }

    pub(super) fn get(&self) -> String {
        self.raw("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    }

    /// The Prometheus text.
    pub(super) fn shown(&self) -> String {
        let mut text = String::new();
        self.metrics.write(&mut text);
        text
    }
}

/// Everything goes to these targets.
pub(super) fn forward(origins: &[SocketAddr]) -> Rule {
    forward_by(Scheme::Http, origins)
}

/// The same over another protocol.
pub(super) fn forward_by(scheme: Scheme, origins: &[SocketAddr]) -> Rule {
    let target = |at: &SocketAddr| Target {
        address: TargetAddress { scheme, host: at.ip().to_string(), port: at.port() },
        weight: 1,
        region: String::new(),
        latency_hint: None,
    };
    Rule {
        hosts: Vec::new(),
        alternatives: vec![Alternative::default()],
        filters: Vec::new(),
        action: Action::Forward(origins.iter().map(target).collect()),
        balance: Balance::default(),
        timeouts: Timeouts::default(),
        retry: Retry::default(),
        health: Health::default(),
        limits: Limits::default(),
        nodes: NodeSelector::default(),
    }
}

/// What an origin does with a head; it returns whether the connection stays open.
type Answering = fn(&str, &mut TcpStream) -> bool;

/// An origin that tells the heads it receives, with the number of their connection.
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    heads: Receiver<(usize, String)>,
}

impl Origin {
    pub(super) fn start(answer: Answering) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (said, heads) = channel();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                let said = said.clone();
                std::thread::spawn(move || serve(stream, number, &said, answer));
            }
        });
        Origin { address, heads }
    }

    pub(super) fn next(&self) -> (usize, String) {
        self.heads.recv_timeout(PATIENCE).expect("a request reaches the origin")
    }

    /// What came already, or none.
    pub(super) fn soon(&self) -> Result<(usize, String), TryRecvError> {
        self.heads.try_recv()
    }

    pub(super) fn is_left_alone(&self) -> bool {
        self.heads.try_recv().is_err()
    }
}

fn serve(mut stream: TcpStream, number: usize, said: &Sender<(usize, String)>, answer: Answering) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    while let Some(head) = read_until(&mut stream, "\r\n\r\n") {
        if said.send((number, head.clone())).is_err() || !answer(&head, &mut stream) {
            return;
        }
    }
}

/// Reads byte by byte up to and with `end`; None when the stream ends before.
pub(super) fn read_until(stream: &mut impl Read, end: &str) -> Option<String> {
    let mut read = Vec::new();
    let mut byte = [0u8; 1];
    while !read.ends_with(end.as_bytes()) {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        read.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&read).into_owned())
}

/// What comes until the end; a reset after the answer is an end too.
pub(super) fn read_all(stream: &mut impl Read) -> String {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

/// An origin's plain answer.
pub(super) fn ok(_: &str, stream: &mut TcpStream) -> bool {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_ok()
}

/// An origin that answers with more than fits anywhere.
pub(super) fn vast(_: &str, stream: &mut TcpStream) -> bool {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
    let block = vec![b'x'; 1 << 20];
    // Ends when the proxy lets go of the connection.
    while stream.write_all(&block).is_ok() {}
    false
}

/// An origin that never answers.
pub(super) fn silent(_: &str, _: &mut TcpStream) -> bool {
    true
}

pub(super) fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

pub(super) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

/// Runs a client that awaits, on two threads so that a claim may be polled beside it.
pub(super) fn with_runtime<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// Polls a claim until it holds.
pub(super) fn eventually(what: &str, mut claim: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !claim() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
