//! Qrels and run files, good, odd and broken.

use topshelf_eval::{EvalError, Measure, Qrels, QrelsWarning, Run, Ties, evaluate};

fn qrels(text: &str) -> Qrels {
    Qrels::read(text.as_bytes(), "qrels").unwrap().qrels
}

fn run(text: &str) -> Run {
    Run::read(text.as_bytes(), "run").unwrap()
}

fn qrels_fault(text: &str) -> String {
    Qrels::read(text.as_bytes(), "qrels").unwrap_err().to_string()
}

fn run_fault(text: &str) -> String {
    Run::read(text.as_bytes(), "run").unwrap_err().to_string()
}

#[test]
fn both_layouts_with_and_without_header_say_the_same() {
    let trec = qrels("q1 0 d1 2\nq1\t0\td2\t-1\nq2 Q0 d1 0\n");
    for beir in [
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t-1\nq2\td1\t0\n",
        "q1\td1\t2\nq1\td2\t-1\nq2\td1\t0",
        "\u{feff}query-id\tcorpus-id\tScore\r\n\r\nq1\td1\t2\r\nq1\td2\t-1\r\nq2\td1\t0\r\n",
    ] {
        assert_eq!(qrels(beir), trec);
    }
    assert_eq!((trec.query_count(), trec.judgment_count()), (2, 3));
    assert_eq!(trec.grade("q1", "d2"), Some(-1));
    assert_eq!(qrels("query 1\tmy file.md\t1\n").grade("query 1", "my file.md"), Some(1));
}

#[test]
fn repeated_judgments_are_warnings_and_the_last_one_wins() {
    let file = Qrels::read("q 0 a 1\nq 0 b 1\nq 0 a 1\nq 0 b 0\n".as_bytes(), "qrels").unwrap();
    assert_eq!(file.qrels.grade("q", "b"), Some(0));
    let (query, a, b) = ("q".to_owned(), "a".to_owned(), "b".to_owned());
    assert_eq!(
        file.warnings,
        [
            QrelsWarning::Repeated { query: query.clone(), document: a, first_line: 1, line: 3 },
            QrelsWarning::Conflict {
                query,
                document: b,
                first_line: 2,
                first_grade: 1,
                line: 4,
                grade: 0
            },
        ]
    );
    let said = file.warnings[1].to_string();
    assert!(said.contains("line 4") && said.contains("line 2") && said.contains("later"), "{said}");
}

#[test]
fn broken_qrels_are_refused_with_the_line() {
    for (text, said) in [
        ("q 0 a 1\nq 0 a\n", "qrels, line 2: expected 4 columns"),
        ("q\ta\t1\nq\ta\n", "qrels, line 2: expected 3 columns"),
        ("q\ta\tyes\n", "qrels, line 1: the grade \"yes\""),
        ("q\ta\t1\n\nq\tb\t1.5\n", "qrels, line 3: the grade \"1.5\""),
        ("q 0 a 99999999999\n", "32 bits"),
        ("q\t\t1\n", "empty"),
        ("just words\n", "neither BEIR"),
        ("query-id\tcorpus-id\tscore\n", "no judgments"),
        ("", "no judgments"),
    ] {
        let fault = qrels_fault(text);
        assert!(fault.contains(said), "{text:?}: {fault}");
    }
    let fault = Qrels::read(&b"q 0 a 1\nq 0 \xff 1\n"[..], "qrels").unwrap_err();
    assert!(matches!(fault, EvalError::NotUtf8 { line: 2, .. }));
}

#[test]
fn run_order_ignores_ranks_and_breaks_ties_by_id_descending() {
    let run = run("q Q0 a 1 1.0 t\nq Q0 c 2 2 t\r\nq Q0 b nine 1e0 other\n");
    let order: Vec<&str> = run.documents("q").iter().map(|d| d.id.as_str()).collect();
    assert_eq!(order, ["c", "b", "a"]);
    assert_eq!(run.tag(), "t");
    assert!(run.documents("elsewhere").is_empty());
}

#[test]
fn broken_runs_are_refused_with_the_line() {
    for (text, said) in [
        ("q Q0 a 1 2.0 t\nq Q0 b 2 NaN t\n", "run, line 2: the score \"NaN\""),
        ("q Q0 a 1 -inf t\n", "run, line 1: the score \"-inf\""),
        ("q Q0 a 1 1e999 t\n", "run, line 1: the score \"1e999\""),
        ("q Q0 a 1 high t\n", "line 1: the score \"high\" is not a number"),
        ("q Q0 a 1 2.0\n", "line 1: expected 6 columns"),
        ("q Q0 a 1 2.0 my system\n", "found 7"),
        ("q Q0 a 1 2 t\np Q0 a 1 2 t\nq Q0 a 2 1 t\n", "run, line 3: document \"a\" was already"),
        ("q Q0 a 1 2 t\np Q0 a 1 2 t\nq Q0 a 2 1 t\n", "on line 1"),
    ] {
        let fault = run_fault(text);
        assert!(fault.contains(said), "{text:?}: {fault}");
    }
    let fault = Run::read(&b"q Q0 \xe9 1 2 t\n"[..], "run").unwrap_err();
    assert!(matches!(fault, EvalError::NotUtf8 { line: 1, .. }));
    let fault = Run::open("no/such/file.trec").unwrap_err();
    assert!(fault.to_string().starts_with("no/such/file.trec: "));
}

#[test]
fn runs_made_by_a_program_are_checked_alike() {
    let mut run = Run::new("t");
    assert!(matches!(run.insert("q", [("a", f64::NAN)]), Err(EvalError::ScoreNotFinite { .. })));
    assert!(matches!(
        run.insert("q", [("a", 1.0), ("a", 1.0)]),
        Err(EvalError::DuplicateDocument { .. })
    ));
    assert!(run.is_empty());
    run.insert("q", [("a", 1.0_f32)]).unwrap();
    assert!(matches!(run.insert("q", [("b", 1.0)]), Err(EvalError::DuplicateRunQuery { .. })));
    run.insert("none", Vec::<(String, f64)>::new()).unwrap();
    assert_eq!(run.queries().collect::<Vec<_>>(), ["q"]);
}

#[test]
fn written_runs_have_ranks_and_refuse_ids_with_spaces() {
    let mut run = Run::new("demo");
    run.insert("q2", [("a", 0.1), ("b", 1e300), ("c", -2.0)]).unwrap();
    run.insert("q1", [("x", 3.0)]).unwrap();
    let mut text = Vec::new();
    run.write(&mut text).unwrap();
    assert_eq!(
        String::from_utf8(text).unwrap(),
        "q1 Q0 x 1 3.0 demo\nq2 Q0 b 1 1e300 demo\nq2 Q0 a 2 0.1 demo\nq2 Q0 c 3 -2.0 demo\n"
    );
    for (tag, query, document) in
        [("my tag", "q", "d"), ("", "q", "d"), ("t", "", "d"), ("t", "q", "a b")]
    {
        let mut run = Run::new(tag);
        run.insert(query, [(document, 1.0)]).unwrap();
        assert!(matches!(run.write(Vec::new()), Err(EvalError::IdNotWritable { .. })));
    }
    let path = std::env::temp_dir().join(format!("topshelf-run-{}.trec", std::process::id()));
    run.save(&path).unwrap();
    assert_eq!(Run::open(&path).unwrap(), run);
    std::fs::remove_file(&path).unwrap();
    let fault = run.save("no/such/folder/run.trec").unwrap_err();
    assert!(fault.to_string().starts_with("no/such/folder/run.trec: "), "{fault}");
}

#[test]
fn ties_are_counted_up_to_the_cut_and_across_it() {
    let run = run("q Q0 a 1 3 t\nq Q0 b 1 2 t\nq Q0 c 1 2.00000000001 t\nq Q0 d 1 1 t\n\
                   p Q0 a 1 3 t\np Q0 b 1 2 t\n");
    assert_eq!(run.ties(1), Ties::default());
    assert_eq!(run.ties(2), Ties { queries: 1, documents: 1 });
    assert_eq!(run.ties(10), Ties { queries: 1, documents: 2 });
}

#[test]
fn missing_and_unjudged_queries_are_named() {
    let qrels = qrels("q1 0 a 1\nq2 0 a 1\nq3 0 a 0\n");
    let measures = Measure::parse_list("MRR@10 recall@5").unwrap();
    let evaluation =
        evaluate(&qrels, &run("q1 Q0 a 1 1 t\nq3 Q0 a 1 1 t\nq9 Q0 a 1 1 t\n"), &measures).unwrap();
    assert_eq!(evaluation.missing, ["q2"]);
    assert_eq!(evaluation.unjudged, ["q9"]);
    assert_eq!(evaluation.without_relevant, ["q3"]);
    assert!((evaluation.mean(measures[0]).unwrap() - 1.0 / 3.0).abs() < 1e-12);
    let per_query: Vec<(&str, f64)> = evaluation.per_query(measures[1]).collect();
    assert_eq!(per_query, [("q1", 1.0), ("q2", 0.0), ("q3", 0.0)]);
    assert_eq!(evaluation.mean("MAP".parse().unwrap()), None);
    assert_eq!(evaluation.per_query("MAP".parse().unwrap()).count(), 0);
}

#[test]
fn nothing_to_measure_is_an_error_and_an_empty_run_is_zero() {
    let measures = Measure::parse_list("nDCG@10").unwrap();
    let judged = qrels("q1 0 a 1\n");
    assert!(matches!(evaluate(&Qrels::new(), &run(""), &measures), Err(EvalError::NoJudgments)));
    let fault = evaluate(&judged, &run("1 Q0 a 1 1 t\n"), &measures).unwrap_err().to_string();
    assert!(fault.contains("\"1\"") && fault.contains("\"q1\""), "{fault}");
    assert_eq!(evaluate(&judged, &run(""), &measures).unwrap().mean(measures[0]), Some(0.0));
}
