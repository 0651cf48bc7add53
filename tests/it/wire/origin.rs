//! One case's origin: a listener of its own, which plays what the case says and notes what comes.
//!
//! A thread for each connection; all of them end with the case.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use rustix::net::sockopt;

use super::case::{Case, Play};
use super::frames;
use super::message;
use super::run::Entrance;
use super::seen::{End, Side};

/// A running origin.
pub struct Origin {
    stage: Arc<Stage>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

/// What the origin's threads and the client share.
pub struct Stage {
    plays: Vec<Vec<Play>>,
    entrance: Entrance,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    sides: Vec<Side>,
    /// None where it was broken off.
    streams: Vec<Option<TcpStream>>,
    requests: usize,
    marks: BTreeSet<&'static str>,
    over: bool,
}

impl Origin {
    pub fn start(case: &Case, listener: TcpListener, entrance: Entrance) -> Origin {
        let address = listener.local_addr().unwrap();
        let plays = if case.plays.is_empty() {
            vec![vec![Play::Body, Play::Say(super::case::ok("ok").into_bytes())]]
        } else {
            case.plays.clone()
        };
        let (state, changed) = (Mutex::default(), Condvar::new());
        let stage = Arc::new(Stage { plays, entrance, state, changed });
        let shared = stage.clone();
        let accepting = std::thread::spawn(move || accept(&listener, &shared));
        Origin { stage, address, accepting }
    }

    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Ends all connections; what came over them.
    pub fn end(self) -> Vec<Side> {
        let (sides, streams) = {
            let mut state = self.stage.state.lock().unwrap();
            state.over = true;
            (state.sides.clone(), std::mem::take(&mut state.streams))
        };
        self.stage.changed.notify_all();
        for stream in streams.into_iter().flatten() {
            // It may have ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes whoever waits for a connection.
        let _ = TcpStream::connect(self.address);
        self.accepting.join().unwrap();
        sides
    }
}

impl Stage {
    pub fn mark(&self, name: &'static str) {
        self.state.lock().unwrap().marks.insert(name);
        self.changed.notify_all();
    }

    /// Waits for a mark; false when it does not come in time or the case is over.
    pub fn awaits(&self, name: &'static str) -> bool {
        self.wait(self.entrance.patience, |state| state.marks.contains(name))
    }

    /// Waits until the proxy has left the last connection.
    pub fn left(&self) {
        self.wait(self.entrance.patience / 4, |state| {
            state.sides.last().is_some_and(|side| side.end.is_some())
        });
    }

    fn wait(&self, most: Duration, holds: impl Fn(&State) -> bool) -> bool {
        let until = Instant::now() + most;
        let mut state = self.state.lock().unwrap();
        while !holds(&state) {
            let left = until.saturating_duration_since(Instant::now());
            if state.over || left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
        true
    }
}

fn accept(listener: &TcpListener, stage: &Arc<Stage>) {
    let mut conversations = Vec::new();
    for stream in listener.incoming().flatten() {
        let mut state = stage.state.lock().unwrap();
        if state.over {
            break;
        }
        let index = state.sides.len();
        state.sides.push(Side::default());
        state.streams.push(Some(stream.try_clone().unwrap()));
        drop(state);
        let conversation = Conversation { stream, stage: stage.clone(), index, at: 0 };
        conversations.push(std::thread::spawn(move || conversation.run()));
    }
    for conversation in conversations {
        conversation.join().unwrap();
    }
}

/// One connection of the proxy.
struct Conversation {
    stream: TcpStream,
    stage: Arc<Stage>,
    index: usize,
    /// Where the next request begins.
    at: usize,
}

impl Conversation {
    fn run(mut self) {
        while self.head() {
            let number = {
                let mut state = self.stage.state.lock().unwrap();
                state.requests += 1;
                state.requests - 1
            };
            let plays = self.stage.plays[number.min(self.stage.plays.len() - 1)].clone();
            let mut read = false;
            for play in plays {
                let goes_on = match play {
                    Play::Body => std::mem::replace(&mut read, true) || self.body(),
                    play => self.play(play, number),
                };
                if !goes_on {
                    return;
                }
            }
            if !read && !self.body() {
                return;
            }
        }
    }

    /// Whether the connection goes on.
    fn play(&mut self, play: Play, number: usize) -> bool {
        match play {
            Play::Body => self.body(),
            Play::Stream => self.stream_begins(),
            Play::Say(bytes) => self.stream.write_all(&bytes).is_ok(),
            Play::Close => {
                let _ = self.stream.shutdown(Shutdown::Both);
                false
            }
            Play::Hang => self.stage.wait(self.stage.entrance.patience, |_| false),
            Play::Return => self.turn_back(number),
            Play::Shout => self.shout(),
            Play::Agree => self.agree(),
            Play::Listen => {
                while self.more() {}
                false
            }
            Play::Reset => {
                sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
                self.stage.state.lock().unwrap().streams[self.index] = None;
                false
            }
            Play::Await(name) => self.stage.awaits(name),
            Play::Mark(name) => {
                self.stage.mark(name);
                true
            }
        }
    }

    fn head(&mut self) -> bool {
        while !self.bytes().windows(4).any(|four| four == b"\r\n\r\n") {
            if !self.more() {
                return false;
            }
        }
        true
    }

    /// Reads until a stream has begun; the preface is there.
    fn stream_begins(&mut self) -> bool {
        let preface = frames::PREFACE.len();
        let is_head = |it: &frames::Frame<'_>| it.kind == frames::HEADERS;
        while !frames::read(self.bytes().get(preface..).unwrap_or_default()).iter().any(is_head) {
            if !self.more() {
                return false;
            }
        }
        true
    }

    /// Reads the rest of the request; what cannot be understood is told so.
    fn body(&mut self) -> bool {
        loop {
            match message::request(&self.bytes()) {
                Ok(Some(message)) => {
                    self.at += message.length;
                    return true;
                }
                Ok(None) if self.rest() => {}
                Ok(None) => return false,
                Err(_) => {
                    let bad = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
                    let _ = self.stream.write_all(bad.as_bytes());
                    let _ = self.stream.shutdown(Shutdown::Both);
                    return false;
                }
            }
        }
    }

    /// Reads on until the request may be whole, so that thousands of chunks are looked at once.
    fn rest(&mut self) -> bool {
        let chunked = self.bytes().to_ascii_lowercase();
        let chunked = chunked.windows(CODED.len()).any(|it| it == CODED);
        loop {
            let before = self.bytes().len();
            if !self.more() {
                return false;
            }
            let bytes = self.bytes();
            let fresh = &bytes[before.saturating_sub(3)..];
            if !chunked || fresh.windows(4).any(|four| four == b"\r\n\r\n") {
                return true;
            }
        }
    }

    /// Does what another proxy would that routes back to this one.
    fn turn_back(&mut self, number: usize) -> bool {
        let request = self.bytes();
        if !self.body() || number >= MOST_TURNS {
            let _ = self.stream.write_all(super::case::ok("endless").as_bytes());
            return false;
        }
        let Ok(mut onward) = TcpStream::connect(self.stage.entrance.http1) else { return false };
        let _ = onward.set_read_timeout(Some(self.stage.entrance.patience));
        let mut answer = Vec::new();
        let mut space = [0u8; 4096];
        if onward.write_all(&request).is_err() {
            return false;
        }
        while message::response(&answer, false, false).is_ok_and(|whole| whole.is_none()) {
            match onward.read(&mut space) {
                Ok(some @ 1..) => answer.extend_from_slice(&space[..some]),
                _ => break,
            }
        }
        self.stream.write_all(&answer).is_ok()
    }

    fn shout(&mut self) -> bool {
        loop {
            let bytes = self.bytes();
            self.at += bytes.len();
            if self.stream.write_all(&bytes.to_ascii_uppercase()).is_err() {
                return false;
            }
            if !self.more() {
                let _ = self.stream.write_all(b"bye");
                let _ = self.stream.shutdown(Shutdown::Both);
                return false;
            }
        }
    }

    fn agree(&mut self) -> bool {
        let head = self.bytes();
        let Ok(Some(request)) = message::request(&head) else { return false };
        self.at += request.length;
        let key = request.fields.one("sec-websocket-key").unwrap_or_default();
        let text = format!("{key}{KEY_SUFFIX}");
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        let agreed = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            STANDARD.encode(digest)
        );
        self.stream.write_all(agreed.as_bytes()).is_ok()
    }

    /// What came and is not understood yet.
    fn bytes(&self) -> Vec<u8> {
        self.stage.state.lock().unwrap().sides[self.index].bytes[self.at..].to_vec()
    }

    fn more(&mut self) -> bool {
        let mut space = vec![0u8; 64 << 10];
        let read = self.stream.read(&mut space);
        let mut state = self.stage.state.lock().unwrap();
        if state.over {
            return false;
        }
        let side = &mut state.sides[self.index];
        match read {
            Ok(some @ 1..) => side.bytes.extend_from_slice(&space[..some]),
            Ok(_) => side.end = Some(End::Closed),
            Err(_) => side.end = Some(End::Reset),
        }
        let goes_on = side.end.is_none();
        drop(state);
        self.stage.changed.notify_all();
        goes_on
    }
}

/// How long something is waited for that need not happen.
pub const SHORT: Duration = Duration::from_secs(1);
/// How a request says that it comes in chunks.
const CODED: &[u8] = b"transfer-encoding: chunked";
/// What RFC 6455, section 1.3, puts behind a key.
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Times that a request may come round.
const MOST_TURNS: usize = 40;
