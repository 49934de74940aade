//! Hosted rerankers against a server that answers as theirs do, and as theirs do when things go wrong.

mod it {
    mod hosted;
    mod llm;
    mod service;
}
