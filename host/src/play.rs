//! A state as the [`Host`] of an image.

use hipac_classifier::program::ResidualKind;
use hipac_classifier::{Answer, Host, Image, OriginId, Packet};
use hipac_rules::{Ruleset, TableKind};

use crate::state::{Arrival, State};

/// Where the rules that an image names stand in its ruleset.
#[derive(Debug, Clone)]
pub struct Origins(Vec<(TableKind, usize, usize)>);

impl Origins {
    /// Looks each rule of the image up. `None`: it was compiled from other rules.
    pub fn new<B: AsRef<[u8]>>(image: &Image<B>, ruleset: &Ruleset) -> Option<Origins> {
        let mut rules = Vec::new();
        while let Some(origin) = image.origin(OriginId(u32::try_from(rules.len()).ok()?)) {
            let (table, chain) = image.name(origin.list).split_once('/')?;
            let table = ruleset.table(TableKind::from_name(table)?)?;
            let chain = table.chain_index(chain)?;
            let rule = (origin.number as usize).checked_sub(1)?;
            table.chains[chain].rules.get(rule).filter(|r| r.line == origin.line)?;
            rules.push((table.kind, chain, rule));
        }
        Some(Origins(rules))
    }

    /// The position of a rule.
    pub fn place(&self, origin: OriginId) -> Option<(TableKind, usize, usize)> {
        self.0.get(origin.0 as usize).copied()
    }
}

/// The host of one evaluation of an image: answers what the state knows, and takes the rest to hold or not.
#[derive(Debug)]
pub struct ImageHost<'a> {
    /// What the rules keep.
    pub state: &'a mut State,
    /// Which rules the image means.
    pub origins: &'a Origins,
    /// The packet's circumstances.
    pub arrival: Arrival<'a>,
    /// What matches whose answer is not known are taken to do.
    pub otherwise: bool,
}

impl Host for ImageHost<'_> {
    fn residual(&mut self, rule: OriginId, match_index: u8, _: ResidualKind, packet: &Packet) -> Answer {
        let place = self.origins.place(rule);
        let known = place.and_then(|place| self.state.ask(place, match_index.into(), packet, &self.arrival));
        known.unwrap_or(Answer::from(self.otherwise))
    }

    fn matched(&mut self, rule: OriginId, packet: &Packet) {
        if let Some(place) = self.origins.place(rule) {
            self.state.matched(place, packet, &mut self.arrival);
        }
    }
}
