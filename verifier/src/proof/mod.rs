//! The proof: an image does for every packet what its rules say.
//!
//! ```text
//!   Ruleset ──walk──▶ what each rule wants, in order ─┐
//!                         │ paired                    │ a condition is a set of boxes
//!   image ──▶ flat rules, programs                    ▼
//!         └─▶ forest ──every region──▶ boxes stored ──equal, but for what is hidden
//! ```
//!
//! A sample of packets is evidence; this is all of them. It has two steps, for every entry of an image:
//!
//! 1. **The list of flat rules is the chain** (`walk`, `program`). The chains are walked as the oracle does
//!    it, with conditions for packets, beside the image's list. Each flat rule must come from the rule
//!    that stands there, ask its residual matches in order, change what it changes, and end as it ends:
//!    verdict, RETURN, call, policy.
//! 2. **The forest finds the list** (`forest`, `cover`). In every region, what is stored for a flat rule lies
//!    in its condition, and all of its condition is stored or hidden by earlier rules. No gate, smallest
//!    position or order in a leaf lets a lookup pass over it.
//!
//! Together: a lookup from any position that an evaluation can come to finds the first flat rule there whose
//! condition holds, so the evaluation goes the way that the oracle goes.
//!
//! What this takes for granted: the code here; that reading an image (`Leaf`, `Node`, `Root` of the
//! classifier) reads what lookups read; and `Image::first_match` and
//! `Image::evaluate` as the definitions say they are. Machines other than the scalar one are held
//! to it by tests. It shares no code with the compiler.
//!
//! A proof that fails names a place, and a packet that rules and image treat differently wherever
//! one was found; that packet has been put to both. Where nothing is equal in form, but no packet
//! shows a difference, it says that: not proved.
//!
//! # Cost
//!
//! Near linear in the image: each stored box is looked at once, each copy of a rule is probed about once.

mod boxes;
mod condition;
mod cover;
mod forest;
mod members;
mod names;
mod program;
mod ranges;
mod read_back;
mod space;
mod walk;
mod witness;

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use hipac_classifier::forest::Ref;
use hipac_classifier::image::Section;
use hipac_classifier::{Dim, EntryId, Image, OriginId};
use hipac_rules::{Family, Hook, Ruleset, TableKind};

use crate::agree::Compared;
use crate::draw::Drawer;
use crate::{Oracle, OracleError, RuleId};
use cover::{Cover, Finding, Kind};
use forest::Forest;
use members::Members;
use names::Names;
pub use read_back::{NOT_KEPT, ReadBack, Unreadable, read_back};
use space::{ALL_STATES, Space};
use walk::{Fault, GaveUp, List, Walks};
pub use witness::{Assumed, Witness};
use witness::{Seeker, Sides};

/// How a proof is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The matches that an image must report.
    pub compared: Compared,
    /// Probes of the forest, at most, for each flat rule and box of the image; a right image takes one
    /// to three.
    pub probes_per_box: u32,
    /// Packets drawn to find one that shows a difference, when the proof has failed and its own
    /// search found none.
    pub packets: u64,
    /// The image has passed its audit already: it is not done again.
    pub is_audited: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { compared: Compared::All, probes_per_box: 256, packets: 4_000, is_audited: false }
    }
}

/// What was proved.
#[derive(Debug, Clone, PartialEq)]
pub struct Proof {
    /// Built-in chains.
    pub chains: usize,
    /// Lists that are called from there.
    pub called: usize,
    /// Rules of the ruleset.
    pub rules: usize,
    /// Flat rules of the image.
    pub flat_rules: usize,
    /// Boxes of their conditions.
    pub boxes: usize,
    /// Regions of the forests: leaves, and places where there is no rule.
    pub regions: u64,
    /// Boxes stored in leaves.
    pub stored: u64,
    /// Probes.
    pub probes: u64,
    /// Bits of the packets' fields that some rule looks at, the state of the transport header left
    /// out: so many times two headers.
    pub header_bits: u32,
    /// What it took.
    pub time: Duration,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |n: usize, one: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") };
        write!(
            f,
            "equal for all 2^{} headers of {}: {}, {}, {} regions",
            self.header_bits,
            plural(self.chains, "chain"),
            plural(self.rules, "rule"),
            plural(self.flat_rules, "flat rule"),
            self.regions,
        )
    }
}

/// Why there is no proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refutation {
    /// The ruleset cannot be evaluated.
    Rules(OracleError),
    /// The image is of other rules altogether.
    Stranger(String),
    /// A packet is treated differently.
    Differs {
        /// Where in the image, and what is wrong there.
        place: String,
        /// The packet.
        witness: Box<Witness>,
    },
    /// Something is not as it must be; no packet was found that shows it.
    NotProved {
        /// Where in the image, and what.
        place: String,
    },
}

impl Refutation {
    /// The packet that shows it.
    pub fn witness(&self) -> Option<&Witness> {
        match self {
            Refutation::Differs { witness, .. } => Some(witness),
            _ => None,
        }
    }

    /// In words, with the witness.
    pub fn show<'a>(&'a self, ruleset: &'a Ruleset) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| match self {
            Refutation::Rules(error) => write!(f, "{error}"),
            Refutation::Stranger(what) => write!(f, "the image was not compiled from these rules: {what}"),
            Refutation::Differs { place, witness } => {
                write!(f, "image and rules differ\n{}\n    at       {place}", witness.show(ruleset))
            }
            Refutation::NotProved { place } => {
                write!(f, "not proved: {place}; no packet was found that shows a difference")
            }
        })
    }
}

/// Proves that an image does what its rules say, or says where it does not.
///
/// ```
/// # use hipac_classifier::Image;
/// # use hipac_rules::Ruleset;
/// use hipac_verifier::proof::{Options, prove};
///
/// fn must_be_equal(rules: &Ruleset, image: &Image<Vec<u8>>) {
///     if let Err(refutation) = prove(rules, image, &Options::default()) {
///         panic!("{}", refutation.show(rules));
///     }
/// }
/// ```
///
/// # Cost
/// Nothing is set up before: of 20 rules, thousands of proofs a second
/// (`a_small_ruleset_is_proved_in_well_under_a_millisecond`). Else see [the module](self); 50 bytes a flat rule and 8 a dimension of the key besides.
///
/// # Errors
/// A difference with a packet that shows it; something that cannot be proved; or rules that cannot be
/// evaluated at all.
pub fn prove<B: AsRef<[u8]>>(
    ruleset: &Ruleset,
    image: &Image<B>,
    options: &Options,
) -> Result<Proof, Refutation> {
    let begin = Instant::now();
    let oracle = Oracle::new(ruleset).map_err(Refutation::Rules)?;
    if image.is_v6() != (ruleset.family == Family::V6) {
        return Err(Refutation::Stranger("the families differ".into()));
    }
    let rules = rules_of(ruleset, image);
    let sides = Sides { oracle: &oracle, image, rules: &rules, compared: options.compared };
    let prover = Prover { ruleset, image, options, rules: &rules, sides: &sides };
    let mut proof = prover.run()?;
    proof.time = begin.elapsed();
    Ok(proof)
}

/// The rule of each origin of an image; none where the ruleset has no such rule.
fn rules_of<B: AsRef<[u8]>>(ruleset: &Ruleset, image: &Image<B>) -> Vec<Option<RuleId>> {
    let mut lists: HashMap<u32, Option<(TableKind, usize, usize)>> = HashMap::new();
    let mut out = Vec::new();
    while let Some(origin) = image.origin(OriginId(out.len() as u32)) {
        let list = *lists.entry(origin.list).or_insert_with(|| {
            let (table, chain) = image.name(origin.list).split_once('/')?;
            let table = ruleset.table(TableKind::from_name(table)?)?;
            let index = table.chain_index(chain)?;
            Some((table.kind, index, table.chains[index].rules.len()))
        });
        out.push(list.and_then(|(table, chain, count)| {
            let number = (origin.number as usize).checked_sub(1).filter(|&n| n < count)?;
            RuleId::new(table, chain, number)
        }));
    }
    out
}

struct Prover<'a, B> {
    ruleset: &'a Ruleset,
    image: &'a Image<B>,
    options: &'a Options,
    rules: &'a [Option<RuleId>],
    sides: &'a Sides<'a, B>,
}

/// An entry, and the table and chain of the ruleset that it stands for.
type Start = (EntryId, (usize, usize));

/// What went wrong so far without a packet that shows it.
#[derive(Default)]
struct Doubts {
    first: Option<String>,
}

impl Doubts {
    fn add(&mut self, place: impl FnOnce() -> String) {
        self.first.get_or_insert_with(place);
    }
}

/// Findings of one forest that are looked into, at most.
const FINDINGS_MAX: usize = 64;

impl<B: AsRef<[u8]>> Prover<'_, B> {
    fn run(&self) -> Result<Proof, Refutation> {
        let starts = self.starts()?;
        let tested = walk::names_tested(self.ruleset);
        let names = Names::new(tested.iter().map(|(n, p)| (&**n, *p)), self.image.key_maker().ranks());
        let mut doubts = Doubts::default();
        let members = Members::new(self.ruleset, self.image);
        if let Some(missing) = members.missing.first() {
            doubts.add(|| format!("the image has no set that holds what `{missing}` holds"));
            return Err(self.search(doubts));
        }
        let Some(space) = Space::new(self.image, names, members, self.ruleset.family) else {
            doubts.add(|| "the slots of the key make no sense".into());
            return Err(self.search(doubts));
        };
        let lists = match self.lists(&space, &starts, &mut doubts) {
            Ok(lists) => lists,
            Err(gave_up) => {
                doubts.add(|| self.say(&gave_up));
                return Err(self.search(doubts));
            }
        };
        let mut proof = Proof {
            chains: starts.len(),
            called: lists.len() - starts.len(),
            rules: self.ruleset.rule_count(),
            flat_rules: lists.iter().map(|l| l.slots.len()).sum(),
            boxes: lists.iter().map(|l| l.boxes.len()).sum(),
            regions: 0,
            stored: 0,
            probes: 0,
            header_bits: space.header_bits(bits_of),
            time: Duration::ZERO,
        };
        let seeker = Seeker { sides: self.sides, space: &space, lists: &lists };
        for list in 0..lists.len() {
            self.list(&space, &seeker, &lists, list, &mut proof, &mut doubts)?;
        }
        // What readers rely on besides: that references lead upward, say, and walks end.
        if !self.options.is_audited
            && let Err(error) = self.image.audit()
        {
            doubts.add(|| error.to_string());
        }
        match doubts.first {
            None => Ok(proof),
            Some(_) => Err(self.search(doubts)),
        }
    }

    /// The entry of every built-in chain, and the chain.
    fn starts(&self) -> Result<Vec<Start>, Refutation> {
        let mut starts = Vec::new();
        for (t, table) in self.ruleset.tables.iter().enumerate() {
            for (c, chain) in table.chains.iter().enumerate().filter(|(_, chain)| chain.hook.is_some()) {
                let name = format!("{}/{}", table.kind.name(), chain.name);
                let entry = self.image.find_entry(&name);
                let entry = entry.ok_or_else(|| Refutation::Stranger(format!("it has no {name}")))?;
                starts.push((entry, (t, c)));
            }
        }
        // What the image answers for, the rules must say something about.
        let is_known = |name: &str| {
            name.split_once('/').is_some_and(|(table, chain)| {
                let table = TableKind::from_name(table).and_then(|kind| self.ruleset.table(kind));
                Hook::from_name(chain).is_none() || table.is_some()
            })
        };
        match self.image.entries().find(|(_, record, name)| !record.called && !is_known(name)) {
            Some((.., name)) => Err(Refutation::Stranger(format!("they have no {name}"))),
            None => Ok(starts),
        }
    }

    /// Walks of all entries that packets come to.
    fn lists(&self, space: &Space, starts: &[Start], doubts: &mut Doubts) -> Result<Vec<List>, GaveUp> {
        let walks = Walks {
            ruleset: self.ruleset,
            image: self.image,
            space,
            rules: self.rules,
            may_leave_out: self.options.compared == Compared::Deciding,
        };
        let mut meant: HashMap<EntryId, (usize, usize)> = starts.iter().copied().collect();
        let mut waiting: Vec<Start> = starts.iter().rev().copied().collect();
        let mut lists: Vec<List> = Vec::new();
        while let Some((entry, chain)) = waiting.pop() {
            let list = walks.list(entry, chain)?;
            for &(position, entry, called) in &list.calls {
                let called = (chain.0, called);
                let old = *meant.entry(EntryId(entry)).or_insert_with(|| {
                    waiting.push((EntryId(entry), called));
                    called
                });
                if old != called {
                    doubts.add(|| format!("position {position} calls entry {entry}, which is another chain"));
                }
            }
            lists.push(list);
        }
        let changing = walk::changing(&lists, self.image.entry_count());
        for list in &mut lists {
            walk::note_changes(list, &changing);
            list.until = walk::until(list, &changing);
        }
        // Sets may look at marks, which rules change.
        let sets = (0..Dim::SETS).filter_map(Dim::of_sets);
        let changeable = walk::CHANGEABLE.into_iter().chain(sets);
        let changeable: Vec<usize> = changeable.filter_map(|d| space.axis_of(d)).collect();
        walk::find_domains(&mut lists, &changing, &space.everything(), &changeable);
        Ok(lists)
    }

    /// Both forests of a list.
    fn list(
        &self,
        space: &Space,
        seeker: &Seeker<'_, B>,
        lists: &[List],
        number: usize,
        proof: &mut Proof,
        doubts: &mut Doubts,
    ) -> Result<(), Refutation> {
        let list = &lists[number];
        let Some(record) = self.image.entry(list.entry) else {
            doubts.add(|| format!("there is no entry {}", list.entry.0));
            return Ok(());
        };
        let sides: &[(u32, u8, (u32, u32))] = match record.root == record.broken_root {
            true => &[(record.root, ALL_STATES, (0, 6))],
            false => &[(record.root, 0b11, (0, 1)), (record.broken_root, ALL_STATES & !0b11, (2, 6))],
        };
        let arena = self.image.section(Section::Arena);
        for &(root, states, l4) in sides {
            let mut region = space.everything();
            if let Some(axis) = space.axis_of(Dim::L4) {
                region[axis] = l4;
            }
            let forest = Forest::new(arena, Ref(root), space, region);
            let boxes = (list.slots.len() + list.boxes.len() + 1024) as u64;
            let probes_max = boxes * u64::from(self.options.probes_per_box);
            let probes = Cell::new(0);
            let cover = Cover { space, list, forest: &forest, states, probes_max, probes };
            let mut refutation = None;
            let mut findings = 0;
            let mut look_into = |finding: Finding| {
                findings += 1;
                if refutation.is_some() {
                    return false;
                }
                refutation = self.look_into(seeker, number, &forest, states, &finding, doubts);
                refutation.is_none() && findings < FINDINGS_MAX
            };
            let (seen, damage) = cover.run(&mut look_into);
            if !self.has_right_end(list)
                && let Some(piece) = cover.reaches_end()
            {
                let position = list.first + list.slots.len() as u32;
                look_into(Finding { kind: Kind::Default, position, piece, at: None });
            }
            if let Some(refutation) = refutation {
                return Err(refutation);
            }
            if let Some(damage) = damage {
                doubts.add(|| format!("{}: {}", self.image.name(record.name), damage.0));
            }
            proof.regions += seen.regions;
            proof.stored += seen.stored;
            proof.probes += cover.probes.get();
        }
        Ok(())
    }

    /// A built-in chain ends with its policy; what is called, with its caller.
    fn has_right_end(&self, list: &List) -> bool {
        let chain = &self.ruleset.tables[list.chain.0].chains[list.chain.1];
        let verdict = self.image.entry(list.entry).map(|r| self.image.verdict_name(r.default_verdict));
        chain.policy.is_none_or(|policy| verdict == Some(policy.name()))
    }

    /// Looks for a packet that shows a finding.
    fn look_into(
        &self,
        seeker: &Seeker<'_, B>,
        list: usize,
        forest: &Forest<'_>,
        states: u8,
        finding: &Finding,
        doubts: &mut Doubts,
    ) -> Option<Refutation> {
        let rule = match &finding.kind {
            Kind::Flat(Fault::Missing(r) | Fault::Differs(r) | Fault::Lands(r, _) | Fault::Changes(r)) => {
                Some(*r)
            }
            _ => {
                let l = &seeker.lists[list];
                let index = finding.position.checked_sub(l.first)? as usize;
                l.slots.get(index).and_then(|slot| slot.rule)
            }
        };
        let settle = |point: &mut [u32], piece: &boxes::Bounds| forest.settle(point, piece);
        let place = || self.place(seeker, list, finding, rule);
        match seeker.seek(list, &finding.piece, states, rule, &settle) {
            Some(witness) => Some(Refutation::Differs { place: place(), witness: Box::new(witness) }),
            None => {
                doubts.add(place);
                None
            }
        }
    }

    /// Where a finding is, and what it is.
    fn place(&self, seeker: &Seeker<'_, B>, list: usize, finding: &Finding, rule: Option<RuleId>) -> String {
        use fmt::Write;
        let entry = self.image.entry(seeker.entry(list)).map_or("?", |r| self.image.name(r.name));
        let mut out = format!("{entry}, position {}", finding.position);
        if let Some(rule) = rule {
            let _ = write!(out, " ({})", rule.place(self.ruleset));
        }
        let _ = write!(
            out,
            ": {}",
            match &finding.kind {
                Kind::Extra => "stored where its rule does not hold",
                Kind::NotStored => "not stored where its rule holds",
                Kind::TurnedAway => "a gate turns away packets that its rule holds for",
                Kind::Late => "a gate or smallest position is behind it",
                Kind::Disordered => "stands behind a later rule",
                Kind::Flat(Fault::Missing(_)) => "the rule before it is missing",
                Kind::Flat(Fault::Differs(_)) => "does something else than its rule",
                Kind::Flat(Fault::Lands(..)) => "leads to another place than its rule",
                Kind::Flat(Fault::Changes(_)) => "changes packets in an unfolded chain",
                Kind::Default => "the end is not the policy",
                Kind::TooMuchWork => "given up: its boxes are in too many pieces",
            }
        );
        if let Some(at) = finding.at {
            let _ = match at.cell {
                Some((tree, cell)) => write!(out, "; tree {tree}, cell {cell}, leaf at {}", at.offset),
                None => write!(out, "; leaf at {}", at.offset),
            };
        }
        for (axis, (&(lo, hi), a)) in finding.piece.iter().zip(&seeker.space.axes).enumerate() {
            if (lo, hi) != (0, a.max) {
                let sign = if axis == 0 { ";" } else { "," };
                let _ = match lo == hi {
                    true => write!(out, "{sign} {} {lo:#x}", a.dim.name()),
                    false => write!(out, "{sign} {} {lo:#x}–{hi:#x}", a.dim.name()),
                };
            }
        }
        out
    }

    fn say(&self, gave_up: &GaveUp) -> String {
        match gave_up {
            GaveUp::Boxes(rule) => {
                format!("{} is too many boxes to look at one by one", rule.place(self.ruleset))
            }
            GaveUp::Matches(rule) => {
                format!("{} has more matches than a program can name", rule.place(self.ruleset))
            }
            GaveUp::Steps => "the image has far fewer flat rules than its rules become".into(),
        }
    }

    /// The proof has failed and found no packet itself: some are drawn.
    fn search(&self, doubts: Doubts) -> Refutation {
        let place = doubts.first.unwrap_or_default();
        let drawer = Drawer::new(self.sides.oracle, 1);
        let mut left = self.options.packets;
        for number in 0.. {
            let cases = drawer.block(number);
            if left == 0 || cases.is_empty() {
                break;
            }
            for case in cases {
                let assumed = Assumed::Script(case.outcomes);
                if let Some(witness) = self.sides.tell(case.table, case.hook, &case.packet, &assumed) {
                    let witness = Box::new(self.sides.plainer(witness));
                    return Refutation::Differs { place, witness };
                }
                left = left.saturating_sub(1);
            }
        }
        Refutation::NotProved { place }
    }
}

/// Bits of what a dimension stands for.
fn bits_of(dim: Dim) -> u32 {
    match dim {
        // Fifteen bytes of a name.
        Dim::InInterface | Dim::OutInterface | Dim::PhysIn | Dim::PhysOut | Dim::Helper => 120,
        Dim::L4 => 0,
        _ => 32 - dim.max().leading_zeros(),
    }
}
