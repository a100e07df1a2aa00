//! The budget: which regions are built how small.
//!
//! Everything is built in the fastest shape first. When that does not fit, each region is
//! measured in every shape, and the ones that save most bytes for the visits they cost are
//! built smaller, one step at a time, until the rest fits. Smaller root tables come after that,
//! and in the end no root and plain lists; what does not even fit then is refused.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::build::Shape;
use super::root::{Measure, Sketch};

/// Cells that root tables have for each box at most, from the fastest to the smallest. 0: no root.
pub const ROOT_SIZES: [f64; 7] = [4.0, 0.5, 0.1, 0.02, 0.004, 0.000_5, 0.0];

/// How one sketch is to be built.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Steps {
    /// The step of each region that is not in the fastest shape: few, as a rule.
    steps: Vec<u8>,
}

impl Steps {
    /// The shape of a region.
    pub fn shape(&self, region: usize) -> &'static Shape {
        &Shape::LADDER[self.step(region)]
    }

    fn step(&self, region: usize) -> usize {
        self.steps.get(region).copied().unwrap_or(0).into()
    }

    /// Regions at each step.
    pub fn counts(&self, regions: usize) -> [usize; Shape::LADDER.len()] {
        let mut counts = [0; Shape::LADDER.len()];
        (0..regions).for_each(|region| counts[self.step(region)] += 1);
        counts
    }
}

/// All regions of all sketches in every shape.
pub struct Measured {
    /// By sketch, the regions that have more boxes than one leaf in any shape: the others, which
    /// are most, are the same in all of them.
    all: Vec<Vec<Region>>,
    /// How many regions each sketch has.
    counts: Vec<usize>,
    /// Bytes besides these regions.
    fixed: usize,
    /// Visits in the other regions, each as many times as it has boxes, and the boxes.
    fixed_visits: (f64, f64),
}

/// A region in every shape.
#[derive(Debug, Clone, Copy)]
struct Region {
    /// Which one of its sketch.
    number: u32,
    /// By step.
    measures: [Measure; Shape::LADDER.len()],
    /// Its boxes.
    boxes: u32,
}

/// One region made one step smaller: what that saves and costs.
struct Saving {
    sketch: usize,
    /// Its place in [`Measured::all`].
    region: usize,
    step: usize,
    bytes: usize,
    /// Expected visits, of all lookups, for each byte saved.
    price: f64,
}

impl Ord for Saving {
    /// The cheapest is the greatest: a heap gives it first. Ties go by place.
    fn cmp(&self, other: &Self) -> Ordering {
        other.price.total_cmp(&self.price).then_with(|| {
            (other.sketch, other.region, other.step).cmp(&(self.sketch, self.region, self.step))
        })
    }
}

impl PartialOrd for Saving {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Saving {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Saving {}

impl Measured {
    /// Builds every region in every shape, and keeps the measures only.
    pub fn new(sketches: &[Sketch<'_>]) -> Measured {
        let one_leaf = Shape::LADDER.iter().map(|shape| shape.leaf_rules).min().unwrap_or(0);
        let fixed = sketches.iter().map(Sketch::table_bytes).sum();
        let mut measured = Measured { all: vec![], counts: vec![], fixed, fixed_visits: (0.0, 0.0) };
        for sketch in sketches {
            let (large, small): (Vec<u32>, Vec<u32>) =
                (0..sketch.region_count() as u32).partition(|&region| sketch.box_count(region) > one_leaf);
            for (&region, measure) in small.iter().zip(sketch.measure(&Shape::LADDER[0], &small)) {
                let boxes = sketch.box_count(region) as f64;
                measured.fixed += measure.bytes as usize;
                measured.fixed_visits.0 += f64::from(measure.visits) * boxes;
                measured.fixed_visits.1 += boxes;
            }
            drop(small);
            // Step by step into the same place: measures of all steps at once would take as much again.
            let region = |&number: &u32| Region {
                number,
                measures: Default::default(),
                boxes: sketch.box_count(number) as u32,
            };
            let mut regions: Vec<Region> = large.iter().map(region).collect();
            for (step, shape) in Shape::LADDER.iter().enumerate() {
                let measures = sketch.measure(shape, &large);
                regions.iter_mut().zip(measures).for_each(|(region, m)| region.measures[step] = m);
            }
            measured.all.push(regions);
            measured.counts.push(sketch.region_count());
        }
        measured
    }

    /// Steps for all regions so that they take about `bytes_max` bytes, if they can.
    pub fn choose(&self, bytes_max: usize) -> Vec<Steps> {
        let mut steps: Vec<Steps> =
            self.counts.iter().map(|&regions| Steps { steps: vec![0; regions] }).collect();
        let mut total =
            self.fixed + self.all.iter().flatten().map(|r| r.measures[0].bytes as usize).sum::<usize>();
        let mut heap: BinaryHeap<Saving> = BinaryHeap::new();
        for (sketch, regions) in self.all.iter().enumerate() {
            heap.extend((0..regions.len()).filter_map(|region| self.saving(sketch, region, 0)));
        }
        while total > bytes_max {
            let Some(saving) = heap.pop() else { break };
            total -= saving.bytes;
            let number = self.all[saving.sketch][saving.region].number;
            steps[saving.sketch].steps[number as usize] = saving.step as u8;
            heap.extend(self.saving(saving.sketch, saving.region, saving.step));
        }
        steps
    }

    /// The next step of a region that saves anything.
    fn saving(&self, sketch: usize, region: usize, from: usize) -> Option<Saving> {
        let Region { measures, boxes, .. } = self.all[sketch][region];
        let here = measures[from];
        let all = (from + 1..Shape::LADDER.len()).filter(|&step| measures[step].bytes < here.bytes);
        let savings = all.map(|step| {
            let bytes = (here.bytes - measures[step].bytes) as usize;
            let slower = f64::from((measures[step].visits - here.visits).max(0.0)) * f64::from(boxes);
            Saving { sketch, region, step, bytes, price: slower / bytes as f64 }
        });
        savings.max()
    }

    /// Expected visits of a lookup, were regions met as their boxes are many. Without steps, in
    /// the fastest shape.
    pub fn visits(&self, steps: &[Steps]) -> f64 {
        let (mut visits, mut boxes) = self.fixed_visits;
        for (i, regions) in self.all.iter().enumerate() {
            for region in regions {
                let number = region.number as usize;
                let measure = region.measures[steps.get(i).map_or(0, |s| s.step(number))];
                visits += f64::from(measure.visits) * f64::from(region.boxes);
                boxes += f64::from(region.boxes);
            }
        }
        if boxes > 0.0 { visits / boxes } else { 0.0 }
    }
}
