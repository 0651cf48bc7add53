//! The duties of a proxy, one case each, by topic.

mod bodies;
mod chunks;
mod connections;
mod expect;
mod fields;
mod framing;
mod hops;
mod http2_answers;
mod lines;
mod responses;
mod streams;
mod targets;
mod upgrades;

use super::case::Case;

/// All cases.
pub fn all() -> Vec<Case> {
    [
        framing::cases(),
        chunks::cases(),
        lines::cases(),
        fields::cases(),
        targets::cases(),
        hops::cases(),
        expect::cases(),
        upgrades::cases(),
        connections::cases(),
        responses::cases(),
        bodies::cases(),
        streams::cases(),
        http2_answers::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
