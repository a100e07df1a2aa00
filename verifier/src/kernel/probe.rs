//! What a packet's connection is, asked of the kernel by rules of ours.
//!
//! Where rules look at connections, every built-in chain begins with rules that test one thing each and do
//! nothing: the five states, the two translations, the bits of the connection mark. Each that matches leaves a
//! line, and together they say all that a rule can test. Where no rule looks at connections there are none,
//! since the first such rule switches connection tracking on.

use hipac_classifier::{CtState, Packet};
use hipac_rules::{Effect, Field, Ruleset, TableKind, Target};

use crate::Oracle;
use crate::draw::{all_rules, clauses};
use crate::oracle;

/// One thing that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    State(CtState),
    SourceTranslated,
    DestinationTranslated,
    MarkBit(u32),
}

impl Probe {
    /// The rule that asks.
    pub(super) fn rule(self) -> String {
        let state = match self {
            Probe::State(CtState::Invalid) => "INVALID",
            Probe::State(CtState::New) => "NEW",
            Probe::State(CtState::Related) => "RELATED",
            Probe::State(CtState::Established) => "ESTABLISHED",
            Probe::State(CtState::Untracked) => "UNTRACKED",
            Probe::SourceTranslated => "SNAT",
            Probe::DestinationTranslated => "DNAT",
            Probe::MarkBit(bit) => {
                return format!("-m connmark --mark {:#x}/{:#x}", 1_u32 << bit, 1_u32 << bit);
            }
        };
        format!("-m conntrack --ctstate {state}")
    }

    /// The kernel has said yes.
    pub(super) fn apply(self, packet: &mut Packet) {
        match self {
            Probe::State(state) => packet.ct_state = state,
            Probe::SourceTranslated => packet.ct_snat = true,
            Probe::DestinationTranslated => packet.ct_dnat = true,
            Probe::MarkBit(bit) => packet.connmark |= 1 << bit,
        }
    }
}

/// What rules look at, of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Looks {
    /// At them at all, or translate addresses: connection tracking is on.
    pub(super) at_connections: bool,
    /// At their marks.
    pub(super) at_marks: bool,
}

impl Looks {
    pub(super) fn of(oracle: &Oracle<'_>) -> Looks {
        let mut looks = Looks { at_connections: uses_connections(oracle.ruleset()), at_marks: false };
        for rule in all_rules(oracle.ruleset()) {
            for test in clauses(oracle, rule).iter().flatten() {
                looks.at_connections |= test.field == Field::CtState;
                looks.at_marks |= test.field == Field::ConnMark;
            }
            if let Some(oracle::Target::Continue(effect)) = oracle.target(rule) {
                looks.at_marks |= matches!(effect, Effect::RestoreMark { .. });
            }
        }
        looks.at_connections |= looks.at_marks;
        looks
    }

    /// What is asked at each chain.
    pub(super) fn probes(self) -> Vec<Probe> {
        let mut probes = Vec::new();
        if self.at_connections {
            probes.extend(CtState::ALL.map(Probe::State));
            probes.extend([Probe::SourceTranslated, Probe::DestinationTranslated]);
        }
        if self.at_marks {
            probes.extend((0..32).map(Probe::MarkBit));
        }
        probes
    }
}

/// Whether some rule switches connection tracking on, though it tests no state.
fn uses_connections(ruleset: &Ruleset) -> bool {
    const MATCHES: &[&str] =
        &["connbytes", "connlabel", "connlimit", "connmark", "conntrack", "cluster", "helper", "state"];
    const TARGETS: &[&str] = &["CONNMARK", "CONNSECMARK", "CT", "SYNPROXY"];
    let rules = ruleset.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules);
    ruleset.table(TableKind::Nat).is_some()
        || rules.into_iter().any(|rule| {
            rule.matches.iter().any(|m| MATCHES.contains(&m.name()))
                || matches!(&rule.target, Target::Extension(t) if TARGETS.contains(&t.name()))
        })
}
