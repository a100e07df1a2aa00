//! What the reading of one line may look at: the options, the family, where it is, and a place
//! for faults. No table: what a line says does not hang on the lines before it, except for the
//! chains there are ([`Chains`]).

use std::collections::HashSet;
use std::ops::Range;

use foldhash::fast::RandomState;

use crate::fault::{Fault, Faults, Severity, characters};
use crate::model::{Family, Hook, Name};

use super::ParseOptions;
use super::build::TableBuilder;

/// The state of reading lines.
pub(crate) struct Reader<'t> {
    pub(crate) options: &'t ParseOptions,
    pub(crate) family: Family,
    pub(crate) text: &'t [u8],
    pub(crate) faults: Faults,
    /// The current line, from 1.
    pub(crate) line: u32,
    /// Its first byte.
    pub(crate) line_start: usize,
    /// Names seen: rules share them.
    names: HashSet<Name, RandomState>,
}

impl<'t> Reader<'t> {
    pub(crate) fn new(text: &'t [u8], family: Family, options: &'t ParseOptions) -> Reader<'t> {
        let faults = Faults::new(options.fault_count_max);
        Reader { options, family, text, faults, line: 0, line_start: 0, names: HashSet::default() }
    }

    /// Notes an error of the current line.
    pub(crate) fn error(&mut self, span: Range<usize>, message: impl Into<String>, help: Option<String>) {
        self.fault(Severity::Error, self.place(), span, message.into(), help);
    }

    /// Notes a warning of the current line.
    pub(crate) fn warn(&mut self, span: Range<usize>, message: impl Into<String>, help: Option<String>) {
        self.fault(Severity::Warning, self.place(), span, message.into(), help);
    }

    /// The place of the current line, for faults that only later lines show.
    pub(crate) fn place(&self) -> (u32, usize) {
        (self.line, self.line_start)
    }

    /// Notes a fault of any line.
    pub(crate) fn fault(
        &mut self,
        severity: Severity,
        (line, line_start): (u32, usize),
        span: Range<usize>,
        message: String,
        help: Option<String>,
    ) {
        if self.faults.list.len() >= self.faults.limit {
            self.faults.beyond += 1;
            return;
        }
        let start = span.start.min(self.text.len());
        let end = span.end.clamp(start, self.text.len());
        let column = 1 + characters(&self.text[line_start.min(start)..start]);
        let width = characters(&self.text[start..end]).max(1);
        self.faults.push(Fault { severity, message, span: start..end, line, column, width, help });
    }

    /// The text as a name, the same one each time.
    pub(crate) fn name(&mut self, text: &str) -> Name {
        if let Some(name) = self.names.get(text) {
            return name.clone();
        }
        let name: Name = text.into();
        self.names.insert(name.clone());
        name
    }
}

/// The chains that a `-j` or `-g` may lead to.
#[derive(Clone, Copy)]
pub(crate) enum Chains<'c> {
    /// Those of the table being read.
    Of(Option<&'c TableBuilder>),
    /// Not known yet: every name is taken for a user chain's, and who asked makes sure.
    Assumed,
}

impl Chains<'_> {
    /// The chain of that name, with its hook.
    pub(crate) fn find(self, name: &str, reader: &mut Reader<'_>) -> Option<(Name, Option<Hook>)> {
        match self {
            Chains::Of(table) => table?.chain(name).map(|c| (c.name.clone(), c.hook)),
            Chains::Assumed => Some((reader.name(name), None)),
        }
    }
}
