//! One rule to many followers: the orchestrator's stream beside a naive broadcast.
//!
//! Both sides use real gRPC over loopback and followers that verify and apply what they get. Our
//! side also commits to its store first, with fsync; the naive one keeps nothing.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;

use super::{load, median, quantile};
use crate::cli::client::{Arrival, Client, Naive, Write, follow};
use crate::cli::failure::Failure;
use crate::model::ids::RuleId;
use crate::model::key::PrivateKey;
use crate::model::ledger::{Change, Ledger};
use crate::model::moment::WallTime;
use crate::model::record::Body;
use crate::orchestrator::{Orchestrator, OrchestratorOptions};
use crate::wire::rule_document::rules_from_yaml_or_json;

/// The figures of one side.
#[derive(Default)]
struct Figures {
    p50: Vec<f64>,
    p99: Vec<f64>,
    last: Vec<f64>,
    answered: Vec<f64>,
}

/// Runs and prints the comparison.
pub(super) async fn run(followers: usize, rules: usize, rounds: usize) -> Result<(), Failure> {
    let directory = std::env::temp_dir().join(format!("tradewind-bench-{}", std::process::id()));
    let options = OrchestratorOptions::local(&directory);
    let orchestrator = Orchestrator::start(options)
        .await
        .map_err(|error| Failure::failed(format!("the orchestrator cannot start: {error}")))?;
    let url = format!("http://{}", orchestrator.grpc_addr());
    let client = Client::connect(&url, None).await?;
    let writes: Result<Vec<Write>, Failure> = (0..rules).map(|n| write(n, 0)).collect();
    client.apply(&writes?, false).await?;
    let (arrivals, mut arrived) = mpsc::unbounded_channel();
    let ours: Vec<_> = (0..followers).map(|n| follow(url.clone(), n, arrivals.clone())).collect();
    wait_for(&mut arrived, followers, 1).await?;

    let naive = Naive::default();
    let (naive_url, served) = serve(&naive).await?;
    let (naive_arrivals, mut naive_arrived) = mpsc::unbounded_channel();
    let theirs: Vec<_> =
        (0..followers).map(|n| follow(naive_url.clone(), n, naive_arrivals.clone())).collect();
    let begun = Instant::now();
    while naive.count() < followers && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut book = Book::new(rules)?;
    naive.push(&book.ledger);
    // The naive followers know no key and trust the first; their first ledger is revision 1 too.
    wait_for(&mut naive_arrived, followers, 1).await?;

    let (mut delta, mut whole) = (Figures::default(), Figures::default());
    for round in 0..rounds {
        let begun = Instant::now();
        let applied = client.apply(&[write(round % rules.max(1), round + 1)?], false).await?;
        let answered = begun.elapsed();
        let revision = applied.position.map_or(0, |at| at.revision.0);
        let times = wait_for(&mut arrived, followers, revision).await?;
        delta.note(&times, begun, Some(answered));

        let begun = Instant::now();
        book.change(round % rules.max(1), round + 1)?;
        naive.push(&book.ledger);
        let revision = book.ledger.head().revision.0;
        let times = wait_for(&mut naive_arrived, followers, revision).await?;
        whole.note(&times, begun, None);
    }
    println!("followers  {followers} in this process; {rules} rules; {rounds} rounds, medians");
    println!("load       {} at the end\n", load());
    println!("                   p50        p99       last   put answered (fsync included)");
    delta.print("tradewind");
    whole.print("naive");
    for task in ours.into_iter().chain(theirs) {
        task.abort();
    }
    served.abort();
    orchestrator.shutdown().await;
    // What a measurement leaves behind is of no use to anybody.
    let _ = std::fs::remove_dir_all(&directory);
    Ok(())
}

/// Waits until this many followers have this revision or a later one; when each did.
async fn wait_for(
    arrived: &mut mpsc::UnboundedReceiver<Arrival>,
    followers: usize,
    revision: u64,
) -> Result<Vec<Instant>, Failure> {
    let mut times = Vec::with_capacity(followers);
    while times.len() < followers {
        match tokio::time::timeout(PATIENCE, arrived.recv()).await {
            Ok(Some(arrival)) if arrival.revision >= revision => times.push(arrival.at),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => {
                let (some, all) = (times.len(), followers);
                return Err(Failure::failed(format!("only {some} of {all} followers got it")));
            }
        }
    }
    Ok(times)
}

impl Figures {
    fn note(&mut self, times: &[Instant], begun: Instant, answered: Option<Duration>) {
        let mut took: Vec<f64> =
            times.iter().map(|at| at.duration_since(begun).as_secs_f64() * 1e3).collect();
        took.sort_by(f64::total_cmp);
        self.p50.push(quantile(&took, 0.5));
        self.p99.push(quantile(&took, 0.99));
        self.last.push(quantile(&took, 1.0));
        self.answered.extend(answered.map(|answered| answered.as_secs_f64() * 1e3));
    }

    fn print(&mut self, name: &str) {
        let (p50, p99, last) =
            (median(&mut self.p50), median(&mut self.p99), median(&mut self.last));
        let answered = if self.answered.is_empty() {
            "-".to_string()
        } else {
            format!("{:.1} ms", median(&mut self.answered))
        };
        println!("{name:12} {p50:7.1} ms {p99:7.1} ms {last:7.1} ms   {answered}");
    }
}

/// The ledger that the naive side pushes.
struct Book {
    key: PrivateKey,
    ledger: Ledger,
}

impl Book {
    fn new(rules: usize) -> Result<Book, Failure> {
        let key = PrivateKey::from_seed([9; 32]);
        let ledger = Ledger::genesis(key.public().cluster(), |head| head.sign(&key));
        let mut book = Book { key, ledger };
        let changes: Result<Vec<Change>, Failure> =
            (0..rules).map(|number| book.next(number, 0)).collect();
        book.commit(&changes?)?;
        Ok(book)
    }

    fn change(&mut self, number: usize, round: usize) -> Result<(), Failure> {
        let change = self.next(number, round)?;
        self.commit(&[change])
    }

    fn next(&self, number: usize, round: usize) -> Result<Change, Failure> {
        let write = write(number, round)?;
        let version = self
            .ledger
            .next_version(&write.id)
            .ok_or_else(|| Failure::failed("versions have run out"))?;
        Ok(Change { id: write.id, version, body: Body::Live(write.data.unwrap_or_default()) })
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), Failure> {
        let key = &self.key;
        self.ledger = self
            .ledger
            .commit(changes, WallTime(1), |head| head.sign(key))
            .map_err(|refusal| Failure::failed(refusal.to_string()))?;
        Ok(())
    }
}

fn write(number: usize, round: usize) -> Result<Write, Failure> {
    let targets = format!(
        "[{{ url: \"http://10.0.0.1:80\", weight: {} }}, {{ url: \"http://10.0.0.2:80\" }}]",
        round + 1
    );
    let hosts = format!("{{ hosts: [\"h{number}.example\"] }}");
    let text = format!("id: rule-{number}\ndata: {{ match: {hosts}, targets: {targets} }}\n");
    let mut rules =
        rules_from_yaml_or_json(&text).map_err(|problems| Failure::failed(problems.to_string()))?;
    let rule = rules.pop().ok_or_else(|| Failure::failed("no rule"))?;
    let id: RuleId = rule.id;
    let data: Bytes = rule.data;
    Ok(Write { id, data: Some(data), expected: None })
}

async fn serve(naive: &Naive) -> Result<(String, tokio::task::JoinHandle<()>), Failure> {
    let fail = |error: std::io::Error| Failure::failed(format!("no port: {error}"));
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(fail)?;
    let url = format!("http://{}", listener.local_addr().map_err(fail)?);
    let server = tonic::transport::Server::builder().add_service(naive.service());
    let served = tokio::spawn(async move {
        // Ends with the measurement.
        let _ = server.serve_with_incoming(TcpListenerStream::new(listener)).await;
    });
    Ok((url, served))
}

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
