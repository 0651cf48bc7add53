//! The commands as scripts use them: preconditions, machine output, pipes that close, signals.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Fleet, binary, eventually, http, ok, respond_rule, run};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
}

fn rule(name: &str) -> String {
    format!("{{\"id\":\"{name}\",{}", &respond_rule(name)[1..])
}

#[test]
fn a_precondition_holds_at_a_node_as_it_does_at_the_orchestrator() {
    let fleet = Fleet::start(1);
    let file = fleet.rules_file("one.yaml", &rule("one"));
    let node = format!("http://{}", fleet.nodes[0].peer);
    let orchestrator = fleet.url();
    let doors = [["--node", &node], ["--orchestrator", &orchestrator]];
    let mut current = 0;
    for door in doors {
        let apply = ["apply", "-f", &file];
        let delete = ["rule", "delete", "one"];
        let attempt = |what: &[&str], version: u64| {
            run(&[what, &door, &["--if-version", &version.to_string()]].concat())
        };
        for (what, wrong) in [(&apply, 77), (&delete, 77)] {
            let output = attempt(what, wrong);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{said}");
        }
        // A retired rule does not exist: 0 lets it come back, above every earlier version.
        let output = attempt(&apply, 0);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        current += 1;
        let output = attempt(&apply, 0);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("the current version is v{current}")), "{said}");
        assert!(attempt(&delete, current).status.success());
        current += 1;
    }
}

#[test]
fn what_programs_read_is_json() {
    let fleet = Fleet::start(1);
    let file = fleet.rules_file("one.yaml", &rule("one"));
    let orchestrator = fleet.url();
    let node = format!("http://{}", fleet.nodes[0].peer);
    let apply = ["apply", "-f", &file, "-o", "json"];
    let with = |more: &[&str]| json(&ok(&[&apply[..], more].concat()));

    let dry = with(&["--dry-run", "--orchestrator", &orchestrator]);
    assert_eq!(dry["dryRun"], true);
    let applied = with(&["--wait=all", "--orchestrator", &orchestrator]);
    assert_eq!(applied["rules"][0]["id"], "one");
    assert_eq!(applied["rules"][0]["version"], 1);
    assert_eq!(applied["rules"][0]["outcome"], "written");
    assert_eq!(applied["propagation"]["reached"], 1);
    let again = with(&["--orchestrator", &orchestrator]);
    assert_eq!(again["rules"][0]["outcome"], "unchanged");

    fleet.rules_file("one.yaml", &rule("one").replace("\"body\":\"one\"", "\"body\":\"two\""));
    let at_node = with(&["--node", &node]);
    assert_eq!(at_node["results"]["one"]["state"], "active", "{at_node}");
    let delete = ["rule", "delete", "one", "-o", "json", "--orchestrator", &orchestrator];
    assert_eq!(json(&ok(&delete))["rules"][0]["outcome"], "retired");
    for what in [&["status"][..], &["propagation"], &["rule", "list"], &["check"]] {
        json(&ok(&[what, &["-o", "json", "--orchestrator", &orchestrator]].concat()));
    }
    for what in [&["status"][..], &["latency"], &["neighbours"], &["rule", "list"]] {
        json(&ok(&[what, &["-o", "json", "--node", &node]].concat()));
    }
}

#[test]
fn a_watch_tells_of_each_change_as_it_is_committed() {
    let fleet = Fleet::start(0);
    let url = fleet.url();
    let mut watch = binary()
        .args(["rule", "watch", "w", "-o", "json", "--orchestrator", &url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap());
    // The watch begins at some moment after the process does: write until it is seen.
    let seen = std::thread::spawn(move || {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        line
    });
    let mut round = 0;
    eventually(Duration::from_secs(10), "a change is seen", || {
        round += 1;
        for name in ["other", "watched"] {
            let status = format!("\"status\":{},\"body\"", 200 + round);
            let text = rule(name).replace("\"body\"", &status);
            ok(&["apply", "-f", &fleet.rules_file("w.yaml", &text), "--orchestrator", &url]);
        }
        seen.is_finished().then_some(())
    });
    let change = json(&seen.join().unwrap());
    assert_eq!(change["id"], "watched", "only what begins with w: {change}");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn a_reader_that_goes_away_is_no_crash() {
    let mut child = binary()
        .args(["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(141), "{said}");
    assert_eq!(said, "");
}

#[test]
fn a_terminal_that_goes_away_ends_no_node() {
    let fleet = Fleet::start(1);
    let node = fleet.nodes[0].process.as_ref().unwrap();
    let orchestrator = fleet.orchestrator.as_ref().unwrap();
    node.signal("HUP");
    orchestrator.signal("HUP");
    for _ in 0..3 {
        assert_eq!(http(fleet.nodes[0].traffic, "GET", "/", None).unwrap().status, 200);
        assert!(fleet.nodes[0].status().is_some());
    }
    ok(&["check", "--orchestrator", &fleet.url()]);
}

#[test]
fn a_stopped_orchestrator_is_backed_up_and_recovered_from_its_directory() {
    let mut fleet = Fleet::start(1);
    let data = fleet.orchestrator_data().display().to_string();
    let key = ok(&["orchestrator", "keys", "--data", &data]);
    assert_eq!(key.trim().len(), 64, "{key}");
    let copy = fleet.directory.path().join("copy").display().to_string();
    let backup = ["orchestrator", "backup", &copy, "--data", &data];
    assert_eq!(run(&backup).status.code(), Some(1), "it runs");
    assert_eq!(fleet.orchestrator.take().unwrap().terminate(), Some(0));
    ok(&backup);
    assert_eq!(run(&backup).status.code(), Some(1), "there is one already");

    std::fs::remove_file(fleet.orchestrator_data().join("store.redb")).unwrap();
    let recover = ["orchestrator", "recover", "--data", &data];
    assert_eq!(run(&recover).status.code(), Some(2), "nobody to ask");
    let node = format!("http://{}", fleet.nodes[0].peer);
    let said = ok(&[&recover[..], &["--from", &node]].concat());
    assert!(said.contains("recovered 1 rules"), "{said}");
    fleet.start_orchestrator();
    let listed = ok(&["rule", "list", "--orchestrator", &fleet.url()]);
    assert!(listed.contains("demo"), "{listed}");
}

#[test]
fn a_push_is_measured_at_a_node_and_through_the_orchestrator() {
    let said = ok(&["bench", "push", "--rules", "3", "--pushes", "2"]);
    let figures = |line: &str| -> Vec<f64> {
        line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    let rows: Vec<Vec<f64>> =
        said.lines().map(figures).filter(|row| row.first() == Some(&3.0)).collect();
    // Rules, p50, p99, last and when the push was answered; with a disk also what that took.
    assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), [5, 6], "{said}");
    assert!(rows.iter().flatten().all(|figure| *figure > 0.0), "{said}");
}
