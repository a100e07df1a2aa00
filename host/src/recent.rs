//! `recent`: lists of addresses, each with the ticks in which it was seen.
//!
//! ```text
//!   list "ssh":  192.0.2.7   ttl 64   stamps │ 810 │ 830 │ 612 │ 705 │    a ring: `next` is overwritten next
//!                                                          ▲ next
//! ```
//!
//! All rules that name a list share it, across tables. Its mask is that of the rule that was loaded first; its
//! rings have as many places as the largest `--hitcount` of its rules needs, a power of two, 32 when none has
//! one. (The kernel shares a list between the families as well, mask and rings; a state is of one family, and does
//! not see the other's rules.) A list holds [`Options::recent_addresses_max`](crate::Options) addresses; a further one takes the place
//! of the one that was longest not seen.

use std::collections::{BTreeMap, HashMap};

use hipac_classifier::Packet;
use hipac_rules::{Family, Value};

use crate::Answer;
use crate::clock::Hz;
use crate::settings::Settings;

/// Places of a ring when no rule counts.
const STAMPS_DEFAULT: u32 = 32;

/// What one rule asks of its list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recent {
    pub(crate) list: usize,
    command: Command,
    is_inverted: bool,
    is_destination: bool,
    seconds: u32,
    hits: u32,
    with_ttl: bool,
    reaps: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Command {
    Set,
    Check,
    Update,
    Remove,
}

/// A list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct List {
    mask: u128,
    stamps_mask: u16,
    addresses_max: usize,
    entries: HashMap<u128, Entry>,
    /// Addresses by when they were last seen, the longest ago first.
    by_age: BTreeMap<u64, u128>,
    /// The next number of that order.
    next_age: u64,
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    age: u64,
    ttl: u8,
    /// Where the next stamp goes, before masking.
    next: u16,
    count: u16,
    stamps: Vec<u64>,
}

impl Recent {
    /// A rule's part, and the list that it wants.
    pub(crate) fn new(
        settings: Settings<'_>,
        family: Family,
        stamps: u32,
        addresses_max: u32,
    ) -> Result<(Recent, List), String> {
        use Command::*;
        let named = [("set", Set), ("rcheck", Check), ("update", Update), ("remove", Remove)];
        let found = named.into_iter().find_map(|(name, command)| Some((settings.get(name)?, command)));
        let Some((setting, command)) = found else { return Err("it says nothing to do".into()) };
        let hits = settings.word("hitcount").unwrap_or(0);
        if hits > u32::from(u16::MAX) {
            return Err(format!("hitcount {hits} is above 65535"));
        }
        let places = match (stamps, hits) {
            (stamps, hits) if stamps > 0 && hits < stamps => stamps,
            (_, 0) => STAMPS_DEFAULT,
            (_, hits) => hits,
        };
        let mask = match settings.get("mask").map(|s| &s.value) {
            Some(Value::Network { address, .. }) => *address,
            _ => family.full_mask(),
        };
        let rule = Recent {
            list: 0,
            command,
            is_inverted: setting.negated,
            is_destination: settings.has("rdest"),
            seconds: settings.word("seconds").unwrap_or(0),
            hits,
            with_ttl: settings.has("rttl"),
            reaps: settings.has("reap"),
        };
        let list = List {
            mask,
            stamps_mask: (places.next_power_of_two() - 1) as u16,
            addresses_max: addresses_max.max(1) as usize,
            entries: HashMap::new(),
            by_age: BTreeMap::new(),
            next_age: 0,
        };
        Ok((rule, list))
    }

    pub(crate) fn ask(&self, list: &mut List, packet: &Packet, hz: Hz, now: u64) -> Answer {
        let address = list.mask & if self.is_destination { packet.destination } else { packet.source };
        // A packet that is forwarded has lost one already.
        let is_forwarded = !packet.in_interface.is_none() && !packet.out_interface.is_none();
        let ttl = packet.ttl.wrapping_add(is_forwarded.into());
        let wanted = if self.with_ttl { ttl } else { 0 };
        let entry = list.entries.get(&address).filter(|e| e.ttl == wanted || wanted == 0 || e.ttl == 0);
        let Some(entry) = entry else {
            if self.command == Command::Set {
                list.insert(address, ttl, now);
            }
            return Answer::from((self.command == Command::Set) != self.is_inverted);
        };
        let held = match self.command {
            Command::Set => true,
            Command::Remove => {
                list.remove(address);
                true
            }
            Command::Check | Command::Update => {
                // A product of two numbers of 32 bits, as the kernel forms it.
                let since = now.wrapping_sub(self.seconds.wrapping_mul(hz.get()).into());
                let is_old = |stamp: u64| self.seconds > 0 && is_after(since, stamp);
                let mut young = entry.stamps[..entry.count.into()].iter().filter(|&&stamp| !is_old(stamp));
                let held = young.nth(self.hits.saturating_sub(1) as usize).is_some();
                if self.reaps {
                    let keeps = self.command == Command::Update && held != self.is_inverted;
                    list.reap(since, keeps.then_some(address));
                }
                held
            }
        };
        let answer = held != self.is_inverted;
        if self.command == Command::Set || (self.command == Command::Update && answer) {
            list.update(address, ttl, now);
        }
        Answer::from(answer)
    }
}

/// `a` lies after `b`, on a clock that wraps around.
fn is_after(a: u64, b: u64) -> bool {
    (b.wrapping_sub(a) as i64) < 0
}

impl List {
    /// Another rule names the list as well: its rings are as long as the longest one wanted.
    pub(crate) fn join(&mut self, other: &List) {
        self.stamps_mask = self.stamps_mask.max(other.stamps_mask);
    }

    fn insert(&mut self, address: u128, ttl: u8, now: u64) {
        // An entry with another TTL has the address already.
        self.remove(address);
        if self.entries.len() >= self.addresses_max
            && let Some((_, &oldest)) = self.by_age.first_key_value()
        {
            self.remove(oldest);
        }
        let age = self.newest(address);
        self.entries.insert(address, Entry { age, ttl, next: 1, count: 1, stamps: vec![now] });
    }

    fn remove(&mut self, address: u128) {
        if let Some(entry) = self.entries.remove(&address) {
            self.by_age.remove(&entry.age);
        }
    }

    fn update(&mut self, address: u128, ttl: u8, now: u64) {
        let age = self.newest(address);
        let mask = self.stamps_mask;
        let Some(entry) = self.entries.get_mut(&address) else {
            self.by_age.remove(&age);
            return;
        };
        self.by_age.remove(&entry.age);
        (entry.age, entry.ttl) = (age, ttl);
        let place = entry.next & mask;
        match entry.stamps.get_mut(usize::from(place)) {
            Some(stamp) => *stamp = now,
            None => entry.stamps.push(now),
        }
        entry.next = place.wrapping_add(1);
        entry.count = entry.count.max(entry.next);
    }

    /// Drops the address that was longest not seen, when its last stamp lies before `since`.
    fn reap(&mut self, since: u64, kept: Option<u128>) {
        let Some((_, &oldest)) = self.by_age.first_key_value() else { return };
        let last = self.entries.get(&oldest).and_then(|e| e.stamps.get(usize::from(e.next).wrapping_sub(1)));
        if Some(oldest) != kept && last.is_some_and(|&last| is_after(since, last)) {
            self.remove(oldest);
        }
    }

    fn newest(&mut self, address: u128) -> u64 {
        let age = self.next_age;
        self.next_age += 1;
        self.by_age.insert(age, address);
        age
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rule_of;
    use hipac_classifier::InterfaceName;

    /// Rules of one list, and packets `tick rule source[/ttl]`; + and - are what the rules say.
    #[track_caller]
    fn check(addresses_max: u32, rules: &[&str], packets: &str, expected: &str) {
        let mut built = Vec::new();
        let mut list: Option<List> = None;
        for text in rules {
            let rule = rule_of(&format!("-m recent --name l {text}"));
            let (recent, wanted) =
                Recent::new(Settings(&rule.matches[0]), Family::V4, 0, addresses_max).unwrap();
            match &mut list {
                Some(list) => list.join(&wanted),
                None => list = Some(wanted),
            }
            built.push(recent);
        }
        let mut list = list.unwrap();
        let answers = packets.split(',').map(|packet| {
            let words: Vec<&str> = packet.split_whitespace().collect();
            let (source, ttl) = words[2].split_once('/').unwrap_or((words[2], "64"));
            let packet =
                Packet { source: source.parse().unwrap(), ttl: ttl.parse().unwrap(), ..Packet::default() };
            let rule: &Recent = &built[words[1].parse::<usize>().unwrap()];
            rule.ask(&mut list, &packet, Hz::DEFAULT, words[0].parse().unwrap()) == Answer::Holds
        });
        assert_eq!(crate::testing::outcomes(answers), expected);
    }

    #[test]
    fn an_address_is_on_the_list_from_set_to_remove() {
        let rules = ["--set", "--rcheck", "--remove", "! --rcheck"];
        check(100, &rules, "1 1 7, 1 3 7, 1 0 7, 1 1 7, 1 3 7, 1 1 8, 2 2 7, 2 1 7, 2 2 7", "-+++--+--");
    }

    #[test]
    fn seconds_hold_to_the_tick() {
        let rules = ["--set", "--rcheck --seconds 2"];
        check(100, &rules, "1000 0 7, 1499 1 7, 1500 1 7, 1501 1 7", "+++-");
    }

    #[test]
    fn hits_are_counted_up_to_the_hitcount() {
        let rules = ["--set", "--rcheck --hitcount 3", "--rcheck --seconds 1 --hitcount 2"];
        check(100, &rules, "0 0 7, 1 0 7, 1 1 7, 2 0 7, 2 1 7, 251 2 7, 252 2 7", "++-+++-");
        check(100, &rules, "0 0 7, 1 0 7, 251 2 7, 252 2 7", "++--");
    }

    #[test]
    fn update_stamps_only_when_it_holds() {
        let rules = ["--set", "--update --seconds 1", "--rcheck --seconds 1"];
        check(100, &rules, "0 0 7, 250 1 7, 500 2 7, 751 1 7, 751 2 7", "+++--");
    }

    #[test]
    fn a_ring_forgets_the_oldest_stamp() {
        // Four places: the fifth stamp overwrites the first.
        let rules = ["--set", "--rcheck --seconds 1 --hitcount 4"];
        check(100, &rules, "0 0 7, 1 0 7, 2 0 7, 3 0 7, 250 1 7, 251 1 7, 251 0 7, 251 1 7", "+++++-++");
    }

    #[test]
    fn a_ring_has_room_for_the_largest_hitcount_of_its_rules() {
        let rules = ["--set", "--rcheck --hitcount 40", "--rcheck --hitcount 3"];
        let packets: Vec<String> = (0..40).map(|tick| format!("{tick} 0 7")).collect();
        check(100, &rules, &format!("{}, 50 1 7", packets[..39].join(",")), &format!("{}-", "+".repeat(39)));
        check(100, &rules, &format!("{}, 50 1 7", packets.join(",")), &"+".repeat(41));
    }

    #[test]
    fn a_full_list_forgets_who_was_longest_not_seen() {
        let rules = ["--set", "--rcheck"];
        check(2, &rules, "0 0 7, 1 0 8, 2 0 7, 3 0 9, 3 1 7, 3 1 8, 3 1 9", "+++++-+");
    }

    #[test]
    fn reap_takes_the_oldest_address_when_it_is_too_old() {
        let rules = ["--set", "--rcheck --seconds 1 --reap", "--rcheck"];
        check(100, &rules, "0 0 7, 1 0 8, 251 1 8, 251 2 7, 251 2 8", "+++-+");
        check(100, &rules, "0 0 7, 1 0 8, 250 1 8, 250 2 7", "++++");
    }

    #[test]
    fn rttl_wants_the_ttl_that_was_seen_last() {
        let rules = ["--set", "--rcheck --rttl"];
        check(100, &rules, "0 0 7/60, 0 1 7/60, 0 1 7/61, 0 0 7/61, 0 1 7/60", "++-+-");
    }

    #[test]
    fn a_forwarded_packet_counts_the_hop_that_it_lost() {
        let eth = InterfaceName::new("eth0").unwrap();
        let rules = ["--set", "--rcheck --rttl"].map(|text| {
            let rule = rule_of(&format!("-m recent {text}"));
            Recent::new(Settings(&rule.matches[0]), Family::V4, 0, 100).unwrap()
        });
        let [(set, mut list), (check, _)] = rules;
        let arrived = Packet { ttl: 64, in_interface: eth, ..Packet::default() };
        set.ask(&mut list, &arrived, Hz::DEFAULT, 0);
        let forwarded = Packet { ttl: 63, out_interface: eth, ..arrived };
        assert_eq!(check.ask(&mut list, &forwarded, Hz::DEFAULT, 0), Answer::Holds);
    }
}
