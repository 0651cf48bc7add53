//! The mind and its stream from the orchestrator.

use crate::model::delta::{Delta, Refusal};
use crate::model::follow::{FeedState, Hello, Path, Settled, SettledOutcome, Welcome};
use crate::model::head::Beacon;
use crate::model::ids::{Epoch, PeerAddr};
use crate::model::ledger::Ledger;
use crate::model::moment::Moment;
use crate::model::trust::TrustSource;

use super::super::port::{Effect, Event, StreamMessage, Ticket};
use super::Engine;

impl Engine {
    /// Judges the stream, gives a silent one up, opens one where there is none.
    pub(super) fn judge_feed(&mut self, now: Moment) {
        if let Some(ticket) = self.feed.given_up(now) {
            self.close_stream(ticket, now);
        }
        let behind = self.replica.behind_since();
        if let Some(state) = self.feed.judge(now, behind, self.allowance()) {
            self.tell_event(Event::Feed(state));
            self.report_due = true;
            if state != FeedState::Live {
                self.compare_at = now;
            }
        }
        if let Some(orchestrator) = self.feed.wants_stream(now) {
            let ticket = self.ticket();
            self.feed.opening(ticket, now);
            let hello = self.hello();
            self.effects.push_back(Effect::OpenStream { ticket, orchestrator, hello });
        }
    }

    fn hello(&self) -> Hello {
        let ledger = self.replica.set.ledger.as_ref();
        Hello {
            node: self.config.node.clone(),
            region: self.config.region.clone(),
            labels: self.config.labels.clone(),
            traffic_addresses: self.config.traffic_addresses.clone(),
            peer_address: Some(self.config.peer_address),
            head: ledger.filter(|_| !self.replica.resync).map(|ledger| *ledger.signed()),
            key: self.config.key.public(),
            program_version: self.config.program_version.clone(),
            link_serial: self.replica.trust.links().last().map_or(0, |link| link.serial),
        }
    }

    fn close_stream(&mut self, ticket: Ticket, now: Moment) {
        if self.feed.closed(ticket, now, &mut self.rng) {
            self.effects.push_back(Effect::CloseStream { ticket });
        }
    }

    pub(super) fn stream_opened(&mut self, ticket: Ticket, welcome: Welcome, now: Moment) {
        if !self.feed.opened(ticket, welcome.beacon_interval, now) {
            return;
        }
        if self.replica.pin(welcome.key, welcome.cluster) {
            self.tell_event(Event::Trusted(welcome.key, TrustSource::Pinned));
            self.store();
        }
        let foreign = self.replica.cluster().is_some_and(|own| own != welcome.cluster);
        if foreign || !self.replica.trust.allows(&welcome.key, Epoch(u64::MAX)) {
            self.replica.alarm = format!(
                "an orchestrator of cluster {} with key {} is not trusted here",
                welcome.cluster.short(),
                welcome.key
            );
            self.tell_event(Event::Alarm(self.replica.alarm.clone()));
            self.close_stream(ticket, now);
            return;
        }
        if let Some(certificate) = welcome.certificate {
            let own =
                certificate.node == self.config.node && certificate.key == self.config.key.public();
            let believed = self.replica.trust.accepts_certificate(&certificate, welcome.cluster);
            if own && believed && self.replica.certificate.as_ref() != Some(&certificate) {
                self.replica.certificate = Some(certificate);
                self.store();
            }
        }
        self.report_due = true;
        self.hand_in();
    }

    /// Hands over what no orchestrator has acknowledged; the stream cuts it into messages.
    pub(super) fn hand_in(&mut self) {
        if self.feed.open_ticket().is_none() {
            return;
        }
        let overrides = self.replica.to_hand_in();
        if !overrides.is_empty() {
            self.effects.push_back(Effect::HandIn(overrides));
        }
    }

    pub(super) fn streamed(&mut self, ticket: Ticket, message: StreamMessage, now: Moment) {
        if self.feed.open_ticket() != Some(ticket) {
            return;
        }
        match message {
            StreamMessage::Delta(delta) => self.apply(&delta, Path::Stream, None, now),
            StreamMessage::Beacon(beacon) => self.stream_beacon(&beacon, now),
            StreamMessage::Link(link) => {
                if self.replica.follow(&link) {
                    self.tell_event(Event::Trusted(link.new, self.replica.trust.source()));
                    self.store();
                }
            }
            StreamMessage::Settled(settled) => self.settled(settled),
            StreamMessage::LedgerRequest => {
                if let Some(ledger) = self.replica.set.ledger.clone() {
                    self.effects.push_back(Effect::SendLedger(ledger));
                }
            }
        }
    }

    fn stream_beacon(&mut self, beacon: &Beacon, now: Moment) {
        let alive = self.replica.beacon().is_none_or(|held| !held.is_newer_than(beacon));
        match self.replica.offer_beacon(beacon, now) {
            Err(()) => self.refused("bad_beacon", None),
            Ok(fresh) => {
                if alive {
                    self.feed.beacon(now);
                }
                if fresh {
                    self.replica.note_beacon_head(beacon, now);
                }
                let here = self.replica.set.ledger.as_ref().map(Ledger::head);
                match here {
                    Some(head) if *head == beacon.head => self.replica.confirmed = true,
                    Some(head) if head.position() == beacon.head.position() => {
                        self.contradicted();
                    }
                    _ => {}
                }
            }
        }
    }

    fn settled(&mut self, settled: Vec<Settled>) {
        let mut changed = false;
        let mut withdrawn = Vec::new();
        for one in settled {
            let mark = &one.mark;
            if one.outcome == SettledOutcome::Refused
                && self.replica.withdraw(&mark.id, mark.version, &mark.node)
            {
                withdrawn.push(mark.id.clone());
            }
            changed |= self.replica.settled(&mark.id, mark.version, &mark.node);
        }
        if !withdrawn.is_empty() {
            let changed = super::super::port::Changed::Rules(withdrawn);
            self.effects.push_back(Effect::Activate { changed });
            self.store();
        } else if changed {
            self.store();
        }
    }

    /// Moves the ledger, or finds out what is wrong.
    pub(super) fn apply(&mut self, delta: &Delta, path: Path, from: Option<PeerAddr>, now: Moment) {
        let trusted = self.replica.trust.source();
        match self.replica.apply(delta, path) {
            Ok(applied) => {
                if self.replica.trust.source() != trusted {
                    let source = self.replica.trust.source();
                    self.tell_event(Event::Trusted(delta.to.key, source));
                }
                self.applied(applied, delta, path, from, now);
            }
            Err(Refusal::NotNewer) => {}
            Err(refusal) => {
                self.refused(refusal.reason(), from);
                self.after_refusal(&refusal, delta, from, now);
            }
        }
    }

    fn after_refusal(
        &mut self,
        refusal: &Refusal,
        delta: &Delta,
        from: Option<PeerAddr>,
        now: Moment,
    ) {
        let relayer_lies = match refusal {
            Refusal::BadSignature | Refusal::Malformed | Refusal::OtherCluster => true,
            Refusal::WrongFingerprint => delta.is_replace(),
            Refusal::NotNewer | Refusal::NeedsReplace | Refusal::Contradiction(..) => false,
        };
        match (refusal, delta.is_replace()) {
            (Refusal::Contradiction(..), true) => {
                // The replacement was whole and signed: two histories that cannot both be.
                self.replica.resync = false;
                self.fork(&delta.to.head);
            }
            (Refusal::NeedsReplace, _) => self.replica.resync = true,
            (Refusal::Contradiction(..) | Refusal::WrongFingerprint, _) => {
                self.doubt_oneself();
            }
            _ => {}
        }
        if let Some(peer) = from {
            let pause = if relayer_lies { LIAR } else { super::AVOID };
            self.gossip.avoid(peer, now + pause);
        } else if let Some(ticket) = self.feed.open_ticket() {
            self.close_stream(ticket, now);
        }
    }

    pub(super) fn refused(&mut self, reason: &'static str, from: Option<PeerAddr>) {
        self.tell_event(Event::Refused { reason, from });
    }
}

/// How long a peer that relayed something that does not hold is not asked again.
const LIAR: std::time::Duration = std::time::Duration::from_secs(60);
