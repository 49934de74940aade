//! An order as a model writes it: [`read`].
//!
//! Models are asked for all numbers, each once, and write what they like: a number twice, one that
//! there is not, half of the list. What was written is used as far as it goes, in a way that depends on
//! nothing but the text: numbers outside of 1..=n and repeated ones are dropped, missing ones follow in
//! the order that they had.

/// An order of n things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Their places, from 0, best first; each once.
    pub places: Vec<usize>,
    /// Numbers that were missing, repeated, or of nothing.
    pub repairs: usize,
}

/// The order of `count` things in a text such as `[2] > [1] > [3]` or `{"order": [2, 1, 3]}`. If numbers
/// in brackets are among its numbers, only those count: what is said beside them is no part of it.
pub fn read(text: &str, count: usize) -> Order {
    // What a model that thinks aloud says last.
    let text = text.rsplit_once("</think>").map_or(text, |(_, answer)| answer);
    let mut numbers: Vec<(usize, bool)> = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut depth = 0_usize;
    while at < bytes.len() {
        match bytes[at] {
            b'[' => depth += 1,
            b']' => depth = depth.saturating_sub(1),
            digit if digit.is_ascii_digit() => {
                let end = at + bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
                numbers.push((text[at..end].parse().unwrap_or(usize::MAX), depth > 0));
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    if numbers.iter().any(|(_, bracketed)| *bracketed) {
        numbers.retain(|(_, bracketed)| *bracketed);
    }
    of(numbers.into_iter().map(|(number, _)| number.wrapping_sub(1)), count)
}

/// The order of `count` things that these places make, repaired.
pub fn of(places: impl IntoIterator<Item = usize>, count: usize) -> Order {
    let mut seen = vec![false; count];
    let mut order = Order { places: Vec::with_capacity(count), repairs: 0 };
    for place in places {
        match seen.get_mut(place) {
            Some(seen) if !*seen => {
                *seen = true;
                order.places.push(place);
            }
            _ => order.repairs += 1,
        }
    }
    let missing = (0..count).filter(|&place| !seen[place]);
    order.repairs += count - order.places.len();
    order.places.extend(missing);
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn orders_are_read_as_they_are_written() {
        let places = |text, count| {
            let order = read(text, count);
            (order.places, order.repairs)
        };
        assert_eq!(places("[2] > [1] > [3]", 3), (vec![1, 0, 2], 0));
        assert_eq!(places("The 3 passages in order: [3] > [2] > [1]", 3), (vec![2, 1, 0], 0));
        assert_eq!(places(r#"{"order": [2, 1, 3]}"#, 3), (vec![1, 0, 2], 0));
        assert_eq!(places("2 > 1 > 3", 3), (vec![1, 0, 2], 0));
        assert_eq!(places("<think>[1] is weak</think>[2] > [1]", 2), (vec![1, 0], 0));
        // Damaged: repeated, of nothing, missing.
        assert_eq!(places("[2] > [2] > [9] > [1]", 4), (vec![1, 0, 2, 3], 4));
        assert_eq!(places("I cannot rank these.", 3), (vec![0, 1, 2], 3));
        assert_eq!(places("[99999999999999999999999] > [2]", 2), (vec![1, 0], 2));
        assert_eq!(places("[0] > [2]", 2), (vec![1, 0], 2));
        assert_eq!(places("", 0), (vec![], 0));
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_an_order(text in ".{0,80}", count in 0_usize..30) {
            let order = read(&text, count);
            let mut sorted = order.places.clone();
            sorted.sort_unstable();
            prop_assert!(sorted.into_iter().eq(0..count));
            prop_assert_eq!(read(&text, count), order);
        }

        #[test]
        fn a_whole_order_needs_no_repair(mut places in Just((0..20).collect::<Vec<usize>>()).prop_shuffle()) {
            let text = places.iter().map(|place| format!("[{}]", place + 1)).collect::<Vec<_>>();
            let order = read(&text.join(" > "), 20);
            prop_assert_eq!(order.repairs, 0);
            prop_assert_eq!(&order.places, &places);
            places.truncate(13);
            prop_assert_eq!(of(places, 20).repairs, 7);
        }
    }
}
