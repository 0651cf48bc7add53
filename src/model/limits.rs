//! Every bound that a peer, a client or time itself could push against, with its reason.

use std::time::Duration;

/// Rotations in a chain: one a week for twenty years.
pub const KEY_LINKS: usize = 1_024;

/// Rules in a ledger.
pub const RULES: usize = 1_000_000;

/// Bytes of one rule's data: what validation lets through, with room for later fields.
pub const RULE_BYTES: usize = 1 << 20;

/// Rules in one commit: one `apply` of a whole configuration.
pub const COMMIT_RULES: usize = 200_000;

/// Branch points kept: one a recovery.
pub const BRANCHES: usize = 1_024;

/// How far above what is known a version may be written by hand.
pub const VERSION_JUMP: u64 = 1_024;

/// Overrides held at a node. In open mode they are the whole configuration.
pub const OVERRIDES: usize = 100_000;

/// Entries in an exchange of override marks; the rest follows in later rounds.
pub const OVERRIDE_MARKS: usize = 4_096;

/// Authors pinned in open mode.
pub const PINNED_AUTHORS: usize = 10_000;

/// Rule versions named in one digest; beyond that the head alone tells.
pub const DIGEST_VERSIONS: usize = 1_000;

/// Rules asked for by id in one pull.
pub const PULL_RULES: usize = 256;

/// Overlays on one node.
pub const OVERLAYS: usize = 10_000;

/// The longest life of an overlay.
pub const OVERLAY_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// Retired rules kept before the floor is raised over the older half.
pub const RETIRED: usize = 20_000;

/// Writes whose first answer is remembered.
pub const WRITE_IDS: usize = 10_000;

/// Lines in all remembered answers together: five of the largest commits.
pub const WRITE_RESULTS: usize = 1_000_000;

/// Peers in the passive view.
pub const PASSIVE_VIEW: usize = 32;

/// Neighbours in one exchanged list.
pub const NEIGHBOUR_LIST: usize = 64;

/// New addresses believed from one peer's list.
pub const NEW_ADDRESSES_PER_LIST: usize = 16;

/// Addresses, and those who named them, that are remembered so that nobody is asked too often.
pub const COURTESY: usize = 1_024;

/// Neighbours of all kinds; in-degree included.
pub const NEIGHBOURS: usize = 32;

/// Frames are cut at this many bytes; larger deltas travel in parts.
pub const FRAME_BYTES: usize = 1 << 20;

/// Bytes of parts held for one unfinished delta.
pub const ASSEMBLY_BYTES: usize = 1 << 30;

/// Bytes of one text of rules: 100,000 usual rules.
pub const RULE_TEXT_BYTES: usize = 64 << 20;

/// Values in one text of rules: bounds the memory that a text can unfold into.
pub const DOCUMENT_NODES: usize = 8_000_000;

/// Values that YAML aliases in one text may repeat.
pub const DOCUMENT_ALIASED: usize = 100_000;

/// Nesting of a document; the schema itself needs nine levels.
pub const DOCUMENT_DEPTH: usize = 24;

/// Keys of one mapping with a fixed set of keys; a few times what the schema has.
pub const SECTION_KEYS: usize = 64;

/// Problems listed for one document; more would not be read.
pub const PROBLEMS: usize = 100;

/// Characters quoted from a document in a problem.
pub const QUOTED_CHARS: usize = 80;

/// Host patterns of a rule.
pub const HOSTS_PER_RULE: usize = 1024;

/// Alternatives of a rule.
pub const ALTERNATIVES_PER_RULE: usize = 1024;

/// Methods, and conditions on headers and on the query, of one alternative.
pub const CONDITIONS: usize = 64;

/// Names in each list of a header edit; also headers of a fixed answer.
pub const HEADER_EDITS: usize = 64;

/// Targets of a rule.
pub const TARGETS_PER_RULE: usize = 4096;

/// Weight of a target, as in Gateway API.
pub const TARGET_WEIGHT: u32 = 1_000_000;

/// Regions and labels of a node selector.
pub const SELECTORS: usize = 256;

/// Bytes of a host name (RFC 1035).
pub const HOST_BYTES: usize = 253;

/// Bytes of a path in a rule.
pub const PATH_BYTES: usize = 4096;

/// Bytes of a header name in a rule.
pub const HEADER_NAME_BYTES: usize = 256;

/// Bytes of a header value, a query name or a query value in a rule.
pub const FIELD_VALUE_BYTES: usize = 4096;

/// Bytes of a region or of a label's name or value, as in DNS.
pub const LABEL_BYTES: usize = 63;

/// Bytes of a fixed answer's body.
pub const RESPOND_BODY_BYTES: usize = 64 << 10;

/// Bytes of a path expression as written.
pub const REGEX_BYTES: usize = 4096;

/// Bytes of a compiled path expression: a Unicode class repeated a few times fits, a bomb does not.
pub const REGEX_NFA_BYTES: usize = 256 << 10;

/// Attempts of a retry policy.
pub const RETRY_ATTEMPTS: u32 = 10;

/// Seconds of the longest deadline in a rule: a day.
pub const TIMEOUT_SECONDS: u64 = 86_400;

/// Seconds of the longest latency hint; estimates are clamped there too.
pub const LATENCY_HINT_SECONDS: u64 = 60;

/// What a frame may take beyond its records: heads, ids, branch points and fields to come.
pub const FRAME_SLACK: usize = 64 << 10;

/// Bytes of a short text that somebody else chose: a region, a label, an address, a release.
pub const WORD_BYTES: usize = 256;

/// Bytes of a reason for people: enough for a sentence and what it is about.
pub const REASON_BYTES: usize = 1_024;

/// Labels of one node.
pub const LABELS: usize = 64;

/// Addresses at which one node serves clients.
pub const TRAFFIC_ADDRESSES: usize = 64;

/// Rejected rules named in one report; the count of the rest shows as a lag in the fleet view.
pub const REJECTED_RULES: usize = 256;

/// Rows in one answer to `GET /v1/latency-info`.
pub const LATENCY_ROWS: usize = 10_000;

/// Problems named in one problem document.
pub const PROBLEM_ERRORS: usize = 1_000;

/// Nodes that an orchestrator remembers; several times the largest fleet planned for.
pub const FOLLOWERS: usize = 20_000;

/// Commits whose way through the fleet is timed.
pub const TIMED_COMMITS: usize = 1_024;

/// Reports remembered over all nodes, 32 bytes each; never fewer than 64 for a node.
pub const TIMED_REPORTS: usize = 1 << 20;

/// Versions remembered of one rule.
pub const HISTORY: usize = 20;

/// Ledgers taken in during one recovery: each may be as large as the fleet's.
pub const OFFERED_LEDGERS: usize = 8;

/// Nodes named in one recovery.
pub const RECOVER_FROM: usize = 64;
