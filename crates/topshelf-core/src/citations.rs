//! Citations in an answer, as the prompt of [`crate::context`] asks for them: [`Citations`].

use serde::Serialize;

/// The numbers of sources that an answer cites.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Citations {
    /// Sources that there are, in the order in which they are first cited.
    pub cited: Vec<usize>,
    /// Numbers of no source, in the same order: the model made them up.
    pub unknown: Vec<usize>,
}

impl Citations {
    /// Finds `[1]`, `[1, 3]` and `[2][4]`; `count` is the number of sources. What stands in brackets with
    /// anything but numbers, commas and spaces is no citation.
    ///
    /// ```
    /// use topshelf_core::citations::Citations;
    /// let found = Citations::find("Up to a year [2], or two [1, 2][7]. See [the docs] and a[i].", 3);
    /// assert_eq!((found.cited, found.unknown), (vec![2, 1], vec![7]));
    /// ```
    pub fn find(answer: &str, count: usize) -> Self {
        let mut found = Self::default();
        for opened in answer.split('[').skip(1) {
            let Some((inside, _)) = opened.split_once(']') else { continue };
            let numbers: Result<Vec<usize>, _> =
                inside.split(',').map(|number| number.trim().parse()).collect();
            for number in numbers.unwrap_or_default() {
                let list = if (1..=count).contains(&number) {
                    &mut found.cited
                } else {
                    &mut found.unknown
                };
                if !list.contains(&number) {
                    list.push(number);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_citation_is_none() {
        for text in ["", "[", "]", "[]", "[a]", "[1", "1]", "[1.5]", "[1-3]", "[ , ]", "[-1]"] {
            assert_eq!(Citations::find(text, 5), Citations::default(), "{text}");
        }
        assert_eq!(Citations::find("[0] [ 5 ] [99999999999999999999999]", 5).cited, [5]);
        assert_eq!(Citations::find("[0][[3]]", 5).unknown, [0]);
    }
}
