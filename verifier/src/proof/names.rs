//! Interface names as numbers: the names that no rule and no image tells apart are one value.
//!
//! A name is a 16-byte number that sorts as its bytes do. The bounds that the rules' tests set,
//! and those that the image keeps, cut all names into *cells*, numbered from 0. A test of a rule
//! is a range of cells, and so is a rank of the image. A few cells hold no name at all (between
//! `abcdefghijklmno` and the end of `abcdefghijklmno+` there is only the name itself).

use hipac_classifier::InterfaceName;
use hipac_classifier::dim::Ranks;

use super::ranges::Ranges;

#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    /// Where cells begin, but for the first.
    bounds: Vec<u128>,
    /// The image's rank of each cell.
    ranks: Vec<u32>,
    /// A name of each cell; none when there is none.
    samples: Vec<Option<InterfaceName>>,
}

impl Names {
    /// `tested`: names and prefixes that rules test.
    pub(super) fn new<'n>(tested: impl Iterator<Item = (&'n str, bool)>, ranks: Ranks<'_>) -> Names {
        let mut bounds: Vec<u128> = (0..ranks.count()).map(|i| ranks.bound(i)).collect();
        for (first, end) in tested.filter_map(|(name, prefix)| numbers(name, prefix)) {
            bounds.push(first);
            bounds.extend(end);
        }
        bounds.sort_unstable();
        bounds.dedup();
        let begins = std::iter::once(0).chain(bounds.iter().copied());
        let ends = bounds.iter().copied().map(Some).chain([None]);
        let cells = begins.zip(ends).map(|(begin, end)| (rank(ranks, begin), name_within(begin, end)));
        let (ranks, samples) = cells.unzip();
        Names { bounds, ranks, samples }
    }

    /// The largest cell.
    pub(super) fn max(&self) -> u32 {
        self.bounds.len() as u32
    }

    /// The image's rank of a cell.
    pub(super) fn rank(&self, cell: u32) -> u32 {
        self.ranks.get(cell as usize).copied().unwrap_or(0)
    }

    /// A name of a cell.
    pub(super) fn sample(&self, cell: u32) -> Option<InterfaceName> {
        self.samples.get(cell as usize).copied().flatten()
    }

    /// The cells of a test.
    pub(super) fn cells(&self, name: &str, prefix: bool) -> Ranges {
        let cell = |number: u128| self.bounds.partition_point(|&b| b <= number) as u32;
        match numbers(name, prefix) {
            None => Ranges::none(),
            Some((first, None)) => Ranges::one(cell(first), self.max()),
            Some((first, Some(end))) => Ranges::one(cell(first), cell(end) - 1),
        }
    }
}

/// The rank that the image gives the names of a cell that begins here. Bounds of a damaged image
/// need not rise: searched as [`Ranks::rank`] does, they cut names between the same numbers.
fn rank(ranks: Ranks<'_>, begin: u128) -> u32 {
    let (mut low, mut high) = (0, ranks.count());
    while low < high {
        let middle = (low + high) / 2;
        if ranks.bound(middle) <= begin { low = middle + 1 } else { high = middle }
    }
    low as u32
}

/// The numbers of the names that a test holds for: the first, and the one behind the last where
/// there is one. None for a name that no interface can have.
fn numbers(name: &str, prefix: bool) -> Option<(u128, Option<u128>)> {
    let first = InterfaceName::new(name)?.as_number();
    let last = match prefix {
        false => first,
        true => first | u128::MAX.checked_shr(8 * name.len() as u32).unwrap_or(0),
    };
    Some((first, last.checked_add(1)))
}

/// The first name at or above `begin` and below `end`.
fn name_within(begin: u128, end: Option<u128>) -> Option<InterfaceName> {
    first_name_from(begin).filter(|name| end.is_none_or(|end| name.as_number() < end))
}

/// The first name at or above a number.
fn first_name_from(begin: u128) -> Option<InterfaceName> {
    let wanted = begin.to_be_bytes();
    // The longer the beginning that it shares, the smaller.
    (0..=15).rev().find_map(|shared| {
        let start = std::str::from_utf8(&wanted[..shared]).ok()?;
        if wanted[shared..].iter().all(|&b| b == 0) {
            return InterfaceName::new(start);
        }
        // The first character that is above what stands there. Characters sort as their bytes do.
        let name = |c: u32| InterfaceName::new(&format!("{start}{}", char::from_u32(c)?));
        let is_above = |c: u32| match char::from_u32(c) {
            Some(c) => c.encode_utf8(&mut [0; 4]).as_bytes() > &wanted[shared..],
            None => "\u{d7ff}".as_bytes() > &wanted[shared..], // surrogates: as their neighbour below
        };
        let (mut low, mut high) = (1, 0x11_0000);
        while low < high {
            let middle = (low + high) / 2;
            if is_above(middle) { high = middle } else { low = middle + 1 }
        }
        let c = if (0xd800..0xe000).contains(&low) { 0xe000 } else { low };
        name(c)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_hold_the_names_between_bounds() {
        let bytes: Vec<u8> = Vec::new();
        let names = Names::new([("eth0", false), ("eth", true)].into_iter(), Ranks::new(&bytes));
        assert_eq!(names.cells("eth0", false), Ranges::one(2, 2));
        assert_eq!(names.cells("eth", true), Ranges::one(1, 3));
        assert_eq!(names.cells("abcdefghijklmnop", true), Ranges::none());
        let samples: Vec<String> =
            (0..=names.max()).map(|c| names.sample(c).map_or("–".into(), |n| n.to_string())).collect();
        assert_eq!(samples, ["", "eth", "eth0", "eth0\u{1}", "eti"]);
    }

    #[test]
    fn a_cell_without_a_name_is_known() {
        let bytes: Vec<u8> = Vec::new();
        let long = "abcdefghijklmno";
        let names = Names::new([(long, false), (long, true)].into_iter(), Ranks::new(&bytes));
        assert_eq!(names.max(), 3);
        assert_eq!(names.sample(1).map(|n| n.to_string()).as_deref(), Some(long));
        assert_eq!(names.sample(2), None);
        assert!(names.sample(3).is_some());
        // Bytes that no text begins with are passed over.
        assert_eq!(first_name_from(0x80 << 120), InterfaceName::new("\u{80}"));
        assert_eq!(first_name_from(u128::MAX), None);
    }
}
