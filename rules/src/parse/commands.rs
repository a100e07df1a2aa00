//! Commands carried out: chains edited, rules finished and checked against their place.

use std::ops::Range;

use crate::model::{
    AddressTest, Extension, ExtensionRef, Hook, IpPart, Policy, ProtocolTest, Rule, TableKind, Target,
};
use crate::registry::ExtensionSpec;

use super::Parser;
use super::build::Pending;
use super::draft::{Active, Draft, DraftTarget};
use super::line::{Command, Line, whole};

impl Parser<'_> {
    /// Does what the command says.
    pub(super) fn carry_out(&mut self, command: Command<'_>, line: Line<'_>) {
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
                self.edit(&command, name, line);
            }
            _ => self.error(span.clone(), "the command needs a chain", None),
        }
    }

    /// `-A`, `-I`, `-D`, `-R`.
    fn edit(&mut self, command: &Command<'_>, chain_name: &str, line: Line<'_>) {
        let span = whole(line.words);
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
        let length = self.current.as_ref().map_or(0, |t| t.chains[chain as usize].order.len());
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
        let hook = self.current.as_ref().and_then(|t| t.chains[chain as usize].hook);
        let (rules, pending) = self.finish_rules(line, hook);
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
                    self.put_all(chain, Some(number), vec![rule], pending, &span);
                }
                (None, _) => self.error(span, "-R needs the number of a rule", None),
                (_, Err(_)) => self.error(span, "-R takes one address each", None),
            },
            'I' => self.put_all(chain, Some(number.unwrap_or(0)), rules, pending, &span),
            _ => self.put_all(chain, None, rules, pending, &span),
        }
    }

    fn put_all(
        &mut self,
        chain: u32,
        at: Option<usize>,
        rules: Vec<Rule>,
        pending: Option<Pending>,
        span: &Range<usize>,
    ) {
        for rule in rules {
            let Some(id) = self.put(chain, at, rule, span) else { return };
            if let Some(p) = &pending
                && let Some(table) = self.current.as_mut()
            {
                table.pending.push(Pending { rule: id, name: p.name.clone(), span: p.span.clone(), ..*p });
            }
        }
    }

    /// The rules that a line makes: one for each pair of its addresses.
    fn finish_rules(&mut self, line: Line<'_>, hook: Option<Hook>) -> (Vec<Rule>, Option<Pending>) {
        let span = whole(line.words);
        let mut draft = line.draft;
        self.check_place(&draft, hook);
        let protocol = draft.ip.protocol;
        let mut matches: Vec<Extension> = Vec::with_capacity(draft.matches.len());
        for active in std::mem::take(&mut draft.matches) {
            let finished = self.finish_active(active, protocol, &matches);
            matches.push(finished);
        }
        let mut pending = None;
        let target = match draft.target.take() {
            None => Target::None,
            Some(DraftTarget::Chain { name, goto: false }) => Target::Jump(name),
            Some(DraftTarget::Chain { name, goto: true }) => Target::Goto(name),
            Some(DraftTarget::Extension(active)) => {
                Target::Extension(self.finish_active(active, protocol, &matches))
            }
            Some(DraftTarget::Unknown { active, goto }) => {
                if let ExtensionRef::Opaque(name) = &active.spec {
                    let (name, span, place) = (name.clone(), active.span.clone(), self.place());
                    pending = Some(Pending { rule: 0, name, goto, span, place });
                }
                Target::Extension(self.finish_active(active, protocol, &matches))
            }
        };
        let rule = Rule { counters: draft.counters, ip: draft.ip, matches, target, line: self.line };
        (self.multiply(rule, &draft.sources, &draft.destinations, span), pending)
    }

    fn finish_active(&mut self, active: Active, protocol: ProtocolTest, matches: &[Extension]) -> Extension {
        let family = self.family;
        active.finish(protocol, matches, family, &mut |span, message, help| self.error(span, message, help))
    }

    /// Every source with every destination.
    fn multiply(
        &mut self,
        rule: Rule,
        sources: &[AddressTest],
        destinations: &[AddressTest],
        span: Range<usize>,
    ) -> Vec<Rule> {
        let any = [AddressTest::default()];
        let sources = if sources.is_empty() { &any[..] } else { sources };
        let destinations = if destinations.is_empty() { &any[..] } else { destinations };
        let count = sources.len().saturating_mul(destinations.len());
        let max = self.options.rules_of_line_max;
        if count > max {
            let message = format!("the line stands for {count} rules, which is above {max}");
            self.error(span, message, Some("put the addresses into an ipset".into()));
            return Vec::new();
        }
        let with =
            |source: AddressTest, destination: AddressTest| IpPart { source, destination, ..rule.ip.clone() };
        if count == 1 {
            let ip = with(sources[0], destinations[0]);
            return vec![Rule { ip, ..rule }];
        }
        let mut rules = Vec::with_capacity(count);
        for source in sources {
            for destination in destinations {
                rules.push(Rule { ip: with(*source, *destination), ..rule.clone() });
            }
        }
        rules
    }

    /// Whether interfaces, matches and target may stand in this table and chain.
    fn check_place(&mut self, draft: &Draft, hook: Option<Hook>) {
        let Some(kind) = self.current.as_ref().map(|t| t.kind) else { return };
        let place_of =
            |letter| draft.seen.iter().find(|(seen, _)| *seen == letter).map(|(_, span)| span.clone());
        if let Some(hook) = hook {
            let no_in = matches!(hook, Hook::Output | Hook::Postrouting);
            let no_out = matches!(hook, Hook::Prerouting | Hook::Input);
            for (letter, forbidden) in [('i', no_in), ('o', no_out)] {
                if let Some(span) = place_of(letter).filter(|_| forbidden) {
                    self.error(span, format!("-{letter} cannot stand in {}", hook.name()), None);
                }
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
        if let Some(active) = target
            && kind == TableKind::Nat
            && active.known_spec().is_some_and(|s| s.name == "DROP")
        {
            let help = "drop packets in the filter table";
            self.error(
                active.span.clone(),
                "the nat table sees first packets only and cannot DROP",
                Some(help.into()),
            );
        }
    }

    fn check_extension_place(
        &mut self,
        spec: &'static ExtensionSpec,
        span: Range<usize>,
        kind: TableKind,
        hook: Option<Hook>,
    ) {
        if !spec.tables.is_empty() && !spec.tables.contains(&kind) {
            let names: Vec<&str> = spec.tables.iter().map(|t| t.name()).collect();
            let message = format!("{} cannot stand in table {}", spec.name, kind.name());
            self.error(span, message, Some(format!("it is for {}", names.join(", "))));
        } else if let Some(hook) = hook
            && !spec.hooks.is_empty()
            && !spec.hooks.contains(&hook)
        {
            let names: Vec<&str> = spec.hooks.iter().map(|h| h.name()).collect();
            let message = format!("{} cannot stand in {}", spec.name, hook.name());
            self.error(span, message, Some(format!("it is for {}", names.join(", "))));
        }
    }
}
