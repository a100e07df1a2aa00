//! The rules and the generation that is made of them: a rule is put into both, or taken out of both,
//! as long as the generation can follow.

use std::sync::Arc;

use hipac_classifier::live::RuleId;

use super::labels::{END, FIRST, MOVED_NEAR, Trend, make_room};
use super::model::{ChainId, Model};
use super::writer::{Refusal, Writer};

/// Rules, and the generation that is made of them.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) model: Model,
    pub(super) writer: Writer,
    pub(super) trends: Vec<Trend>,
    /// The generation cannot take what the model has: a new one is to be made.
    pub(super) must_replan: bool,
    /// Neither can it go back to what readers see, see [`Refusal::Torn`].
    pub(super) is_torn: bool,
    /// Rules whose label was changed to make room.
    pub(super) relabelled: u64,
}

impl Side {
    pub(super) fn new(model: Model, writer: Writer) -> Side {
        Side { model, writer, trends: Vec::new(), must_replan: false, is_torn: false, relabelled: 0 }
    }
}

impl Side {
    /// Has the writer follow a change of the model, as long as it can.
    pub(super) fn follow<T: Default>(
        &mut self,
        change: impl FnOnce(&mut Side) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        if self.must_replan {
            return Ok(T::default());
        }
        let outcome = change(self);
        self.is_torn |= matches!(outcome, Err(Refusal::Torn));
        outcome
    }

    /// Puts a rule into a chain, in the model and in the writer.
    pub(super) fn put(&mut self, chain: ChainId, at: usize, id: RuleId) -> Result<(), Refusal> {
        let outcome = self.follow(|side| side.put_into_writer(chain, at, id));
        self.model.put(chain, at, id);
        outcome
    }

    fn put_into_writer(&mut self, chain: ChainId, at: usize, id: RuleId) -> Result<(), Refusal> {
        let rule = Arc::clone(self.model.rule(id));
        let label = self.label_for(chain, at, self.writer.besides(&rule))?;
        let table = self.model.chain(chain).table;
        let target = self.model.target(table, &rule);
        self.writer.insert(id, chain, table, &rule, target, label)
    }

    /// Takes a rule out of a chain, in the model and in the writer.
    pub(super) fn take(&mut self, chain: ChainId, at: usize) -> Result<(), Refusal> {
        let Some(id) = self.model.take(chain, at) else { return Ok(()) };
        self.follow(|side| side.writer.remove(id, chain))
    }

    /// A label for a rule at a position, with so many more free just before it: between its neighbours,
    /// which move when there is no room.
    fn label_for(&mut self, chain: ChainId, at: usize, besides: u32) -> Result<u32, Refusal> {
        loop {
            let rules = &self.model.chain(chain).rules;
            let before =
                at.checked_sub(1).and_then(|i| rules.get(i)).map_or(FIRST, |id| self.writer.label(id));
            let after = rules.get(at).map_or(END, |id| self.writer.first_label(id));
            if self.trends.len() <= chain as usize {
                self.trends.resize(chain as usize + 1, Trend::default());
            }
            if let Some(label) = self.trends[chain as usize].between(before, after, besides) {
                // A label that was given up may still mean something to readers.
                let (behind, gap) = (before + besides, after - before - 1 - besides);
                let near = (0..64u32).flat_map(|i| [label.checked_add(i), label.checked_sub(i)]).flatten();
                let mut near = near.filter(|l| behind < *l && *l < after);
                if let Some(label) =
                    near.find(|&l| (l - besides..=l).all(|l| self.writer.is_unused(chain, l)))
                {
                    return Ok(label);
                }
                if gap > 128 {
                    return Err(Refusal::Replan);
                }
            }
            let len = self.model.chain(chain).rules.len();
            let labels = |i: usize| {
                let id = self.model.chain(chain).rules.get(i);
                id.map_or(END, |id| self.writer.label(id))
            };
            let firsts = |i: usize| {
                let id = self.model.chain(chain).rules.get(i);
                id.map_or(END, |id| self.writer.first_label(id))
            };
            let moves = make_room(at, len, labels, firsts);
            if moves.is_empty() {
                return Err(Refusal::Replan);
            }
            for (position, label) in moves {
                let Some(id) = self.model.chain(chain).rules.get(position) else { continue };
                // Rules that were moved are farther apart than this.
                let besides = self.writer.label(id) - self.writer.first_label(id);
                let is_unused = |l: &u32| (l - besides..=*l).all(|l| self.writer.is_unused(chain, l));
                let Some(label) = (label..label + MOVED_NEAR).find(is_unused) else {
                    return Err(Refusal::Replan);
                };
                self.writer.relabel(id, chain, label)?;
                self.relabelled += 1;
            }
        }
    }
}
