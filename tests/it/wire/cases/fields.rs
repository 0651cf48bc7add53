//! Header fields: their syntax, and that what is nobody's business passes untouched.

use crate::wire::case::{Case, must, ok, should};
use crate::wire::seen::{answered, demand, passed, refused, refused_or, same};

pub fn cases() -> Vec<Case> {
    let mut cases = syntax();
    cases.extend(untouched());
    cases.extend(from_the_origin());
    cases
}

fn syntax() -> Vec<Case> {
    let one = |name, rfc, field: &str| {
        must(name, rfc).get(&format!("{field}\r\nConnection: close\r\n")).end()
    };
    let clean = || refused_or(&[400], |_| Ok(()));
    vec![
        one("field-name-with-space-behind", "RFC 9112 5.1", "X-Test : 1").check(refused(&[400])),
        one("field-name-with-tab-behind", "RFC 9112 5.1", "X-Test\t: 1").check(refused(&[400])),
        one("field-name-with-space-inside", "RFC 9110 5.1", "X Test: 1").check(clean()),
        one("field-name-empty", "RFC 9110 5.1", ": 1").check(clean()),
        one("field-name-no-token", "RFC 9110 5.1", "X(Test): 1").check(clean()),
        one("field-name-with-nul", "RFC 9110 5.1", "X\0Test: 1").check(clean()),
        one("field-name-of-other-letters", "RFC 9110 5.1", "X-T\u{e9}st: 1").check(clean()),
        one("field-without-colon", "RFC 9112 5", "junk").check(clean()),
        one("field-with-nul", "RFC 9110 5.5", "X-Test: a\0b").check(clean()),
        one("field-with-bare-cr", "RFC 9110 5.5", "X-Test: a\rX-Evil: b")
            .check(refused_or(&[400], |request| {
                demand(!request.fields.has("x-evil"), || "split at CR".into())
            })),
        one("field-folded", "RFC 9112 5.2", "X-Test: a\r\n b").check(refused_or(
            &[400],
            |request| {
                let value = request.fields.one("x-test").unwrap_or_default();
                let words: Vec<&str> = value.split_whitespace().collect();
                same("x-test", words, vec!["a", "b"])
            },
        )),
        one("field-folded-to-hide-one", "RFC 9112 5.2", "X-Test: a\r\n Transfer-Encoding: chunked")
            .check(clean()),
        must("space-before-the-first-field", "RFC 9112 2.2")
            .send(
                "GET /{id}/ HTTP/1.1\r\n X-Test: 1\r\nHost: {id}.test\r\nConnection: close\r\n\r\n",
            )
            .end()
            .check(refused_or(&[400], |request| {
                demand(!request.fields.has("x-test"), || "it must not be believed".into())
            })),
        must("host-folded-behind-the-line", "RFC 9112 2.2")
            .send("GET /{id}/ HTTP/1.1\r\n\tHost: other.test\r\nHost: {id}.test\r\n\r\n")
            .answers(1)
            .check(refused_or(&[400], |request| {
                let name = request.fields.one("host").unwrap_or_default();
                demand(name != "other.test", || "it must not be believed".into())
            })),
    ]
}

fn untouched() -> Vec<Case> {
    vec![
        must("unknown-field-passes", "RFC 9110 5.1")
            .get("X-Unheard-Of: yes; really=\"a, b\"\r\n")
            .answers(1)
            .check(passed(|request| {
                let value = request.fields.one("x-unheard-of");
                same("the value", value.as_deref(), Some("yes; really=\"a, b\""))
            })),
        must("empty-field-passes", "RFC 9110 5.5")
            .get("X-Empty:\r\n")
            .answers(1)
            .check(passed(|request| same("it", request.fields.one("x-empty"), Some("".into())))),
        must("lines-of-a-field-keep-their-order", "RFC 9110 5.3")
            .get("X-Many: a\r\nX-Other: z\r\nX-Many: b\r\nX-Many: c\r\n")
            .answers(1)
            .check(passed(|request| {
                same("them", request.fields.list("x-many").concat(), "abc".into())
            })),
        should("other-bytes-pass", "RFC 9110 5.5")
            .send(b"GET /{id}/ HTTP/1.1\r\nHost: {id}.test\r\nX-Bytes: caf\xe9 \xff\r\n\r\n")
            .answers(1)
            .check(passed(|request| {
                let found = request.fields.0.iter().find(|(name, _)| name == "x-bytes");
                let value = found.map(|(_, value)| &value[..]);
                same("the bytes", value, Some(&b"caf\xe9 \xff"[..]))
            })),
        must("credentials-pass", "RFC 9110 11.6.2")
            .get("Authorization: Basic dXNlcjpwYXNz\r\n")
            .answers(1)
            .check(passed(|request| {
                same("it", request.fields.one("authorization"), Some("Basic dXNlcjpwYXNz".into()))
            })),
        must("ranges-and-conditions-pass", "RFC 9110 13.2.1")
            .get("Range: bytes=1-2\r\nIf-None-Match: \"x\"\r\nIf-Range: \"x\"\r\n")
            .answers(1)
            .check(passed(|request| {
                let there = |name| request.fields.has(name);
                let all = there("range") && there("if-none-match") && there("if-range");
                demand(all, || "they must reach the origin".into())
            })),
        must("cookies-pass", "RFC 6265 5.4").get("Cookie: a=b; c=\"d, e\"\r\n").answers(1).check(
            passed(|request| {
                same("it", request.fields.one("cookie"), Some("a=b; c=\"d, e\"".into()))
            }),
        ),
        should("accept-encoding-passes", "RFC 9110 12.5.3")
            .get("Accept-Encoding: gzip;q=0.5, br\r\n")
            .answers(1)
            .check(passed(|request| {
                same("it", request.fields.one("accept-encoding"), Some("gzip;q=0.5, br".into()))
            })),
        should("date-of-a-request-passes", "RFC 9110 6.6.1")
            .get("Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n")
            .answers(1)
            .check(passed(|request| {
                same("it", request.fields.one("date"), Some("Tue, 15 Nov 1994 08:12:31 GMT".into()))
            })),
    ]
}

fn from_the_origin() -> Vec<Case> {
    let with = |case: Case, fields: &str| {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok");
        case.get("").says(answer).answers(1)
    };
    vec![
        with(must("cookies-stay-apart", "RFC 9110 5.3"), "Set-Cookie: a=b\r\nSet-Cookie: c=d\r\n")
            .check(answered(|answer| {
                same("them", answer.fields.all("set-cookie"), vec!["a=b".into(), "c=d".into()])
            })),
        with(must("unknown-field-comes-back", "RFC 9110 5.1"), "X-Unheard-Of: a, \"b\"\r\n").check(
            answered(|answer| {
                same("it", answer.fields.one("x-unheard-of"), Some("a, \"b\"".into()))
            }),
        ),
        with(must("empty-field-comes-back", "RFC 9110 5.5"), "X-Empty:\r\n")
            .check(answered(|answer| same("it", answer.fields.one("x-empty"), Some("".into())))),
        with(should("date-stays", "RFC 9110 6.6.1"), "Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n")
            .check(answered(|answer| {
                let said = answer.fields.one("date").unwrap_or_default();
                demand(said.starts_with("Tue, 15 Nov 1994"), || "the origin's is gone".into())
            })),
        must("date-is-added", "RFC 9110 6.6.1").get("").says(ok("ok")).answers(1).check(answered(
            |answer| demand(answer.fields.has("date"), || "a clock is there".into()),
        )),
        with(should("server-stays", "RFC 9110 10.2.4"), "Server: origin/1\r\n").check(answered(
            |answer| same("it", answer.fields.one("server"), Some("origin/1".into())),
        )),
        with(should("coding-of-content-stays", "RFC 9110 7.7"), "Content-Encoding: gzip\r\n")
            .check(answered(|answer| {
                same("it", answer.fields.one("content-encoding"), Some("gzip".into()))?;
                same("the body", &answer.body[..], b"ok")
            })),
        with(
            must("fields-of-caches-stay", "RFC 9111 5.2"),
            "Cache-Control: no-store\r\nAge: 7\r\nVary: X\r\nETag: W/\"x\"\r\n",
        )
        .check(answered(|answer| {
            let all = ["cache-control", "age", "vary", "etag"].map(|name| answer.fields.has(name));
            same("they", all, [true; 4])
        })),
        must("other-bytes-come-back", "RFC 9110 5.5")
            .get("")
            .says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Bytes: caf\xe9\r\n\r\nok")
            .answers(1)
            .check(answered(|answer| demand(answer.fields.has("x-bytes"), || "gone".into()))),
        must("challenge-comes-back", "RFC 9110 11.6.1")
            .get("")
            .says(
                "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\
                 WWW-Authenticate: Basic realm=\"x\"\r\n\r\n",
            )
            .answers(1)
            .check(|seen| {
                let answer = seen.answer()?;
                same("the status", answer.status(), 401)?;
                demand(answer.fields.has("www-authenticate"), || "gone".into())
            }),
    ]
}
