//! A compiled image as a [`Subject`].

use hipac_classifier::evaluate::EvaluateError;
use hipac_classifier::program::ResidualKind;
use hipac_classifier::{Answer, Decision, EntryId, Host, Image, OriginId, Packet};
use hipac_rules::{Hook, Residual, Ruleset, TableKind};

use crate::outcomes::Outcomes;
use crate::rule_id::RuleId;
use crate::subject::{Evaluation, Event, Subject, Verdict};

/// An image together with the ruleset that it claims to come from.
///
/// The image says of each rule which list it stands in, its number and its line. What does not
/// fit the ruleset is found when the subject is made, not in the middle of a check.
#[derive(Debug)]
pub struct ImageSubject<B> {
    image: Image<B>,
    /// The rule of each origin.
    rules: Vec<RuleId>,
    /// The entry of each table and hook.
    entries: Vec<(TableKind, Hook, EntryId)>,
}

/// Why an image cannot be held against a ruleset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    what: String,
}

impl std::fmt::Display for Stranger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the image was not compiled from these rules: {}", self.what)
    }
}

impl std::error::Error for Stranger {}

impl<B: AsRef<[u8]>> ImageSubject<B> {
    /// Pairs an image with its ruleset. Costs a look-up a rule.
    ///
    /// # Errors
    /// The image names a rule that the ruleset does not have there, or lacks a built-in chain.
    pub fn new(image: Image<B>, ruleset: &Ruleset) -> Result<ImageSubject<B>, Stranger> {
        let stranger = |what: String| Stranger { what };
        if image.is_v6() != (ruleset.family == hipac_rules::Family::V6) {
            return Err(stranger("the families differ".into()));
        }
        let mut rules = Vec::new();
        while let Some(origin) = image.origin(OriginId(rules.len() as u32)) {
            let list = image.name(origin.list);
            let found = list.split_once('/').and_then(|(table, chain)| {
                let id = RuleId::find(ruleset, TableKind::from_name(table)?, chain, origin.number as usize)?;
                (id.of(ruleset)?.line == origin.line).then_some(id)
            });
            rules.push(found.ok_or_else(|| {
                let (number, line) = (origin.number, origin.line);
                stranger(format!("they have no rule {number} in {list} at line {line}"))
            })?);
        }
        if rules.len() != ruleset.rule_count() {
            let (theirs, ours) = (rules.len(), ruleset.rule_count());
            return Err(stranger(format!("it has {theirs} rules, they are {ours}")));
        }
        let mut entries = Vec::new();
        for table in &ruleset.tables {
            for &hook in table.kind.hooks() {
                let name = format!("{}/{}", table.kind.name(), hook.name());
                let entry = image.find_entry(&name).ok_or_else(|| stranger(format!("it has no {name}")))?;
                entries.push((table.kind, hook, entry));
            }
        }
        Ok(ImageSubject { image, rules, entries })
    }

    /// The image.
    pub fn image(&self) -> &Image<B> {
        &self.image
    }

    fn rule(&self, origin: OriginId) -> Option<RuleId> {
        self.rules.get(origin.0 as usize).copied()
    }
}

/// Passes questions on and writes down what happens.
struct Recorder<'a> {
    rules: &'a [RuleId],
    outcomes: &'a mut dyn Outcomes,
    events: Vec<Event>,
}

impl Host for Recorder<'_> {
    fn residual(&mut self, origin: OriginId, match_index: u8, kind: ResidualKind, packet: &Packet) -> Answer {
        let Some(&rule) = self.rules.get(origin.0 as usize) else { return Answer::Fails };
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

    fn matched(&mut self, origin: OriginId, packet: &Packet) {
        if let Some(&rule) = self.rules.get(origin.0 as usize) {
            self.events.push(Event::Matched(rule));
            self.outcomes.matched(rule, packet);
        }
    }
}

impl<B: AsRef<[u8]> + Sync> Subject for ImageSubject<B> {
    fn evaluate(
        &self,
        table: TableKind,
        hook: Hook,
        packet: &Packet,
        outcomes: &mut dyn Outcomes,
    ) -> Evaluation {
        let Some(&(.., entry)) = self.entries.iter().find(|(t, h, _)| (*t, *h) == (table, hook)) else {
            return Evaluation { events: vec![], verdict: Verdict::policy("ACCEPT") };
        };
        let mut host = Recorder { rules: &self.rules, outcomes, events: Vec::new() };
        let decision = self.image.evaluate(entry, &mut packet.clone(), &mut host);
        let name = |verdict| self.image.verdict_name(verdict).to_owned();
        let verdict = match decision {
            Ok(Decision::Rule { verdict, rule }) => self.rule(rule).map(|r| Verdict::rule(name(verdict), r)),
            Ok(Decision::Default { verdict }) => Some(Verdict::policy(name(verdict))),
            Ok(Decision::Malformed { rule }) => self.rule(rule).map(Verdict::malformed),
            Err(EvaluateError::TooLong) => Some(Verdict::given_up()),
            Err(EvaluateError::Damaged { .. }) => None,
        };
        // A damaged image agrees with nobody.
        let verdict = verdict.unwrap_or_else(|| Verdict::policy("(damaged image)"));
        Evaluation { events: host.events, verdict }
    }
}
