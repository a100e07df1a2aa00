//! What a line asks for: its rules finished and checked against their place; and commands carried
//! out on a table being read.

use std::ops::Range;

use crate::edit::{Change, Place};
use crate::model::{
    AddressTest, Extension, ExtensionRef, Hook, Name, Policy, ProtocolTest, Rule, TableKind, Target,
};
use crate::registry::{ExtensionSpec, Kind};

use super::Tables;
use super::build::{Pending, UnknownTarget};
use super::built_in;
use super::core_options::Letter;
use super::draft::{Active, Draft, DraftTarget};
use super::line::Command;
use super::reader::Reader;
use super::scan::Parser;

const NO_DROP_IN_NAT: &str = "the nat table sees first packets only and cannot DROP";
const DROP_IN_FILTER: &str = "drop packets in the filter table";

/// What a line asks for, its rules finished, and where it stands.
pub(crate) struct Order {
    pub(crate) change: Change,
    pub(crate) place: Place,
    /// The target of its rules is a name that is, so far, neither a target nor a chain.
    pub(crate) unknown: Option<UnknownTarget>,
}

impl Parser<'_, Tables> {
    /// Does what a line says to the table being read.
    pub(super) fn carry_out(&mut self, Order { change, place, unknown }: Order) {
        let span = place.chain;
        match change {
            Change::NewChain { chain } => {
                let table = self.to.current.as_ref();
                if table.is_some_and(|t| t.chain(&chain).is_some_and(|c| c.hook.is_some())) {
                    self.error(span, format!("{chain} is a built-in chain"), None);
                } else {
                    self.new_chain(&chain, span);
                }
            }
            Change::DeleteChain { chain: Some(chain) } => self.delete_chain(&chain, span),
            Change::DeleteChain { chain: None } => self.delete_all_chains(span),
            Change::RenameChain { chain, to } => self.rename_chain(&chain, &to, span),
            Change::SetPolicy { chain, policy, counters } => {
                self.set_policy(&chain, policy, counters, span);
            }
            Change::Declare { chain, policy, counters } => self.declare_chain(&chain, span, policy, counters),
            Change::Flush { chain } => {
                for index in self.chains_of_command(chain.as_deref(), &span) {
                    self.flush(index);
                }
            }
            Change::Zero { chain, at } => {
                for index in self.chains_of_command(chain.as_deref(), &span) {
                    if self.has_position(index, at, &place.argument) {
                        self.zero(index, at);
                    }
                }
            }
            Change::Append { chain, rules } => {
                let Some(index) = self.chain_of_command(&chain, &span) else { return };
                self.put_all(index, None, rules, unknown, &place.whole);
            }
            Change::Insert { chain, at, rules } => {
                let Some(index) = self.chain_of_command(&chain, &span) else { return };
                if at == 0 || self.has_position(index, Some(at - 1), &place.argument) {
                    self.put_all(index, Some(at), rules, unknown, &place.whole);
                }
            }
            Change::Replace { chain, at, rule } => {
                let Some(index) = self.chain_of_command(&chain, &span) else { return };
                if self.has_position(index, Some(at), &place.argument) {
                    self.remove_at(index, at, &place.whole);
                    self.put_all(index, Some(at), vec![*rule], unknown, &place.whole);
                }
            }
            Change::Delete { chain, at } => {
                let Some(index) = self.chain_of_command(&chain, &span) else { return };
                if self.has_position(index, Some(at), &place.argument) {
                    self.remove_at(index, at, &place.whole);
                }
            }
            Change::DeleteRules { chain, rules } => {
                let Some(index) = self.chain_of_command(&chain, &span) else { return };
                for rule in &rules {
                    if let Some(at) = self.find_equal(index, rule, &place.whole) {
                        self.remove_at(index, at, &place.whole);
                    }
                }
            }
            Change::Check { chain, rules } => {
                let Some(index) = self.chain_of_command(&chain, &span) else { return };
                for rule in &rules {
                    self.find_equal(index, rule, &place.whole);
                }
            }
        }
    }

    /// The chain that a command names, or all.
    fn chains_of_command(&mut self, name: Option<&str>, span: &Range<usize>) -> Range<u32> {
        match name {
            Some(name) => self.chain_of_command(name, span).map_or(0..0, |index| index..index + 1),
            None => {
                let count = self.to.current.as_ref().map_or(0, |t| t.chains.len());
                0..u32::try_from(count).unwrap_or(u32::MAX)
            }
        }
    }

    /// Whether a chain has a rule at a position, if one is asked for; it is a fault when not.
    fn has_position(&mut self, chain: u32, at: Option<usize>, argument: &Range<usize>) -> bool {
        let Some(table) = &self.to.current else { return false };
        let draft = &table.chains[chain as usize];
        let length = draft.rules.len();
        let has = at.is_none_or(|at| at < length);
        if !has {
            let message = format!("chain {} has {}", draft.name, counted_rules(length));
            self.error(argument.clone(), message, None);
        }
        has
    }

    fn put_all(
        &mut self,
        chain: u32,
        at: Option<usize>,
        rules: Vec<Rule>,
        unknown: Option<UnknownTarget>,
        span: &Range<usize>,
    ) {
        let place = self.reader.place();
        for rule in rules {
            let Some(rule) = self.put(chain, at, rule, span) else { return };
            if let Some(target) = &unknown
                && let Some(table) = self.to.current.as_mut()
            {
                table.pending.push(Pending { chain, rule, target: target.clone(), place });
            }
        }
    }
}

/// `1 rule`, `2 rules`
pub(crate) fn counted_rules(count: usize) -> String {
    if count == 1 { "1 rule".to_owned() } else { format!("{count} rules") }
}

impl Reader<'_> {
    /// What a line asks for in a table: everything that can be said of it without its chains.
    /// `None`: nothing, or it has a fault. `whole` is all of the line.
    pub(crate) fn order(
        &mut self,
        kind: TableKind,
        command: Command<'_>,
        mut draft: Draft,
        whole: Range<usize>,
    ) -> Option<Order> {
        let Command { letter, chain, span, argument } = command;
        let place = Place {
            line: self.line,
            whole: whole.clone(),
            chain: span.clone(),
            argument: argument.as_ref().map_or_else(|| span.clone(), |(_, span)| span.clone()),
            target: draft.place_of_target().unwrap_or_else(|| span.clone()),
        };
        let is_of_rule = matches!(letter, 'A' | 'I' | 'R' | 'C') || letter == 'D' && argument.is_none();
        if !is_of_rule && draft.says_something() {
            self.error(whole, format!("-{letter} here takes no rule"), None);
            return None;
        }
        if draft.counters.is_some() && !matches!(letter, 'A' | 'I' | 'R' | 'P') {
            self.error(whole.clone(), format!("-{letter} takes no counters"), None);
        }
        let number = match (letter, &argument) {
            ('I' | 'D' | 'R' | 'Z', Some((text, span))) => Some(self.position(text, span)?),
            _ => None,
        };
        let chain: Option<Name> = chain.map(|name| self.name(name));
        let change = match (letter, chain) {
            ('L' | 'S', _) => {
                self.warn(span, "the command changes nothing and is left out", None);
                return None;
            }
            ('X', chain) => Change::DeleteChain { chain },
            ('F', chain) => Change::Flush { chain },
            ('Z', chain) => Change::Zero { chain, at: number },
            (_, None) => {
                self.error(span, "the command needs a chain", None);
                return None;
            }
            ('N', Some(chain)) => Change::NewChain { chain },
            ('E', Some(chain)) => match argument {
                Some((to, _)) => Change::RenameChain { chain, to: self.name(to) },
                None => {
                    self.error(span, "-E needs the old and the new name", None);
                    return None;
                }
            },
            ('P', Some(chain)) => {
                let policy = match argument.map(|(text, _)| text) {
                    Some("ACCEPT") => Policy::Accept,
                    Some("DROP") => Policy::Drop,
                    _ => {
                        self.error(span, "-P needs a policy", Some("one of ACCEPT, DROP".into()));
                        return None;
                    }
                };
                if policy == Policy::Drop && kind == TableKind::Nat {
                    self.error(place.argument.clone(), NO_DROP_IN_NAT, Some(DROP_IN_FILTER.into()));
                }
                Change::SetPolicy { chain, policy, counters: draft.counters }
            }
            ('D', Some(chain)) if number.is_some() => Change::Delete { chain, at: number? },
            (_, Some(chain)) => {
                self.check_place(&draft, kind, built_in(kind, &chain));
                let mut rules = Vec::new();
                let unknown = self.finish_rules(&mut draft, whole.clone(), &mut rules);
                let change = match (letter, number) {
                    ('D', _) => Change::DeleteRules { chain, rules },
                    ('C', _) => Change::Check { chain, rules },
                    ('I', number) => Change::Insert { chain, at: number.unwrap_or(0), rules },
                    ('R', Some(at)) => match <[Rule; 1]>::try_from(rules) {
                        Ok([rule]) => Change::Replace { chain, at, rule: Box::new(rule) },
                        Err(_) => {
                            self.error(whole, "-R takes one address each", None);
                            return None;
                        }
                    },
                    ('R', None) => {
                        self.error(whole, "-R needs the number of a rule", None);
                        return None;
                    }
                    _ => Change::Append { chain, rules },
                };
                return Some(Order { change, place, unknown });
            }
        };
        Some(Order { change, place, unknown: None })
    }

    /// A rule's number as a position from 0.
    fn position(&mut self, text: &str, span: &Range<usize>) -> Option<usize> {
        let position = text.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        if position.is_none() {
            let message = format!("`{text}` is no number of a rule, which count from 1");
            self.error(span.clone(), message, None);
        }
        position
    }

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
            Some(DraftTarget::Chain { name, goto: false, .. }) => Target::Jump(name),
            Some(DraftTarget::Chain { name, goto: true, .. }) => Target::Goto(name),
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
        let rule =
            Rule { counters: draft.counters.unwrap_or_default(), ip, matches, target, line: self.line };
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
            self.error(span, NO_DROP_IN_NAT, Some(DROP_IN_FILTER.into()));
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
