//! A case as data: which duty, what is sent and answered, and what may be seen then.
//!
//! No case knows which proxy is tested. `{id}` stands for its name in everything it sends, since
//! that is what it is routed by: as the first segment of a path, or as the host `{id}.test`.

use super::seen::Seen;

/// Whether what was seen is as it has to be, and why not.
pub type Verdict = Result<(), String>;

/// What judges a case.
pub type Check = Box<dyn Fn(&Seen) -> Verdict + Send + Sync>;

/// How much a duty binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Must,
    Should,
}

/// One duty of a proxy.
pub struct Case {
    /// Also its id on the wire.
    pub name: &'static str,
    pub rfc: &'static str,
    pub level: Level,
    pub steps: Vec<Step>,
    /// For each request that reaches the origin; the last one also answers all after it.
    pub plays: Vec<Vec<Play>>,
    pub check: Check,
    /// All its requests are HEAD.
    pub bodiless: bool,
    /// The proxy's patience is short.
    pub hurried: bool,
    /// It speaks HTTP/2 to the proxy.
    pub http2: bool,
    /// Its origin speaks nothing else.
    pub http2_origin: bool,
    /// It asks for a tunnel over HTTP/2 (RFC 8441), which a proxy need not offer.
    pub extended: bool,
    /// A path does not tell where it belongs.
    pub by_host: bool,
    /// What stands on the wire is not only HTTP/1.1 messages.
    pub free_form: bool,
    /// The decision record by which this proxy does otherwise.
    pub departure: Option<&'static str>,
}

/// What the client does next.
#[derive(Clone, Debug)]
pub enum Step {
    Send(Vec<u8>),
    /// Reads until so many final answers are whole.
    Answers(usize),
    /// Reads until these bytes are there.
    Until(&'static [u8]),
    /// Reads until so many streams have ended.
    Streams(usize),
    /// Reads until the proxy closes; not for long.
    Linger,
    /// Reads until the proxy closes.
    End,
    /// Says that nothing more will be sent.
    HalfClose,
    /// Leaves at once.
    Hangup,
    /// Goes on with a connection of its own.
    Connect,
    /// Waits until the origin has got there.
    Await(&'static str),
    /// Lets the origin go on.
    Mark(&'static str),
    /// Waits until the proxy has left the origin's last connection; not for long.
    Left,
}

/// What the origin does next with a request whose head is there.
#[derive(Clone, Debug)]
pub enum Play {
    /// Reads all of it.
    Body,
    /// Reads until the head of a request over HTTP/2 is there.
    Stream,
    Say(Vec<u8>),
    Close,
    /// Says and reads nothing more, and stays.
    Hang,
    /// Sends the request to the proxy again, as it came, and its answer back.
    Return,
    /// Says whatever comes in capitals until it ends.
    Shout,
    /// Agrees to become a WebSocket, as RFC 6455, section 4.2.2, asks.
    Agree,
    /// Reads until the proxy is done.
    Listen,
    /// Breaks the connection off.
    Reset,
    Await(&'static str),
    Mark(&'static str),
}

pub fn must(name: &'static str, rfc: &'static str) -> Case {
    Case {
        name,
        rfc,
        level: Level::Must,
        steps: Vec::new(),
        plays: Vec::new(),
        check: Box::new(|_| Err("nothing is checked".into())),
        bodiless: false,
        hurried: false,
        http2: false,
        http2_origin: false,
        extended: false,
        by_host: false,
        free_form: false,
        departure: None,
    }
}

pub fn should(name: &'static str, rfc: &'static str) -> Case {
    Case { level: Level::Should, ..must(name, rfc) }
}

impl Case {
    pub fn send(mut self, bytes: impl AsRef<[u8]>) -> Case {
        let bytes = replaced(bytes.as_ref(), self.name);
        self.steps.push(Step::Send(bytes));
        self
    }

    /// A GET with these fields besides Host; each ends with a line end.
    pub fn get(self, fields: &str) -> Case {
        self.send(format!("GET /{{id}}/ HTTP/1.1\r\nHost: {{id}}.test\r\n{fields}\r\n"))
    }

    /// A POST with these fields besides Host, and what follows them.
    pub fn post(self, fields: &str, body: &str) -> Case {
        self.send(format!("POST /{{id}}/ HTTP/1.1\r\nHost: {{id}}.test\r\n{fields}\r\n{body}"))
    }

    pub fn then(mut self, step: Step) -> Case {
        self.steps.push(step);
        self
    }

    /// Reads until so many final answers have come in all.
    pub fn answers(self, count: usize) -> Case {
        self.then(Step::Answers(count))
    }

    /// Reads until the proxy closes.
    pub fn end(self) -> Case {
        self.then(Step::End)
    }

    /// What the origin does with the next request.
    pub fn plays(mut self, plays: impl IntoIterator<Item = Play>) -> Case {
        let name = self.name;
        let plays = plays.into_iter().map(|play| match play {
            Play::Say(bytes) => Play::Say(replaced(&bytes, name)),
            play => play,
        });
        self.plays.push(plays.collect());
        self
    }

    /// It reads the next request, says this and keeps the connection.
    pub fn says(self, bytes: impl AsRef<[u8]>) -> Case {
        self.plays([Play::Body, say(bytes)])
    }

    /// It reads the next request, says this and closes.
    pub fn ends(self, bytes: impl AsRef<[u8]>) -> Case {
        self.plays([Play::Body, say(bytes), Play::Close])
    }

    pub fn bodiless(self) -> Case {
        Case { bodiless: true, ..self }
    }

    pub fn hurried(self) -> Case {
        Case { hurried: true, ..self }
    }

    pub fn by_host(self) -> Case {
        Case { by_host: true, ..self }
    }

    pub fn free_form(self) -> Case {
        Case { free_form: true, ..self }
    }

    pub fn http2(self) -> Case {
        Case { http2: true, free_form: true, ..self }
    }

    pub fn http2_origin(self) -> Case {
        Case { http2_origin: true, free_form: true, ..self }
    }

    pub fn extended(self) -> Case {
        Case { extended: true, ..self }
    }

    pub fn departs(self, record: &'static str) -> Case {
        Case { departure: Some(record), ..self }
    }

    /// What has to be seen.
    pub fn check(self, check: impl Fn(&Seen) -> Verdict + Send + Sync + 'static) -> Case {
        Case { check: Box::new(check), ..self }
    }
}

pub fn say(bytes: impl AsRef<[u8]>) -> Play {
    Play::Say(bytes.as_ref().to_vec())
}

/// A whole answer with a length.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn replaced(bytes: &[u8], name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(4).position(|four| four == b"{id}") {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(name.as_bytes());
        rest = &rest[at + 4..];
    }
    out.extend_from_slice(rest);
    out
}
