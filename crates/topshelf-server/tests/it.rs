//! The server without a network, a model or a file: requests go straight to the router, and a fake
//! [`topshelf_server::Shelf`] is behind it.
//!
//! | file | holds |
//! | --- | --- |
//! | `shelf`, `animals`, `rerankers` | what is served |
//! | `exchange` | requests, replies, and what holds for every reply |
//! | `description` | replies compared with the schemas of `/openapi.json` |
//! | `cohere` … `openai`, `native`, `search`, `context`, `documents`, `operation` | each route's answers |
//! | `faults` | each wrong request on each route |
//! | `policies`, `keys`, `limits`, `protocol` | what holds for several routes |
//! | `mutations` | random changes to valid bodies |
//!
//! A case is a request and the snapshot of its exchange; `INSTA_UPDATE=always` writes new ones.

mod it {
    #[macro_use]
    mod exchange;

    mod animals;
    mod cohere;
    mod context;
    mod description;
    mod documents;
    mod faults;
    mod jina;
    mod keys;
    mod limits;
    mod mutations;
    mod native;
    mod openai;
    mod operation;
    mod policies;
    mod protocol;
    mod rerankers;
    mod search;
    mod shared;
    mod shelf;
    mod tei;
    mod vllm;
    mod voyage;
}
