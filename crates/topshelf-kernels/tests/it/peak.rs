//! What the multipliers reach.

use topshelf_kernels::peak::{Numbers, peak};

#[test]
fn every_number_has_a_peak_on_any_number_of_threads() {
    for numbers in [Numbers::Int8, Numbers::Bf16, Numbers::F32] {
        for threads in [1, 3] {
            let gops = peak(numbers, threads);
            // Beyond 10 Top/s a core the loop would have been optimised away.
            assert!(gops > 0.0 && gops < 10_000.0 * threads as f64, "{numbers:?}: {gops}");
        }
    }
}
