//! One block of memory that a writer fills and readers walk.
//!
//! Words are atomic: the writer stores through a shared reference. Kernels walk the same bytes as a
//! slice, see [`Memory::bytes`].
#![allow(unsafe_code)] // words seen as bytes

use std::sync::atomic::{AtomicU64, Ordering};

use crate::forest::{ARENA_SLACK, LINE};

/// Bytes of a word.
const WORD: usize = 8;

/// See the module.
pub struct Memory {
    words: Box<[AtomicU64]>,
    /// Words before the first cache line.
    skip: usize,
    /// Bytes behind them.
    len: usize,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Memory {
    /// Zeros, `len` bytes rounded up to cache lines, and the slack that vector loads want behind
    /// them. What is never written takes no physical memory where the system gives zeroed pages out
    /// lazily.
    pub fn new(len: usize) -> Memory {
        let len = len.next_multiple_of(LINE);
        let zeros = vec![0u64; (len + ARENA_SLACK.max(crate::forest::leaf::REACH) + LINE) / WORD];
        let words = Box::into_raw(zeros.into_boxed_slice()) as *mut [AtomicU64];
        // SAFETY: the pointer comes from a box just given up, and an `AtomicU64` has the size, the
        // alignment and the values of a `u64` (here: those of 8 bytes on all targets with 64-bit
        // atomics whose `u64` is aligned to 8, which the assertion below holds them to).
        let words = unsafe { Box::from_raw(words) };
        let skip = words.as_ptr().align_offset(LINE).min(LINE / WORD);
        Memory { words, skip, len }
    }

    /// Bytes that may be written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The word at byte `at`, a multiple of 8.
    #[inline]
    pub fn load(&self, at: usize) -> u64 {
        u64::from_le(self.words[self.skip + at / WORD].load(Ordering::Acquire))
    }

    /// Stores a word at byte `at`, a multiple of 8: everything stored before is seen by who reads it.
    #[inline]
    pub fn store(&self, at: usize, word: u64) {
        debug_assert!(at.is_multiple_of(WORD) && at < self.len);
        self.words[self.skip + at / WORD].store(word.to_le(), Ordering::Release);
    }

    /// Has the line of a byte brought near, which is read soon.
    #[inline]
    pub fn prefetch(&self, at: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Some(word) = self.words.get(self.skip + at / WORD) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch has no effect that a program can see; SSE is part of x86-64.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(word).cast()) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }

    /// Writes bytes at `at`, both multiples of 8, where no reader looks yet.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        debug_assert!(at.is_multiple_of(WORD) && at + bytes.len() <= self.len);
        let (whole, rest) = bytes.as_chunks::<WORD>();
        let words = &self.words[self.skip + at / WORD..];
        for (word, bytes) in words.iter().zip(whole) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        if !rest.is_empty() {
            let mut last = [0; WORD];
            last[..rest.len()].copy_from_slice(rest);
            words[whole.len()].store(u64::from_ne_bytes(last), Ordering::Relaxed);
        }
    }

    /// All bytes, with slack behind them, as kernels walk them.
    ///
    /// What a walk depends on does not change under it: a node, a leaf or a switch is written before
    /// the store that leads to it, and is written again only when no reader that could have come to
    /// it is left. Two things are read while they may change. *Slots* are read as words by one load
    /// each, or by two whose halves may be of different moments; any of these halves leads a reader
    /// of any version to what it is to see (`forest::switch`, and `compiler`'s `live::slots`). Bytes
    /// *behind* the end of a leaf are loaded into lanes of vectors that no answer depends on.
    pub fn bytes(&self) -> &[u8] {
        let words = &self.words[self.skip..];
        // SAFETY: the words are initialised, in one allocation, and live as long as `self`; bytes
        // have no alignment. Other threads store to words while this slice exists, atomically, and
        // never to those whose values matter to the reader, as the comment above says. That loads
        // of slots race with stores is not covered by the language's memory model for plain loads;
        // it is by the machines': an aligned word is loaded and stored whole on all that hipac has
        // kernels for, and each load is used once.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), std::mem::size_of_val(words)) }
    }
}

const _: () = assert!(align_of::<AtomicU64>() == align_of::<u64>() && size_of::<AtomicU64>() == WORD);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let memory = Memory::new(100);
        assert_eq!(memory.len(), 128);
        assert_eq!(memory.bytes().as_ptr().align_offset(LINE), 0);
        memory.write(16, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        memory.store(120, 0x0807_0605_0403_0201);
        assert_eq!(&memory.bytes()[16..26], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(&memory.bytes()[120..128], &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(memory.load(120), 0x0807_0605_0403_0201);
        assert!(memory.bytes().len() >= 128 + ARENA_SLACK);
    }
}
