//! Packets replayed over a clock: what their rules keep, from one to the next.

use hipac_host::{Arrival, Hz, Options, State, Time};
use hipac_rules::Ruleset;

use crate::args::Replay;
use crate::exit::Failure;
use crate::packets::Arrived;

/// A clock that was asked for, and the state of the rules.
pub(crate) struct Clock {
    pub(crate) state: State,
    /// When packets come that do not say so.
    at: Option<Time>,
    /// A match may have no answer: see [`State::may_not_know`].
    pub(crate) may_not_know: bool,
}

impl Clock {
    /// The clock, when there is one. The rules are loaded when the first packet comes.
    pub(crate) fn new(
        replay: &Replay,
        ruleset: &Ruleset,
        name: &str,
        packets: &[Arrived],
    ) -> Result<Option<Clock>, Failure> {
        if !replay.is_asked_for() {
            return Ok(None);
        }
        let at = replay.at;
        if at.is_none() && packets.iter().any(|p| p.at.is_none()) {
            return Err(Failure::new(
                "--clock takes times from a capture, or from a column `at` of a CSV file: these packets have \
                 none (say when they come with --at)",
            ));
        }
        let options = Options {
            hz: replay.hz,
            seed: replay.seed,
            minutes_west: -replay.kernel_tz,
            ..Options::default()
        };
        let first = packets.first().and_then(|p| replay.time_of(p)).unwrap_or_default();
        let state = State::new(ruleset, options, first).map_err(|e| Failure::at(name, e))?;
        let has_wire = packets.iter().all(|p| p.wire.is_some());
        let may_not_know = state.may_not_know(ruleset, has_wire);
        Ok(Some(Clock { state, at, may_not_know }))
    }

    /// What is known of a packet.
    pub(crate) fn arrival<'a>(&self, packet: &'a Arrived) -> Arrival<'a> {
        let at = self.at.or(packet.at).unwrap_or_default();
        Arrival { wire: packet.wire.as_deref(), ..Arrival::at(at) }
    }
}

impl Replay {
    /// A clock is.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.clock || self.at.is_some()
    }

    fn time_of(&self, packet: &Arrived) -> Option<Time> {
        self.at.or(packet.at)
    }
}

/// Nanoseconds of a second.
const NANOS: u64 = 1_000_000_000;

/// A moment: seconds since 1970, or a date and time of RFC 3339 (UTC when it names no offset).
pub(crate) fn time(text: &str) -> Result<Time, String> {
    if let Some(time) = seconds(text) {
        return Ok(time);
    }
    let wrong = || {
        format!(
            "`{text}` is no time: write 2026-11-25T15:00:00Z, 2026-11-25, or seconds since 1970 as 1700000000.5"
        )
    };
    let stamp = match text.parse::<jiff::Timestamp>() {
        Ok(stamp) => stamp,
        Err(_) => {
            let civil = text.parse::<jiff::civil::DateTime>().map_err(|_| wrong())?;
            jiff::tz::Offset::UTC.to_timestamp(civil).map_err(|_| wrong())?
        }
    };
    let nanos = u64::try_from(stamp.as_nanosecond());
    nanos.map(Time::from_nanos).map_err(|_| format!("`{text}` lies before 1970 or after 2554"))
}

fn seconds(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 9 || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let nanos: u64 = format!("{fraction:0<9}").parse().ok()?;
    Some(Time::from_nanos(whole.parse::<u64>().ok()?.checked_mul(NANOS)?.checked_add(nanos)?))
}

/// Ticks a second.
pub(crate) fn hz(text: &str) -> Result<Hz, String> {
    let hz = text.parse().ok().and_then(Hz::new);
    hz.ok_or_else(|| format!("`{text}` is no tick rate of a kernel: 100, 250, 300 and 1000 are common"))
}

/// A time zone `+HH:MM`, in minutes.
pub(crate) fn zone(text: &str) -> Result<i32, String> {
    let parts = || {
        let (sign, rest) = match text.as_bytes().first()? {
            b'+' => (1, &text[1..]),
            b'-' => (-1, &text[1..]),
            _ => return None,
        };
        let (hours, minutes) = rest.split_once(':')?;
        let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
        ((0..=15).contains(&hours) && (0..60).contains(&minutes)).then_some(sign * (60 * hours + minutes))
    };
    parts().ok_or_else(|| format!("`{text}` is no time zone: write +02:00 or -05:30"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_each_form() {
        let check = |text, nanos| assert_eq!(time(text), Ok(Time::from_nanos(nanos)), "{text}");
        check("0", 0);
        check("1.5", 1_500_000_000);
        check("1700000000.000000001", 1_700_000_000_000_000_001);
        check("1970-01-02", 86_400_000_000_000);
        check("1970-01-01T00:00:01", 1_000_000_000);
        check("1970-01-01T02:00:00+02:00", 0);
        check("1970-01-01T00:00:00.25Z", 250_000_000);
        for wrong in ["", "x", "-1", "1.", "1969-12-31", "2024-13-01", "99999999999999999999", "1.0000000001"]
        {
            assert_eq!(time(wrong).is_err(), wrong != "1.", "{wrong}");
        }
    }

    #[test]
    fn time_zones_are_minutes_east() {
        assert_eq!(zone("+02:00"), Ok(120));
        assert_eq!(zone("-05:30"), Ok(-330));
        assert!(["", "2", "+2", "+25:00", "02:00", "+01:60"].iter().all(|text| zone(text).is_err()));
    }
}
