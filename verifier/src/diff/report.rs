//! From regions that differ to what a person reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use hipac_classifier::{Answer, Packet};
use hipac_rules::{Extension, Family, Residual, print};

use super::spread;
use super::walk::{Ended, Found, Walk};
use super::{Difference, Entry, Options, PlaceReport, Treatment, Undecided, Watch};
use crate::outcomes::Outcomes;
use crate::partition::{Asked, AskedKind, Known};
use crate::space::{Pieces, Space};
use crate::subject::By;
use crate::unfold::{Course, Detail, TextId, TooManySteps, World};
use crate::{Oracle, RuleId};

/// Undecided regions that are named.
const EXAMPLES_MAX: usize = 5;

/// Compares pairs of built-in chains. Those of the same two tables share a world.
pub(super) fn places(
    old: &Oracle<'_>,
    new: &Oracle<'_>,
    pairs: &[(Entry, Entry)],
    options: &Options,
    watch: Watch<'_>,
) -> Result<Vec<PlaceReport>, TooManySteps> {
    let mut places = Vec::new();
    for pairs in pairs.chunk_by(|x, y| (x.0.0, x.1.0) == (y.0.0, y.1.0)) {
        let Some(&((old_table, _), (new_table, _))) = pairs.first() else { continue };
        let space = Space::new(old.family(), &[(old, old_table), (new, new_table)], &[]);
        let mut world = World::new(space);
        world.text_id(hipac_rules::Policy::Drop.name());
        let mut courses = Vec::new();
        for &(from, to) in pairs {
            let a = world.unfold(old, from.0, from.1, Detail::Differences)?;
            let b = world.unfold(new, to.0, to.1, Detail::Differences)?;
            courses.push((from, to, a, b));
        }
        let world = Arc::new(world);
        for (from, to, a, b) in courses {
            let mut walk = Walk::new(&world, &a, &b, *options);
            spread::run(&mut walk, watch);
            let undecided = walk.stopped.map(|why| undecided(&world, why, &walk));
            let sides = Sides { world: &world, old: (old, from, &a), new: (new, to, &b) };
            let differences = sides.differences(&walk.found);
            let (regions, steps) = (walk.regions, (a.steps.len(), b.steps.len()));
            drop(walk);
            let world = Arc::clone(&world);
            places.push(PlaceReport {
                old: from,
                new: to,
                differences,
                undecided,
                regions,
                steps,
                world,
                course: a,
            });
        }
    }
    Ok(places)
}

fn undecided(world: &World, why: &'static str, walk: &Walk<'_>) -> Undecided {
    let pieces = Pieces { regions: walk.open.iter().map(|node| node.region.clone()).collect() };
    let shapes = pieces.shapes(&world.space);
    let examples = shapes.iter().take(EXAMPLES_MAX).map(|(shape, _)| world.space.words(shape));
    Undecided { why, regions: walk.open.len(), examples: examples.collect() }
}

struct Sides<'a, 'o> {
    world: &'a World,
    old: (&'a Oracle<'o>, Entry, &'a Course),
    new: (&'a Oracle<'o>, Entry, &'a Course),
}

/// What makes two regions one difference.
type Key<'f> = (SideKey<'f>, SideKey<'f>, &'f Known);
type SideKey<'f> = (crate::partition::End, &'f [TextId], &'f [Asked]);

#[derive(Default)]
struct Group<'f> {
    pieces: Pieces,
    found: Vec<&'f Found>,
}

impl Sides<'_, '_> {
    fn differences(&self, found: &[Found]) -> Vec<Difference> {
        let mut groups: BTreeMap<Key<'_>, Group<'_>> = BTreeMap::new();
        for found in found {
            let side = |e: &'_ Ended| e.end;
            let key = (
                (side(&found.a), &found.a.state.notes[..], &found.a.state.asked[..]),
                (side(&found.b), &found.b.state.notes[..], &found.b.state.asked[..]),
                &found.known,
            );
            let group = groups.entry(key).or_default();
            group.pieces.regions.push(found.region.clone());
            group.found.push(found);
        }
        let mut differences: Vec<Difference> = Vec::new();
        for ((a, b, known), group) in groups {
            for (shape, _) in group.pieces.shapes(&self.world.space) {
                let inside =
                    |f: &&&Found| f.region.iter().zip(&shape).all(|(&interval, set)| set.covers(interval));
                let parts: Vec<&Found> = group.found.iter().filter(inside).copied().collect();
                let witnesses = parts.iter().map(|f| &f.witness);
                let Some(packet) = self.world.space.simplest(witnesses) else { continue };
                let mut except: Vec<u32> = parts.iter().flat_map(|f| &f.except).copied().collect();
                except.sort_unstable();
                except.dedup();
                let old = self.treatment(self.old, a);
                let new = self.treatment(self.new, b);
                let is_confirmed = self.confirms(self.old, &packet, known, &old)
                    && self.confirms(self.new, &packet, known, &new);
                differences.push(Difference {
                    words: self.world.space.words(&shape),
                    bits: self.world.space.bits(&shape),
                    packet,
                    conditions: known.iter().map(|k| condition(self.world, k)).collect(),
                    old,
                    new,
                    is_confirmed,
                    except: self.rules(&except),
                    holes: except,
                    shape,
                });
            }
        }
        differences.sort_by(|a, b| b.bits.total_cmp(&a.bits));
        differences
    }

    /// The rules of steps, each once.
    fn rules(&self, steps: &[u32]) -> Vec<RuleId> {
        let mut rules: Vec<RuleId> = steps.iter().map(|&at| self.old.2.steps[at as usize].rule).collect();
        rules.dedup();
        rules
    }

    fn treatment(&self, (_, _, course): (&Oracle<'_>, Entry, &Course), side: SideKey<'_>) -> Treatment {
        let (end, notes, asked) = side;
        let by = match end.step.map(|at| course.steps[at as usize].rule) {
            None => By::Policy,
            Some(rule) if end.is_malformed => By::Malformed(rule),
            Some(rule) => By::Rule(rule),
        };
        let text = |&id: &TextId| self.world.text(id).to_owned();
        Treatment {
            verdict: self.world.text(end.text).to_owned(),
            by,
            notes: notes.iter().map(text).collect(),
            asked: asked.iter().map(|a| text(&a.text)).collect(),
        }
    }

    /// Whether the oracle says the same of a packet.
    fn confirms(
        &self,
        (oracle, entry, _): (&Oracle<'_>, Entry, &Course),
        packet: &hipac_classifier::Packet,
        known: &Known,
        expected: &Treatment,
    ) -> bool {
        let mut outcomes = Assumed { world: self.world, oracle, known, asked: Vec::new() };
        let found = oracle.evaluate(entry.0, entry.1, packet, &mut outcomes).verdict;
        // The verdict's text has the target's options behind its name.
        let name = expected.verdict.split(' ').next().unwrap_or_default();
        found.by == expected.by && found.name == name
    }
}

/// `-m limit --limit 5/min holds`.
pub(crate) fn condition(world: &World, (asked, held): &(Asked, bool)) -> String {
    let what = if *held { "holds" } else { "does not hold" };
    let unknown = if asked.kind == AskedKind::Unknown { " (unknown to hipac)" } else { "" };
    let time = if asked.kind != AskedKind::Pure && asked.time > 0 {
        format!(" (asked before {} times)", asked.time)
    } else {
        String::new()
    };
    format!("{}{unknown}{time} {what}", world.text(asked.text))
}

/// Outcomes as a region takes them.
pub(crate) struct Assumed<'a, 'o> {
    pub(crate) world: &'a World,
    pub(crate) oracle: &'a Oracle<'o>,
    pub(crate) known: &'a Known,
    pub(crate) asked: Vec<TextId>,
}

impl Outcomes for Assumed<'_, '_> {
    fn residual(&mut self, rule: RuleId, match_index: usize, kind: Residual, _: &Packet) -> Answer {
        let of = rule.of(self.oracle.ruleset()).and_then(|r| r.matches.get(match_index));
        let text = of.map_or_else(String::new, |m| residual_text(m, self.oracle.family()));
        let text = self.known.iter().find(|k| self.world.text(k.0.text) == text).map(|k| k.0.text);
        let Some(text) = text else { return Answer::Fails };
        let time = self.asked.iter().filter(|&&t| t == text).count() as u32; // as many as steps
        let known = if kind == Residual::Pure {
            self.known.iter().find(|k| k.0.text == text)
        } else {
            self.asked.push(text);
            self.known.iter().find(|k| k.0.text == text && k.0.time == time)
        };
        Answer::from(known.is_some_and(|k| k.1))
    }
}

fn residual_text(extension: &Extension, family: Family) -> String {
    let mut text = "-m ".to_owned();
    print::print_extension(extension, family, &mut text);
    text
}
