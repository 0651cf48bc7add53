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

/// Peers in the passive view.
pub const PASSIVE_VIEW: usize = 32;

/// Neighbours in one exchanged list.
pub const NEIGHBOUR_LIST: usize = 64;

/// New addresses believed from one peer's list.
pub const NEW_ADDRESSES_PER_LIST: usize = 16;

/// Neighbours of all kinds; in-degree included.
pub const NEIGHBOURS: usize = 32;

/// Frames are cut at this many bytes; larger deltas travel in parts.
pub const FRAME_BYTES: usize = 1 << 20;

/// Bytes of parts held for one unfinished delta.
pub const ASSEMBLY_BYTES: usize = 1 << 30;
