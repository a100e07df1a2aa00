//! A live table as a subject of the oracle's questions.

use std::collections::HashMap;

use hipac_classifier::evaluate::EvaluateError;
use hipac_classifier::live::{CountWhat, Reader};
use hipac_classifier::program::ResidualKind;
use hipac_classifier::{Answer, Decision, Host, OriginId, Packet};
use hipac_compiler::LiveTable;
use hipac_rules::{Hook, Residual, Ruleset, TableKind};
use hipac_verifier::{Evaluation, Event, Outcomes, RuleId, Subject, Verdict};

/// A table as it is while no one changes it.
pub(crate) struct LiveSubject<'t> {
    table: &'t LiveTable,
    rules: HashMap<u32, RuleId>,
}

impl<'t> LiveSubject<'t> {
    /// Of a table that has the rules of `plain`.
    pub(crate) fn new(table: &'t LiveTable, plain: &Ruleset) -> LiveSubject<'t> {
        let mut rules = HashMap::new();
        for t in &plain.tables {
            for (c, chain) in t.chains.iter().enumerate() {
                let ids = table.rule_ids(t.kind, &chain.name);
                let places = ids.into_iter().enumerate();
                rules.extend(places.filter_map(|(i, id)| Some((id, RuleId::new(t.kind, c, i)?))));
            }
        }
        LiveSubject { table, rules }
    }
}

struct Recorder<'a> {
    rules: &'a HashMap<u32, RuleId>,
    outcomes: &'a mut dyn Outcomes,
    events: Vec<Event>,
}

impl Host for Recorder<'_> {
    fn residual(&mut self, origin: OriginId, match_index: u8, kind: ResidualKind, packet: &Packet) -> Answer {
        let rule = self.rules[&origin.0];
        let match_index = match_index.into();
        let asked_as = match kind {
            ResidualKind::Pure => Residual::Pure,
            ResidualKind::Stateful => Residual::Stateful,
            ResidualKind::Unknown => Residual::Unknown,
        };
        let answer = self.outcomes.residual(rule, match_index, asked_as, packet);
        if kind != ResidualKind::Pure {
            let held = answer == Answer::Holds;
            self.events.push(Event::Residual { rule, match_index, held });
        }
        answer
    }

    fn matched(&mut self, origin: OriginId, _: &Packet) {
        self.events.push(Event::Matched(self.rules[&origin.0]));
    }
}

impl LiveSubject<'_> {
    /// A packet as one reader evaluates it.
    pub(crate) fn evaluate_by(
        &self,
        reader: &mut Reader,
        (table, hook): (TableKind, Hook),
        packet: &Packet,
        outcomes: &mut dyn Outcomes,
        what: CountWhat,
    ) -> Evaluation {
        let pinned = reader.pin();
        let Some(entry) = pinned.find_entry(&format!("{}/{}", table.name(), hook.name())) else {
            return Evaluation { events: vec![], verdict: Verdict::policy("ACCEPT") };
        };
        let mut host = Recorder { rules: &self.rules, outcomes, events: Vec::new() };
        let decision = match what {
            CountWhat::Nothing => pinned.evaluate(entry, &mut packet.clone(), &mut host),
            _ => pinned.evaluate_counting(entry, &mut packet.clone(), &mut host, what),
        };
        let name = |verdict| pinned.verdict_name(verdict).to_owned();
        let verdict = match decision {
            Ok(Decision::Rule { verdict, rule }) => Verdict::rule(name(verdict), self.rules[&rule.0]),
            Ok(Decision::Default { verdict }) => Verdict::policy(name(verdict)),
            Ok(Decision::Malformed { rule }) => Verdict::malformed(self.rules[&rule.0]),
            Err(EvaluateError::TooLong) => Verdict::given_up(),
            Err(EvaluateError::Damaged { position }) => panic!("no flat rule has label {position}"),
        };
        Evaluation { events: host.events, verdict }
    }
}

impl Subject for LiveSubject<'_> {
    fn evaluate(
        &self,
        table: TableKind,
        hook: Hook,
        packet: &Packet,
        outcomes: &mut dyn Outcomes,
    ) -> Evaluation {
        let mut reader = self.table.reader();
        self.evaluate_by(&mut reader, (table, hook), packet, outcomes, CountWhat::Nothing)
    }
}
