//! Putting sets into the rules that name them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{Column, ColumnKind, IpSet, MatchSet, Membership, Sets};
use crate::fault::{Fault, Severity};
use crate::meaning::Field;
use crate::model::{ExtensionRef, Family, Name, Rule, Ruleset, Target};
use crate::value::Value;

/// What [`Sets::bind`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bound {
    /// Matches that now mean the set they name.
    pub matches: usize,
    /// Sets that matches name and that stay residual, by name.
    pub unbound: Vec<Unbound>,
}

/// A set whose matches stay residual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unbound {
    /// Its name.
    pub name: Name,
    /// The first line that names it.
    pub line: u32,
    /// Matches that do.
    pub matches: usize,
    /// Why.
    pub why: &'static str,
}

impl Unbound {
    /// What there is to say about sets, each at its first line in the text that they were read from.
    ///
    /// # Cost
    /// One pass over the text, however many there are.
    pub fn warnings(all: &[Unbound], text: &[u8]) -> Vec<Fault> {
        let mut by_line: Vec<&Unbound> = all.iter().collect();
        by_line.sort_by_key(|unbound| unbound.line);
        let (mut lines, mut number, mut at, mut line): (_, u32, usize, &[u8]) =
            (text.split(|&b| b == b'\n'), 0, 0, &[]);
        let mut faults = Vec::with_capacity(all.len());
        for unbound in by_line {
            while number < unbound.line {
                let Some(next) = lines.next() else { break };
                at += if number == 0 { 0 } else { line.len() + 1 };
                (line, number) = (next, number + 1);
            }
            faults.push(unbound.warning(if number == unbound.line { line } else { &[] }, at));
        }
        faults
    }

    /// Where its first line is this one, which begins at `at`.
    fn warning(&self, line: &[u8], at: usize) -> Fault {
        let shown = String::from_utf8_lossy(line);
        // The word after `--match-set`: the name's letters may stand in other words before.
        let is_between = |c: char| c.is_whitespace() || matches!(c, '"' | '\'');
        let is_named = |&(place, _): &(usize, &str)| {
            shown[..place].trim_end_matches(is_between).ends_with("-set")
                && shown[place + self.name.len()..].chars().next().is_none_or(is_between)
        };
        let place = shown.match_indices(&*self.name).find(is_named).map(|(place, _)| place);
        let place = place.filter(|_| matches!(shown, std::borrow::Cow::Borrowed(_))).unwrap_or(0);
        let column = shown.get(..place).map_or(1, |s| s.chars().count() + 1);
        let end = (at + place + self.name.len()).min(at + line.len().max(place));
        let found = (at + place..end, column, self.name.chars().count().max(1));
        let others = match self.matches {
            1 => String::new(),
            n => format!(", of {n} matches in all,"),
        };
        let help = (self.why == MISSING).then(|| "give what `ipset save` prints by --ipset FILE".into());
        Fault {
            severity: Severity::Warning,
            message: format!("set `{}`{others} {}: answers that hang on it say so", self.name, self.why),
            span: found.0,
            line: self.line,
            column: found.1 as u32,
            width: found.2 as u32,
            help,
        }
    }
}

const MISSING: &str = "is not given";
const CHANGED: &str = "is changed by a rule (-j SET)";
const OPAQUE: &str = "holds bridge ports, which no field of a packet decides";
const TO_MAC: &str = "is looked up by the destination's Ethernet address";
const COUNTERS: &str = "is asked for its counters";

impl Sets {
    /// Lets each `-m set` of the ruleset mean the set that it names. Says which sets that cannot be
    /// done for.
    ///
    /// # Cost
    /// Linear in the rules. Rules share the sets.
    pub fn bind(&self, ruleset: &mut Ruleset) -> Bound {
        let rules = ruleset.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules);
        let changed = rules.flat_map(changed_by).collect();
        let mut binder = self.binder(ruleset.family, changed);
        let chains = ruleset.tables.iter_mut().flat_map(|t| &mut t.chains);
        for rule in chains.flat_map(|c| &mut c.rules) {
            binder.bind_rule(rule);
        }
        Bound { matches: binder.matches, unbound: binder.unbound.into_values().collect() }
    }

    /// Binds rule by rule, where targets of some rules change the sets of these names.
    pub fn binder(&self, family: Family, changed: BTreeSet<Name>) -> Binder<'_> {
        Binder {
            sets: self,
            family,
            changed,
            keeps_empty: false,
            memberships: HashMap::new(),
            unbound: BTreeMap::new(),
            matches: 0,
        }
    }
}

/// The sets that a rule's target adds to or takes from.
pub fn changed_by(rule: &Rule) -> impl Iterator<Item = Name> {
    let target = match &rule.target {
        Target::Extension(target) if target.name() == "SET" => Some(target),
        _ => None,
    };
    let settings = target.into_iter().flat_map(|target| &target.settings);
    settings.filter(|s| matches!(s.option.name, "add-set" | "del-set")).filter_map(|setting| {
        if let Value::Pair(words) = &setting.value { Some((*words.0).into()) } else { None }
    })
}

/// A rule names a set that a packet may be in.
pub fn names_set(rule: &Rule) -> bool {
    rule.matches.iter().any(|e| matches!(e.spec, ExtensionRef::Known(spec) if spec.name == "set"))
}

/// Puts sets into rules, one after the other: [`Sets::binder`].
#[derive(Debug)]
pub struct Binder<'a> {
    sets: &'a Sets,
    family: Family,
    changed: BTreeSet<Name>,
    /// An empty set is kept: it may get entries.
    keeps_empty: bool,
    /// What was bound before: rules that say the same share it.
    memberships: HashMap<(Name, Vec<bool>, bool), Arc<MatchSet>>,
    unbound: BTreeMap<Name, Unbound>,
    matches: usize,
}

impl Binder<'_> {
    /// Keeps empty sets in the matches that name them, for who exchanges what sets hold afterwards.
    #[must_use]
    pub fn keeping_empty(mut self) -> Self {
        self.keeps_empty = true;
        self
    }

    /// Lets each `-m set` of a rule mean the set that it names, if it does not mean one already.
    pub fn bind_rule(&mut self, rule: &mut Rule) {
        self.each_match(rule, false);
    }

    /// The same whatever the matches meant before; those whose set is not there mean none any more. (Where
    /// no sets are given at all only those that rules change lose theirs.)
    pub fn bind_rule_again(&mut self, rule: &mut Rule) {
        self.each_match(rule, true);
    }

    fn each_match(&mut self, rule: &mut Rule, again: bool) {
        for extension in &mut rule.matches {
            let ExtensionRef::Known(spec) = extension.spec else { continue };
            if spec.name != "set" {
                continue;
            }
            let has = |name: &str| extension.settings.iter().any(|s| s.option.name == name);
            let wants_nomatch = has("return-nomatch");
            let counts = extension
                .settings
                .iter()
                .any(|s| s.option.name.starts_with("packets-") || s.option.name.starts_with("bytes-"));
            for setting in extension.settings.iter_mut().filter(|s| s.option.name == "match-set") {
                let words = match &setting.value {
                    Value::Pair(words) => (**words).clone(),
                    Value::MatchSet(bound) if again => {
                        let is_changed = |m: &Arc<Membership>| self.changed.contains(&m.set.name);
                        if self.sets.by_name.is_empty() && !bound.any_of.iter().any(is_changed) {
                            continue;
                        }
                        bound.words.clone()
                    }
                    _ => continue,
                };
                setting.value = match self.bind(&words, wants_nomatch, counts, rule.line) {
                    Some(bound) => Value::MatchSet(bound),
                    None => Value::Pair(Box::new(words)),
                };
            }
        }
    }

    fn bind(
        &mut self,
        words: &(Box<str>, Box<str>),
        wants_nomatch: bool,
        counts: bool,
        line: u32,
    ) -> Option<Arc<MatchSet>> {
        let directions: Vec<bool> = words.1.split(',').map(|word| word == "src").collect();
        let key = ((*words.0).into(), directions, wants_nomatch);
        if !counts && let Some(bound) = self.memberships.get(&key) {
            self.matches += 1;
            return Some(Arc::clone(bound));
        }
        let found = if counts { Err(COUNTERS) } else { self.look_up(&words.0, &key.1, wants_nomatch) };
        match found {
            Ok(any_of) => {
                self.matches += 1;
                let bound = Arc::new(MatchSet { words: words.clone(), any_of });
                self.memberships.insert(key, Arc::clone(&bound));
                Some(bound)
            }
            Err(why) => {
                let name: Name = (*words.0).into();
                let new = Unbound { name: Arc::clone(&name), line, matches: 0, why };
                self.unbound.entry(name).or_insert(new).matches += 1;
                None
            }
        }
    }

    fn look_up(
        &self,
        name: &str,
        directions: &[bool],
        wants_nomatch: bool,
    ) -> Result<Vec<Arc<Membership>>, &'static str> {
        let set = self.sets.get(name).ok_or(MISSING)?;
        let is_changed = |name: &Name| self.changed.contains(name);
        if is_changed(&set.name) || set.members.iter().any(is_changed) {
            return Err(CHANGED);
        }
        if !set.kind.is_list() {
            return Ok(self.membership(set, directions, wants_nomatch)?.into_iter().collect());
        }
        let mut any_of = Vec::new();
        for member in &set.members {
            let member = self.sets.get(member).ok_or(MISSING)?;
            any_of.extend(self.membership(member, directions, wants_nomatch)?);
        }
        Ok(any_of)
    }

    /// `None`: no packet of this family is in the set, looked up so.
    fn membership(
        &self,
        set: &Arc<IpSet>,
        directions: &[bool],
        wants_nomatch: bool,
    ) -> Result<Option<Arc<Membership>>, &'static str> {
        if set.is_opaque {
            return Err(OPAQUE);
        }
        let is_other_family = set.family.is_some_and(|family| family != self.family);
        if is_other_family || directions.len() < set.kind.columns.len() {
            return Ok(None);
        }
        if set.is_empty() && !self.keeps_empty {
            return Ok(None);
        }
        // Only sets with networks know `nomatch`.
        let wants_nomatch = wants_nomatch && set.kind.columns.contains(&ColumnKind::Net);
        let mut columns = Vec::with_capacity(set.kind.columns.len());
        for (kind, &is_source) in set.kind.columns.iter().zip(directions) {
            let of = |source, destination| if is_source { source } else { destination };
            columns.push(match kind {
                ColumnKind::Ip | ColumnKind::Net => Column::Address(of(Field::Source, Field::Destination)),
                ColumnKind::Port => Column::Port(of(Field::SourcePort, Field::DestinationPort)),
                ColumnKind::BarePort => Column::BarePort(of(Field::SourcePort, Field::DestinationPort)),
                ColumnKind::Interface => Column::Interface(of(Field::InInterface, Field::OutInterface)),
                ColumnKind::Mac if is_source => Column::Mac,
                ColumnKind::Mac => return Err(TO_MAC),
                ColumnKind::Mark => Column::Mark,
            });
        }
        Ok(Some(Arc::new(Membership { set: Arc::clone(set), columns, wants_nomatch })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ParseOptions, parse};

    #[test]
    fn each_set_that_is_not_given_is_warned_of_at_its_first_line() {
        let text = "*filter\n-A INPUT -m set --match-set b src -m set --match-set a src\n\n\
                    -A INPUT -m comment --comment \u{e9} -m set --match-set c src\n\
                    -A INPUT -m set --match-set b dst\nCOMMIT\n";
        let mut ruleset = parse(text, &ParseOptions::default()).ruleset;
        let unbound = Sets::default().bind(&mut ruleset).unbound;
        let warnings = Unbound::warnings(&unbound, text.as_bytes());
        let mut found: Vec<(u32, u32, &str)> =
            warnings.iter().map(|w| (w.line, w.column, &text[w.span.clone()])).collect();
        found.sort_unstable();
        assert_eq!(found, [(2, 29, "b"), (2, 54, "a"), (4, 52, "c")]);
        // Of another text: nothing is underlined that is not there.
        for warning in Unbound::warnings(&unbound, b"short") {
            assert!(warning.span.end <= 5, "{:?}", warning.span);
        }
    }
}
