//! Which passages have a vector near which centroid: inverted lists, one for each centroid, over the
//! passages of one file.
//!
//! A list is the places of its passages in the file, ascending, each once, as the gap to the one
//! before (of the first: its place and one), in LEB128: seven bits a byte, the lowest first, the
//! highest bit set where more follow. (The unsigned form of DWARF 5, section 7.6.) Lists of a file
//! are made when it is written and never changed, as the file is.

/// The lists of a file: where each begins, and one more; and their bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lists {
    pub(crate) starts: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
}

impl Lists {
    /// The lists of passages whose vectors have these centroids; `starts` says where the vectors of
    /// each passage begin, and one more.
    pub(crate) fn of(ids: &[u16], starts: &[u64], centroids: usize) -> Self {
        let passages = || {
            starts.windows(2).map(|ends| {
                let mut own = ids[ends[0] as usize..ends[1] as usize].to_vec();
                own.sort_unstable();
                own.dedup();
                own
            })
        };
        // How many passages each list has, then where it ends among all.
        let mut ends = vec![0_usize; centroids + 1];
        for id in passages().flatten() {
            ends[usize::from(id) + 1] += 1;
        }
        for n in 0..centroids {
            ends[n + 1] += ends[n];
        }
        let mut rows = vec![0_u32; ends[centroids]];
        let mut next = ends.clone();
        for (row, own) in passages().enumerate() {
            for id in own {
                let place = &mut next[usize::from(id)];
                rows[*place] = row as u32;
                *place += 1;
            }
        }
        let mut lists = Self::default();
        lists.starts.push(0);
        for ends in ends.windows(2) {
            let mut after = 0; // the place behind the one before
            for &row in &rows[ends[0]..ends[1]] {
                push(row + 1 - after, &mut lists.bytes);
                after = row + 1;
            }
            lists.starts.push(lists.bytes.len() as u64);
        }
        lists
    }
}

fn push(mut gap: u32, bytes: &mut Vec<u8>) {
    while gap >= 0x80 {
        bytes.push(gap as u8 | 0x80);
        gap >>= 7;
    }
    bytes.push(gap as u8);
}

/// The places of a list. What a damaged file says is kept below the number of passages.
pub(crate) struct Rows<'a> {
    bytes: &'a [u8],
    after: u32,
    passages: usize,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(bytes: &'a [u8], passages: usize) -> Self {
        Self { bytes, after: 0, passages }
    }
}

impl Iterator for Rows<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let (mut gap, mut shift) = (0_u32, 0);
        loop {
            let (&byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            gap |= u32::from(byte & 0x7f).checked_shl(shift)?;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        self.after = self.after.checked_add(gap)?;
        let row = self.after.checked_sub(1)? as usize;
        (row < self.passages).then_some(row)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Every passage is in the list of each of its centroids, once, and in no other.
        #[test]
        fn lists_are_the_passages_turned_round(
            passages in prop::collection::vec(prop::collection::vec(0_u16..7, 0..9), 0..400),
        ) {
            let ids: Vec<u16> = passages.iter().flatten().copied().collect();
            let mut starts = vec![0];
            for own in &passages {
                starts.push(starts[starts.len() - 1] + own.len() as u64);
            }
            let lists = Lists::of(&ids, &starts, 7);
            for id in 0..7_u16 {
                let ends = &lists.starts[usize::from(id)..][..2];
                let bytes = &lists.bytes[ends[0] as usize..ends[1] as usize];
                let found: Vec<usize> = Rows::new(bytes, passages.len()).collect();
                let right = passages.iter().enumerate().filter(|(_, own)| own.contains(&id));
                prop_assert_eq!(found, right.map(|(row, _)| row).collect::<Vec<_>>());
            }
        }

        /// Whatever bytes there are, the places are of passages, and there is an end.
        #[test]
        fn damaged_lists_stay_within_the_file(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(Rows::new(&bytes, 50).all(|row| row < 50));
        }
    }
}
