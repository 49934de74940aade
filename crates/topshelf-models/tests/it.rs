//! The model store and the models, used as a caller uses them.

mod it {
    mod environment;
    mod folder;
    mod inference;
    mod pull_hub;
    mod pull_pip;
    mod store;
    mod support;
}
