//! What rules have changed of a packet, as a function of the packet that came in.
//!
//! A region is always one of *incoming* packets. A test behind a `MARK` is about the mark as it is then, so it
//! is taken back through the changes: `mark & M == V` behind `mark = (mark & A) ^ (connmark & B) ^ C` is a test
//! of bits of both. All effects of both marks keep that form; of TOS and TTL there are 256 values, and a table
//! says what each has become.

use std::sync::Arc;

use hipac_rules::Effect;

/// A mark as a function of the incoming marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Linear {
    /// Bits that are the incoming mark's.
    pub(crate) of_mark: u32,
    /// Bits that are the incoming connection mark's. A bit in both is their sum.
    pub(crate) of_connmark: u32,
    /// Then inverted.
    pub(crate) flip: u32,
}

impl Linear {
    fn masked(self, mask: u32) -> Linear {
        Linear { of_mark: self.of_mark & mask, of_connmark: self.of_connmark & mask, flip: self.flip & mask }
    }

    fn sum(self, other: Linear) -> Linear {
        Linear {
            of_mark: self.of_mark ^ other.of_mark,
            of_connmark: self.of_connmark ^ other.of_connmark,
            flip: self.flip ^ other.flip,
        }
    }
}

/// All changes so far.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Change {
    pub(crate) mark: Linear,
    pub(crate) connmark: Linear,
    /// What each incoming value has become; `None`: unchanged.
    pub(crate) tos: Option<Arc<[u8; 256]>>,
    pub(crate) ttl: Option<Arc<[u8; 256]>>,
    pub(crate) is_untracked: bool,
}

impl Change {
    /// Nothing has changed.
    pub(crate) const NONE: Change = Change {
        mark: Linear { of_mark: u32::MAX, of_connmark: 0, flip: 0 },
        connmark: Linear { of_mark: 0, of_connmark: u32::MAX, flip: 0 },
        tos: None,
        ttl: None,
        is_untracked: false,
    };

    /// Makes one more change. Those of the connection mark are made by the caller only where the packet has a
    /// connection.
    pub(crate) fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Mark { clear, flip } => {
                self.mark = self.mark.masked(!clear);
                self.mark.flip ^= flip;
            }
            Effect::ConnMark { clear, flip } => {
                self.connmark = self.connmark.masked(!clear);
                self.connmark.flip ^= flip;
            }
            Effect::SaveMark { ctmask, nfmask } => {
                self.connmark = self.connmark.masked(!ctmask).sum(self.mark.masked(nfmask));
            }
            Effect::RestoreMark { ctmask, nfmask } => {
                self.mark = self.mark.masked(!nfmask).sum(self.connmark.masked(ctmask));
            }
            Effect::Tos { clear, flip } => map(&mut self.tos, |x| (x & !clear) ^ flip),
            Effect::TtlSet(ttl) => map(&mut self.ttl, |_| ttl),
            Effect::TtlAdd(by) => map(&mut self.ttl, |x| x.saturating_add(by)),
            Effect::TtlSub(by) => map(&mut self.ttl, |x| x.saturating_sub(by)),
            Effect::Untrack => self.is_untracked = true,
        }
    }
}

fn map(table: &mut Option<Arc<[u8; 256]>>, change: impl Fn(u8) -> u8) {
    let now = |x: u8| table.as_ref().map_or(x, |t| t[usize::from(x)]);
    let mut changed = [0; 256];
    for (x, slot) in (0..=255).zip(changed.iter_mut()) {
        *slot = change(now(x));
    }
    *table = Some(Arc::new(changed));
}

/// Whether an effect is one of the connection mark, which a packet without a connection is spared.
pub(crate) fn needs_connection(effect: Effect) -> bool {
    matches!(effect, Effect::ConnMark { .. } | Effect::SaveMark { .. } | Effect::RestoreMark { .. })
}
