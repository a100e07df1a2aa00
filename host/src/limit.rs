//! `limit`: one bucket of credit for a rule.
//!
//! ```text
//!   credit ┤▔▔▔▔╲cap                 each packet that matches pays `cost`;
//!          │     ╲    ╱╲   ╱         each tick brings `per_jiffy`, up to the cap
//!          │      ╲╱╱   ╲╱           (burst × cost)
//!          └──────────────▶ time
//! ```
//!
//! All of it is in 32 bits, as in the kernel: a pause so long that the credit it earns does not fit is
//! reduced modulo 2³² like everything else (37 hours with 250 ticks a second).

use hipac_rules::Value;

use crate::clock::{Hz, power_of_two_below};
use crate::settings::Settings;

/// `--limit` counts in so many parts of a second.
const SCALE: u32 = 10_000;

/// The bucket.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Limit {
    previous: u64,
    credit: u32,
    cap: u32,
    cost: u32,
    per_jiffy: u32,
}

impl Limit {
    pub(crate) fn new(settings: Settings<'_>, hz: Hz, now: u64) -> Result<Limit, String> {
        let Some(Value::Rate(period)) = settings.get("limit").map(|s| &s.value) else {
            return Err("it has no rate".into());
        };
        // `3/hour` and 5 are what iptables fills in.
        let burst = settings.word("limit-burst").unwrap_or(5);
        let (full, cost) = (credits(period.wrapping_mul(burst), hz), credits(*period, hz));
        if burst == 0 || full < cost {
            return Err("rate and burst are too much for the kernel's 32 bits: lower the burst".into());
        }
        Ok(Limit { previous: now, credit: full, cap: full, cost, per_jiffy: per_jiffy(hz) })
    }

    pub(crate) fn holds(&mut self, now: u64) -> bool {
        let earned = now.wrapping_sub(self.previous).wrapping_mul(self.per_jiffy.into()) as u32;
        self.previous = now;
        let credit = self.credit.wrapping_add(earned).min(self.cap);
        let holds = credit >= self.cost;
        self.credit = if holds { credit - self.cost } else { credit };
        holds
    }
}

/// Credit that a tick brings: so that a day's fits 32 bits.
fn per_jiffy(hz: Hz) -> u32 {
    power_of_two_below(u64::from(u32::MAX / (hz.get() * 86400))) as u32
}

fn credits(periods: u32, hz: Hz) -> u32 {
    let a_second = hz.get() * per_jiffy(hz);
    if periods > u32::MAX / a_second {
        // Divided first, so that it overflows later.
        (periods / SCALE).wrapping_mul(a_second)
    } else {
        periods * a_second / SCALE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{outcomes, rule_of};

    #[track_caller]
    fn check(options: &str, ticks: &[u64], expected: &str) {
        let rule = rule_of(&format!("-m limit {options}"));
        let mut limit = Limit::new(Settings(&rule.matches[0]), Hz::DEFAULT, 0).unwrap();
        assert_eq!(outcomes(ticks.iter().map(|&tick| limit.holds(tick))), expected);
    }

    #[test]
    fn the_burst_passes_at_once_and_the_next_packet_does_not() {
        check("--limit 1/second --limit-burst 3", &[0, 0, 0, 0], "+++-");
        check("--limit 1/hour", &[9, 9, 9, 9, 9, 9, 9], "+++++--");
        check("--limit 1/second --limit-burst 1", &[0, 0], "+-");
    }

    #[test]
    fn credit_comes_back_to_the_tick() {
        check("--limit 1/second --limit-burst 1", &[0, 249, 250, 499, 500], "+-+-+");
        // Ten a second: 25 ticks each.
        check("--limit 10/second --limit-burst 1", &[0, 24, 25, 49, 50], "+-+-+");
        // No more than the burst, however long the pause.
        check("--limit 10/second --limit-burst 2", &[0, 0, 10_000, 10_000, 10_000], "++++-");
    }

    #[test]
    fn a_pause_of_37_hours_earns_modulo_two_to_the_32() {
        // 2³² / 128 credits a tick = 33,554,432 ticks earn nothing at all.
        check("--limit 1/second --limit-burst 1", &[0, 1 << 25], "+-");
        check("--limit 1/second --limit-burst 1", &[0, (1 << 25) - 1], "++");
        check("--limit 1/second --limit-burst 1", &[0, (1 << 25) + 250], "++");
    }

    #[test]
    fn credits_that_do_not_fit_are_refused_as_the_kernel_does() {
        let rule = rule_of("-m limit --limit 1/day --limit-burst 100");
        assert!(Limit::new(Settings(&rule.matches[0]), Hz::DEFAULT, 0).is_err());
        let rule = rule_of("-m limit --limit 1/day --limit-burst 1");
        assert!(Limit::new(Settings(&rule.matches[0]), Hz::DEFAULT, 0).is_ok());
    }
}
