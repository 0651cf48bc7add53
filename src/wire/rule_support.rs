//! What the schema can say and this release does not do yet: one list.
//!
//! Everything here is parsed and validated like the rest and then refused as `unsupported`, at
//! every door and on every node. Taking a line out of `NOT_YET` is all that parsing has to learn.

/// A part of the schema that a release may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    /// Failed attempts made again as the rule says.
    Retry,
    /// Probes of targets.
    ActiveHealth,
    /// Bounds on requests in flight and request bodies.
    Limits,
    /// The first ready target in the order written.
    BalanceFirst,
    /// The same target for the same key.
    BalanceHash,
    /// A deadline over the whole exchange.
    TotalTimeout,
    /// Matching CONNECT or TRACE, which the proxy answers itself.
    RefusedMethods,
}

const NOT_YET: &[Feature] = &[Feature::RefusedMethods];

impl Feature {
    /// Whether this release does it.
    pub(crate) fn is_supported(self) -> bool {
        !NOT_YET.contains(&self)
    }

    /// As the object of a sentence.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Feature::Retry => "retries set by a rule",
            Feature::ActiveHealth => "active health checks",
            Feature::Limits => "limits set by a rule",
            Feature::BalanceFirst => "the policy first",
            Feature::BalanceHash => "the policy hash",
            Feature::TotalTimeout => "total timeouts",
            Feature::RefusedMethods => "matching CONNECT or TRACE",
        }
    }
}
