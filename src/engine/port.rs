//! What goes into the node's mind and what comes out of it: two closed enums.
//!
//! Each effect that starts work has an input that ends it, and a timer in the mind for when
//! neither comes. Nothing here does anything.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::model::delta::Delta;
use crate::model::digest::{Digest, DigestReply};
use crate::model::follow::{Hello, RejectedRule, Report, Settled, Welcome};
use crate::model::head::{Beacon, Position};
use crate::model::ids::{NodeId, PeerAddr, RuleId, Version};
use crate::model::key::KeyLink;
use crate::model::ledger::Ledger;
use crate::model::manual::Override;
use crate::model::moment::{Moment, WallTime};
use crate::model::peer::PeerCard;
use crate::model::record::Body;

/// Pairs an effect with the input that ends it. Never reused in one life of a mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Everything that can happen to a node's mind.
#[derive(Clone, Debug)]
pub enum Input {
    /// The deadline has come, or nothing particular.
    Tick,

    /// The stream asked for by `OpenStream` stands; the orchestrator's first word.
    StreamOpened {
        /// Of the `OpenStream`.
        ticket: Ticket,
        /// What it said.
        welcome: Welcome,
    },
    /// The stream could not be opened, or broke. Ends an `OpenStream`.
    StreamClosed {
        /// Of the `OpenStream`.
        ticket: Ticket,
    },
    /// Something came over the open stream.
    Stream {
        /// Of the `OpenStream`.
        ticket: Ticket,
        /// What came.
        message: StreamMessage,
    },

    /// A peer announced itself; answered by `ReplyDigest` with the same ticket, at once.
    DigestReceived {
        /// Made by the shell.
        ticket: Ticket,
        /// What it said.
        digest: Digest,
    },
    /// The answer to a `SendDigest`.
    DigestAnswered {
        /// Whom it was sent to.
        to: PeerAddr,
        /// What it answered.
        reply: DigestReply,
        /// From the request's first byte to the answer's last.
        rtt: Duration,
    },
    /// A `SendDigest` came to nothing.
    DigestFailed {
        /// Whom it was sent to.
        to: PeerAddr,
    },
    /// The answer to a `Pull`.
    PullAnswered {
        /// Of the `Pull`.
        ticket: Ticket,
        /// What was pulled.
        pulled: Pulled,
    },
    /// A `Pull` came to nothing.
    PullFailed {
        /// Of the `Pull`.
        ticket: Ticket,
    },
    /// The answer to a `FetchNeighbours`.
    NeighboursAnswered {
        /// Whom it was sent to.
        from: PeerAddr,
        /// Who the answerer says it is, if it does.
        card: Option<PeerCard>,
        /// Whom it knows. The shell has taken out what its address policy forbids.
        list: Vec<PeerCard>,
        /// From the request's first byte to the answer's last.
        rtt: Duration,
    },
    /// A `FetchNeighbours` came to nothing.
    NeighboursFailed {
        /// Whom it was sent to.
        from: PeerAddr,
    },

    /// Somebody wrote rules by hand and no orchestrator could be reached.
    WriteByHand {
        /// Made by the shell; answered by `AnswerWrite`.
        ticket: Ticket,
        /// All or nothing.
        writes: Vec<HandWrite>,
        /// Now, on the wall clock.
        wall: WallTime,
    },
    /// Somebody set overlays on this node.
    SetOverlays {
        /// Made by the shell; answered by `AnswerWrite`, without versions.
        ticket: Ticket,
        /// All or nothing: the rule's data and when it ends; none ends it now.
        overlays: Vec<(RuleId, Option<(Bytes, Moment)>)>,
    },
    /// The rules file was read: all that it says now.
    FileRead {
        /// Rule data by id.
        rules: BTreeMap<RuleId, Bytes>,
        /// Now, on the wall clock.
        wall: WallTime,
    },

    /// The shell has put in force what `Activate` named, as far as it could.
    Activated {
        /// The ledger position that is in use now.
        position: Option<Position>,
        /// Every rule that is not in force at its newest version.
        rejected: Vec<RejectedRule>,
    },
    /// The disk holds what `Store` with this ticket asked for.
    Stored {
        /// Of the `Store`.
        ticket: Ticket,
        /// Whether it really does.
        done: bool,
    },
    /// Names that the operator gave were looked up: everything that is known of them now.
    Resolved {
        /// Peers to begin with.
        seeds: Vec<PeerAddr>,
        /// Of a fixed topology; not looked at otherwise.
        fixed: Vec<PeerAddr>,
        /// This node as others reach it, where that had to wait for a seed.
        own: Option<PeerAddr>,
    },
    /// The operator takes this node out of service, or back in.
    Drain(bool),
    /// Requests served since the start, for reports.
    Served(u64),
}

/// What came over the stream from the orchestrator.
#[derive(Clone, Debug)]
pub enum StreamMessage {
    /// The next changes.
    Delta(Delta),
    /// A sign of life.
    Beacon(Beacon),
    /// A key rotation.
    Link(KeyLink),
    /// What became of overrides that were handed in.
    Settled(Vec<Settled>),
    /// The orchestrator has lost its ledger and asks for this one.
    LedgerRequest,
}

/// What one pull brought, in the order the answerer sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulled {
    /// Key rotations that the rest may need.
    pub links: Vec<KeyLink>,
    /// What changed.
    pub delta: Option<Delta>,
    /// The answerer's newest beacon.
    pub beacon: Option<Beacon>,
    /// Overrides asked for by id.
    pub overrides: Vec<Override>,
    /// Rules of a plain peer asked for by id; a body of `Retired` for its 404 with a version.
    pub plain: Vec<(RuleId, Version, Body)>,
}

/// One rule written by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandWrite {
    /// Which rule.
    pub id: RuleId,
    /// What it shall say.
    pub body: Body,
    /// A version in the body: absent, the current one, or a higher one.
    pub version: Option<Version>,
    /// What `If-Match` or `If-None-Match` asks for.
    pub expected: Expected,
}

/// A precondition on the effective version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// None.
    Anything,
    /// The rule must not live.
    Absent,
    /// This version, and where an override is meant, its author.
    Version(Version, Option<NodeId>),
}

/// Why a write by hand was refused; nothing was touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteRefused {
    /// The precondition does not hold; the effective version, if there is one.
    Precondition(RuleId, Option<Version>),
    /// The named version is below the current one.
    VersionTooLow(RuleId, Option<Version>),
    /// The named version is further ahead than allowed.
    VersionTooHigh(RuleId, Option<Version>),
    /// There is no such rule to retire.
    NotFound(RuleId),
    /// This node holds no author certificate, and the fleet has an orchestrator.
    NotCertified,
    /// Too many overrides or writes at once.
    TooMany,
    /// This node would hold too many overlays.
    TooManyOverlays,
    /// The disk did not take it.
    NotStored,
}

/// A version that a write by hand made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Which rule.
    pub id: RuleId,
    /// Its version now.
    pub version: Version,
    /// Whether the write said nothing new; the version is the old one then.
    pub unchanged: bool,
}

/// Everything that a node's mind can ask for.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Open a stream; ends with `StreamClosed`. At most one is open or being opened.
    OpenStream {
        /// Names the stream.
        ticket: Ticket,
        /// Index into the configured orchestrators.
        orchestrator: usize,
        /// The first message.
        hello: Hello,
    },
    /// Give the stream up; `StreamClosed` need not follow.
    CloseStream {
        /// Of the `OpenStream`.
        ticket: Ticket,
    },
    /// Tell the orchestrator; the newest report is enough.
    SendReport(Report),
    /// Hand overrides in over the stream.
    HandIn(Vec<Override>),
    /// Send the whole ledger over the stream.
    SendLedger(Ledger),

    /// POST a digest; ends with `DigestAnswered` or `DigestFailed`.
    SendDigest {
        /// Whom to.
        to: PeerAddr,
        /// What to say.
        digest: Digest,
    },
    /// Answer a `DigestReceived`.
    ReplyDigest {
        /// Of the input.
        ticket: Ticket,
        /// What to say.
        reply: DigestReply,
    },
    /// GET configuration; ends with `PullAnswered` or `PullFailed`.
    Pull {
        /// Names the pull.
        ticket: Ticket,
        /// Whom from.
        from: PeerAddr,
        /// What.
        what: PullWhat,
    },
    /// GET neighbours; ends with `NeighboursAnswered` or `NeighboursFailed`.
    FetchNeighbours {
        /// Whom from.
        from: PeerAddr,
    },

    /// The rule set changed: put these rules in force. Ends with `Activated`.
    Activate {
        /// The rules whose effective version may have changed.
        changed: Changed,
    },
    /// Keep on disk what `Engine::keep` returns now; ends with `Stored` where a ticket is given.
    Store {
        /// Given when somebody waits for it to be durable. `extra` is to be kept as well.
        ticket: Option<Ticket>,
        /// Overrides that take effect once they are durable.
        extra: Vec<Override>,
    },
    /// Answer a `WriteByHand` or a `SetOverlays`.
    AnswerWrite {
        /// Of the input.
        ticket: Ticket,
        /// Versions in the order of the writes.
        result: Result<Vec<Written>, WriteRefused>,
    },
    /// Something worth telling: for logs, metrics and the event stream.
    Tell(Event),
}

/// Which rules to look at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// These.
    Rules(Vec<RuleId>),
    /// All of them.
    Everything,
}

/// What to GET from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullWhat {
    /// The changes since a position; none asks for the whole ledger.
    Since(Option<Position>),
    /// The overrides of these rules.
    Overrides(Vec<RuleId>),
    /// These rules, one by one, from a plain peer.
    Plain(Vec<RuleId>),
}

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The ledger moved.
    Applied {
        /// Where to.
        position: Position,
        /// How many rules changed.
        rules: usize,
        /// Which way it came.
        path: crate::model::follow::Path,
        /// Whether it replaced the whole ledger.
        replaced: bool,
    },
    /// Something that arrived was not believed.
    Refused {
        /// A stable word, as in `Refusal::reason`.
        reason: &'static str,
        /// Who relayed it, when a peer did.
        from: Option<PeerAddr>,
    },
    /// An override took effect here.
    OverrideTaken(RuleId, Version, NodeId),
    /// Overrides that the ledger has overtaken were dropped.
    OverrideVoid(RuleId, Version),
    /// The state of the stream changed.
    Feed(crate::model::follow::FeedState),
    /// A neighbour was taken on.
    NeighbourUp(PeerAddr),
    /// A neighbour was given up.
    NeighbourDown(PeerAddr),
    /// Two signed histories contradict each other, or the content was damaged; needs a look.
    Alarm(String),
    /// A key is trusted now that was not before.
    Trusted(crate::model::key::PublicKey, crate::model::trust::TrustSource),
}
