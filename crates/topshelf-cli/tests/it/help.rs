//! `--help` of every command shows how it is used.

use std::path::Path;

use super::program::run;

/// Every command that `--help` names, each as the words that call it.
fn commands(above: &[String], found: &mut Vec<Vec<String>>) {
    let help = help(above);
    found.push(above.to_vec());
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in listed.take_while(|line| !line.is_empty()) {
        let name = line.split_whitespace().next().unwrap_or_default();
        // A wrapped description stands further to the right than a name.
        if line.starts_with("  ") && !line.starts_with("   ") && name != "help" {
            commands(&[above, &[name.to_owned()]].concat(), found);
        }
    }
}

fn help(command: &[String]) -> String {
    let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
    arguments.push("--help");
    run(Path::new("."), &arguments).success()
}

#[test]
fn every_command_shows_an_example() {
    let mut found = Vec::new();
    commands(&[], &mut found);
    for known in ["models pull", "index add", "search", "rerank", "eval", "demo"] {
        let words: Vec<&str> = known.split(' ').collect();
        assert!(found.iter().any(|command| *command == words), "no {known} in {found:?}");
    }
    for command in &found {
        let (name, text) = (command.join(" "), help(command));
        assert!(text.contains("Example"), "topshelf {name} --help has no example:\n{text}");
        let call = format!("topshelf {name}");
        assert!(text.matches(call.trim()).count() > 1, "no example calls {call}:\n{text}");
    }
}
