//! Certificates: written for what the compiler makes, accepted by the second checker, and refused where
//! anything is not so.
//!
//! `HIPAC_CORPUS` names a folder of real rulesets and filter sets; without it the tests that read
//! them say so and pass.

mod common;

use common::exam::Exam;
use common::{
    Numbers, changed_rules, compared, compile_roomy, corpus, files, images_of_all_sizes, read_as, seal,
};
use hipac_bench_data::classbench::read_filters;
use hipac_bench_data::{FilterFamily, classbench_gen, ruleset_of};
use hipac_classifier::Image;
use hipac_classifier::forest::root::{CELL_BYTES, Root};
use hipac_classifier::forest::{Ref, UNIT};
use hipac_classifier::image::Section;
use hipac_compiler::{Counting, Options, compile};
use hipac_rules::{ParseOptions, Ruleset, parse};
use hipac_verifier::certificate::{Checked, Refused, check, write};
use hipac_verifier::proof::prove;
use hipac_verifier::{Compared, ImageSubject, Oracle};

/// Writes a certificate and has it checked.
fn certified(
    ruleset: &Ruleset,
    text: &[u8],
    image: &[u8],
    of: Compared,
) -> Result<(Vec<u8>, Checked), Refused> {
    let image = Image::open(image).expect("the compiler writes images that open");
    let certificate = write(ruleset, text, &image, of)?;
    let checked = check(ruleset, text, &image, &certificate)?;
    Ok((certificate, checked))
}

#[test]
fn real_rulesets_have_certificates_that_are_accepted() {
    let Some(corpus) = corpus() else { return };
    let mut failed = Vec::new();
    let mut count = 0;
    for path in ["rulesets", "rulesets-fixed"].iter().flat_map(|f| files(&corpus.join(f))) {
        let text = std::fs::read(&path).expect("a readable file");
        let ruleset = parse(&text, &ParseOptions::default()).ruleset;
        let name = path.file_name().unwrap_or_default().display().to_string();
        // Writing takes a second for a thousand rules without optimization: `--release` does them all.
        if Oracle::new(&ruleset).is_err() || cfg!(debug_assertions) && ruleset.rule_count() > 300 {
            continue;
        }
        for counting in [Counting::Exact, Counting::Deciding] {
            let image = compile_roomy(&ruleset, counting).image;
            count += 1;
            if let Err(refused) = certified(&ruleset, &text, &image, compared(counting)) {
                failed.push(format!("{name}, {counting:?}: {refused}"));
            }
        }
    }
    println!("{count} images");
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn filter_sets_of_the_literature_have_certificates() {
    let Some(corpus) = corpus() else { return };
    for path in files(&corpus.join("classbench")) {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let Ok(filters) = read_filters(text.as_bytes()) else { continue };
        if cfg!(debug_assertions) && filters.len() > 1000 {
            continue;
        }
        let ruleset = ruleset_of(&filters).expect("filters are rules");
        let image = Image::open(compile_roomy(&ruleset, Counting::Exact).image).expect("an image");
        let begin = std::time::Instant::now();
        let certificate = write(&ruleset, text.as_bytes(), &image, Compared::All).expect("a certificate");
        let wrote = begin.elapsed();
        let begin = std::time::Instant::now();
        let checked = check(&ruleset, text.as_bytes(), &image, &certificate).expect("accepted");
        let (name, took) = (path.file_name().unwrap_or_default().display(), begin.elapsed());
        println!(
            "{name}: {} bytes, written in {wrote:?}, checked in {took:?}: {checked:?}",
            certificate.len()
        );
    }
}

#[test]
fn all_nasty_rulesets_have_certificates() {
    let (mut written, mut refused) = (0, Vec::new());
    for seed in 1..=seeds_wanted() {
        let mut numbers = Numbers(seed * 15_485_863);
        let choices: Vec<u8> = (0..300).map(|_| numbers.below(256) as u8).collect();
        let nasty = common::nasty::nasty(&choices);
        let ruleset = read_as(&nasty.text, Some(nasty.family));
        for counting in [Counting::Exact, Counting::Deciding] {
            let image = Image::open(compile_roomy(&ruleset, counting).image).expect("an image");
            match write(&ruleset, nasty.text.as_bytes(), &image, compared(counting)) {
                Ok(certificate) => {
                    let answer = check(&ruleset, nasty.text.as_bytes(), &image, &certificate);
                    assert!(answer.is_ok(), "{counting:?}: {:?}\n{}", answer.err(), nasty.text);
                    written += 1;
                }
                Err(why) => refused.push(format!("seed {seed}, {counting:?}: {why}")),
            }
        }
    }
    println!("{written} written, {} not:\n{}", refused.len(), refused.join("\n"));
    assert!(refused.is_empty(), "{written} written");
}

/// `HIPAC_CASES` says how many (60).
fn seeds_wanted() -> u64 {
    std::env::var("HIPAC_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
}

/// Changes two bytes at a place of some bytes; false when they are as before.
fn change(numbers: &mut Numbers, bytes: &mut [u8]) -> bool {
    let slots = bytes.len() / 2;
    let (at, other) = (2 * numbers.below(slots), 2 * numbers.below(slots));
    let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let (old, new) = (word(at), numbers.beside(word(at), word(other)));
    bytes[at..at + 2].copy_from_slice(&new.to_le_bytes());
    new != old
}

#[derive(Debug, Default)]
struct Tally {
    images_refused: usize,
    /// Accepted, and no packet known that is answered otherwise.
    images_accepted: usize,
    certificates_refused: usize,
    /// Steps that are true as well.
    certificates_accepted: usize,
    both_refused: usize,
    both_accepted: usize,
}

/// `HIPAC_MUTANTS` says how many of each image (60).
fn mutants() -> usize {
    std::env::var("HIPAC_MUTANTS").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
}

fn campaign(ruleset: &Ruleset, text: &[u8], image: &[u8], tally: &mut Tally) {
    let oracle = Oracle::new(ruleset).expect("an oracle");
    let exam = Exam::drawn(&oracle, 1000);
    let (certificate, _) = certified(ruleset, text, image, Compared::All).expect("a certificate");
    let mut numbers = Numbers(0x9e37_79b9);
    let is_accepted = |image: &[u8], certificate: &[u8]| {
        let Ok(image) = Image::open(image) else { return false };
        check(ruleset, text, &image, certificate).is_ok()
    };
    let must_be_right = |image: &[u8], what: &str| {
        let image = Image::open(image).expect("it was accepted");
        // A record of a rule that no flat rule comes from is nobody's.
        let Ok(subject) = ImageSubject::new(image, ruleset) else { return };
        let difference = exam.first_difference(&subject, Counting::Exact).map(|d| *d.case);
        assert!(difference.is_none(), "{what}: accepted, and {difference:?}");
    };
    let sections = [
        Section::Arena,
        Section::Arena,
        Section::Arena,
        Section::Flats,
        Section::Programs,
        Section::Entries,
        Section::Ranks,
        Section::Slots,
        Section::Recodes,
        Section::Origins,
    ];
    for number in 0..mutants() {
        let mut changed_image = image.to_vec();
        let range = seal::section(image, sections[numbers.below(sections.len())]);
        if range.len() < 2 || !change(&mut numbers, &mut changed_image[range]) {
            continue;
        }
        seal::seal(&mut changed_image);
        // As it is, the certificate is about another image.
        assert!(!is_accepted(&changed_image, &certificate));
        let mut resealed = certificate.clone();
        seal::certificate(&mut resealed, &changed_image);
        if is_accepted(&changed_image, &resealed) {
            tally.images_accepted += 1;
            must_be_right(&changed_image, &format!("image {number}"));
        } else {
            tally.images_refused += 1;
        }
        let mut changed = certificate.clone();
        if changed.len() < 42 || !change(&mut numbers, &mut changed[40..]) {
            continue;
        }
        assert!(!is_accepted(image, &changed), "its checksum is another");
        seal::certificate(&mut changed, image);
        match is_accepted(image, &changed) {
            true => tally.certificates_accepted += 1,
            false => tally.certificates_refused += 1,
        }
        seal::certificate(&mut changed, &changed_image);
        if is_accepted(&changed_image, &changed) {
            tally.both_accepted += 1;
            must_be_right(&changed_image, &format!("image and certificate {number}"));
        } else {
            tally.both_refused += 1;
        }
    }
}

#[test]
fn nothing_that_answers_otherwise_is_accepted() {
    let mut tally = Tally::default();
    for (seed, family) in [(1, FilterFamily::Access), (2, FilterFamily::Firewall), (3, FilterFamily::Chain)] {
        let options = classbench_gen::Options::new(120, seed);
        let filters = classbench_gen::generate(&family.parameters(), &options).expect("filters");
        let ruleset = ruleset_of(&filters).expect("filters are rules");
        for compiled in images_of_all_sizes(&ruleset, Counting::Exact) {
            campaign(&ruleset, b"", &compiled.image, &mut tally);
        }
    }
    for seed in 1..=12 {
        let mut numbers = Numbers(seed * 7919);
        let choices: Vec<u8> = (0..400).map(|_| numbers.below(256) as u8).collect();
        let nasty = common::nasty::nasty(&choices);
        let ruleset = read_as(&nasty.text, Some(nasty.family));
        if Oracle::new(&ruleset).is_ok() {
            campaign(&ruleset, b"", &compile_roomy(&ruleset, Counting::Exact).image, &mut tally);
        }
    }
    println!("{tally:?}");
    assert!(tally.images_refused > 2 * tally.images_accepted, "{tally:?}");
}

/// Bytes before the first step, and of each.
const HEADER: usize = 40;
const STEP: usize = 9;

/// Has a certificate say something else wherever it is refused, whatever leads on: nobody who lies like that has a
/// wrong image accepted.
fn lied_about(ruleset: &Ruleset, image: &[u8], mut certificate: Vec<u8>) -> Option<usize> {
    let image = Image::open(image).ok()?;
    let refused_at = |certificate: &mut [u8]| {
        seal::certificate(certificate, image.bytes());
        match check(ruleset, b"", &image, certificate) {
            Ok(_) => usize::MAX,
            Err(Refused::Wrong(why)) => {
                let number = why.strip_prefix("step ").and_then(|rest| rest.split_once(':'));
                number.and_then(|(number, _)| number.parse().ok()).unwrap_or(0)
            }
            // The steps that follow are about something else: new ones are said.
            Err(_) => usize::MAX - 1,
        }
    };
    // Kinds that end a region, as the checker numbers them; and those that say nothing of it.
    let (outside, hidden, inside, lane, shut) = (6u8, 7u8, 8u8, 10u8, 11u8);
    let numbers = || 0..12u32;
    let mut lies: Vec<(u8, u32)> = [inside, shut].map(|kind| (kind, 0)).to_vec();
    lies.extend([outside, hidden, lane].iter().flat_map(|&kind| numbers().map(move |n| (kind, n))));
    for lied in 0..400 {
        let number = refused_at(&mut certificate);
        match number {
            usize::MAX => return Some(lied),
            0 => return None,
            _ => {}
        }
        let number = if number == usize::MAX - 1 { (certificate.len() - HEADER) / STEP + 1 } else { number };
        let at = HEADER + STEP * (number - 1);
        // Another step there, or one more.
        let ways = lies.iter().flat_map(|&lie| [(lie, true), (lie, false)]);
        let better = ways.into_iter().find_map(|((kind, n), replaces)| {
            let mut changed = certificate[..at].to_vec();
            changed.push(kind);
            changed.extend(n.to_le_bytes());
            changed.extend(0u32.to_le_bytes());
            changed.extend(certificate.get(at + if replaces { STEP } else { 0 }..).unwrap_or_default());
            (refused_at(&mut changed) > number).then_some(changed)
        });
        certificate = better?;
    }
    None
}

#[test]
fn lies_about_a_wrong_image_are_refused() {
    let (mut refused, mut accepted) = (0, 0);
    for seed in 1..=16 {
        let mut numbers = Numbers(seed * 6151);
        let choices: Vec<u8> = (0..160).map(|_| numbers.below(256) as u8).collect();
        let nasty = common::nasty::nasty(&choices);
        let ruleset = read_as(&nasty.text, Some(nasty.family));
        let Ok(oracle) = Oracle::new(&ruleset) else { continue };
        let exam = Exam::drawn(&oracle, 1000);
        let image = compile_roomy(&ruleset, Counting::Exact).image;
        let (certificate, _) = certified(&ruleset, b"", &image, Compared::All).expect("a certificate");
        for number in 0..mutants() / 3 {
            let mut changed = image.clone();
            let section = [Section::Arena, Section::Arena, Section::Programs][number % 3];
            let range = seal::section(&image, section);
            if range.len() < 2 || !change(&mut numbers, &mut changed[range]) {
                continue;
            }
            seal::seal(&mut changed);
            if lied_about(&ruleset, &changed, certificate.clone()).is_none() {
                refused += 1;
                continue;
            }
            accepted += 1;
            let Ok(subject) = ImageSubject::new(Image::open(&*changed).expect("accepted"), &ruleset) else {
                continue;
            };
            let difference = exam.first_difference(&subject, Counting::Exact).map(|d| *d.case);
            assert!(difference.is_none(), "seed {seed}, image {number}: {difference:?}\n{}", nasty.text);
        }
    }
    println!("{refused} refused, {accepted} accepted, equal");
    assert!(refused > 0 && accepted > 0);
}

/// Gates that turn away a little more: the certificate of the right image is held against each.
#[test]
fn gates_that_turn_rules_away_are_refused() {
    let options = classbench_gen::Options::new(400, 4);
    let filters = classbench_gen::generate(&FilterFamily::Access.parameters(), &options).expect("filters");
    let ruleset = ruleset_of(&filters).expect("filters are rules");
    let image = compile_roomy(&ruleset, Counting::Exact).image;
    let (certificate, _) = certified(&ruleset, b"", &image, Compared::All).expect("a certificate");
    let arena = seal::section(&image, Section::Arena);
    let opened = Image::open(&*image).expect("an image");
    let (_, entry, _) = opened.entries().max_by_key(|(_, entry, _)| entry.count).expect("an entry");
    let root = Root::view(&image[arena.clone()], Ref(entry.root).offset()).expect("a root");
    let (mut refused, mut accepted) = (0, 0);
    for tree in (0..root.tree_count()).map(|t| root.tree(t)) {
        let cells = (0..tree.cell_count()).map(|c| arena.start + tree.cells as usize * UNIT + c * CELL_BYTES);
        let is_there = |at: &usize| image[at + 4..at + 7].iter().any(|&bits| bits != 0);
        for at in cells.filter(is_there).take(40) {
            let mut changed = image.clone();
            let byte = (at + 4..at + 7).find(|&byte| image[byte] != 0).expect("a bit");
            changed[byte] &= changed[byte] - 1;
            seal::seal(&mut changed);
            let mut resealed = certificate.clone();
            seal::certificate(&mut resealed, &changed);
            let changed = Image::open(&*changed).expect("an image");
            let is_right = prove(&ruleset, &changed, &Default::default()).is_ok();
            match check(&ruleset, b"", &changed, &resealed) {
                Ok(_) => {
                    assert!(is_right, "a gate at {at} turns away what its rules hold for");
                    accepted += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    println!("{refused} refused, {accepted} accepted");
    assert!(refused > 0);
}

/// A wrong compiler: the image of rules of which one was changed, held against those before.
#[test]
fn no_image_of_other_rules_is_certified() {
    let mut texts: Vec<Ruleset> = Vec::new();
    for seed in 1..=24 {
        let mut numbers = Numbers(seed * 104_729);
        let choices: Vec<u8> = (0..400).map(|_| numbers.below(256) as u8).collect();
        let nasty = common::nasty::nasty(&choices);
        texts.push(read_as(&nasty.text, Some(nasty.family)));
    }
    let options = classbench_gen::Options::new(60, 9);
    let filters = classbench_gen::generate(&FilterFamily::Access.parameters(), &options).expect("filters");
    texts.push(ruleset_of(&filters).expect("filters are rules"));
    let (mut refused, mut equal) = (0, 0);
    for ruleset in &texts {
        let oracle = Oracle::new(ruleset).expect("an oracle");
        let exam = Exam::drawn(&oracle, 1000);
        let mut numbers = Numbers(42);
        for _ in 0..mutants() {
            let Some(changed) = changed_rules(ruleset, &mut numbers) else { continue };
            for counting in [Counting::Exact, Counting::Deciding] {
                let options = Options { counting, ..Options::default() };
                let Ok(compiled) = compile(&changed, &options) else { continue };
                let image = Image::open(compiled.image).expect("an image");
                let Ok(certificate) = write(ruleset, b"", &image, compared(counting)) else {
                    refused += 1;
                    continue;
                };
                assert!(check(ruleset, b"", &image, &certificate).is_ok());
                equal += 1;
                // The change means nothing.
                let subject = ImageSubject::new(image, ruleset).expect("rules at the same places");
                let difference = exam.first_difference(&subject, counting).map(|d| *d.case);
                assert!(
                    difference.is_none(),
                    "{counting:?}: {difference:?}\n{}\nas\n{}",
                    hipac_rules::print(ruleset, &Default::default()),
                    hipac_rules::print(&changed, &Default::default())
                );
            }
        }
    }
    println!("{refused} refused, {equal} certified, equal");
    assert!(refused > 2 * equal && equal > 0, "{refused} refused, {equal} certified");
}

#[test]
fn a_certificate_is_about_its_own_files() {
    let text =
        |port: u16| format!("*filter\n:INPUT DROP\n-A INPUT -p tcp --dport {port} -j ACCEPT\nCOMMIT\n");
    let (one, other) = (text(22), text(23));
    let rules = |text: &str| read_as(text, None);
    let image =
        |text: &str| Image::open(compile_roomy(&rules(text), Counting::Exact).image).expect("an image");
    let certificate =
        write(&rules(&one), one.as_bytes(), &image(&one), Compared::All).expect("a certificate");
    let answer = |text: &str, image: &Image<Vec<u8>>, certificate: &[u8]| {
        check(&rules(text), text.as_bytes(), image, certificate).map(drop)
    };
    assert_eq!(answer(&one, &image(&one), &certificate), Ok(()));
    assert_eq!(answer(&other, &image(&one), &certificate), Err(Refused::Other("ruleset")));
    assert_eq!(answer(&one, &image(&other), &certificate), Err(Refused::Other("image")));
    for end in 0..certificate.len() {
        assert!(matches!(answer(&one, &image(&one), &certificate[..end]), Err(Refused::Damaged(_))));
    }
    assert!(matches!(answer(&one, &image(&one), b"hipac"), Err(Refused::Damaged(_))));
    // Nobody writes one for what is not equal.
    assert!(write(&rules(&other), other.as_bytes(), &image(&one), Compared::All).is_err());
}
