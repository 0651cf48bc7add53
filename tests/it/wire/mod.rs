//! The duties of a proxy on the wire: raw sockets on both sides, one case for each duty.
//!
//! `cases` holds what is sent, answered and demanded, each with the section that asks for it.
//! Every case runs against this proxy, which has to pass it, and against nginx where that is
//! installed, so that each is known to be fair: what nginx does not pass stands in
//! `tests/data/wire/nginx.txt`, written anew with `UPDATE_EXPECT=1`.

mod case;
mod cases;
mod frames;
mod message;
mod origin;
mod proxies;
mod run;
mod seen;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use case::{Case, Level, Play, Step};
use run::Outcome;
use seen::{End, Seen, Side};

#[test]
fn every_duty_is_done() {
    let cases = chosen();
    let listeners = proxies::listeners(&cases);
    let proxy = proxies::tradewind(&cases, &listeners);
    let outcomes = run::all(&cases, listeners, proxy.entrance);
    let mut wrong = Vec::new();
    for (case, outcome) in cases.iter().zip(&outcomes) {
        match (&outcome.verdict, case.departure) {
            (Err(why), None) => wrong.push(told(case, why, outcome)),
            (Ok(()), Some(record)) => {
                wrong.push(format!("{}: it passes; {record} says it does not\n", case.name));
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn the_cases_are_fair_to_nginx() {
    let Some(path) = proxies::nginx_path() else {
        eprintln!("SKIPPED: nginx is not installed, so the cases were not run against it");
        return;
    };
    let version = proxies::nginx_version(&path);
    // It does not speak HTTP/2 to origins, and knows no extended CONNECT.
    let knows = |case: &Case| !case.http2_origin && !case.extended;
    let cases: Vec<Case> = chosen().into_iter().filter(knows).collect();
    let listeners = proxies::listeners(&cases);
    let proxy = proxies::nginx(&path, &cases, &listeners);
    let outcomes = run::all(&cases, listeners, proxy.entrance);
    let mut failures = Vec::new();
    let (mut musts, mut passed) = (0, 0);
    for (case, outcome) in cases.iter().zip(&outcomes) {
        musts += usize::from(case.level == Level::Must);
        match &outcome.verdict {
            Ok(()) => passed += usize::from(case.level == Level::Must),
            Err(why) => {
                let level = if case.level == Level::Must { "MUST" } else { "should" };
                let why = why.lines().next().unwrap_or_default();
                failures.push(format!("{:<44} {level:<6} {:<16} {why}", case.name, case.rfc));
            }
        }
        if std::env::var_os("WIRE_SHOW").is_some() {
            let why = outcome.verdict.as_ref().err().cloned().unwrap_or("passed".into());
            eprintln!("{}", told(case, &why, outcome));
        }
    }
    println!("nginx {version} passes {passed} of {musts} MUSTs; it does not pass:");
    println!("{}", failures.join("\n"));
    if std::env::var_os("WIRE_CASE").is_some() {
        return;
    }
    assert!(passed * 100 >= musts * 80, "{passed} of {musts}: the cases ask for too much");
    compare(&version, &failures);
}

/// Holds what is known of one version of nginx against what it just did.
fn compare(version: &str, failures: &[String]) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(KNOWN);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let text = format!("nginx {version}\n{}\n", failures.join("\n"));
        std::fs::write(&file, text).unwrap();
        return;
    }
    let known = std::fs::read_to_string(&file).unwrap();
    let (about, known) = known.split_once('\n').unwrap();
    if about != format!("nginx {version}") {
        println!("not compared: {KNOWN} is about {about}");
        return;
    }
    let names = |lines: &mut dyn Iterator<Item = &str>| -> BTreeSet<String> {
        lines.filter_map(|line| line.split_whitespace().next()).map(str::to_string).collect()
    };
    let known = names(&mut known.lines());
    let found = names(&mut failures.iter().map(String::as_str));
    let fewer: Vec<_> = known.difference(&found).collect();
    let more: Vec<_> = found.difference(&known).collect();
    assert!(
        fewer.is_empty() && more.is_empty(),
        "passed now: {fewer:?}; passed before: {more:?}; UPDATE_EXPECT=1 writes {KNOWN} anew"
    );
}

#[test]
fn cases_have_names_of_their_own() {
    let cases = cases::all();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len());
    for case in &cases {
        let plain =
            case.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-' || b.is_ascii_digit());
        assert!(plain && case.rfc.starts_with("RFC "), "{} {}", case.name, case.rfc);
        assert!(!case.steps.is_empty(), "{} does nothing", case.name);
        if let Some(record) = case.departure {
            let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(record);
            assert!(file.is_file(), "{record} is not there");
        }
    }
    let musts = cases.iter().filter(|case| case.level == Level::Must).count();
    println!("{} cases, {musts} of them MUSTs", cases.len());
}

#[test]
fn no_case_is_content_with_nothing() {
    let nothing = Seen::default();
    let content: Vec<&str> = cases::all()
        .iter()
        .filter(|case| (case.check)(&nothing).is_ok())
        .map(|case| case.name)
        .collect();
    assert!(content.is_empty(), "these cannot fail where nothing happens: {content:?}");
}

#[test]
fn a_bare_wire_does_few_of_the_duties() {
    let cases = cases::all();
    let wrong = |case: &&Case| {
        let seen = relayed(case);
        seen.is_sound(case.free_form).and_then(|()| (case.check)(&seen)).is_err()
    };
    let failed = cases.iter().filter(wrong).count();
    println!("a wire that passes all on fails {failed} of {}", cases.len());
    assert!(failed * 3 > cases.len() * 2, "{failed} of {}", cases.len());
}

/// What would be seen if every byte were passed on as it came.
fn relayed(case: &Case) -> Seen {
    let sent = case.steps.iter().filter_map(|step| match step {
        Step::Send(bytes) => Some(&bytes[..]),
        _ => None,
    });
    let said = case.plays.iter().flatten().filter_map(|play| match play {
        Play::Say(bytes) => Some(bytes.clone()),
        _ => None,
    });
    let mut said: Vec<u8> = said.collect::<Vec<_>>().concat();
    if case.plays.is_empty() {
        said = case::ok("ok").into_bytes();
    }
    let side = |bytes| vec![Side { bytes, end: Some(End::Closed) }];
    let origin = side(sent.collect::<Vec<_>>().concat());
    Seen { bodiless: case.bodiless, client: side(said), origin }
}

/// All cases, or those that `WIRE_CASE` names a part of.
fn chosen() -> Vec<Case> {
    let part = std::env::var("WIRE_CASE").unwrap_or_default();
    cases::all().into_iter().filter(|case| case.name.contains(&part)).collect()
}

fn told(case: &Case, why: &str, outcome: &Outcome) -> String {
    format!(
        "{} ({}, {:?}, {:.1?}): {why}\n{}",
        case.name,
        case.rfc,
        case.level,
        outcome.took,
        outcome.seen.transcript()
    )
}

/// What nginx does not pass.
const KNOWN: &str = "tests/data/wire/nginx.txt";
