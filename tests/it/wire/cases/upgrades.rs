//! Connections that stop being HTTP: only by agreement, only into what was asked for.

use crate::wire::case::{Case, Play, Step, Verdict, must, ok, say, should};
use crate::wire::message::Message;
use crate::wire::seen::{Seen, demand, passed, same};

const WEBSOCKET: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

pub fn cases() -> Vec<Case> {
    let mut cases = agreed();
    cases.extend(not_asked());
    cases.extend(declined());
    cases
}

fn tunnelled(seen: &Seen) -> Verdict {
    let side = seen.near();
    demand(side.has("HTTP/1.1 101 "), || "no 101".into())?;
    demand(side.has("HELLO"), || "what the client said did not come back".into())
}

fn agreed() -> Vec<Case> {
    let tunnel = |name, rfc| must(name, rfc).get(WEBSOCKET).free_form();
    let shouting = || [say(AGREED), Play::Shout];
    vec![
        tunnel("websocket-both-ways", "RFC 6455 4.2.2")
            .plays([Play::Body, say(AGREED), Play::Shout])
            .then(Step::Until(b"\r\n\r\n"))
            .send("hello")
            .then(Step::Until(b"HELLO"))
            .check(tunnelled),
        tunnel("websocket-with-early-bytes", "RFC 9110 7.8")
            .send("hello")
            .plays([Play::Body, say(AGREED), Play::Shout])
            .then(Step::Until(b"HELLO"))
            .check(tunnelled),
        tunnel("websocket-that-the-origin-begins", "RFC 9110 7.8")
            .plays([Play::Body, say(format!("{AGREED}HELLO")), Play::Shout])
            .then(Step::Until(b"HELLO"))
            .check(tunnelled),
        tunnel("websocket-is-asked-for-onward", "RFC 9110 7.8")
            .plays([Play::Body].into_iter().chain(shouting()))
            .then(Step::Until(b"\r\n\r\n"))
            .check(|seen| {
                let head = String::from_utf8_lossy(&seen.far().bytes).to_ascii_lowercase();
                demand(head.contains("\r\nupgrade: websocket\r\n"), || "no Upgrade".into())?;
                demand(head.contains("\r\nsec-websocket-key: dghl"), || "no key".into())
            }),
        tunnel("websocket-answer-says-so", "RFC 9110 7.8")
            .plays([Play::Body].into_iter().chain(shouting()))
            .then(Step::Until(b"\r\n\r\n"))
            .check(|seen| {
                let head = String::from_utf8_lossy(&seen.near().bytes).to_ascii_lowercase();
                let says = |text| demand(head.contains(text), || format!("no {text:?}"));
                says("\r\nupgrade: websocket\r\n")?;
                says("\r\nconnection: upgrade\r\n")?;
                says("\r\nsec-websocket-accept: ")
            }),
        tunnel("websocket-that-the-client-ends", "RFC 9110 7.8")
            .plays([Play::Body].into_iter().chain(shouting()))
            .then(Step::Until(b"\r\n\r\n"))
            .send("hello")
            .then(Step::Until(b"HELLO"))
            .then(Step::Hangup)
            .then(Step::Left)
            .check(|seen| demand(seen.far().end.is_some(), || "the origin is not told".into())),
        tunnel("websocket-that-the-origin-ends", "RFC 9110 7.8")
            .plays([Play::Body, say(AGREED), Play::Close])
            .end()
            .check(|seen| demand(seen.has_ended(), || "the client is not told".into())),
    ]
}

fn not_asked() -> Vec<Case> {
    let asks = |level: fn(_, _) -> Case, name, line: &str, fields: &str| {
        level(name, "RFC 9110 7.8")
            .send(format!("{line}\r\nHost: {{id}}.test\r\n{fields}\r\n"))
            .answers(1)
    };
    let not_onward = |request: &Message| {
        demand(!request.fields.has("upgrade"), || "the origin was asked to upgrade".into())
    };
    let get = "GET /{id}/ HTTP/1.1";
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    let unasked = |name, answer: &str| {
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{answer}\r\n");
        must(name, "RFC 9110 7.8")
            .free_form()
            .plays([Play::Body, say(answer), Play::Shout])
            .answers(1)
            .check(|seen| {
                let side = seen.near();
                demand(!side.has(" 101 "), || "a protocol that was not asked for".into())?;
                demand(side.has("HTTP/1.1 502 "), || "not told".into())
            })
    };
    let mut cases = vec![
        asks(should, "upgrade-to-h2c", get, h2c).check(passed(not_onward)),
        asks(should, "upgrade-to-h2c-in-capitals", get, "Connection: Upgrade\r\nUpgrade: H2C\r\n")
            .check(passed(not_onward)),
        asks(
            should,
            "upgrade-to-h2c-or-websocket",
            get,
            "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        )
        .check(passed(|request| {
            let said = request.fields.list("upgrade");
            demand(!said.contains(&"h2c".to_string()), || "h2c was passed on".into())
        })),
        asks(must, "upgrade-of-an-old-version", "GET /{id}/ HTTP/1.0", WEBSOCKET)
            .check(passed(not_onward)),
        asks(should, "upgrade-not-named-by-connection", get, "Upgrade: websocket\r\n")
            .check(passed(not_onward)),
    ];
    cases.push(unasked("switch-that-nobody-asked-for", "Upgrade: x\r\nConnection: upgrade\r\n"));
    cases
        .last_mut()
        .unwrap()
        .steps
        .insert(0, Step::Send(plain("switch-that-nobody-asked-for", "")));
    cases.push(unasked("switch-to-something-else", "Upgrade: h2c\r\nConnection: upgrade\r\n"));
    let bytes = plain("switch-to-something-else", WEBSOCKET);
    cases.last_mut().unwrap().steps.insert(0, Step::Send(bytes));
    cases
}

fn plain(name: &str, fields: &str) -> Vec<u8> {
    let close = if fields.is_empty() { "Connection: close\r\n" } else { "" };
    format!("GET /{name}/ HTTP/1.1\r\nHost: {name}.test\r\n{fields}{close}\r\n").into_bytes()
}

fn declined() -> Vec<Case> {
    let next = "X-Forwarded-For: 6.6.6.6\r\n";
    let still_http = |seen: &Seen| {
        same("answers", seen.answers()?.len(), 2)?;
        let requests = seen.requests()?;
        same("requests", requests.len(), 2)?;
        let client = requests[1].fields.list("x-forwarded-for").pop();
        same("the client of the second one, which must be read", client, Some("127.0.0.1".into()))
    };
    vec![
        must("websocket-declined-by-an-answer", "RFC 9110 7.8")
            .get(WEBSOCKET)
            .get(next)
            .says(ok("no"))
            .answers(2)
            .check(still_http),
        must("websocket-declined-by-426", "RFC 6455 4.4")
            .get(WEBSOCKET)
            .get(next)
            .says(
                "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 8\r\n\
                   Content-Length: 0\r\n\r\n",
            )
            .says(ok("ok"))
            .answers(2)
            .check(still_http),
        should("websocket-declined-leaves-the-connection", "RFC 9110 7.8")
            .get(WEBSOCKET)
            .says("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
            .answers(1)
            .check(|seen| {
                same("the status", seen.answer()?.status(), 403)?;
                demand(!seen.has_ended(), || "nothing is wrong with it".into())
            }),
    ]
}
