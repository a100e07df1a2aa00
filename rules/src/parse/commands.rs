//! Commands carried out: chains edited, rules finished and checked against their place.

use std::ops::Range;

use crate::model::{
    AddressTest, Extension, ExtensionRef, Hook, Policy, ProtocolTest, Rule, TableKind, Target,
};
use crate::registry::{ExtensionSpec, Kind};

use super::Parser;
use super::build::{Pending, UnknownTarget};
use super::core_options::Letter;
use super::draft::{Active, Draft, DraftTarget};
use super::line::Command;
use super::reader::Reader;

impl Parser<'_> {
    /// Does what the command says.
    pub(super) fn carry_out(&mut self, command: Command<'_>, draft: Draft, whole: Range<usize>) {
        let Command { letter, ref chain, ref span, ref argument } = command;
        let argument_text = argument.as_ref().map(|(text, _)| *text);
        match (letter, chain) {
            ('N', Some(name)) => {
                let taken =
                    self.current.as_ref().is_some_and(|t| t.chain(name).is_some_and(|c| c.hook.is_some()));
                if taken {
                    self.error(span.clone(), format!("{name} is a built-in chain"), None);
                } else {
                    self.new_chain(name, span.clone());
                }
            }
            ('X', Some(name)) => self.delete_chain(name, span.clone()),
            ('X', None) => self.delete_all_chains(span.clone()),
            ('E', Some(old)) => match argument_text {
                Some(new) => self.rename_chain(old, new, span.clone()),
                None => self.error(span.clone(), "-E needs the old and the new name", None),
            },
            ('P', Some(name)) => match argument_text {
                Some("ACCEPT") => self.set_policy(name, Policy::Accept, span.clone()),
                Some("DROP") => self.set_policy(name, Policy::Drop, span.clone()),
                _ => self.error(span.clone(), "-P needs a policy", Some("one of ACCEPT, DROP".into())),
            },
            ('F' | 'Z', None) => {
                let count = self.current.as_ref().map_or(0, |t| t.chains.len());
                for index in 0..u32::try_from(count).unwrap_or(u32::MAX) {
                    if letter == 'F' { self.flush(index) } else { self.zero(index, None) }
                }
            }
            ('F' | 'Z', Some(name)) => {
                if let Some(index) = self.chain_of_command(name, span) {
                    let at =
                        argument_text.and_then(|t| t.parse::<usize>().ok()).and_then(|n| n.checked_sub(1));
                    if letter == 'F' { self.flush(index) } else { self.zero(index, at) }
                }
            }
            ('L' | 'S', _) => self.warn(span.clone(), "the command changes nothing and is left out", None),
            (_, Some(name)) => {
                self.edit(&command, name, draft, whole);
            }
            _ => self.error(span.clone(), "the command needs a chain", None),
        }
    }

    /// `-A`, `-I`, `-D`, `-R`.
    fn edit(&mut self, command: &Command<'_>, chain_name: &str, mut draft: Draft, span: Range<usize>) {
        let Some(chain) = self.chain_of_command(chain_name, &command.span) else { return };
        let number = match &command.argument {
            None => None,
            Some((text, span)) => match text.parse::<usize>().ok().and_then(|n| n.checked_sub(1)) {
                Some(number) => Some(number),
                None => {
                    let message = format!("`{text}` is no number of a rule, which count from 1");
                    self.error(span.clone(), message, None);
                    return;
                }
            },
        };
        let length = self.current.as_ref().map_or(0, |t| t.chains[chain as usize].rules.len());
        let beyond = match (command.letter, number) {
            ('I', Some(n)) => n > length,
            ('D' | 'R', Some(n)) => n >= length,
            _ => false,
        };
        if beyond {
            let place = command.argument.as_ref().map_or(span.clone(), |(_, span)| span.clone());
            self.error(place, format!("chain {chain_name} has {length} rules"), None);
            return;
        }
        if command.letter == 'D'
            && let Some(number) = number
        {
            self.remove_at(chain, number, &span);
            return;
        }
        if let Some(table) = &self.current {
            self.reader.check_place(&draft, table.kind, table.chains[chain as usize].hook);
        }
        let mut rules = Vec::new();
        let unknown = self.reader.finish_rules(&mut draft, span.clone(), &mut rules);
        match command.letter {
            'D' | 'C' => {
                for rule in &rules {
                    if let Some(at) = self.find_equal(chain, rule, &span)
                        && command.letter == 'D'
                    {
                        self.remove_at(chain, at, &span);
                    }
                }
            }
            'R' => match (number, <[Rule; 1]>::try_from(rules)) {
                (Some(number), Ok([rule])) => {
                    self.remove_at(chain, number, &span);
                    self.put_all(chain, Some(number), [rule].into_iter(), unknown, &span);
                }
                (None, _) => self.error(span, "-R needs the number of a rule", None),
                (_, Err(_)) => self.error(span, "-R takes one address each", None),
            },
            'I' => self.put_all(chain, Some(number.unwrap_or(0)), rules.into_iter(), unknown, &span),
            _ => self.put_all(chain, None, rules.into_iter(), unknown, &span),
        }
    }

    fn put_all(
        &mut self,
        chain: u32,
        at: Option<usize>,
        rules: impl Iterator<Item = Rule>,
        unknown: Option<UnknownTarget>,
        span: &Range<usize>,
    ) {
        let place = self.reader.place();
        for rule in rules {
            let Some(rule) = self.put(chain, at, rule, span) else { return };
            if let Some(target) = &unknown
                && let Some(table) = self.current.as_mut()
            {
                table.pending.push(Pending { chain, rule, target: target.clone(), place });
            }
        }
    }
}

impl Reader<'_> {
    /// Adds the rules that a line makes to `rules`: one for each pair of its addresses. Their
    /// target may be a name that is, so far, neither a target nor a chain. `span` is all of the
    /// line.
    pub(super) fn finish_rules(
        &mut self,
        draft: &mut Draft,
        span: Range<usize>,
        rules: &mut Vec<Rule>,
    ) -> Option<UnknownTarget> {
        let protocol = draft.ip.protocol;
        let mut matches: Vec<Extension> = Vec::with_capacity(draft.matches.len());
        for active in std::mem::take(&mut draft.matches) {
            let finished = self.finish_active(active, protocol, &matches);
            matches.push(finished);
        }
        let mut unknown = None;
        let target = match draft.target.take() {
            None => Target::None,
            Some(DraftTarget::Chain { name, goto: false }) => Target::Jump(name),
            Some(DraftTarget::Chain { name, goto: true }) => Target::Goto(name),
            Some(DraftTarget::Extension(active)) => {
                Target::Extension(self.finish_active(active, protocol, &matches))
            }
            Some(DraftTarget::Unknown { active, goto }) => {
                if let ExtensionRef::Opaque(name) = &active.spec {
                    unknown = Some(UnknownTarget { name: name.clone(), goto, span: active.span.clone() });
                }
                Target::Extension(self.finish_active(active, protocol, &matches))
            }
        };
        let mut ip = std::mem::take(&mut draft.ip);
        ip.source = draft.sources.first().copied().unwrap_or_default();
        ip.destination = draft.destinations.first().copied().unwrap_or_default();
        let rule = Rule { counters: draft.counters, ip, matches, target, line: self.line };
        if draft.sources.len() <= 1 && draft.destinations.len() <= 1 {
            rules.push(rule);
        } else {
            self.multiply(&rule, &draft.sources, &draft.destinations, span, rules);
        }
        unknown
    }

    fn finish_active(&mut self, active: Active, protocol: ProtocolTest, matches: &[Extension]) -> Extension {
        let family = self.family;
        active.finish(protocol, matches, family, &mut |span, message, help| self.error(span, message, help))
    }

    /// Every source with every destination.
    fn multiply(
        &mut self,
        rule: &Rule,
        sources: &[AddressTest],
        destinations: &[AddressTest],
        span: Range<usize>,
        rules: &mut Vec<Rule>,
    ) {
        let any = [AddressTest::default()];
        let sources = if sources.is_empty() { &any[..] } else { sources };
        let destinations = if destinations.is_empty() { &any[..] } else { destinations };
        let count = sources.len().saturating_mul(destinations.len());
        let max = self.options.rules_of_line_max;
        if count > max {
            let message = format!("the line stands for {count} rules, which is above {max}");
            self.error(span, message, Some("put the addresses into an ipset".into()));
            return;
        }
        rules.reserve(count);
        for &source in sources {
            for &destination in destinations {
                let mut rule = rule.clone();
                (rule.ip.source, rule.ip.destination) = (source, destination);
                rules.push(rule);
            }
        }
    }

    /// Whether interfaces, matches and target may stand in this table and chain.
    fn check_place(&mut self, draft: &Draft, kind: TableKind, hook: Option<Hook>) {
        for letter in ['i', 'o'] {
            if let Some(hook) = hook
                && forbids_interface(hook, letter)
                && let Some(span) = draft.place_of_interface(letter)
            {
                self.error(span, format!("-{letter} cannot stand in {}", hook.name()), None);
            }
        }
        let target = match &draft.target {
            Some(DraftTarget::Extension(active)) => Some(active),
            _ => None,
        };
        for active in draft.matches.iter().chain(target) {
            if let Some(spec) = active.known_spec() {
                self.check_extension_place(spec, active.span.clone(), kind, hook);
            }
        }
    }

    fn check_extension_place(
        &mut self,
        spec: &'static ExtensionSpec,
        span: Range<usize>,
        kind: TableKind,
        hook: Option<Hook>,
    ) {
        if may_stand(spec, kind, hook) {
            return;
        }
        if !in_table(spec, kind) {
            let names: Vec<&str> = spec.tables.iter().map(|t| t.name()).collect();
            let message = format!("{} cannot stand in table {}", spec.name, kind.name());
            self.error(span, message, Some(format!("it is for {}", names.join(", "))));
        } else if let Some(hook) = hook.filter(|hook| !in_hook(spec, *hook)) {
            let names: Vec<&str> = spec.hooks.iter().map(|h| h.name()).collect();
            let message = format!("{} cannot stand in {}", spec.name, hook.name());
            self.error(span, message, Some(format!("it is for {}", names.join(", "))));
        } else {
            let message = "the nat table sees first packets only and cannot DROP";
            self.error(span, message, Some("drop packets in the filter table".into()));
        }
    }
}

/// Whether a match or target may stand in a table, and in the chain of a hook.
pub(super) fn may_stand(spec: &ExtensionSpec, kind: TableKind, hook: Option<Hook>) -> bool {
    let drops_in_nat = kind == TableKind::Nat && spec.kind == Kind::Target && spec.name == "DROP";
    in_table(spec, kind) && hook.is_none_or(|hook| in_hook(spec, hook)) && !drops_in_nat
}

fn in_table(spec: &ExtensionSpec, kind: TableKind) -> bool {
    spec.tables.is_empty() || spec.tables.contains(&kind)
}

fn in_hook(spec: &ExtensionSpec, hook: Hook) -> bool {
    spec.hooks.is_empty() || spec.hooks.contains(&hook)
}

/// Whether `-i` or `-o` cannot stand in the chain of a hook.
pub(super) fn forbids_interface(hook: Hook, letter: Letter) -> bool {
    match letter {
        'i' => matches!(hook, Hook::Output | Hook::Postrouting),
        _ => matches!(hook, Hook::Prerouting | Hook::Input),
    }
}
