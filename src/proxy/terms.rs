//! How a rule wants its requests handled, once for all rules that want the same.
//!
//! Most rules say nothing of it, or what their neighbours say: shared, it stays in the caches when
//! requests are spread over very many rules.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::rule::{Balance, Filter, Limits, Outlier, Retry, Rule, Timeouts};

/// How a rule wants its requests handled.
#[derive(Debug, PartialEq)]
pub(crate) struct Terms {
    pub(crate) balance: Balance,
    pub(crate) timeouts: Timeouts,
    pub(crate) retry: Retry,
    pub(crate) outlier: Outlier,
    pub(crate) limits: Limits,
    /// In the rule's order; no kind stands twice.
    pub(crate) filters: Vec<Filter>,
}

/// The terms of the rules seen last.
#[derive(Debug, Default)]
pub(super) struct RecentTerms(VecDeque<Arc<Terms>>);

impl Terms {
    /// Of a rule.
    pub(crate) fn of(rule: &Rule) -> Terms {
        Terms {
            balance: rule.balance.clone(),
            timeouts: rule.timeouts.clone(),
            retry: rule.retry.clone(),
            outlier: rule.health.outlier.clone(),
            limits: rule.limits.clone(),
            filters: rule.filters.clone(),
        }
    }
}

impl RecentTerms {
    /// Of a rule: those of another one that says the same, if there was one lately.
    pub(super) fn of(&mut self, rule: &Rule) -> Arc<Terms> {
        let terms = Terms::of(rule);
        if let Some(known) = self.0.iter().find(|known| ***known == terms) {
            return known.clone();
        }
        let terms = Arc::new(terms);
        self.0.truncate(REMEMBERED - 1);
        self.0.push_front(terms.clone());
        terms
    }
}

/// A fleet's rules follow few patterns; more would only be looked through for nothing.
const REMEMBERED: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rule::{Action, Alternative, Health, NodeSelector, Respond};

    fn rule(attempts: u32) -> Rule {
        let respond = Respond { status: 200, headers: Vec::new(), body: String::new() };
        Rule {
            hosts: Vec::new(),
            alternatives: vec![Alternative::default()],
            filters: Vec::new(),
            action: Action::Respond(respond),
            balance: Balance::default(),
            timeouts: Timeouts::default(),
            retry: Retry { attempts, ..Retry::default() },
            health: Health::default(),
            limits: Limits::default(),
            nodes: NodeSelector::default(),
        }
    }

    #[test]
    fn rules_that_say_the_same_share_it_and_little_is_remembered() {
        let mut recent = RecentTerms::default();
        let first = recent.of(&rule(1));
        let other = recent.of(&rule(2));
        assert!(*first != *other);
        assert!(Arc::ptr_eq(&first, &recent.of(&rule(1))));
        for attempts in 3..1_000 {
            assert_eq!(recent.of(&rule(attempts)).retry.attempts, attempts);
        }
        assert_eq!(recent.0.len(), REMEMBERED);
        assert!(*first == *recent.of(&rule(1)), "forgotten, not mistaken");
    }
}
