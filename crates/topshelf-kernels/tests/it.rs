//! Every kernel against its plain reference, over random shapes and on every
//! instruction set that the machine running the tests has.

#![allow(clippy::float_cmp)] // the kernels promise exact values and equal bits

mod it {
    mod attention;
    mod dot;
    mod gemm;
    mod grouped;
    mod max_sim;
    mod norm;
    mod peak;
    mod quantise;
    mod reference;
    mod rows;
    mod scan;
    mod support;
    mod top_k;
}
