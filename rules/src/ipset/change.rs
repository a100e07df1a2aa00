//! Commands that change sets which are there: what `ipset restore` takes besides `create` and `add`.
//!
//! Entries that are deleted one after the other from one set go all at once, so that ten thousand
//! deletions cost one pass over it. Commands that alternate cost a pass each: how many entries all of
//! them may walk over has a limit.

use std::collections::HashSet;
use std::sync::Arc;

use super::entry;
use super::read::{NAME_MAX, Reader, Word, is_exist};
use super::{IpSet, Part};
use crate::model::Name;

/// Entries that are named by deletions before they are carried out.
const DOOMED_MAX: usize = 1 << 20;

/// Entries that the commands of a text may walk over: some seconds.
pub(super) const WORK_MAX: usize = 1 << 27;

/// Entries of a set that are to go.
#[derive(Debug)]
pub(super) struct Doomed {
    set: Name,
    asked: Vec<Asked>,
    /// Entries in all of `asked`.
    count: usize,
}

/// What one line asks for.
#[derive(Debug)]
struct Asked {
    parts: Vec<Vec<Part>>,
    /// It must be there.
    must_be: bool,
    line: u32,
    line_at: usize,
    text: Box<str>,
    at: usize,
}

type Done<'w> = Result<(), (Word<'w>, String)>;

fn missing<'w>(word: Word<'w>) -> (Word<'w>, String) {
    (word, format!("set `{}` was not created", word.text))
}

impl Reader {
    /// Pays for a walk over so many entries.
    fn spend<'w>(&mut self, word: Word<'w>, entries: usize) -> Done<'w> {
        self.work = self.work.saturating_add(entries);
        if self.is_tired() {
            let most = self.work_max;
            let message =
                format!("the commands walk over more than {most} entries: put those of a set together");
            return Err((word, message));
        }
        Ok(())
    }

    /// No command is carried out any more.
    pub(super) fn is_tired(&self) -> bool {
        self.work > self.work_max
    }

    pub(super) fn del<'w>(
        &mut self,
        line: u32,
        name: Word<'w>,
        more: &[Word<'w>],
        end: Word<'w>,
    ) -> Done<'w> {
        let element = *more.first().unwrap_or(&end);
        if self.doomed.as_ref().is_some_and(|doomed| &*doomed.set != name.text) {
            self.drop_doomed();
        }
        let members = self.sets.get(name.text).map_or(0, |(set, _)| set.members.len());
        self.spend(element, members)?;
        let (set, options) = self.sets.get_mut(name.text).ok_or_else(|| missing(name))?;
        let must_be = !more.iter().any(|word| is_exist(word.text));
        if set.kind.is_list() {
            let at = set.members.iter().position(|member| &**member == element.text);
            return match at {
                Some(at) => {
                    Arc::make_mut(set).members.remove(at);
                    self.entries -= 1;
                    Ok(())
                }
                None if must_be => {
                    Err((element, format!("`{}` is not in set `{}`", element.text, name.text)))
                }
                None => Ok(()),
            };
        }
        // What the words mean is what adding them would add.
        let mut one = IpSet {
            parts: Vec::new(),
            is_nomatch: Vec::new(),
            members: Vec::new(),
            ..IpSet::clone_head(set)
        };
        let is_wildcard = more.iter().any(|word| word.text == "wildcard");
        let flags = (false, is_wildcard);
        let count = entry::add(&mut one, options, element.text, flags, DOOMED_MAX)
            .map_err(|message| (element, message))?;
        if self.doomed.as_ref().is_some_and(|doomed| doomed.count + count > DOOMED_MAX) {
            self.drop_doomed();
        }
        let asked = Asked {
            parts: one.entries().map(|(parts, _)| parts.to_vec()).collect(),
            must_be,
            line,
            line_at: self.line_at,
            text: element.text.into(),
            at: element.at,
        };
        let none = || Doomed { set: name.text.into(), asked: Vec::new(), count: 0 };
        let doomed = self.doomed.get_or_insert_with(none);
        doomed.asked.push(asked);
        doomed.count += count;
        Ok(())
    }

    /// Takes out what is to go.
    pub(super) fn drop_doomed(&mut self) {
        let Some(Doomed { set: name, asked, count }) = self.doomed.take() else { return };
        let line_at = self.line_at;
        let entries = self.sets.get(&name).map_or(0, |(set, _)| set.len());
        if let (Err((_, message)), Some(last)) =
            (self.spend(Word { text: "", at: 0 }, entries + count), asked.last())
        {
            self.line_at = last.line_at;
            self.fault(last.line, Word { text: &last.text, at: last.at }, message);
            self.line_at = line_at;
            return;
        }
        let Some((set, _)) = self.sets.get_mut(&name) else { return };
        let before = set.len();
        let absent = take_out(Arc::make_mut(set), &asked);
        self.entries = (self.entries + set.len()).saturating_sub(before);
        for i in absent {
            let Asked { line, line_at, text, at, .. } = &asked[i];
            self.line_at = *line_at;
            self.fault(*line, Word { text, at: *at }, format!("`{text}` is not in set `{name}`"));
        }
        self.line_at = line_at;
    }

    pub(super) fn flush<'w>(&mut self, name: Word<'w>) -> Done<'w> {
        self.drop_doomed();
        if !name.text.is_empty() && !self.sets.contains_key(name.text) {
            return Err(missing(name));
        }
        for (set, _) in self.sets.values_mut() {
            if name.text.is_empty() || &*set.name == name.text {
                self.entries = self.entries.saturating_sub(set.len());
                let set = Arc::make_mut(set);
                (set.parts, set.is_nomatch, set.members) = (Vec::new(), Vec::new(), Vec::new());
            }
        }
        Ok(())
    }

    pub(super) fn destroy<'w>(&mut self, name: Word<'w>) -> Done<'w> {
        self.drop_doomed();
        if name.text.is_empty() {
            self.sets.clear();
            self.entries = 0;
            return Ok(());
        }
        self.spend(name, self.members())?;
        let (set, _) = self.sets.get(name.text).ok_or_else(|| missing(name))?;
        let entries = set.len();
        if self.sets.values().any(|(set, _)| set.members.iter().any(|member| &**member == name.text)) {
            return Err((name, format!("set `{}` is in a list, and cannot be destroyed", name.text)));
        }
        self.sets.remove(name.text);
        self.entries = self.entries.saturating_sub(entries);
        Ok(())
    }

    /// Members of all lists, and the sets.
    fn members(&self) -> usize {
        self.sets.values().map(|(set, _)| 1 + set.members.len()).sum()
    }

    /// Each of two sets gets what the other one holds.
    pub(super) fn swap<'w>(&mut self, one: Word<'w>, other: Word<'w>) -> Done<'w> {
        self.drop_doomed();
        let get = |word: Word<'w>| self.sets.get(word.text).ok_or_else(|| missing(word));
        let ((a, _), (b, _)) = (get(one)?, get(other)?);
        if !std::ptr::eq(a.kind, b.kind) || a.family != b.family {
            let message = format!(
                "sets `{}` and `{}` are of other types: they cannot be swapped",
                one.text, other.text
            );
            return Err((other, message));
        }
        if one.text == other.text {
            return Ok(());
        }
        // Taken out first: a set that nobody else holds is not copied for its name.
        let (Some(mut a), Some(mut b)) = (self.sets.remove(one.text), self.sets.remove(other.text)) else {
            return Ok(());
        };
        Arc::make_mut(&mut a.0).name = other.text.into();
        Arc::make_mut(&mut b.0).name = one.text.into();
        self.sets.insert(one.text.into(), b);
        self.sets.insert(other.text.into(), a);
        Ok(())
    }

    /// Another name, in lists, too; rules that name the set by the old one name none then.
    pub(super) fn rename<'w>(&mut self, from: Word<'w>, to: Word<'w>) -> Done<'w> {
        self.drop_doomed();
        if to.text.is_empty() || to.text.len() > NAME_MAX || self.sets.contains_key(to.text) {
            return Err((to, format!("a set cannot be renamed to `{}`", to.text)));
        }
        self.spend(from, self.members())?;
        let (mut set, options) = self.sets.remove(from.text).ok_or_else(|| missing(from))?;
        Arc::make_mut(&mut set).name = to.text.into();
        self.sets.insert(to.text.into(), (set, options));
        for (list, _) in self.sets.values_mut() {
            if list.members.iter().any(|member| &**member == from.text) {
                let list = Arc::make_mut(list);
                for member in list.members.iter_mut().filter(|member| &***member == from.text) {
                    *member = to.text.into();
                }
            }
        }
        Ok(())
    }
}

impl IpSet {
    /// The same without entries.
    fn clone_head(set: &IpSet) -> IpSet {
        IpSet {
            name: Arc::clone(&set.name),
            kind: set.kind,
            family: set.family,
            parts: Vec::new(),
            is_nomatch: Vec::new(),
            members: Vec::new(),
            is_opaque: set.is_opaque,
        }
    }
}

/// Takes entries out of a set; which lines asked for some that must be there and are not.
fn take_out(set: &mut IpSet, asked: &[Asked]) -> Vec<usize> {
    let mut exact: HashSet<&[Part]> = HashSet::new();
    let mut ranges: Vec<(u128, u128)> = Vec::new();
    for parts in asked.iter().flat_map(|asked| &asked.parts) {
        match parts[..] {
            // Of a set of single values, whose ranges stand for each of theirs.
            [Part::Range(lo, hi)] => ranges.push((lo, hi)),
            _ => drop(exact.insert(parts)),
        }
    }
    ranges.sort_unstable();
    let holes = merged(&ranges);
    let mut found: HashSet<Vec<Part>> = HashSet::new();
    let mut held: Vec<(u128, u128)> = Vec::new();
    let (mut parts, mut is_nomatch) = (Vec::with_capacity(set.parts.len()), Vec::new());
    for (entry, nomatch) in set.entries() {
        if let [Part::Range(lo, hi)] = *entry {
            held.push((lo, hi));
            for (lo, hi) in without(lo, hi, &holes) {
                parts.push(Part::Range(lo, hi));
                is_nomatch.push(nomatch);
            }
        } else if exact.contains(entry) {
            found.insert(entry.to_vec());
        } else {
            parts.extend_from_slice(entry);
            is_nomatch.push(nomatch);
        }
    }
    (set.parts, set.is_nomatch) = (parts, is_nomatch);
    held.sort_unstable();
    let held = merged(&held);
    // The second of two lines that ask for the same finds it gone.
    let mut gone: HashSet<&[Part]> = HashSet::new();
    let mut absent = Vec::new();
    for (i, asked) in asked.iter().enumerate() {
        let mut is_there = true;
        for parts in &asked.parts {
            is_there &= match parts[..] {
                [Part::Range(lo, hi)] => without(lo, hi, &held).next().is_none(),
                _ => found.contains(parts),
            } && gone.insert(parts);
        }
        if asked.must_be && !is_there {
            absent.push(i);
        }
    }
    absent
}

/// Rising ranges, made one where they overlap or touch.
fn merged(rising: &[(u128, u128)]) -> Vec<(u128, u128)> {
    let mut out: Vec<(u128, u128)> = Vec::with_capacity(rising.len());
    for &(lo, hi) in rising {
        match out.last_mut() {
            Some(last) if lo <= last.1.saturating_add(1) => last.1 = last.1.max(hi),
            _ => out.push((lo, hi)),
        }
    }
    out
}

/// What is left of a range without rising ranges that lie apart.
fn without(lo: u128, hi: u128, holes: &[(u128, u128)]) -> impl Iterator<Item = (u128, u128)> {
    let first = holes.partition_point(|&(_, last)| last < lo);
    let mut next = Some(lo);
    let mut holes = holes[first..].iter().take_while(move |(first, _)| *first <= hi);
    std::iter::from_fn(move || {
        loop {
            let at = next.filter(|&at| at <= hi)?;
            match holes.next() {
                None => {
                    next = None;
                    return Some((at, hi));
                }
                Some(&(first, last)) => {
                    next = last.checked_add(1);
                    if at < first {
                        return Some((at, first - 1));
                    }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::Sets;
    use super::*;

    #[track_caller]
    fn after(text: &str) -> (Sets, Vec<String>) {
        let (sets, faults) = Sets::read(text);
        (sets, faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn ranges_are_cut_where_holes_are() {
        let cut = |lo, hi, holes: &[(u128, u128)]| without(lo, hi, holes).collect::<Vec<_>>();
        assert_eq!(cut(5, 9, &[]), [(5, 9)]);
        assert_eq!(cut(5, 9, &[(0, 4), (10, 12)]), [(5, 9)]);
        assert_eq!(cut(5, 9, &[(0, 5), (7, 7), (9, 20)]), [(6, 6), (8, 8)]);
        assert_eq!(cut(5, 9, &[(0, u128::MAX)]), []);
        assert_eq!(cut(0, u128::MAX, &[(3, u128::MAX)]), [(0, 2)]);
    }

    /// What sets are after commands, and what is wrong with these: as ipset 7.17 says it.
    #[test]
    fn commands_change_sets_as_the_tool_does() {
        let addresses = "create a hash:ip\nadd a 10.0.0.0/30\n";
        for (text, set, left, faults) in [
            (format!("{addresses}del a 10.0.0.1\n"), "a", 2, 0),
            (format!("{addresses}del a 10.0.0.1\ndel a 10.0.0.1\ndel a 10.0.0.1 -exist\n"), "a", 2, 1),
            // The kernel takes out what it finds on the way, and says that something was missing.
            (format!("{addresses}del a 10.0.0.2-10.0.0.7\n"), "a", 1, 1),
            (format!("{addresses}create c hash:ip\nadd c 1.1.1.1\nswap a c\n"), "a", 1, 0),
            (format!("{addresses}create c hash:ip\nrename a z\nrename c z\n"), "z", 1, 1),
            (format!("{addresses}create d hash:net\nswap a d\n"), "a", 1, 1),
            (format!("{addresses}create a hash:ip\n"), "a", 1, 1),
            (format!("{addresses}create a hash:ip -exist\n"), "a", 1, 0),
            (format!("{addresses}destroy nobody\nflush nobody\ndel nobody 1.1.1.1\n"), "a", 1, 3),
            (format!("{addresses}create l list:set\nadd l a\ndel l c\ndestroy a\n"), "l", 1, 2),
            (format!("{addresses}create l list:set\nadd l a\ndel l a\ndestroy a\n"), "l", 0, 0),
            ("create m hash:ip,port\nadd m 1.1.1.1,tcp:80-82\ndel m 1.1.1.1,tcp:81\n".into(), "m", 2, 0),
            (
                "create n hash:net\nadd n 10.0.0.0-10.0.0.5\ndel n 10.0.0.4/31\ndel n 10.0.0.0-10.0.0.3\n"
                    .into(),
                "n",
                0,
                0,
            ),
            ("create b hash:net\nadd b 10.0.0.0/24 nomatch\ndel b 10.0.0.0/24\n".into(), "b", 0, 0),
        ] {
            let (sets, found) = after(&text);
            assert_eq!(sets.get(set).map(|set| set.len()), Some(left), "{text}{found:?}");
            assert_eq!(found.len(), faults, "{text}{found:?}");
        }
    }

    /// Each deletion behind an addition is a pass over the set.
    #[test]
    fn commands_that_alternate_over_large_sets_are_refused_at_a_limit() {
        let addresses = |text: &mut String, i: u32| {
            *text += &format!("add a {}\n", std::net::Ipv4Addr::from(7 * i + 1));
        };
        let mut text = String::from("create a hash:ip\n");
        (0..2_000).for_each(|i| addresses(&mut text, i));
        let (large, _) = after(&text);
        let mut text = String::new();
        for i in 0..2_000 {
            addresses(&mut text, 5_000 + i);
            text += &format!("del a {} -exist\n", std::net::Ipv4Addr::from(7 * i + 1));
        }
        let (all, faults) = large.changed_within(text.as_bytes(), 2_000 * 2_100);
        assert!(faults.is_empty(), "{}", faults[0]);
        assert_eq!(all.get("a").map(|set| set.len()), Some(2_000));
        let (_, faults) = large.changed_within(text.as_bytes(), 2_000 * 1_000);
        let said = faults.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(
            matches!(&said[..], [one] if one.contains("walk over more than 2000000 entries")),
            "{said:?}"
        );
        let (_, faults) = large.changed("create p hash:ip,port\ndel p 0.0.0.0/10,tcp:1-9000 -exist\n");
        assert!(faults[0].message.contains("than all sets together may have"), "{faults:?}");
    }

    #[test]
    fn a_set_that_swaps_with_itself_stays() {
        let (sets, faults) = after("create a hash:ip\nadd a 1.1.1.1\nswap a a\n");
        assert_eq!((sets.get("a").map(|set| set.len()), faults.len()), (Some(1), 0));
    }

    #[test]
    fn sets_that_are_not_touched_are_shared() {
        let (before, _) = after("create a hash:ip\nadd a 1.1.1.1\ncreate b hash:ip\nadd b 1.1.1.1\n");
        let (after, faults) = before.changed("add b 2.2.2.2\n");
        assert!(faults.is_empty());
        assert!(Arc::ptr_eq(before.get("a").unwrap(), after.get("a").unwrap()));
        assert_eq!((before.get("b").unwrap().len(), after.get("b").unwrap().len()), (1, 2));
    }

    #[test]
    fn what_create_said_holds_for_later_texts() {
        let (before, _) = after("create a hash:ip netmask 24\n");
        let (after, _) = before.changed("add a 10.0.0.7\n");
        assert_eq!(after.get("a").unwrap().parts, [Part::Range(0x0a00_0000, 0x0a00_00ff)]);
    }
}
