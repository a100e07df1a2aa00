//! A rule while its words are read: the IP part, matches and a target, with the places of what
//! was written, and the laws of the registry once all is read.

use std::ops::Range;

use smallvec::SmallVec;

use crate::model::{AddressTest, Counters, Extension, ExtensionRef, Family, IpPart, ProtocolTest, Setting};
use crate::registry::{ExtensionSpec, FinishContext, Law, OptionSpec, WhenAbsent};
use crate::value::Value;

use super::core_options::Letter;

/// A fault of a rule, before its place in the text is worked out.
pub(crate) type Report<'r> = dyn FnMut(Range<usize>, String, Option<String>) + 'r;

/// A match or target while its options are read.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) spec: ExtensionRef,
    pub(crate) settings: Vec<Setting>,
    pub(crate) words: Vec<Box<str>>,
    /// The place of its name.
    pub(crate) span: Range<usize>,
    /// Options given, the hidden ones included: a bit for each of the entry's.
    given: u64,
}

impl Active {
    pub(crate) fn known(spec: &'static ExtensionSpec, span: Range<usize>) -> Active {
        Active::new(ExtensionRef::Known(spec), span)
    }

    pub(crate) fn opaque(name: &str, span: Range<usize>) -> Active {
        Active::new(ExtensionRef::Opaque(name.into()), span)
    }

    fn new(spec: ExtensionRef, span: Range<usize>) -> Active {
        Active { spec, settings: Vec::new(), words: Vec::new(), span, given: 0 }
    }

    /// The entry, of one that has it.
    pub(crate) fn known_spec(&self) -> Option<&'static ExtensionSpec> {
        match self.spec {
            ExtensionRef::Known(spec) => Some(spec),
            ExtensionRef::Opaque(_) => None,
        }
    }

    /// Adds an option as read: written out when it is short for another one, left out when it
    /// says what holds anyway. `Err`: it was given before.
    pub(crate) fn add(
        &mut self,
        option: &'static OptionSpec,
        negated: bool,
        value: Value,
        family: Family,
    ) -> Result<(), ()> {
        let Some(spec) = self.known_spec() else { return Ok(()) };
        let (option, negated, value) = match option.short_for {
            Some(short) => match spec.option(short.option) {
                Some(long) => (long, negated != short.flips, (short.value)(&value)),
                None => (option, negated, value),
            },
            None => (option, negated, value),
        };
        if !self.note_given(option) && !option.repeats {
            return Err(());
        }
        let says_nothing = match option.when_absent {
            WhenAbsent::Hidden(text) => {
                !negated && option.value.parse(&[text], family).as_ref() == Ok(&value)
            }
            _ => false,
        };
        if !says_nothing {
            if self.settings.is_empty() {
                // Mostly there is one: no spare room, and none to give back.
                self.settings.reserve_exact(1);
            }
            self.settings.push(Setting { option, negated, value });
        }
        Ok(())
    }

    /// The extension in canonical form; laws broken are reported at its name.
    pub(crate) fn finish(
        mut self,
        protocol: ProtocolTest,
        matches: &[Extension],
        family: Family,
        report: &mut Report<'_>,
    ) -> Extension {
        let Some(spec) = self.known_spec() else {
            return Extension { spec: self.spec, settings: Vec::new(), words: self.words };
        };
        self.check_laws(spec, report);
        self.check_protocol(spec, protocol, report);
        add_defaults(spec, &mut self.settings, family);
        sort(spec, &mut self.settings);
        let mut settings = self.settings;
        if let Some(finish) = spec.quirks.finish {
            let number = if protocol.negated { 0 } else { protocol.number };
            let context = FinishContext { family, protocol: number, spec, matches };
            if let Err(message) = finish(&mut settings, &context) {
                report(self.span, format!("{}: {message}", spec.name), None);
            }
        }
        settings.shrink_to_fit();
        Extension { spec: self.spec, settings, words: self.words }
    }

    /// Notes that an option is given; `false`: it was given before.
    pub(crate) fn note_given(&mut self, option: &'static OptionSpec) -> bool {
        let bit = self.known_spec().map_or(0, |spec| bit_of(spec, |o| std::ptr::eq(o, option)));
        let first = self.given & bit == 0;
        self.given |= bit;
        first
    }

    fn gives(&self, name: &str) -> bool {
        self.known_spec().is_some_and(|spec| self.given & bit_of(spec, |o| o.name == name) != 0)
    }

    fn check_laws(&self, spec: &'static ExtensionSpec, report: &mut Report<'_>) {
        let name = spec.name;
        for option in spec.options.iter().filter(|o| o.required && !self.gives(o.name)) {
            let help = format!("add --{} {}", option.name, option.value.hint());
            report(
                self.span.clone(),
                format!("{name} needs --{}", option.name),
                Some(help.trim_end().into()),
            );
        }
        for law in spec.laws {
            match law {
                Law::AnyOf(names) if !names.iter().any(|n| self.gives(n)) => {
                    report(self.span.clone(), format!("{name} needs {}", list(names, " or ")), None);
                }
                Law::OneOf(names) if names.iter().filter(|n| self.gives(n)).count() > 1 => {
                    report(self.span.clone(), format!("{name} takes one of {}", list(names, ", ")), None);
                }
                Law::Needs(one, other) if self.gives(one) && !self.gives(other) => {
                    report(self.span.clone(), format!("{name}: --{one} needs --{other}"), None);
                }
                Law::Behind(one, other) => {
                    // Settings are as they are written still.
                    let place = |name: &str| self.settings.iter().position(|s| s.option.name == name);
                    if let (Some(first), Some(second)) = (place(one), place(other))
                        && first < second
                    {
                        report(self.span.clone(), format!("{name}: --{one} stands behind --{other}"), None);
                    }
                }
                _ => {}
            }
        }
    }

    fn check_protocol(&self, spec: &'static ExtensionSpec, protocol: ProtocolTest, report: &mut Report<'_>) {
        if spec.protocols.is_empty() || (!protocol.negated && spec.protocols.contains(&protocol.number)) {
            return;
        }
        let names: Vec<String> = spec
            .protocols
            .iter()
            .map(|p| crate::names::protocol_name(*p).map_or_else(|| p.to_string(), str::to_owned))
            .collect();
        report(
            self.span.clone(),
            format!("{} looks at {} only, which the rule does not ask for", spec.name, names.join(", ")),
            Some(format!("add -p {}", names[0])),
        );
    }
}

/// The bit of the entry's option that `is` holds for; no entry has more than 64 options.
fn bit_of(spec: &'static ExtensionSpec, is: impl Fn(&'static OptionSpec) -> bool) -> u64 {
    spec.options.iter().take(64).position(is).map_or(0, |place| 1 << place)
}

fn list(names: &[&str], between: &str) -> String {
    let dashed: Vec<String> = names.iter().map(|n| format!("--{n}")).collect();
    dashed.join(between)
}

/// Adds what is always printed.
fn add_defaults(spec: &'static ExtensionSpec, settings: &mut Vec<Setting>, family: Family) {
    for option in spec.options {
        let WhenAbsent::Shown(text) = option.when_absent else { continue };
        if settings.iter().any(|s| std::ptr::eq(s.option, option)) {
            continue;
        }
        if let Ok(value) = option.value.parse(&[text], family) {
            settings.push(Setting { option, negated: false, value });
        }
    }
}

/// Puts settings in the order of the registry, group by group.
fn sort(spec: &'static ExtensionSpec, settings: &mut [Setting]) {
    let place = |s: &Setting| spec.options.iter().position(|o| std::ptr::eq(o, s.option));
    if settings.len() < 2 {
        return;
    }
    let Some(separator) = spec.group_by else {
        settings.sort_by_key(place);
        return;
    };
    for group in settings.split_mut(|s| s.option.name == separator) {
        group.sort_by_key(place);
    }
}

/// The addresses that one option names: nearly always one.
pub(crate) type Addresses = SmallVec<[AddressTest; 1]>;

/// A rule while its words are read.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) counters: Option<Counters>,
    pub(crate) sources: Addresses,
    pub(crate) destinations: Addresses,
    pub(crate) ip: IpPart,
    pub(crate) matches: SmallVec<[Active; 2]>,
    pub(crate) target: Option<DraftTarget>,
    seen: Seen,
}

impl Draft {
    /// Notes the place of an option which may stand once; `false`: it stood before.
    pub(crate) fn note(&mut self, letter: Letter, span: Range<usize>) -> bool {
        let bit = bit_of_letter(letter);
        let first = self.seen.letters & bit == 0;
        self.seen.letters |= bit;
        match letter {
            'i' if first => self.seen.in_interface = span,
            'o' if first => self.seen.out_interface = span,
            _ => {}
        }
        first
    }

    /// The place of a target that is a chain.
    pub(crate) fn place_of_target(&self) -> Option<Range<usize>> {
        match &self.target {
            Some(DraftTarget::Chain { span, .. }) => Some(span.clone()),
            _ => None,
        }
    }

    /// Whether the line says something about a rule, counters aside.
    pub(crate) fn says_something(&self) -> bool {
        self.seen.letters & !bit_of_letter('c') != 0 || !self.matches.is_empty() || self.target.is_some()
    }

    /// The place of `-i` or `-o`.
    pub(crate) fn place_of_interface(&self, letter: Letter) -> Option<Range<usize>> {
        let place = if letter == 'i' { &self.seen.in_interface } else { &self.seen.out_interface };
        (!place.is_empty()).then(|| place.clone())
    }
}

/// The letters of rules differ in their low six bits.
fn bit_of_letter(letter: Letter) -> u64 {
    1 << (u32::from(letter) & 63)
}

/// What may stand once and does.
#[derive(Debug, Default)]
struct Seen {
    /// A bit for each letter.
    letters: u64,
    in_interface: Range<usize>,
    out_interface: Range<usize>,
}

/// What `-j` or `-g` named.
#[derive(Debug)]
pub(crate) enum DraftTarget {
    /// A target of the registry, or an unknown one.
    Extension(Active),
    /// A chain.
    Chain { name: crate::model::Name, goto: bool, span: Range<usize> },
    /// A name that is no target and not yet a chain; its options are kept.
    Unknown { active: Active, goto: bool },
}
