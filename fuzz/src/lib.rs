//! What the fuzz targets share: rulesets held against the oracle, and images to damage.

#[path = "../../compiler/tests/common/nasty.rs"]
#[allow(unreachable_pub, dead_code)]
mod nasty;

use std::fmt;
use std::sync::OnceLock;

use hipac_bench_data::iptables_gen;
use hipac_classifier::Image;
use hipac_compiler::lower::LowerError;
use hipac_compiler::{CompileError, Counting, Options, compile};
use hipac_rules::{Family, ParseOptions, Ruleset, parse};
use hipac_verifier::{By, Case, Drawer, Evaluation, ImageSubject, Oracle, Subject};

/// Limits under which a text of some kilobytes cannot become much more than it is.
pub fn small() -> ParseOptions {
    ParseOptions {
        text_bytes_max: 1 << 20,
        rule_count_max: 10_000,
        chain_count_max: 10_000,
        rules_of_line_max: 256,
        edit_steps_max: 1 << 20,
        ..ParseOptions::default()
    }
}

/// The text and family of the nasty ruleset that these bytes choose.
pub fn nasty_text(choices: &[u8]) -> (String, Family) {
    let nasty = nasty::nasty(choices);
    (nasty.text, nasty.family)
}

/// Packets of each comparison: few, since the rules change with every input.
const PACKETS: usize = 48;

/// Compiles at a size that `seed` chooses, and compares with the oracle. Panics when they differ.
pub fn hold(ruleset: &Ruleset, seed: u64) {
    let Ok(oracle) = Oracle::new(ruleset) else { return };
    let options = Options { counting: Counting::Exact, ..Options::default() };
    let memory_bytes_max = if seed & 1 == 0 {
        options.memory_bytes_max
    } else {
        match compile(ruleset, &Options { memory_bytes_max: 0, ..options }) {
            Err(CompileError::Memory { needed, .. }) => needed,
            // Limits other than memory are refusals too.
            _ => return,
        }
    };
    let compiled = match compile(ruleset, &Options { memory_bytes_max, ..options }) {
        Ok(compiled) => compiled,
        Err(CompileError::Memory { needed, .. }) => {
            panic!("{needed} bytes needed, {memory_bytes_max} allowed")
        }
        Err(CompileError::Lower(error)) if is_disagreement(&error) => panic!("the oracle takes it: {error}"),
        Err(_) => return,
    };
    let image = Image::open(compiled.image).expect("the compiler writes images that open");
    image.audit().expect("the compiler writes images that pass the audit");
    let subject = ImageSubject::new(image, ruleset).expect("the image comes from these rules");
    let drawer = Drawer::new(&oracle, seed);
    for case in drawer.block(0).into_iter().take(PACKETS) {
        let expected = answer(&oracle, &case);
        // Chains that call each other exponentially take a second a packet: one is enough.
        if expected.verdict.by == By::GivenUp {
            return;
        }
        let found = answer(&subject, &case);
        assert!(
            expected == found,
            "{}",
            Difference { ruleset, case: &case, expected: &expected, found: &found }
        );
    }
}

/// The compiler refuses rules that the oracle evaluates, and not for want of room.
fn is_disagreement(error: &LowerError) -> bool {
    matches!(error, LowerError::NoSuchChain { .. } | LowerError::Loop { .. })
}

fn answer(subject: &dyn Subject, case: &Case) -> Evaluation {
    subject.evaluate(case.table, case.hook, &case.packet, &mut case.outcomes.play())
}

struct Difference<'a> {
    ruleset: &'a Ruleset,
    case: &'a Case,
    expected: &'a Evaluation,
    found: &'a Evaluation,
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", hipac_rules::print(self.ruleset, &Default::default()))?;
        writeln!(f, "{:?}", self.case)?;
        for (name, evaluation) in [("oracle ", self.expected), ("subject", self.found)] {
            write!(f, "{name} {}:", evaluation.verdict.show(self.ruleset))?;
            evaluation.events.iter().try_for_each(|e| write!(f, " {};", e.show(self.ruleset)))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Images of all kinds to begin from: both families, nodes and roots, calls, programs.
pub fn real_images() -> &'static [Vec<u8>] {
    static IMAGES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let sizes = [(Family::V4, 12), (Family::V6, 12), (Family::V4, 120), (Family::V6, 400)];
        let made = sizes.map(|(family, rules)| {
            let text =
                iptables_gen::generate(&iptables_gen::Options::new(family, rules, 5)).unwrap_or_default();
            compile(&parse(&text, &ParseOptions::default()).ruleset, &Options::default())
        });
        made.into_iter().filter_map(|c| Some(c.ok()?.image)).collect()
    })
}
