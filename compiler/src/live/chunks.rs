//! A list by number that is cheap to copy: chunks that copies share until one of them changes.

use std::sync::Arc;

/// Elements of a chunk: the first change behind a copy copies so many.
const CHUNK: usize = 64;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Chunks<T> {
    chunks: Vec<Arc<Vec<T>>>,
    len: usize,
}

impl<T> Default for Chunks<T> {
    fn default() -> Chunks<T> {
        Chunks { chunks: Vec::new(), len: 0 }
    }
}

impl<T: Clone> Chunks<T> {
    /// How many.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The element of a number.
    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.chunks.get(at / CHUNK)?.get(at % CHUNK)
    }

    /// The element of a number, to be changed.
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        let chunk = self.chunks.get_mut(at / CHUNK)?;
        if at % CHUNK >= chunk.len() {
            return None;
        }
        Arc::make_mut(chunk).get_mut(at % CHUNK)
    }

    /// One more, at the end.
    pub(super) fn push(&mut self, element: T) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => Arc::make_mut(last).push(element),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(element);
                self.chunks.push(Arc::new(chunk));
            }
        }
        self.len += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_do_not_see_each_others_changes() {
        let mut one: Chunks<usize> = Chunks::default();
        (0..1000).for_each(|i| one.push(i));
        let mut other = one.clone();
        (0..1000).step_by(7).for_each(|i| *other.get_mut(i).unwrap() += 5000);
        one.push(77);
        (0..1000).for_each(|i| {
            assert_eq!(one.get(i), Some(&i));
            assert_eq!(other.get(i), Some(&(if i % 7 == 0 { i + 5000 } else { i })));
        });
        assert_eq!((one.len(), other.len()), (1001, 1000));
        assert_eq!((one.get(1000), other.get(1000)), (Some(&77), None));
        assert!(other.get_mut(1000).is_none());
    }
}
