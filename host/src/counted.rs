//! `statistic` and `quota`: a number for a rule.

use hipac_rules::Value;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::settings::Settings;

/// `statistic`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Statistic {
    /// Every `every + 1`-th packet.
    Nth { count: u32, every: u32, is_inverted: bool },
    /// A share of 2³¹. Without a source of numbers nobody knows.
    Random { share: u32, is_inverted: bool, source: Option<Box<ChaCha8Rng>> },
}

impl Statistic {
    /// `stream` tells the draws of one rule from those of another.
    pub(crate) fn new(settings: Settings<'_>, seed: Option<u64>, stream: u64) -> Result<Statistic, String> {
        if let Some(every) = settings.word("every") {
            let packet = settings.word("packet").unwrap_or(0);
            let every = every.checked_sub(1).ok_or("every 0th packet is none")?;
            let count = every.checked_sub(packet).ok_or("the packet is beyond the round")?;
            return Ok(Statistic::Nth { count, every, is_inverted: settings.is_negated("every") });
        }
        let Some(Value::Fraction(share)) = settings.get("probability").map(|s| &s.value) else {
            return Err("it says neither which nor how many packets".into());
        };
        let source = seed.map(|seed| {
            let mut source = ChaCha8Rng::seed_from_u64(seed);
            source.set_stream(stream);
            Box::new(source)
        });
        Ok(Statistic::Random { share: *share, is_inverted: settings.is_negated("probability"), source })
    }

    pub(crate) fn holds(&mut self) -> Option<bool> {
        match self {
            Statistic::Nth { count, every, is_inverted } => {
                *count = if count == every { 0 } else { *count + 1 };
                Some((*count == 0) != *is_inverted)
            }
            Statistic::Random { share, is_inverted, source } => {
                let drawn = source.as_mut()?.next_u32() & 0x7fff_ffff;
                Some((drawn < *share) != *is_inverted)
            }
        }
    }
}

/// `quota`: bytes left.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Quota {
    left: u64,
    is_inverted: bool,
}

impl Quota {
    pub(crate) fn new(settings: Settings<'_>) -> Quota {
        let left = settings.number("quota").unwrap_or(0);
        Quota { left, is_inverted: settings.is_negated("quota") }
    }

    /// The packet that is too large for what is left ends it, for smaller ones as well.
    pub(crate) fn holds(&mut self, length: u32) -> bool {
        let after = self.left.checked_sub(length.into());
        self.left = after.unwrap_or(0);
        after.is_some() != self.is_inverted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{outcomes, rule_of};

    #[track_caller]
    fn check_nth(options: &str, expected: &str) {
        let rule = rule_of(&format!("-m statistic --mode nth {options}"));
        let mut nth = Statistic::new(Settings(&rule.matches[0]), None, 0).unwrap();
        assert_eq!(outcomes(expected.chars().map(|_| nth.holds().unwrap())), expected);
    }

    #[test]
    fn the_packets_of_a_round_count_from_0() {
        check_nth("--every 3 --packet 0", "+--+--+");
        check_nth("--every 3 --packet 1", "-+--+--");
        check_nth("--every 3 --packet 2", "--+--+-");
        check_nth("--every 1 --packet 0", "+++");
        check_nth("! --every 2 --packet 0", "-+-+");
        check_nth("--every 4294967295 --packet 1", "-+--");
    }

    fn random(share: &str, seed: Option<u64>, stream: u64) -> Vec<Option<bool>> {
        let rule = rule_of(&format!("-m statistic --mode random --probability {share}"));
        let mut random = Statistic::new(Settings(&rule.matches[0]), seed, stream).unwrap();
        (0..2000).map(|_| random.holds()).collect()
    }

    #[test]
    fn a_share_is_drawn_from_the_seed_and_unknown_without() {
        assert!(random("1", Some(7), 0).iter().all(|&a| a == Some(true)));
        assert!(random("0", Some(7), 0).iter().all(|&a| a == Some(false)));
        assert!(random("0.5", None, 0).iter().all(|a| a.is_none()));
        let some = random("0.25", Some(7), 0);
        let share = some.iter().filter(|&&a| a == Some(true)).count();
        assert!((400..600).contains(&share), "{share} of 2000");
        assert_eq!(some, random("0.25", Some(7), 0));
        assert_ne!(some, random("0.25", Some(8), 0));
        assert_ne!(some, random("0.25", Some(7), 1), "rules draw apart from each other");
    }

    #[track_caller]
    fn check_quota(options: &str, lengths: &[u32], expected: &str) {
        let rule = rule_of(&format!("-m quota {options}"));
        let mut quota = Quota::new(Settings(&rule.matches[0]));
        assert_eq!(outcomes(lengths.iter().map(|&length| quota.holds(length))), expected);
    }

    #[test]
    fn a_packet_too_large_ends_the_quota_for_smaller_ones_as_well() {
        check_quota("--quota 100", &[40, 60, 1], "++-");
        check_quota("--quota 100", &[40, 61, 20], "+--");
        check_quota("! --quota 100", &[100, 20], "-+");
        check_quota("--quota 18446744073709551615", &[u32::MAX, u32::MAX], "++");
    }
}
