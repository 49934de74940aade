//! The model store and the models, used as a caller uses them.

mod it {
    mod allocations;
    mod decoder;
    mod environment;
    mod folder;
    mod inference;
    mod late_interaction;
    mod native;
    mod pull_hub;
    mod pull_pip;
    mod queue;
    mod store;
    mod support;
    mod token_cache;
}
