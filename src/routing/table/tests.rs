//! The table against a naive reading of the precedence rules.

use std::cmp::Reverse;
use std::sync::Arc;

use proptest::prelude::*;

use super::branch::prefixes;
use super::trie::Vacant;
use super::*;
use crate::model::rule::{
    Action, Alternative, Balance, Health, Limits, NodeSelector, Respond, Retry, Timeouts,
};

fn rule(hosts: Vec<HostPattern>, alternatives: Vec<Alternative>) -> Rule {
    Rule {
        hosts,
        alternatives,
        filters: Vec::new(),
        action: Action::Respond(Respond { status: 200, headers: Vec::new(), body: String::new() }),
        balance: Balance::default(),
        timeouts: Timeouts::default(),
        retry: Retry::default(),
        health: Health::default(),
        limits: Limits::default(),
        nodes: NodeSelector::default(),
    }
}

fn route(number: usize, created: u64, rule: Rule) -> Arc<Route<()>> {
    let id = RuleId::parse(&format!("r{number}")).unwrap();
    Arc::new(Route::compile(id, Arc::new(rule), WallTime(created), |_| ()).unwrap())
}

/// Every matching alternative, sorted by the order as it is written down; the first wins.
fn reference(
    rules: &[Arc<Route<()>>],
    asked: &Asked<'_>,
    headers: &[(String, String)],
) -> Option<(RuleId, usize)> {
    let mut found = Vec::new();
    for route in rules {
        let any = [None];
        let hosts: Vec<Option<&HostPattern>> = if route.rule.hosts.is_empty() {
            any.to_vec()
        } else {
            route.rule.hosts.iter().map(Some).collect()
        };
        for host in hosts {
            let specific = match host {
                None => (2, 0),
                Some(HostPattern::Exact(name)) if name == asked.host => (0, 0),
                Some(HostPattern::Suffix(suffix))
                    if asked.host.ends_with(&format!(".{suffix}")) =>
                {
                    (1, usize::MAX - suffix.len())
                }
                Some(_) => continue,
            };
            for (index, one) in route.rule.alternatives.iter().enumerate() {
                let path = match &one.path {
                    None => (3, 0),
                    Some(PathMatch::Exact(path)) if path == asked.path => (0, 0),
                    Some(PathMatch::Prefix(prefix)) if matcher::covers(prefix, asked.path) => {
                        (1, usize::MAX - prefix.len())
                    }
                    Some(PathMatch::Regex(pattern))
                        if matcher::compile(pattern).unwrap().is_match(asked.path) =>
                    {
                        (2, 0)
                    }
                    Some(_) => continue,
                };
                let header = |name: &str| {
                    headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
                };
                if matcher::allows(one, asked, &header) {
                    let key = (
                        specific,
                        path,
                        Reverse(!one.methods.is_empty()),
                        Reverse(one.headers.len()),
                        Reverse(one.query.len()),
                        route.created,
                        route.id.clone(),
                        index,
                    );
                    found.push(key);
                }
            }
        }
    }
    found.into_iter().min().map(|key| (key.6, key.7))
}

fn hosts() -> impl Strategy<Value = Vec<HostPattern>> {
    let one = prop_oneof![
        prop::sample::select(vec!["a.x", "b.x", "a.b.x", "x"])
            .prop_map(|name| HostPattern::Exact(name.to_string())),
        prop::sample::select(vec!["x", "b.x"])
            .prop_map(|suffix| HostPattern::Suffix(suffix.to_string())),
    ];
    prop::collection::vec(one, 0..3)
}

fn alternatives() -> impl Strategy<Value = Vec<Alternative>> {
    let paths = vec!["/", "/a", "/a/b", "/a/b/c", "/ab"];
    let path = prop_oneof![
        Just(None),
        prop::sample::select(paths.clone()).prop_map(|p| Some(PathMatch::Exact(p.to_string()))),
        prop::sample::select(paths).prop_map(|p| Some(PathMatch::Prefix(p.to_string()))),
        prop::sample::select(vec!["/a.*", "/[a-z]+", "/a|/b"])
            .prop_map(|p| Some(PathMatch::Regex(p.to_string()))),
    ];
    let method = prop_oneof![Just(vec![]), Just(vec!["GET".to_string()])];
    let header = prop_oneof![Just(vec![]), Just(vec![("h".to_string(), "1".to_string())])];
    let query = prop_oneof![Just(vec![]), Just(vec![("q".to_string(), "1".to_string())])];
    let one = (path, method, header, query)
        .prop_map(|(path, methods, headers, query)| Alternative { path, methods, headers, query });
    prop::collection::vec(one, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_table_agrees_with_the_order_as_it_is_written(
        rules in prop::collection::vec((hosts(), alternatives(), 0u64..3), 1..12),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        backwards in any::<bool>(),
        host in prop::sample::select(vec!["a.x", "b.x", "a.b.x", "c.b.x", "x", "other"]),
        path in prop::sample::select(vec!["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/b", "/z/z",
            "//", "/a//b", "/a/b/c/d/e", "/abc/d", "/\u{e9}/a"]),
        method in prop::sample::select(vec!["GET", "POST"]),
        header in any::<bool>(),
        query in prop::sample::select(vec![None, Some("q=1"), Some("x=2&q=1&q=3"), Some("q=2")]),
    ) {
        let mut routes: Vec<Arc<Route<()>>> = rules
            .into_iter()
            .enumerate()
            .map(|(n, (hosts, alternatives, created))| route(n, created, rule(hosts, alternatives)))
            .collect();
        let mut table = Table::new(7);
        if backwards {
            routes.iter().rev().for_each(|route| table.insert(route.clone()));
        } else {
            routes.iter().for_each(|route| table.insert(route.clone()));
        }
        let (before, all) = (table.clone(), routes.clone());
        for index in removed {
            if routes.is_empty() {
                break;
            }
            let gone = routes.remove(index.index(routes.len()));
            prop_assert!(table.remove(&gone.id).is_some());
        }
        let headers: Vec<(String, String)> =
            if header { vec![("h".to_string(), "1".to_string())] } else { vec![] };
        let asked = Asked { host, method, path, query };
        let find = |name: &str| {
            headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
        };
        for (table, routes) in [(&table, &routes), (&before, &all)] {
            let matched = table.find(&asked, &find);
            if let Some(matched) = &matched {
                let taken = match &matched.route.rule.alternatives[matched.alternative].path {
                    Some(PathMatch::Prefix(prefix)) => Some(prefix.trim_end_matches('/').len()),
                    _ => None,
                };
                prop_assert_eq!(matched.prefix, taken);
            }
            let found = matched.map(|matched| (matched.route.id.clone(), matched.alternative));
            prop_assert_eq!(found, reference(routes, &asked, &headers));
            prop_assert_eq!(table.len(), routes.len());
        }
    }
}

#[test]
fn a_change_to_one_host_shares_every_other_branch() {
    let mut table = Table::new(7);
    for number in 0..1_000 {
        let host = HostPattern::Exact(format!("h{number}.example"));
        table.insert(route(number, 1, rule(vec![host], vec![Alternative::default()])));
    }
    let before = table.clone();
    let host = HostPattern::Exact("h7.example".to_string());
    table.insert(route(7, 2, rule(vec![host], vec![Alternative::default()])));
    let kept = before
        .routes()
        .filter(|old| table.route(&old.id).is_some_and(|new| Arc::ptr_eq(old, new)))
        .count();
    assert_eq!(kept, 999);
    let asked = Asked { host: "h7.example", method: "GET", path: "/", query: None };
    let none = |_: &str| None;
    assert_eq!(before.find(&asked, &none).unwrap().route.created, WallTime(1));
    assert_eq!(table.find(&asked, &none).unwrap().route.created, WallTime(2));
}

#[test]
fn very_many_alternatives_of_one_path_come_and_go_in_their_order() {
    let mut table = Table::new(7);
    let one = |number: usize| {
        let headers = vec![("h".to_string(), number.to_string())];
        route(number, 1, rule(vec![], vec![Alternative { headers, ..Alternative::default() }]))
    };
    (0..1_000).for_each(|number| table.insert(one(number)));
    let asked = Asked { host: "x", method: "GET", path: "/", query: None };
    let found = |table: &Table<()>, value: &str| {
        let header = |_: &str| Some(value);
        table.find(&asked, &header).map(|matched| matched.route.id.as_str().to_string())
    };
    assert_eq!(found(&table, "999"), Some("r999".to_string()));
    for number in 0..999 {
        table.remove(&RuleId::parse(&format!("r{number}")).unwrap());
    }
    assert_eq!(found(&table, "998"), None);
    assert_eq!(found(&table, "999"), Some("r999".to_string()));
    table.remove(&RuleId::parse("r999").unwrap());
    assert_eq!(found(&table, "999"), None);
    assert!(table.any.is_vacant());
}

#[test]
fn rules_that_only_age_tells_apart_are_conflicts() {
    let mut table = Table::new(7);
    for number in 0..3 {
        let path = if number < 2 { "/same" } else { "/other" };
        let path = Some(PathMatch::Prefix(path.to_string()));
        let one = Alternative { path, ..Alternative::default() };
        table.insert(route(number, number as u64, rule(vec![], vec![one])));
    }
    let pair = |a: usize, b: usize| {
        (RuleId::parse(&format!("r{a}")).unwrap(), RuleId::parse(&format!("r{b}")).unwrap())
    };
    assert_eq!(table.conflicts(), vec![pair(0, 1)]);
    // Of the same regex, and of conditions that others of the same rank stand between.
    for number in 3..5 {
        let path = Some(PathMatch::Regex("/[0-9]+".to_string()));
        let one = Alternative { path, ..Alternative::default() };
        table.insert(route(number, number as u64, rule(vec![], vec![one])));
    }
    for (number, name) in [(5, "x"), (6, "y"), (7, "x")] {
        let query = vec![(name.to_string(), "1".to_string())];
        let one = Alternative { query, ..Alternative::default() };
        table.insert(route(number, number as u64, rule(vec![], vec![one])));
    }
    assert_eq!(table.conflicts(), vec![pair(0, 1), pair(3, 4), pair(5, 7)]);
}

#[test]
fn a_path_of_slashes_costs_no_more_than_the_longest_prefix() {
    let hostile = "/".repeat(60_000);
    assert!(prefixes(&hostile, 12).count() <= 13);
    let cuts = |path: &'static str, longest| prefixes(path, longest).collect::<Vec<_>>();
    assert_eq!(cuts("/a/bc/d", 7), ["/a/bc/d", "/a/bc", "/a", "/"]);
    assert_eq!(cuts("/a/bc/d", 5), ["/a/bc", "/a", "/"]);
    assert_eq!(cuts("/a/bc/d", 4), ["/a", "/"]);
    assert_eq!(cuts("/a/bc/d", 1), ["/"]);
    assert_eq!(cuts("*", 1), [""; 0]);
}

#[test]
fn lengths_of_prefixes_follow_what_is_in_force() {
    let mut table = Table::new(7);
    let with = |path: &str| {
        let path = Some(PathMatch::Prefix(path.to_string()));
        rule(vec![], vec![Alternative { path, ..Alternative::default() }; 2])
    };
    let longest = |table: &Table<()>| table.any.longest();
    table.insert(route(0, 1, with("/a/b")));
    table.insert(route(1, 1, with("/c/d")));
    table.insert(route(2, 1, with("/")));
    assert_eq!(longest(&table), Some(4));
    let long = format!("/{}", "x".repeat(99));
    table.insert(route(3, 1, with(&long)));
    assert_eq!(longest(&table), Some(100));
    let path = format!("{long}/y");
    let asked = Asked { host: "x", method: "GET", path: &path, query: None };
    let taken = |table: &Table<()>| table.find(&asked, &|_| None).unwrap().prefix;
    assert_eq!(taken(&table), Some(100));
    table.remove(&RuleId::parse("r3").unwrap());
    assert_eq!(taken(&table), Some(0));
    assert_eq!(longest(&table), Some(4));
    table.insert(route(0, 2, with("/a")));
    assert_eq!(longest(&table), Some(4));
    table.remove(&RuleId::parse("r1").unwrap());
    assert_eq!(longest(&table), Some(2));
    table.remove(&RuleId::parse("r0").unwrap());
    table.remove(&RuleId::parse("r2").unwrap());
    assert_eq!(longest(&table), None);
}
