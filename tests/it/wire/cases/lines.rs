//! The request line, its version and method, and line ends.

use crate::wire::case::{Case, must, should};
use crate::wire::seen::{demand, passed, refused, refused_or, same, turned_away, untouched};

pub fn cases() -> Vec<Case> {
    let mut cases = versions();
    cases.extend(methods());
    cases.extend(shapes());
    cases.extend(sizes());
    cases
}

/// One request with this line.
fn line(case: Case, line: &str) -> Case {
    case.send(format!("{line}\r\nHost: {{id}}.test\r\nConnection: close\r\n\r\n")).end()
}

fn versions() -> Vec<Case> {
    let newer = refused_or(&[400, 505], |_| Ok(()));
    vec![
        line(must("version-1-2", "RFC 9110 2.5"), "GET /{id}/ HTTP/1.2").check(newer),
        line(should("version-2-0-in-a-line", "RFC 9110 15.6.6"), "GET /{id}/ HTTP/2.0")
            .check(refused(&[400, 505])),
        line(should("version-3-in-a-line", "RFC 9112 2.3"), "GET /{id}/ HTTP/3")
            .check(turned_away(&[400, 505])),
        line(should("version-of-two-digits", "RFC 9112 2.3"), "GET /{id}/ HTTP/1.10")
            .check(turned_away(&[400, 505])),
        line(should("version-in-small-letters", "RFC 9112 2.3"), "GET /{id}/ http/1.1")
            .check(turned_away(&[400, 505])),
        line(should("version-without-digits", "RFC 9112 2.3"), "GET /{id}/ HTTP/x.y")
            .check(turned_away(&[400, 505])),
        line(should("version-of-another-protocol", "RFC 9112 2.3"), "GET /{id}/ ICY/1.1")
            .check(turned_away(&[400, 505])),
        must("version-0-9", "RFC 9112 A.1").send("GET /{id}/\r\n").end().free_form().check(
            |seen| {
                if turned_away(&[400, 404, 505])(seen).is_ok() {
                    return Ok(());
                }
                seen.request().map(|_| ())
            },
        ),
        must("version-1-0-without-host", "RFC 9112 3.2")
            .send("GET /{id}/ HTTP/1.0\r\n\r\n")
            .end()
            .check(passed(|_| Ok(()))),
        must("version-sent-on-is-our-own", "RFC 9110 2.5")
            .send("GET /{id}/ HTTP/1.0\r\nHost: {id}.test\r\n\r\n")
            .end()
            .check(passed(|request| {
                same("the version", request.start.rsplit(' ').next(), Some("HTTP/1.1"))
            })),
    ]
}

fn methods() -> Vec<Case> {
    let kept = |method: &'static str| {
        refused_or(&[400, 405, 501], move |request| same("the method", request.method(), method))
    };
    let mut cases = vec![
        line(must("method-in-small-letters", "RFC 9110 9.1"), "get /{id}/ HTTP/1.1")
            .check(kept("get")),
        line(must("method-with-odd-marks", "RFC 9110 9.1"), "A!#$%&'*+-.^_`|~9 /{id}/ HTTP/1.1")
            .check(kept("A!#$%&'*+-.^_`|~9")),
        line(should("method-no-token", "RFC 9112 3.1"), "GE(T /{id}/ HTTP/1.1")
            .check(turned_away(&[400, 405, 501])),
        line(should("method-with-control", "RFC 9112 3.1"), "GE\x01T /{id}/ HTTP/1.1")
            .check(turned_away(&[400, 405, 501])),
        line(should("method-empty", "RFC 9112 3.1"), " /{id}/ HTTP/1.1")
            .check(turned_away(&[400, 405, 501])),
        line(
            should("method-endless", "RFC 9112 3"),
            &format!("{} / HTTP/1.1", "A".repeat(100 << 10)),
        )
        .check(turned_away(&[400, 405, 414, 431, 501])),
        line(should("connect-is-no-tunnel", "RFC 9110 9.3.6"), "CONNECT {id}.test:80 HTTP/1.1")
            .check(turned_away(&[400, 403, 404, 405, 501])),
        line(should("trace-is-refused", "RFC 9110 9.3.8"), "TRACE /{id}/ HTTP/1.1")
            .check(refused(&[403, 405, 501])),
        line(
            must("refused-method-says-what-is-allowed", "RFC 9110 15.5.6"),
            "TRACE /{id}/ HTTP/1.1",
        )
        .check(|seen| {
            let answer = seen.answer()?;
            let allowed = answer.fields.list("allow");
            let told = answer.status() != 405 || !allowed.is_empty();
            demand(told, || "a 405 without Allow".into())
        }),
    ];
    for (name, method) in [
        ("method-put", "PUT"),
        ("method-patch", "PATCH"),
        ("method-delete", "DELETE"),
        ("method-options", "OPTIONS"),
        ("method-unknown", "BREW"),
        ("method-with-dash", "M-SEARCH"),
    ] {
        let case = line(should(name, "RFC 9110 9.1"), &format!("{method} /{{id}}/ HTTP/1.1"));
        cases.push(case.check(passed(move |request| same("the method", request.method(), method))));
    }
    cases
}

fn shapes() -> Vec<Case> {
    let bare = "GET /{id}/ HTTP/1.1\nHost: {id}.test\nConnection: close\n\n";
    let cr = "GET /{id}/ HTTP/1.1\rHost: {id}.test\rConnection: close\r\r";
    vec![
        line(must("line-with-two-spaces", "RFC 9112 3"), "GET  /{id}/ HTTP/1.1")
            .check(refused_or(&[400], |_| Ok(()))),
        line(must("line-with-tabs", "RFC 9112 3"), "GET\t/{id}/\tHTTP/1.1")
            .check(refused_or(&[400], |_| Ok(()))),
        line(must("line-with-space-first", "RFC 9112 3"), " GET /{id}/ HTTP/1.1")
            .check(refused_or(&[400], |_| Ok(()))),
        line(must("line-with-space-last", "RFC 9112 3"), "GET /{id}/ HTTP/1.1 ")
            .check(refused_or(&[400, 505], |_| Ok(()))),
        line(should("line-with-four-words", "RFC 9112 3"), "GET /{id}/ x HTTP/1.1")
            .check(turned_away(&[400, 505])),
        line(should("line-without-target", "RFC 9112 3"), "GET HTTP/1.1")
            .check(turned_away(&[400, 404, 505])),
        must("lines-ended-by-bare-lf", "RFC 9112 2.2")
            .send(bare)
            .end()
            .check(refused_or(&[400], |_| Ok(()))),
        must("lines-ended-by-bare-cr", "RFC 9112 2.2")
            .send(cr)
            .send("\r\n\r\n")
            .end()
            .check(turned_away(&[400, 505])),
        must("binary-junk", "RFC 9112 3")
            .send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\xde\xad\xbe\xef\r\n\r\n\r\n")
            .end()
            .check(|seen| {
                untouched(seen)?;
                demand(seen.has_ended(), || "nothing good can follow".into())
            }),
        must("second-preface-of-http2", "RFC 9113 3.4")
            .get("")
            .answers(1)
            .send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .end()
            .check(|seen| {
                same("requests", seen.requests()?.len(), 1)?;
                demand(seen.has_ended(), || "it must not be served".into())
            }),
    ]
}

fn sizes() -> Vec<Case> {
    let long = "a".repeat(7_900);
    let endless = "a".repeat(200 << 10);
    vec![
        line(should("target-of-8000-bytes", "RFC 9112 3"), &format!("GET /{{id}}/{long} HTTP/1.1"))
            .check(passed(|request| demand(request.target().len() > 7_900, || "cut".into()))),
        line(must("target-endless", "RFC 9112 3"), &format!("GET /{{id}}/{endless} HTTP/1.1"))
            .check(turned_away(&[414])),
        must("field-endless", "RFC 9110 5.4")
            .get(&format!("X: {endless}\r\n"))
            .end()
            .check(turned_away(&[400, 413, 431])),
        must("fields-without-number", "RFC 9110 5.4")
            .get(&"X: y\r\n".repeat(50_000))
            .end()
            .check(turned_away(&[400, 413, 431])),
        should("fields-of-30", "RFC 9110 5.4")
            .get(&"X: y\r\n".repeat(30))
            .answers(1)
            .check(passed(|request| same("X", request.fields.list("x").len(), 30))),
    ]
}
