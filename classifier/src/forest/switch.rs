//! A switch: where a reference leads before a version of a live forest, and since.
//!
//! ```text
//!  0     4     8      12
//!  old   new   since  0
//!  ref   ref   u32
//! ```
//!
//! A transaction puts switches in front of everything that it changes, then publishes its version
//! by one store: whoever reads as of an earlier version goes on to see the old subtrees, whoever
//! comes later the new ones. When the last reader of the old ones is gone, the reference that led
//! to the switch is made to lead to the new subtree itself. Versions count around: one is before
//! another when it is less than half of all numbers behind.

/// Offset of the reference before.
pub const OLD: usize = 0;

/// Offset of the reference since.
pub const NEW: usize = 4;

/// Offset of the version.
pub const SINCE: usize = 8;

/// What a version shows: what came with `since`, or what was before.
#[inline(always)]
pub fn shows(since: u32, version: u32) -> bool {
    version.wrapping_sub(since) < 1 << 31
}

/// The 16 bytes.
pub fn encode(old: u32, new: u32, since: u32) -> [u8; super::UNIT] {
    let mut out = [0; super::UNIT];
    out[OLD..][..4].copy_from_slice(&old.to_le_bytes());
    out[NEW..][..4].copy_from_slice(&new.to_le_bytes());
    out[SINCE..][..4].copy_from_slice(&since.to_le_bytes());
    out
}
