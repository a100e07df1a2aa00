//! Planted faults that a certificate must not be given for: each is one way in which an image could be
//! wrong while every step of its certificate looks true.

mod common;

use common::{compared, compile_roomy, read};
use hipac_classifier::Image;
use hipac_compiler::Counting;
use hipac_rules::Ruleset;
use hipac_verifier::certificate::{Refused, check, write};
use hipac_verifier::proof::{Options, Refutation, prove};

/// Writes a certificate that the image does what the rules say, and has it checked.
fn certified(rules: &Ruleset, image: &[u8], counting: Counting) -> Result<(), Refused> {
    let image = Image::open(image).expect("an image that opens");
    let certificate = write(rules, b"", &image, compared(counting))?;
    check(rules, b"", &image, &certificate).map(drop)
}

fn proved(rules: &Ruleset, image: &[u8], counting: Counting) -> Result<(), Refutation> {
    let image = Image::open(image).expect("an image that opens");
    let options = Options { compared: compared(counting), ..Options::default() };
    prove(rules, &image, &options).map(drop)
}

/// The image of `from` has a certificate for `from` and none for `to`, which it was not compiled from.
#[track_caller]
fn check_refused(from: &Ruleset, to: &Ruleset, counting: Counting) {
    let image = compile_roomy(from, counting).image;
    assert_eq!(certified(from, &image, counting), Ok(()));
    let answer = certified(to, &image, counting);
    assert!(matches!(answer, Err(Refused::Wrong(_))), "{answer:?}");
    assert!(proved(to, &image, counting).is_err());
}

#[test]
fn a_chain_behind_a_jump_that_asks_something_is_not_unfolded() {
    let text = |asks: &str| {
        let jump = format!("-A FORWARD {asks} -j sub");
        read(&format!("*filter\n:FORWARD DROP\n:sub -\n{jump}\n-A sub -p tcp -j ACCEPT\nCOMMIT\n"))
    };
    check_refused(&text(""), &text("-m u32 --u32 \"6&0xff=1\""), Counting::Deciding);
}
