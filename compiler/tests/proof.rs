//! Images are proved equal to their rules: every packet, not a sample.
//!
//! `HIPAC_CORPUS` names a folder of real rulesets and filter sets; without it the tests that read
//! them say so and pass.

mod common;

use common::{any_nasty, cases, compared, compile_roomy, corpus, files, images_of_all_sizes, read, read_as};
use hipac_bench_data::classbench::read_filters;
use hipac_bench_data::{FilterFamily, classbench_gen, ruleset_of};
use hipac_classifier::Image;
use hipac_compiler::Counting;
use hipac_rules::{Family, ParseOptions, Ruleset, parse};
use hipac_verifier::Oracle;
use hipac_verifier::proof::{Options, Proof, Refutation, prove};
use proptest::prelude::*;

#[track_caller]
fn check_proved(ruleset: &Ruleset, image: &[u8], counting: Counting, what: &str) -> Proof {
    let image = Image::open(image).expect("the compiler writes images that open");
    let options = Options { compared: compared(counting), ..Options::default() };
    match prove(ruleset, &image, &options) {
        Ok(proof) => proof,
        Err(refutation) => panic!("{what}, {counting:?}: {}", refutation.show(ruleset)),
    }
}

#[test]
fn a_small_ruleset_is_proved() {
    let ruleset = read(
        "*filter\n:FORWARD DROP\n:web -\n-A FORWARD -i eth0 -d 192.0.2.0/28 -p tcp -j web\n-A FORWARD -j LOG\n\
         -A web -p tcp --dport 80 -j ACCEPT\n-A web -s 203.0.113.0/24 -j RETURN\n\
         -A web -p tcp -m multiport --dports 443,8443 -j ACCEPT\nCOMMIT\n",
    );
    for counting in [Counting::Exact, Counting::Deciding] {
        let compiled = compile_roomy(&ruleset, counting);
        let proof = check_proved(&ruleset, &compiled.image, counting, "the rules");
        println!("{proof}");
    }
}

#[test]
fn every_real_ruleset_is_proved() {
    let Some(corpus) = corpus() else { return };
    let mut failed = Vec::new();
    for path in ["rulesets", "rulesets-fixed"].iter().flat_map(|f| files(&corpus.join(f))) {
        let text = std::fs::read(&path).expect("a readable file");
        let ruleset = parse(&text, &ParseOptions::default()).ruleset;
        let name = path.file_name().unwrap_or_default().display().to_string();
        if Oracle::new(&ruleset).is_err() {
            continue;
        }
        for counting in [Counting::Exact, Counting::Deciding] {
            let compiled = compile_roomy(&ruleset, counting);
            let image = Image::open(compiled.image).expect("the compiler writes images that open");
            let options = Options { compared: compared(counting), ..Options::default() };
            match prove(&ruleset, &image, &options) {
                Ok(proof) => println!("{name}: {proof}, {} probes, {:?}", proof.probes, proof.time),
                Err(refutation) => {
                    println!("{name}, {counting:?}: FAILED {}", refutation.show(&ruleset));
                    failed.push(name.clone());
                }
            }
        }
    }
    assert!(failed.is_empty(), "{} not proved: {failed:?}", failed.len());
}

#[test]
fn every_filter_set_of_the_literature_is_proved() {
    let Some(corpus) = corpus() else { return };
    for path in files(&corpus.join("classbench")) {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let Ok(filters) = read_filters(text.as_bytes()) else { continue };
        let ruleset = ruleset_of(&filters).expect("filters are rules");
        let compiled = compile_roomy(&ruleset, Counting::Exact);
        let name = path.file_name().unwrap_or_default().display().to_string();
        let proof = check_proved(&ruleset, &compiled.image, Counting::Exact, &name);
        println!("{name}: {proof}, {} stored, {} probes, {:?}", proof.stored, proof.probes, proof.time);
    }
}

#[test]
fn generated_sets_are_proved() {
    for family in [FilterFamily::Access, FilterFamily::Firewall, FilterFamily::Chain] {
        let options = classbench_gen::Options::new(3000, 7);
        let filters = classbench_gen::generate(&family.parameters(), &options).expect("filters");
        let ruleset = ruleset_of(&filters).expect("filters are rules");
        for compiled in images_of_all_sizes(&ruleset, Counting::Exact) {
            let proof = check_proved(&ruleset, &compiled.image, Counting::Exact, "generated");
            println!("{proof}, {} stored, {} probes, {:?}", proof.stored, proof.probes, proof.time);
        }
    }
}

/// `HIPAC_CASES` says how many (300).
fn cases_wanted() -> u32 {
    std::env::var("HIPAC_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

proptest! {
    #![proptest_config(cases(cases_wanted()))]
    #[test]
    fn nasty_rulesets_are_proved(nasty in any_nasty()) {
        let ruleset = read_as(&nasty.text, Some(nasty.family));
        for counting in [Counting::Exact, Counting::Deciding] {
            for compiled in images_of_all_sizes(&ruleset, counting) {
                check_proved(&ruleset, &compiled.image, counting, &nasty.text);
            }
        }
    }
}

#[test]
fn a_match_that_repeats_itself_is_proved() {
    // The second multiport drops no packet that the first has not dropped: one flat rule fewer.
    let ruleset = read(
        "*raw\n:PREROUTING ACCEPT\n:u1 -\n-A PREROUTING -j MARK --set-xmark 0x1/0xffffffff\n\
         -A PREROUTING -f -m mark --mark 0x1/0x3 -j u1\n-A u1 -m mark --mark 0x1/0x3 -j ACCEPT\n\
         -A u1 -s 10.0.0.0/8 ! -f -p udp -m multiport --ports 53,80 -m multiport --ports 53,80 \
         -m udp --dport 53 -j ACCEPT\nCOMMIT\n",
    );
    let compiled = compile_roomy(&ruleset, Counting::Exact);
    check_proved(&ruleset, &compiled.image, Counting::Exact, "the rules");
}

#[test]
fn a_small_ruleset_is_proved_in_well_under_a_millisecond() {
    let options = classbench_gen::Options::new(20, 3);
    let filters = classbench_gen::generate(&FilterFamily::Firewall.parameters(), &options).expect("filters");
    let ruleset = ruleset_of(&filters).expect("filters are rules");
    let compiled = compile_roomy(&ruleset, Counting::Exact);
    let image = Image::open(compiled.image.as_slice()).expect("an image");
    let begin = std::time::Instant::now();
    let calls = 2000;
    for _ in 0..calls {
        assert!(prove(&ruleset, &image, &Options::default()).is_ok());
    }
    let rate = f64::from(calls) / begin.elapsed().as_secs_f64();
    println!("{} rules: {rate:.0} proofs a second", ruleset.rule_count());
    // Tests of live tables prove after every step. (A loaded machine may take its time.)
    assert!(rate > 200.0, "{rate:.0} proofs a second");
}

/// Packets come to a chain with some values of a field only. Of what is stored for a rule outside of where it
/// holds, the first piece is nothing that they meet, and another one is.
#[test]
fn a_rule_of_a_called_chain_that_holds_elsewhere_is_refuted() {
    let rules = |rule: &str| {
        let text = format!(
            "*raw\n:PREROUTING DROP [0:0]\n:u1 - [0:0]\n-A PREROUTING -p udp -m recent ! --rcheck --name a --rsource -j u1\n\
             -A u1 {rule}\nCOMMIT\n"
        );
        read_as(&text, Some(Family::V6))
    };
    let image = compile_roomy(&rules("-s 2001:db8::1/128 ! -p tcp"), Counting::Exact).image;
    let image = Image::open(image).expect("it opens");
    let answer = prove(&rules("-p esp"), &image, &Options::default());
    assert!(matches!(answer, Err(Refutation::Differs { .. })), "{answer:?}");
}
