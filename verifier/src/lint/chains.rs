//! Chains that packets get into, and those from which none comes back.

use std::collections::{BTreeMap, BTreeSet};

use hipac_rules::TableKind;

use super::{Finding, Kind, Status};
use crate::oracle::Target;
use crate::space::rules_of;
use crate::{Oracle, RuleId};

/// The chains into which some packet gets: built-in ones, and where a rule leads that some packet matches.
pub(super) fn entered(
    oracle: &Oracle<'_>,
    table: TableKind,
    statuses: &BTreeMap<RuleId, Status>,
) -> BTreeSet<usize> {
    let leads = rules_of(oracle, table).filter_map(|rule| match oracle.target(rule)? {
        // One that could not be decided may be entered.
        Target::Jump(chain) | Target::Goto(chain) => {
            statuses.get(&rule).is_some_and(|s| s.is_alive || s.is_undecided).then_some(chain)
        }
        _ => None,
    });
    leads.collect()
}

/// Jumps that are matched, to chains that decide for every packet.
pub(super) fn without_return(
    oracle: &Oracle<'_>,
    table: TableKind,
    statuses: &BTreeMap<RuleId, Status>,
) -> Vec<Finding> {
    let decides = that_decide(oracle, table);
    let jumps = rules_of(oracle, table).filter(|rule| {
        statuses.get(rule).is_some_and(|s| s.is_alive)
            && matches!(oracle.target(*rule), Some(Target::Jump(chain)) if decides[chain])
    });
    jumps
        .map(|rule| Finding {
            kind: Kind::NoReturn,
            rule: Some(rule),
            chain: (table, rule.chain()),
            by: Vec::new(),
        })
        .collect()
}

/// Chains that end in a rule without tests that decides, and that no packet leaves before: no RETURN, no goto
/// elsewhere. Those that lead to such chains count too.
fn that_decide(oracle: &Oracle<'_>, table: TableKind) -> Vec<bool> {
    let chains = oracle.ruleset().table(table).map_or(&[][..], |t| &t.chains);
    let mut decides = vec![false; chains.len()];
    // Chains do not loop, so as many rounds as there are chains would do; most need two.
    loop {
        let mut changed = false;
        for (index, chain) in chains.iter().enumerate().filter(|(i, _)| chains[*i].hook.is_none()) {
            if decides[index] {
                continue;
            }
            let mut found = false;
            for (number, rule) in chain.rules.iter().enumerate() {
                let Some(target) = RuleId::new(table, index, number).and_then(|id| oracle.target(id)) else {
                    break;
                };
                let is_free = rule.matches.is_empty() && rule.ip == hipac_rules::IpPart::default();
                match target {
                    Target::Verdict(_) if is_free => found = true,
                    Target::Jump(to) | Target::Goto(to) if is_free && decides[to] => found = true,
                    Target::Return => break,
                    Target::Goto(to) if !decides[to] => break,
                    _ => {}
                }
                if found {
                    break;
                }
            }
            if found {
                decides[index] = true;
                changed = true;
            }
        }
        if !changed {
            return decides;
        }
    }
}
