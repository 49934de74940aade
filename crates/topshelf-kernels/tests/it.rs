//! Every kernel against its plain reference, over random shapes and on every
//! instruction set that the machine running the tests has.

#![allow(clippy::float_cmp)] // the kernels promise exact values and equal bits

mod it {
    mod dot;
    mod norm;
    mod quantise;
    mod scan;
    mod support;
    mod top_k;
}
