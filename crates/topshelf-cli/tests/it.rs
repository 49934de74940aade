//! The program as a person meets it: started, given right and wrong input, interrupted, killed.

mod it {
    mod architecture;
    mod ask;
    mod awkward_files;
    mod bad_input;
    mod chunking;
    mod demo;
    mod endpoint;
    mod help;
    mod json;
    mod judge;
    mod kill;
    mod late_interaction;
    mod llm;
    mod program;
    mod second_stage;
    mod serve;
    mod services;
    mod setups;
    mod tune;
}
