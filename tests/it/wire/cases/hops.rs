//! What concerns one hop only, and what each hop adds: Connection, Via, loops, who the client is.

use crate::wire::case::{Case, Play, Verdict, must, ok, should};
use crate::wire::message::Message;
use crate::wire::seen::{Seen, answered, bad_gateway, demand, passed, same, untouched};

pub fn cases() -> Vec<Case> {
    let mut cases = requests();
    cases.extend(answers());
    cases.extend(named_by_connection());
    cases.extend(ways());
    cases.extend(rounds());
    cases.extend(clients());
    cases.extend(failures());
    cases.extend(passed_on());
    cases
}

fn gone(request: &Message, name: &str) -> Verdict {
    demand(!request.fields.has(name), || format!("{name} must stay on its hop"))
}

fn requests() -> Vec<Case> {
    let own = [
        ("request-keep-alive-field", "Keep-Alive: timeout=5", "keep-alive"),
        ("request-proxy-connection-field", "Proxy-Connection: keep-alive", "proxy-connection"),
        ("request-te-field", "TE: gzip", "te"),
        ("request-te-field-named", "TE: gzip\r\nConnection: te", "te"),
        ("request-proxy-authorization", "Proxy-Authorization: Basic eA==", "proxy-authorization"),
        ("request-upgrade-alone", "Upgrade: x/1", "upgrade"),
    ];
    own.into_iter()
        .map(|(name, field, left_out)| {
            let case = should(name, "RFC 9110 7.6.1").get(&format!("{field}\r\n")).answers(1);
            case.check(passed(move |request| gone(request, left_out)))
        })
        .collect()
}

fn named_by_connection() -> Vec<Case> {
    let named = |name, fields: &str| must(name, "RFC 9110 7.6.1").get(fields).answers(1);
    let x_gone = || {
        passed(|request: &Message| {
            gone(request, "x-hop")?;
            demand(request.fields.has("x-end"), || "what is not named passes".into())
        })
    };
    let framed = |name, field: &str| {
        must(name, "RFC 9110 7.6.1")
            .post(&format!("Connection: {field}\r\nContent-Length: 5\r\n"), "hello")
            .answers(1)
            .check(passed(|request| {
                same("the body", String::from_utf8_lossy(&request.body), "hello".into())
            }))
    };
    vec![
        named("connection-names-a-field", "Connection: x-hop\r\nX-Hop: 1\r\nX-End: 1\r\n")
            .check(x_gone()),
        named("connection-names-in-capitals", "Connection: X-HOP\r\nx-hop: 1\r\nX-End: 1\r\n")
            .check(x_gone()),
        named(
            "connection-names-among-others",
            "Connection: keep-alive , X-Hop,, foo\r\nX-Hop: 1\r\nX-End: 1\r\n",
        )
        .check(x_gone()),
        named(
            "connection-in-two-lines",
            "Connection: keep-alive\r\nX-End: 1\r\nX-Hop: 1\r\nConnection: x-hop\r\n",
        )
        .check(x_gone()),
        named(
            "connection-names-a-field-of-many-lines",
            "Connection: x-hop\r\nX-Hop: 1\r\nX-End: 1\r\nX-Hop: 2\r\n",
        )
        .check(x_gone()),
        named("connection-close-names-a-field", "Connection: close\r\nClose: 1\r\n").check(passed(
            |request| demand(!request.fields.has("close"), || "close must stay on its hop".into()),
        )),
        named("connection-itself-is-our-own", "Connection: x-strange\r\n").check(passed(
            |request| {
                let strange = request.fields.list("connection").contains(&"x-strange".to_string());
                demand(!strange, || "the client's Connection was passed on".into())
            },
        )),
        named("connection-names-host", "Connection: host\r\n").check(passed(|request| {
            same("host", request.fields.one("host"), Some("connection-names-host.test".into()))
        })),
        framed("connection-names-content-length", "content-length"),
        framed("connection-names-transfer-encoding", "transfer-encoding"),
        named("connection-names-via", "Connection: via\r\nVia: 1.1 other\r\n").check(passed(
            |request| demand(!request.fields.list("via").is_empty(), || "our own is gone".into()),
        )),
        named(
            "connection-names-forwarded-for",
            "Connection: x-forwarded-for\r\nX-Forwarded-For: 6.6.6.6\r\n",
        )
        .check(passed(|request| {
            demand(
                request.fields.list("x-forwarded-for").contains(&"127.0.0.1".to_string()),
                || "the client hid itself".into(),
            )
        })),
    ]
}

fn answers() -> Vec<Case> {
    let with = |level: fn(_, _) -> Case, name, fields: &str| {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok");
        level(name, "RFC 9110 7.6.1").get("").says(answer).answers(1)
    };
    let own = [
        ("answer-connection-names-a-field", "Connection: x-hop\r\nX-Hop: 1\r\n", "x-hop"),
        (
            "answer-connection-among-others",
            "Connection: keep-alive, X-HOP\r\nX-Hop: 1\r\n",
            "x-hop",
        ),
    ];
    let mut cases: Vec<Case> = own
        .into_iter()
        .map(|(name, fields, left_out)| {
            with(must, name, fields).check(answered(move |answer| gone(answer, left_out)))
        })
        .collect();
    let mine = [
        ("answer-proxy-connection-field", "Proxy-Connection: x\r\n", "proxy-connection"),
        ("answer-upgrade-field", "Upgrade: h2c\r\n", "upgrade"),
        ("answer-proxy-authenticate", "Proxy-Authenticate: Basic\r\n", "proxy-authenticate"),
    ];
    for (name, fields, left_out) in mine {
        cases
            .push(with(should, name, fields).check(answered(move |answer| gone(answer, left_out))));
    }
    cases.push(with(should, "answer-keep-alive-field", "Keep-Alive: timeout=77\r\n").check(
        answered(|answer| {
            let said = answer.fields.one("keep-alive").unwrap_or_default();
            demand(!said.contains("77"), || "the origin's Keep-Alive was passed on".into())
        }),
    ));
    cases.push(
        with(must, "answer-connection-names-the-length", "Connection: content-length\r\n")
            .check(answered(|answer| same("the body", &answer.body[..], b"ok"))),
    );
    cases.push(
        with(must, "answer-connection-close-is-the-hops", "Connection: close\r\n")
            .check(answered(|_| Ok(()))),
    );
    cases
}

fn ways() -> Vec<Case> {
    let via = |request: &Message| request.fields.list("via");
    vec![
        must("via-is-added", "RFC 9110 7.6.3").get("").answers(1).check(passed(move |request| {
            let mine = via(request).pop().unwrap_or_default();
            demand(mine.starts_with("1.1 "), || format!("Via ends in {mine:?}"))
        })),
        must("via-comes-last", "RFC 9110 7.6.3")
            .get("Via: 1.0 fred, 1.1 example.test\r\n")
            .answers(1)
            .check(passed(move |request| {
                let all = via(request);
                same(
                    "the others",
                    all.get(..2),
                    Some(&["1.0 fred".into(), "1.1 example.test".into()][..]),
                )?;
                demand(all.len() == 3 && all[2].starts_with("1.1 "), || format!("Via is {all:?}"))
            })),
        must("via-names-the-received-version", "RFC 9110 7.6.3")
            .send("GET /{id}/ HTTP/1.0\r\nHost: {id}.test\r\n\r\n")
            .end()
            .check(passed(move |request| {
                let mine = via(request).pop().unwrap_or_default();
                demand(mine.starts_with("1.0 "), || format!("Via ends in {mine:?}"))
            })),
    ]
}

fn rounds() -> Vec<Case> {
    vec![
        should("cdn-loop-is-added", "RFC 8586 2").get("CDN-Loop: other; x=1\r\n").answers(1).check(
            passed(|request| {
                let all = request.fields.list("cdn-loop");
                let kept = all.first().is_some_and(|first| first.starts_with("other"));
                demand(kept && all.len() == 2, || format!("CDN-Loop is {all:?}"))
            }),
        ),
        must("loop-is-broken", "RFC 9110 7.6").get("").plays([Play::Return]).answers(1).check(
            |seen| {
                let code = seen.answer()?.status();
                demand(code >= 400, || format!("{code} at the end of a loop"))?;
                let rounds = seen.origin.iter().filter(|side| !side.bytes.is_empty()).count();
                demand(rounds <= 20, || format!("it went round {rounds} times"))
            },
        ),
        should("loop-is-named", "RFC 5842 7.2")
            .get("")
            .plays([Play::Return])
            .answers(1)
            .check(|seen| same("the status", seen.answer()?.status(), 508)),
        must("options-ends-here", "RFC 9110 7.6.2")
            .send("OPTIONS /{id}/ HTTP/1.1\r\nHost: {id}.test\r\nMax-Forwards: 0\r\n\r\n")
            .answers(1)
            .check(|seen| {
                demand(seen.answer()?.status() < 500, || "it answers by itself".into())?;
                untouched(seen)
            }),
        must("options-goes-on-one-less", "RFC 9110 7.6.2")
            .send("OPTIONS /{id}/ HTTP/1.1\r\nHost: {id}.test\r\nMax-Forwards: 5\r\n\r\n")
            .answers(1)
            .check(passed(|request| {
                same("max-forwards", request.fields.one("max-forwards"), Some("4".into()))
            })),
        must("options-goes-on-with-less-than-it-can-count", "RFC 9110 7.6.2")
            .send("OPTIONS /{id}/ HTTP/1.1\r\nHost: {id}.test\r\nMax-Forwards: 99999999999\r\n\r\n")
            .answers(1)
            .check(passed(|request| {
                let said = request.fields.one("max-forwards").unwrap_or_default();
                let less = said.parse::<u64>().is_ok_and(|said| said < 99_999_999_999);
                demand(less, || format!("max-forwards is {said:?}"))
            })),
        must("connection-names-a-trailer", "RFC 9110 7.6.1")
            .post(
                "Connection: x-hop\r\nTrailer: x-hop, x-end\r\nTransfer-Encoding: chunked\r\n",
                "2\r\nok\r\n0\r\nX-Hop: 1\r\nX-End: 1\r\n\r\n",
            )
            .answers(1)
            .check(passed(|request| {
                let said = request.fields.list("trailer").contains(&"x-hop".to_string());
                demand(!said && !request.trailers.has("x-hop"), || "it must stay on its hop".into())
            })),
        must("trace-ends-here", "RFC 9110 7.6.2")
            .send("TRACE /{id}/ HTTP/1.1\r\nHost: {id}.test\r\nMax-Forwards: 0\r\n\r\n")
            .answers(1)
            .check(|seen| {
                seen.answer()?;
                untouched(seen)
            }),
        should("max-forwards-of-a-get-is-ignored", "RFC 9110 7.6.2")
            .get("Max-Forwards: 0\r\n")
            .answers(1)
            .check(passed(|_| Ok(()))),
    ]
}

fn clients() -> Vec<Case> {
    let last = |request: &Message, name: &str, value: &str| {
        let all = request.fields.list(name);
        same(name, all.last().map(String::as_str), Some(value))
    };
    vec![
        should("forwarded-for-is-the-client", "RFC 7239 5.2")
            .get("")
            .answers(1)
            .check(passed(move |request| last(request, "x-forwarded-for", "127.0.0.1"))),
        should("forwarded-for-is-not-believed", "RFC 7239 8.1")
            .get("X-Forwarded-For: 6.6.6.6\r\n")
            .answers(1)
            .check(passed(|request| {
                same("it", request.fields.list("x-forwarded-for"), vec!["127.0.0.1".into()])
            })),
        should("forwarded-proto-is-not-believed", "RFC 7239 8.1")
            .get("X-Forwarded-Proto: https\r\n")
            .answers(1)
            .check(passed(|request| {
                same("it", request.fields.list("x-forwarded-proto"), vec!["http".into()])
            })),
        should("forwarded-host-is-not-believed", "RFC 7239 8.1")
            .get("X-Forwarded-Host: evil.test\r\n")
            .answers(1)
            .check(passed(|request| {
                let said = request.fields.list("x-forwarded-host");
                demand(!said.contains(&"evil.test".to_string()), || "passed on".into())
            })),
        should("forwarded-is-not-believed", "RFC 7239 8.1")
            .get("Forwarded: for=6.6.6.6;host=evil.test;proto=https\r\n")
            .answers(1)
            .check(passed(|request| {
                let said = request.fields.list("forwarded").concat();
                demand(!said.contains("6.6.6.6"), || format!("passed on: {said}"))
            })),
    ]
}

/// The answer names this cause.
fn says(error: &'static str) -> impl Fn(&Seen) -> Verdict + Send + Sync {
    move |seen| {
        let said = seen.answer()?.fields.list("proxy-status").concat();
        demand(said.contains(&format!("error={error}")), || format!("it says {said:?}"))
    }
}

fn failures() -> Vec<Case> {
    vec![
        must("origin-ends-without-an-answer", "RFC 9110 15.6.3")
            .get("")
            .plays([Play::Body, Play::Close])
            .answers(1)
            .check(bad_gateway),
        should("origin-ends-and-is-named", "RFC 9209 2.3.9")
            .get("")
            .plays([Play::Body, Play::Close])
            .answers(1)
            .check(says("connection_terminated")),
        must("origin-says-nothing", "RFC 9110 15.6.5")
            .get("")
            .plays([Play::Body, Play::Hang])
            .hurried()
            .answers(1)
            .check(|seen| same("the status", seen.answer()?.status(), 504)),
        should("origin-says-nothing-and-is-named", "RFC 9209 2.3.16")
            .get("")
            .plays([Play::Body, Play::Hang])
            .hurried()
            .answers(1)
            .check(says("http_response_timeout")),
        should("origin-says-nonsense-and-is-named", "RFC 9209 2.3.30")
            .get("")
            .ends("nonsense\r\n\r\n")
            .answers(1)
            .check(says("http_protocol_error")),
    ]
}

fn passed_on() -> Vec<Case> {
    vec![
        must("status-of-the-origin-passes", "RFC 9110 15.6")
            .get("")
            .says("HTTP/1.1 503 Later\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nno")
            .answers(1)
            .check(|seen| {
                let answer = seen.answer()?;
                same("the status", answer.status(), 503)?;
                same("the body", &answer.body[..], b"no")?;
                same("retry-after", answer.fields.one("retry-after"), Some("7".into()))
            }),
        should("proxy-status-of-the-origin-passes", "RFC 9209 2")
            .get("")
            .says(
                "HTTP/1.1 502 No\r\nProxy-Status: far; error=dns_error\r\n\
                 Content-Length: 0\r\n\r\n",
            )
            .answers(1)
            .check(says("dns_error")),
        must("status-unknown-passes", "RFC 9110 15")
            .get("")
            .says("HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nok")
            .answers(1)
            .check(|seen| same("the status", seen.answer()?.status(), 299)),
        must("redirect-passes", "RFC 9110 10.2.2")
            .get("")
            .says(
                "HTTP/1.1 302 Found\r\nLocation: http://else.test/x?y#z\r\n\
                 Content-Length: 0\r\n\r\n",
            )
            .answers(1)
            .check(|seen| {
                let location = seen.answer()?.fields.one("location");
                same("location", location, Some("http://else.test/x?y#z".into()))
            }),
        must("answer-is-passed-on-twice", "RFC 9110 3.3")
            .get("")
            .get("")
            .says(ok("one"))
            .says(ok("two"))
            .answers(2)
            .check(|seen| {
                let bodies: Vec<Vec<u8>> = seen.answers()?.into_iter().map(|it| it.body).collect();
                same("the bodies", bodies, vec![b"one".to_vec(), b"two".to_vec()])
            }),
    ]
}
