//! A long list with cheap changes in its middle, and cheap copies: blocks of a thousand elements or two.

use std::sync::Arc;

/// Elements of a block, at most.
const BLOCK: usize = 2048;

/// See the module. Costs a look at every block's length, and what moving within one costs.
#[derive(Debug, Clone)]
pub(super) struct Seq<T> {
    /// Copies share them until one changes.
    blocks: Vec<Arc<Vec<T>>>,
    /// Of each block, next to one another: all of them are looked at, all the time.
    lens: Vec<u32>,
    len: usize,
}

impl<T> Default for Seq<T> {
    fn default() -> Seq<T> {
        Seq { blocks: Vec::new(), lens: Vec::new(), len: 0 }
    }
}

impl<T: Copy> FromIterator<T> for Seq<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Seq<T> {
        let all: Vec<T> = all.into_iter().collect();
        let blocks: Vec<Arc<Vec<T>>> = all.chunks(BLOCK / 2).map(|b| Arc::new(b.to_vec())).collect();
        Seq { len: all.len(), lens: blocks.iter().map(|b| b.len() as u32).collect(), blocks }
    }
}

impl<T: Copy> Seq<T> {
    /// How many.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The block of a position, and the place in it; behind the last one for the length.
    fn find(&self, at: usize) -> (usize, usize) {
        let mut left = at;
        // Eight blocks at a time.
        let mut block = 0;
        for lens in self.lens.chunks(8) {
            let sum = lens.iter().sum::<u32>() as usize;
            if left < sum {
                break;
            }
            left -= sum;
            block += lens.len();
        }
        for &len in self.lens.get(block..).unwrap_or_default() {
            if left < len as usize {
                return (block, left);
            }
            left -= len as usize;
            block += 1;
        }
        match self.lens.last() {
            Some(&len) if left == 0 => (block - 1, len as usize),
            _ => (block, 0),
        }
    }

    /// The element at a position.
    pub(super) fn get(&self, at: usize) -> Option<T> {
        let (block, place) = self.find(at);
        self.blocks.get(block)?.get(place).copied()
    }

    /// Puts an element at a position, the length at most.
    pub(super) fn insert(&mut self, at: usize, element: T) {
        debug_assert!(at <= self.len);
        let (block, place) = self.find(at);
        if block == self.blocks.len() {
            self.blocks.push(Arc::new(Vec::with_capacity(BLOCK)));
            self.lens.push(0);
        }
        Arc::make_mut(&mut self.blocks[block]).insert(place, element);
        self.lens[block] += 1;
        self.len += 1;
        if self.blocks[block].len() >= BLOCK {
            let rest = Arc::make_mut(&mut self.blocks[block]).split_off(BLOCK / 2);
            self.lens[block] = (BLOCK / 2) as u32;
            self.lens.insert(block + 1, rest.len() as u32);
            self.blocks.insert(block + 1, Arc::new(rest));
        }
    }

    /// Takes the element at a position out.
    pub(super) fn remove(&mut self, at: usize) -> Option<T> {
        if at >= self.len {
            return None;
        }
        let (block, place) = self.find(at);
        let element = Arc::make_mut(&mut self.blocks[block]).remove(place);
        self.lens[block] -= 1;
        self.len -= 1;
        if self.blocks[block].is_empty() {
            self.blocks.remove(block);
            self.lens.remove(block);
        } else if self.blocks[block].len() < BLOCK / 4
            && let Some(next) = self.blocks.get(block + 1)
            && next.len() + self.blocks[block].len() < BLOCK / 2
        {
            let next = self.blocks.remove(block + 1);
            self.lens[block] += self.lens.remove(block + 1);
            Arc::make_mut(&mut self.blocks[block]).extend_from_slice(&next);
        }
        Some(element)
    }

    /// All elements in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        self.blocks.iter().flat_map(|block| block.iter()).copied()
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(|b| size_of::<Vec<T>>() + 4 + size_of::<T>() * b.capacity()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_a_vector_is() {
        let mut state = 3u64;
        let mut random = move |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % n.max(1)
        };
        let mut plain: Vec<u32> = (0..9000).map(|i| 10 * i).collect();
        let mut seq: Seq<u32> = plain.iter().copied().collect();
        for step in 0..20_000 {
            let grows = if step < 10_000 { random(5) < 2 } else { random(5) < 3 };
            if grows {
                let at = random(plain.len() + 1);
                plain.insert(at, step);
                seq.insert(at, step);
            } else if !plain.is_empty() {
                let at = random(plain.len());
                assert_eq!(seq.remove(at), Some(plain.remove(at)));
            }
            let at = random(plain.len() + 2);
            assert_eq!((seq.get(at), seq.len()), (plain.get(at).copied(), plain.len()));
        }
        let (copy, before) = (seq.clone(), plain.clone());
        (0..100).for_each(|i| seq.insert(i * 50, 7));
        (0..100).for_each(|_| assert!(seq.remove(300).is_some()));
        assert_eq!(copy.iter().collect::<Vec<_>>(), before);
        assert_eq!(copy.len(), before.len());
    }
}
