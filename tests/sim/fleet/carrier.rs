//! Carries out what the simulated minds ask for.
//!
//! The other half of `world`: effects become happenings, with distance, loss and cuts.

use std::time::Duration;

use rand::RngExt;
use tradewind::engine::Engine;
use tradewind::engine::port::{Changed, Effect, Event as Told, Input, Ticket};
use tradewind::model::manual::Override;

use super::world::{Happening, MS, World, address, index_of};

impl World {
    pub(super) fn drain(&mut self, index: usize) {
        loop {
            let Some(engine) = &mut self.nodes[index].engine else { return };
            let Some(effect) = engine.poll() else { break };
            self.carry_out(index, effect);
        }
        let now = self.now;
        let node = &mut self.nodes[index];
        let deadline = node.engine.as_ref().and_then(Engine::deadline).map(|at| at.max(now + MS));
        if let Some(at) = deadline
            && node.tick_at.is_none_or(|held| held > at)
        {
            node.tick_at = Some(at);
            self.at(at.since(now), Happening::Tick { node: index });
        }
    }

    fn carry_out(&mut self, index: usize, effect: Effect) {
        match effect {
            Effect::OpenStream { ticket, hello, .. } => {
                let life = self.nodes[index].life;
                let delay = self.distance_to_authority(index);
                let hello = Box::new(hello);
                self.at(delay, Happening::Hello { node: index, life, ticket, hello });
            }
            Effect::CloseStream { ticket } => {
                let follower = self.authority.followers.get(&index);
                if follower.is_some_and(|follower| follower.ticket == ticket) {
                    self.authority.followers.remove(&index);
                }
            }
            Effect::SendReport(_) | Effect::SendLedger(_) => {}
            Effect::HandIn(overrides) => {
                let life = self.nodes[index].life;
                let delay = self.distance_to_authority(index);
                self.at(delay, Happening::HandIn { node: index, life, overrides });
            }
            Effect::SendDigest { to, digest } => {
                self.counts.digests += 1;
                let ticket = self.ask(index, Input::DigestFailed { to });
                let input = Box::new(Input::DigestReceived { ticket, digest });
                let to = index_of(to);
                self.send(index, to, Happening::Ask { to, question: ticket, input });
            }
            Effect::ReplyDigest { ticket, reply } => {
                let Some((_, asked, _)) = self.questions.get(&ticket).copied() else { return };
                let rtt = self.now.since(asked) * 2;
                let input = Input::DigestAnswered { to: address(index), reply, rtt };
                self.answer(ticket, index, input);
            }
            Effect::Pull { ticket, from, what } => {
                self.counts.pulls += 1;
                let question = self.ask(index, Input::PullFailed { ticket });
                let to = index_of(from);
                self.send(index, to, Happening::Pulled { to, question, ticket, what });
            }
            Effect::FetchNeighbours { from } => {
                let question = self.ask(index, Input::NeighboursFailed { from });
                let to = index_of(from);
                self.send(index, to, Happening::Neighbours { to, question });
            }
            Effect::Activate { changed } => self.activate(index, &changed),
            Effect::Store { ticket, extra } => self.store(index, ticket, extra),
            Effect::AnswerWrite { ticket, result } => {
                self.answers.insert(ticket, result);
            }
            Effect::Tell(told) => {
                if matches!(told, Told::Refused { .. }) {
                    self.counts.refused += 1;
                }
                self.nodes[index].told.push((self.now, told));
            }
        }
    }

    fn activate(&mut self, index: usize, changed: &Changed) {
        let Some(engine) = &self.nodes[index].engine else { return };
        let set = engine.rule_set().clone();
        self.checks.activated(index, &set, changed);
        let position = set.ledger.as_ref().map(|ledger| ledger.position());
        if self.nodes[index].active.map(|(at, _)| at) != position {
            self.nodes[index].active = position.map(|position| (position, self.now));
        }
        let input = Input::Activated { position, rejected: Vec::new() };
        self.input_later(index, Duration::ZERO, input);
    }

    fn store(&mut self, index: usize, ticket: Option<Ticket>, extra: Vec<Override>) {
        let Some(engine) = &self.nodes[index].engine else { return };
        let mut keep = engine.keep();
        match ticket {
            None => {
                // Most stores survive a crash that comes right after; some do not.
                if self.rng.random_bool(0.8) {
                    self.nodes[index].disk = keep;
                }
            }
            Some(ticket) => {
                for own in extra {
                    let own = std::sync::Arc::new(own);
                    keep.authored.insert((own.id.clone(), own.version), own.clone());
                    keep.overrides.merge(own);
                }
                let life = self.nodes[index].life;
                let keep = Box::new(keep);
                self.at(MS * 2, Happening::Stored { node: index, life, ticket, keep });
            }
        }
    }

    /// Opens a question; if nothing comes back in time, `failure` does.
    fn ask(&mut self, asker: usize, failure: Input) -> Ticket {
        let ticket = self.ticket();
        let life = self.nodes[asker].life;
        self.questions.insert(ticket, (asker, self.now, life));
        self.checks.asked(ticket, failure);
        ticket
    }

    fn send(&mut self, from: usize, to: usize, happening: Happening) {
        if !self.reaches(from, to) {
            return;
        }
        let delay = self.distance(from, to);
        self.at(delay, happening);
    }

    pub(super) fn reaches(&mut self, from: usize, to: usize) -> bool {
        let lost = self.faults.loss > 0.0 && self.rng.random_bool(self.faults.loss);
        let cut = self.faults.cuts.contains(&(from, to));
        self.counts.lost += u64::from(lost || cut);
        !(lost || cut)
    }
}
