//! Scans: every row has the bits of its own inner product, and the references agree.

use proptest::collection::vec;
use proptest::prelude::*;
use topshelf_kernels::{
    Isa, dot_f32_with, dot_i8_with, scan, scan_f32, scan_f32_with, scan_i8, scan_i8_with,
};

use super::support::{f32_value, i8_value, matrix, on_every_isa};

on_every_isa! {
    fn f32_rows_have_the_bits_of_the_portable_product(isa, m in matrix(f32_value())) {
        let (query, rows) = (m.query.as_slice(), m.rows.as_slice());
        let mut out = vec![f32::NAN; m.count];
        scan_f32_with(isa, query, rows, &mut out);
        for (i, score) in out.iter().enumerate() {
            let row = &rows[i * query.len()..(i + 1) * query.len()];
            let alone = dot_f32_with(Isa::Portable, query, row);
            prop_assert_eq!(score.to_bits(), alone.to_bits(), "{}, row {}", isa, i);
        }
    }

    fn i8_rows_are_scaled_integer_products(
        isa,
        m in matrix(i8_value()),
        query_scale in 0.0_f32..2.0,
        row_scales in vec(0.0_f32..2.0, 11),
    ) {
        let (query, rows) = (m.query.as_slice(), m.rows.as_slice());
        let row_scales = &row_scales[..m.count];
        let mut out = vec![f32::NAN; m.count];
        scan_i8_with(isa, query, query_scale, rows, row_scales, &mut out);
        for (i, score) in out.iter().enumerate() {
            let row = &rows[i * query.len()..(i + 1) * query.len()];
            let dot = dot_i8_with(Isa::Portable, query, row);
            let expected = (query_scale * row_scales[i]) * dot as f32;
            prop_assert_eq!(score.to_bits(), expected.to_bits(), "{}, row {}", isa, i);
        }
    }

    fn scans_agree_with_their_references(
        isa,
        m in matrix(-1.0_f32..1.0),
        codes in matrix(i8_value()),
    ) {
        let (query, rows) = (m.query.as_slice(), m.rows.as_slice());
        if !query.is_empty() {
            let mut out = vec![f32::NAN; m.count];
            scan_f32_with(isa, query, rows, &mut out);
            let exact = scan::reference::scan_f32(query, rows);
            prop_assert_eq!(exact.len(), out.len());
            for (got, exact) in out.iter().zip(exact) {
                prop_assert!((f64::from(*got) - exact).abs() < 1e-3, "{isa}: {got} for {exact}");
            }
        }
        let (query, rows) = (codes.query.as_slice(), codes.rows.as_slice());
        if !query.is_empty() {
            let scales = vec![0.03; codes.count];
            let mut out = vec![f32::NAN; codes.count];
            scan_i8_with(isa, query, 0.02, rows, &scales, &mut out);
            let exact = scan::reference::scan_i8(query, 0.02, rows, &scales);
            prop_assert_eq!(exact.len(), out.len());
            for (got, exact) in out.iter().zip(exact) {
                let tolerance = 3e-7 * exact.abs(); // three roundings and the constants'
                prop_assert!((f64::from(*got) - exact).abs() <= tolerance, "{isa}: {got} for {exact}");
            }
        }
    }
}

#[test]
fn a_query_without_elements_scores_zero() {
    for isa in Isa::available() {
        let mut out = [f32::NAN; 3];
        scan_f32_with(isa, &[], &[], &mut out);
        assert_eq!(out, [0.0; 3], "{isa}");
        let mut out = [f32::NAN; 3];
        scan_i8_with(isa, &[], 1.0, &[], &[1.0; 3], &mut out);
        assert_eq!(out, [0.0; 3], "{isa}");
    }
}

#[test]
fn the_plain_functions_run_the_detected_set() {
    let isa = Isa::detect().unwrap();
    let rows: Vec<f32> = (0..350).map(|i| (i as f32).cos()).collect();
    let (mut plain, mut with) = ([0.0; 7], [0.0; 7]);
    scan_f32(&rows[..50], &rows, &mut plain);
    scan_f32_with(isa, &rows[..50], &rows, &mut with);
    assert_eq!(plain, with);

    let codes: Vec<i8> = (0..350).map(|i| (i % 255 - 127) as i8).collect();
    scan_i8(&codes[..50], 0.5, &codes, &[0.25; 7], &mut plain);
    scan_i8_with(isa, &codes[..50], 0.5, &codes, &[0.25; 7], &mut with);
    assert_eq!(plain, with);
}

#[test]
#[should_panic(expected = "a scan of 2 rows with a query of 3")]
fn a_wrong_number_of_values_panics() {
    scan_f32(&[0.0; 3], &[0.0; 5], &mut [0.0; 2]);
}

#[test]
#[should_panic(expected = "a scan of 2 rows with a query of 0")]
fn values_without_a_query_panic() {
    scan_f32(&[], &[0.0; 5], &mut [0.0; 2]);
}

#[test]
#[should_panic(expected = "one scale")]
fn a_missing_scale_panics() {
    scan_i8(&[1], 1.0, &[1, 2], &[1.0], &mut [0.0; 2]);
}
