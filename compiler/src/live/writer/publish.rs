//! Publishing a generation's changes, and what waits until readers of the versions before are gone.

use crossbeam_epoch::Guard;
use hipac_classifier::live::RuleId;

use super::Writer;
use crate::live::ground::Later;

/// Transactions after which the epoch is told what they have given up, at most.
const ERA_COMMITS: u64 = 64;

/// Bytes given up after which it is told.
const ERA_BYTES: usize = 256 << 10;

/// A number that may be given away again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::live) enum Freed {
    Rule(RuleId),
    Entry(u32),
}

impl Writer {
    /// Publishes what was changed since the last time, all at once.
    pub(in crate::live) fn commit(&mut self, guard: &Guard) {
        let since = self.ground.next_version();
        let version = self.ground.generation.version();
        let sets_policies = !self.defaults.is_empty();
        for (entry, verdict) in std::mem::take(&mut self.defaults) {
            let place = &self.ground.generation.entries()[entry as usize];
            let old = place.default_verdict(version);
            place.set_default(old, verdict, since);
            self.ground.space.retire_other(Later::SettlePolicy { entry, since });
        }
        self.ground.commit();
        self.commits += 1;
        // Telling the epoch costs more than a change: many are told of at once.
        let space = &mut self.ground.space;
        if sets_policies || self.commits.is_multiple_of(ERA_COMMITS) || space.retired_in_era() > ERA_BYTES {
            space.end_era(guard);
            guard.flush();
        }
        if sets_policies {
            self.policy_era = self.ground.space.ended();
        }
    }

    /// Undoes what a failed transaction has put down for its commit, once its changes are undone.
    pub(in crate::live) fn forget_defaults(&mut self) {
        self.defaults.clear();
    }

    /// Does what readers no longer stand in the way of. Gives out the numbers of rules and entries
    /// that are free now.
    pub(in crate::live) fn tidy(&mut self, freed: &mut Vec<Freed>) {
        while let Some(later) = self.ground.space.next_safe() {
            match later {
                Later::Settle { slot, switch, new } => self.ground.settle(slot, switch, new),
                Later::SettlePolicy { entry, since } => {
                    self.ground.generation.entries()[entry as usize].settle_default(since);
                }
                Later::Forget(key) => {
                    if self.table.remove(self.ground.generation.memory(), key) {
                        self.keys -= 1;
                    }
                }
                Later::FreeRule(id) => freed.push(Freed::Rule(id)),
                Later::FreeEntry(entry) => freed.push(Freed::Entry(entry)),
                Later::FreeProgram(at) => self.free_program(at),
            }
        }
    }

    /// Another version of a policy must not be made before readers of the one before have gone.
    pub(in crate::live) fn must_wait_for_policies(&self) -> bool {
        !self.defaults.is_empty() && !self.ground.space.is_over(self.policy_era)
    }
}
