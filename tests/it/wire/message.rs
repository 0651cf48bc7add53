//! A strict reader of HTTP/1.1 (RFC 9112): what stands on the wire, or what is wrong with it.
//!
//! Stricter than a recipient has to be: what a proxy writes shall leave nothing to be guessed. Not
//! the proxy's own parser, and never shared with it.

/// One message as it stood on the wire.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The request line or the status line.
    pub start: String,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
    pub framing: Framing,
    /// How many bytes it took.
    pub length: usize,
}

/// Where a message's body ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    #[default]
    None,
    Length(usize),
    Chunked,
    Close,
}

/// Names in lower case, values without the space around them.
#[derive(Clone, Debug, Default)]
pub struct Fields(pub Vec<(String, Vec<u8>)>);

impl Fields {
    /// All values of a field, in their order.
    pub fn all(&self, name: &str) -> Vec<String> {
        let here = self.0.iter().filter(|(key, _)| key == name);
        here.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    }

    /// The value of a field that stands there once.
    pub fn one(&self, name: &str) -> Option<String> {
        let mut all = self.all(name);
        if all.len() == 1 { all.pop() } else { None }
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// The members of a list, in lower case, over all lines of it.
    pub fn list(&self, name: &str) -> Vec<String> {
        let lines = self.all(name).join(",").to_ascii_lowercase();
        lines.split(',').map(|it| it.trim().to_string()).filter(|it| !it.is_empty()).collect()
    }
}

impl Message {
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or("")
    }

    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or("")
    }

    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status()) && self.status() != 101
    }

    /// Whether its connection ends with it, as far as it says.
    pub fn closes(&self) -> bool {
        let old = self.start.contains("HTTP/1.0");
        let says = |token: &str| self.fields.list("connection").iter().any(|it| it == token);
        says("close") || (old && !says("keep-alive"))
    }
}

/// A request at the start of these bytes; none when more of it must come.
pub fn request(bytes: &[u8]) -> Result<Option<Message>, String> {
    let Some((mut message, at)) = head(bytes)? else { return Ok(None) };
    let words: Vec<&str> = message.start.split(' ').collect();
    let [method, target, version] = words[..] else {
        return Err(format!("a request line of {} words: {:?}", words.len(), message.start));
    };
    let odd = |text: &str| text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic());
    if !is_token(method) || odd(target) || !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return Err(format!("a bad request line: {:?}", message.start));
    }
    if message.fields.all("host").len() != 1 {
        return Err(format!("{} fields called Host", message.fields.all("host").len()));
    }
    message.framing = said(&message.fields)?.unwrap_or(Framing::None);
    body(bytes, at, message, false)
}

/// A response at the start of these bytes; none when more of it must come. `bodiless` answers a
/// HEAD; `ended` says that nothing more will come.
pub fn response(bytes: &[u8], bodiless: bool, ended: bool) -> Result<Option<Message>, String> {
    let Some((mut message, at)) = head(bytes)? else { return Ok(None) };
    let mut words = message.start.splitn(3, ' ');
    let version = words.next().unwrap_or("");
    let code = words.next().unwrap_or("");
    let digits = code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit());
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") || !digits || words.next().is_none() {
        return Err(format!("a bad status line: {:?}", message.start));
    }
    let said = said(&message.fields)?;
    let empty = bodiless || matches!(message.status(), 100..200 | 204 | 304);
    if matches!(message.status(), 100..200 | 204) && said.is_some() {
        return Err(format!("RFC 9110 8.6: framing in a {}", message.status()));
    }
    message.framing = if empty { Framing::None } else { said.unwrap_or(Framing::Close) };
    body(bytes, at, message, ended)
}

/// Start line and fields, and where they end.
fn head(bytes: &[u8]) -> Result<Option<(Message, usize)>, String> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let mut lines = lines(&bytes[..end])?.into_iter();
    let start = lines.next().map(|line| String::from_utf8_lossy(line).into_owned());
    let start = start.filter(|line| !line.is_empty()).ok_or("an empty start line")?;
    let fields = Fields(lines.map(field).collect::<Result<_, _>>()?);
    Ok(Some((Message { start, fields, ..Message::default() }, end + 4)))
}

/// Lines that end with CRLF and hold no control characters.
fn lines(bytes: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    let control = |b: &&u8| (**b < b' ' && **b != b'\t') || **b == 0x7f;
    match lines.iter().find(|line| line.iter().any(|b| control(&b))) {
        Some(line) => Err(format!("a control character: {:?}", String::from_utf8_lossy(line))),
        None => Ok(lines),
    }
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>), String> {
    let shown = || format!("a bad field: {:?}", String::from_utf8_lossy(line));
    let at = line.iter().position(|b| *b == b':').ok_or_else(shown)?;
    let name = std::str::from_utf8(&line[..at]).map_err(|_| shown())?;
    if !is_token(name) {
        return Err(shown());
    }
    Ok((name.to_ascii_lowercase(), line[at + 1..].trim_ascii().to_vec()))
}

fn is_token(text: &str) -> bool {
    let mark = |b| b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || mark(b))
}

/// What the fields say of the body's end.
fn said(fields: &Fields) -> Result<Option<Framing>, String> {
    let (codings, lengths) = (fields.all("transfer-encoding"), fields.all("content-length"));
    match (&codings[..], &lengths[..]) {
        ([], []) => Ok(None),
        ([one], []) if one.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
        ([], [one]) if !one.is_empty() && one.bytes().all(|b| b.is_ascii_digit()) => {
            let length = one.parse().map_err(|_| format!("a length beyond reason: {one}"))?;
            Ok(Some(Framing::Length(length)))
        }
        _ => Err(format!("framed by {codings:?} and {lengths:?}")),
    }
}

fn body(
    bytes: &[u8],
    at: usize,
    mut message: Message,
    ended: bool,
) -> Result<Option<Message>, String> {
    let rest = &bytes[at..];
    match message.framing {
        Framing::None => message.length = at,
        Framing::Length(length) if rest.len() < length => return Ok(None),
        Framing::Length(length) => {
            message.body = rest[..length].to_vec();
            message.length = at + length;
        }
        Framing::Close if !ended => return Ok(None),
        Framing::Close => {
            message.body = rest.to_vec();
            message.length = bytes.len();
        }
        Framing::Chunked => {
            let Some((body, trailers, length)) = chunks(rest)? else { return Ok(None) };
            (message.body, message.trailers) = (body, trailers);
            message.length = at + length;
        }
    }
    Ok(Some(message))
}

type Chunks = (Vec<u8>, Fields, usize);

/// A chunked body without extensions (RFC 9112, section 7.1).
pub fn chunks(bytes: &[u8]) -> Result<Option<Chunks>, String> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let Some(end) = bytes[at..].windows(2).position(|two| two == b"\r\n") else {
            return Ok(None);
        };
        let line = String::from_utf8_lossy(&bytes[at..at + end]).into_owned();
        let digits = !line.is_empty() && line.bytes().all(|b| b.is_ascii_hexdigit());
        let size = usize::from_str_radix(&line, 16).ok().filter(|_| digits);
        let size = size.ok_or_else(|| format!("a bad chunk size: {line:?}"))?;
        at += end + 2;
        if size == 0 {
            break;
        }
        if bytes.len() < at + size + 2 {
            return Ok(None);
        }
        body.extend_from_slice(&bytes[at..at + size]);
        if &bytes[at + size..at + size + 2] != b"\r\n" {
            return Err(format!("no line end behind a chunk of {size} bytes"));
        }
        at += size + 2;
    }
    if bytes[at..].starts_with(b"\r\n") {
        return Ok(Some((body, Fields::default(), at + 2)));
    }
    let Some(end) = bytes[at..].windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let trailers = lines(&bytes[at..at + end])?.into_iter().map(field);
    Ok(Some((body, Fields(trailers.collect::<Result<_, _>>()?), at + end + 4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_whole_is_read_whole() {
        let bytes = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET";
        let message = request(bytes).unwrap().unwrap();
        assert_eq!((message.method(), message.target(), message.length), ("POST", "/x", 50));
        assert_eq!((&message.body[..], message.framing), (&b"hi"[..], Framing::Length(2)));
        let bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                      A\r\n0123456789\r\n0\r\nx: y\r\n\r\n";
        let message = response(bytes, false, false).unwrap().unwrap();
        assert_eq!((message.body.len(), message.trailers.one("x")), (10, Some("y".into())));
        assert_eq!(message.length, bytes.len());
    }

    #[test]
    fn what_is_not_whole_is_waited_for() {
        for bytes in [
            "GET / HTTP/1.1\r\nhost: a\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\n\
            content-length: 3\r\n\r\nab",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \
            chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        ] {
            assert!(request(bytes.as_bytes()).unwrap().is_none(), "{bytes}");
        }
        let until_close = b"HTTP/1.1 200 OK\r\n\r\nab";
        assert!(response(until_close, false, false).unwrap().is_none());
        assert_eq!(response(until_close, false, true).unwrap().unwrap().body, b"ab");
    }

    #[test]
    fn what_leaves_something_to_be_guessed_is_an_error() {
        for fields in [
            "",
            "host: a\r\nhost: a",
            "host : a",
            "host: a\r\n folded: b",
            "host: a\r\nx: \0",
            "host: a\r\nx: a\rb",
            "host: a\r\nx: a\nb",
            "host: a\r\ncontent-length: +1",
            "host: a\r\ncontent-length: 1\r\ncontent-length: 1",
            "host: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked",
            "host: a\r\ntransfer-encoding: gzip, chunked",
        ] {
            let bytes = format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n0\r\n\r\n");
            assert!(request(bytes.as_bytes()).is_err(), "{fields}");
        }
        for line in ["GET  / HTTP/1.1", "GET / HTTP/1.2", "GET /", "G(T / HTTP/1.1"] {
            let bytes = format!("{line}\r\nhost: a\r\n\r\n");
            assert!(request(bytes.as_bytes()).is_err(), "{line}");
        }
        for body in ["+5\r\nhello\r\n", "5;x\r\nhello\r\n", "5\r\nhello0\r\n\r\n", "\r\n"] {
            assert!(chunks(body.as_bytes()).is_err(), "{body}");
        }
    }
}
