//! `hashlimit`: a bucket of credit, or a measured rate, for each host, port or pair.
//!
//! Rules that name the same table share it; what the first of them says about rate, burst and masks holds for
//! all, while each keeps its own direction (`upto`, `above`) and unit (packets, bytes).
//!
//! Three kinds of buckets:
//!
//! - *packets*: `cost` for each that matches, some credit a tick, at most burst × cost;
//! - *bytes*: the same by length in pieces of 16 bytes; a bucket that is too empty is filled at once, as often
//!   as the burst says;
//! - *rate-match*: what passed in this interval is compared, nothing is paid.
//!
//! Entries that were idle too long go when the kernel's cleaning runs, each `--hashlimit-htable-gcinterval`
//! after the rules were loaded. Whether it has run since an entry expired can be told when the entry is needed
//! next, so nothing runs here. A table that is full drops the packet.

use std::collections::HashMap;

use hipac_classifier::{L4, Packet};
use hipac_rules::{Family, Value};

use crate::clock::{Hz, power_of_two_below};
use crate::settings::Settings;
use crate::wire;
use crate::{Answer, Arrival};

/// Buckets of the kernel's hash table with 1 GiB of memory or more; eight times as many entries fit.
const SIZE_DEFAULT: u32 = 8192;
const SIZE_MAX: u32 = 1 << 20;

/// Microseconds between packets.
const SCALE: u64 = 1_000_000;

/// Lengths count in pieces of 16 bytes.
const PIECE_SHIFT: u32 = 4;

/// What one rule says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HashLimit {
    pub(crate) table: usize,
    unit: Unit,
    is_above: bool,
    is_rate_match: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Unit {
    Packets,
    Bytes,
}

/// A table, as its first rule has set it up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table {
    config: Config,
    entries: HashMap<Key, Entry>,
    /// The tick in which the rules were loaded: cleanings are counted from there.
    loaded: u64,
    /// Up to when the last cleaning took entries out.
    cleaned: u64,
}

#[derive(Debug, Clone, PartialEq)]
struct Config {
    unit: Unit,
    is_rate_match: bool,
    average: u64,
    burst: u64,
    interval: u64,
    parts: u64,
    entries_max: usize,
    clean_jiffies: u64,
    expire_jiffies: u64,
    source_mask: u128,
    destination_mask: u128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Key {
    source: u128,
    destination: u128,
    ports: (u16, u16),
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    expires: u64,
    previous: u64,
    fill: Fill,
}

#[derive(Debug, Clone, PartialEq)]
enum Fill {
    /// `cap` of a bucket of bytes: how often it may still be filled at once.
    Credit {
        credit: u64,
        cap: u64,
        cost: u64,
    },
    Rate {
        current: u64,
        was_over: bool,
        rate: u64,
        burst: u64,
    },
}

/// Bits of `--hashlimit-mode`.
const DESTINATION: u64 = 1;
const SOURCE: u64 = 2;
const DESTINATION_PORT: u64 = 4;
const SOURCE_PORT: u64 = 8;

impl HashLimit {
    /// A rule's part, and the set-up of the table when it is the first to name it.
    pub(crate) fn new(
        settings: Settings<'_>,
        family: Family,
        hz: Hz,
        now: u64,
    ) -> Result<(HashLimit, Table), String> {
        let (rate, is_above) = match (settings.get("hashlimit-upto"), settings.get("hashlimit-above")) {
            (Some(s), _) => (&s.value, s.negated),
            (_, Some(s)) => (&s.value, !s.negated),
            _ => return Err("it has no rate".into()),
        };
        let burst = settings.get("hashlimit-burst").map(|s| &s.value);
        let expire = settings.word("hashlimit-htable-expire");
        let is_rate_match = settings.has("hashlimit-rate-match");
        let (unit, average, burst, expire) = match *rate {
            Value::Range(period, seconds) => {
                let burst = match burst {
                    Some(Value::Number(n)) => *n,
                    _ => 5,
                };
                let unit_ms = u32::try_from(seconds * 1000).unwrap_or(u32::MAX);
                (Unit::Packets, period, burst, expire.unwrap_or(unit_ms))
            }
            Value::Number(bytes) => {
                let average = u64::from(u32::MAX) / ((bytes >> PIECE_SHIFT) + 1);
                let burst = match burst {
                    Some(Value::Range(bytes, _)) => Some(bytes.div_ceil(bytes_a_second(average).max(1))),
                    _ => None,
                };
                let refills_ms = burst.map(|n| u32::try_from(n * 60_000).unwrap_or(u32::MAX));
                let expire = expire.or(refills_ms).unwrap_or(15_000);
                (Unit::Bytes, average, burst.unwrap_or(0), expire)
            }
            _ => return Err("its rate is no rate".into()),
        };
        let size = match settings.word("hashlimit-htable-size").unwrap_or(0) {
            0 => SIZE_DEFAULT,
            size => size.min(SIZE_MAX),
        };
        let entries_max = match settings.word("hashlimit-htable-max").unwrap_or(0).min(SIZE_MAX) {
            0 => size * 8,
            max => max.max(size),
        };
        let mask = |name| {
            let bits = settings.word(name).unwrap_or(family.address_bits()).min(family.address_bits());
            let host_bits = family.address_bits() - bits;
            family.full_mask().checked_shr(host_bits).map_or(0, |m| m << host_bits)
        };
        let config = Config {
            unit,
            is_rate_match,
            average,
            burst,
            interval: settings.number("hashlimit-rate-interval").unwrap_or(1),
            parts: settings.set("hashlimit-mode").unwrap_or(0),
            entries_max: entries_max as usize,
            clean_jiffies: hz.of_millis(settings.word("hashlimit-htable-gcinterval").unwrap_or(1000)).max(1),
            expire_jiffies: hz.of_millis(expire),
            source_mask: mask("hashlimit-srcmask"),
            destination_mask: mask("hashlimit-dstmask"),
        };
        let cost = match unit {
            Unit::Packets => credits(average, hz),
            Unit::Bytes => byte_credits(average, hz),
        };
        let is_refused = match unit {
            _ if is_rate_match => average == 0 || average > u64::from(u32::MAX),
            Unit::Bytes => cost == 0,
            Unit::Packets => burst == 0 || credits(average.wrapping_mul(burst), hz) < cost,
        };
        if is_refused {
            return Err("rate and burst are too much for the kernel: lower them".into());
        }
        let rule = HashLimit { table: 0, unit, is_above, is_rate_match };
        Ok((rule, Table { config, entries: HashMap::new(), loaded: now, cleaned: 0 }))
    }

    /// `None` when the packet's ports are needed and not known.
    pub(crate) fn ask(
        &self,
        table: &mut Table,
        packet: &Packet,
        arrival: &Arrival<'_>,
        hz: Hz,
        now: u64,
    ) -> Option<Answer> {
        if !table.suits(self) {
            return None;
        }
        let key = match table.config.key(packet, arrival)? {
            Some(key) => key,
            None => return Some(Answer::Drops),
        };
        let Some(entry) = table.touch(key, hz, now) else { return Some(Answer::Drops) };
        let is_under = match &mut entry.fill {
            Fill::Rate { current, was_over, burst, .. } => {
                let cost = if self.unit == Unit::Bytes { u64::from(packet.length) } else { 1 };
                *current = current.wrapping_add(cost);
                !*was_over && *current <= *burst
            }
            Fill::Credit { credit, cap, cost } => {
                let cost = match self.unit {
                    Unit::Packets => *cost,
                    Unit::Bytes => byte_cost(packet.length, *cost, credit, cap, hz),
                };
                let is_under = *credit >= cost;
                if is_under {
                    *credit -= cost;
                }
                is_under
            }
        };
        Some(Answer::from(is_under != self.is_above))
    }
}

impl Table {
    /// The rule measures as the table does, by rate or by credit: otherwise the kernel reads one as the other.
    pub(crate) fn suits(&self, rule: &HashLimit) -> bool {
        self.config.is_rate_match == rule.is_rate_match
    }

    /// The entry of a key, new or brought up to now; `None`: the table is full.
    fn touch(&mut self, key: Key, hz: Hz, now: u64) -> Option<&mut Entry> {
        let cleaned =
            self.loaded + (now - self.loaded) / self.config.clean_jiffies * self.config.clean_jiffies;
        let is_gone = |entry: &Entry| entry.expires <= cleaned;
        if self.entries.get(&key).is_some_and(is_gone) {
            self.entries.remove(&key);
        }
        let expires = now.saturating_add(self.config.expire_jiffies);
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.expires = expires;
            entry.advance(&self.config, hz, now);
        } else {
            // Whoever has been looked for in vain is not looked for again before some more can have gone.
            if self.entries.len() >= self.config.entries_max && self.cleaned < cleaned {
                self.entries.retain(|_, entry| !is_gone(entry));
                self.cleaned = cleaned;
            }
            if self.entries.len() >= self.config.entries_max {
                return None;
            }
            let fill = self.config.full(hz);
            self.entries.insert(key, Entry { expires, previous: now, fill });
        }
        self.entries.get_mut(&key)
    }
}

impl Config {
    /// The bucket that a packet belongs to. `None`: its ports are not known; `Some(None)`: it has none where
    /// its protocol has, and is dropped.
    fn key(&self, packet: &Packet, arrival: &Arrival<'_>) -> Option<Option<Key>> {
        let has = |part| self.parts & part != 0;
        let mut key = Key::default();
        if has(SOURCE) {
            key.source = packet.source & self.source_mask;
        }
        if has(DESTINATION) {
            key.destination = packet.destination & self.destination_mask;
        }
        if !has(SOURCE_PORT) && !has(DESTINATION_PORT) {
            return Some(Some(key));
        }
        let ports = match packet.protocol {
            6 | 17 | 33 | 132 | 136 => match packet.l4 {
                L4::Under4 => return Some(None),
                // The kernel takes the first bytes of a later fragment for ports.
                L4::Fragment | L4::FragmentAt8 => wire::ports(packet, arrival, 0)?,
                _ => Some((packet.source_port, packet.destination_port)),
            },
            50 => wire::ports(packet, arrival, 0)?,
            51 => wire::ports(packet, arrival, 4)?,
            _ => Some((0, 0)),
        };
        let Some((source, destination)) = ports else { return Some(None) };
        key.ports =
            (if has(SOURCE_PORT) { source } else { 0 }, if has(DESTINATION_PORT) { destination } else { 0 });
        Some(Some(key))
    }

    /// A new bucket.
    fn full(&self, hz: Hz) -> Fill {
        match self.unit {
            Unit::Bytes if self.is_rate_match => {
                let rate = bytes_a_second(self.average);
                let burst = if self.burst == 0 { rate } else { self.burst.wrapping_mul(rate) };
                Fill::Rate { current: 0, was_over: false, rate, burst }
            }
            Unit::Packets if self.is_rate_match => {
                let rate = SCALE.checked_div(self.average).unwrap_or(0);
                Fill::Rate { current: 0, was_over: false, rate, burst: self.burst.wrapping_add(rate) }
            }
            Unit::Bytes => {
                Fill::Credit { credit: byte_cap(hz), cap: self.burst, cost: byte_credits(self.average, hz) }
            }
            Unit::Packets => {
                let full = credits(self.average.wrapping_mul(self.burst), hz);
                Fill::Credit { credit: full, cap: full, cost: credits(self.average, hz) }
            }
        }
    }
}

impl Entry {
    fn advance(&mut self, config: &Config, hz: Hz, now: u64) {
        let passed = now.wrapping_sub(self.previous);
        if passed == 0 {
            return;
        }
        match &mut self.fill {
            Fill::Rate { current, was_over, rate, .. } => {
                let interval = config.interval.wrapping_mul(hz.get().into());
                if passed < interval {
                    return;
                }
                *was_over = current.wrapping_mul(interval) > passed.wrapping_mul(*rate);
                *current = 0;
            }
            Fill::Credit { credit, cap, .. } if config.unit == Unit::Packets => {
                *credit = credit.wrapping_add(passed.wrapping_mul(per_jiffy(hz))).min(*cap);
            }
            Fill::Credit { credit, .. } => {
                let before = *credit;
                *credit = before.wrapping_add(bytes_per_jiffy(hz).wrapping_mul(passed));
                if before >= *credit {
                    *credit = byte_cap(hz);
                }
                *credit = (*credit).min(byte_cap(hz));
            }
        }
        self.previous = now;
    }
}

fn per_jiffy(hz: Hz) -> u64 {
    power_of_two_below(u64::MAX / (u64::from(hz.get()) * 86400))
}

fn bytes_per_jiffy(hz: Hz) -> u64 {
    power_of_two_below(u64::from(u32::MAX / hz.get()))
}

/// A second's worth: what a bucket of bytes holds.
fn byte_cap(hz: Hz) -> u64 {
    bytes_per_jiffy(hz) * u64::from(hz.get())
}

fn credits(periods: u64, hz: Hz) -> u64 {
    let a_second = u64::from(hz.get()) * per_jiffy(hz);
    if SCALE >= a_second { periods / (SCALE / a_second) } else { periods.wrapping_mul(a_second / SCALE) }
}

fn byte_credits(average: u64, hz: Hz) -> u64 {
    // A product of two numbers of 32 bits, then its upper half.
    average.wrapping_mul(byte_cap(hz)) >> 32
}

/// What a rate of bytes was before it became a cost.
fn bytes_a_second(average: u64) -> u64 {
    let pieces = u32::MAX.checked_div(average as u32).unwrap_or(u32::MAX);
    u64::from(pieces.wrapping_sub(1)) << PIECE_SHIFT
}

/// The cost of a packet of that length. A bucket that cannot pay is filled, as long as the burst lasts.
fn byte_cost(length: u32, cost: u64, credit: &mut u64, cap: &mut u64, hz: Hz) -> u64 {
    let pieces = u64::from(length >> PIECE_SHIFT) + 1;
    let cost = pieces.wrapping_mul(cost).min(byte_cap(hz));
    if *credit < cost && *cap > 0 {
        *cap -= 1;
        *credit = byte_cap(hz);
    }
    cost
}

#[cfg(test)]
mod tests;
