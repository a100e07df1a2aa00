//! `time`: the day and the time of day.
//!
//! ```text
//!   seconds since 1970 (minus the kernel's time zone with --kerneltz)
//!        │ datestart … datestop         both ends belong to the span
//!        │ timestart … timestop         past midnight when it stops before it starts
//!        │ weekdays, monthdays          with --contiguous the hours after midnight are the day before
//! ```

use crate::settings::Settings;

const DAY_SECONDS: i64 = 86400;

/// When it holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Calendar {
    dates: (i64, i64),
    times: (i64, i64),
    weekdays: u64,
    monthdays: u64,
    is_local: bool,
    is_contiguous: bool,
}

impl Calendar {
    pub(crate) fn new(settings: Settings<'_>) -> Calendar {
        let number = |name| settings.number(name).and_then(|n| i64::try_from(n).ok());
        // Days that are negated are all the others.
        let days = |name, all: u64| match settings.set(name) {
            Some(set) if settings.is_negated(name) => all & !set,
            Some(set) => set,
            None => all,
        };
        Calendar {
            dates: (number("datestart").unwrap_or(0), number("datestop").unwrap_or(i32::MAX.into())),
            times: (number("timestart").unwrap_or(0), number("timestop").unwrap_or(DAY_SECONDS - 1)),
            weekdays: days("weekdays", 0xfe),
            monthdays: days("monthdays", 0xffff_fffe),
            is_local: settings.has("kerneltz"),
            is_contiguous: settings.has("contiguous"),
        }
    }

    /// At a moment in seconds since 1970; `minutes_west` is the kernel's time zone.
    pub(crate) fn holds(&self, secs: u64, minutes_west: i32) -> bool {
        let mut secs = i64::try_from(secs).unwrap_or(i64::MAX / 2);
        if self.is_local {
            secs -= 60 * i64::from(minutes_west);
        }
        if secs < self.dates.0 || secs > self.dates.1 {
            return false;
        }
        let of_day = secs.rem_euclid(DAY_SECONDS);
        let (start, stop) = self.times;
        if start < stop {
            if of_day < start || of_day > stop {
                return false;
            }
        } else {
            if of_day < start && of_day > stop {
                return false;
            }
            if self.is_contiguous && of_day <= stop {
                secs -= DAY_SECONDS;
            }
        }
        let days = secs.div_euclid(DAY_SECONDS);
        // The first of January 1970 was a Thursday, day 4.
        let weekday = (days + 3).rem_euclid(7) + 1;
        self.weekdays >> weekday & 1 == 1 && self.monthdays >> day_of_month(days) & 1 == 1
    }
}

/// The day of the month, from 1, of a day since 1970.
fn day_of_month(days: i64) -> u32 {
    // Years begin with March, so that the day that leap years add is their last; cycles of 400 years.
    let shifted = days + 719_468;
    let of_cycle = shifted.rem_euclid(146_097);
    let year = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    (of_year - (153 * month + 2) / 5 + 1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{outcomes, rule_of};

    /// At seconds after a moment.
    #[track_caller]
    fn check(options: &str, begin: u64, after: &[i64], expected: &str) {
        check_in(0, options, begin, after, expected);
    }

    #[track_caller]
    fn check_in(minutes_west: i32, options: &str, begin: u64, after: &[i64], expected: &str) {
        let rule = rule_of(&format!("-m time {options}"));
        let calendar = Calendar::new(Settings(&rule.matches[0]));
        let at = |&after: &i64| calendar.holds(begin.checked_add_signed(after).unwrap(), minutes_west);
        assert_eq!(outcomes(after.iter().map(at)), expected);
    }

    /// Thursday, 29 February 2024, 0:00.
    const LEAP_DAY: u64 = 1_709_164_800;
    const DAY: i64 = DAY_SECONDS;

    #[test]
    fn both_ends_of_a_time_belong_to_it() {
        let ends = [9 * 3600 - 1, 9 * 3600, 17 * 3600, 17 * 3600 + 1];
        check("--timestart 9:00 --timestop 17:00", LEAP_DAY, &ends, "-++-");
        check("--timestart 22:00", LEAP_DAY, &[-1, 0, 22 * 3600 - 1, 22 * 3600, DAY - 1, DAY], "+--++-");
        check("--timestop 0:00:01", LEAP_DAY, &[-1, 0, 1, 2], "-++-");
    }

    #[test]
    fn a_span_past_midnight_is_two_days_or_one() {
        // Thursday from 23:00 to 1:00.
        let moments = [-3600, 0, 3600, 3601, 23 * 3600, DAY, DAY + 3600, DAY + 3601];
        check("--timestart 23:00 --timestop 1:00 --weekdays Th", LEAP_DAY, &moments, "-++-+---");
        let contiguous = "--timestart 23:00 --timestop 1:00 --weekdays Th --contiguous";
        check(contiguous, LEAP_DAY, &moments, "----+++-");
        // It starts when it stops: all day.
        check("--timestart 5:00 --timestop 5:00", LEAP_DAY, &[0, 5 * 3600, 5 * 3600 + 1], "+++");
    }

    #[test]
    fn days_change_at_midnight() {
        check("--weekdays Th", LEAP_DAY, &[-1, 0, DAY - 1, DAY], "-++-");
        check("! --weekdays Th", LEAP_DAY, &[-1, 0, DAY - 1, DAY], "+--+");
        check("--weekdays Su", LEAP_DAY, &[3 * DAY - 1, 3 * DAY, 4 * DAY - 1, 4 * DAY], "-++-");
        check("--monthdays 29", LEAP_DAY, &[-1, 0, DAY - 1, DAY], "-++-");
        check("--monthdays 1", LEAP_DAY, &[DAY - 1, DAY, 2 * DAY], "-+-");
        check("! --monthdays 1", LEAP_DAY, &[DAY - 1, DAY, 2 * DAY], "+-+");
        check("--monthdays 31", 0, &[30 * DAY - 1, 30 * DAY, 31 * DAY], "-+-");
    }

    #[test]
    fn the_calendar_is_right_on_every_day() {
        let months = |year: i64| {
            let february = if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) { 29 } else { 28 };
            [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        };
        let days = (1970..2110).flat_map(months).flat_map(|length| 1..=length);
        for (day, expected) in days.enumerate() {
            assert_eq!(day_of_month(day as i64), expected, "day {day}");
        }
    }

    #[test]
    fn both_ends_of_a_span_of_dates_belong_to_it() {
        let dates = "--datestart 2024-02-29 --datestop 2024-03-01T00:00:00";
        check(dates, LEAP_DAY, &[-1, 0, DAY, DAY + 1], "-++-");
        check("--timestart 0:00 --timestop 23:59:59", i32::MAX as u64, &[0, 1], "+-");
    }

    #[test]
    fn the_kernels_time_zone_counts_when_asked_for() {
        let options = "--timestart 9:00 --timestop 17:00";
        check_in(
            -60,
            &format!("{options} --kerneltz"),
            LEAP_DAY,
            &[8 * 3600 - 1, 8 * 3600, 16 * 3600 + 1],
            "-+-",
        );
        check_in(-60, options, LEAP_DAY, &[8 * 3600, 9 * 3600], "-+");
        check_in(300, "--weekdays Th --kerneltz", LEAP_DAY, &[5 * 3600 - 1, 5 * 3600], "-+");
    }
}
