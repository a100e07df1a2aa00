//! `RATEEST` and `rateest`: rates measured, and compared.
//!
//! An estimator looks at its counters each interval and moves its averages by a part of the difference:
//!
//! ```text
//!   average += (counted in the interval − average) >> ewma_log          8 bits behind the point
//! ```
//!
//! The intervals begin when the rules are loaded.

use crate::clock::Hz;
use crate::settings::Settings;

/// An estimator, made by the first `RATEEST` rule that names it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Estimator {
    interval_log: u32,
    ewma_log: u32,
    next: u64,
    period: u64,
    bytes: Rate,
    packets: Rate,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Rate {
    counted: u64,
    counted_before: u64,
    average: u64,
}

/// Microseconds of the shortest interval.
const SHORTEST: u64 = 250_000;

impl Estimator {
    pub(crate) fn new(settings: Settings<'_>, hz: Hz, now: u64) -> Result<Estimator, String> {
        let interval = settings.number("rateest-interval").unwrap_or(0);
        let ewma = settings.number("rateest-ewmalog").unwrap_or(0);
        let interval_log =
            (0..=5).find(|log| interval <= SHORTEST << log).ok_or("its interval is above 8 s")?;
        // The longest time constant that is not above the one wanted.
        let above = (1..32u32).find(|&log| {
            let weight = 1.0 - 1.0 / f64::from(1u32 << log);
            interval as f64 / -weight.ln() > ewma as f64
        });
        let ewma_log = above.unwrap_or(32) - 1;
        if ewma_log == 0 || ewma_log >= 31 {
            return Err("its time constant does not fit its interval".into());
        }
        let period = u64::from(hz.get() / 4) << interval_log;
        let (bytes, packets) = (Rate::default(), Rate::default());
        Ok(Estimator { interval_log, ewma_log, next: now + period, period, bytes, packets })
    }

    /// Whether another rule may name the same estimator.
    pub(crate) fn is_like(&self, other: &Estimator) -> bool {
        (self.interval_log, self.ewma_log) == (other.interval_log, other.ewma_log)
    }

    pub(crate) fn count(&mut self, length: u32, now: u64) {
        self.advance(now);
        self.bytes.counted = self.bytes.counted.wrapping_add(length.into());
        self.packets.counted = self.packets.counted.wrapping_add(1);
    }

    /// Bytes and packets a second.
    fn read(&mut self, now: u64) -> (u32, u32) {
        self.advance(now);
        ((self.bytes.average >> 8) as u32, (self.packets.average >> 8) as u32)
    }

    fn advance(&mut self, now: u64) {
        while self.next <= now {
            let moved =
                [&mut self.bytes, &mut self.packets].map(|r| r.step(self.interval_log, self.ewma_log));
            self.next += self.period;
            if moved == [false, false] && self.next <= now {
                // Nothing comes and nothing is left to forget.
                self.next += (now - self.next) / self.period * self.period;
            }
        }
    }
}

impl Rate {
    /// The end of an interval; whether something came, or the average has moved.
    fn step(&mut self, interval_log: u32, ewma_log: u32) -> bool {
        let counted = self.counted.wrapping_sub(self.counted_before) << (10 - interval_log);
        let by = (counted >> ewma_log).wrapping_sub(self.average >> ewma_log);
        self.counted_before = self.counted;
        self.average = self.average.wrapping_add(by);
        by != 0 || counted != 0
    }
}

/// `rateest`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Compare {
    pub(crate) first: usize,
    pub(crate) second: Option<usize>,
    is_delta: bool,
    order: Order,
    is_inverted: bool,
    /// Bytes a second, when they are compared: of the first, of the second.
    bytes: Option<(u32, u32)>,
    packets: Option<(u32, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Order {
    Lower,
    Higher,
    Equal,
}

impl Compare {
    /// `find` knows the estimators of the rules loaded so far.
    pub(crate) fn new(
        settings: Settings<'_>,
        find: impl Fn(&str) -> Option<usize>,
    ) -> Result<Compare, String> {
        let estimator = |name: &str| find(name).ok_or(format!("no rule before makes the estimator `{name}`"));
        let first = settings.text("rateest").or(settings.text("rateest1")).ok_or("it names no estimator")?;
        let second = settings.text("rateest2").map(estimator).transpose()?;
        let named =
            [("rateest-lt", Order::Lower), ("rateest-gt", Order::Higher), ("rateest-eq", Order::Equal)];
        let found = named.into_iter().find_map(|(name, order)| Some((settings.get(name)?, order)));
        let Some((setting, order)) = found else { return Err("it does not say how to compare".into()) };
        let rates = |one: &str, other: [&str; 2], divisor: u64| {
            let is_compared = settings.has(one) || other.iter().any(|name| settings.has(name));
            let rate = |name: &str| settings.number(name).map_or(0, |n| (n / divisor) as u32);
            is_compared.then(|| (rate(one), rate(other[0]).max(rate(other[1]))))
        };
        Ok(Compare {
            first: estimator(first)?,
            second,
            is_delta: settings.has("rateest-delta"),
            order,
            is_inverted: setting.negated,
            // Rates are given in bits.
            bytes: rates("rateest-bps1", ["rateest-bps2", "rateest-bps"], 8),
            packets: rates("rateest-pps1", ["rateest-pps2", "rateest-pps"], 1),
        })
    }

    pub(crate) fn holds(&self, estimators: &mut [Estimator], now: u64) -> Option<bool> {
        let (bytes, packets) = estimators.get_mut(self.first)?.read(now);
        let second = match self.second {
            Some(second) => Some(estimators.get_mut(second)?.read(now)),
            None => None,
        };
        let held = |given: Option<(u32, u32)>, first: u32, second: Option<u32>| {
            let Some((of_first, of_second)) = given else { return true };
            let measured =
                |given: u32, rate: u32| if self.is_delta { given.saturating_sub(rate) } else { rate };
            let a = measured(of_first, first);
            let b = second.map_or(of_second, |rate| measured(of_second, rate));
            match self.order {
                Order::Lower => a < b,
                Order::Higher => a > b,
                Order::Equal => a == b,
            }
        };
        let both =
            held(self.bytes, bytes, second.map(|s| s.0)) && held(self.packets, packets, second.map(|s| s.1));
        Some(both != self.is_inverted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{rule_of, target_of};

    fn estimator() -> Estimator {
        let target = target_of("-j RATEEST --rateest-name e --rateest-interval 250ms --rateest-ewmalog 0.5s");
        Estimator::new(Settings(&target), Hz::DEFAULT, 0).unwrap()
    }

    #[test]
    fn an_average_moves_by_a_part_at_the_end_of_each_interval() {
        // 62 ticks of 4 ms; the average moves by a half (ewma_log 1).
        let mut e = estimator();
        assert_eq!((e.period, e.interval_log, e.ewma_log), (62, 0, 1));
        for _ in 0..10 {
            e.count(1000, 5);
        }
        assert_eq!(e.read(61), (0, 0));
        // 10,000 bytes in a quarter of a second are 40,000 a second.
        assert_eq!(e.read(62), (20_000, 20));
        assert_eq!(e.read(123), (20_000, 20));
        assert_eq!(e.read(124), (10_000, 10));
        assert_eq!(e.read(u64::MAX - 100), (0, 0));
    }

    #[test]
    fn a_rate_that_was_steady_decays_when_nothing_comes_any_more() {
        let mut e = estimator();
        for tick in 0..62 * 200 {
            if tick % 62 == 5 {
                (0..8).for_each(|_| e.count(1000, tick));
            }
        }
        // 8,000 bytes in a quarter of a second: it did not move any more, when the last ones came.
        assert_eq!(e.read(62 * 230), (0, 0));
    }

    #[track_caller]
    fn check(options: &str, expected: bool) {
        let rule = rule_of(&format!("-m rateest {options}"));
        let find = |name: &str| ["e", "f"].iter().position(|n| *n == name);
        let compare = Compare::new(Settings(&rule.matches[0]), find).unwrap();
        let mut estimators = [estimator(), estimator()];
        (0..10).for_each(|_| estimators[0].count(1000, 5));
        (0..5).for_each(|_| estimators[1].count(1000, 5));
        assert_eq!(compare.holds(&mut estimators, 62), Some(expected), "{options}");
    }

    #[test]
    fn rates_are_compared_with_numbers_and_with_each_other() {
        check("--rateest e --rateest-gt --rateest-bps 159999bit", true);
        check("--rateest e --rateest-gt --rateest-bps 160000bit", false);
        check("--rateest e --rateest-eq --rateest-pps 20", true);
        check("--rateest e ! --rateest-eq --rateest-pps 20", false);
        check("--rateest1 e --rateest-gt --rateest-pps --rateest2 f", true);
        check("--rateest1 f --rateest-lt --rateest-bps --rateest2 e", true);
        // What is left of 25 and 15 packets a second: 5 and 5.
        let delta = "--rateest-delta --rateest1 e --rateest-pps1 25";
        check(&format!("{delta} --rateest-eq --rateest2 f --rateest-pps2 15"), true);
    }
}
