//! Runs cases against a proxy: the client's side of each, many at once.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::case::{Case, Step, Verdict};
use super::frames;
use super::message;
use super::origin::{Origin, SHORT, Stage};
use super::seen::{End, Seen, Side};

/// Where a proxy listens.
#[derive(Clone, Copy, Debug)]
pub struct Entrance {
    pub http1: SocketAddr,
    pub http2: SocketAddr,
    /// How long anything may take that has to happen.
    pub patience: Duration,
}

/// What came of one case.
pub struct Outcome {
    pub verdict: Verdict,
    pub seen: Seen,
    pub took: Duration,
}

/// Runs all cases; `listeners` are their origins', in the same order.
pub fn all(cases: &[Case], listeners: Vec<TcpListener>, at: Entrance) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let listeners: Vec<Mutex<Option<TcpListener>>> =
        listeners.into_iter().map(|listener| Mutex::new(Some(listener))).collect();
    let outcomes: Vec<Mutex<Option<Outcome>>> = cases.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    let Some(case) = cases.get(index) else { return };
                    let listener = listeners[index].lock().unwrap().take().unwrap();
                    *outcomes[index].lock().unwrap() = Some(one(case, listener, at));
                }
            });
        }
    });
    outcomes.into_iter().map(|outcome| outcome.into_inner().unwrap().unwrap()).collect()
}

fn one(case: &Case, listener: TcpListener, at: Entrance) -> Outcome {
    let begun = Instant::now();
    let origin = Origin::start(case, listener, at);
    let proxy = if case.http2 { at.http2 } else { at.http1 };
    let mut client = Client::connect(proxy, at.patience, case.bodiless);
    for step in &case.steps {
        client.step(step, origin.stage());
    }
    client.linger();
    let origin = origin.end();
    let seen = Seen { bodiless: case.bodiless, client: client.sides, origin };
    let verdict = seen.is_sound(case.free_form).and_then(|()| (case.check)(&seen));
    Outcome { verdict, seen, took: begun.elapsed() }
}

struct Client {
    proxy: SocketAddr,
    patience: Duration,
    stream: TcpStream,
    sides: Vec<Side>,
    bodiless: bool,
}

impl Client {
    fn connect(proxy: SocketAddr, patience: Duration, bodiless: bool) -> Client {
        let sides = vec![Side::default()];
        Client { proxy, patience, stream: connected(proxy), sides, bodiless }
    }

    fn step(&mut self, step: &Step, stage: &Stage) {
        match step {
            Step::Send(bytes) => self.send(bytes),
            Step::Answers(count) => {
                let bodiless = self.bodiless;
                self.read(self.patience, |side| finals(side, bodiless) >= *count);
            }
            Step::Until(bytes) => {
                self.read(self.patience, |side| {
                    side.bytes.windows(bytes.len()).any(|it| it == *bytes)
                });
            }
            Step::Streams(count) => {
                self.read(self.patience, |side| frames::ended(&side.bytes) >= *count);
            }
            Step::Linger => self.read(SHORT, |_| false),
            Step::End => self.read(self.patience, |_| false),
            Step::HalfClose => drop(self.stream.shutdown(Shutdown::Write)),
            Step::Hangup => drop(self.stream.shutdown(Shutdown::Both)),
            Step::Connect => {
                self.stream = connected(self.proxy);
                self.sides.push(Side::default());
            }
            Step::Await(name) => drop(stage.awaits(name)),
            Step::Mark(name) => stage.mark(name),
            Step::Left => stage.left(),
        }
    }

    /// Sends, and takes in what comes meanwhile, so that neither waits for the other.
    fn send(&mut self, bytes: &[u8]) {
        let mut stream = self.stream.try_clone().unwrap();
        if bytes.len() < SMALL {
            // The proxy may have refused, and left, before it has all.
            let _ = stream.write_all(bytes);
            return;
        }
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || drop(stream.write_all(bytes)));
            while !writer.is_finished() && self.sides.last().unwrap().end.is_none() {
                self.read(LINGER, |_| writer.is_finished());
            }
        });
    }

    /// Takes in what comes although nothing more is expected.
    fn linger(&mut self) {
        self.read(LINGER, |_| false);
    }

    fn read(&mut self, most: Duration, enough: impl Fn(&Side) -> bool) {
        let until = Instant::now() + most;
        let mut space = [0u8; 64 << 10];
        let side = self.sides.last_mut().unwrap();
        while side.end.is_none() && !enough(side) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut space) {
                Ok(some @ 1..) => side.bytes.extend_from_slice(&space[..some]),
                Ok(_) => side.end = Some(End::Closed),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return;
                }
                Err(_) => side.end = Some(End::Reset),
            }
        }
    }
}

fn connected(proxy: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(proxy).unwrap();
    stream.set_write_timeout(Some(SHORT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// How many whole final answers there are.
fn finals(side: &Side, bodiless: bool) -> usize {
    let (mut count, mut at) = (0, 0);
    while let Ok(Some(answer)) = message::response(&side.bytes[at..], bodiless, false) {
        at += answer.length;
        count += usize::from(!answer.is_interim());
    }
    count
}

/// Bytes that the way takes in without anybody reading them.
const SMALL: usize = 32 << 10;
/// Cases at once; most of them wait most of the time.
const AT_ONCE: usize = 32;
/// How long a client listens on when it has all it waited for.
const LINGER: Duration = Duration::from_millis(30);
