//! From a ruleset to an image.
//!
//! ```text
//!   ruleset ─lower▶ flat lists ─recode, expand▶ boxes ─forest▶ arena ─▶ image
//! ```

use std::collections::BTreeSet;
use std::time::Instant;

use hipac_classifier::forest::Ref;
use hipac_classifier::image::Parts;
use hipac_classifier::key::KEY_BYTES_MAX;
use hipac_rules::{Family, Field, Rule, Ruleset, ValueSet};
use rayon::prelude::*;

use crate::condition::{Space, interface_bounds};
use crate::expand::{EntryBoxes, KeyPlan};
use crate::forest::budget::{self, Measured, Steps};
use crate::forest::{Arena, Boxes, Shape, Sketch};
use crate::lower::{LowerError, Lowered, lower};
use crate::options::Options;
use crate::sets::SetPlan;
use crate::tables;

/// Boxes that one flat rule may become; what goes beyond is left to its program.
pub(crate) const BOXES_MAX: usize = 64;

/// What a compilation made.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The image: [`Image::open`](hipac_classifier::Image::open) reads it.
    pub image: Vec<u8>,
    /// What it cost.
    pub cost: Cost,
    /// The same for each entry, in the order of the image; called chains are counted with the
    /// entry list too.
    pub entries: Vec<EntryCost>,
    /// When the fastest form did not fit: the visits of nodes and leaves that a lookup is expected
    /// to make with regions in the fastest shape, and as they are.
    pub visits: Option<(f64, f64)>,
}

/// What an image costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Rules of the text.
    pub rules: usize,
    /// Flat rules they became.
    pub flat_rules: usize,
    /// Boxes these became.
    pub boxes: usize,
    /// Nodes of the forest.
    pub nodes: usize,
    /// Leaves of the forest.
    pub leaves: usize,
    /// Nodes on the longest way from a root.
    pub depth: u32,
    /// Bytes of the forest.
    pub structure_bytes: usize,
    /// Bytes of the image, all of it.
    pub image_bytes: usize,
    /// Regions of the forest (cells of root tables, or whole entries) by the shape they are built
    /// in: the fastest first, plain lists last. All are in the first when the budget does not
    /// bind.
    pub regions: [usize; Shape::LADDER.len()],
}

impl Cost {
    /// Regions that are not built in the fastest shape.
    pub fn regions_shrunk(&self) -> usize {
        self.regions[1..].iter().sum()
    }
}

/// What one entry costs.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryCost {
    /// `filter/FORWARD`.
    pub name: String,
    /// Reached by calls only.
    pub called: bool,
    /// Its share, with the rules of its chain: `image_bytes` is the whole image's.
    pub cost: Cost,
    /// Seconds its trees took to build.
    pub seconds: f64,
}

/// Why a ruleset cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Its chains cannot be lowered.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// It does not fit.
    #[error(
        "the image needs {needed} bytes, {limit} are allowed ({per_entry}): \
         allow at least {needed} with --memory"
    )]
    Memory {
        /// The smallest image that the builder found.
        needed: usize,
        /// The limit given.
        limit: usize,
        /// Where most of it goes.
        per_entry: String,
    },
    /// Rules test more fields than a key holds.
    #[error("the rules test dimensions of {bytes} bytes together; a key holds {KEY_BYTES_MAX}")]
    KeyTooLong {
        /// Bytes wanted.
        bytes: usize,
    },
    /// Too many interface names.
    #[error("the rules name too many interfaces: {bounds} bounds, at most 65534 fit")]
    TooManyInterfaces {
        /// Bounds of their names.
        bounds: usize,
    },
    /// Too many flat rules, program words or units of the arena.
    #[error("the rules become {count} {what}; at most {limit} fit into an image")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
}

/// Compiles a ruleset. Same ruleset, same options: same bytes.
///
/// # Cost
/// Near linear in the rules: about a microsecond each, for every step of the ladder that is
/// tried. Memory besides the ruleset and the image, in the order of what comes and goes: flat
/// rules (168 bytes each), boxes (8 bytes and 8 a dimension each, kept to the end), and the
/// regions of the forest, a few times its size; at most what
/// [`memory_bytes_max`](Options::memory_bytes_max) says.
///
/// # Errors
/// See [`CompileError`]; nothing of the ruleset is changed.
pub fn compile(ruleset: &Ruleset, options: &Options) -> Result<Compiled, CompileError> {
    let ranks = interface_ranks(ruleset)?;
    let sets = SetPlan::of(ruleset)?;
    let space = Space { family: ruleset.family, ranks: &ranks, sets: &sets };
    let mut lowered = lower(ruleset, &space, options.counting)?;
    let plan = KeyPlan::of(&lowered)?;
    for rule in lowered.lists.iter_mut().flat_map(|list| &mut list.rules) {
        rule.condition.limit_boxes(BOXES_MAX, &|dim, set| plan.width(dim, set));
    }
    let mut parts = tables::parts(ruleset, &lowered, &plan, &sets)?;
    parts.ranks = ranks;
    let entries = (0..lowered.lists.len()).map(|i| {
        let boxes = plan.expand(&lowered, i, parts.entries[i].first);
        // Boxes and programs say all of it.
        lowered.lists[i].rules = Vec::new();
        boxes
    });
    let entries: Vec<EntryBoxes> = entries.collect();
    drop(plan);

    let (built, visits) = build(&entries, &lowered, &mut parts, options.memory_bytes_max)?;
    drop(entries);
    Ok(finish(ruleset, &lowered, parts, built, visits))
}

/// The fastest forest whose image fits, and the visits as [`Compiled::visits`] has them.
fn build(
    entries: &[EntryBoxes],
    lowered: &Lowered,
    parts: &mut Parts,
    limit: usize,
) -> Result<(Built, Option<(f64, f64)>), CompileError> {
    let builder = ForestBuilder { entries };
    let sketches = builder.sketches(parts, budget::ROOT_SIZES[0]);
    let fastest = builder.build(&sketches, &vec![Steps::default(); sketches.len()], parts)?;
    let fastest_bytes = parts.image_bytes(fastest.arena.len());
    if fastest_bytes <= limit {
        return Ok((fastest, None));
    }
    // The smallest image of each size of roots: what is refused does not hang on luck. (Of a few
    // rules the fastest form can be the smallest, too.)
    let fastest_costs = heaviest(lowered, &fastest.costs);
    drop((fastest, sketches));
    let mut smallest = Vec::new();
    let mut fastest_visits = 0.0;
    for (i, size) in budget::ROOT_SIZES.into_iter().enumerate() {
        let sketches = builder.sketches(parts, size);
        let measured = Measured::new(&sketches);
        if i == 0 {
            fastest_visits = measured.visits(&[]);
        }
        let built = builder.build(&sketches, &measured.choose(0), parts)?;
        let bytes = parts.image_bytes(built.arena.len());
        if bytes <= limit {
            // The largest roots whose smallest image fits: as fast as fits below them.
            drop(built);
            return fitting(&builder, &sketches, &measured, parts, limit, fastest_visits);
        }
        smallest.push((bytes, heaviest(lowered, &built.costs)));
        if !sketches.iter().any(Sketch::has_root) {
            break; // smaller ones are the same
        }
    }
    smallest.push((fastest_bytes, fastest_costs));
    let (needed, per_entry) = smallest.into_iter().min().unwrap_or_default();
    Err(CompileError::Memory { needed, limit, per_entry })
}

/// The fastest forest of these sketches whose image fits; the smallest one's does.
fn fitting(
    builder: &ForestBuilder<'_>,
    sketches: &[Sketch<'_>],
    measured: &Measured,
    parts: &mut Parts,
    limit: usize,
    fastest_visits: f64,
) -> Result<(Built, Option<(f64, f64)>), CompileError> {
    let mut allowed = limit - parts.image_bytes(0).min(limit);
    loop {
        let steps = measured.choose(allowed);
        let built = builder.build(sketches, &steps, parts)?;
        let image_bytes = parts.image_bytes(built.arena.len());
        if image_bytes <= limit {
            return Ok((built, Some((fastest_visits, measured.visits(&steps)))));
        }
        // Alignment is not in the measures: ask for a little less. At nothing all is smallest,
        // and fits.
        allowed = allowed.saturating_sub(2 * (image_bytes - limit));
    }
}

/// A forest that was laid out, and what each entry takes of it.
struct Built {
    arena: Arena,
    costs: Vec<(Cost, f64)>,
}

/// Builds the forests of all entries.
struct ForestBuilder<'a> {
    entries: &'a [EntryBoxes],
}

impl<'a> ForestBuilder<'a> {
    /// The sketches of all entries: for each the sound packets' one, then the others' when there
    /// is.
    fn sketches(&self, parts: &Parts, cells_per_box: f64) -> Vec<Sketch<'a>> {
        let boxes_of = |entry: &'a EntryBoxes| std::iter::once(&entry.sound).chain(&entry.broken);
        let boxes = self.entries.iter().flat_map(boxes_of).map(Boxes::len).sum();
        let all = self.entries.par_iter().zip(&parts.entries).flat_map_iter(|(entry, record)| {
            let positions = (record.first, record.count);
            boxes_of(entry).map(move |of| Sketch::new(of, cells_per_box, positions, boxes))
        });
        all.collect()
    }

    /// Builds the trees of all entries and puts their roots into the entry records.
    fn build(
        &self,
        sketches: &[Sketch<'_>],
        steps: &[Steps],
        parts: &mut Parts,
    ) -> Result<Built, CompileError> {
        let mut arena = Arena::default();
        let mut costs = Vec::with_capacity(self.entries.len());
        let too_large = |_| CompileError::TooLarge {
            what: "units of 16 bytes",
            count: Ref::UNITS_MAX,
            limit: Ref::UNITS_MAX,
        };
        let mut next = 0;
        for (i, entry) in self.entries.iter().enumerate() {
            let begin = Instant::now();
            let (nodes, leaves, bytes) = (arena.nodes, arena.leaves, arena.len());
            arena.depth = 0;
            let mut regions = [0; Shape::LADDER.len()];
            let mut roots = [Ref::EMPTY; 2];
            let mut boxes = 0;
            for (root, of) in roots.iter_mut().zip(std::iter::once(&entry.sound).chain(&entry.broken)) {
                let (sketch, steps) = (&sketches[next], &steps[next]);
                *root = arena.add_sketch(sketch, |region| steps.shape(region)).map_err(too_large)?;
                for (sum, count) in regions.iter_mut().zip(steps.counts(sketch.region_count())) {
                    *sum += count;
                }
                boxes += of.len();
                next += 1;
            }
            parts.entries[i].root = roots[0].0;
            parts.entries[i].broken_root = if entry.broken.is_some() { roots[1].0 } else { roots[0].0 };
            let cost = Cost {
                flat_rules: parts.entries[i].count as usize,
                boxes,
                nodes: arena.nodes - nodes,
                leaves: arena.leaves - leaves,
                structure_bytes: arena.len() - bytes,
                depth: arena.depth,
                regions,
                ..Cost::default()
            };
            costs.push((cost, begin.elapsed().as_secs_f64()));
        }
        Ok(Built { arena, costs })
    }
}

fn finish(
    ruleset: &Ruleset,
    lowered: &Lowered,
    mut parts: Parts,
    built: Built,
    visits: Option<(f64, f64)>,
) -> Compiled {
    let Built { arena, costs } = built;
    let structure_bytes = arena.len();
    parts.arena = arena.finish();
    let image = parts.encode();
    let total = Cost {
        rules: ruleset.rule_count(),
        flat_rules: costs.iter().map(|(c, _)| c.flat_rules).sum(),
        boxes: costs.iter().map(|(c, _)| c.boxes).sum(),
        nodes: costs.iter().map(|(c, _)| c.nodes).sum(),
        leaves: costs.iter().map(|(c, _)| c.leaves).sum(),
        depth: costs.iter().map(|(c, _)| c.depth).max().unwrap_or(0),
        structure_bytes,
        image_bytes: image.len(),
        regions: std::array::from_fn(|step| costs.iter().map(|(c, _)| c.regions[step]).sum()),
    };
    let entries = lowered.lists.iter().zip(costs).map(|(list, (cost, seconds))| EntryCost {
        name: list.name.clone(),
        called: list.called,
        cost: Cost { rules: list.chain_rules, image_bytes: total.image_bytes, ..cost },
        seconds,
    });
    Compiled { image, cost: total, entries: entries.collect(), visits }
}

/// The fields whose values are names: of interfaces, and of a helper.
const INTERFACES: [Field; 5] =
    [Field::InInterface, Field::OutInterface, Field::PhysIn, Field::PhysOut, Field::Helper];

/// All bounds of interface names that the rules set, rising.
fn interface_ranks(ruleset: &Ruleset) -> Result<Vec<u128>, CompileError> {
    let rules = ruleset.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules);
    ranks_of(rules, ruleset.family)
}

/// The same of any rules.
pub(crate) fn ranks_of<'r>(
    rules: impl Iterator<Item = &'r Rule>,
    family: Family,
) -> Result<Vec<u128>, CompileError> {
    let mut bounds = BTreeSet::new();
    for rule in rules {
        each_interface_bound(rule, family, &mut |bound| {
            bounds.insert(bound);
        });
    }
    // Ranks are 16 bits in the key.
    if bounds.len() >= 0xffff {
        return Err(CompileError::TooManyInterfaces { bounds: bounds.len() });
    }
    Ok(bounds.into_iter().collect())
}

/// Calls `f` with each bound of an interface name that a rule sets.
pub(crate) fn each_interface_bound(rule: &Rule, family: Family, f: &mut impl FnMut(u128)) {
    let mut add = |name: &str, prefix: bool| {
        if let Some((first, end)) = interface_bounds(name, prefix) {
            f(first);
            end.into_iter().for_each(&mut *f);
        }
    };
    for test in [&rule.ip.in_interface, &rule.ip.out_interface] {
        if let Some(name) = &test.name {
            add(name, test.prefix);
        }
    }
    for extension in rule.matches.iter().filter(|e| e.may_test(&INTERFACES)) {
        for test in extension.match_meaning(family).clauses.iter().flatten() {
            if INTERFACES.contains(&test.field)
                && let ValueSet::Interface { name, prefix } = &test.set
            {
                add(name, *prefix);
            }
        }
    }
}

/// Says which entries take most of the forest.
fn heaviest(lowered: &Lowered, costs: &[(Cost, f64)]) -> String {
    let mut by_bytes: Vec<(usize, &str)> =
        costs.iter().zip(&lowered.lists).map(|((c, _), l)| (c.structure_bytes, &*l.name)).collect();
    by_bytes.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let shown: Vec<String> = by_bytes.iter().take(3).map(|(bytes, name)| format!("{name} {bytes}")).collect();
    shown.join(", ")
}
