//! `hipac demo`: all of it on generated rules, for whoever sees it for the first time.

use std::io::Write;
use std::time::Instant;

use hipac_bench_data::{FilterFamily, TracePacket, classbench_gen, ruleset, trace};
use hipac_classifier::image::EntryRecord;
use hipac_classifier::{EntryId, Image, Packet};
use hipac_compiler::Options;
use hipac_verifier::proof::{self, prove};
use serde::Serialize;

use crate::args::Format;
use crate::exit::{Exit, Failure};
use crate::output::{self, bytes, grouped, seconds};
use crate::progress;

/// Memory allowed to the image.
const MEMORY_BYTES_MAX: usize = 64 << 20;

/// Packets classified against the clock.
const TRACE_PACKETS: u32 = 1_000_000;

pub(crate) fn run(seed: u64, rules: u32, format: Format) -> Result<Exit, Failure> {
    let busy = progress::spinner("generating rules");
    let filters = classbench_gen::generate(
        &FilterFamily::Access.parameters(),
        &classbench_gen::Options::new(rules, seed),
    )
    .map_err(Failure::new)?;
    let ruleset = ruleset::ruleset_of(&filters).map_err(Failure::new)?;

    busy.set_message("compiling");
    let begin = Instant::now();
    let options = Options { memory_bytes_max: MEMORY_BYTES_MAX, ..Options::default() };
    let compiled = hipac_compiler::compile(&ruleset, &options).map_err(Failure::new)?;
    let compile_s = begin.elapsed().as_secs_f64();
    let cost = compiled.cost;
    let image = Image::open(compiled.image).map_err(Failure::new)?;
    image.audit().map_err(Failure::new)?;

    busy.set_message("classifying");
    let points =
        trace::generate(&filters, &trace::Options::new(TRACE_PACKETS, seed)).map_err(Failure::new)?;
    let packets: Vec<Packet> = points.iter().copied().map(Packet::from).collect();
    let lookup_ns = lookup_ns(&image, &packets)?;
    let linear_ns = linear_ns(&filters, &points);

    busy.set_message("proving");
    let answer = prove(&ruleset, &image, &proof::Options { is_audited: true, ..proof::Options::default() });
    busy.finish_and_clear();
    let proof = answer.as_ref().ok();

    let facts = Facts {
        schema: "hipac.demo/1",
        rules: cost.rules,
        compile_s,
        structure_bytes: cost.structure_bytes,
        image_bytes: cost.image_bytes,
        memory_bytes_max: MEMORY_BYTES_MAX,
        proved: proof.is_some(),
        header_bits: proof.map(|p| p.header_bits),
        regions: proof.map(|p| p.regions),
        prove_s: proof.map(|p| p.time.as_secs_f64()),
        lookup_ns,
        linear_ns,
    };
    let mut out = output::stdout();
    match format {
        Format::Json => output::json_line(&mut out, &facts)?,
        Format::Text => {
            facts.text(&mut out, seed)?;
            if let Err(refutation) = &answer {
                writeln!(out, "\n{}", refutation.show(&ruleset))?;
            }
        }
    }
    out.flush()?;
    Ok(if answer.is_ok() { Exit::Clean } else { Exit::Findings })
}

/// The median of several passes over all packets, keys made beforehand.
fn lookup_ns(image: &Image<Vec<u8>>, packets: &[Packet]) -> Result<f64, Failure> {
    let entry: EntryId =
        image.find_entry("filter/FORWARD").ok_or_else(|| Failure::new("the image has no filter/FORWARD"))?;
    let record: EntryRecord = image.entry(entry).ok_or_else(|| Failure::new("the image has no entries"))?;
    let keys = image.key_maker().keys(packets);
    let forest = image.forest(&record, true);
    let passes = (0..5).map(|_| {
        let begin = Instant::now();
        let mut sum = 0u64;
        for i in 0..keys.len() {
            sum = sum.wrapping_add(forest.first_match(keys.get(i), 0).into());
        }
        std::hint::black_box(sum);
        begin.elapsed().as_nanos() as f64 / keys.len() as f64
    });
    Ok(median(passes.collect()))
}

/// The same by walking the filters one after the other, on a few packets.
fn linear_ns(filters: &[hipac_bench_data::Filter], points: &[TracePacket]) -> f64 {
    let points = &points[..points.len().min(200)];
    let begin = Instant::now();
    for point in points {
        std::hint::black_box(filters.iter().position(|f| f.contains(point)));
    }
    begin.elapsed().as_nanos() as f64 / points.len() as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[derive(Serialize)]
struct Facts {
    schema: &'static str,
    rules: usize,
    compile_s: f64,
    structure_bytes: usize,
    image_bytes: usize,
    memory_bytes_max: usize,
    proved: bool,
    header_bits: Option<u32>,
    regions: Option<u64>,
    prove_s: Option<f64>,
    lookup_ns: f64,
    linear_ns: f64,
}

impl Facts {
    fn text(&self, out: &mut impl Write, seed: u64) -> Result<(), Failure> {
        let per_rule = self.structure_bytes as f64 / self.rules as f64;
        let rows = [
            ("rules", grouped(self.rules), format!("an access list, drawn from seed {seed}")),
            ("compiled in", seconds(self.compile_s), "into one search structure".to_owned()),
            ("structure", bytes(self.structure_bytes), format!("{per_rule:.1} bytes a rule")),
            (
                "image",
                bytes(self.image_bytes),
                format!("all that a lookup needs; {} were allowed", bytes(self.memory_bytes_max)),
            ),
            (
                "one lookup",
                format!("{:.0} ns", self.lookup_ns),
                format!("walking the rules one by one takes {} ns", grouped(self.linear_ns as usize)),
            ),
            match (self.header_bits, self.regions, self.prove_s) {
                (Some(bits), Some(regions), Some(prove_s)) => (
                    "proved",
                    format!("2^{bits} headers"),
                    format!(
                        "each of them in its region, of {}, does what the rules say; in {}",
                        grouped(regions as usize),
                        seconds(prove_s)
                    ),
                ),
                _ => (
                    "proved",
                    "no".to_owned(),
                    "the image differs from its rules, as below: please report it".to_owned(),
                ),
            },
        ];
        for (what, value, note) in rows {
            writeln!(out, "  {what:<12}{value:>16}   {note}")?;
        }
        writeln!(
            out,
            "\nNext: hipac check FILE; hipac compile FILE -o IMAGE; hipac classify IMAGE --packet \"…\""
        )?;
        Ok(())
    }
}
