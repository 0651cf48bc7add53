//! Claims about an orchestrator whose process is killed, or whose disk is full.
//!
//! The orchestrator runs in a process of its own: this test binary again, with one test that does
//! nothing unless it is told a directory. A limit on the size of files is a full disk.

use std::future::ready;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use hyper_util::rt::TokioIo;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt;
use tower::service_fn;

use super::bed::{eventually, put};
use crate::orchestrator::{Orchestrator, OrchestratorOptions};
use crate::wire::proto::rule_service_client::RuleServiceClient;
use crate::wire::proto::{GetRuleRequest, ListRulesRequest, PutRuleRequest};

const DIRECTORY: &str = "TRADEWIND_TEST_DIRECTORY";
const SERVES: &str = "serves at ";
const FAILED: &str = "does not start: ";

#[tokio::test]
#[ignore = "the process that the tests beside it kill; does nothing by itself"]
async fn serves_until_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let options = OrchestratorOptions::local(std::path::PathBuf::from(directory));
    match Orchestrator::start(options).await {
        Ok(orchestrator) => {
            println!("\n{SERVES}{}", orchestrator.grpc_addr());
            // It ends with whoever started it.
            let waiting =
                tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
            drop(waiting.await);
            orchestrator.shutdown().await;
        }
        Err(error) => println!("\n{FAILED}{error}"),
    }
}

/// An orchestrator in a process of its own.
struct Served {
    process: Child,
    at: SocketAddr,
}

impl Served {
    /// `shell` goes before it, in its process.
    fn try_start(directory: &Path, shell: &str) -> Result<Served, String> {
        let mut process = Command::new("sh")
            .args(["-c", &format!("{shell} exec \"$0\" \"$@\"")])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "orchestrator::tests::crashing::serves_until_killed"])
            .args(["--ignored", "--nocapture"])
            .env(DIRECTORY, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for line in BufReader::new(process.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(at) = line.strip_prefix(SERVES) {
                return Ok(Served { process, at: at.parse().unwrap() });
            }
            if let Some(why) = line.strip_prefix(FAILED) {
                process.wait().unwrap();
                return Err(why.to_owned());
            }
        }
        panic!("the process ended without a word: {:?}", process.wait());
    }

    fn start(directory: &Path) -> Served {
        Served::try_start(directory, "").unwrap()
    }

    /// Over one connection and no second one: once the process is killed its port may be another
    /// test's.
    async fn client(&self) -> RuleServiceClient<Channel> {
        let mut stream = Some(TokioIo::new(TcpStream::connect(self.at).await.unwrap()));
        let once = service_fn(move |_| {
            ready(stream.take().ok_or(io::Error::from(ErrorKind::NotConnected)))
        });
        let endpoint = Channel::from_shared(format!("http://{}", self.at)).unwrap();
        RuleServiceClient::new(endpoint.connect_with_connector(once).await.unwrap())
    }

    /// As a power cut would, but for what the system had already taken.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Files may grow to so many bytes and no further.
    fn limit_files(&self, bytes: &str) {
        let (pid, size) = (self.process.id().to_string(), format!("--fsize={bytes}:unlimited"));
        assert!(Command::new("prlimit").args(["--pid", &pid, &size]).status().unwrap().success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// One who writes one rule again and again, each time with another body and a write id.
struct Writer {
    number: usize,
    /// How many of its writes are acknowledged: the rule's version, if each is done once.
    acknowledged: u64,
    /// Sent, and not answered.
    unanswered: Option<PutRuleRequest>,
    /// Unanswered ones that turned out to be done.
    done_unanswered: usize,
    revisions: Vec<u64>,
}

impl Writer {
    fn new(number: usize) -> Writer {
        let (unanswered, revisions) = (None, Vec::new());
        Writer { number, acknowledged: 0, unanswered, done_unanswered: 0, revisions }
    }

    /// Looks, without repeating anything, whether the write that nobody answered was done.
    async fn look(&mut self, client: &mut RuleServiceClient<Channel>) {
        let id = format!("r{}", self.number);
        let held = match client.get_rule(GetRuleRequest { id }).await {
            Ok(held) => held.into_inner().rule.unwrap().version,
            Err(status) => {
                assert_eq!(status.code(), Code::NotFound, "{status}");
                0
            }
        };
        let done = u64::from(held > self.acknowledged);
        assert_eq!(
            held,
            self.acknowledged + done,
            "an acknowledged write is lost, or one too many"
        );
        assert!(done == 0 || self.unanswered.is_some(), "nobody wrote that");
        self.done_unanswered += done as usize;
    }

    /// One write, or the repeat of the one that was not answered; false where nobody answers.
    async fn write(&mut self, client: &mut RuleServiceClient<Channel>) -> bool {
        let next = self.acknowledged + 1;
        let request = self.unanswered.take().unwrap_or_else(|| PutRuleRequest {
            write_id: format!("{}-{next}", self.number),
            ..put(&format!("r{}", self.number), 10_000 + (next % 50_000) as u16)
        });
        match client.put_rule(request.clone()).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                assert_eq!(answer.result.unwrap().version, next, "done exactly once");
                self.revisions.push(answer.position.unwrap().revision);
                self.acknowledged = next;
                true
            }
            Err(_) => {
                self.unanswered = Some(request);
                false
            }
        }
    }
}

/// Kills it so often under writers; gives how often a write was done and not answered.
async fn kill_under_writers(kills: usize, seed: u64) -> usize {
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let home = tempfile::tempdir().unwrap();
    let mut writers: Vec<Writer> = (0..8).map(Writer::new).collect();
    for _ in 0..kills {
        let mut served = Served::start(home.path());
        let (acknowledged, mut heard) = mpsc::unbounded_channel();
        let mut writing = JoinSet::new();
        for mut writer in writers {
            let (mut client, acknowledged) = (served.client().await, acknowledged.clone());
            writer.look(&mut client).await;
            writing.spawn(async move {
                while writer.write(&mut client).await {
                    acknowledged.send(()).unwrap();
                }
                writer
            });
        }
        for _ in 0..rng.random_range(1..60) {
            eventually(heard.recv()).await.unwrap();
        }
        served.kill();
        writers = eventually(writing.join_all()).await;
    }
    let served = Served::start(home.path());
    let mut client = served.client().await;
    let mut revisions = Vec::new();
    for writer in &mut writers {
        writer.look(&mut client).await;
        assert!(writer.write(&mut client).await);
        revisions.extend(writer.revisions.iter().copied());
    }
    revisions.sort_unstable();
    let all: Vec<u64> = (1..=revisions.len() as u64).collect();
    assert_eq!(revisions, all, "every write is one commit, and nobody's commit is missing");
    let listed = client.list_rules(ListRulesRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.position.unwrap().revision, all.len() as u64);
    writers.iter().map(|writer| writer.done_unanswered).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_lose_nothing_acknowledged_and_a_repeat_is_done_once() {
    let done_unanswered = kill_under_writers(50, 1).await;
    println!("{done_unanswered} writes were done and not answered");
    assert!(done_unanswered > 0, "no kill fell between the disk and the answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg(target_os = "linux")]
async fn a_full_disk_acknowledges_nothing_shows_what_it_has_and_goes_on_once_there_is_room() {
    let home = tempfile::tempdir().unwrap();
    let mut served = Served::try_start(home.path(), "trap '' XFSZ;").unwrap();
    let mut client = served.client().await;
    client.put_rule(put("before", 9001)).await.unwrap();
    served.limit_files("4096");
    let named = |rule: &str| PutRuleRequest { write_id: rule.to_owned(), ..put(rule, 9001) };
    let reason = |status: &tonic::Status| {
        status.get_error_details().error_info().map(|info| info.reason.clone())
    };
    let unknown = client.put_rule(named("full")).await.unwrap_err();
    assert_eq!(reason(&unknown).as_deref(), Some("OUTCOME_UNKNOWN"), "{unknown}");
    let fenced = client.put_rule(named("later")).await.unwrap_err();
    assert_eq!(reason(&fenced).as_deref(), Some("FENCED"), "{fenced}");
    assert!(fenced.message().contains("mend the disk"), "{fenced}");
    let read = async |client: &mut RuleServiceClient<Channel>, id: &str| {
        client.get_rule(GetRuleRequest { id: id.to_owned() }).await.map(drop)
    };
    read(&mut client, "before").await.unwrap();
    read(&mut client, "full").await.unwrap_err();
    served.kill();
    // A full disk is no damage: it starts, shows what it has, and takes nothing.
    let mut full = Served::try_start(home.path(), "trap '' XFSZ; ulimit -f 4;").unwrap();
    let mut client = full.client().await;
    read(&mut client, "before").await.unwrap();
    let refused = client.put_rule(named("later")).await.unwrap_err();
    let words = reason(&refused);
    assert!(matches!(words.as_deref(), Some("OUTCOME_UNKNOWN" | "FENCED")), "{refused}");
    full.kill();
    let again = Served::start(home.path());
    let mut client = again.client().await;
    read(&mut client, "before").await.unwrap();
    // A repeat tells what became of the one that nobody knew.
    let answer = client.put_rule(named("full")).await.unwrap().into_inner();
    assert_eq!(answer.result.unwrap().version, 1);
    client.put_rule(named("later")).await.unwrap();
}
