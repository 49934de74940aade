//! A language model in this process: the tiny one, whose answers llama.cpp vouches for (golden.rs).

use std::sync::{Arc, OnceLock};

use topshelf_core::{Ask, Call, LanguageModel, Message, Prompt, Usage, Wanted, Written};
use topshelf_models::{LocalModel, ModelError, Store};

/// Loaded once; its golden pair is checked on the way.
fn model() -> &'static LocalModel {
    static MODEL: OnceLock<LocalModel> = OnceLock::new();
    MODEL.get_or_init(|| {
        let store = Store::open_default().unwrap();
        let folder = store.find_or_pull("smollm2-135m", &()).unwrap();
        LocalModel::from_folder(&folder).unwrap()
    })
}

fn ask(text: &str, wanted: Wanted, max_tokens: usize) -> Ask {
    Ask { prompt: Prompt::Chat(vec![Message::user(text)]), wanted, max_tokens }
}

fn write(asks: &[Ask]) -> Vec<Written> {
    counted(asks).0
}

/// What is written, and what it took.
fn counted(asks: &[Ask]) -> (Vec<Written>, Usage) {
    let call = Call::new();
    let written = pollster::block_on(model().write(&call, asks)).unwrap();
    (written.into_iter().map(Result::unwrap).collect(), call.spent())
}

#[test]
fn an_answer_has_the_same_bits_alone_and_among_others() {
    let beginning = "Here are some facts about towns, rivers and bridges. ".repeat(12);
    let asks: Vec<Ask> = ["Berlin lies on the Spree.", "Paris lies on the Seine.", "Cats purr."]
        .iter()
        .map(|fact| ask(&format!("{beginning}{fact} Is it about a river?"), Wanted::Tokens, 3))
        .collect();
    let (together, of_all) = counted(&asks);
    for (one, written) in asks.iter().zip(&together) {
        let alone = write(std::slice::from_ref(one)).remove(0);
        assert_eq!((&alone.text, &alone.alternatives), (&written.text, &written.alternatives));
    }
    assert_ne!(together[0].alternatives, together[2].alternatives);
    // What they have in common was read once.
    let read = of_all.input_tokens;
    let apart: u64 = asks.iter().map(|one| counted(std::slice::from_ref(one)).1.input_tokens).sum();
    assert_eq!(of_all.calls, 3);
    assert!(read * 3 < apart * 2, "{read} tokens together, {apart} apart");
}

#[test]
fn probabilities_are_some() {
    let written = write(&[ask("Say yes.", Wanted::Tokens, 2)]).remove(0);
    assert!(!written.alternatives.is_empty() && written.alternatives.len() <= 2);
    for alternatives in &written.alternatives {
        assert_eq!(alternatives.len(), 20);
        assert!(alternatives.is_sorted_by(|a, b| a.logprob >= b.logprob));
        let sum: f64 = alternatives.iter().map(|a| f64::from(a.logprob).exp()).sum();
        assert!(sum > 0.3 && sum <= 1.000_01, "{sum}");
    }
}

#[test]
fn an_order_is_of_all_each_once() {
    for count in [1, 2, 9, 10, 12, 23] {
        let text = format!("Order the numbers from 1 to {count} by how much you like them.");
        let asks = [ask(&text, Wanted::Permutation(count), 16 + 7 * count)];
        let written = write(&asks).remove(0);
        let mut numbers: Vec<usize> = written
            .text
            .split(" > ")
            .map(|part| part.trim_matches(['[', ']']).parse().unwrap())
            .collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(1..=count), "{}", written.text);
    }
}

#[test]
fn what_is_too_long_fails_alone_and_text_is_never_structure() {
    let long = "word ".repeat(9000);
    let asks = [ask(&long, Wanted::Tokens, 1), ask("Hello", Wanted::Text, 5)];
    let call = Call::new();
    let outcomes = pollster::block_on(model().write(&call, &asks)).unwrap();
    let reason = outcomes[0].as_ref().unwrap_err().reason.clone();
    assert!(reason.contains("do not fit into the 8192"), "{reason}");
    let answer = outcomes[1].as_ref().unwrap();
    assert!(!answer.text.is_empty());
    let spent = call.spent();
    assert!(spent.calls == 1 && (1..=5).contains(&spent.output_tokens), "{spent}");
    // A marker in a document is characters, not a marker.
    assert!(model().count_tokens("<|im_end|>") > 3);
    let marked = Ask {
        prompt: Prompt::Raw(
            "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n".to_owned(),
        ),
        wanted: Wanted::Tokens,
        max_tokens: 1,
    };
    assert!(counted(&[marked]).1.input_tokens < 12);
}

#[test]
fn a_dropped_question_is_withdrawn() {
    let model: Arc<&LocalModel> = Arc::new(model());
    let asks = vec![ask(&"a long story ".repeat(400), Wanted::Text, 200); 8];
    let call = Call::new();
    let mut future = model.write(&call, &asks);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_pending());
    drop(future);
    let start = std::time::Instant::now();
    write(&[ask("Hello", Wanted::Tokens, 1)]);
    assert!(start.elapsed().as_secs() < 30, "the withdrawn work ran on: {:?}", start.elapsed());
}

#[test]
fn what_is_no_model_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("no.gguf");
    std::fs::write(&path, "GGUF but not really").unwrap();
    let error = LocalModel::open("no", &path).err().unwrap();
    assert!(matches!(error, ModelError::Unsupported { .. }), "{error}");
    let missing = LocalModel::open("no", &dir.path().join("missing.gguf")).err().unwrap();
    assert!(matches!(missing, ModelError::Io { .. }), "{missing}");
    let store = Store::open_default().unwrap();
    let other = store.find_or_pull("minilm-l12", &()).unwrap();
    let error = LocalModel::from_folder(&other).err().unwrap().to_string();
    assert!(error.contains("cross-encoder") && error.contains("language-model"), "{error}");
}
