//! Properties of rules over arbitrary documents: what is read comes back as it was, in every
//! form, and what is not a rule never breaks the reader.
//!
//! proptest prints the seed of a failure and the smallest document that shows it.

use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;

/// A mapping of those keys that are given.
fn mapping(entries: Vec<(&'static str, Option<Value>)>) -> Value {
    let given = |(key, value): (&str, Option<Value>)| Some((key.to_owned(), value?));
    Value::Object(entries.into_iter().filter_map(given).collect::<Map<String, Value>>())
}

fn texts(pattern: &'static str) -> impl Strategy<Value = Value> {
    pattern.prop_map(Value::from)
}

fn distinct(pattern: &'static str) -> impl Strategy<Value = Value> {
    let set = proptest::collection::btree_set(pattern, 0..4);
    set.prop_map(|texts| json!(texts))
}

fn duration() -> impl Strategy<Value = Value> {
    texts("[1-9][0-9]{0,3}(ms|s)([1-9][0-9]?ms)?")
}

fn alternative() -> impl Strategy<Value = Value> {
    let path = prop_oneof![
        texts("(/[a-z0-9.~-]{1,5}x){1,3}/?").prop_map(|path| json!({ "prefix": path })),
        texts("(/[a-z0-9%~-]{0,5}x){1,3}/?").prop_map(|path| json!({ "exact": path })),
        texts("\\^?/[a-z]{1,4}(\\[0-9\\])?\\.[*+?]").prop_map(|path| json!({ "regex": path })),
    ];
    let headers = btree_map("[a-z][a-z0-9-]{0,8}x", "([!-~]([ -~]{0,10}[!-~])?)?", 0..4);
    let query = btree_map("\\PC{1,8}", "\\PC{0,8}", 0..4);
    (of(path), of(distinct("[A-Z]{3}[A-Z]{0,3}X")), of(headers), of(query)).prop_map(
        |(path, methods, headers, query)| {
            mapping(vec![
                ("path", path),
                ("methods", methods),
                ("headers", headers.map(|headers| json!(headers))),
                ("query", query.map(|query| json!(query))),
            ])
        },
    )
}

fn matching() -> impl Strategy<Value = Value> {
    let hosts = distinct("(\\*\\.)?([a-z0-9_]{1,8}\\.){0,3}[a-z]{2,5}");
    (of(hosts), of(vec(alternative(), 0..4))).prop_map(|(hosts, any)| {
        mapping(vec![("hosts", hosts), ("any", any.map(|any| json!(any)))])
    })
}

fn headers() -> impl Strategy<Value = Value> {
    let names = btree_map("x-[a-z0-9-]{1,8}", "([!-~]([ -~]{0,10}[!-~])?)?", 0..4);
    names.prop_map(|headers| {
        headers.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
    })
}

fn edits() -> impl Strategy<Value = Value> {
    (of(headers()), of(headers()), of(distinct("X-[A-Z]{1,8}"))).prop_map(|(set, add, remove)| {
        mapping(vec![("set", set), ("add", add), ("remove", remove)])
    })
}

fn filters() -> impl Strategy<Value = Value> {
    let rewrite = prop_oneof![
        texts("[a-z]{1,8}(:[1-9][0-9]{0,3})?").prop_map(|host| json!({ "host": host })),
        texts("/[a-z]{1,8}").prop_map(|path| json!({ "path": path })),
    ];
    (of(edits()), of(edits()), of(rewrite)).prop_map(|(request, response, rewrite)| {
        let filters = [
            request.map(|edits| json!({ "requestHeaders": edits })),
            response.map(|edits| json!({ "responseHeaders": edits })),
            rewrite.map(|rewrite| json!({ "rewrite": rewrite })),
        ];
        filters.into_iter().flatten().collect()
    })
}

fn targets() -> impl Strategy<Value = Value> {
    let target = (of(0..=1_000_000u32), of(texts("[a-z]{0,4}")), of(texts("[1-9][0-9]?ms")));
    let addresses = btree_map("(http|https|h2c)://[a-z]{1,9}(:[1-9][0-9]{0,3})?", target, 1..5);
    addresses.prop_map(|targets| {
        let target = |(url, (weight, region, hint)): (String, (Option<u32>, _, _))| {
            // The default port would make two of these one.
            let url = if url.matches(':').count() == 1 { format!("{url}:12345") } else { url };
            mapping(vec![
                ("url", Some(json!(url))),
                ("weight", weight.map(Value::from)),
                ("region", region),
                ("latencyHint", hint),
            ])
        };
        targets.into_iter().map(target).collect()
    })
}

fn policies() -> impl Strategy<Value = Map<String, Value>> {
    let policy = prop_oneof![Just("latency"), Just("least_requests"), Just("round_robin")];
    let balance = prop_oneof![
        policy.prop_map(|policy| json!({ "policy": policy })),
        texts("[a-z]{1,8}")
            .prop_map(|name| json!({ "policy": "hash", "hash": { "cookie": name } })),
    ];
    let timeouts = of(texts("[1-9]s"))
        .prop_map(|connect| mapping(vec![("connect", connect), ("idle", Some(json!("5m")))]));
    let retry = (1..=10u32, duration()).prop_map(|(attempts, window)| {
        let budget = json!({ "window": window, "percent": "7.5%" });
        json!({ "attempts": attempts, "on": ["503"], "budget": budget })
    });
    let active = prop_oneof![
        texts("/[a-z]{1,8}").prop_map(|path| json!({ "path": path })),
        Just(json!({ "tcp": true })),
    ];
    let outlier = (1..=1_000u32, duration()).prop_map(
        |(consecutive, eject_for)| json!({ "consecutive": consecutive, "ejectFor": eject_for }),
    );
    let health = (of(active), outlier).prop_map(|(active, outlier)| {
        mapping(vec![("active", active), ("outlier", Some(outlier))])
    });
    let limits =
        texts("[0-9]{1,4}(B|KiB|MiB|GiB)").prop_map(|size| json!({ "maxRequestBody": size }));
    let nodes = (distinct("[a-z]{3}"), btree_map("[a-z]{1,5}", "[a-z0-9]{0,5}", 0..3))
        .prop_map(|(regions, labels)| json!({ "regions": regions, "labels": labels }));
    (of(balance), of(timeouts), of(retry), of(health), of(limits), of(nodes)).prop_map(
        |(balance, timeouts, retry, health, limits, nodes)| {
            let keys = ["balance", "timeouts", "retry", "health", "limits", "nodes"];
            let values = [balance, timeouts, retry, health, limits, nodes];
            let given = |(key, value): (&str, Option<Value>)| Some((key.to_owned(), value?));
            keys.into_iter().zip(values).filter_map(given).collect()
        },
    )
}

fn rule_data() -> impl Strategy<Value = Value> {
    (of(matching()), of(filters()), targets(), policies()).prop_map(
        |(matching, filters, targets, mut data)| {
            data.extend(matching.map(|matching| (String::from("match"), matching)));
            data.extend(filters.map(|filters| (String::from("filters"), filters)));
            data.insert(String::from("targets"), targets);
            Value::Object(data)
        },
    )
}

/// Reads data, passing over what a later release does.
fn read(tree: &Tree) -> (Rule, proto::RuleData) {
    let mut findings = Findings::default();
    let read = read_data(tree, String::from("/data"), &mut findings);
    if let Err(problems) = findings.finish(Some(())) {
        let later = |problem: &crate::wire::rule_problems::Problem| {
            problem.code == ProblemCode::Unsupported
        };
        assert!(problems.list().iter().all(later), "{problems}");
    }
    read.unwrap()
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        texts("\\PC{0,12}"),
        texts("(5m|64KiB|20%|http://a|/a|GET|x-a|\\*\\.a)"),
    ];
    let key = prop_oneof![
        "(id|data|match|hosts|any|path|prefix|regex|methods|headers|query|filters|set|name)",
        "(requestHeaders|rewrite|targets|url|weight|redirect|status|respond|body|balance|hash)",
        "(timeouts|connect|retry|on|budget|health|active|outlier|limits|nodes|regions|labels)",
        "\\PC{0,6}",
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            btree_map(key.clone(), inner, 0..6).prop_map(|entries| json!(entries)),
        ]
    })
}

proptest! {
    #[test]
    fn a_rule_comes_back_as_it_was_from_every_form(data in rule_data()) {
        let (rule, given) = read(&Tree::from(&data));
        // The way of the bytes: what a node reads from the ledger.
        let bytes = given.encode_to_vec();
        let carried = proto::RuleData::decode(&bytes[..]).unwrap();
        let shown = data_tree(&carried);
        prop_assert_eq!(read(&shown), (rule.clone(), given.clone()));
        // The way of the texts.
        let json = serde_json::to_string(&shown).unwrap();
        prop_assert_eq!(parse_text(&json).unwrap(), vec![shown.clone()]);
        let yaml = serde_saphyr::to_string(&shown).unwrap();
        prop_assert_eq!(parse_text(&yaml).unwrap(), vec![shown.clone()], "{}", yaml);
        // The way of a value in the peer API, which forgets the order of keys.
        prop_assert_eq!(read(&Tree::from(&Value::from(shown))), (rule, given));
    }

    #[test]
    fn no_json_breaks_the_reader(document in any_json()) {
        let tree = Tree::from(&document);
        prop_assert_eq!(Value::from(tree), document.clone());
        let _ = rule_data_from_json("a", &document);
        if let Ok(rules) = rules_from_yaml_or_json(&document.to_string()) {
            for rule in rules {
                prop_assert_eq!(decode_rule_data(&rule.data).unwrap(), rule.rule);
            }
        }
    }

    #[test]
    fn no_text_breaks_the_reader(
        text in "[\\PC\n]{0,60}",
        yaml in "[-a-c:{}\\[\\],&*!|>%'\"# \n]{0,40}",
    ) {
        let _ = rules_from_yaml_or_json(&text);
        let _ = rules_from_yaml_or_json(&yaml);
    }

    #[test]
    fn no_bytes_break_the_reader(bytes in vec(any::<u8>(), 0..200)) {
        let _ = decode_rule_data(&bytes);
        let _ = rule_data_to_json(&bytes);
    }
}
