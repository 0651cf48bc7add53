//! One rule to many followers: the orchestrator's stream beside a naive broadcast.
//!
//! All sides use real gRPC over loopback. Ours commits to its store first, with fsync, and has
//! reports coming back; its followers verify. The naive ones keep nothing and hear nothing: with
//! verifying followers it shows what the stream costs, with believing ones what care costs, and
//! with all rules in every push what a delta saves.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;

use super::{load, median, quantile};
use crate::cli::client::{Arrival, Care, Client, Naive, Write, follow};
use crate::cli::failure::Failure;
use crate::cli::output::say;
use crate::model::delta::{Changes, Delta};
use crate::model::head::Position;
use crate::model::ids::Revision;
use crate::model::key::PrivateKey;
use crate::model::ledger::{Change, Ledger};
use crate::model::moment::WallTime;
use crate::model::record::Body;
use crate::orchestrator::{Orchestrator, OrchestratorOptions};

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
    let mut ours = Ours::start(&directory, followers, rules).await?;
    let mut book = Book::new(rules)?;
    let mut careful = Theirs::start(followers, &book, Care::Verify).await?;
    let mut believing = Theirs::start(followers, &book, Care::Believe).await?;
    let mut whole = Theirs::start(followers, &book, Care::Believe).await?;
    for round in 0..rounds {
        ours.push(round, rules).await?;
        book.change(round % rules.max(1), round + 1)?;
        careful.push(&book, &book.newest()).await?;
        believing.push(&book, &book.newest()).await?;
        whole.push(&book, &book.ledger.replacement()).await?;
    }
    say!("followers  {followers} of each kind in this process; {rules} rules; {rounds} rounds");
    say!("load       {} at the end\n", load());
    say!("from the write to the follower that applied it, ms, medians of the rounds:\n");
    say!("{:38} {:>7} {:>7} {:>7}   put answered", "", "p50", "p99", "last");
    ours.figures.print("tradewind: store, sign, stream, verify");
    careful.figures.print("naive broadcast of the delta, verified");
    believing.figures.print("naive broadcast of the delta, believed");
    whole.figures.print("naive broadcast of all rules, believed");
    for side in [careful, believing, whole] {
        side.end();
    }
    ours.end().await;
    // What a measurement leaves behind is of no use to anybody.
    let _ = std::fs::remove_dir_all(&directory);
    Ok(())
}

/// An orchestrator and its followers.
struct Ours {
    orchestrator: Orchestrator,
    client: Client,
    followers: Followers,
    figures: Figures,
}

impl Ours {
    async fn start(directory: &Path, followers: usize, rules: usize) -> Result<Ours, Failure> {
        let orchestrator = Orchestrator::start(OrchestratorOptions::local(directory))
            .await
            .map_err(|error| Failure::failed(format!("the orchestrator cannot start: {error}")))?;
        let url = format!("http://{}", orchestrator.grpc_addr());
        let client = Client::connect(&url, None).await?;
        let writes: Result<Vec<Write>, Failure> = (0..rules).map(|n| write(n, 0)).collect();
        client.apply(&writes?, false).await?;
        let mut followers = Followers::start(followers, &url, Care::Verify);
        followers.wait_for(1).await?;
        Ok(Ours { orchestrator, client, followers, figures: Figures::default() })
    }

    async fn push(&mut self, round: usize, rules: usize) -> Result<(), Failure> {
        let begun = Instant::now();
        let applied = self.client.apply(&[write(round % rules.max(1), round + 1)?], false).await?;
        let answered = begun.elapsed();
        let revision = applied.position.map_or(0, |at| at.revision.0);
        let times = self.followers.wait_for(revision).await?;
        self.figures.note(&times, begun, Some(answered));
        Ok(())
    }

    async fn end(self) {
        self.followers.end();
        self.orchestrator.shutdown().await;
    }
}

/// A naive broadcast and its followers.
struct Theirs {
    naive: Naive,
    served: JoinHandle<()>,
    followers: Followers,
    figures: Figures,
}

impl Theirs {
    async fn start(count: usize, book: &Book, care: Care) -> Result<Theirs, Failure> {
        let naive = Naive::default();
        let (url, served) = serve(&naive).await?;
        let mut followers = Followers::start(count, &url, care);
        let begun = Instant::now();
        while naive.count() < count && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // These followers know no key and trust the first.
        naive.welcome(book.key.public());
        naive.push(&book.ledger.replacement());
        followers.wait_for(1).await?;
        Ok(Theirs { naive, served, followers, figures: Figures::default() })
    }

    async fn push(&mut self, book: &Book, delta: &Delta) -> Result<(), Failure> {
        let begun = Instant::now();
        self.naive.push(delta);
        let times = self.followers.wait_for(book.ledger.head().revision.0).await?;
        self.figures.note(&times, begun, None);
        Ok(())
    }

    fn end(self) {
        self.followers.end();
        self.served.abort();
    }
}

/// Followers of one side, and what they tell.
struct Followers {
    tasks: Vec<JoinHandle<()>>,
    arrived: mpsc::UnboundedReceiver<Arrival>,
}

impl Followers {
    fn start(count: usize, url: &str, care: Care) -> Followers {
        let (arrivals, arrived) = mpsc::unbounded_channel();
        let tasks = (0..count)
            .map(|number| follow(url.to_string(), number, care, arrivals.clone()))
            .collect();
        Followers { tasks, arrived }
    }

    /// Waits until all have this revision or a later one; when each did.
    async fn wait_for(&mut self, revision: u64) -> Result<Vec<Instant>, Failure> {
        let all = self.tasks.len();
        let mut times = Vec::with_capacity(all);
        while times.len() < all {
            match tokio::time::timeout(PATIENCE, self.arrived.recv()).await {
                Ok(Some(arrival)) if arrival.revision >= revision => times.push(arrival.at),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    let some = times.len();
                    return Err(Failure::failed(format!("only {some} of {all} followers got it")));
                }
            }
        }
        Ok(times)
    }

    fn end(self) {
        for task in self.tasks {
            task.abort();
        }
    }
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
        say!("{name:38} {p50:7.1} {p99:7.1} {last:7.1}   {answered}");
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

    /// The newest change alone.
    fn newest(&self) -> Delta {
        let at = self.ledger.position();
        let before = Position { epoch: at.epoch, revision: Revision(at.revision.0 - 1) };
        match self.ledger.changes_since(Some(before)) {
            Changes::Delta(delta) => delta,
            Changes::Current => self.ledger.replacement(),
        }
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
    Write::all_of(&text)?.pop().ok_or_else(|| Failure::failed("no rule"))
}

async fn serve(naive: &Naive) -> Result<(String, JoinHandle<()>), Failure> {
    let fail = |error: std::io::Error| Failure::failed(format!("no port: {error}"));
    let socket = TcpSocket::new_v4().map_err(fail)?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).map_err(fail)?;
    let listener = socket.listen(4_096).map_err(fail)?;
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
