//! Reading `ipset save`, and any commands that `ipset restore` takes; the words that mean nothing to a
//! packet are passed over.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::change::{Doomed, WORK_MAX};
use super::entry::{self, Options};
use super::{IpSet, SetType};
use crate::fault::{Fault, Severity};
use crate::model::{Family, Name};

/// Entries of all sets together, at most; a range of addresses with ports counts as what it becomes.
pub const ENTRIES_MAX: usize = 8_000_000;

/// Faults reported; a last one counts the others.
const FAULTS_MAX: usize = 1000;

/// Bytes of a set's name, at most.
pub(super) const NAME_MAX: usize = 31;

/// Sets by name.
#[derive(Debug, Clone, Default)]
pub struct Sets {
    pub(super) by_name: BTreeMap<Name, Arc<IpSet>>,
    /// What `create` said of the values of each.
    pub(super) options: BTreeMap<Name, Options>,
}

impl Sets {
    /// Reads what `ipset save` prints, or files of the same commands. Faulty lines are left out.
    ///
    /// ```
    /// use hipac_rules::ipset::Sets;
    ///
    /// let (sets, faults) = Sets::read("create bad hash:ip\nadd bad 192.0.2.1\nadd bad 192.0.2.300\n");
    /// assert_eq!(sets.get("bad").unwrap().len(), 1);
    /// assert_eq!(faults[0].to_string(), "3:9: error: `192.0.2.300` is no IPv4 address");
    /// ```
    ///
    /// # Cost
    /// Linear in the text and in what its ranges become, of which there is a limit: [`ENTRIES_MAX`].
    pub fn read(text: impl AsRef<[u8]>) -> (Sets, Vec<Fault>) {
        Sets::default().changed(text)
    }

    /// What these sets are after the commands of a text, as `ipset restore` makes them: `create`,
    /// `add`, `del`, `flush`, `swap`, `rename`, `destroy`. Faulty lines are left out; whoever wants all or
    /// nothing throws the result away when there are faults.
    ///
    /// ```
    /// use hipac_rules::ipset::Sets;
    ///
    /// let (before, _) = Sets::read("create bad hash:ip\nadd bad 192.0.2.0/30\n");
    /// let (sets, faults) = before.changed("del bad 192.0.2.1\nadd bad 192.0.2.9\ndel bad 192.0.2.77\n");
    /// assert_eq!(faults[0].to_string(), "3:9: error: `192.0.2.77` is not in set `bad`");
    /// assert_ne!(sets.get("bad"), before.get("bad"));
    /// ```
    ///
    /// # Cost
    /// Linear in the text and in the entries of the sets that it changes; others are shared.
    pub fn changed(&self, text: impl AsRef<[u8]>) -> (Sets, Vec<Fault>) {
        self.changed_within(text.as_ref(), WORK_MAX)
    }

    /// The same, walking over so many entries at most.
    pub(super) fn changed_within(&self, text: &[u8], work_max: usize) -> (Sets, Vec<Fault>) {
        let entries = self.by_name.values().map(|set| set.len()).sum();
        let mut reader = Reader { entries, work_max, ..Reader::default() };
        for (name, set) in &self.by_name {
            let options = self.options.get(name).cloned().unwrap_or_default();
            reader.sets.insert(Arc::clone(name), (Arc::clone(set), options));
        }
        for (number, line) in (1..).zip(text.split(|&b| b == b'\n')) {
            reader.line(number, line);
            reader.line_at += line.len() + 1;
        }
        reader.finish()
    }

    /// The set of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<IpSet>> {
        self.by_name.get(name)
    }

    /// All sets, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<IpSet>> {
        self.by_name.values()
    }

    /// Adds those of another file; a name that both have is an error that names it.
    ///
    /// # Errors
    /// The name.
    pub fn merge(&mut self, other: Sets) -> Result<(), Name> {
        self.options.extend(other.options);
        for (name, set) in other.by_name {
            if self.by_name.insert(Arc::clone(&name), set).is_some() {
                return Err(name);
            }
        }
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct Reader {
    pub(super) sets: BTreeMap<Name, (Arc<IpSet>, Options)>,
    pub(super) entries: usize,
    /// Entries that are to go, from the set that the last lines were about: all at once, before anything else
    /// happens.
    pub(super) doomed: Option<Doomed>,
    /// Entries that commands have walked over.
    pub(super) work: usize,
    /// And may.
    pub(super) work_max: usize,
    faults: Vec<Fault>,
    fault_count: usize,
    /// Where the line that is read begins.
    pub(super) line_at: usize,
}

/// A word of a line, with its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

impl Reader {
    pub(super) fn fault(&mut self, line: u32, word: Word<'_>, message: String) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_MAX {
            let span = self.line_at + word.at..self.line_at + word.at + word.text.len();
            let width = word.text.chars().count().max(1) as u32;
            let column = word.at as u32 + 1;
            let severity = Severity::Error;
            self.faults.push(Fault { severity, message, span, line, column, width, help: None });
        }
    }

    fn line(&mut self, number: u32, line: &[u8]) {
        if self.is_tired() {
            return;
        }
        let Ok(text) = std::str::from_utf8(line) else {
            self.fault(number, Word { text: "", at: 0 }, "the line is no UTF-8 text".into());
            return;
        };
        let words = words(text);
        let Some((first, rest)) = words.split_first() else { return };
        if first.text.starts_with('#') {
            return;
        }
        let end = Word { text: "", at: text.len() };
        let name = rest.first().copied().unwrap_or(end);
        let more = rest.get(1..).unwrap_or_default();
        let done = match first.text {
            "create" | "-N" | "--create" | "n" => self.create(name, more, end),
            "add" | "-A" | "--add" => self.add(name, more, end),
            "del" | "-D" | "--del" => self.del(number, name, more, end),
            "flush" | "-F" | "--flush" => self.flush(name),
            "destroy" | "-X" | "--destroy" => self.destroy(name),
            "swap" | "-W" | "--swap" => self.swap(name, *more.first().unwrap_or(&end)),
            "rename" | "-E" | "--rename" => self.rename(name, *more.first().unwrap_or(&end)),
            "COMMIT" | "-exist" | "-!" => Ok(()),
            other => {
                let known = "create, add, del, flush, swap, rename, destroy";
                Err((*first, format!("`{other}` is no command that sets are restored by: {known}")))
            }
        };
        if let Err((word, message)) = done {
            self.fault(number, word, message);
        }
    }

    fn create<'w>(
        &mut self,
        name: Word<'w>,
        more: &[Word<'w>],
        end: Word<'w>,
    ) -> Result<(), (Word<'w>, String)> {
        if name.text.is_empty() || name.text.len() > NAME_MAX {
            return Err((name, format!("a set's name has 1 to {NAME_MAX} bytes")));
        }
        let kind_word = *more.first().unwrap_or(&end);
        let kind = SetType::from_name(kind_word.text).ok_or_else(|| {
            (kind_word, format!("`{}` is no type of sets: hash:ip, hash:net, …", kind_word.text))
        })?;
        let (mut family, mut options) = (Family::V4, Options::default());
        let mut words = more[1..].iter().copied();
        while let Some(word) = words.next() {
            match word.text {
                "family" => {
                    let value = words.next().unwrap_or(end);
                    family = match value.text {
                        "inet" | "ipv4" | "-4" => Family::V4,
                        "inet6" | "ipv6" | "-6" => Family::V6,
                        other => return Err((value, format!("`{other}` is no family: inet or inet6"))),
                    };
                }
                "-4" => family = Family::V4,
                "-6" => family = Family::V6,
                "range" | "netmask" | "bitmask" | "markmask" => {
                    let value = words.next().unwrap_or(end);
                    let value_text = value.text;
                    entry::option(&mut options, word.text, value_text, kind, family)
                        .map_err(|m| (value, m))?;
                }
                "--from" | "--to" | "hashsize" | "maxelem" | "bucketsize" | "initval" | "timeout"
                | "size" | "probes" | "resize" => {
                    words.next();
                }
                // Words without a value, and those of versions to come.
                _ => {}
            }
        }
        let family = (!kind.is_of_any_family).then_some(family);
        if matches!(kind.name, "bitmap:ip" | "bitmap:ip,mac") && family == Some(Family::V6) {
            return Err((kind_word, format!("{} holds IPv4 addresses only", kind.name)));
        }
        let set = IpSet {
            name: name.text.into(),
            kind,
            family,
            parts: Vec::new(),
            is_nomatch: Vec::new(),
            members: Vec::new(),
            is_opaque: false,
        };
        if let Some((old, _)) = self.sets.get(name.text) {
            // `-exist`: one of the same type may be there.
            let is_same = std::ptr::eq(old.kind, set.kind) && old.family == set.family;
            return if is_same && more.iter().any(|w| is_exist(w.text)) {
                Ok(())
            } else {
                Err((name, format!("set `{}` is created twice", name.text)))
            };
        }
        self.sets.insert(name.text.into(), (Arc::new(set), options));
        Ok(())
    }

    fn add<'w>(
        &mut self,
        name: Word<'w>,
        more: &[Word<'w>],
        end: Word<'w>,
    ) -> Result<(), (Word<'w>, String)> {
        let element = *more.first().unwrap_or(&end);
        let (mut is_nomatch, mut is_wildcard) = (false, false);
        let mut words = more.iter().skip(1);
        while let Some(word) = words.next() {
            match word.text {
                "nomatch" => is_nomatch = true,
                "wildcard" => is_wildcard = true,
                "timeout" | "packets" | "bytes" | "comment" | "skbmark" | "skbprio" | "skbqueue"
                | "before" | "after" => {
                    words.next();
                }
                _ => {}
            }
        }
        self.drop_doomed();
        if !self.sets.contains_key(name.text) {
            return Err((name, format!("set `{}` was not created", name.text)));
        }
        let is_known = self.sets.contains_key(element.text);
        let Some((set, options)) = self.sets.get_mut(name.text) else { return Ok(()) };
        let set = Arc::make_mut(set);
        if set.kind.is_list() {
            if !is_known || element.text == name.text {
                return Err((element, format!("set `{}` was not created", element.text)));
            }
            set.members.push(element.text.into());
            self.entries += 1;
        } else {
            let room = ENTRIES_MAX.saturating_sub(self.entries);
            let added = entry::add(set, options, element.text, (is_nomatch, is_wildcard), room);
            self.entries += added.map_err(|message| (element, message))?;
        }
        if self.entries > ENTRIES_MAX {
            return Err((element, format!("sets have more than {ENTRIES_MAX} entries")));
        }
        Ok(())
    }

    fn finish(mut self) -> (Sets, Vec<Fault>) {
        self.drop_doomed();
        if self.fault_count > self.faults.len() {
            let more = self.fault_count - self.faults.len();
            let message = format!("{more} faults more");
            self.faults.extend(self.faults.last().cloned().map(|last| Fault { message, ..last }));
        }
        let mut sets = Sets::default();
        for (name, (mut set, options)) in self.sets {
            if let Some(set) = Arc::get_mut(&mut set) {
                set.parts.shrink_to_fit();
            }
            sets.options.insert(Arc::clone(&name), options);
            sets.by_name.insert(name, set);
        }
        self.faults.sort_by_key(|fault| fault.line);
        (sets, self.faults)
    }
}

/// The word by which a command may find things as it would make them.
pub(super) fn is_exist(word: &str) -> bool {
    matches!(word, "-exist" | "--exist" | "-!")
}

/// Words between blanks; what stands in quotes is one.
fn words(line: &str) -> Vec<Word<'_>> {
    let mut out = Vec::new();
    let bytes = line.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at].is_ascii_whitespace() {
            at += 1;
            continue;
        }
        let start = at;
        if bytes[at] == b'"' {
            at += 1;
            while at < bytes.len() && bytes[at] != b'"' {
                at += if bytes[at] == b'\\' { 2 } else { 1 };
            }
            at = at.min(bytes.len());
            out.push(Word { text: line.get(start + 1..at).unwrap_or(""), at: start });
            at += 1;
        } else {
            while at < bytes.len() && !bytes[at].is_ascii_whitespace() {
                at += 1;
            }
            out.push(Word { text: &line[start..at], at: start });
        }
    }
    out
}
