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
use hipac_rules::{Field, Ruleset, ValueSet};

use crate::condition::{Space, interface_bounds};
use crate::expand::{EntryBoxes, KeyPlan};
use crate::forest::{Arena, Boxes, Shape, build};
use crate::lower::{LowerError, Lowered, lower};
use crate::options::Options;
use crate::tables;

/// Boxes that one flat rule may become; what goes beyond is left to its program.
const BOXES_MAX: usize = 64;

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
    /// Which step of the ladder from fast to small was taken: 0 is the fastest.
    pub step: usize,
}

/// What one entry costs.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryCost {
    /// `filter/FORWARD`.
    pub name: String,
    /// Reached by calls only.
    pub called: bool,
    /// Its share, with the rules of its chain: `step` and `image_bytes` are the whole image's.
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
/// tried. Memory: a few times the boxes (12 bytes and 8 a dimension each) besides the image.
///
/// # Errors
/// See [`CompileError`]; nothing of the ruleset is changed.
pub fn compile(ruleset: &Ruleset, options: &Options) -> Result<Compiled, CompileError> {
    let ranks = interface_ranks(ruleset)?;
    let space = Space { family: ruleset.family, ranks: &ranks };
    let mut lowered = lower(ruleset, &space, options.counting)?;
    let plan = KeyPlan::of(&lowered)?;
    for rule in lowered.lists.iter_mut().flat_map(|list| &mut list.rules) {
        rule.condition.limit_boxes(BOXES_MAX, &|dim, set| plan.classes(dim, set).intervals().len());
    }
    let mut parts = tables::parts(ruleset, &lowered, &plan)?;
    parts.ranks = ranks;
    let entries: Vec<EntryBoxes> =
        (0..lowered.lists.len()).map(|i| plan.expand(&lowered, i, parts.entries[i].first)).collect();

    let mut smallest: Option<(usize, String)> = None;
    for (step, shape) in Shape::LADDER.iter().enumerate() {
        let (arena, costs) = forest(&lowered, &entries, shape, &mut parts)?;
        let image_bytes = parts.image_bytes(arena.len());
        if image_bytes <= options.memory_bytes_max {
            return Ok(finish(ruleset, &lowered, parts, arena, costs, step));
        }
        if smallest.as_ref().is_none_or(|(bytes, _)| image_bytes < *bytes) {
            smallest = Some((image_bytes, heaviest(&lowered, &costs)));
        }
    }
    let (needed, per_entry) = smallest.unwrap_or_default();
    Err(CompileError::Memory { needed, limit: options.memory_bytes_max, per_entry })
}

/// Builds the trees of all entries and puts their roots into the entry records.
fn forest(
    lowered: &Lowered,
    entries: &[EntryBoxes],
    shape: &Shape,
    parts: &mut Parts,
) -> Result<(Arena, Vec<(Cost, f64)>), CompileError> {
    let mut arena = Arena::default();
    let mut costs = Vec::with_capacity(entries.len());
    let too_large = |_| CompileError::TooLarge {
        what: "units of 16 bytes",
        count: Ref::UNITS_MAX,
        limit: Ref::UNITS_MAX,
    };
    for (i, entry) in entries.iter().enumerate() {
        let begin = Instant::now();
        let (nodes, leaves, bytes) = (arena.nodes, arena.leaves, arena.len());
        arena.depth = 0;
        let record = &parts.entries[i];
        let (first, count) = (record.first, record.count);
        let root = arena.add(&build(&entry.sound, shape, first, count)).map_err(too_large)?;
        let broken_root = match &entry.broken {
            Some(broken) => arena.add(&build(broken, shape, first, count)).map_err(too_large)?,
            None => root,
        };
        parts.entries[i].root = root.0;
        parts.entries[i].broken_root = broken_root.0;
        let cost = Cost {
            flat_rules: lowered.lists[i].rules.len(),
            boxes: entry.sound.len() + entry.broken.as_ref().map_or(0, Boxes::len),
            nodes: arena.nodes - nodes,
            leaves: arena.leaves - leaves,
            structure_bytes: arena.len() - bytes,
            depth: arena.depth,
            ..Cost::default()
        };
        costs.push((cost, begin.elapsed().as_secs_f64()));
    }
    Ok((arena, costs))
}

fn finish(
    ruleset: &Ruleset,
    lowered: &Lowered,
    mut parts: Parts,
    arena: Arena,
    costs: Vec<(Cost, f64)>,
    step: usize,
) -> Compiled {
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
        step,
    };
    let entries = lowered.lists.iter().zip(costs).map(|(list, (cost, seconds))| EntryCost {
        name: list.name.clone(),
        called: list.called,
        cost: Cost { rules: list.chain_rules, step, image_bytes: total.image_bytes, ..cost },
        seconds,
    });
    Compiled { image, cost: total, entries: entries.collect() }
}

/// All bounds of interface names that the rules set, rising.
fn interface_ranks(ruleset: &Ruleset) -> Result<Vec<u128>, CompileError> {
    let mut bounds = BTreeSet::new();
    let mut add = |name: &str, prefix: bool| {
        if let Some((first, end)) = interface_bounds(name, prefix) {
            bounds.insert(first);
            bounds.extend(end);
        }
    };
    for rule in ruleset.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules) {
        for test in [&rule.ip.in_interface, &rule.ip.out_interface] {
            if let Some(name) = &test.name {
                add(name, test.prefix);
            }
        }
        for extension in &rule.matches {
            for test in extension.match_meaning(ruleset.family).clauses.iter().flatten() {
                if let (
                    Field::PhysIn | Field::PhysOut | Field::InInterface | Field::OutInterface,
                    ValueSet::Interface { name, prefix },
                ) = (test.field, &test.set)
                {
                    add(name, *prefix);
                }
            }
        }
    }
    // Ranks are 16 bits in the key.
    if bounds.len() >= 0xffff {
        return Err(CompileError::TooManyInterfaces { bounds: bounds.len() });
    }
    Ok(bounds.into_iter().collect())
}

/// Says which entries take most of the forest.
fn heaviest(lowered: &Lowered, costs: &[(Cost, f64)]) -> String {
    let mut by_bytes: Vec<(usize, &str)> =
        costs.iter().zip(&lowered.lists).map(|((c, _), l)| (c.structure_bytes, &*l.name)).collect();
    by_bytes.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let shown: Vec<String> = by_bytes.iter().take(3).map(|(bytes, name)| format!("{name} {bytes}")).collect();
    shown.join(", ")
}
