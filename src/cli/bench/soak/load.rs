//! The load of a soak: each kind at a pace of its own, until the end.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::Site;
use super::tally::{End, Kind};
use crate::cli::bench::operator::Conversation;
use crate::cli::bench::origin;
use crate::cli::bench::process::Process;
use crate::cli::bench::tls::Tls;
use crate::cli::bench::traffic::{self, Client, Shape};
use crate::cli::bench::websockets::{Shared, WebSocket};
use crate::cli::failure::Failure;

type Task = JoinHandle<Result<(), Failure>>;

/// Requests of clients that stay; also what shows that the node is up.
pub(super) fn kept() -> Result<Shape, Failure> {
    Shape::new(1, SIZE).asking(Kind::HOST, "/")
}

/// Starts everything; the target is ended now and then, and started again from `directory`.
pub(super) fn start(
    site: &Arc<Site>,
    target: Process,
    directory: &Path,
) -> Result<Vec<Task>, Failure> {
    let mut tasks = Vec::new();
    let plain = kept()?;
    // Over TLS a request is for the name of the certificate.
    let secure = Shape { tls: Some(Tls::new(&site.identity)?), ..Shape::new(1, SIZE) };
    for (shape, at) in [(&plain, site.plain), (&secure, site.secure)] {
        tasks.extend(asking(site, Kind::Kept, at, shape, 250.0));
        let fresh = Shape { fresh: true, ..shape.clone() };
        tasks.extend(asking(site, Kind::Fresh, at, &fresh, 25.0));
    }
    let at = site.plain;
    tasks.extend(paced(site, Kind::LeavesAnswer, 20.0, move |number| leave_answer(at, number)));
    tasks.extend(paced(site, Kind::LeavesUpload, 20.0, move |number| leave_upload(at, number)));
    tasks.extend(paced(site, Kind::Slow, 3.0, move |_| read_slowly(at)));
    tasks.extend(paced(site, Kind::WebSocket, 10.0, move |number| talk(at, number)));
    tasks.extend(changing(site));
    let ended = Arc::new(Mutex::new(None));
    let shape = plain.asking(Kind::RESTARTING, "/")?;
    tasks.extend(asking_restarting(site, &shape, &ended));
    let directory = directory.to_path_buf();
    tasks.push(tokio::spawn(restart(site.clone(), target, directory, ended)));
    Ok(tasks)
}

/// Does something so often a second, by several at once, until the end.
fn paced<F>(
    site: &Arc<Site>,
    kind: Kind,
    rate: f64,
    act: impl Fn(usize) -> F + Clone + Send + Sync + 'static,
) -> Vec<Task>
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let rate = rate * site.intensity;
    let one = |_| {
        let (site, next, act) = (site.clone(), next.clone(), act.clone());
        tokio::spawn(async move {
            while let Some(number) = site.turn(&next, begun, rate).await {
                let end = match act(number).await {
                    Ok(()) => End::Done,
                    Err(why) => End::Failed(why),
                };
                site.tally.count(kind, end);
            }
            Ok(())
        })
    };
    (0..workers(rate)).map(one).collect()
}

/// Requests, by clients that keep what they can keep.
fn asking(site: &Arc<Site>, kind: Kind, at: SocketAddr, shape: &Shape, rate: f64) -> Vec<Task> {
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let rate = rate * site.intensity;
    let one = |_| {
        let (site, next) = (site.clone(), next.clone());
        let mut client = Client::new(at, shape);
        tokio::spawn(async move {
            while let Some(number) = site.turn(&next, begun, rate).await {
                let end = match client.ask(number).await {
                    Some(()) => End::Done,
                    None => End::Failed("no good answer".to_string()),
                };
                site.tally.count(kind, end);
            }
            Ok(())
        })
    };
    (0..KEPT).map(one).collect()
}

/// The same where what fails right after a target ended is the target's doing.
fn asking_restarting(
    site: &Arc<Site>,
    shape: &Shape,
    ended: &Arc<Mutex<Option<Instant>>>,
) -> Vec<Task> {
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let rate = 50.0 * site.intensity;
    let one = |_| {
        let (site, next, ended) = (site.clone(), next.clone(), ended.clone());
        let mut client = Client::new(site.plain, shape);
        tokio::spawn(async move {
            while let Some(number) = site.turn(&next, begun, rate).await {
                let end = match client.ask(number).await {
                    Some(()) => End::Done,
                    None => match *ended.lock().await {
                        Some(at) if at.elapsed() < INTERRUPTION => End::Interrupted,
                        _ => End::Failed("no good answer, and no target ended".to_string()),
                    },
                };
                site.tally.count(Kind::Restarting, end);
            }
            Ok(())
        })
    };
    (0..KEPT).map(one).collect()
}

impl Site {
    /// The next number, when it is due; none at the end.
    async fn turn(&self, next: &AtomicUsize, begun: Instant, rate: f64) -> Option<usize> {
        let number = next.fetch_add(1, Relaxed);
        let due = begun + Duration::from_secs_f64(number as f64 / rate);
        if due >= self.until || Instant::now() >= self.until {
            return None;
        }
        tokio::time::sleep_until(due.into()).await;
        Some(number)
    }
}

/// A client that leaves: before its answer begins, or within it.
async fn leave_answer(at: SocketAddr, number: usize) -> Result<(), String> {
    let mut stream = dial(at).await?;
    let request = format!("GET /?bytes={LARGE} HTTP/1.1\r\nHost: {}\r\n\r\n", Kind::HOST);
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    if number.is_multiple_of(3) {
        return Ok(());
    }
    let mut some = vec![0; 1 + number % 5 * 16_384];
    stream.read_exact(&mut some).await.map_err(|error| error.to_string())?;
    let begins = &some[..some.len().min(GOOD.len())];
    if GOOD.starts_with(begins) { Ok(()) } else { Err("the answer was not good".to_string()) }
}

/// A client that leaves within what it brings.
async fn leave_upload(at: SocketAddr, number: usize) -> Result<(), String> {
    let mut stream = dial(at).await?;
    let request =
        format!("POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: {LARGE}\r\n\r\n", Kind::HOST);
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let some = vec![b'x'; number % 5 * 32_768];
    stream.write_all(&some).await.map_err(|error| error.to_string())
}

/// A client that takes its answer in small parts, with little room for more.
async fn read_slowly(at: SocketAddr) -> Result<(), String> {
    let lost = |error: std::io::Error| error.to_string();
    let socket = TcpSocket::new_v4().map_err(lost)?;
    socket.set_recv_buffer_size(SLOW_PART as u32).map_err(lost)?;
    let mut stream = socket.connect(at).await.map_err(lost)?;
    let host = Kind::HOST;
    let request =
        format!("GET /?bytes={LARGE} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(lost)?;
    let mut answer = Vec::new();
    let mut part = vec![0; SLOW_PART];
    loop {
        let read = stream.read(&mut part).await.map_err(lost)?;
        if read == 0 {
            break;
        }
        answer.extend(&part[..read]);
        tokio::time::sleep(SLOW_PAUSE).await;
    }
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    let length = head.map_or(0, |head| answer.len() - head);
    if !answer.starts_with(GOOD) || length != LARGE {
        return Err(format!("{length} bytes of {LARGE}"));
    }
    Ok(())
}

/// A WebSocket, now and then over HTTP/2, that says a few things and goes: with a word, or without.
async fn talk(at: SocketAddr, number: usize) -> Result<(), String> {
    let shared =
        if number.is_multiple_of(4) { Some(Shared::connect(at, Kind::HOST).await?) } else { None };
    let mut socket = match &shared {
        Some(shared) => shared.open().await?,
        None => WebSocket::open(at, Kind::HOST).await?,
    };
    for word in 0..1 + number % 10 {
        if !socket.echo(&format!("{number} {word}")).await {
            return Err(format!("no echo of word {word}"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    match number % 2 {
        0 => Ok(()),
        _ if socket.close().await => Ok(()),
        _ => Err("its leave was not taken".to_string()),
    }
}

/// Rules that change, each looked at at once; and between them rules that come for a while.
fn changing(site: &Arc<Site>) -> Vec<Task> {
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let rate = 20.0 * site.intensity;
    let site = site.clone();
    // One after the other: two changes of one rule at once have no order.
    vec![tokio::spawn(async move {
        let mut operator = Conversation::begin(site.control).await?;
        let mut client = Conversation::begin(site.plain).await?;
        while let Some(number) = site.turn(&next, begun, rate).await {
            let end = match change(&mut operator, &mut client, site.steady, number).await {
                Ok(true) => End::Done,
                Ok(false) => End::Failed(format!("change {number} is not in force")),
                Err(failure) => {
                    operator = Conversation::begin(site.control).await?;
                    client = Conversation::begin(site.plain).await?;
                    End::Failed(failure.to_string())
                }
            };
            site.tally.count(Kind::Change, end);
        }
        Ok(())
    })]
}

/// Changes a rule, or brings one for a while; whether its next request is served by it.
async fn change(
    operator: &mut Conversation,
    client: &mut Conversation,
    target: SocketAddr,
    number: usize,
) -> Result<bool, Failure> {
    let (id, host, ttl) = if number.is_multiple_of(2) {
        let which = number / 2 % CHANGING;
        (format!("changing-{which}"), format!("c{which}.example"), "1h")
    } else {
        (format!("passing-{number}"), format!("p{number}.example"), "10s")
    };
    let rule = format!(
        "{{\"{id}\":{{\"data\":{{\"match\":{{\"hosts\":[\"{host}\"]}},\"filters\":[{{\
         \"responseHeaders\":{{\"set\":[{{\"name\":\"x-change\",\"value\":\"{number}\"}}]}}}}],\
         \"targets\":[{{\"url\":\"http://{target}\"}}]}}}}}}"
    );
    operator.push(rule, ttl).await?;
    let answer = client.get(&host, "/").await?;
    let said = answer.headers.get("x-change").and_then(|said| said.to_str().ok());
    Ok(said == Some(&number.to_string()) && answer.body.len() == SIZE)
}

/// Ends the target now and then, by turns with a word and without, and starts it again.
async fn restart(
    site: Arc<Site>,
    mut target: Process,
    directory: PathBuf,
    ended: Arc<Mutex<Option<Instant>>>,
) -> Result<(), Failure> {
    let length = site.until.saturating_duration_since(Instant::now());
    let every = RESTARTS.min(length / 5);
    for number in 0.. {
        tokio::time::sleep_until((Instant::now() + every).min(site.until).into()).await;
        if Instant::now() >= site.until {
            break;
        }
        // From before the end until after it: what ends with a word does not end at once.
        *ended.lock().await = Some(Instant::now() + PATIENCE);
        tokio::task::block_in_place(|| if number % 2 == 0 { target.end() } else { target.kill() });
        *ended.lock().await = Some(Instant::now());
        site.tally.endings.fetch_add(1, Relaxed);
        tokio::time::sleep(AWAY.min(every / 4)).await;
        target = origin::spawn(&directory, site.restarting, SIZE).await?;
    }
    Ok(())
}

async fn dial(at: SocketAddr) -> Result<TcpStream, String> {
    traffic::dial(at).await.ok_or_else(|| "no connection".to_string())
}

/// So many that one which takes some seconds does not hold up the rest.
fn workers(rate: f64) -> usize {
    (rate * 10.0).ceil() as usize
}

/// Bytes of a usual answer.
pub(super) const SIZE: usize = 1024;
/// Rules that change by turns.
pub(super) const CHANGING: usize = 100;
/// Clients of each kind that keeps its connections.
const KEPT: usize = 8;
/// Bytes of an answer, or an upload, that takes a while.
const LARGE: usize = 1 << 20;
/// How a good answer begins.
const GOOD: &[u8] = b"HTTP/1.1 200 ";
/// A slow reader takes 1 MiB in about three seconds.
const SLOW_PART: usize = 16 << 10;
const SLOW_PAUSE: Duration = Duration::from_millis(50);
/// How often the target is ended, and for how long it is away.
const RESTARTS: Duration = Duration::from_secs(30);
const AWAY: Duration = Duration::from_secs(2);
/// How long after a target has ended an answer that it had begun may be lost.
const INTERRUPTION: Duration = Duration::from_millis(1_500);
/// More than an end takes.
const PATIENCE: Duration = Duration::from_secs(10);
