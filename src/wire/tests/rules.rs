//! Claims about rules in all their forms: the forms agree, faults are told all at once, and
//! nothing that is sent breaks the reader. Golden files are rewritten with `UPDATE_EXPECT=1`.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::*;

const WELL_FORMED: [&str; 5] = ["shop-api", "moved", "closed", "prefix-rewrite", "cart"];

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rules").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

fn assert_golden(name: &str, found: &str) {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(file(name), found).unwrap();
    }
    assert_eq!(found, text(name), "{name}; UPDATE_EXPECT=1 rewrites it");
}

/// Sixteen bytes to a line.
fn hexadecimal(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n";
    bytes.chunks(16).map(line).collect()
}

fn from_hexadecimal(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let byte = |index| u8::from_str_radix(&digits[index..index + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn one(text: &str) -> ParsedRule {
    let rules = rules_from_yaml_or_json(text).unwrap_or_else(|problems| panic!("{problems}"));
    let [rule] = &rules[..] else { panic!("{} rules", rules.len()) };
    rule.clone()
}

fn problems(text: &str) -> String {
    rules_from_yaml_or_json(text).unwrap_err().to_string()
}

#[test]
fn yaml_json_and_protobuf_agree() {
    for name in WELL_FORMED {
        let yaml = one(&text(&format!("{name}.yaml")));
        assert_golden(&format!("{name}.hex"), &hexadecimal(&yaml.data));
        assert_eq!(yaml, one(&text(&format!("{name}.json"))), "{name}");

        let bytes = from_hexadecimal(&text(&format!("{name}.hex")));
        let data = proto::RuleData::decode(&bytes[..]).unwrap();
        let message = proto::Rule { id: name.to_owned(), data: Some(data) };
        assert_eq!(rule_from_proto(message).unwrap(), yaml, "{name}");
        assert_eq!(decode_rule_data(&bytes).unwrap(), yaml.rule, "{name}");
    }
}

#[test]
fn what_is_shown_can_be_applied_again_unchanged() {
    for name in WELL_FORMED {
        let rule = one(&text(&format!("{name}.yaml")));
        let shown = rule_to_yaml(&rule.id, &rule.data).unwrap();
        assert_golden(&format!("{name}.shown.yaml"), &shown);
        assert_eq!(one(&shown), rule);
        let shown = rule_data_to_json(&rule.data).unwrap();
        assert_eq!(rule_data_from_json(name, &shown).unwrap(), rule);
        let shown = rule_to_proto(&rule.id, &rule.data).unwrap();
        assert_eq!(rule_from_proto(shown).unwrap(), rule);
    }
}

#[test]
fn all_faults_are_told_at_once() {
    assert_golden("bad.problems", &(problems(&text("bad.yaml")) + "\n"));
}

#[test]
fn what_a_later_release_does_is_refused_by_name() {
    let problems = rules_from_yaml_or_json(&text("later.yaml")).unwrap_err();
    assert!(problems.list().iter().all(|problem| problem.code == ProblemCode::Unsupported));
    assert_golden("later.problems", &(problems.to_string() + "\n"));
}

#[test]
fn a_text_may_hold_many_rules() {
    let many: String = WELL_FORMED.map(|name| text(&format!("{name}.yaml"))).join("---\n");
    let ids = |rules: Vec<ParsedRule>| rules.into_iter().map(|rule| rule.id.to_string()).collect();
    let read: Vec<String> = ids(rules_from_yaml_or_json(&many).unwrap());
    assert_eq!(read, WELL_FORMED);
    let list = WELL_FORMED.map(|name| text(&format!("{name}.json"))).join(",");
    let read: Vec<String> = ids(rules_from_yaml_or_json(&format!("[{list}]")).unwrap());
    assert_eq!(read, WELL_FORMED);
    assert_eq!(rules_from_yaml_or_json("[]").unwrap(), []);
}

#[test]
fn faults_in_a_text_of_many_rules_name_the_rule() {
    let good = "{ id: a, data: { respond: {} } }";
    let bad = "{ id: b, data: { respond: { body: 1 } } }";
    let wanted = "/1/data/respond/body: wrong_type: expected text, found the number 1 \
                  (put it in quotes)";
    assert_eq!(problems(&format!("- {good}\n- {bad}\n")), wanted);
    assert_eq!(problems(&format!("{good}\n---\n{bad}\n")), wanted);
    let wanted = "/1/id: duplicate: there is a rule a in this text already";
    assert_eq!(problems(&format!("- {good}\n- {good}\n")), wanted);
}

#[test]
fn a_saved_configuration_may_hold_rules_named_like_its_keys() {
    let rule = json!({ "version": 1, "origin": "ledger", "data": { "respond": {} } });
    for names in [&["data"][..], &["id"], &["data", "id", "other"]] {
        let saved: serde_json::Map<_, _> =
            names.iter().map(|name| ((*name).to_string(), rule.clone())).collect();
        let text = serde_json::Value::Object(saved).to_string();
        let read = rules_from_yaml_or_json(&text).unwrap();
        let ids: Vec<String> = read.iter().map(|rule| rule.id.to_string()).collect();
        assert_eq!(ids, names);
    }
    let lone = "{ data: { respond: {} } }";
    assert_eq!(problems(lone), "/id: missing: has to be given");
}

#[test]
fn what_a_rule_without_targets_would_not_do_is_refused() {
    let needless = [
        "timeouts: { request: 1s }",
        "limits: { maxInFlight: 1 }",
        "filters: [{ requestHeaders: { remove: [x-a] } }]",
    ];
    for text in needless {
        let found = problems(&format!("{{ id: a, data: {{ respond: {{}}, {text} }} }}"));
        let detail = "says nothing in a rule with respond, only in one with targets";
        assert!(found.contains(&format!("conflict: {detail}")), "{text}: {found}");
    }
}

#[test]
fn a_saved_configuration_can_be_applied() {
    let data = json!({ "respond": { "status": 204 } });
    let saved = json!({
        "shop/api": { "data": data },
        "blog": { "version": 7, "origin": "ledger", "data": data, "overlay": { "ttl": "5m" } },
        "wiki": { "version": 0, "data": data },
    });
    let wanted = "/shop~1api: invalid: \"shop/api\" is not a rule id (1 to 128 of a-z, 0-9 and, \
                  inside, any of \"-._\")\n\
                  /wiki/version: invalid: the number 0 is not a version: 1, 2, 3 …";
    assert_eq!(problems(&saved.to_string()), wanted);
    let saved = json!({ "blog": { "version": 7, "origin": "ledger", "data": data } });
    let rule = one(&saved.to_string());
    assert_eq!(rule.version, Version::new(7));
    assert_eq!(rule.id.as_str(), "blog");
}

#[test]
fn what_is_no_document_is_told_with_its_place() {
    for (text, wanted) in [
        ("", "document: missing: there is no rule in this text"),
        ("# nothing\n", "document: missing: there is no rule in this text"),
        ("id: [a", "document: syntax: not YAML: line 1, column 5: unclosed bracket '['"),
        (
            "{\"id\": \"a\",\n \"data\" {}}",
            "document: syntax: not JSON: line 2, column 9: expected `:`",
        ),
        ("id: *a", "document: syntax: not YAML: line 1, column 5: alias references unknown anchor"),
        ("just text", "document: wrong_type: expected a mapping, found the text \"just text\""),
        ("{}", "/id: missing: has to be given\n/data: missing: has to be given"),
    ] {
        assert_eq!(problems(text), wanted, "{text}");
    }
}

#[test]
fn no_text_unfolds_without_bounds() {
    let deep = "[".repeat(100_000);
    let deep_keys = "{\"a\":".repeat(100_000);
    let mut laughs = String::from("a: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let copies = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs.push_str(&format!("b{level}: &a{level} [{copies}]\n"));
    }
    for text in [deep, deep_keys, laughs] {
        let problems = rules_from_yaml_or_json(&text).unwrap_err();
        assert_eq!(problems.list()[0].code, ProblemCode::Syntax);
    }
    let keys: String = (0..100_000).map(|key| format!("\"k{key}\": 1,")).collect();
    let wide = format!("{{{keys} \"id\": \"a\"}}");
    assert_eq!(problems(&wide), "document: too_large: 100001 entries, at most 64 are taken");
}

#[test]
fn a_rule_is_no_larger_than_can_be_carried() {
    let target = |index| json!({ "url": format!("http://{}.{index}.x", "a".repeat(63)) });
    let targets = |count| (0..count).map(target).collect::<Vec<Value>>();
    assert!(rule_data_from_json("a", &json!({ "targets": targets(4096) })).is_ok());
    let too_many = rule_data_from_json("a", &json!({ "targets": targets(4097) })).unwrap_err();
    let wanted = "/data/targets: too_large: 4097 entries, at most 4096 are taken";
    assert!(too_many.to_string().starts_with(wanted));

    let header = |index| json!({ "name": format!("x-{index}"), "value": "v".repeat(4096) });
    let headers: Vec<Value> = (0..64).map(header).collect();
    let path = |index| json!({ "path": { "exact": format!("/{index}{}", "p".repeat(4000)) } });
    let any: Vec<Value> = (0..200).map(path).collect();
    let filters = json!([{ "requestHeaders": { "set": headers, "add": headers } }]);
    let data = json!({ "match": { "any": any }, "filters": filters, "targets": targets(1) });
    let problems = rule_data_from_json("a", &data).unwrap_err();
    assert_eq!(problems.list()[0].code, ProblemCode::TooLarge);
    assert_eq!(problems.list().len(), 1);
}

#[test]
fn bytes_from_elsewhere_are_judged_not_trusted() {
    assert!(decode_rule_data(b"\xff\xff\xff").is_err());
    assert!(decode_rule_data(b"").is_err());
    let mut bytes = one("{ id: a, data: { respond: {} } }").data.to_vec();
    // Field 2000, a varint: what a later release may add.
    bytes.extend([0x80, 0x7d, 0x01]);
    assert!(decode_rule_data(&bytes).is_ok());
    let connect = proto::Alternative { methods: vec!["CONNECT".into()], ..Default::default() };
    let later = proto::RuleData {
        r#match: Some(proto::Match { any: vec![connect], ..Default::default() }),
        respond: Some(proto::Respond::default()),
        ..Default::default()
    };
    let problems = decode_rule_data(&later.encode_to_vec()).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "/data/match/any/0/methods/0: unsupported: \
         this release does not do matching CONNECT or TRACE yet"
    );
    let problems = rule_from_proto(proto::Rule::default()).unwrap_err();
    assert_eq!(problems.list().len(), 2);
}

#[test]
fn a_rule_that_answers_by_itself_has_nothing_to_balance_or_rewrite() {
    let data = json!({
        "filters": [{ "rewrite": { "host": "a" } }],
        "respond": {},
        "balance": { "policy": "latency" },
    });
    let problems = rule_data_from_json("a", &data).unwrap_err().under("/a").to_string();
    let why = "conflict: says nothing in a rule with respond, only in one with targets";
    assert_eq!(problems, format!("/a/data/balance: {why}\n/a/data/filters/0/rewrite: {why}"));
}
