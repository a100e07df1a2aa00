//! Time as the kernel sees it: jiffies for everything that counts, seconds since 1970 for `time`.
//!
//! ```text
//!   nanoseconds since 1970 ──▶ jiffies: HZ a second, never backwards
//!                          └─▶ seconds: the wall's clock, as it is
//! ```
//!
//! Where a jiffy begins within a second is not known of another machine; here one begins with each second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment, in nanoseconds since 1970 (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Time(u64);

impl Time {
    /// So many nanoseconds after 1970 began; 584 years are as far as it goes.
    pub fn from_nanos(nanos: u64) -> Time {
        Time(nanos)
    }

    /// So many seconds after 1970 began.
    pub fn from_secs(secs: u64) -> Time {
        Time(secs.saturating_mul(NANOS))
    }

    /// Nanoseconds since 1970 began.
    pub fn nanos(self) -> u64 {
        self.0
    }

    /// Whole seconds since 1970 began.
    pub fn secs(self) -> u64 {
        self.0 / NANOS
    }

    /// This moment and `later`.
    pub fn after(self, later: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl From<SystemTime> for Time {
    /// What lies before 1970 is 1970.
    fn from(time: SystemTime) -> Time {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

const NANOS: u64 = 1_000_000_000;

/// Ticks a second: the kernel's build option `CONFIG_HZ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hz(u32);

impl Hz {
    /// What Debian's and most kernels are built with.
    pub const DEFAULT: Hz = Hz(250);

    /// A rate that kernels are built with: 24 to 1200.
    pub fn new(hz: u32) -> Option<Hz> {
        (24..=1200).contains(&hz).then_some(Hz(hz))
    }

    /// Ticks a second.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The number of the tick in which a moment lies, from 1970.
    pub(crate) fn jiffies(self, time: Time) -> u64 {
        let ticks = u128::from(time.0) * u128::from(self.0) / u128::from(NANOS);
        // 64 bits of nanoseconds are fewer ticks.
        ticks as u64
    }

    /// Ticks that last so many milliseconds or longer; what is more than 31 bits lasts for ever.
    pub(crate) fn of_millis(self, millis: u32) -> u64 {
        if millis > i32::MAX as u32 {
            return (u64::MAX >> 1) - 1;
        }
        (u64::from(millis) * u64::from(self.0)).div_ceil(1000)
    }
}

/// The highest power of two that is not above `x`; `x` is not 0.
pub(crate) fn power_of_two_below(x: u64) -> u64 {
    1 << x.max(1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_begins_with_its_first_nanosecond() {
        let check = |nanos, ticks| assert_eq!(Hz::DEFAULT.jiffies(Time::from_nanos(nanos)), ticks, "{nanos}");
        check(0, 0);
        check(3_999_999, 0);
        check(4_000_000, 1);
        check(1_000_000_000, 250);
        check(u64::MAX, 4_611_686_018_427);
    }

    #[test]
    fn milliseconds_are_rounded_up_to_ticks() {
        let check = |millis, ticks| assert_eq!(Hz::DEFAULT.of_millis(millis), ticks, "{millis}");
        check(0, 0);
        check(1, 1);
        check(4, 1);
        check(5, 2);
        check(1000, 250);
        check(u32::MAX, (u64::MAX >> 1) - 1);
    }

    #[test]
    fn powers_of_two_are_rounded_down() {
        assert_eq!([1, 2, 3, 198, 256].map(power_of_two_below), [1, 2, 2, 128, 256]);
    }
}
