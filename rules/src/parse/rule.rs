//! One command line: options as `getopt_long` finds them, values, and the command carried out.
//!
//! An option belongs, in this order, to the tool itself, to the extension named last, to those
//! before it, and, when a protocol was named, to that protocol's match, which is then added.
//! A beginning of a name will do when only one option begins with it.

use std::ops::Range;

use crate::model::{
    AddressTest, Counters, Extension, ExtensionRef, Family, FragmentTest, Hook, InterfaceTest, IpPart,
    Policy, ProtocolTest, Rule, TableKind, Target,
};
use crate::names::protocol_number;
use crate::registry::{self, ExtensionSpec, Kind, OptionSpec, parse_network};

use super::Parser;
use super::build::Pending;
use super::core_options::{self, LONG, Letter, Wants};
use super::draft::{Active, Draft, DraftTarget};
use super::words::Word;

/// What a line asks for.
#[derive(Debug, Clone)]
struct Command<'l> {
    letter: Letter,
    chain: Option<&'l str>,
    /// Place of the chain's name, or of the command.
    span: Range<usize>,
    /// The second word: a rule's number, a policy, a new name.
    argument: Option<(&'l str, Range<usize>)>,
}

/// Whose option it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Match(usize),
    Target,
}

/// What a long name is.
enum Found {
    Core(Letter),
    Option(Owner, &'static OptionSpec),
    Ambiguous(String),
    Nothing,
}

/// A line while its words are read.
struct Line<'l> {
    words: &'l [Word<'l>],
    next: usize,
    draft: Draft,
    command: Option<Command<'l>>,
    /// Owners of options, the newest last.
    owners: Vec<Owner>,
    /// The unknown extension that takes words which are nobody else's.
    open: Option<Owner>,
    /// An unfinished `!`.
    bang: Option<Range<usize>>,
    /// The other family's `-4` or `-6` stood in it.
    skipped: bool,
    protocol_match_added: bool,
}

impl Parser<'_> {
    /// Reads a line that is a rule or another command, and carries it out.
    pub(crate) fn rule_line(&mut self, words: &[Word<'_>]) {
        let mut line = Line {
            words,
            next: 0,
            draft: Draft::default(),
            command: None,
            owners: Vec::new(),
            open: None,
            bang: None,
            skipped: false,
            protocol_match_added: false,
        };
        self.counters_prefix(&mut line);
        while let Some(word) = line.words.get(line.next)
            && !line.skipped
        {
            line.next += 1;
            self.word(&mut line, word);
        }
        if line.skipped {
            return;
        }
        if let Some(bang) = line.bang.take() {
            self.error(bang, "a `!` that negates nothing", None);
        }
        match line.command.take() {
            Some(command) => self.carry_out(command, line),
            None => {
                let span = whole(words);
                self.error(span, "the line has no command", Some("begin a rule with -A CHAIN".into()));
            }
        }
    }

    /// `[packets:bytes]` before a rule.
    fn counters_prefix(&mut self, line: &mut Line<'_>) {
        let Some(word) = line.words.first().filter(|w| w.text.starts_with('[')) else { return };
        line.next = 1;
        match super::parse_counters(&word.text) {
            Some(counters) => line.draft.counters = counters,
            None => {
                let message = format!("`{}` are no counters", word.text);
                self.error(word.span.clone(), message, Some("write [packets:bytes]".into()));
            }
        }
    }

    fn word<'l>(&mut self, line: &mut Line<'l>, word: &'l Word<'l>) {
        let text = &*word.text;
        if let Some(owner) = line.open
            && !begins_core(line, word)
        {
            line.push_opaque(owner, text);
            return;
        }
        if text == "!" {
            if line.bang.replace(word.span.clone()).is_some() {
                self.error(word.span.clone(), "two `!` one after the other", None);
            }
        } else if let Some(long) = text.strip_prefix("--").filter(|l| !l.is_empty()) {
            let (name, value) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v)));
            self.long_option(line, word, name, value);
        } else if text == "--" {
            // The end of options, after which nothing may stand anyway.
        } else if text.len() > 1 && text.starts_with('-') {
            self.short_options(line, word);
        } else {
            line.bang = None;
            let help = "an option begins with -; text with blanks needs double quotes";
            self.error(word.span.clone(), format!("`{text}` belongs to no option"), Some(help.into()));
        }
    }

    /// `-s1.2.3.4`, `-nv`, `-f`: letters up to the first that takes a word.
    fn short_options<'l>(&mut self, line: &mut Line<'l>, word: &'l Word<'l>) {
        let text = word.text.get(1..).unwrap_or("");
        for (i, letter) in text.char_indices() {
            let Some(wants) = core_options::wants(letter).filter(|_| letter != '0') else {
                self.error(word.span.clone(), format!("there is no option -{letter}"), None);
                return;
            };
            let rest = &text[i + letter.len_utf8()..];
            if wants == Wants::Nothing {
                self.core(line, letter, word, None);
            } else {
                let attached = Some(rest).filter(|r| !r.is_empty());
                self.core(line, letter, word, attached);
                return;
            }
        }
    }

    fn long_option<'l>(
        &mut self,
        line: &mut Line<'l>,
        word: &'l Word<'l>,
        name: &'l str,
        value: Option<&'l str>,
    ) {
        let mut found = line.find(name);
        if matches!(found, Found::Nothing) && self.add_protocol_match(line, name) {
            found = line.find(name);
        }
        match found {
            Found::Core(letter) => self.core(line, letter, word, value),
            Found::Option(owner, option) => self.extension_option(line, owner, option, word, value),
            Found::Ambiguous(names) => {
                line.bang = None;
                self.error(
                    word.span.clone(),
                    format!("`--{name}` may mean {names}"),
                    Some("write it out".into()),
                );
                line.skip_values();
            }
            Found::Nothing => self.unknown_option(line, word, name),
        }
    }

    /// An option that nobody has: taken by an unknown extension of the rule, or a fault.
    fn unknown_option(&mut self, line: &mut Line<'_>, word: &Word<'_>, name: &str) {
        let opaque = line
            .owners
            .iter()
            .rev()
            .copied()
            .find(|o| line.active(*o).is_some_and(|a| a.known_spec().is_none()));
        if let Some(owner) = opaque {
            if line.bang.take().is_some() {
                line.push_opaque(owner, "!");
            }
            line.push_opaque(owner, &word.text);
            line.open = Some(owner);
            return;
        }
        line.bang = None;
        let help = self.nearest_option(line, name);
        self.error(word.span.clone(), format!("there is no option --{name} here"), help);
        line.skip_values();
    }

    /// A remedy for an option that nobody in the rule has.
    fn nearest_option(&self, line: &Line<'_>, name: &str) -> Option<String> {
        let here = line.owners.iter().filter_map(|o| line.active(*o)?.known_spec());
        let near = here.clone().flat_map(|s| s.options).map(|o| o.name);
        let near = near.chain(LONG.iter().map(|(n, _)| *n));
        let best = near.map(|n| (registry::edit_distance(name, n), n)).min_by_key(|(distance, _)| *distance);
        if let Some((distance, near)) = best
            && distance <= 2
        {
            return Some(format!("--{near} is of a similar name"));
        }
        let family = self.family;
        let owner =
            registry::all().find(|s| s.families.has(family) && s.options.iter().any(|o| o.is_named(name)))?;
        Some(match (owner.kind, owner.protocols.first().and_then(|p| crate::names::protocol_name(*p))) {
            (Kind::Match, Some(protocol)) => {
                format!("it is an option of {}: put `-p {protocol} -m {}` before it", owner.name, owner.name)
            }
            (Kind::Match, None) => format!("put `-m {}` before it", owner.name),
            (Kind::Target, _) => format!("it is an option of the target {}", owner.name),
        })
    }

    /// Adds the match of the rule's protocol, when the option is one of its.
    fn add_protocol_match(&mut self, line: &mut Line<'_>, name: &str) -> bool {
        let protocol = line.draft.ip.protocol.number;
        if line.protocol_match_added || protocol == 0 {
            return false;
        }
        let Some(spec) = registry::match_of_protocol(protocol, self.family) else { return false };
        if !spec
            .options
            .iter()
            .any(|o| o.name.starts_with(name) || o.aliases.iter().any(|a| a.starts_with(name)))
        {
            return false;
        }
        line.protocol_match_added = true;
        let span = line.words[line.next - 1].span.clone();
        line.push_match(Active::known(spec, span));
        true
    }

    fn extension_option(
        &mut self,
        line: &mut Line<'_>,
        owner: Owner,
        option: &'static OptionSpec,
        word: &Word<'_>,
        value: Option<&str>,
    ) {
        let mut negated = self.take_bang(line, option.negatable, word);
        let count = option.value.word_count();
        let mut texts: [&str; 2] = ["", ""];
        let mut span = word.span.clone();
        let mut given = 0;
        if let Some(value) = value {
            (texts[0], given) = (value, 1);
        }
        while given < count {
            let Some(next) = line.words.get(line.next) else { break };
            if given == 0 && next.text == "!" && !next.quoted && line.next + 1 < line.words.len() {
                line.next += 1;
                self.old_negation(word, next, option.negatable);
                negated = !negated;
                continue;
            }
            if option.value_optional && (next.text.starts_with('-') || next.text == "!") {
                break;
            }
            span = if given == 0 { next.span.clone() } else { span.start..next.span.end };
            texts[given] = &next.text;
            given += 1;
            line.next += 1;
        }
        if given < count && !(option.value_optional && given == 0) {
            let help = format!("write --{} {}", option.name, option.value.hint());
            self.error(word.span.clone(), format!("--{} needs a value", option.name), Some(help));
            return;
        }
        if count == 0 && value.is_some() {
            self.error(word.span.clone(), format!("--{} takes no value", option.name), None);
        }
        let parsed = if given < count {
            Ok(crate::value::Value::Flag)
        } else {
            option.value.parse(&texts[..count], self.family)
        };
        let family = self.family;
        match parsed {
            Ok(value) => {
                let Some(active) = line.active_mut(owner) else { return };
                if active.add(option, negated, value, family).is_err() {
                    self.error(word.span.clone(), format!("--{} is given twice", option.name), None);
                }
            }
            Err(fault) => {
                self.error(span, fault.message, fault.help);
                let Some(active) = line.active_mut(owner) else { return };
                match fault.meant {
                    Some(value) => _ = active.add(option, negated, value, family),
                    // The option counts as given: its absence is not a second fault.
                    None => _ = active.note_given(option),
                }
            }
        }
    }

    /// Whether a `!` stands before the option.
    fn take_bang(&mut self, line: &mut Line<'_>, negatable: bool, word: &Word<'_>) -> bool {
        let Some(bang) = line.bang.take() else { return false };
        if !negatable {
            let name = &word.text;
            self.error(bang.start..word.span.end, format!("`!` cannot stand before {name}"), None);
            return false;
        }
        true
    }

    fn old_negation(&mut self, option: &Word<'_>, bang: &Word<'_>, negatable: bool) {
        if !negatable {
            self.error(bang.span.clone(), format!("`!` cannot stand with {}", option.text), None);
            return;
        }
        let help = format!("put it before the option: `! {} …`", option.text);
        self.error(
            bang.span.clone(),
            "`!` after its option, a form that the kernel's tools no longer take",
            Some(help),
        );
    }

    /// The word that belongs to an option of the tool.
    fn core_value<'l>(
        &mut self,
        line: &mut Line<'l>,
        letter: Letter,
        word: &Word<'l>,
        attached: Option<&'l str>,
        negated: &mut bool,
    ) -> Option<(&'l str, Range<usize>)> {
        if let Some(text) = attached {
            let start = word.span.end.saturating_sub(text.len()).max(word.span.start);
            return Some((text, start..word.span.end));
        }
        let words = line.words;
        let negatable = matches!(letter, 's' | 'd' | 'i' | 'o' | 'p');
        if negatable
            && let [bang, _, ..] = &words[line.next..]
            && bang.text == "!"
            && !bang.quoted
        {
            line.next += 1;
            self.old_negation(word, bang, true);
            *negated = !*negated;
        }
        let Some(value) = words.get(line.next) else {
            self.error(word.span.clone(), format!("{} needs a value", word.text), None);
            return None;
        };
        line.next += 1;
        Some((&value.text, value.span.clone()))
    }

    /// An option of the tool.
    fn core<'l>(
        &mut self,
        line: &mut Line<'l>,
        letter: Letter,
        word: &'l Word<'l>,
        attached: Option<&'l str>,
    ) {
        line.open = None;
        let negatable = matches!(letter, 's' | 'd' | 'i' | 'o' | 'p' | 'f');
        let mut negated = self.take_bang(line, negatable, word);
        let value = match core_options::wants(letter) {
            Some(Wants::Word) => match self.core_value(line, letter, word, attached, &mut negated) {
                Some(value) => Some(value),
                None => return,
            },
            Some(Wants::MaybeWord) => line.maybe_value(attached),
            _ => None,
        };
        if core_options::is_of_rule(letter) && letter != 'm' {
            self.once(line, letter, word);
        }
        match (letter, value) {
            ('A' | 'D' | 'C' | 'I' | 'R' | 'N' | 'E' | 'P' | 'L' | 'S' | 'F' | 'Z' | 'X', value) => {
                self.command(line, letter, word, value);
            }
            ('s', Some(value)) => line.draft.sources = self.addresses(&value, negated),
            ('d', Some(value)) => line.draft.destinations = self.addresses(&value, negated),
            ('i', Some(value)) => line.draft.ip.in_interface = self.interface(&value, negated),
            ('o', Some(value)) => line.draft.ip.out_interface = self.interface(&value, negated),
            ('p', Some(value)) => line.draft.ip.protocol = self.protocol(&value, negated),
            ('m', Some((name, span))) => self.add_match(line, name, span),
            ('j', Some((name, span))) => self.set_target(line, name, span, false),
            ('g', Some((name, span))) => self.set_target(line, name, span, true),
            ('c', Some((packets, span))) => self.set_counters(line, packets, span),
            ('f', _) => self.fragment(line, word, negated),
            ('t', _) => {
                let help = "the line *TABLE above says it";
                self.error(word.span.clone(), "-t cannot stand in a file", Some(help.into()));
            }
            ('4' | '6', _) => line.skipped |= (letter == '6') == (self.family == Family::V4),
            ('h' | 'V', _) => {
                self.error(word.span.clone(), format!("{} means nothing in a file", word.text), None)
            }
            _ => {}
        }
    }

    /// Notes that an option which may stand once stands here.
    fn once(&mut self, line: &mut Line<'_>, letter: Letter, word: &Word<'_>) {
        let kind = if letter == 'g' { 'j' } else { letter };
        if line.draft.seen.iter().any(|(seen, _)| *seen == kind) {
            self.error(word.span.clone(), format!("{} is given twice", word.text), None);
        }
        line.draft.seen.push((kind, word.span.clone()));
    }

    fn command<'l>(
        &mut self,
        line: &mut Line<'l>,
        letter: Letter,
        word: &Word<'l>,
        value: Option<(&'l str, Range<usize>)>,
    ) {
        if line.command.is_some() {
            self.error(word.span.clone(), "a line can have one command only", None);
            return;
        }
        let (chain, span) = match value {
            Some((chain, span)) => (Some(chain), span),
            None => (None, word.span.clone()),
        };
        let mut argument = None;
        let words = line.words;
        let takes_argument = matches!(letter, 'D' | 'I' | 'R' | 'Z' | 'L' | 'S' | 'P' | 'E');
        if let Some(next) = words.get(line.next)
            && chain.is_some()
            && takes_argument
            && !next.text.starts_with('-')
            && next.text != "!"
        {
            argument = Some((&*next.text, next.span.clone()));
            line.next += 1;
        }
        line.command = Some(Command { letter, chain, span, argument });
    }

    /// Addresses with commas between: one rule for each.
    fn addresses(&mut self, (text, span): &(&str, Range<usize>), negated: bool) -> Vec<AddressTest> {
        let mut tests = Vec::new();
        let mut start = span.start;
        for part in text.split(',') {
            let at = start..(start + part.len()).min(span.end.max(start));
            start += part.len() + 1;
            match parse_network(part, self.family) {
                Ok((address, mask)) => tests.push(AddressTest { address, mask, negated }),
                Err(fault) => {
                    self.error(if text.contains(',') { at } else { span.clone() }, fault.message, fault.help)
                }
            }
        }
        if negated && tests.len() > 1 {
            let help = "write a chain that returns on each of them";
            self.error(span.clone(), "`!` cannot stand before several addresses", Some(help.into()));
        }
        tests
    }

    fn interface(&mut self, (text, span): &(&str, Range<usize>), negated: bool) -> InterfaceTest {
        const NAME_BYTES_MAX: usize = 15;
        if text.is_empty() {
            self.error(span.clone(), "an interface without a name", None);
            return InterfaceTest::default();
        }
        if text.len() > NAME_BYTES_MAX {
            let message = format!("interface name of {} bytes is above {NAME_BYTES_MAX}", text.len());
            self.error(span.clone(), message, None);
        } else if text.contains(['/', ' ']) {
            self.warn(span.clone(), format!("`{text}` is no name that an interface can have"), None);
        }
        match text.strip_suffix('+') {
            Some(name) => InterfaceTest { name: Some(name.into()), prefix: true, negated },
            None => InterfaceTest { name: Some((*text).into()), prefix: false, negated },
        }
    }

    fn protocol(&mut self, (text, span): &(&str, Range<usize>), negated: bool) -> ProtocolTest {
        let Some(number) = protocol_number(text) else {
            let help = "write its number, or a name such as tcp";
            self.error(span.clone(), format!("`{text}` is no known protocol"), Some(help.into()));
            return ProtocolTest::default();
        };
        if number == 0 && negated {
            self.error(span.clone(), "no packet has any other protocol than `all`", None);
        }
        let header = self.family == Family::V6 && matches!(number, 43 | 44 | 60) && !negated;
        if header {
            let help = "test the header by -m rt, frag or dst";
            self.warn(
                span.clone(),
                format!("{text} is an extension header, not a protocol"),
                Some(help.into()),
            );
        }
        ProtocolTest { number, negated }
    }

    fn fragment(&mut self, line: &mut Line<'_>, word: &Word<'_>, negated: bool) {
        if self.family == Family::V6 {
            let help = "test the fragment header by -m frag";
            self.error(word.span.clone(), "-f is for IPv4", Some(help.into()));
            return;
        }
        line.draft.ip.fragment = if negated { FragmentTest::NotLater } else { FragmentTest::Later };
    }

    /// `-c packets bytes` or `-c packets,bytes`
    fn set_counters(&mut self, line: &mut Line<'_>, packets: &str, span: Range<usize>) {
        let counters = match packets.split_once(',') {
            Some((packets, bytes)) => (packets.parse().ok(), bytes.parse().ok()),
            None => {
                let bytes = line.words.get(line.next).filter(|w| !w.text.starts_with('-'));
                line.next += usize::from(bytes.is_some());
                (packets.parse().ok(), bytes.and_then(|w| w.text.parse().ok()))
            }
        };
        match counters {
            (Some(packets), Some(bytes)) => line.draft.counters = Counters { packets, bytes },
            _ => self.error(span, "-c needs packets and bytes", Some("write -c PACKETS BYTES".into())),
        }
    }

    fn add_match(&mut self, line: &mut Line<'_>, name: &str, span: Range<usize>) {
        if line.draft.matches.len() >= self.options.matches_of_rule_max {
            let message = format!("the rule has more than {} matches", self.options.matches_of_rule_max);
            self.error(span, message, Some("split it over chains".into()));
            line.next = line.words.len();
            return;
        }
        if let Some(spec) = registry::find(Kind::Match, name, self.family) {
            line.push_match(Active::known(spec, span));
            return;
        }
        let other = other_family(self.family);
        if registry::find(Kind::Match, name, other).is_some() {
            self.error(span.clone(), format!("match {name} is for {} only", family_name(other)), None);
        } else {
            let near = registry::nearest(Kind::Match, name, self.family)
                .map(|n| format!("{n} is of a similar name"));
            let help =
                near.or_else(|| Some("it is kept as it is written, and what depends on it says so".into()));
            self.warn(span.clone(), format!("hipac does not know the match {name}"), help);
        }
        line.push_match(Active::opaque(name, span));
        line.open = line.owners.last().copied();
    }

    fn set_target(&mut self, line: &mut Line<'_>, name: &str, span: Range<usize>, goto: bool) {
        if name.is_empty() || name.starts_with(['-', '!']) {
            self.error(span, format!("`{name}` is no name of a target"), None);
            return;
        }
        let target = if goto { None } else { registry::find(Kind::Target, name, self.family) };
        line.owners.retain(|o| *o != Owner::Target);
        if let Some(spec) = target {
            line.draft.target = Some(DraftTarget::Extension(Active::known(spec, span)));
            line.owners.push(Owner::Target);
            return;
        }
        let chain = self.current.as_ref().and_then(|t| t.chain(name)).map(|c| (c.name.clone(), c.hook));
        if let Some((name, hook)) = chain {
            if hook.is_some() {
                self.error(span, format!("rules cannot lead to the built-in chain {name}"), None);
            }
            line.draft.target = Some(DraftTarget::Chain { name, goto });
            return;
        }
        if registry::find(Kind::Target, name, other_family(self.family)).is_some() {
            let other = family_name(other_family(self.family));
            self.error(span.clone(), format!("target {name} is for {other} only"), None);
        }
        let active = Active::opaque(name, span);
        line.draft.target = Some(DraftTarget::Unknown { active, goto });
        line.owners.push(Owner::Target);
        line.open = Some(Owner::Target);
    }

    /// Does what the command says.
    fn carry_out(&mut self, command: Command<'_>, line: Line<'_>) {
        let Command { letter, ref chain, ref span, ref argument } = command;
        let argument_text = argument.as_ref().map(|(text, _)| *text);
        match (letter, chain) {
            ('N', Some(name)) => {
                let taken =
                    self.current.as_ref().is_some_and(|t| t.chain(name).is_some_and(|c| c.hook.is_some()));
                if taken {
                    self.error(span.clone(), format!("{name} is a built-in chain"), None);
                } else {
                    self.new_chain(name, span.clone());
                }
            }
            ('X', Some(name)) => self.delete_chain(name, span.clone()),
            ('X', None) => self.delete_all_chains(span.clone()),
            ('E', Some(old)) => match argument_text {
                Some(new) => self.rename_chain(old, new, span.clone()),
                None => self.error(span.clone(), "-E needs the old and the new name", None),
            },
            ('P', Some(name)) => match argument_text {
                Some("ACCEPT") => self.set_policy(name, Policy::Accept, span.clone()),
                Some("DROP") => self.set_policy(name, Policy::Drop, span.clone()),
                _ => self.error(span.clone(), "-P needs a policy", Some("one of ACCEPT, DROP".into())),
            },
            ('F' | 'Z', None) => {
                let count = self.current.as_ref().map_or(0, |t| t.chains.len());
                for index in 0..u32::try_from(count).unwrap_or(u32::MAX) {
                    if letter == 'F' { self.flush(index) } else { self.zero(index, None) }
                }
            }
            ('F' | 'Z', Some(name)) => {
                if let Some(index) = self.chain_of_command(name, span) {
                    let at =
                        argument_text.and_then(|t| t.parse::<usize>().ok()).and_then(|n| n.checked_sub(1));
                    if letter == 'F' { self.flush(index) } else { self.zero(index, at) }
                }
            }
            ('L' | 'S', _) => self.warn(span.clone(), "the command changes nothing and is left out", None),
            (_, Some(name)) => {
                self.edit(&command, name, line);
            }
            _ => self.error(span.clone(), "the command needs a chain", None),
        }
    }

    /// `-A`, `-I`, `-D`, `-R`.
    fn edit(&mut self, command: &Command<'_>, chain_name: &str, line: Line<'_>) {
        let span = whole(line.words);
        let Some(chain) = self.chain_of_command(chain_name, &command.span) else { return };
        let number = match &command.argument {
            None => None,
            Some((text, span)) => match text.parse::<usize>().ok().and_then(|n| n.checked_sub(1)) {
                Some(number) => Some(number),
                None => {
                    let message = format!("`{text}` is no number of a rule, which count from 1");
                    self.error(span.clone(), message, None);
                    return;
                }
            },
        };
        let length = self.current.as_ref().map_or(0, |t| t.chains[chain as usize].order.len());
        let beyond = match (command.letter, number) {
            ('I', Some(n)) => n > length,
            ('D' | 'R', Some(n)) => n >= length,
            _ => false,
        };
        if beyond {
            let place = command.argument.as_ref().map_or(span.clone(), |(_, span)| span.clone());
            self.error(place, format!("chain {chain_name} has {length} rules"), None);
            return;
        }
        if command.letter == 'D'
            && let Some(number) = number
        {
            self.remove_at(chain, number, &span);
            return;
        }
        let hook = self.current.as_ref().and_then(|t| t.chains[chain as usize].hook);
        let (rules, pending) = self.finish_rules(line, hook);
        match command.letter {
            'D' | 'C' => {
                for rule in &rules {
                    if let Some(at) = self.find_equal(chain, rule, &span)
                        && command.letter == 'D'
                    {
                        self.remove_at(chain, at, &span);
                    }
                }
            }
            'R' => match (number, <[Rule; 1]>::try_from(rules)) {
                (Some(number), Ok([rule])) => {
                    self.remove_at(chain, number, &span);
                    self.put_all(chain, Some(number), vec![rule], pending, &span);
                }
                (None, _) => self.error(span, "-R needs the number of a rule", None),
                (_, Err(_)) => self.error(span, "-R takes one address each", None),
            },
            'I' => self.put_all(chain, Some(number.unwrap_or(0)), rules, pending, &span),
            _ => self.put_all(chain, None, rules, pending, &span),
        }
    }

    fn put_all(
        &mut self,
        chain: u32,
        at: Option<usize>,
        rules: Vec<Rule>,
        pending: Option<Pending>,
        span: &Range<usize>,
    ) {
        for rule in rules {
            let Some(id) = self.put(chain, at, rule, span) else { return };
            if let Some(p) = &pending
                && let Some(table) = self.current.as_mut()
            {
                table.pending.push(Pending { rule: id, name: p.name.clone(), span: p.span.clone(), ..*p });
            }
        }
    }

    /// The rules that a line makes: one for each pair of its addresses.
    fn finish_rules(&mut self, line: Line<'_>, hook: Option<Hook>) -> (Vec<Rule>, Option<Pending>) {
        let span = whole(line.words);
        let mut draft = line.draft;
        self.check_place(&draft, hook);
        let protocol = draft.ip.protocol;
        let mut matches: Vec<Extension> = Vec::with_capacity(draft.matches.len());
        for active in std::mem::take(&mut draft.matches) {
            let finished = self.finish_active(active, protocol, &matches);
            matches.push(finished);
        }
        let mut pending = None;
        let target = match draft.target.take() {
            None => Target::None,
            Some(DraftTarget::Chain { name, goto: false }) => Target::Jump(name),
            Some(DraftTarget::Chain { name, goto: true }) => Target::Goto(name),
            Some(DraftTarget::Extension(active)) => {
                Target::Extension(self.finish_active(active, protocol, &matches))
            }
            Some(DraftTarget::Unknown { active, goto }) => {
                if let ExtensionRef::Opaque(name) = &active.spec {
                    let (name, span, place) = (name.clone(), active.span.clone(), self.place());
                    pending = Some(Pending { rule: 0, name, goto, span, place });
                }
                Target::Extension(self.finish_active(active, protocol, &matches))
            }
        };
        let rule = Rule { counters: draft.counters, ip: draft.ip, matches, target, line: self.line };
        (self.multiply(rule, &draft.sources, &draft.destinations, span), pending)
    }

    fn finish_active(&mut self, active: Active, protocol: ProtocolTest, matches: &[Extension]) -> Extension {
        let family = self.family;
        active.finish(protocol, matches, family, &mut |span, message, help| self.error(span, message, help))
    }

    /// Every source with every destination.
    fn multiply(
        &mut self,
        rule: Rule,
        sources: &[AddressTest],
        destinations: &[AddressTest],
        span: Range<usize>,
    ) -> Vec<Rule> {
        let any = [AddressTest::default()];
        let sources = if sources.is_empty() { &any[..] } else { sources };
        let destinations = if destinations.is_empty() { &any[..] } else { destinations };
        let count = sources.len().saturating_mul(destinations.len());
        let max = self.options.rules_of_line_max;
        if count > max {
            let message = format!("the line stands for {count} rules, which is above {max}");
            self.error(span, message, Some("put the addresses into an ipset".into()));
            return Vec::new();
        }
        let with =
            |source: AddressTest, destination: AddressTest| IpPart { source, destination, ..rule.ip.clone() };
        if count == 1 {
            let ip = with(sources[0], destinations[0]);
            return vec![Rule { ip, ..rule }];
        }
        let mut rules = Vec::with_capacity(count);
        for source in sources {
            for destination in destinations {
                rules.push(Rule { ip: with(*source, *destination), ..rule.clone() });
            }
        }
        rules
    }

    /// Whether interfaces, matches and target may stand in this table and chain.
    fn check_place(&mut self, draft: &Draft, hook: Option<Hook>) {
        let Some(kind) = self.current.as_ref().map(|t| t.kind) else { return };
        let place_of =
            |letter| draft.seen.iter().find(|(seen, _)| *seen == letter).map(|(_, span)| span.clone());
        if let Some(hook) = hook {
            let no_in = matches!(hook, Hook::Output | Hook::Postrouting);
            let no_out = matches!(hook, Hook::Prerouting | Hook::Input);
            for (letter, forbidden) in [('i', no_in), ('o', no_out)] {
                if let Some(span) = place_of(letter).filter(|_| forbidden) {
                    self.error(span, format!("-{letter} cannot stand in {}", hook.name()), None);
                }
            }
        }
        let target = match &draft.target {
            Some(DraftTarget::Extension(active)) => Some(active),
            _ => None,
        };
        for active in draft.matches.iter().chain(target) {
            if let Some(spec) = active.known_spec() {
                self.check_extension_place(spec, active.span.clone(), kind, hook);
            }
        }
        if let Some(active) = target
            && kind == TableKind::Nat
            && active.known_spec().is_some_and(|s| s.name == "DROP")
        {
            let help = "drop packets in the filter table";
            self.error(
                active.span.clone(),
                "the nat table sees first packets only and cannot DROP",
                Some(help.into()),
            );
        }
    }

    fn check_extension_place(
        &mut self,
        spec: &'static ExtensionSpec,
        span: Range<usize>,
        kind: TableKind,
        hook: Option<Hook>,
    ) {
        if !spec.tables.is_empty() && !spec.tables.contains(&kind) {
            let names: Vec<&str> = spec.tables.iter().map(|t| t.name()).collect();
            let message = format!("{} cannot stand in table {}", spec.name, kind.name());
            self.error(span, message, Some(format!("it is for {}", names.join(", "))));
        } else if let Some(hook) = hook
            && !spec.hooks.is_empty()
            && !spec.hooks.contains(&hook)
        {
            let names: Vec<&str> = spec.hooks.iter().map(|h| h.name()).collect();
            let message = format!("{} cannot stand in {}", spec.name, hook.name());
            self.error(span, message, Some(format!("it is for {}", names.join(", "))));
        }
    }
}

impl<'l> Line<'l> {
    fn push_match(&mut self, active: Active) {
        self.owners.push(Owner::Match(self.draft.matches.len()));
        self.draft.matches.push(active);
    }

    fn active(&self, owner: Owner) -> Option<&Active> {
        match (owner, &self.draft.target) {
            (Owner::Match(i), _) => self.draft.matches.get(i),
            (Owner::Target, Some(DraftTarget::Extension(active) | DraftTarget::Unknown { active, .. })) => {
                Some(active)
            }
            (Owner::Target, _) => None,
        }
    }

    fn active_mut(&mut self, owner: Owner) -> Option<&mut Active> {
        match (owner, &mut self.draft.target) {
            (Owner::Match(i), _) => self.draft.matches.get_mut(i),
            (Owner::Target, Some(DraftTarget::Extension(active) | DraftTarget::Unknown { active, .. })) => {
                Some(active)
            }
            (Owner::Target, _) => None,
        }
    }

    fn push_opaque(&mut self, owner: Owner, text: &str) {
        if let Some(active) = self.active_mut(owner) {
            active.words.push(text.into());
        }
    }

    /// The option of that name: written out by anybody, else the one that begins with it.
    fn find(&self, name: &str) -> Found {
        if let Some(letter) = core_options::letter_of(name) {
            return Found::Core(letter);
        }
        let options = || {
            self.owners
                .iter()
                .rev()
                .filter_map(|o| Some((*o, self.active(*o)?.known_spec()?)))
                .flat_map(|(owner, spec)| spec.options.iter().map(move |option| (owner, option)))
        };
        if let Some((owner, option)) = options().find(|(_, option)| option.is_named(name)) {
            return Found::Option(owner, option);
        }
        if name.is_empty() {
            return Found::Nothing;
        }
        let mut found: Vec<(&'static str, Found)> = Vec::new();
        for (long, letter) in LONG.iter().filter(|(long, _)| long.starts_with(name)) {
            let known = found.iter().any(|(_, f)| matches!(f, Found::Core(other) if other == letter));
            if !known {
                found.push((long, Found::Core(*letter)));
            }
        }
        for (owner, option) in options() {
            let names = std::iter::once(option.name).chain(option.aliases.iter().copied());
            if let Some(long) = names.into_iter().find(|n| n.starts_with(name)) {
                found.push((long, Found::Option(owner, option)));
            }
        }
        if found.len() > 1 {
            let names: Vec<String> = found.iter().map(|(long, _)| format!("--{long}")).collect();
            return Found::Ambiguous(names.join(" or "));
        }
        found.pop().map_or(Found::Nothing, |(_, found)| found)
    }

    /// A word after an option that may have one.
    fn maybe_value(&mut self, attached: Option<&'l str>) -> Option<(&'l str, Range<usize>)> {
        let words = self.words;
        if let Some(text) = attached {
            return Some((text, words[self.next - 1].span.clone()));
        }
        let word = words.get(self.next).filter(|w| !w.text.starts_with('-') && w.text != "!")?;
        self.next += 1;
        Some((&word.text, word.span.clone()))
    }

    /// Passes over words that belong to an option which nobody has.
    fn skip_values(&mut self) {
        while self.words.get(self.next).is_some_and(|w| !w.text.starts_with('-') && w.text != "!") {
            self.next += 1;
        }
    }
}

/// Whether a word (or the one after a `!`) begins an option of the tool, so that it ends the
/// words of an unknown extension.
fn begins_core(line: &Line<'_>, word: &Word<'_>) -> bool {
    let text = if word.text == "!" {
        match line.words.get(line.next) {
            Some(next) => &*next.text,
            None => return false,
        }
    } else {
        &*word.text
    };
    if let Some(long) = text.strip_prefix("--") {
        return core_options::letter_of(long).is_some_and(core_options::is_of_rule);
    }
    let mut letters = text.strip_prefix('-').unwrap_or("").chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) => core_options::is_of_rule(letter),
        _ => false,
    }
}

fn whole(words: &[Word<'_>]) -> Range<usize> {
    match (words.first(), words.last()) {
        (Some(first), Some(last)) => first.span.start..last.span.end,
        _ => 0..0,
    }
}

fn other_family(family: Family) -> Family {
    match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    }
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}
