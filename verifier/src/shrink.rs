//! From a case that shows a difference to the smallest one found that shows one.
//!
//! Greedy: try a simpler case, keep it when the difference persists, begin again; until no simpler one does.
//! Simpler means: outcomes that are all alike; a field at its default; a smaller number; a shorter name.
//! Every step goes down in that order, so it ends, and [`EVALUATIONS_MAX`] ends it sooner.

use hipac_classifier::InterfaceName;
use hipac_rules::{Family, Field};

use crate::draw::Case;
use crate::fields::{self, INTERFACES, NUMBERS};
use crate::outcomes::Script;

/// Cases tried at most: under two seconds at a millisecond each.
const EVALUATIONS_MAX: usize = 2_000;

/// The smallest case found for which `differs` is still true. `case` is one.
pub(crate) fn shrink(case: Case, differs: impl Fn(&Case) -> bool) -> Case {
    let mut shrinking = Shrinking { case, differs, left: EVALUATIONS_MAX };
    loop {
        let before = shrinking.case;
        shrinking.pass();
        if shrinking.case == before || shrinking.left == 0 {
            return shrinking.case;
        }
    }
}

struct Shrinking<F> {
    case: Case,
    differs: F,
    left: usize,
}

impl<F: Fn(&Case) -> bool> Shrinking<F> {
    /// Takes the case when it still differs.
    fn attempt(&mut self, case: Case) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let differs = (self.differs)(&case);
        if differs {
            self.case = case;
        }
        differs
    }

    fn pass(&mut self) {
        if matches!(self.case.outcomes, Script::Drawn(_)) {
            let _ = self.attempt(Case { outcomes: Script::NoneHolds, ..self.case })
                || self.attempt(Case { outcomes: Script::AllHold, ..self.case });
        }
        // First whole fields away, which leaves little to do for the slower ways.
        for field in INTERFACES {
            self.shorten(field, 0);
        }
        for field in NUMBERS {
            self.number(field, default_number(&self.case, field));
        }
        for field in INTERFACES {
            for length in (1..fields::interface(&self.case.packet, field).as_bytes().len()).rev() {
                if !self.shorten(field, length) {
                    break;
                }
            }
        }
        for field in NUMBERS {
            self.lower(field);
        }
    }

    /// Makes a number smaller, largest steps first, unless it is the default.
    fn lower(&mut self, field: Field) {
        let steps = (0..u128::BITS).rev().map(|bit| 1 << bit);
        for step in steps {
            let now = fields::number(&self.case.packet, field);
            if now == default_number(&self.case, field) {
                return;
            }
            if now >= step {
                self.number(field, now - step);
            }
        }
    }

    fn number(&mut self, field: Field, number: u128) -> bool {
        let mut case = self.case;
        fields::write_number(&mut case.packet, field, number) && case != self.case && self.attempt(case)
    }

    /// Cuts a name to its first bytes.
    fn shorten(&mut self, field: Field, length: usize) -> bool {
        let name = fields::interface(&self.case.packet, field);
        let shorter = name.as_bytes().get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
        let Some(shorter) = shorter.and_then(InterfaceName::new) else { return true };
        let mut case = self.case;
        fields::write_interface(&mut case.packet, field, shorter);
        case != self.case && self.attempt(case)
    }
}

fn default_number(case: &Case, field: Field) -> u128 {
    let family = if case.packet.is_v6 { Family::V6 } else { Family::V4 };
    fields::number(&fields::default_packet(family), field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet_text::{parse, show};
    use hipac_classifier::Packet;
    use hipac_rules::{Hook, TableKind};

    #[track_caller]
    fn check(drawn: &str, differs: impl Fn(&Packet) -> bool, smallest: &str) {
        let case = Case {
            table: TableKind::Filter,
            hook: Hook::Forward,
            packet: parse(drawn, Family::V4).unwrap(),
            outcomes: Script::Drawn(9),
        };
        let shrunk = shrink(case, |case| differs(&case.packet));
        assert_eq!(show(&shrunk.packet).to_string(), smallest);
        assert_eq!(shrunk.outcomes, Script::NoneHolds);
    }

    #[test]
    fn only_what_the_difference_needs_remains() {
        let drawn = "-i eth0 -o ppp12 -s 10.1.2.3 -d 192.0.2.7 -p tcp --sport 40000 --dport 2222 --mark 0xff --l4 under4";
        check(drawn, |_| true, "");
        check(drawn, |p| p.destination_port >= 1024, "--dport 1024");
        check(drawn, |p| p.destination_port > 1024 && p.protocol == 6, "-p tcp --dport 1025");
        check(drawn, |p| p.source >> 24 == 10, "-s 10.0.0.0");
        check(drawn, |p| p.out_interface.as_bytes().starts_with(b"ppp"), "-o ppp");
        check(drawn, |p| p.mark & 0x30 != 0, "--mark 0x10");
        // Two fields that must go together stay: only one is changed at a time.
        check(drawn, |p| p.l4.is_sound() == (p.source_port == 0), "--sport 1 --l4 fragment8");
    }

    #[test]
    fn shrinking_ends_on_a_difference_that_comes_and_goes() {
        let asked = std::cell::Cell::new(0);
        let drawn = "-s 255.255.255.255 -d 255.255.255.255 --mark 0xffffffff";
        let packet = parse(drawn, Family::V4).unwrap();
        let case = Case { table: TableKind::Raw, hook: Hook::Output, packet, outcomes: Script::AllHold };
        shrink(case, |_| {
            asked.set(asked.get() + 1);
            [true, false, false][asked.get() % 3]
        });
        assert!(asked.get() <= EVALUATIONS_MAX);
    }
}
