//! Claims about rules in all their forms.

use super::*;

#[test]
fn a_rule_reads_the_same_from_its_own_yaml() {
    let text = "id: a\ndata: { match: { hosts: [A.b] }, targets: [{ url: http://a }] }\n";
    let rules = rules_from_yaml_or_json(text).unwrap();
    let again = rule_to_yaml(&rules[0].id, &rules[0].data).unwrap();
    assert_eq!(rules_from_yaml_or_json(&again).unwrap(), rules);
}
