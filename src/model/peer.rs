//! Other nodes as a node sees them.

use std::time::Duration;

use super::ids::{NodeId, PeerAddr};
use super::moment::Moment;

/// Who a peer is and where it can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCard {
    /// Its peer port.
    pub address: PeerAddr,
    /// Its name, once known.
    pub node: Option<NodeId>,
    /// Where it stands; empty when not said.
    pub region: String,
}

/// A peer that this node gossips with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Who it is.
    pub card: PeerCard,
    /// Why it was chosen.
    pub kind: NeighbourKind,
    /// Smoothed round trip, once measured.
    pub rtt: Option<Duration>,
    /// Since when it is a neighbour.
    pub since: Moment,
}

/// Why a neighbour was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NeighbourKind {
    /// Closest by measured round trip.
    Near,
    /// Random, to hold the overlay together.
    Far,
    /// Given by hand.
    Fixed,
    /// It chose this node.
    Inbound,
}

impl PeerCard {
    /// A peer of which only the address is known.
    pub fn unknown(address: PeerAddr) -> PeerCard {
        PeerCard { address, node: None, region: String::new() }
    }
}
