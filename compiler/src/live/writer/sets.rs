//! IP sets of a generation: one block of memory, exchanged like a subtree when they change.

use std::sync::Arc;

use hipac_classifier::forest::Ref;
use hipac_classifier::forest::root::Cell;
use hipac_classifier::live::SETS_HEAD_BYTES;
use hipac_rules::ipset::Membership;

use super::{Refusal, Writer};
use crate::live::ground::Slot;
use crate::live::space::Align;

impl Writer {
    /// What sets hold is other than before; which uses of them there are is not. `now` says what a use
    /// of a set has become.
    pub(in crate::live) fn change_sets(
        &mut self,
        now: &dyn Fn(&Arc<Membership>) -> Arc<Membership>,
    ) -> Result<(), Refusal> {
        let before = self.sets.clone();
        self.sets = before.changed(now);
        let written = self.write_sets();
        if written.is_err() {
            self.sets = before;
        }
        written
    }

    /// Writes the sets, and gives back where they were.
    pub(super) fn write_sets(&mut self) -> Result<(), Refusal> {
        let section = self.sets.encode(self.family, |_| 0)?;
        let old = self.ground.get(Slot::Sets).reference;
        if section.is_empty() && old.is_empty() {
            return Ok(());
        }
        let mut bytes = vec![0; SETS_HEAD_BYTES];
        bytes[..4].copy_from_slice(&(section.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&section);
        let block = self.ground.write(&bytes, Align::Line)?;
        let new = Cell { reference: Ref::node(block.offset()), gate: 0 };
        if let Err(full) = self.ground.set(Slot::Sets, new) {
            self.ground.drop_block(block);
            return Err(full.into());
        }
        self.ground.drop_block(std::mem::replace(&mut self.sets_block, block));
        Ok(())
    }
}
