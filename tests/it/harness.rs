//! Real processes of the binary on free ports, and the little that tests need to talk to them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A process that ends with the test.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn start(arguments: &[String]) -> Process {
        let mut command = binary();
        command.args(arguments).stdin(Stdio::null());
        Process::of(command)
    }

    /// Any command that becomes the binary.
    pub fn of(mut command: Command) -> Process {
        if std::env::var_os("TRADEWIND_TEST_LOGS").is_none() {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        Process { child: command.spawn().expect("the binary starts") }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it holds of memory.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("Linux says");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.expect("a number of KiB")
    }

    /// As a power cut would.
    pub fn kill(mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("it is gone");
    }

    /// A signal by its name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-s", name, &pid]).status().expect("kill is there");
    }

    /// Waits until it ends by itself; its exit code.
    pub fn ended(&mut self, most: Duration) -> Option<i32> {
        let status = eventually(most, "the process ends", || self.child.try_wait().ok().flatten());
        status.code()
    }

    /// TERM; returns the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().expect("it is gone").code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary under test.
pub fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tradewind"))
}

/// Runs a command to its end.
pub fn run(arguments: &[&str]) -> Output {
    binary().args(arguments).stdin(Stdio::null()).output().expect("the binary runs")
}

/// Runs a command that must succeed; returns what it printed.
pub fn ok(arguments: &[&str]) -> String {
    let output = run(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{arguments:?} failed:\n{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Free ports; held together so that none is given twice.
pub fn free_ports(count: usize) -> Vec<SocketAddr> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    held.iter().map(|listener| listener.local_addr().expect("an address")).collect()
}

/// Polls until a claim is true; says what it was when it never is.
pub fn eventually<T>(most: Duration, what: &str, mut claim: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = claim() {
            return found;
        }
        assert!(begun.elapsed() < most, "not within {most:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.body))
    }
}

/// One exchange on a connection of its own; none when nobody is there.
pub fn http(at: SocketAddr, method: &str, path: &str, body: Option<&str>) -> Option<Answer> {
    http_with(at, method, path, &[], body)
}

/// The same with headers.
pub fn http_with(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> Option<Answer> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request.push_str(&format!("host: {at}\r\n"));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            request.push_str("content-type: application/json\r\n");
        }
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    // A server may answer, and close, before it has read all of a large body.
    let _ = stream.write_all(body.unwrap_or_default().as_bytes());
    read_answer(stream)
}

fn read_answer(stream: TcpStream) -> Option<Answer> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 || line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut raw = Vec::new();
    // Some servers reset instead of closing; what came before counts.
    let _ = reader.read_to_end(&mut raw);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(&raw) } else { raw };
    Some(Answer { status, head, body: String::from_utf8_lossy(&body).into_owned() })
}

fn unchunk(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = raw.windows(2).position(|pair| pair == b"\r\n") {
        let size = String::from_utf8_lossy(&raw[..end]).into_owned();
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        raw = &raw[end + 2..];
        if size == 0 || raw.len() < size {
            break;
        }
        body.extend_from_slice(&raw[..size]);
        raw = &raw[(size + 2).min(raw.len())..];
    }
    body
}

/// What a node with a file of rules is told; its traffic and its peer port, and whatever else.
pub fn with_rules(
    id: &str,
    (traffic, peer): (SocketAddr, SocketAddr),
    data: &Path,
    rules: &Path,
    more: &[&str],
) -> Vec<String> {
    let (traffic, peer) = (traffic.to_string(), peer.to_string());
    let (data, rules) = (data.display().to_string(), rules.display().to_string());
    let first = ["node", "--id", id, "--listen", &traffic, "--peer-listen", &peer];
    let last = ["--data", &data, "--rules", &rules];
    first.iter().chain(&last).chain(more).map(ToString::to_string).collect()
}

/// A node with a file of rules, and nothing else.
pub struct RulesNode {
    pub traffic: SocketAddr,
    pub peer: SocketAddr,
    /// The file, which it watches.
    pub rules: PathBuf,
    _directory: tempfile::TempDir,
    process: Process,
}

impl RulesNode {
    pub fn start(id: &str, rules: &str, more: &[&str]) -> RulesNode {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("rules.yaml");
        std::fs::write(&file, rules).expect("a file");
        let ports = free_ports(2);
        let (traffic, peer) = (ports[0], ports[1]);
        let data = directory.path().join("data");
        let process = Process::start(&with_rules(id, (traffic, peer), &data, &file, more));
        RulesNode { traffic, peer, rules: file, _directory: directory, process }
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The same once its rules are in force.
    pub fn serving(id: &str, rules: &str, most: Duration) -> RulesNode {
        let node = RulesNode::start(id, rules, &["--traffic-threads", "1"]);
        eventually(most, "the rules file is in force", || {
            let status = http(node.peer, "GET", "/v1/status", None)?.json();
            (status["rules"]["active"].as_u64()? > 0).then_some(())
        });
        node
    }
}

/// A fleet of processes: an orchestrator, nodes, targets.
pub struct Fleet {
    pub directory: tempfile::TempDir,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    pub nodes: Vec<NodeProcess>,
    pub targets: Vec<(SocketAddr, Process)>,
    pub orchestrator: Option<Process>,
}

/// One node of it.
pub struct NodeProcess {
    pub name: String,
    pub traffic: SocketAddr,
    pub peer: SocketAddr,
    pub arguments: Vec<String>,
    pub data: PathBuf,
    pub process: Option<Process>,
}

impl NodeProcess {
    pub fn start(&mut self) {
        self.process = Some(Process::start(&self.arguments));
    }

    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    pub fn status(&self) -> Option<Value> {
        let answer = http(self.peer, "GET", "/v1/status", None)?;
        (answer.status == 200).then(|| answer.json())
    }
}

impl Fleet {
    /// Everything up, one rule in force everywhere.
    pub fn start(count: usize) -> Fleet {
        let mut fleet = Fleet::prepare(count, None);
        fleet.start_orchestrator();
        for node in &mut fleet.nodes {
            node.start();
        }
        let rules = fleet.rules_file("demo.yaml", &fleet.demo_rule());
        let printed = ok(&["apply", "-f", &rules, "--orchestrator", &fleet.url()]);
        assert!(printed.contains("new -> v1"), "{printed}");
        fleet.all_answer("/", Duration::from_secs(10));
        fleet
    }

    /// Ports and arguments; `relay` stands between the nodes and the orchestrator.
    pub fn prepare(count: usize, relay: Option<SocketAddr>) -> Fleet {
        let directory = tempfile::tempdir().expect("a directory");
        let ports = free_ports(2 + 2 * count + 2);
        let (grpc, http) = (ports[0], ports[1]);
        let targets = ports[2 + 2 * count..]
            .iter()
            .map(|at| {
                let words = ["demo", "target", "--listen", &at.to_string(), "--region", "fra"];
                (*at, Process::start(&words.map(str::to_string)))
            })
            .collect();
        let first = ports[3];
        let nodes = (0..count)
            .map(|index| {
                let (traffic, peer) = (ports[2 + 2 * index], ports[3 + 2 * index]);
                let name = format!("n{}", index + 1);
                let data = directory.path().join(&name);
                let seed = if index == 0 { ports[5 % ports.len()] } else { first };
                let arguments = [
                    "node",
                    "--id",
                    &name,
                    "--region",
                    "fra",
                    "--listen",
                    &traffic.to_string(),
                    "--peer-listen",
                    &peer.to_string(),
                    "--orchestrator",
                    &format!("http://{}", relay.unwrap_or(grpc)),
                    "--seed",
                    &format!("http://{seed}"),
                    "--data",
                    &data.display().to_string(),
                    "--traffic-threads",
                    "1",
                ]
                .map(str::to_string)
                .to_vec();
                NodeProcess { name, traffic, peer, arguments, data, process: None }
            })
            .collect();
        Fleet { directory, grpc, http, nodes, targets, orchestrator: None }
    }

    pub fn start_orchestrator(&mut self) {
        let arguments = [
            "orchestrator",
            "--grpc-listen",
            &self.grpc.to_string(),
            "--http-listen",
            &self.http.to_string(),
            "--data",
            &self.orchestrator_data().display().to_string(),
        ]
        .map(str::to_string);
        self.orchestrator = Some(Process::start(&arguments));
        eventually(Duration::from_secs(10), "the orchestrator listens", || {
            TcpStream::connect(self.grpc).ok()
        });
    }

    pub fn orchestrator_data(&self) -> PathBuf {
        self.directory.path().join("orchestrator")
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.grpc)
    }

    pub fn rules_file(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    }

    pub fn demo_rule(&self) -> String {
        let mut text = "id: demo\ndata:\n  targets:\n".to_string();
        for (at, _) in &self.targets {
            text.push_str(&format!("    - url: http://{at}\n"));
        }
        text
    }

    /// Every node answers this path with 200, in time; returns how long it took.
    pub fn all_answer(&self, path: &str, most: Duration) -> Duration {
        let begun = Instant::now();
        for node in &self.nodes {
            let what = format!("{} answers {path}", node.name);
            eventually(most.saturating_sub(begun.elapsed()), &what, || {
                http(node.traffic, "GET", path, None).filter(|answer| answer.status == 200)
            });
        }
        begun.elapsed()
    }

    /// Every node stands at the same ledger with no overrides left.
    pub fn all_equal(&self, most: Duration) -> Value {
        eventually(most, "equal heads everywhere", || {
            let heads: Vec<Value> =
                self.nodes.iter().filter_map(NodeProcess::status).map(|s| head(&s)).collect();
            let same = heads.windows(2).all(|pair| pair[0] == pair[1]);
            (heads.len() == self.nodes.len() && same && heads[0]["overrides"] == 0)
                .then(|| heads[0].clone())
        })
    }
}

fn head(status: &Value) -> Value {
    serde_json::json!({
        "active": status["active"],
        "fingerprint": status["fingerprint"],
        "overrides": status["overrides"],
    })
}

/// A rule that answers by itself at `/NAME`.
pub fn respond_rule(name: &str) -> String {
    format!(
        "{{\"data\":{{\"match\":{{\"any\":[{{\"path\":{{\"exact\":\"/{name}\"}}}}]}},\
         \"respond\":{{\"body\":\"{name}\"}}}}}}"
    )
}
