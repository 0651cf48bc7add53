//! Deltas cut into frames and put together again.
//!
//! Cuts by bytes, never by meaning: the parts of one delta apply as one. Does not judge what a
//! delta says. Invariant: an assembly holds at most `limits::ASSEMBLY_BYTES`, and whatever does
//! not follow the part before it resets the assembly.

use std::sync::Arc;

use super::error::WireError;
use super::{field, proto};
use crate::model::delta::{Basis, Delta};
use crate::model::head::{Branch, Position};
use crate::model::limits;
use crate::model::record::Record;

/// Cuts a delta into parts whose encoding stays within `limits::FRAME_BYTES`, apart from a single
/// record that is larger by itself (up to `limits::FRAME_SLACK` more).
pub(crate) fn delta_to_parts(delta: &Delta) -> impl Iterator<Item = proto::DeltaPart> + '_ {
    Cutter { delta, branches: 0, records: 0, index: 0, done: false }
}

/// Parts of one delta, so far.
#[derive(Debug, Default)]
pub(crate) struct DeltaAssembly {
    unfinished: Option<Unfinished>,
}

#[derive(Debug)]
struct Unfinished {
    delta: Delta,
    next_index: u32,
    bytes: usize,
}

struct Cutter<'a> {
    delta: &'a Delta,
    branches: usize,
    records: usize,
    index: u32,
    done: bool,
}

impl Iterator for Cutter<'_> {
    type Item = proto::DeltaPart;

    fn next(&mut self) -> Option<proto::DeltaPart> {
        if self.done {
            return None;
        }
        let mut left = limits::FRAME_BYTES - PART_BYTES;
        let branches =
            take_within(&self.delta.branches[self.branches..], &mut left, |_| BRANCH_BYTES);
        self.branches += branches.len();
        let records = match self.branches == self.delta.branches.len() {
            true => take_within(&self.delta.records[self.records..], &mut left, |r| r.size()),
            false => &[],
        };
        self.records += records.len();
        self.done =
            self.branches == self.delta.branches.len() && self.records == self.delta.records.len();
        let part = proto::DeltaPart {
            after: after(&self.delta.basis),
            to: Some((&self.delta.to).into()),
            branches: branches.iter().map(proto::Branch::from).collect(),
            records: records.iter().map(|record| proto::Record::from(&**record)).collect(),
            index: self.index,
            last: self.done,
        };
        self.index += 1;
        Some(part)
    }
}

/// The longest head of `items` that fits, but at least one: a part must bring something.
fn take_within<'a, T>(items: &'a [T], left: &mut usize, size: impl Fn(&T) -> usize) -> &'a [T] {
    let untouched = *left == limits::FRAME_BYTES - PART_BYTES;
    let mut taken = 0;
    for item in items {
        let bytes = size(item);
        if bytes > *left && !(untouched && taken == 0) {
            break;
        }
        *left = left.saturating_sub(bytes);
        taken += 1;
    }
    &items[..taken]
}

impl DeltaAssembly {
    /// Takes the next part; gives the delta with its last one.
    ///
    /// # Errors
    /// Whatever is wrong, nothing of the parts so far is kept.
    pub(crate) fn push(&mut self, part: &proto::DeltaPart) -> Result<Option<Delta>, WireError> {
        let held = self.unfinished.take();
        let (basis, to) = (basis(part)?, field::required(part.to.as_ref(), "to")?.try_into()?);
        let mut unfinished = match held {
            None if part.index == 0 => {
                let delta = Delta { basis, to, branches: Vec::new(), records: Vec::new() };
                Unfinished { delta, next_index: 0, bytes: 0 }
            }
            Some(held)
                if part.index == held.next_index
                    && (held.delta.basis, held.delta.to) == (basis, to) =>
            {
                held
            }
            _ => return Err(WireError::OutOfOrder),
        };
        unfinished.take(part)?;
        if part.last {
            return Ok(Some(unfinished.delta));
        }
        self.unfinished = Some(unfinished);
        Ok(None)
    }

    /// Whether no delta is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.unfinished.is_none()
    }
}

impl Unfinished {
    fn take(&mut self, part: &proto::DeltaPart) -> Result<(), WireError> {
        // Branch points come before any record.
        if !part.branches.is_empty() && !self.delta.records.is_empty() {
            return Err(WireError::OutOfOrder);
        }
        let branches = self.delta.branches.len() + part.branches.len();
        field::at_most(branches, limits::BRANCHES, "branches")?;
        let records = self.delta.records.len() + part.records.len();
        field::at_most(records, limits::RULES + limits::RETIRED, "records")?;
        // Counted per part too, so that empty parts cannot go on for ever.
        self.bytes += PART_BYTES + part.branches.len() * BRANCH_BYTES;
        for branch in &part.branches {
            self.delta.branches.push(Branch::try_from(branch)?);
        }
        for record in &part.records {
            let record = Record::try_from(record)?;
            self.bytes += record.size();
            field::at_most(self.bytes, limits::ASSEMBLY_BYTES, "delta")?;
            self.delta.records.push(Arc::new(record));
        }
        field::at_most(self.bytes, limits::ASSEMBLY_BYTES, "delta")?;
        self.next_index = part.index.checked_add(1).ok_or(WireError::OutOfOrder)?;
        Ok(())
    }
}

fn after(basis: &Basis) -> Option<proto::Position> {
    match basis {
        Basis::After(position) => Some(position.into()),
        Basis::Nothing => None,
    }
}

fn basis(part: &proto::DeltaPart) -> Result<Basis, WireError> {
    match &part.after {
        Some(position) => Position::try_from(position).map(Basis::After),
        None => Ok(Basis::Nothing),
    }
}

/// Position, signed head, index and end mark, with room: the encoding takes 250 at most.
const PART_BYTES: usize = 512;
/// A branch point: three hashes or keys, a signature and three numbers.
const BRANCH_BYTES: usize = 224;

#[cfg(test)]
mod tests;
