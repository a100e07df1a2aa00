//! Targets that change a packet in a way that hipac does not work out, where rules ask for what they
//! changed.

use crate::fault::Severity;
use crate::meaning::Field;
use crate::model::{AddressTest, Family, Rule, Target};

use super::Tables;
use super::build::TableBuilder;
use super::loops::{Graph, line_starts};
use super::scan::Parser;

/// Such targets that are named one by one.
const REPORTED_MAX: usize = 20;

/// A rule may test a field.
fn tests(rule: &Rule, field: Field, family: Family) -> bool {
    let is_tested = |address: &AddressTest| address.mask != 0;
    let in_ip_part = match field {
        Field::Source => is_tested(&rule.ip.source),
        Field::Destination => is_tested(&rule.ip.destination),
        _ => false,
    };
    in_ip_part
        || rule.matches.iter().filter(|m| m.may_test(&[field])).any(|m| {
            let meaning = m.match_meaning(family);
            meaning.clauses.iter().flatten().any(|test| test.field == field)
        })
}

fn rules(table: &TableBuilder) -> impl Iterator<Item = &Rule> {
    (0..table.chain_count()).flat_map(move |chain| (0..).map_while(move |at| table.rule(chain, at)))
}

impl Parser<'_, Tables> {
    /// Warns of targets after which tests of a field are answered as if they had not changed it. Costs a
    /// look at every target, and a pass over the rules where there is one.
    pub(crate) fn report_unsettled(&mut self, table: &TableBuilder) {
        let altering = rules(table).filter_map(|rule| match &rule.target {
            Target::Extension(target) => {
                let spec = target.known_spec().filter(|spec| !spec.alters.is_empty())?;
                Some((rule.line, spec))
            }
            _ => None,
        });
        let altering: Vec<_> = altering.take(REPORTED_MAX).collect();
        if altering.is_empty() {
            return;
        }
        let family = self.reader.family;
        let starts = line_starts(self.reader.text);
        let mut first_tests: Vec<(Field, Option<u32>)> = Vec::new();
        for (line, spec) in altering {
            for &field in spec.alters {
                let known = first_tests.iter().find(|(f, _)| *f == field).map(|(_, line)| *line);
                let test = known.unwrap_or_else(|| {
                    let found = rules(table).find(|rule| tests(rule, field, family)).map(|rule| rule.line);
                    first_tests.push((field, found));
                    found
                });
                let Some(test) = test else { continue };
                let message = format!(
                    "{} changes the {}, and to what is not worked out: what tests it afterwards, as line {test} may, \
                     is answered as if it had not",
                    spec.name,
                    field.name()
                );
                let start = starts.get(line.saturating_sub(1) as usize).copied().unwrap_or(0);
                let length = self.reader.text[start..].iter().position(|&b| b == b'\n');
                let end = length.map_or(self.reader.text.len(), |l| start + l);
                self.reader.fault(Severity::Warning, (line, start), start..end, message, None);
            }
        }
    }
}
