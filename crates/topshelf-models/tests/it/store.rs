//! Which model a name means.

use std::fs;

use topshelf_core::Blame;
use topshelf_models::store::ModelState;
use topshelf_models::{ModelError, Store};

use super::support::{CROSS, Fixture};

#[test]
fn a_known_model_that_is_not_there_is_named() {
    let fixture = Fixture::new(b"weights");
    let error = fixture.store().find("The-Cross").unwrap_err();
    assert!(matches!(&error, ModelError::NotPulled { name } if name == CROSS));
    assert!(
        error.to_string().contains("the model \"tiny/cross\" is not on this machine"),
        "{error}"
    );
    assert_eq!(error.blame(), Blame::Caller);
}

#[test]
fn an_unknown_name_is_answered_with_what_may_be_meant() {
    let store = Store::at("no/such/store");
    for (name, hint) in [
        ("bge-smal", "did you mean \"bge-small\"?"),
        ("someone/an-uncommon-reranker", "a repository of the Hugging Face hub"),
        ("./nowhere", "no folder of that name"),
    ] {
        let error = store.find(name).unwrap_err();
        assert!(matches!(error, ModelError::UnknownModel { .. }), "{error}");
        assert!(error.to_string().contains(hint), "{error}");
        assert_eq!(error.blame(), Blame::Caller);
    }
    let plain = store.find("qqqqqqqqqqqq").unwrap_err().to_string();
    assert!(
        plain.contains("no model is called \"qqqqqqqqqqqq\"; a model is named as in the catalogue"),
        "{plain}"
    );
}

#[test]
fn what_cannot_be_pulled_is_refused_before_anything_is_done() {
    let fixture = Fixture::new(b"weights");
    let (store, options) = (fixture.store(), fixture.options());
    for (name, said) in [
        (fixture.root.to_str().unwrap(), "needs no pulling"),
        ("the-cros", "did you mean \"the-cross\"?"),
    ] {
        let error = store.pull(name, &options, &()).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    assert!(!store.root().exists());
}

#[test]
fn a_folder_goes_before_a_model_of_that_name_if_it_is_written_as_a_path() {
    let fixture = Fixture::new(b"weights");
    let mine = fixture.root.join("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("model.onnx"), "weights").unwrap();
    fs::write(mine.join("tokenizer.json"), "{}").unwrap();
    fs::write(mine.join("topshelf.toml"), "family = \"cross-encoder\"").unwrap();
    let folder = fixture.store().find(mine.to_str().unwrap()).unwrap();
    assert_eq!(folder.dir, mine);
    assert_eq!(folder.spec.name, "mine");
    assert_eq!(fixture.store().verify(mine.to_str().unwrap()).unwrap().files, 2);
}

#[test]
fn a_record_that_cannot_be_read_is_damage() {
    let fixture = Fixture::new(b"weights");
    let store = fixture.store();
    let folder = store.pull(CROSS, &fixture.options(), &()).unwrap();
    for content in ["", "{", "{\"name\": 3}"] {
        fs::write(folder.file("model.json"), content).unwrap();
        let error = store.find(CROSS).unwrap_err();
        assert!(matches!(error, ModelError::Damaged { .. }), "{error}");
    }
    fs::remove_file(folder.file("model.json")).unwrap();
    assert!(matches!(store.find(CROSS), Err(ModelError::Damaged { .. })));
    assert!(matches!(store.list().unwrap()[0].state, ModelState::Partial { .. }));
    assert_eq!(store.pull(CROSS, &fixture.options(), &()).unwrap(), folder);
}

#[test]
fn a_store_that_cannot_be_made_is_told() {
    let fixture = Fixture::new(b"weights");
    fs::write(fixture.root.join("store"), "a file in the way").unwrap();
    let error = fixture.store().pull(CROSS, &fixture.options(), &()).unwrap_err();
    assert!(matches!(error, ModelError::Io { .. }), "{error}");
    assert_eq!(error.blame(), Blame::Failure);
}
