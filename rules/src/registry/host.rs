//! Matches on what the host knows besides the packet: sockets, time, policies; and comments.

use crate::meaning::{Field, MatchMeaning, Residual};
use crate::model::{Extension, Family, Hook, Setting, TableKind};
use crate::value::Value;

use super::kind::{CustomKind, Quote, ValueFault, ValueKind, number_within};
use super::meaning::test;
use super::spec::{ExtensionSpec, FinishContext, Law, Quirks, flag, option, setting};

pub(super) static ENTRIES: &[ExtensionSpec] = &[
    ExtensionSpec {
        name: "comment",
        help: "says something to the reader; always holds",
        options: &[option("comment", ValueKind::careful_text(255), "what it says").required()],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "owner",
        help: "who owns the socket that sent the packet",
        hooks: &[Hook::Output, Hook::Postrouting],
        options: &[
            flag("socket-exists", "there is a socket").not().tests(Field::Socket),
            option("uid-owner", ValueKind::Custom(&ID), "user, by number or range").not().tests(Field::Uid),
            option("gid-owner", ValueKind::Custom(&ID), "group, by number or range").not().tests(Field::Gid),
            flag("suppl-groups", "supplementary groups count as well"),
        ],
        laws: &[
            Law::AnyOf(&["socket-exists", "uid-owner", "gid-owner"]),
            Law::Needs("suppl-groups", "gid-owner"),
            Law::Behind("suppl-groups", "gid-owner"),
        ],
        quirks: Quirks::partly(owner),
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "socket",
        help: "a local socket would take the packet",
        tables: &[TableKind::Mangle, TableKind::Raw, TableKind::Filter, TableKind::Nat, TableKind::Security],
        hooks: &[Hook::Prerouting, Hook::Input],
        residual: Some(Residual::Pure),
        options: &[
            flag("transparent", "only transparent sockets"),
            flag("nowildcard", "sockets bound to any address count as well"),
            flag("restore-skmark", "the packet takes the socket's mark"),
        ],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "policy",
        help: "IPsec policy that handles the packet",
        residual: Some(Residual::Pure),
        options: &[
            option("dir", ValueKind::Exact(&[("in", 0), ("out", 1)]), "decapsulation or encapsulation")
                .required(),
            option("pol", ValueKind::Exact(&[("none", 0), ("ipsec", 1)]), "whether there is one")
                .shown("ipsec"),
            flag("strict", "the elements are the whole policy, in this order"),
            option("reqid", ValueKind::number(u32::MAX as u64), "request id").not().repeats(),
            option("spi", ValueKind::hex(u32::MAX as u64, 0), "security parameter index").not().repeats(),
            option(
                "proto",
                ValueKind::Exact(&[
                    ("ah", 51),
                    ("esp", 50),
                    ("ipcomp", 108),
                    ("51", 51),
                    ("50", 50),
                    ("108", 108),
                ]),
                "protocol",
            )
            .not()
            .repeats(),
            option("mode", ValueKind::Exact(&[("transport", 0), ("tunnel", 1)]), "mode").not().repeats(),
            option("tunnel-dst", ValueKind::NETWORK, "far end of the tunnel").not().repeats(),
            option("tunnel-src", ValueKind::NETWORK, "near end of the tunnel").not().repeats(),
            flag("next", "the next element follows").repeats(),
        ],
        group_by: Some("next"),
        laws: &[Law::Needs("next", "strict")],
        quirks: Quirks::finish(policy_finish),
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "time",
        help: "time and date of arrival",
        residual: Some(Residual::Pure),
        options: &[
            option("timestart", ValueKind::Custom(&TIME), "from this time of day"),
            option("timestop", ValueKind::Custom(&TIME), "to this time of day"),
            option("monthdays", ValueKind::Custom(&MONTHDAYS), "days of the month").not(),
            option("weekdays", ValueKind::Custom(&WEEKDAYS), "days of the week").not(),
            option("datestart", ValueKind::Custom(&DATE), "from this date"),
            option("datestop", ValueKind::Custom(&DATE), "to this date"),
            flag("kerneltz", "times are in the kernel's time zone"),
            flag("contiguous", "a span past midnight is one span"),
            flag("utc", "times are in UTC, as without this flag"),
            flag("localtz", "times are local").short_for("kerneltz", Value::clone),
        ],
        laws: &[Law::OneOf(&["utc", "kerneltz"])],
        quirks: Quirks::finish(time_finish),
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "cpu",
        help: "processor that handles the packet",
        options: &[option("cpu", ValueKind::number(u32::MAX as u64), "its number")
            .not()
            .required()
            .tests(Field::Cpu)],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "cgroup",
        help: "control group of the socket",
        hooks: &[Hook::Input, Hook::Output, Hook::Postrouting],
        residual: Some(Residual::Pure),
        options: &[
            option(
                "path",
                ValueKind::Text { min: 0, max: 511, cut: false, quote: Quote::Always },
                "path in the hierarchy",
            )
            .not(),
            option("cgroup", ValueKind::number(u32::MAX as u64), "class id").not(),
        ],
        laws: &[Law::AnyOf(&["path", "cgroup"]), Law::OneOf(&["path", "cgroup"])],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "osf",
        help: "operating system, guessed from a TCP SYN",
        protocols: &[6],
        residual: Some(Residual::Pure),
        options: &[
            option("genre", ValueKind::Text { min: 0, max: 31, cut: true, quote: Quote::Needed }, "its name")
                .not()
                .required(),
            option("ttl", ValueKind::number(2), "how the TTL is compared"),
            option("log", ValueKind::number(2), "what is logged"),
        ],
        ..ExtensionSpec::MATCH
    },
];

/// Supplementary groups are no field: with them, the group is asked for.
fn owner(extension: &Extension, _: Family) -> MatchMeaning {
    let with_groups = setting(&extension.settings, "suppl-groups").is_some();
    let mut meaning = MatchMeaning::default();
    for s in &extension.settings {
        match s.option.field() {
            Some(Field::Gid) if with_groups => meaning.residual = Some(Residual::Pure),
            Some(field) => meaning.clauses.push(vec![test(field, s)]),
            None => {}
        }
    }
    meaning
}

/// A user or group, by number, range, or the one name that is the same everywhere.
static ID: CustomKind = CustomKind {
    hint: "ID[-ID]",
    parse: |text, _: Family| {
        let id = |text| number_within(text, 0, u64::from(u32::MAX) - 1);
        if text == "root" {
            return Ok(Value::Range(0, 0));
        }
        if text.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(ValueFault::new(
                format!("`{text}` is a name that only its own machine can resolve"),
                "write the number",
            ));
        }
        let (lo, hi) = match text.split_once(['-', ':']) {
            Some((lo, hi)) => (id(lo)?, id(hi)?),
            None => (id(text)?, id(text)?),
        };
        if lo > hi {
            return Err(format!("the range {lo} to {hi} holds nothing").into());
        }
        Ok(Value::Range(lo, hi))
    },
    write: |value, family, out| {
        ValueKind::Range { max: u64::from(u32::MAX), between: '-' }.write(value, family, out);
    },
};

/// `strict` needs elements, and a tunnel's ends need tunnel mode.
fn policy_finish(settings: &mut Vec<Setting>, _: &FinishContext<'_>) -> Result<(), String> {
    let has = |name: &str| setting(settings, name).is_some();
    let element = ["reqid", "spi", "proto", "mode", "tunnel-dst", "tunnel-src"];
    let ipsec = matches!(setting(settings, "pol"), Some(Setting { value: Value::Number(1), .. }));
    if has("strict") && !element.iter().any(|name| has(name)) {
        return Err("--strict needs an element of the policy (--reqid, --spi, --proto, …)".into());
    }
    if !ipsec && (has("strict") || element.iter().any(|name| has(name))) {
        return Err("elements of a policy need --pol ipsec".into());
    }
    let tunnel = |s: &Setting| s.option.name == "mode" && s.value == Value::Number(1);
    for group in settings.split(|s| s.option.name == "next") {
        let ends = group.iter().any(|s| s.option.name.starts_with("tunnel-"));
        if ends && !group.iter().any(tunnel) {
            return Err("--tunnel-src and --tunnel-dst need --mode tunnel".into());
        }
    }
    Ok(())
}

const DAY_SECONDS: u64 = 86400;

/// A time of day in seconds.
static TIME: CustomKind = CustomKind {
    hint: "HH:MM[:SS]",
    parse: |text, _: Family| clock(text).map(Value::Number),
    write: |value, _, out| {
        if let Value::Number(n) = value {
            out.push_str(&format!("{:02}:{:02}:{:02}", n / 3600, n / 60 % 60, n % 60));
        }
    },
};

fn clock(text: &str) -> Result<u64, ValueFault> {
    let two_digits = |part: &str, max: u64| {
        let sound = (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<u64>().ok().filter(|n| sound && *n <= max)
    };
    let mut parts = text.split(':');
    let hours = parts.next().and_then(|p| two_digits(p, 23));
    let minutes = parts.next().and_then(|p| two_digits(p, 59));
    let seconds = parts.next().map_or(Some(0), |p| two_digits(p, 59));
    match (hours, minutes, seconds, parts.next()) {
        (Some(h), Some(m), Some(s), None) => Ok(h * 3600 + m * 60 + s),
        _ => Err(ValueFault::new(format!("`{text}` is no time of day"), "write HH:MM or HH:MM:SS")),
    }
}

/// A date as the seconds since 1970.
static DATE: CustomKind = CustomKind {
    hint: "YYYY[-MM[-DD[Thh[:mm[:ss]]]]]",
    parse: |text, _: Family| match date(text) {
        Some(seconds) => Ok(Value::Number(seconds)),
        None => Err(ValueFault::new(
            format!("`{text}` is no date from 1970 to 2038"),
            "write YYYY-MM-DD or YYYY-MM-DDThh:mm:ss",
        )),
    },
    write: |value, _, out| {
        if let Value::Number(n) = value {
            let (year, month, day) = civil(n / DAY_SECONDS);
            let clock = n % DAY_SECONDS;
            out.push_str(&format!(
                "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
                clock / 3600,
                clock / 60 % 60,
                clock % 60
            ));
        }
    },
};

/// The last second that a date may name.
const DATE_MAX: u64 = i32::MAX as u64;

fn date(text: &str) -> Option<u64> {
    let (days, clock_text) = text.split_once('T').map_or((text, None), |(d, c)| (d, Some(c)));
    let mut parts = days.split('-').map(|p| p.parse::<u64>().ok());
    let year = parts.next()??;
    let month = parts.next().unwrap_or(Some(1))?;
    let day = parts.next().unwrap_or(Some(1))?;
    let sound = (1970..=2038).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !sound || parts.next().is_some() {
        return None;
    }
    let of_day = match clock_text {
        None => 0,
        Some(c) if c.contains(':') => clock(c).ok()?,
        Some(c) => c.parse::<u64>().ok().filter(|h| *h <= 23)? * 3600,
    };
    let seconds = days_before(year, month, day) * DAY_SECONDS + of_day;
    (seconds <= DATE_MAX).then_some(seconds)
}

const MONTH_DAYS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// Leap years between 1970 and 2038 are those that four divides.
fn leap(year: u64) -> u64 {
    u64::from(year.is_multiple_of(4))
}

fn month_days(year: u64, month: usize) -> u64 {
    MONTH_DAYS[month] + if month == 1 { leap(year) } else { 0 }
}

fn days_before(year: u64, month: u64, day: u64) -> u64 {
    let years: u64 = (1970..year).map(|y| 365 + leap(y)).sum();
    let months: u64 = (0..month as usize - 1).map(|m| month_days(year, m)).sum();
    years + months + day - 1
}

fn civil(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    while days >= 365 + leap(year) {
        days -= 365 + leap(year);
        year += 1;
    }
    let mut month = 0;
    while days >= month_days(year, month) {
        days -= month_days(year, month);
        month += 1;
    }
    (year, month as u64 + 1, days + 1)
}

const DAY_NAMES: [(&str, u64); 7] =
    [("Mon", 1), ("Tue", 2), ("Wed", 3), ("Thu", 4), ("Fri", 5), ("Sat", 6), ("Sun", 7)];

static WEEKDAYS: CustomKind = CustomKind {
    hint: "DAY[,…]",
    parse: |text, _: Family| {
        let mut set = 0u64;
        for part in text.split(',') {
            let named = DAY_NAMES
                .iter()
                .find(|(name, _)| part.len() >= 2 && name.get(..part.len()).is_some_and(|n| n == part));
            let day = match named {
                Some((_, n)) => *n,
                None => number_within(part, 1, 7).map_err(|_| {
                    ValueFault::new(format!("`{part}` is no day of the week"), "write Mon, Tue, … or 1 to 7")
                })?,
            };
            set |= 1 << day;
        }
        Ok(Value::Set(set))
    },
    write: |value, _, out| {
        if let Value::Set(set) = value {
            let names: Vec<&str> =
                DAY_NAMES.iter().filter(|(_, n)| set >> n & 1 == 1).map(|(n, _)| *n).collect();
            out.push_str(&names.join(","));
        }
    },
};

static MONTHDAYS: CustomKind = CustomKind {
    hint: "DAY[,…]",
    parse: |text, _: Family| {
        let mut set = 0u64;
        for part in text.split(',') {
            set |= 1 << number_within(part, 1, 31)?;
        }
        Ok(Value::Set(set))
    },
    write: |value, _, out| {
        if let Value::Set(set) = value {
            let days: Vec<String> = (1..32).filter(|n| set >> n & 1 == 1).map(|n| n.to_string()).collect();
            out.push_str(&days.join(","));
        }
    },
};

/// Both ends of the day are printed when one is given, and the last date always; days that are
/// negated are the other days.
fn time_finish(settings: &mut Vec<Setting>, context: &FinishContext<'_>) -> Result<(), String> {
    let number = |settings: &[Setting], name| match setting(settings, name) {
        Some(Setting { value: Value::Number(n), .. }) => Some(*n),
        _ => None,
    };
    let (start, stop) = (number(settings, "timestart"), number(settings, "timestop"));
    let (start, stop) = (start.unwrap_or(0), stop.unwrap_or(DAY_SECONDS - 1));
    if setting(settings, "contiguous").is_some() && stop >= start {
        return Err("--contiguous only means something when the time stops before it starts".into());
    }
    if (start, stop) == (0, DAY_SECONDS - 1) {
        settings.retain(|s| !matches!(s.option.name, "timestart" | "timestop"));
    } else {
        context.add_missing(settings, "timestart", Value::Number(start));
        context.add_missing(settings, "timestop", Value::Number(stop));
    }
    for s in settings.iter_mut().filter(|s| s.negated) {
        let all = if s.option.name == "weekdays" { 0xfe } else { 0xffff_fffe };
        if let Value::Set(set) = s.value
            && all & !set != 0
        {
            (s.value, s.negated) = (Value::Set(all & !set), false);
        }
    }
    context.add_missing(settings, "datestop", Value::Number(DATE_MAX));
    settings
        .retain(|s| s.option.name != "utc" && (s.option.name != "datestart" || s.value != Value::Number(0)));
    Ok(())
}
