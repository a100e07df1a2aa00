//! Which window each lane of a lean leaf looks at, for kernels that compare all lanes at once.

use crate::forest::leaf::{COLUMNS_MAX, RULES_MAX, VECTOR_LANES, WINDOWS_AT};

/// Guards that a leaf's header can state, see [`Lean`].
pub(super) const GUARDS: usize = 16;

/// The byte of a leaf's header that holds the window of each lane (twice: a lane has two bytes),
/// for each of two vectors and each number of guards and of rules less one.
pub(super) static PATTERNS: Patterns = Patterns(patterns());

// No load of a pattern crosses a line.
#[repr(align(64))]
pub(super) struct Patterns([[[[u8; 64]; RULES_MAX]; GUARDS]; 2]);

impl Patterns {
    /// The pattern of vector `part` of a leaf of a [shape](crate::forest::leaf::Lean::shape).
    #[inline(always)]
    pub(super) fn of(&self, part: usize, shape: u32) -> &[u8; 64] {
        &self.0[part].as_flattened()[shape as usize % (GUARDS * RULES_MAX)]
    }
}

const fn patterns() -> [[[[u8; 64]; RULES_MAX]; GUARDS]; 2] {
    let mut all = [[[[0; 64]; RULES_MAX]; GUARDS]; 2];
    let mut guards = 0;
    while guards < GUARDS {
        let mut rules = 1;
        while rules <= RULES_MAX {
            let mut lane = 0;
            while lane < 2 * VECTOR_LANES {
                let column = if lane < guards { lane } else { guards + (lane - guards) / rules };
                // Lanes past the last column are masked away; they only have to stay inside.
                let byte = WINDOWS_AT + if column < COLUMNS_MAX { column } else { 0 };
                let place = &mut all[lane / VECTOR_LANES][guards][rules - 1];
                place[2 * (lane % VECTOR_LANES)] = byte as u8;
                place[2 * (lane % VECTOR_LANES) + 1] = byte as u8;
                lane += 1;
            }
            rules += 1;
        }
        guards += 1;
    }
    all
}

/// The rules that hold the key, of a leaf with so many guards (up to 15) and rules (1 to 8), when these of its
/// lanes do not. `LONG`: there may be more than 8 columns besides guards.
///
/// All columns of `rules` lanes are brought to the first, which then says whether any of a rule's lanes
/// is off. Up to 12 columns in 63 lanes take four folds, of which the last, where eight columns would be 64
/// lanes, changes nothing.
#[inline(always)]
pub(super) fn rules_of<const LONG: bool>(off: u64, guards: u32, rules: u32) -> u32 {
    // Of a number that is not 0 the negative has all bits above its lowest other than the number, and
    // here these are 0: a guard that is off takes every rule with it, and no branch asks.
    let shut = off & ((1 << guards) - 1);
    let off = (off | shut.wrapping_neg()) >> guards;
    let two = off | off >> rules;
    let four = two | two >> (2 * rules);
    let mut all = four | four >> (4 * rules);
    if LONG {
        all |= all.wrapping_shr(8 * rules);
    }
    !all as u32 & ((1 << rules) - 1)
}
