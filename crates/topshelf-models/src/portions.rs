//! [`Portions`]: texts that are tokenised a portion at a time, so that a request of many megabytes
//! does not hold up the others on the model's thread.

use crate::error::Result;

/// Texts, and the ids of those that have been read, from the first on.
pub(crate) struct Portions {
    texts: Vec<String>,
    ids: Vec<Result<Vec<u32>>>,
}

impl Portions {
    pub(crate) fn of(texts: Vec<String>) -> Self {
        let ids = Vec::with_capacity(texts.len());
        Self { texts, ids }
    }

    /// All texts.
    pub(crate) fn texts(&self) -> &[String] {
        &self.texts
    }

    /// The ids of the texts that have been read; they are gone from here then.
    pub(crate) fn take_ids(&mut self) -> Vec<Result<Vec<u32>>> {
        std::mem::take(&mut self.ids)
    }

    /// Tokenises the next texts until their bytes have used up the room, and says whether there are
    /// no more. A text is not cut, so the last one may take more than there is.
    pub(crate) fn read(
        &mut self,
        room: &mut usize,
        tokenise: impl FnOnce(&[String]) -> Vec<Result<Vec<u32>>>,
    ) -> bool {
        let rest = &self.texts[self.ids.len()..];
        let fitting = rest.iter().take_while(|text| {
            let fits = *room > 0;
            // Even an empty text is some work.
            *room = room.saturating_sub(text.len().max(1));
            fits
        });
        let count = fitting.count();
        self.ids.extend(tokenise(&rest[..count]));
        count == rest.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_end_where_the_room_does() {
        let mut portions = Portions::of(["aaa", "", "bb", "cccc", "d"].map(str::to_owned).to_vec());
        let lengths = |texts: &[String]| -> Vec<Result<Vec<u32>>> {
            texts.iter().map(|text| Ok(vec![text.len() as u32])).collect()
        };
        let mut room = 0;
        assert!(!portions.read(&mut room, lengths));
        assert_eq!(portions.ids.len(), 0);
        room = 4;
        assert!(!portions.read(&mut room, lengths));
        assert_eq!((portions.ids.len(), room), (2, 0));
        room = 3;
        assert!(!portions.read(&mut room, lengths));
        assert_eq!((portions.ids.len(), room), (4, 0));
        room = 3;
        assert!(portions.read(&mut room, lengths));
        assert_eq!(room, 2);
        let ids: Vec<Vec<u32>> = portions.take_ids().into_iter().map(Result::unwrap).collect();
        assert_eq!(ids, [[3], [0], [2], [4], [1]]);
        assert!(Portions::of(Vec::new()).read(&mut 0, lengths));
    }
}
