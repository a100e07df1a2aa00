//! Which window each lane of a lean leaf looks at, for kernels that compare all lanes at once.

use crate::forest::leaf::{RULES_MAX, VECTOR_LANES, WINDOWS_AT};

/// Guards that a leaf's header can state, see [`Lean`].
pub(super) const GUARDS: usize = 16;

/// The byte of a leaf's header that holds the window of each lane (twice: a lane has two bytes),
/// for each of two vectors and each number of guards and of rules less one.
pub(super) static PATTERNS: Patterns = Patterns(patterns());

// No load of a pattern crosses a line.
#[repr(align(64))]
pub(super) struct Patterns([[[[u8; 64]; RULES_MAX]; GUARDS]; 2]);

impl Patterns {
    /// The pattern of vector `part` of a leaf with so many guards (up to 15) and rules (1 to 8).
    #[inline(always)]
    pub(super) fn of(&self, part: usize, guards: u32, rules: u32) -> &[u8; 64] {
        &self.0[part][guards as usize % GUARDS][(rules as usize - 1) % RULES_MAX]
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
                let byte = WINDOWS_AT + if column < 8 { column } else { 7 };
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
