//! Rotary positions: [`Rotary`] (Su et al., "RoFormer", 2021, equation 34).
//!
//! Dimensions i and i + d/2 of a head of d dimensions are turned together, at place p by the angle
//! `p · base^(-2i/d)`:
//!
//! ```text
//! x[i]       = x[i] · cos - x[i + d/2] · sin
//! x[i + d/2] = x[i + d/2] · cos + x[i] · sin
//! ```
//!
//! Angles are products of f32, as transformers computes them; cosine and sine are rounded from f64.

use std::sync::Arc;

use super::architecture::Architecture;

/// The angles of one base for every place of a sequence.
pub(crate) struct Rotary {
    half: usize,
    /// `[places, half]`, cosine and sine.
    turns: Vec<(f32, f32)>,
}

impl Rotary {
    /// One for each block; blocks of the same base share theirs.
    pub(crate) fn of_blocks(architecture: &Architecture) -> Vec<Arc<Self>> {
        let mut known: Vec<(f32, Arc<Self>)> = Vec::new();
        let dimension = architecture.hidden / architecture.heads;
        let places = architecture.max_positions.unwrap_or(0);
        architecture
            .blocks
            .iter()
            .map(|block| {
                let base = block.rotary_base;
                if let Some((_, rotary)) =
                    known.iter().find(|(of, _)| of.to_bits() == base.to_bits())
                {
                    return Arc::clone(rotary);
                }
                let rotary = Arc::new(Self::new(base, dimension, places));
                known.push((base, Arc::clone(&rotary)));
                rotary
            })
            .collect()
    }

    pub(crate) fn new(base: f32, dimension: usize, places: usize) -> Self {
        let half = dimension / 2;
        let frequencies: Vec<f32> =
            (0..half).map(|i| 1.0 / base.powf((2 * i) as f32 / dimension as f32)).collect();
        let turns = (0..places)
            .flat_map(|place| {
                frequencies.iter().map(move |frequency| {
                    let angle = f64::from(place as f32 * frequency);
                    (angle.cos() as f32, angle.sin() as f32)
                })
            })
            .collect();
        Self { half, turns }
    }

    /// Turns all heads of a row, side by side, by the angles of that place.
    pub(crate) fn turn(&self, row: &mut [f32], place: usize) {
        let turns = &self.turns[place * self.half..][..self.half];
        for head in row.chunks_exact_mut(2 * self.half) {
            let (lower, upper) = head.split_at_mut(self.half);
            for ((a, b), &(cos, sin)) in lower.iter_mut().zip(upper).zip(turns) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_swaps_the_halves() {
        let rotary = Rotary { half: 1, turns: vec![(1.0, 0.0), (0.0, 1.0)] };
        let mut row = [1.0_f32, 2.0, 3.0, 4.0];
        rotary.turn(&mut row, 0);
        assert_eq!(row.map(f32::to_bits), [1.0_f32, 2.0, 3.0, 4.0].map(f32::to_bits));
        rotary.turn(&mut row, 1);
        assert_eq!(row.map(f32::to_bits), [-2.0_f32, 1.0, -4.0, 3.0].map(f32::to_bits));
    }

    #[test]
    fn products_depend_on_the_distance_only() {
        let rotary = Rotary::new(10_000.0, 8, 64);
        let product = |p: usize, q: usize| {
            let mut a = [0.3, -1.0, 0.5, 2.0, 1.0, 0.1, -0.4, 0.9];
            let mut b = [1.1, 0.2, -0.7, 0.4, 0.6, -1.3, 0.8, 0.5];
            rotary.turn(&mut a, p);
            rotary.turn(&mut b, q);
            a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>()
        };
        assert!((product(3, 10) - product(50, 57)).abs() < 1e-5);
        assert!((product(3, 10) - product(3, 11)).abs() > 1e-3);
    }
}
