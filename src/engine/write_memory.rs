//! What was answered to whom lately: a repeat of a write gets the first answer.
//!
//! Only in memory, as large as the limits; the shell keeps the same lines on disk. Invariant: the
//! oldest are forgotten first, here and there.

use imbl::{OrdMap, Vector};

use super::commits::{Answer, Intent};
use crate::model::ids::WriteId;
use crate::model::limits;

/// Answers by write id, the oldest forgotten first.
#[derive(Clone, Debug, Default)]
pub struct WriteMemory {
    answers: OrdMap<WriteId, Remembered>,
    // Invariant: exactly the keys of `answers`, oldest first.
    order: Vector<WriteId>,
    // Invariant: the results of all answers.
    results: usize,
}

/// An answer, and to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The first answer.
    pub answer: Answer,
    /// What was asked for; none where an earlier release did not keep it.
    pub print: Option<WritePrint>,
}

/// What a write changes, as a hash: which rules, and what they shall say.
///
/// Preconditions and named versions are not in it. A node that repeats a write on somebody's
/// behalf works them out anew, and may by then know the outcome of the first try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WritePrint(pub [u8; 32]);

impl WritePrint {
    /// Of these changes, in this order.
    pub fn of(intents: &[Intent]) -> WritePrint {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for intent in intents {
            part(intent.id.as_str().as_bytes());
            // A body that is gone is not the same as an empty one.
            part(&[u8::from(intent.body.is_retired())]);
            part(intent.body.data().map_or(&[], |data| data));
        }
        WritePrint(*hasher.finalize().as_bytes())
    }
}

impl WriteMemory {
    pub(super) fn recall(&self, id: &WriteId) -> Option<&Remembered> {
        self.answers.get(id)
    }

    /// Gives how many of the oldest were forgotten for it.
    pub(super) fn insert(&mut self, id: WriteId, remembered: Remembered) -> usize {
        let results = remembered.answer.results.len();
        if let Some(old) = self.answers.insert(id.clone(), remembered) {
            self.results += results;
            self.results -= old.answer.results.len();
            return 0;
        }
        self.results += results;
        self.order.push_back(id);
        let mut forgotten = 0;
        while self.order.len() > limits::WRITE_IDS
            || (self.results > limits::WRITE_RESULTS && self.order.len() > 1)
        {
            let Some(oldest) = self.order.pop_front() else { break };
            let gone = self.answers.remove(&oldest);
            self.results -= gone.map_or(0, |gone| gone.answer.results.len());
            forgotten += 1;
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::commits::{Decision, IntentResult, Outcome};
    use crate::model::ids::RuleId;

    fn named(number: usize) -> WriteId {
        WriteId::parse(&format!("w{number}")).unwrap()
    }

    fn remembered(results: usize) -> Remembered {
        let id = RuleId::parse("a").unwrap();
        let result = IntentResult { id, version: 1, previous: 0, outcome: Outcome::Written };
        let answer = Answer { results: vec![result; results], ..Decision::default().answer };
        Remembered { answer, print: None }
    }

    #[test]
    fn the_oldest_write_ids_are_forgotten_first() {
        let mut memory = WriteMemory::default();
        for number in 0..limits::WRITE_IDS + 5 {
            let forgotten = memory.insert(named(number), remembered(0));
            assert_eq!(forgotten, usize::from(number >= limits::WRITE_IDS));
        }
        assert!(memory.recall(&named(4)).is_none());
        assert!(memory.recall(&named(5)).is_some());
    }

    #[test]
    fn large_answers_do_not_fill_the_memory() {
        let mut memory = WriteMemory::default();
        let large = remembered(limits::WRITE_RESULTS / 2);
        let forgotten: Vec<usize> =
            (0..4).map(|number| memory.insert(named(number), large.clone())).collect();
        assert_eq!(forgotten, [0, 0, 1, 1]);
        assert_eq!(memory.results, limits::WRITE_RESULTS);
    }
}
